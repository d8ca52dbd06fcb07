//! Who writes a file and who runs it: a program that runs is not written, and a file
//! that is being written is not run (`ETXTBSY`, open(2), execve(2)).

use crate::error::{Error, Result};
use crate::mount::Path;
use core::sync::atomic::{AtomicI32, Ordering::Relaxed};

/// Descriptions that write a file, or minus the programs that run it.
#[derive(Debug, Default)]
pub struct Writers(AtomicI32);

impl Writers {
    /// One more writes.
    ///
    /// # Errors
    /// [`Error::TextBusy`] while it is run.
    pub(crate) fn add(&self) -> Result<()> {
        let more = |n: i32| if n < 0 { None } else { n.checked_add(1) };
        match self.0.fetch_update(Relaxed, Relaxed, more) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::TextBusy),
        }
    }

    /// One less.
    pub(crate) fn remove(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// How many write it; none while it is run.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.0.load(Relaxed)).unwrap_or(0)
    }

    fn deny(&self) -> Result<()> {
        let more = |n: i32| if n > 0 { None } else { n.checked_sub(1) };
        match self.0.fetch_update(Relaxed, Relaxed, more) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::TextBusy),
        }
    }

    fn allow(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// The file of a running program: nobody writes it as long as this lives.
pub struct Running(Path);

impl Running {
    /// Runs the file at `path`.
    ///
    /// # Errors
    /// [`Error::TextBusy`] while somebody writes it; [`Error::NotFound`].
    pub fn new(path: Path) -> Result<Running> {
        path.inode()?.attr().writers().deny()?;
        Ok(Running(path))
    }

    /// Where it was found.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(inode) = self.0.inode() {
            inode.attr().writers().allow();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_and_runners_exclude_each_other() {
        let w = Writers::default();
        w.add().unwrap();
        w.add().unwrap();
        assert_eq!(w.deny(), Err(Error::TextBusy));
        w.remove();
        w.remove();
        w.deny().unwrap();
        w.deny().unwrap();
        w.allow();
        assert_eq!(w.add(), Err(Error::TextBusy));
        w.allow();
        w.add().unwrap();
    }
}
