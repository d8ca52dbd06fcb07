//! `skep flash`: writes an image to a real disk, and makes sure that it is there.

use super::device::{System, Target};
use super::progress::Bar;
use super::seal::{self, Seal};
use super::source::Source;
use crate::units::show_bytes;
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::Advice;
use skep_image::gpt::{BACKUP_SECTORS, FIRST_USABLE, SECTOR, Tables};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::num::NonZero;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What is written at a time.
const PIECE: usize = 4 << 20;

/// Which image, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct FlashArgs {
    /// The disk, such as /dev/sdb; everything on it is lost
    #[arg(value_name = "DEVICE")]
    device: PathBuf,
    /// The image, compressed or not
    #[arg(short, long, value_name = "FILE", default_value = "skep.img")]
    image: PathBuf,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Write also to a disk that is in use or built in, or to a plain file
    #[arg(long)]
    force: bool,
}

/// Writes and compares.
pub(crate) fn run(args: &FlashArgs) -> Result<()> {
    let (sum, len) = check(&args.image)?;
    let target = System(PathBuf::from("/")).examine(&args.device)?;
    let objections = objections(&target, len);
    if let Some(fatal) = &objections.fatal {
        bail!("{fatal}");
    }
    print!("{}", describe(&target, &args.image, len));
    if !objections.mild.is_empty() && !args.force {
        bail!(
            "{}; if that is what you want, say --force",
            objections.mild.join(", ")
        );
    }
    if !args.yes {
        confirm(&target)?;
    }
    let writer = Writer {
        image: &args.image,
        path: &args.device,
        sectors: (!target.is_file).then_some(target.len / SECTOR),
        force: args.force,
    };
    let written = writer.write(len)?;
    ensure!(
        written == sum,
        "the image changed while it was written; write it again"
    );
    writer.compare(len)?;
    println!(
        "{} is written and was read back the same; it may be taken out",
        args.device.display()
    );
    Ok(())
}

/// Checks the image before anything is lost: its sum and length.
fn check(image: &Path) -> Result<(seal::Sum, u64)> {
    let seal = Seal::read(image)?;
    let mut bar = Bar::new("checking");
    let (sum, len) = seal::sum_of(image, |done| bar.show(done))?;
    bar.end();
    match seal.check(image, sum)? {
        Some(key) => println!("{} is whole, signed by {key}", image.display()),
        None if seal.is_empty() => println!(
            "{} has no check sum beside it: whether it is whole is not known",
            image.display()
        ),
        None => println!("{} is whole, and not signed", image.display()),
    }
    ensure!(len > 0, "{} is empty", image.display());
    Ok((sum, len))
}

/// What speaks against writing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Objections {
    /// It cannot be done at all.
    fatal: Option<String>,
    /// It should not be done unless the owner insists.
    mild: Vec<String>,
}

fn objections(target: &Target, len: u64) -> Objections {
    let shown = target.path.display();
    let mut found = Objections::default();
    if target.is_file {
        found.mild.push(format!("{shown} is a plain file"));
        return found;
    }
    found.fatal = if target.len < len {
        let (has, needs) = (show_bytes(target.len), show_bytes(len));
        Some(format!("{shown} has {has}; the image needs {needs}"))
    } else if target.is_read_only {
        Some(format!("{shown} cannot be written: is its switch set?"))
    } else if target.block_len != SECTOR {
        let block = target.block_len;
        Some(format!(
            "{shown} has blocks of {block} bytes; images are for disks of {SECTOR}"
        ))
    } else {
        None
    };
    if !target.is_removable {
        found
            .mild
            .push(format!("{shown} is built into this machine"));
    }
    found.mild.extend(target.uses.iter().cloned());
    found
}

