//! Loading of made-up, damaged and real programs.

use super::header::{
    EM_X86_64, ET_DYN, ET_EXEC, FileHeader, IDENT, PF_R, PF_X, PT_LOAD, ProgramHeader,
};
use super::{
    Arguments, AuxInput, ExecFile, Image, Kind, Loaded, Program, Script, load, vdso_image,
};
use crate::{Error, Result};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::addr::PAGE_SIZE;
use machine::paging::Access;
use machine::{Account, Frame};
use mm::{AddressSpace, Backing, BackingError, Description, Layout, Limits, PageCache, Randomize};
use proptest::prelude::*;
use zerocopy::{FromZeros, IntoBytes};

const PF_W: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_GNU_STACK: u32 = 0x6474_e551;
const BASE: u64 = 0x40_0000;

/// A file in memory.
struct Bytes {
    bytes: Vec<u8>,
    pages: PageCache,
    account: Arc<Account>,
}

struct File(Arc<Bytes>);

impl File {
    fn new(bytes: Vec<u8>, account: &Arc<Account>) -> File {
        File(Arc::new(Bytes {
            bytes,
            pages: PageCache::new(account.clone()),
            account: account.clone(),
        }))
    }
}

impl ExecFile for File {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.0.bytes.get(start..).unwrap_or_default();
        // Short reads are allowed, so the loader has to cope.
        let n = rest.len().min(out.len()).min(1000);
        out[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn backing(&self) -> Arc<dyn Backing> {
        self.0.clone()
    }
}

impl Backing for Bytes {
    fn page(&self, index: u64, _: bool) -> core::result::Result<Frame, BackingError> {
        let start = usize::try_from(index)
            .unwrap_or(usize::MAX)
            .saturating_mul(PAGE_SIZE);
        let rest = self.bytes.get(start..).filter(|r| !r.is_empty());
        let rest = rest.ok_or(BackingError::PastEnd)?;
        self.pages
            .get_or_try_insert_with(index, || {
                let frame = Frame::zeroed(&self.account)?;
                frame.write(0, &rest[..rest.len().min(PAGE_SIZE)]);
                Ok::<_, mm::Error>(frame)
            })
            .map_err(|_| BackingError::OutOfMemory)
    }

    fn identity(&self) -> u64 {
        core::ptr::from_ref(self).addr() as u64
    }

