//! `skep-image`: writes a disk image that boots under BIOS and UEFI.

use anyhow::{Context as _, Result, bail, ensure};
use skep_api::{KeyPair, PublicKey};
use skep_image::{
    Config, Contents, loaders::Loaders, pack, release::Signing, write_image, write_release,
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

const USAGE: &str = "\
usage: skep-image --kernel ELF [--ramdisk FILE] --key FILE
                  [--loaders DIR --out DISK] [--release FILE]

  --loaders DIR   where the loaders are that the image starts with
  --kernel ELF    the kernel, stripped
  --ramdisk FILE  the ramdisk; without it the image has none
  --packing no    leaves the ramdisk as it is; it is packed otherwise
  --key FILE      the release key, as `skep keygen` makes them
  --version N     the release's number, 1 unless said otherwise
  --command-line TEXT  what the kernel is told
  --health-seconds N   time that a node has to become healthy with it
  --tries N       how often it may be started without having been healthy
  --out DISK      the image to write
  --release FILE  a release to write, for nodes to be updated with";

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
    ensure!(
        options.out.is_some() || options.release.is_some(),
        "neither --out nor --release\n{USAGE}"
    );
    let kernel = options.kernel.as_deref();
    let kernel = read(kernel.context("an image or release needs --kernel")?)?;
    let ramdisk = options.ramdisk.as_deref().map(read).transpose()?;
    let ramdisk = match (&ramdisk, options.unpacked) {
        (Some(ramdisk), true) => Some(pack::unpack(ramdisk)?.into_owned()),
        (Some(ramdisk), false) => Some(pack::pack(ramdisk)?.into_owned()),
        (None, _) => None,
    };
    if let Some(out) = &options.release {
        write_release(
            &kernel,
            ramdisk.as_deref().unwrap_or_default(),
            &options.signing()?,
            out,
        )?;
    }
    let Some(out) = &options.out else {
        return Ok(());
    };
    let loaders = options.loaders.as_deref();
    let loaders = loaders.context("an image needs --loaders")?;
    let contents = Contents {
        kernel,
        ramdisk,
        loaders: Loaders::load(loaders)?,
        config: Config::default(),
        signing: options.signing()?,
    };
    write_image(&contents, out)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[derive(Default)]
struct Options {
    loaders: Option<PathBuf>,
    kernel: Option<PathBuf>,
    ramdisk: Option<PathBuf>,
    unpacked: bool,
    key: Option<PathBuf>,
    version: Option<u64>,
    command_line: Option<String>,
    health_seconds: Option<u32>,
    tries: Option<u8>,
    out: Option<PathBuf>,
    release: Option<PathBuf>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        while let Some(flag) = args.next() {
            let value = args
                .next()
                .with_context(|| format!("{flag} needs a value\n{USAGE}"))?;
            let number = || format!("{flag} needs a number\n{USAGE}");
            match flag.as_str() {
                "--loaders" => options.loaders = Some(value.into()),
                "--kernel" => options.kernel = Some(value.into()),
                "--ramdisk" => options.ramdisk = Some(value.into()),
                "--packing" => {
                    ensure!(value == "no", "--packing can only be no\n{USAGE}");
                    options.unpacked = true;
                }
                "--key" => options.key = Some(value.into()),
                "--version" => options.version = Some(value.parse().with_context(number)?),
                "--command-line" => options.command_line = Some(value),
                "--health-seconds" => {
                    options.health_seconds = Some(value.parse().with_context(number)?);
                }
                "--tries" => options.tries = Some(value.parse().with_context(number)?),
                "--out" => options.out = Some(value.into()),
                "--release" => options.release = Some(value.into()),
                _ => bail!("unknown argument {flag}\n{USAGE}"),
            }
        }
        Ok(options)
    }

    fn signing(&self) -> Result<Signing> {
        let path = self.key.as_deref();
        let path = path.context("an image or release needs --key")?;
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let seed = text.split_whitespace().last();
        let seed = seed.and_then(|seed| seed.parse::<PublicKey>().ok());
        let key = seed.and_then(|seed| KeyPair::from_seed(seed.0));
        let key = key.with_context(|| format!("{} is not a key", path.display()))?;
        let mut signing = Signing::new(key, self.version.unwrap_or(1));
        signing.command_line = self.command_line.clone().unwrap_or_default();
        signing.health_seconds = self.health_seconds.unwrap_or(signing.health_seconds);
        signing.tries = self.tries.unwrap_or(signing.tries);
        Ok(signing)
    }
}