/// What will be lost, for people.
fn describe(target: &Target, image: &Path, len: u64) -> String {
    let mut text = format!(
        "{} ({}) goes to {}: {}, {}\n",
        image.display(),
        show_bytes(len),
        target.path.display(),
        target.model,
        show_bytes(target.len)
    );
    if target.is_file {
        return text;
    }
    text.push_str(match target.parts.as_slice() {
        [] => "it has no partitions; whatever is on it will be lost\n",
        _ => "all of this will be lost:\n",
    });
    for part in &target.parts {
        let size = show_bytes(part.len);
        text.push_str(&format!("    {:8} {size:>10}  {}\n", part.name, part.label));
    }
    text
}

/// Asks, and takes nothing for a yes but the word.
fn confirm(target: &Target) -> Result<()> {
    if !io::stdin().is_terminal() {
        bail!("there is nobody to ask; say --yes");
    }
    print!("Type 'yes' to erase {}: ", target.path.display());
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    ensure!(answer.trim() == "yes", "nothing was written");
    Ok(())
}

/// One image on its way to one disk.
struct Writer<'a> {
    image: &'a Path,
    path: &'a Path,
    /// Sectors of the disk, to whose end the partition table's copy goes; `None` for a
    /// plain file, which becomes the image itself.
    sectors: Option<u64>,
    force: bool,
}

