//! `skep image`: an image that a computer boots from.

use super::release::Terms;
use super::seal;
use crate::units::show_bytes;
use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use skep_api::manifest::SignedManifest;
use skep_api::settings::{MANIFEST_END, Settings, TEMPLATE};
use skep_image::loaders::Loaders;
use skep_image::{Config, Contents, pack, write_image};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// What the image is for. Today one form serves both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// A USB stick
    Usb,
    /// A disk
    Disk,
}

/// What to make, and of what.
#[derive(Debug, clap::Args)]
pub(crate) struct ImageArgs {
    /// What it is to be written to: the same image boots from both
    #[arg(value_enum)]
    form: Form,
    /// Write the image to this file
    #[arg(short, long, value_name = "FILE", default_value = "skep.img")]
    output: PathBuf,
    #[command(flatten)]
    system: SystemArgs,
    /// Put this file on the partition SKEP as skep.toml [default: one with comments only]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Put this signed manifest on the partition SKEP (repeat or list several)
    #[arg(short, long, value_name = "FILE", num_args = 1..)]
    manifest: Vec<PathBuf>,
    /// Write a compressed copy beside it, for download: FILE.gz
    #[arg(long)]
    compress: bool,
    /// Write no signature of the image beside it; the release in it is signed all the same
    #[arg(long)]
    unsigned: bool,
    #[command(flatten)]
    terms: Terms,
}

/// Where kernel, loaders and ramdisk come from.
#[derive(Debug, clap::Args)]
pub(super) struct SystemArgs {
    /// Folder of the system: skep-kernel and loaders [default: where this program is]
    #[arg(long, value_name = "FOLDER", env = "SKEP_SYSTEM")]
    system: Option<PathBuf>,
    /// The node's ramdisk, made by 'skep bundle' [default: ramdisk in the system's folder]
    #[arg(long, value_name = "FILE", conflicts_with = "no_ramdisk")]
    ramdisk: Option<PathBuf>,
    /// Leave the ramdisk out
    #[arg(long)]
    no_ramdisk: bool,
    /// Leave the ramdisk unpacked: it takes longer to read, and less memory to start
    #[arg(long)]
    unpacked: bool,
}

impl SystemArgs {
    pub(super) fn load(&self) -> Result<System> {
        System::load(self.system.as_deref())
    }

    pub(super) fn ramdisk(&self, folder: &Path) -> Result<Option<Vec<u8>>> {
        let ramdisk = match (&self.ramdisk, self.no_ramdisk) {
            (_, true) => return Ok(None),
            (Some(path), _) => read(path)?,
            (None, _) => read(&folder.join("ramdisk"))
                .context("name the node's ramdisk with --ramdisk; 'skep bundle' makes one")?,
        };
        let ramdisk = match self.unpacked {
            true => pack::unpack(&ramdisk)?,
            false => pack::pack(&ramdisk)?,
        };
        Ok(Some(ramdisk.into_owned()))
    }
}

/// Makes the image, its check sum and its signature.
pub(crate) fn run(args: &ImageArgs) -> Result<()> {
    // Before the work: a missing key is a matter of a moment.
    let signing = args.terms.signing()?;
    let system = args.system.load()?;
    let contents = Contents {
        ramdisk: args.system.ramdisk(&system.folder)?,
        kernel: system.kernel,
        loaders: system.loaders,
        config: config(args)?,
        signing,
    };
    write_image(&contents, &args.output)?;
    let sum = seal::seal(
        &args.output,
        (!args.unsigned).then_some(&contents.signing.key),
    )?;
    let len = fs::metadata(&args.output)?.len();
    println!("{sum}  {} ({})", args.output.display(), show_bytes(len));
    if args.compress {
        let compressed = compress(&args.output)?;
        let len = fs::metadata(&compressed)?.len();
        println!("{} ({})", compressed.display(), show_bytes(len));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// What every node boots: the kernel and the loaders.
pub(crate) struct System {
    /// Where they are.
    pub(crate) folder: PathBuf,
    /// The kernel ELF.
    pub(crate) kernel: Vec<u8>,
    /// The loaders.
    pub(crate) loaders: Loaders,
}

impl System {
    /// Reads them from a folder, or from where this program is.
    ///
    /// # Errors
    /// They are not there.
    pub(crate) fn load(named: Option<&Path>) -> Result<Self> {
        let folder = system_folder(named)?;
        Ok(Self {
            kernel: read(&folder.join("skep-kernel"))?,
            loaders: Loaders::load(&folder.join("loaders"))?,
            folder,
        })
    }
}

/// The folder with the kernel and the boot loader.
fn system_folder(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(folder) = named {
        return Ok(folder.to_path_buf());
    }
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let folder = program.parent().unwrap_or(Path::new("."));
    if !folder.join("skep-kernel").exists() {
        bail!(
            "there is no skep-kernel in {}; name the system's folder with --system",
            folder.display()
        );
    }
    Ok(folder.to_path_buf())
}

/// The files for the partition `SKEP`.
fn config(args: &ImageArgs) -> Result<Config> {
    let toml = match &args.config {
        Some(path) => {
            let bytes = read(path)?;
            Settings::parse(&bytes)
                .with_context(|| format!("the node would not use {}", path.display()))?;
            bytes
        }
        None => TEMPLATE.as_bytes().to_vec(),
    };
    let mut manifests: Vec<(String, Vec<u8>)> = Vec::new();
    for path in &args.manifest {
        let bytes = read(path)?;
        let manifest = SignedManifest::decode(&bytes)
            .and_then(|signed| signed.payload_unverified())
            .with_context(|| format!("{}", path.display()))?;
        let name = format!("{}{MANIFEST_END}", manifest.name);
        if manifests.iter().any(|(other, _)| *other == name) {
            bail!("two manifests are called {}; leave one out", manifest.name);
        }
        manifests.push((name, bytes));
    }
    Ok(Config { toml, manifests })
}

/// Writes `FILE.gz`. The header names no file and no time, so that the same image
/// gives the same bytes.
fn compress(image: &Path) -> Result<PathBuf> {
    let out = super::beside(image, "gz");
    let write = || -> io::Result<()> {
        let mut input = BufReader::with_capacity(1 << 20, File::open(image)?);
        let file = BufWriter::with_capacity(1 << 20, File::create(&out)?);
        let mut encoder = GzEncoder::new(file, Compression::best());
        io::copy(&mut input, &mut encoder)?;
        encoder.finish()?.flush()
    };
    write().with_context(|| format!("cannot write {}", out.display()))?;
    Ok(out)
}
