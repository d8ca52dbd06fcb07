//! A disk with a volatile write cache, which a power cut really loses.
//!
//! QEMU reaches it by NBD, so that no cache of the host is in between: what the machine
//! wrote and did not flush is in this process and nowhere else. After a cut
//! [`VolatileDisk::settle`] lets a random part of it reach the image, as a disk may: of
//! each sector of 512 bytes what the image had, or any of the contents written since the
//! last flush. So writes are torn, and come in any order. One cut can be settled many
//! times, each time with another outcome.
//!
//! A machine killed at a random time hardly ever dies between two writes that belong
//! together. [`VolatileDisk::cut_at`] has the power go with a certain request.

use crate::{
    dice::Dice,
    nbd::{self, Export, Request},
    node::TempFolder,
};
use anyhow::{Context as _, Result};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::File,
    io,
    os::unix::{fs::FileExt as _, net::UnixListener},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

const SECTOR: usize = 512;

/// Contents of a sector.
type Content = [u8; SECTOR];

/// What a disk was asked since it had power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Of these, how many were to be durable at once.
    pub durable_writes: u64,
    /// Flushes.
    pub flushes: u64,
}

impl Asked {
    /// Requests that change what is durable, or would be.
    pub fn changes(&self) -> u64 {
        self.writes + self.flushes
    }

    /// What came after `before`, which is of the same time with power.
    pub fn since(&self, before: &Asked) -> Asked {
        Asked {
            reads: self.reads - before.reads,
            writes: self.writes - before.writes,
            durable_writes: self.durable_writes - before.durable_writes,
            flushes: self.flushes - before.flushes,
        }
    }

    /// All requests.
    pub fn all(&self) -> u64 {
        self.reads + self.changes()
    }
}

/// What a cut came to, in sectors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loss {
    /// Sectors that were written and not flushed.
    pub unflushed: u64,
    /// Of these, how many have not the content that was written last.
    pub lost: u64,
}

/// The disk, served as long as this lives. Machines come and go; its image is what is
/// durable.
pub struct VolatileDisk {
    image: PathBuf,
    folder: TempFolder,
    shared: Arc<Shared>,
}

struct Shared {
    size: u64,
    disk: Mutex<Disk>,
    went_off: Condvar,
}

struct Disk {
    image: File,
    /// What was written to each sector since the last flush, oldest first.
    cache: BTreeMap<u64, Vec<Content>>,
    /// What the image had there before it was settled.
    durable: BTreeMap<u64, Content>,
    asked: Asked,
    /// When the power goes by itself.
    end: Option<fn(&Asked) -> u64>,
    end_at: u64,
    is_on: bool,
    /// Counts how often the power was back.
    life: u64,
}

/// A machine at the disk. What one that is gone had still asked comes to nothing.
struct Client<'a> {
    shared: &'a Shared,
    life: u64,
}