impl Writer<'_> {
    fn open(&self) -> Result<File> {
        /// `O_EXCL` without `O_CREAT`: the kernel refuses a disk that is in use.
        const EXCLUSIVE: i32 = 0o200;
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if self.sectors.is_some() && !self.force {
            options.custom_flags(EXCLUSIVE);
        }
        options
            .open(self.path)
            .with_context(|| format!("cannot open {} for writing", self.path.display()))
    }

    /// Writes everything, piece after piece, and returns the image's sum.
    fn write(&self, len: u64) -> Result<seal::Sum> {
        let disk = self.open()?;
        let failed = || format!("cannot write {}", self.path.display());
        if self.sectors.is_none() {
            disk.set_len(len).with_context(failed)?;
        }
        let mut bar = Bar::new("writing");
        let mut sum = seal::Summing::new();
        let tables = self.each_piece(&mut bar, |at, raw, piece| {
            sum.add(raw);
            disk.write_all_at(piece, at).with_context(failed)?;
            // Else the bar would run ahead of the stick, which then takes minutes.
            disk.sync_data().with_context(failed)
        })?;
        if let (Some(tables), Some(sectors)) = (tables, self.sectors) {
            tables.write(&disk, sectors).with_context(failed)?;
        }
        disk.sync_all().with_context(failed)?;
        bar.end();
        Ok(sum.finish())
    }

    /// Reads the disk, not the system's memory of it, and compares.
    fn compare(&self, len: u64) -> Result<()> {
        let disk = File::open(self.path)
            .with_context(|| format!("cannot open {}", self.path.display()))?;
        let all: Option<NonZero<u64>> = None;
        rustix::fs::fadvise(&disk, 0, all, Advice::DontNeed)
            .context("cannot have the disk read anew")?;
        let mut bar = Bar::new("comparing");
        let mut back = vec![0; PIECE];
        let mut same = |at: u64, expected: &[u8]| -> Result<()> {
            let back = &mut back[..expected.len()];
            disk.read_exact_at(back, at)
                .with_context(|| format!("cannot read {} back", self.path.display()))?;
            match back.iter().zip(expected).position(|(a, b)| a != b) {
                None => Ok(()),
                Some(offset) => bail!(
                    "{} does not hold what was written: byte {} is another; it is broken",
                    self.path.display(),
                    at + offset as u64
                ),
            }
        };
        let mut read = 0;
        let tables = self.each_piece(&mut bar, |at, _, piece| {
            read += piece.len() as u64;
            same(at, piece)
        })?;
        if let (Some(tables), Some(sectors)) = (tables, self.sectors) {
            same((sectors - BACKUP_SECTORS) * SECTOR, &tables.backup)?;
        }
        ensure!(read == len, "the image changed while it was written");
        bar.end();
        Ok(())
    }

    /// Calls `each` with the image's pieces: place, content, and content as it is to be
    /// on the disk, whose partition table fits its size. Returns that table.
    fn each_piece(
        &self,
        bar: &mut Bar,
        mut each: impl FnMut(u64, &[u8], &[u8]) -> Result<()>,
    ) -> Result<Option<Tables>> {
        let table = SECTOR as usize..(FIRST_USABLE * SECTOR) as usize;
        let mut source = Source::open(self.image)?;
        let mut raw = vec![0; PIECE];
        let mut tables = None;
        let mut at = 0;
        loop {
            let filled = source
                .fill(&mut raw)
                .with_context(|| format!("cannot read {}", self.image.display()))?;
            if filled == 0 {
                return Ok(tables);
            }
            let content = &raw[..filled];
            if let (0, Some(sectors)) = (at, self.sectors) {
                let first = content
                    .get(table.clone())
                    .context("the image is too short")?;
                let fitted = Tables::fitted(first, sectors)?;
                let mut piece = content.to_vec();
                piece[table.clone()].copy_from_slice(&fitted.primary);
                each(at, content, &piece)?;
                tables = Some(fitted);
            } else {
                each(at, content, content)?;
            }
            at += filled as u64;
            bar.show(source.progress());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Objections, Target, Writer, describe, objections};
    use crate::medium::device::Part;
    use std::fs;
    use std::os::unix::fs::FileExt as _;
    use std::path::{Path, PathBuf};

    const MIB: u64 = 1 << 20;

    fn stick() -> Target {
        Target {
            path: PathBuf::from("/dev/sdb"),
            len: 100 * MIB,
            model: "SanDisk Ultra".into(),
            is_removable: true,
            block_len: 512,
            parts: vec![Part {
                name: "sdb1".into(),
                len: 99 * MIB,
                label: "PHOTOS".into(),
            }],
            ..Target::default()
        }
    }

    /// A disk that forgets: what is read back is compared with what was to be there.
    #[test]
    fn a_disk_that_keeps_other_bytes_is_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let (image, path) = (folder.path().join("image"), folder.path().join("disk"));
        let bytes: Vec<u8> = (0..9_000_000u32).map(|i| (i >> 4) as u8).collect();
        fs::write(&image, &bytes).unwrap();
        fs::write(&path, "").unwrap();
        let writer = Writer {
            image: &image,
            path: &path,
            sectors: None,
            force: false,
        };
        let len = bytes.len() as u64;
        writer.write(len).unwrap();
        writer.compare(len).unwrap();
        let disk = fs::File::options().write(true).open(&path).unwrap();
        disk.write_all_at(&[!bytes[5_000_000]], 5_000_000).unwrap();
        let error = writer.compare(len).unwrap_err().to_string();
        assert!(error.contains("byte 5000000 is another"), "{error}");
        disk.set_len(8_000_000).unwrap();
        assert!(writer.compare(len).is_err());
    }

    #[test]
    fn nothing_speaks_against_a_free_stick() {
        assert_eq!(objections(&stick(), 50 * MIB), Objections::default());
        let text = describe(&stick(), Path::new("skep.img"), 50 * MIB);
        for word in [
            "/dev/sdb",
            "SanDisk Ultra",
            "100.0 MiB",
            "sdb1",
            "99.0 MiB",
            "PHOTOS",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn disks_that_are_in_use_or_built_in_need_force() {
        let mut target = stick();
        target.is_removable = false;
        target.uses.push("sdb1 is mounted at /".into());
        let found = objections(&target, 50 * MIB);
        assert_eq!((found.fatal, found.mild.len()), (None, 2));
    }

    #[test]
    fn what_cannot_work_is_refused_even_by_force() {
        let mut small = stick();
        small.len = 49 * MIB;
        let mut locked = stick();
        locked.is_read_only = true;
        let mut blocks = stick();
        blocks.block_len = 4096;
        for target in [small, locked, blocks] {
            assert!(objections(&target, 50 * MIB).fatal.is_some(), "{target:?}");
        }
    }
}
