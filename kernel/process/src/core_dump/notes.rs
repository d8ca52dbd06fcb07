//! The notes of a core file: threads, process, signal, auxiliary vector and mapped
//! files (`linux/elfcore.h`, elf(5)).

use super::Portrait;
use super::image::Plan;
use crate::signal::SigInfo;
use crate::{Thread, Times};
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::addr::PAGE_SIZE;
use machine::thread;
use zerocopy::IntoBytes;

const NT_PRSTATUS: u32 = 1;
const NT_PRFPREG: u32 = 2;
const NT_PRPSINFO: u32 = 3;
const NT_AUXV: u32 = 6;
const NT_X86_XSTATE: u32 = 0x202;
const NT_SIGINFO: u32 = 0x5349_4749;
const NT_FILE: u32 = 0x4649_4c45;
const CORE: &[u8] = b"CORE\0";
const LINUX: &[u8] = b"LINUX\0";
/// Bytes of the part that `fxsave` writes.
const LEGACY_LEN: usize = 512;
/// Where a debugger looks for what an `XSAVE` image could hold.
const FEATURES_AT: usize = 464;
/// Bytes of the arguments that are shown (`ELF_PRARGSZ`).
const ARGUMENTS: usize = 80;

/// Bytes that grow as long as there is memory.
struct Bytes(Vec<u8>);

impl Bytes {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        self.0.try_reserve(bytes.len()).ok()?;
        self.0.extend_from_slice(bytes);
        Some(())
    }

    fn words(&mut self, words: &[u32]) -> Option<()> {
        words.iter().try_for_each(|w| self.put(&w.to_le_bytes()))
    }

    fn longs(&mut self, longs: &[u64]) -> Option<()> {
        longs.iter().try_for_each(|l| self.put(&l.to_le_bytes()))
    }

    fn pad(&mut self) -> Option<()> {
        let missing = self.0.len().next_multiple_of(4) - self.0.len();
        self.put([0; 4].get(..missing)?)
    }

    /// A note: lengths, kind, name and content, each padded to four bytes.
    fn note(&mut self, name: &[u8], kind: u32, content: &[u8]) -> Option<()> {
        let len = u32::try_from(content.len()).ok()?;
        self.words(&[name.len() as u32, len, kind])?;
        self.put(name)?;
        self.pad()?;
        self.put(content)?;
        self.pad()
    }
}

/// All notes, those of the thread that took the signal first; nothing without memory.
pub(super) fn all(
    me: &Arc<Thread>,
    plan: &Plan,
    first: &Portrait,
    info: &SigInfo,
    others: &[Portrait],
) -> Option<Vec<u8>> {
    let mut out = Bytes(Vec::new());
    status(&mut out, me, first, info)?;
    out.note(CORE, NT_PRPSINFO, &program(me)?)?;
    out.note(CORE, NT_SIGINFO, &info.to_user())?;
    out.note(CORE, NT_AUXV, &me.process().program().auxv)?;
    out.note(CORE, NT_FILE, &files(plan)?)?;
    extended(&mut out, first)?;
    for other in others {
        status(&mut out, me, other, info)?;
        extended(&mut out, other)?;
    }
    Some(out.0)
}

/// `struct elf_prstatus`.
fn status(out: &mut Bytes, me: &Thread, thread: &Portrait, info: &SigInfo) -> Option<()> {
    let process = me.process();
    let mut b = Bytes(Vec::new());
    b.words(&[info.signo as u32, info.code as u32, info.errno as u32])?;
    b.words(&[info.signo as u32 & 0xffff])?;
    b.longs(&[thread.pending, thread.blocked])?;
    let (group, session) = (process.group().unwrap_or(0), process.session().unwrap_or(0));
    b.words(&[thread.tid, process.ppid(), group, session])?;
    let children = process.children_counted().times;
    for Times { user, system } in [thread.times, children] {
        for time in [user, system] {
            b.longs(&[time.as_secs(), u64::from(time.subsec_micros())])?;
        }
    }
    b.put(thread.general.as_bytes())?;
    b.words(&[u32::from(!thread.extended.is_empty()), 0])?;
    out.note(CORE, NT_PRSTATUS, &b.0)
}

/// Floating-point and vector registers.
fn extended(out: &mut Bytes, thread: &Portrait) -> Option<()> {
    let Some(legacy) = thread.extended.get(..LEGACY_LEN) else {
        return Some(());
    };
    out.note(CORE, NT_PRFPREG, legacy)?;
    if thread.extended.len() == LEGACY_LEN {
        return Some(());
    }
    let mut image = Bytes(Vec::new());
    image.put(&thread.extended)?;
    let features = image.0.get_mut(FEATURES_AT..FEATURES_AT + 8)?;
    features.copy_from_slice(thread::fpu_features().as_bytes());
    out.note(LINUX, NT_X86_XSTATE, &image.0)
}

/// `struct elf_prpsinfo`.
fn program(me: &Arc<Thread>) -> Option<Vec<u8>> {
    let process = me.process();
    let mut b = Bytes(Vec::new());
    // It runs.
    b.put(&[0, b'R', 0, me.schedule().nice as u8, 0, 0, 0, 0])?;
    b.longs(&[0])?;
    let gid = me.cred.get().map_or(0, |c| c.gid);
    let (group, session) = (process.group().unwrap_or(0), process.session().unwrap_or(0));
    b.words(&[process.uid(), gid, process.pid(), process.ppid()])?;
    b.words(&[group, session])?;
    b.put(&me.comm_bytes())?;
    let mut arguments = [0; ARGUMENTS];
    let (start, end) = process.program().arguments;
    let len = end.saturating_sub(start).min(ARGUMENTS - 1);
    if let (Some(space), Some(part)) = (me.space.get(), arguments.get_mut(..len)) {
        // What cannot be read is not shown.
        let n = space.read(start, part);
        for b in part
            .iter_mut()
            .take(n.saturating_sub(1))
            .filter(|b| **b == 0)
        {
            *b = b' ';
        }
    }
    b.put(&arguments)?;
    Some(b.0)
}

/// How many files, the size of a page, where each is mapped, and their names.
fn files(plan: &Plan) -> Option<Vec<u8>> {
    let mut b = Bytes(Vec::new());
    b.longs(&[plan.files.len() as u64, PAGE_SIZE as u64])?;
    for f in &plan.files {
        b.longs(&[f.range.start as u64, f.range.end as u64, f.page])?;
    }
    for f in &plan.files {
        b.put(f.path.as_bytes())?;
        b.put(&[0])?;
    }
    Some(b.0)
}
