//! Check sum and signature of an image: `FILE.sha256`, as `sha256sum -c` reads it,
//! and `FILE.sig`, by the owner.

use super::source::Source;
use super::{beside, image_of};
use crate::key;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use skep_api::key::{KeyPair, Signature};
use skep_api::{Hash, PublicKey};
use std::fs;
use std::path::{Path, PathBuf};

/// What signatures of images are for; see `docs/reference/formats.md`.
const DOMAIN: &str = "skep-image-v1";
/// First line of a signature's file.
const TITLE: &str = "skep-image-signature";

/// A SHA-256. It is as long as our own hashes and is written and read as they are.
pub(crate) type Sum = Hash;

/// `skep verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The image, or its compressed form
    #[arg(value_name = "FILE", default_value = "skep.img")]
    image: PathBuf,
    /// Who must have signed it: 64 hexadecimal digits or a key file, secret or public
    #[arg(
        short,
        long,
        value_name = "KEY",
        env = "SKEP_KEY",
        default_value = "owner.key"
    )]
    key: String,
}

/// Verifies.
pub(crate) fn verify(args: &VerifyArgs) -> Result<()> {
    let owner = key::public(&args.key)?;
    let seal = Seal::read(&args.image)?;
    let (sum, _) = sum_of(&args.image, |_| {})?;
    let shown = args.image.display();
    let Some(signed) = seal.check(&args.image, sum)? else {
        bail!(
            "{shown} is not signed: {} is missing",
            beside(&image_of(&args.image), "sig").display()
        );
    };
    if signed != owner {
        bail!("{shown} is signed by {signed}, not by {owner}; do not use it");
    }
    println!("{shown} is whole and signed by {signed}");
    Ok(())
}

/// What lies beside an image.
#[derive(Debug)]
pub(crate) struct Seal {
    sum: Option<Sum>,
    signature: Option<(PublicKey, Signature)>,
}

impl Seal {
    /// Reads what there is beside `image`.
    pub(crate) fn read(image: &Path) -> Result<Self> {
        let plain = image_of(image);
        let read = |end: &str| -> Result<Option<(PathBuf, String)>> {
            let path = beside(&plain, end);
            match fs::read_to_string(&path) {
                Ok(text) => Ok(Some((path, text))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error).context(format!("cannot read {}", path.display())),
            }
        };
        let mut seal = Self {
            sum: None,
            signature: None,
        };
        if let Some((path, text)) = read("sha256")? {
            let sum = text.split_whitespace().next().map(str::parse);
            let bad = || format!("{} is not a check sum", path.display());
            seal.sum = Some(sum.with_context(bad)?.with_context(bad)?);
        }
        if let Some((path, text)) = read("sig")? {
            let parsed = parse_signature(&text);
            let bad = || format!("{} is not the signature of an image", path.display());
            seal.signature = Some(parsed.with_context(bad)?);
        }
        Ok(seal)
    }

    /// Whether there is nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.sum.is_none() && self.signature.is_none()
    }

    /// Checks an image of this sum, and returns who signed it.
    pub(crate) fn check(&self, image: &Path, sum: Sum) -> Result<Option<PublicKey>> {
        let shown = image.display();
        if self.sum.is_some_and(|expected| expected != sum) {
            let named = beside(&image_of(image), "sha256");
            let named = named.display();
            bail!("{shown} is damaged: its SHA-256 is not the one in {named}; get it again");
        }
        let Some((key, signature)) = &self.signature else {
            return Ok(None);
        };
        if !key.verifies(DOMAIN, &[&sum.0], signature) {
            bail!("{shown} is damaged or changed: its signature is wrong; get it again");
        }
        Ok(Some(*key))
    }
}

/// Writes check sum and, with a key, signature of a new image; an older signature goes.
pub(crate) fn seal(image: &Path, pair: Option<&KeyPair>) -> Result<Sum> {
    let (sum, _) = sum_of(image, |_| {})?;
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    write(&beside(image, "sha256"), &format!("{sum}  {name}\n"))?;
    let signature = beside(image, "sig");
    match pair {
        Some(pair) => {
            let made = pair.sign(DOMAIN, &[&sum.0]);
            write(&signature, &format!("{TITLE} {} {made}\n", pair.public()))?;
        }
        None if signature.exists() => fs::remove_file(&signature)
            .with_context(|| format!("cannot remove {}", signature.display()))?,
        None => {}
    }
    Ok(sum)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// SHA-256 and length of an image. `progress` is called with thousandths now and then.
pub(crate) fn sum_of(image: &Path, mut progress: impl FnMut(u64)) -> Result<(Sum, u64)> {
    let mut source = Source::open(image)?;
    let mut sum = Summing::new();
    let mut buffer = vec![0; 1 << 20];
    let mut len = 0;
    loop {
        let filled = source
            .fill(&mut buffer)
            .with_context(|| format!("cannot read {}", image.display()))?;
        if filled == 0 {
            return Ok((sum.finish(), len));
        }
        sum.add(&buffer[..filled]);
        len += filled as u64;
        progress(source.progress());
    }
}

/// A sum in the making.
pub(crate) struct Summing(Sha256);

impl Summing {
    pub(crate) fn new() -> Self {
        Self(Sha256::new())
    }

    /// Adds the next bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sum of all.
    pub(crate) fn finish(self) -> Sum {
        Hash(self.0.finalize().into())
    }
}

fn parse_signature(text: &str) -> Option<(PublicKey, Signature)> {
    let mut words = text.split_whitespace();
    let (title, key, signature) = (words.next()?, words.next()?, words.next()?);
    if title != TITLE || words.next().is_some() {
        return None;
    }
    Some((key.parse().ok()?, signature.parse().ok()?))
}
