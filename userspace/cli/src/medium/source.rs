//! Reading an image, compressed or not.

use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

const BUFFER: usize = 1 << 20;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// An image being read from its beginning.
pub(crate) struct Source {
    reader: Box<dyn Read>,
    consumed: Rc<Cell<u64>>,
    file_len: u64,
}

impl Source {
    /// Opens an image; whether it is compressed is told by its first bytes.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let open = || -> io::Result<Self> {
            let mut file = File::open(path)?;
            let mut first = [0; 2];
            let found = file.read(&mut first)?;
            // Opened anew: a pipe could not be read twice, and is no image.
            let file = File::open(path)?;
            let file_len = file.metadata()?.len();
            let consumed = Rc::new(Cell::new(0));
            let counted = Counted {
                file,
                consumed: consumed.clone(),
            };
            let plain = BufReader::with_capacity(BUFFER, counted);
            let reader: Box<dyn Read> = match found == 2 && first == GZIP {
                true => Box::new(MultiGzDecoder::new(plain)),
                false => Box::new(plain),
            };
            Ok(Self {
                reader,
                consumed,
                file_len,
            })
        };
        open().with_context(|| format!("cannot read {}", path.display()))
    }

    /// How much of the file has been read, in thousandths.
    pub(crate) fn progress(&self) -> u64 {
        self.consumed.get().saturating_mul(1000) / self.file_len.max(1)
    }

    /// Fills `buffer` unless the image ends, and returns how much it did.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.reader.read(rest) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// A file that says how much of it was read.
struct Counted {
    file: File,
    consumed: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.consumed.set(self.consumed.get() + read as u64);
        Ok(read)
    }
}
