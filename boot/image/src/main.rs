//! `skep-image`: writes a disk image that boots under BIOS and UEFI.

use anyhow::{Context as _, Result, bail};
use skep_image::{Config, Contents, stages, write_image};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

const USAGE: &str = "\
usage: skep-image --stages DIR [--kernel ELF [--ramdisk FILE] --out DISK]

  --stages DIR    where the boot loader's binaries are; built there when missing
  --kernel ELF    the kernel, stripped
  --ramdisk FILE  the ramdisk; without it the image has none
  --out DISK      the image to write; without it only the boot loader is built";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("skep-image: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let options = Options::parse(env::args().skip(1))?;
    stages::build(&options.stages, |name| {
        eprintln!("skep-image: building the boot loader's {name} (first time only)");
    })?;
    let Some(out) = options.out else {
        return Ok(());
    };
    let kernel = options.kernel.context("--out needs --kernel")?;
    let contents = Contents {
        kernel: read(&kernel)?,
        ramdisk: options.ramdisk.as_deref().map(read).transpose()?,
        stages: stages::Stages::load(&options.stages)?,
        config: Config::default(),
    };
    write_image(&contents, &out)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

struct Options {
    stages: PathBuf,
    kernel: Option<PathBuf>,
    ramdisk: Option<PathBuf>,
    out: Option<PathBuf>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let (mut stages, mut kernel, mut ramdisk, mut out) = (None, None, None, None);
        while let Some(flag) = args.next() {
            let slot = match flag.as_str() {
                "--stages" => &mut stages,
                "--kernel" => &mut kernel,
                "--ramdisk" => &mut ramdisk,
                "--out" => &mut out,
                _ => bail!("unknown argument {flag}\n{USAGE}"),
            };
            let value = args
                .next()
                .with_context(|| format!("{flag} needs a value\n{USAGE}"))?;
            *slot = Some(PathBuf::from(value));
        }
        let stages = stages.with_context(|| format!("--stages is missing\n{USAGE}"))?;
        Ok(Self {
            stages,
            kernel,
            ramdisk,
            out,
        })
    }
}
