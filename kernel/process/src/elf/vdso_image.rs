//! Composes the ELF image of the vDSO: the headers, symbols and versions that C
//! libraries and Go's runtime look for, around the machine room's code.
//!
//! ```text
//! 0      ELF header, program headers
//!        dynamic section, symbols, strings, hash table, versions
//! 2048   code (`machine::vdso::CODE_OFFSET`)
//! ```
//!
//! Sources: System V ABI, chapters 4 and 5; Linux Standard Base, "Symbol
//! Versioning".

use super::header::{
    EM_X86_64, ET_DYN, FileHeader, IDENT, PF_R, PF_X, PT_DYNAMIC, PT_LOAD, ProgramHeader,
};
use alloc::vec::Vec;
use machine::vdso::{CODE_OFFSET, Function};
use zerocopy::IntoBytes;

const NAME: &str = "linux-vdso.so.1";
const VERSION: &str = "LINUX_2.6";
const PREFIX: &str = "__vdso_";
const SYMBOL_SIZE: usize = 24;
const HEADERS: usize = 2;
/// Version indexes: the file itself, and [`VERSION`].
const VERSION_BASE: u16 = 1;
const VERSION_SYMBOLS: u16 = 2;

const DT_NULL: u64 = 0;
const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_STRSZ: u64 = 10;
const DT_SYMENT: u64 = 11;
const DT_SONAME: u64 = 14;
const DT_VERSYM: u64 = 0x6fff_fff0;
const DT_VERDEF: u64 = 0x6fff_fffc;
const DT_VERDEFNUM: u64 = 0x6fff_fffd;
const DYNAMIC_LEN: usize = 10 * 16;

const STB_GLOBAL: u8 = 1 << 4;
const STB_WEAK: u8 = 2 << 4;
const STT_FUNC: u8 = 2;
/// There are no sections; any number but 0 says that a symbol is defined.
const SECTION_TEXT: u16 = 1;

/// The hash function of `DT_HASH` and of version names.
fn hash(name: &str) -> u32 {
    name.bytes().fold(0, |h: u32, b| {
        let h = (h << 4).wrapping_add(b.into());
        let top = h & 0xf000_0000;
        (h ^ top >> 24) & !top
    })
}

/// Strings, NUL-terminated, the first one empty.
struct Names(Vec<u8>);

impl Names {
    fn add(&mut self, parts: [&str; 2]) -> u32 {
        let at = self.0.len() as u32;
        for p in parts {
            self.0.extend_from_slice(p.as_bytes());
        }
        self.0.push(0);
        at
    }
}

/// The parts between program headers and code.
struct Tables {
    symbols: Vec<u8>,
    names: Names,
    hashes: Vec<u8>,
    versions: Vec<u8>,
    definitions: Vec<u8>,
    /// Where the file's own name is.
    name: u32,
}

fn tables(functions: &[Function]) -> Tables {
    let mut names = Names(alloc::vec![0]);
    let mut symbols = alloc::vec![0; SYMBOL_SIZE];
    let mut versions = alloc::vec![0, 0];
    let mut chain_hashes = alloc::vec![0];
    // Each under its plain name too, for programs that link to the vDSO directly.
    for (prefix, binding) in [(PREFIX, STB_GLOBAL), ("", STB_WEAK)] {
        for f in functions {
            let name = names.add([prefix, f.name]);
            symbols.extend_from_slice(&name.to_le_bytes());
            symbols.extend_from_slice(&[binding | STT_FUNC, 0]);
            symbols.extend_from_slice(&SECTION_TEXT.to_le_bytes());
            symbols.extend_from_slice(&((CODE_OFFSET + f.offset) as u64).to_le_bytes());
            symbols.extend_from_slice(&(f.len as u64).to_le_bytes());
            versions.extend_from_slice(&VERSION_SYMBOLS.to_le_bytes());
            let start = name as usize;
            let text = core::str::from_utf8(&names.0[start..names.0.len() - 1]);
            chain_hashes.push(hash(text.unwrap_or_default()));
        }
    }
    let name = names.add([NAME, ""]);
    let version = names.add([VERSION, ""]);
    let mut definitions = Vec::new();
    define_version(&mut definitions, VERSION_BASE, name, NAME);
    define_version(&mut definitions, VERSION_SYMBOLS, version, VERSION);
    Tables {
        symbols,
        names,
        hashes: hash_table(&chain_hashes),
        versions,
        definitions,
        name,
    }
}