    fn describe(&self) -> Description {
        Description {
            path: String::from("/bin/test"),
            ..Description::default()
        }
    }
}

fn header(kind: u32, flags: u32, offset: u64, vaddr: u64, file: u64, memory: u64) -> ProgramHeader {
    ProgramHeader {
        kind,
        flags,
        offset,
        vaddr,
        paddr: vaddr,
        file_size: file,
        memory_size: memory,
        align: PAGE_SIZE as u64,
    }
}

/// A file of `len` bytes whose byte at `i` is `i % 251`, behind the headers.
fn elf(kind: u16, entry: u64, headers: &[ProgramHeader], len: usize) -> Vec<u8> {
    let mut ident = [0; 16];
    ident[..IDENT.len()].copy_from_slice(&IDENT);
    let file = FileHeader {
        ident,
        kind,
        machine: EM_X86_64,
        version: 1,
        entry,
        program_headers: 64,
        program_header_size: 56,
        program_header_count: headers.len() as u16,
        header_size: 64,
        ..FileHeader::new_zeroed()
    };
    let mut bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
    bytes[..64].copy_from_slice(file.as_bytes());
    bytes[64..64 + 56 * headers.len()].copy_from_slice(headers.as_bytes());
    bytes
}

/// Code, and data whose zeros start in the middle of a page.
fn usual(kind: u16, base: u64, extra: &[ProgramHeader]) -> Vec<u8> {
    let mut headers = alloc::vec![
        header(PT_LOAD, PF_R | PF_X, 0, base, 0x1800, 0x1800),
        header(PT_LOAD, PF_R | PF_W, 0x1800, base + 0x2800, 0x900, 0x3000),
    ];
    headers.extend_from_slice(extra);
    elf(kind, base + 0x100, &headers, 0x2800)
}

fn account() -> Arc<Account> {
    Arc::new(Account::new(4000).expect("fewer accounts than tests"))
}

fn space(account: &Arc<Account>) -> Arc<AddressSpace> {
    AddressSpace::new(account.clone()).unwrap()
}

fn byte(space: &AddressSpace, addr: usize) -> Option<u8> {
    let mut b = [0];
    (space.read(addr, &mut b) == 1).then_some(b[0])
}

fn word(space: &AddressSpace, addr: usize) -> usize {
    let mut b = [0; 8];
    assert_eq!(space.read(addr, &mut b), 8);
    usize::from_le_bytes(b)
}

fn load_one(space: &AddressSpace, file: &File) -> Result<Loaded> {
    let image = Image::read(file)?;
    load(
        space,
        Program {
            file,
            image: &image,
        },
        None,
    )
}

fn check_contents(space: &AddressSpace, base: usize) {
    let at = |i: usize| Some((i % 251) as u8);
    assert_eq!(byte(space, base + 0x17ff), at(0x17ff));
    assert_eq!(byte(space, base + 0x2800), at(0x1800));
    assert_eq!(byte(space, base + 0x30ff), at(0x20ff));
    assert_eq!(byte(space, base + 0x3100), Some(0));
    assert_eq!(byte(space, base + 0x3fff), Some(0));
    assert_eq!(byte(space, base + 0x57ff), Some(0));
    assert_eq!(byte(space, base + 0x6000), None);
    assert_eq!(space.write(base + 0x2800, &[1]), 1);
    assert_eq!(space.write(base, &[1]), 0);
}

#[test]
fn a_program_at_fixed_addresses() {
    let account = account();
    let space = space(&account);
    let file = File::new(usual(ET_EXEC, BASE, &[]), &account);
    let loaded = load_one(&space, &file).unwrap();
    let base = BASE as usize;
    check_contents(&space, base);
    assert_eq!(loaded.start, base + 0x100);
    assert_eq!((loaded.headers, loaded.header_count), (base + 64, 2));
    assert_eq!(loaded.interpreter_base, 0);
    assert_eq!(loaded.code, base..base + 0x1800);
    assert_eq!(loaded.data, base + 0x2800..base + 0x5800);
    assert!(!loaded.stack_access.contains(Access::EXEC));
    let heap = space.heap().start;
    assert!(heap >= base + 0x6000 && heap < base + 0x6000 + (32 << 20));
    // The file itself has not changed.
    assert_eq!(byte(&space, base + 0x2800), Some(1));
    let twin = self::space(&account);
    load_one(&twin, &file).unwrap();
    check_contents(&twin, base);
}

#[test]
fn a_movable_program_and_its_interpreter() {
    let account = account();
    let space = space(&account);
    let mut bytes = usual(ET_DYN, 0, &[header(PT_INTERP, PF_R, 0x2100, 0x3100, 6, 6)]);
    bytes[0x2100..0x2106].copy_from_slice(b"/ld.so");
    let refused = Image::read(&File::new(bytes.clone(), &account));
    assert_eq!(refused.unwrap_err(), Error::NotExecutable);
    bytes[0x2100..0x2106].copy_from_slice(b"/ldso\0");
    let file = File::new(bytes, &account);
    let image = Image::read(&file).unwrap();
    assert_eq!(image.interpreter(), Some(&b"/ldso"[..]));
    assert_eq!(image.kind(), Kind::Movable);
    let ld = File::new(usual(ET_DYN, 0x1000, &[]), &account);
    let ld_image = Image::read(&ld).unwrap();
    let program = Program {
        file: &file,
        image: &image,
    };
    let interpreter = Program {
        file: &ld,
        image: &ld_image,
    };
    let loaded = load(&space, program, Some(interpreter)).unwrap();
    check_contents(&space, loaded.entry - 0x100);
    assert_eq!(loaded.entry - 0x100, space.layout().image_base);
    let base = loaded.interpreter_base;
    check_contents(&space, base);
    assert_eq!(loaded.start, base + 0x100);
    assert!(base < space.layout().mmap_base);
}

#[test]
fn alignment_of_an_image_is_kept() {
    let account = account();
    let mut headers = [header(PT_LOAD, PF_R | PF_X, 0, 0, 0x1000, 0x1000)];
    headers[0].align = 2 << 20;
    let file = File::new(elf(ET_DYN, 0x100, &headers, 0x1000), &account);
    let image = Image::read(&file).unwrap();
    let program = Program {
        file: &file,
        image: &image,
    };
    let loaded = load(&space(&account), program, Some(program)).unwrap();
    assert_eq!((loaded.entry - 0x100) % (2 << 20), 0);
    assert_eq!(loaded.interpreter_base % (2 << 20), 0);
}

#[test]
fn headers_that_make_no_sense_are_refused() {
    let account = account();
    let refused = |headers: &[ProgramHeader]| {
        let file = File::new(elf(ET_EXEC, BASE, headers, 0x2000), &account);
        load_one(&space(&account), &file).is_err()
    };
    let good = header(PT_LOAD, PF_R, 0, BASE, 0x1000, 0x1000);
    assert!(!refused(&[good]));
    assert!(refused(&[]));
    let bad: [fn(&mut ProgramHeader); 8] = [
        |h| h.file_size = 0x1001,
        |h| h.vaddr += 1,
        |h| h.vaddr = 0,
        |h| h.vaddr = u64::MAX - 0xfff,
        |h| h.memory_size = u64::MAX,
        |h| h.memory_size = 1 << 47,
        |h| h.offset = u64::MAX - 0xfff,
        |h| h.memory_size = 0,
    ];
    for (i, f) in bad.iter().enumerate() {
        let mut h = good;
        f(&mut h);
        assert!(refused(&[h]), "{i}");
    }
    // The zeros start in a page that the file does not have.
    assert!(refused(&[header(
        PT_LOAD,
        PF_R | PF_W,
        0x4000,
        BASE,
        0x10,
        0x20
    )]));
}

#[test]
fn a_stack_may_be_executable() {
    let account = account();
    let file = File::new(
        usual(ET_EXEC, BASE, &[header(PT_GNU_STACK, PF_X, 0, 0, 0, 0)]),
        &account,
    );
    let loaded = load_one(&space(&account), &file).unwrap();
    assert!(loaded.stack_access.contains(Access::EXEC));
}

#[test]
fn this_very_program_loads() {
    let account = Arc::new(Account::new(20_000).unwrap());
    let space = space(&account);
    let own = std::fs::read("/proc/self/exe").unwrap();
    let file = File::new(own, &account);
    let loaded = load_one(&space, &file).unwrap();
    let headers: usize = word(&space, loaded.headers) & 0xffff_ffff;
    // A position-independent program starts with PT_PHDR.
    assert_eq!(headers, 6);
    assert_ne!(byte(&space, loaded.entry), None);
}

fn place(space: &AddressSpace, arguments: Arguments, input: &AuxInput) -> super::Placed {
    let loaded = Loaded {
        start: 0,
        entry: 0x1234,
        headers: 0x40_0040,
        header_count: 9,
        interpreter_base: 0x7f00_0000_0000,
        code: 0..0,
        data: 0..0,
        stack_access: Access::READ | Access::WRITE,
    };
    arguments.place(space, &loaded, b"/bin/x", input).unwrap()
}

fn string(space: &AddressSpace, addr: usize) -> String {
    let bytes = (addr..).map_while(|a| byte(space, a).filter(|b| *b != 0));
    String::from_utf8(bytes.collect()).unwrap()
}

#[test]
fn the_first_stack() {
    let space = space(&account());
    let mut a = Arguments::new(8 << 20);
    for s in ["x", "", "last one"] {
        a.push_arg(s.as_bytes()).unwrap();
    }
    a.push_env(b"HOME=/").unwrap();
    let input = AuxInput {
        vdso: Some(0x7fff_0000),
        hwcap2: 2,
        signal_stack_min: 3000,
        credentials: super::Credentials {
            uid: 5,
            euid: 0,
            gid: 1,
            egid: 1,
        },
    };
    let placed = place(&space, a, &input);
    let sp = placed.stack_pointer;
    assert_eq!(sp % 16, 0);
    let at = |i: usize| word(&space, sp + 8 * i);
    assert_eq!(at(0), 3);
    let args: Vec<_> = (1..4).map(|i| string(&space, at(i))).collect();
    assert_eq!(args, ["x", "", "last one"]);
    assert_eq!(
        (at(4), string(&space, at(5)), at(6)),
        (0, "HOME=/".into(), 0)
    );
    assert_eq!(placed.args, at(1)..at(5));
    assert_eq!(placed.envs.end - placed.envs.start, 7);
    let aux: std::collections::BTreeMap<_, _> = (0..)
        .map(|i| (at(7 + 2 * i), at(8 + 2 * i)))
        .take_while(|(k, _)| *k != 0)
        .collect();
    let expect = [
        (3, 0x40_0040),
        (4, 56),
        (5, 9),
        (6, 4096),
        (7, 0x7f00_0000_0000),
        (9, 0x1234),
    ];
    for (k, v) in expect
        .into_iter()
        .chain([(11, 5), (12, 0), (17, 100), (23, 1)])
    {
        assert_eq!(aux.get(&k), Some(&v), "{k}");
    }
    for (k, v) in [(26, 2), (33, 0x7fff_0000), (51, 3000)] {
        assert_eq!(aux.get(&k), Some(&v), "{k}");
    }
    assert_eq!(string(&space, aux[&15]), "x86_64");
    assert_eq!(string(&space, aux[&31]), "/bin/x");
    assert_ne!(word(&space, aux[&25]), 0);
    // The vector lies wholly below what it points to.
    assert!(sp + 8 * (9 + 2 * aux.len()) <= aux[&25]);
}

#[test]
fn arguments_are_limited() {
    let mut a = Arguments::new(8 << 20);
    assert_eq!(a.push_arg(&[b'a'; 32 * PAGE_SIZE]), Err(Error::TooBig));
    let long = [b'a'; 32 * PAGE_SIZE - 1];
    let pushed = (0..100).take_while(|_| a.push_arg(&long).is_ok()).count();
    assert_eq!(pushed, 15);
    let mut many = Arguments::new(0);
    let pushed = (0..1 << 20)
        .take_while(|_| many.push_env(b"").is_ok())
        .count();
    assert_eq!(pushed, 128 * 1024 / 9);
    let limits = Limits {
        stack: 64 << 10,
        ..Limits::default()
    };
    let layout = Layout::new(Randomize::No, limits.stack);
    let small = AddressSpace::with_layout(account(), layout, limits).unwrap();
    let loaded = load_one(&small, &File::new(usual(ET_EXEC, BASE, &[]), &account())).unwrap();
    let refused = many.place(&small, &loaded, b"x", &AuxInput::default());
    assert_eq!(refused, Err(Error::TooBig));
}

#[test]
fn large_arguments_arrive() {
    let space = space(&account());
    let mut a = Arguments::new(8 << 20);
    let long = [b'z'; 100_000];
    for _ in 0..10 {
        a.push_arg(&long).unwrap();
    }
    let placed = place(&space, a, &AuxInput::default());
    assert_eq!(word(&space, placed.stack_pointer), 10);
    let last = word(&space, placed.stack_pointer + 80);
    assert_eq!(
        (byte(&space, last), byte(&space, last + 100_000)),
        (Some(b'z'), Some(0))
    );
}

#[test]
fn a_script_changes_the_arguments() {
    let space = space(&account());
    let mut a = Arguments::new(8 << 20);
    for s in ["script", "one"] {
        a.push_arg(s.as_bytes()).unwrap();
    }
    let script = Script {
        interpreter: b"/bin/sh",
        argument: Some(b"-e"),
    };
    a.apply_script(&script, b"/x/script").unwrap();
    assert_eq!(a.count(), 4);
    let sp = place(&space, a, &AuxInput::default()).stack_pointer;
    let args: Vec<_> = (1..5)
        .map(|i| string(&space, word(&space, sp + 8 * i)))
        .collect();
    assert_eq!(args, ["/bin/sh", "-e", "/x/script", "one"]);
    // Without arguments there is an empty one.
    let mut none = Arguments::new(8 << 20);
    let script = Script {
        interpreter: b"/bin/sh",
        argument: None,
    };
    none.apply_script(&script, b"/s").unwrap();
    assert_eq!(none.count(), 2);
    let space = self::space(&account());
    let sp = place(&space, Arguments::new(8 << 20), &AuxInput::default()).stack_pointer;
    assert_eq!(
        (word(&space, sp), string(&space, word(&space, sp + 8)).len()),
        (1, 0)
    );
}

#[test]
fn the_vdso_is_mapped_read_only() {
    let space = space(&account());
    let at = super::map_vdso(&space).unwrap().unwrap();
    assert_eq!(word(&space, at) & 0xffff_ffff, 0x464c_457f);
    assert_eq!(space.write(at, &[1]), 0);
    assert!(
        space
            .protect(at, 4096, Access::READ | Access::WRITE)
            .is_err()
    );
    assert!(byte(&space, at - 1).is_some());
    let names: Vec<_> = space
        .regions()
        .filter_map(|r| match r.name {
            mm::RegionName::Object(o) => Some(o.describe().path),
            _ => None,
        })
        .collect();
    assert_eq!(names, ["[vvar]", "[vdso]"]);
}

#[test]
fn the_host_can_look_up_symbols_of_the_vdso() {
    let functions = machine::vdso::functions();
    let image = vdso_image::compose(machine::vdso::code(), &functions).unwrap();
    assert!(image.len() <= PAGE_SIZE);
    let account = account();
    let parsed = Image::read(&File::new(image.clone(), &account)).unwrap();
    assert_eq!((parsed.kind(), parsed.interpreter()), (Kind::Movable, None));
    let path = std::env::temp_dir().join(std::format!("skep-vdso-{}.so", std::process::id()));
    std::fs::write(&path, &image).unwrap();
    let listed = std::process::Command::new("readelf")
        .arg("-sVDW")
        .arg(&path)
        .output();
    std::fs::remove_file(&path).unwrap();
    // Not every machine has binutils; the parse above holds everywhere.
    let Ok(listed) = listed else { return };
    let text = String::from_utf8_lossy(&listed.stdout);
    for f in functions {
        assert!(
            text.contains(&std::format!("__vdso_{}@@LINUX_2.6", f.name)),
            "{text}"
        );
    }
    assert!(
        listed.stderr.is_empty(),
        "{:?}",
        String::from_utf8_lossy(&listed.stderr)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn damaged_programs_are_survived(
        damage in proptest::collection::vec((0usize..300, any::<u8>()), 1..12),
        words in proptest::collection::vec((0usize..36, any::<u64>()), 0..3),
        movable in any::<bool>(),
    ) {
        let account = account();
        let (kind, base) = if movable { (ET_DYN, 0) } else { (ET_EXEC, BASE) };
        let mut bytes = usual(kind, base, &[header(PT_INTERP, PF_R, 0x2100, 0, 6, 6)]);
        bytes[0x2105] = 0;
        for (at, value) in words {
            bytes[8 * at..8 * at + 8].copy_from_slice(&value.to_le_bytes());
        }
        for (at, value) in damage {
            bytes[at] = value;
        }
        let file = File::new(bytes, &account);
        if let Ok(image) = Image::read(&file) {
            let program = Program { file: &file, image: &image };
            let _ = load(&space(&account), program, Some(program));
        }
        drop(file);
        prop_assert_eq!(account.used(), 0);
    }
}
