//! The owner's key as files: `owner.key` (secret) and `owner.key.pub`.

use anyhow::{Context, Result, bail};
use skep_api::{KeyPair, PublicKey};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// First word of a secret key file; the seed in hexadecimal digits follows.
const SECRET_LABEL: &str = "skep-secret-key";
/// First word of a public key file; the key in hexadecimal digits follows.
const PUBLIC_LABEL: &str = "skep-public-key";

/// Makes a key from the system's random source and writes both files.
pub(crate) fn generate(path: &Path) -> Result<PublicKey> {
    let seed = random_seed()?;
    let pair = KeyPair::from_seed(seed).context("the random source returned zeros")?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| match path.exists() {
            true => format!(
                "{} exists; an owner's key is not replaced, choose another name",
                path.display()
            ),
            false => format!("cannot write {}", path.display()),
        })?;
    // The text form of a seed is that of a key: 64 hexadecimal digits.
    writeln!(file, "{SECRET_LABEL} {}", PublicKey(seed))
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))?;
    let public = public_path(path);
    fs::write(&public, format!("{PUBLIC_LABEL} {}\n", pair.public()))
        .with_context(|| format!("cannot write {}", public.display()))?;
    Ok(pair.public())
}

/// Where the public half of `owner.key` lies: `owner.key.pub`.
pub(crate) fn public_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// Reads a secret key file.
pub(crate) fn load(path: &Path) -> Result<KeyPair> {
    let text = fs::read_to_string(path).with_context(|| {
        format!(
            "cannot read the owner's key {}; make one with 'skep keygen'",
            path.display()
        )
    })?;
    let seed = labelled(&text, SECRET_LABEL).and_then(|seed| KeyPair::from_seed(seed.0));
    seed.with_context(|| format!("{} is not an owner's secret key", path.display()))
}

/// A public key: 64 hexadecimal digits, or a public or secret key file.
pub(crate) fn public(value: &str) -> Result<PublicKey> {
    if let Ok(key) = value.parse() {
        return Ok(key);
    }
    let text = fs::read_to_string(value).with_context(|| {
        format!("'{value}' is neither 64 hexadecimal digits nor a readable key file")
    })?;
    if let Some(key) = labelled(&text, PUBLIC_LABEL) {
        return Ok(key);
    }
    match labelled(&text, SECRET_LABEL).and_then(|seed| KeyPair::from_seed(seed.0)) {
        Some(pair) => Ok(pair.public()),
        None => bail!("{value} is not a key file; make one with 'skep keygen'"),
    }
}

fn labelled(text: &str, label: &str) -> Option<PublicKey> {
    text.trim().strip_prefix(label)?.trim().parse().ok()
}

/// A key that nobody keeps.
pub(crate) fn passing() -> Result<KeyPair> {
    KeyPair::from_seed(random_seed()?).context("the random source returned zeros")
}

/// 32 bytes from the system's random source.
pub(crate) fn random_seed() -> Result<[u8; 32]> {
    let mut seed = [0; 32];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut seed))
        .context("cannot read random bytes from /dev/urandom")?;
    Ok(seed)
}