/// `Elf64_Verdef` with its one `Elf64_Verdaux`.
fn define_version(out: &mut Vec<u8>, index: u16, name: u32, text: &str) {
    const VER_FLG_BASE: u16 = 1;
    const VERDEF_SIZE: u32 = 20;
    const SIZE: u32 = VERDEF_SIZE + 8;
    let base = index == VERSION_BASE;
    let flags = if base { VER_FLG_BASE } else { 0 };
    for half in [1, flags, index, 1] {
        out.extend_from_slice(&half.to_le_bytes());
    }
    let next = if base { SIZE } else { 0 };
    for word in [hash(text), VERDEF_SIZE, next, name, 0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

/// `DT_HASH`: buckets that start lists of symbols.
fn hash_table(hashes: &[u32]) -> Vec<u8> {
    const BUCKETS: usize = 4;
    let count = hashes.len();
    let mut buckets = [0u32; BUCKETS];
    let mut chain = alloc::vec![0u32; count];
    for (i, h) in hashes.iter().enumerate().skip(1) {
        let bucket = &mut buckets[*h as usize % BUCKETS];
        chain[i] = core::mem::replace(bucket, i as u32);
    }
    let head = [BUCKETS as u32, count as u32];
    let words = head.iter().chain(&buckets).chain(&chain);
    words.flat_map(|w| w.to_le_bytes()).collect()
}

fn pad(out: &mut Vec<u8>, align: usize) {
    out.resize(out.len().next_multiple_of(align), 0);
}

/// The image: `code` with `functions` in it at [`CODE_OFFSET`]. `None` if the
/// tables do not fit before it.
pub(super) fn compose(code: &[u8], functions: &[Function]) -> Option<Vec<u8>> {
    let t = tables(functions);
    let head = size_of::<FileHeader>() + HEADERS * size_of::<ProgramHeader>();
    let dynamic = head.next_multiple_of(16);
    let mut body = alloc::vec![0; dynamic + DYNAMIC_LEN];
    let mut place = |part: &[u8]| {
        pad(&mut body, 8);
        let at = body.len();
        body.extend_from_slice(part);
        at as u64
    };
    let entries = [
        (DT_SONAME, t.name.into()),
        (DT_HASH, place(&t.hashes)),
        (DT_SYMTAB, place(&t.symbols)),
        (DT_STRTAB, place(&t.names.0)),
        (DT_STRSZ, t.names.0.len() as u64),
        (DT_SYMENT, SYMBOL_SIZE as u64),
        (DT_VERSYM, place(&t.versions)),
        (DT_VERDEF, place(&t.definitions)),
        (DT_VERDEFNUM, 2),
        (DT_NULL, 0),
    ];
    const { assert!(DYNAMIC_LEN == 10 * 16) };
    for (i, (tag, value)) in entries.iter().enumerate() {
        let at = dynamic + 16 * i;
        body[at..at + 8].copy_from_slice(&u64::to_le_bytes(*tag));
        body[at + 8..at + 16].copy_from_slice(&u64::to_le_bytes(*value));
    }
    if body.len() > CODE_OFFSET {
        return None;
    }
    body.resize(CODE_OFFSET, 0);
    body.extend_from_slice(code);
    let size = body.len() as u64;
    let mut out = file_header().as_bytes().to_vec();
    out.extend_from_slice(segment(PT_LOAD, PF_R | PF_X, 0, size, 4096).as_bytes());
    let d = segment(PT_DYNAMIC, PF_R, dynamic as u64, DYNAMIC_LEN as u64, 8);
    out.extend_from_slice(d.as_bytes());
    body[..out.len()].copy_from_slice(&out);
    Some(body)
}

fn file_header() -> FileHeader {
    let mut ident = [0; 16];
    ident[..IDENT.len()].copy_from_slice(&IDENT);
    FileHeader {
        ident,
        kind: ET_DYN,
        machine: EM_X86_64,
        version: 1,
        entry: 0,
        program_headers: size_of::<FileHeader>() as u64,
        section_headers: 0,
        flags: 0,
        header_size: size_of::<FileHeader>() as u16,
        program_header_size: size_of::<ProgramHeader>() as u16,
        program_header_count: HEADERS as u16,
        section_header_size: 0,
        section_header_count: 0,
        section_names: 0,
    }
}

fn segment(kind: u32, flags: u32, at: u64, size: u64, align: u64) -> ProgramHeader {
    ProgramHeader {
        kind,
        flags,
        offset: at,
        vaddr: at,
        paddr: at,
        file_size: size,
        memory_size: size,
        align,
    }
}
