//! Images: the files of a capsule, collected, then stored by content.

pub(crate) mod files;
pub(crate) mod folder;
pub(crate) mod store;
pub(crate) mod tarball;
pub(crate) mod unpack;
