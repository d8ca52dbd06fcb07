//! What the kernel's functions take of their stacks. A thread of the kernel has 32 KiB, and
//! an inlining more can turn several frames into one that leaves its callees no room.

use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use std::{collections::HashMap, fs, path::Path};

/// Most bytes of one frame: half a stack. A signature's verification needs a quarter.
const FRAME_MAX: u64 = 16 << 10;
/// Functions that run once, on the stack of the boot loader or in front of everything else.
const AT_START: [&str; 2] = ["x86::boot::State", "InterruptDescriptorTable"];

/// Checks the frames of the kernel in this ELF file.
pub(crate) fn check(kernel: &Path) -> Result<()> {
    let bytes = fs::read(kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
    let frames = frames(&bytes)?;
    let large: Vec<_> = frames
        .iter()
        .filter(|(name, size)| *size > FRAME_MAX && !AT_START.iter().any(|s| name.contains(s)))
        .map(|(name, size)| format!("{size} bytes: {name}"))
        .collect();
    ensure!(
        large.is_empty(),
        "functions of the kernel take more than {FRAME_MAX} bytes of their stacks of 32 KiB: move \
         parts of them into functions with #[inline(never)], or large values to the heap\n{}",
        large.join("\n")
    );
    Ok(())
}

/// All functions with a frame and its bytes, the largest first.
fn frames(kernel: &[u8]) -> Result<Vec<(String, u64)>> {
    let file = object::File::parse(kernel)?;
    let names: HashMap<u64, &str> = file
        .symbols()
        .filter_map(|symbol| Some((symbol.address(), symbol.name().ok()?)))
        .collect();
    let section = file.section_by_name(".stack_sizes");
    let section = section.context("the kernel does not say what its functions take of stacks")?;
    let mut rest = section.data()?;
    let mut frames = Vec::new();
    while let Some((address, after)) = rest.split_first_chunk::<8>() {
        let (size, after) = uleb128(after).context("a size without an end")?;
        let address = u64::from_le_bytes(*address);
        let name = names.get(&address).copied().unwrap_or("(nameless)");
        frames.push((format!("{:#}", rustc_demangle::demangle(name)), size));
        rest = after;
    }
    ensure!(frames.len() > 1000, "only {} functions", frames.len());
    frames.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    Ok(frames)
}

/// A number as DWARF writes it (DWARF 5, 7.6), and what follows it.
fn uleb128(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (n, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(n + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::uleb128;

    #[test]
    fn numbers_are_read() {
        assert_eq!(uleb128(&[0x10, 7]), Some((16, &[7][..])));
        assert_eq!(uleb128(&[0xe5, 0x8e, 0x26]), Some((624_485, &[][..])));
        assert_eq!(uleb128(&[0x80]), None);
    }
}
