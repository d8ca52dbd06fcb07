//! Boot media: images of them, their seals, and writing them to real devices.
//!
//! An image `skep.img` may have beside it `skep.img.gz` (the same, compressed),
//! `skep.img.sha256` and `skep.img.sig`; the last two are about the image itself,
//! however it is stored.

mod device;
pub(crate) mod flash;
pub(crate) mod make;
mod progress;
pub(crate) mod release;
pub(crate) mod seal;
mod source;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A file that belongs to an image: its name and `.END`.
fn beside(image: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(image);
    name.push(".");
    name.push(end);
    name.into()
}

/// The image that a compressed form is of, or the image itself.
fn image_of(path: &Path) -> PathBuf {
    match path.extension().is_some_and(|end| end == "gz") {
        true => path.with_extension(""),
        false => path.to_path_buf(),
    }
}