impl VolatileDisk {
    /// Serves a raw image, which only this writes from now on.
    pub fn new(image: &Path) -> Result<Self> {
        let file = File::options().read(true).write(true).open(image);
        let file = file.with_context(|| format!("cannot open {}", image.display()))?;
        let folder = TempFolder::new()?;
        let shared = Arc::new(Shared {
            size: file.metadata()?.len(),
            disk: Mutex::new(Disk::new(file, 0)),
            went_off: Condvar::new(),
        });
        let disk = Self {
            image: image.to_path_buf(),
            folder,
            shared: shared.clone(),
        };
        let listener = UnixListener::bind(disk.socket())?;
        // Ends with this process; until then it costs nothing.
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(mut client) = client else { return };
                let life = shared.lock().life;
                let shared = &shared;
                // A machine that is killed ends in the middle of whatever it asks.
                let _ = nbd::serve(&mut client, &Client { shared, life });
            }
        });
        Ok(disk)
    }

    /// What is durable.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Where QEMU finds it.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("nbd")
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Asked {
        self.shared.lock().asked
    }

    /// Takes the power away with the `count`th request from now on, of those that `of`
    /// counts. A write is then in the cache, a flush has done nothing, and neither is
    /// answered.
    pub fn cut_at(&self, of: fn(&Asked) -> u64, count: u64) {
        let mut disk = self.shared.lock();
        disk.end_at = of(&disk.asked) + count.max(1);
        disk.end = Some(of);
    }

    /// Whether that has happened, within this time.
    pub fn wait_cut(&self, timeout: Duration) -> bool {
        let disk = self.shared.lock();
        let waited = self
            .shared
            .went_off
            .wait_timeout_while(disk, timeout, |disk| disk.is_on);
        let (disk, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !disk.is_on
    }

    /// Takes the power away now, if it is there.
    pub fn cut(&self) {
        self.shared.lock().is_on = false;
    }

    /// After a cut: the image is one of those that it may have left, where each unflushed
    /// sector has reached it with a chance of `stays` eighths. Another call leaves another
    /// one.
    pub fn settle(&self, dice: &mut Dice, stays: u64) -> Result<Loss> {
        Ok(self.shared.lock().settle(dice, stays)?)
    }

    /// Has power again, with what was settled last. The machine of before is to be gone.
    pub fn restore(&self) -> Result<()> {
        let mut disk = self.shared.lock();
        let image = disk.image.try_clone()?;
        *disk = Disk::new(image, disk.life + 1);
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Export for Client<'_> {
    fn size(&self) -> u64 {
        self.shared.size
    }

    fn handle(&self, request: Request<'_>) -> io::Result<bool> {
        let (at, len) = match &request {
            Request::Read(at, into) => (*at, into.len()),
            Request::Write(at, from, _) => (*at, from.len()),
            Request::Flush => (0, 0),
        };
        let end = at.checked_add(len as u64);
        let is_whole = at % SECTOR as u64 == 0 && len.is_multiple_of(SECTOR);
        if !is_whole || end.is_none_or(|end| end > self.size()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut disk = self.shared.lock();
        if !disk.is_on || disk.life != self.life {
            return Ok(false);
        }
        disk.handle(request)?;
        if !disk.is_on {
            self.shared.went_off.notify_all();
        }
        Ok(disk.is_on)
    }
}

impl Disk {
    fn new(image: File, life: u64) -> Self {
        Self {
            image,
            cache: BTreeMap::new(),
            durable: BTreeMap::new(),
            asked: Asked::default(),
            end: None,
            end_at: 0,
            is_on: true,
            life,
        }
    }

    fn handle(&mut self, request: Request<'_>) -> io::Result<()> {
        match &request {
            Request::Read(..) => self.asked.reads += 1,
            Request::Write(_, _, is_durable) => {
                self.asked.writes += 1;
                self.asked.durable_writes += u64::from(*is_durable);
            }
            Request::Flush => self.asked.flushes += 1,
        }
        let is_last = self.end.is_some_and(|of| of(&self.asked) >= self.end_at);
        self.is_on = !is_last;
        match request {
            Request::Read(at, into) => self.read(at, into),
            Request::Write(at, from, is_durable) => {
                self.write(at, from);
                if is_durable && !is_last {
                    self.flush(at / SECTOR as u64, from.len() / SECTOR)?;
                }
                Ok(())
            }
            Request::Flush if is_last => Ok(()),
            Request::Flush => self.flush(0, usize::MAX),
        }
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.image.read_exact_at(into, at)?;
        for (sector, part) in (at / SECTOR as u64..).zip(into.chunks_mut(SECTOR)) {
            if let Some(last) = self.cache.get(&sector).and_then(|all| all.last()) {
                part.copy_from_slice(last);
            }
        }
        Ok(())
    }

    fn write(&mut self, at: u64, from: &[u8]) {
        let (parts, _) = from.as_chunks::<SECTOR>();
        for (sector, part) in (at / SECTOR as u64..).zip(parts) {
            self.cache.entry(sector).or_default().push(*part);
        }
    }

    /// Makes the last content of these sectors durable.
    fn flush(&mut self, first: u64, count: usize) -> io::Result<()> {
        let end = first.saturating_add(count as u64);
        let rest = self.cache.split_off(&first);
        for (sector, contents) in rest {
            if sector >= end {
                self.cache.insert(sector, contents);
            } else if let Some(last) = contents.last() {
                self.image.write_all_at(last, sector * SECTOR as u64)?;
            }
        }
        Ok(())
    }

    fn settle(&mut self, dice: &mut Dice, stays: u64) -> io::Result<Loss> {
        self.is_on = false;
        let mut loss = Loss::default();
        for (&sector, contents) in &self.cache {
            let at = sector * SECTOR as u64;
            let durable = match self.durable.entry(sector) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(unknown) => {
                    let mut found = [0; SECTOR];
                    self.image.read_exact_at(&mut found, at)?;
                    *unknown.insert(found)
                }
            };
            let reached = if dice.below(8) < stays {
                contents.get(dice.below(contents.len() as u64) as usize)
            } else {
                None
            };
            let left = reached.unwrap_or(&durable);
            self.image.write_all_at(left, at)?;
            loss.unflushed += 1;
            loss.lost += u64::from(contents.last() != Some(left));
        }
        Ok(loss)
    }
}

#[cfg(test)]
mod tests;
