//! `/proc/PID/mem`: the memory of a process, for those who may trace it.

use super::{ProcMemory, ProcProcess};
use crate::error::{Error, Result};
use crate::file::{FileOps, OpenFile, Opening, Seek};
use crate::inode::{Attr, Inode, SetAttr};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use machine::addr::PAGE_SIZE;
use machine::io::{Sink, Source};

pub(super) struct MemFile {
    pub(super) attr: Attr,
    pub(super) process: Arc<dyn ProcProcess>,
}

impl Inode for MemFile {
    fn attr(&self) -> &Attr {
        &self.attr
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn set_attr(&self, _: &SetAttr) -> Result<()> {
        Err(Error::NotPermitted)
    }

    fn open(self: Arc<Self>, _: &Opening<'_>) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(OpenMem(self.process.memory()?)))
    }
}

/// The memory as it was opened: another program's of the same process is not it.
struct OpenMem(Arc<dyn ProcMemory>);

/// Room for a part of a transfer of `left` bytes.
fn chunk(left: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let len = left.min(PAGE_SIZE);
    bytes.try_reserve_exact(len)?;
    bytes.resize(len, 0);
    Ok(bytes)
}

impl FileOps for OpenMem {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn is_positional(&self) -> bool {
        true
    }

    fn pread(&self, _: &OpenFile, sink: &mut Sink<'_>, offset: u64) -> Result<usize> {
        let start = usize::try_from(offset).map_err(|_| Error::Io)?;
        let mut bytes = chunk(sink.left())?;
        let mut done = 0;
        while sink.left() > 0 && (done == 0 || !machine::thread::pause()) {
            let part = bytes.get_mut(..sink.left().min(PAGE_SIZE));
            let part = part.unwrap_or_default();
            let n = self.0.read(start.saturating_add(done), part);
            match n {
                0 if done == 0 => return Err(Error::Io),
                0 => break,
                n => done += sink.put(part.get(..n).unwrap_or_default())?,
            }
        }
        Ok(done)
    }

    fn pwrite(&self, _: &OpenFile, source: &mut Source<'_>, offset: u64) -> Result<usize> {
        let start = usize::try_from(offset).map_err(|_| Error::Io)?;
        let mut bytes = chunk(source.left())?;
        let mut done = 0;
        while source.left() > 0 && (done == 0 || !machine::thread::pause()) {
            let part = bytes.get_mut(..source.left().min(PAGE_SIZE));
            let part = part.unwrap_or_default();
            let given = source.take(part)?;
            let part = part.get(..given).unwrap_or_default();
            let n = self.0.write(start.saturating_add(done), part);
            done += n;
            if n < given {
                break;
            }
        }
        match done {
            0 => Err(Error::Io),
            n => Ok(n),
        }
    }

    fn seek(&self, _: &OpenFile, from: u64, to: Seek) -> Result<u64> {
        match to {
            Seek::Set(_) | Seek::Current(_) => to.within(from, 0),
            _ => Err(Error::Invalid),
        }
    }
}
