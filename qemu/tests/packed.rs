//! Packed ramdisks in memory: whole ones and damaged ones, judged by what a client sees. On a
//! disk every other scenario has them, and loaders start no damaged one: `slots` has that.

use anyhow::{Context as _, Result, ensure};
use skep_api::{
    Hash,
    boot::{
        Slot,
        packed::{BLOCK_BYTES, HEADER_BYTES},
    },
    bundle::BundleView,
};
use skep_qemu::{
    Machine, Node,
    node::TempFolder,
    ramdisk::{Image, Ramdisk, standard_manifest},
    seconds,
    slots::BootDisk,
};
use std::{fs, ops::Range, path::PathBuf};

const NGINX: u16 = 8081;
const PATIENCE: u64 = 180;
const TEXT_LINES: usize = 60_000;

/// A ramdisk with a page of a few megabytes that packs well, and where that page lies.
struct Subject {
    folder: TempFolder,
    plain: Vec<u8>,
    text: Vec<u8>,
    place: Range<usize>,
}

impl Subject {
    fn new(name: &str) -> Result<Self> {
        let lines = (0..TEXT_LINES).map(|line| format!("line {line} of a page that packs well\n"));
        let text = lines.collect::<String>().into_bytes();
        let image = Image::nginx()?.with_files(&[("/var/www/html/text", 0o644, &text)])?;
        let mut ramdisk = Ramdisk::new()?;
        ramdisk.capsule(&standard_manifest("nginx", &image)?, &image)?;
        let plain = fs::read(ramdisk.write(name)?)?;
        let blob = BundleView::parse(&plain)?.blob(Hash::of(&text))?;
        let start = usize::try_from(blob.offset)?;
        Ok(Self {
            folder: TempFolder::new()?,
            place: start..start + text.len(),
            plain,
            text,
        })
    }

    /// A disk of it, and the ramdisk as it lies there.
    fn packed(&self) -> Result<(BootDisk, Vec<u8>)> {
        let path = self.folder.path().join("disk");
        let disk = BootDisk::new(&path, &self.write(&self.plain)?)?;
        let packed = disk.piece(Slot::A, &disk.release(Slot::A)?.ramdisk)?;
        ensure!(packed.len() < self.plain.len() * 2 / 3, "hardly packed");
        Ok((disk, packed))
    }

    fn write(&self, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.folder.path().join("ramdisk");
        fs::write(&path, bytes)?;
        Ok(path)
    }

    /// Where the block lies, packed, whose content is wholly of the page.
    fn block_of_text(&self, packed: &[u8]) -> Result<Range<usize>> {
        let number = self.place.start.div_ceil(BLOCK_BYTES);
        ensure!(
            (number + 1) * BLOCK_BYTES <= self.place.end,
            "no block is the page's alone"
        );
        let word = |at: usize| -> Result<usize> {
            let word = packed.get(at..at + 4).context("no table")?;
            Ok(u32::from_le_bytes(word.try_into()?) as usize)
        };
        let mut at = HEADER_BYTES + 4 * word(12)?;
        for earlier in 0..number {
            at += word(HEADER_BYTES + 4 * earlier)? & 0x7fff_ffff;
        }
        Ok(at..at + word(HEADER_BYTES + 4 * number)?)
    }
}

fn free_memory(node: &mut Node) -> Result<u64> {
    node.wait_http(8080, "/", seconds(30))?;
    let told = node.api().get("node")?;
    told["memory_free_bytes"].as_u64().context("no free memory")
}

/// The page, whole; the start took the step; the packed copy's memory is free again: as
/// much is free as with the same ramdisk unpacked.
#[test]
fn a_vmm_may_bring_a_packed_ramdisk() -> Result<()> {
    let subject = Subject::new("packed-direct")?;
    let mut free = Vec::new();
    for bytes in [subject.plain.clone(), subject.packed()?.1] {
        let path = subject.write(&bytes)?;
        let machine = Machine::new(&format!("packed-direct-{}", free.len())).ramdisk(&path);
        let mut node = machine.start()?;
        node.wait_http(NGINX, "/", seconds(60))?;
        let page = node.get(NGINX, "/text", seconds(60))?;
        ensure!(page.body == subject.text, "other bytes");
        let steps = node.api().get("node")?["boot"].to_string();
        let is_packed = !free.is_empty();
        ensure!(steps.contains("ramdisk unpacked") == is_packed, "{steps}");
        free.push(free_memory(&mut node)?);
    }
    println!("free: {free:?}");
    ensure!(
        free[0].abs_diff(free[1]) < 2 << 20,
        "{} bytes are free unpacked, {} packed",
        free[0],
        free[1]
    );
    Ok(())
}

/// With one block damaged the node runs, says so, and serves what is whole; of the damaged
/// page not one wrong byte.
fn damaged_block(name: &str, machine: Machine, text: &[u8]) -> Result<()> {
    let mut node = machine.start()?;
    node.wait_http(NGINX, "/", seconds(PATIENCE))?;
    let serial = node.serial();
    ensure!(
        serial.contains("1 parts of the packed ramdisk are damaged"),
        "{name}: {serial}"
    );
    let page = node.get(NGINX, "/text", seconds(30));
    let got = page.map(|page| page.body).unwrap_or_default();
    println!("{name}: {} of {} bytes", got.len(), text.len());
    let wrong = got != text[..got.len().min(text.len())];
    ensure!(got.len() < text.len() && !wrong, "wrong bytes were served");
    Ok(())
}

/// With its header damaged there is nothing to run, and the node says what to do.
fn damaged_header(machine: Machine) -> Result<()> {
    let mut node = machine.start()?;
    let told = "ramdisk: the header of its packing is damaged; write the boot medium anew";
    node.wait_serial(told, seconds(PATIENCE))?;
    ensure!(node.get(8080, "/", seconds(3)).is_err(), "somebody answers");
    ensure!(node.exit_status()?.is_none(), "it ended");
    Ok(())
}

#[test]
fn damage_in_memory() -> Result<()> {
    let subject = Subject::new("packed-damage-direct")?;
    let (_, packed) = subject.packed()?;
    let mut wrong = packed.clone();
    wrong[subject.block_of_text(&packed)?].fill(0xff);
    let machine = Machine::new("packed-damage-direct").ramdisk(&subject.write(&wrong)?);
    damaged_block("direct", machine, &subject.text)?;
    let mut wrong = packed.clone();
    wrong[HEADER_BYTES + 3] ^= 1;
    damaged_header(Machine::new("packed-header-direct").ramdisk(&subject.write(&wrong)?))?;
    let cut = subject.write(&packed[..HEADER_BYTES + 1])?;
    damaged_header(Machine::new("packed-cut-direct").ramdisk(&cut))
}
