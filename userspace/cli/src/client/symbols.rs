//! Which function an address of the kernel belongs to: the symbol table of an ELF file.

use anyhow::{Context, Result, bail};
use std::collections::HashMap;

/// `SHT_SYMTAB`.
const SYMBOL_TABLE: u32 = 2;
/// Bytes of an entry of it.
const SYMBOL_BYTES: usize = 24;

/// The functions of a file by address.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    /// Start, end (the start of nothing if not known) and name, by start.
    functions: Vec<(u64, u64, String)>,
}

/// The bytes of an ELF file.
struct File<'a>(&'a [u8]);

/// A section, as far as it matters.
struct Section<'a> {
    kind: u32,
    bytes: &'a [u8],
    link: usize,
}

impl<'a> File<'a> {
    fn number<const N: usize>(&self, at: usize) -> Result<u64> {
        let end = at.checked_add(N).context("an address is too high")?;
        let bytes = self.0.get(at..end).context("it ends too early")?;
        Ok(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    fn sections(&self) -> Result<Vec<Section<'a>>> {
        if !self.0.starts_with(b"\x7fELF\x02\x01") {
            bail!("it is no 64-bit ELF file");
        }
        let table = usize::try_from(self.number::<8>(0x28)?)?;
        let (size, count) = (self.number::<2>(0x3a)?, self.number::<2>(0x3c)?);
        let mut sections = Vec::new();
        for i in 0..count {
            let at = table.saturating_add(usize::try_from(i * size)?);
            let header = File(self.0.get(at..).context("it ends too early")?);
            let kind = u32::try_from(header.number::<4>(4)?)?;
            let start = usize::try_from(header.number::<8>(0x18)?)?;
            let len = usize::try_from(header.number::<8>(0x20)?)?;
            let end = start.saturating_add(len);
            sections.push(Section {
                kind,
                // Some sections have no bytes in the file, whatever their size.
                bytes: self.0.get(start..end).unwrap_or_default(),
                link: usize::try_from(header.number::<4>(0x28)?)?,
            });
        }
        Ok(sections)
    }
}

impl Symbols {
    /// Those of the ELF file with these bytes.
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let sections = File(bytes).sections()?;
        let found = sections.iter().find(|s| s.kind == SYMBOL_TABLE);
        let table = found.context("it has no symbols; take the file that is not stripped")?;
        let names = sections.get(table.link).context("it has no names")?.bytes;
        let mut functions = Vec::new();
        for entry in table.bytes.chunks_exact(SYMBOL_BYTES) {
            let entry = File(entry);
            let (name, info) = (entry.number::<4>(0)?, entry.number::<1>(4)?);
            let (section, start) = (entry.number::<2>(6)?, entry.number::<8>(8)?);
            // Functions, and the labels of assembly code, which have no type.
            if section == 0 || !matches!(info & 0xf, 0 | 2) {
                continue;
            }
            let text = names.get(usize::try_from(name)?..).unwrap_or_default();
            let text = text.split(|b| *b == 0).next().unwrap_or_default();
            if let Ok(text) = std::str::from_utf8(text)
                && !text.is_empty()
            {
                let end = start.saturating_add(entry.number::<8>(16)?);
                functions.push((start, end, readable(text)));
            }
        }
        functions.sort();
        Ok(Self { functions })
    }

    /// The name of the function around `address`.
    pub(super) fn name(&self, address: u64) -> Option<&str> {
        let after = self
            .functions
            .partition_point(|(start, ..)| *start <= address);
        let (start, end, name) = self.functions.get(after.checked_sub(1)?)?;
        (start == end || address < *end).then_some(name)
    }

    /// Adds up what was met at places of the same function, the most frequent first.
    pub(super) fn fold(&self, places: &[(u32, u32)]) -> Vec<(String, u64)> {
        let mut sums = HashMap::new();
        for (address, count) in places {
            let name = match self.name((*address).into()) {
                Some(name) => name.to_owned(),
                None => format!("{address:#x}"),
            };
            *sums.entry(name).or_insert(0) += u64::from(*count);
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        sums
    }
}

/// A name as it is in the source.
fn readable(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with a symbol table of these (name, type, start, size).
    fn file(symbols: &[(&str, u8, u64, u64)]) -> Vec<u8> {
        let (mut names, mut table) = (vec![0], Vec::new());
        for (name, kind, start, size) in symbols {
            table.extend((names.len() as u32).to_le_bytes());
            table.extend([*kind, 0, 1, 0]);
            table.extend(start.to_le_bytes());
            table.extend(size.to_le_bytes());
            names.extend(name.bytes());
            names.push(0);
        }
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let section = |kind: u32, at: usize, len: usize, link: u32| {
            let mut header = vec![0; 64];
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(at as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(len as u64).to_le_bytes());
            header[0x28..0x2c].copy_from_slice(&link.to_le_bytes());
            header
        };
        let (table_at, names_at) = (64, 64 + table.len());
        let headers_at = names_at + names.len();
        file.extend(&table);
        file.extend(&names);
        file.extend(section(SYMBOL_TABLE, table_at, table.len(), 1));
        file.extend(section(3, names_at, names.len(), 0));
        file[0x28..0x30].copy_from_slice(&(headers_at as u64).to_le_bytes());
        file[0x3a..0x3e].copy_from_slice(&[64, 0, 2, 0]);
        file
    }

    #[test]
    fn addresses_find_their_function() {
        let bytes = file(&[
            ("second", 2, 0x200, 0x10),
            ("first", 2, 0x100, 0x20),
            ("data", 1, 0x108, 0x10),
            ("label", 0, 0x300, 0),
        ]);
        let symbols = Symbols::read(&bytes).expect("an ELF file");
        let expected = [
            (0xff, None),
            (0x100, Some("first")),
            (0x11f, Some("first")),
            (0x120, None),
            (0x20f, Some("second")),
            (0x999, Some("label")),
        ];
        for (address, name) in expected {
            assert_eq!(symbols.name(address), name, "{address:#x}");
        }
        let folded = symbols.fold(&[(0x100, 2), (0x300, 4), (0x110, 3), (1, 1)]);
        let folded: Vec<_> = folded.iter().map(|(n, c)| (n.as_str(), *c)).collect();
        assert_eq!(folded, [("first", 5), ("label", 4), ("0x1", 1)]);
    }

    #[test]
    fn what_is_no_symbol_file_is_refused() {
        assert!(Symbols::read(b"").is_err());
        assert!(Symbols::read(b"\x7fELF\x02\x01").is_err());
        let mut bytes = file(&[("f", 2, 1, 1)]);
        for len in 0..bytes.len() {
            let _ = Symbols::read(&bytes[..len]);
        }
        bytes[0x28..0x30].fill(0xff);
        assert!(Symbols::read(&bytes).is_err());
    }

    #[test]
    fn names_are_those_of_the_source() {
        let mangled = "_RNvNtCs1234_7mycrate3foo3bar";
        assert_eq!(readable(mangled), "mycrate::foo::bar");
        assert_eq!(readable("syscall_entry"), "syscall_entry");
    }
}
