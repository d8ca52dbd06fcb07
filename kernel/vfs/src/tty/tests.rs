use super::*;
use crate::cred::{Caps, Credentials};
use crate::file::{OpenFile, OpenFlags};
use crate::mount::{Mount, MountFlags};
use crate::open::How;
use crate::{At, Caller, FsContext};
use machine::io::{Sink, Source};
use std::string::String;
use std::vec::Vec;

/// Processes of one session, whose leader calls.
#[derive(Default)]
struct Fake {
    terminal: SpinLock<Option<Arc<Terminal>>>,
    /// Group of the caller, and what it does with background signals.
    group: SpinLock<(u32, Option<Background>)>,
    told: SpinLock<Vec<String>>,
}

impl Fake {
    fn note(&self, text: String) {
        self.told.lock().push(text);
    }
    fn told(&self) -> Vec<String> {
        core::mem::take(&mut *self.told.lock())
    }
}

impl Jobs for Fake {
    fn caller(&self) -> Option<Job> {
        Some(Job {
            session: 10,
            group: self.group.lock().0,
            leads: true,
            terminal: self.terminal.lock().clone(),
        })
    }
    fn control(&self, terminal: Option<Arc<Terminal>>) {
        *self.terminal.lock() = terminal;
    }
    fn release(&self, session: u32, _: &Arc<Terminal>) {
        assert_eq!(session, 10);
        *self.terminal.lock() = None;
    }
    fn hang_up(&self, session: u32, terminal: &Arc<Terminal>, foreground: u32) {
        self.release(session, terminal);
        self.note(std::format!("hang-up {foreground}"));
    }
    fn signal(&self, group: u32, signal: TtySignal) {
        self.note(std::format!("{group} {signal:?}"));
    }
    fn background(&self, signal: TtySignal) -> Background {
        self.note(std::format!("background {signal:?}"));
        self.group.lock().1.unwrap_or(Background::Signalled)
    }
    fn session_of(&self, group: u32) -> Option<u32> {
        (group < 20).then_some(10)
    }
    fn signal_number(&self, group: u32, number: u32) -> Result<()> {
        self.note(std::format!("{group} {number}"));
        Ok(())
    }
}

struct Stage {
    fake: Arc<Fake>,
    fs: FsContext,
    cred: Credentials,
    account: Arc<Account>,
}

impl Stage {
    fn new() -> Stage {
        let fake = Arc::new(Fake::default());
        *fake.group.lock() = (10, None);
        let account = Arc::new(Account::new(100).unwrap());
        let terminals = Terminals::new(fake.clone(), account.clone());
        let root = Mount::root(terminals.tree(), MountFlags::empty(), "devpts");
        Stage {
            fake,
            fs: FsContext::new(root.path()),
            cred: Credentials::root(Caps::all()),
            account,
        }
    }

    fn open(&self, path: &str, more: OpenFlags) -> Result<Arc<OpenFile>> {
        let how = How {
            flags: OpenFlags::READ_WRITE | OpenFlags::NONBLOCK | more,
            ..How::default()
        };
        let who = Caller {
            fs: &self.fs,
            cred: &self.cred,
        };
        who.open(
            At::Cwd,
            path.as_bytes(),
            &how,
            machine::FileCharge::kernel(),
        )
    }

    /// A pair, unlocked.
    fn pair(&self) -> (Arc<OpenFile>, Arc<OpenFile>) {
        let master = self.open("/ptmx", OpenFlags::empty()).unwrap();
        let t = terminal(&master);
        t.state.lock().locked = false;
        let slave = self.open(&std::format!("/{}", t.number()), OpenFlags::empty());
        (master, slave.unwrap())
    }
}

fn terminal(master: &OpenFile) -> Arc<Terminal> {
    master.downcast::<Master>().unwrap().terminal.clone()
}

fn get(f: &OpenFile) -> Result<Vec<u8>> {
    let mut b = [0; 1024];
    let n = f.read(&mut Sink::kernel(&mut b))?;
    Ok(b[..n].to_vec())
}

fn put(f: &OpenFile, text: &[u8]) -> Result<usize> {
    f.write(&mut Source::kernel(text))
}

#[test]
fn a_pair_carries_lines_and_output() {
    let s = Stage::new();
    let (master, slave) = s.pair();
    assert_eq!(get(&slave), Err(Error::WouldBlock));
    assert_eq!(master.poll(), Events::WRITABLE);
    put(&master, b"hello\r").unwrap();
    assert!(slave.poll().contains(Events::IN));
    assert_eq!(get(&slave).unwrap(), b"hello\n");
    put(&slave, b"out\n").unwrap();
    assert_eq!(get(&master).unwrap(), b"hello\r\nout\r\n");
    assert_eq!(get(&master), Err(Error::WouldBlock));
}

#[test]
fn a_reader_waits_for_the_line() {
    let s = Stage::new();
    let (master, slave) = s.pair();
    slave.set_nonblocking(false);
    let t = std::thread::spawn(move || get(&slave));
    for c in b"slow\n" {
        std::thread::sleep(core::time::Duration::from_millis(2));
        put(&master, &[*c]).unwrap();
    }
    assert_eq!(t.join().unwrap().unwrap(), b"slow\n");
}

#[test]
fn a_full_screen_holds_the_writer_up() {
    let s = Stage::new();
    let (master, slave) = s.pair();
    slave.set_nonblocking(false);
    let text = [b'x'; 100_000];
    let t = std::thread::spawn(move || put(&slave, &text));
    let mut seen = 0;
    while seen < text.len() {
        match get(&master) {
            Ok(b) => seen += b.len(),
            Err(e) => assert_eq!(e, Error::WouldBlock),
        }
    }
    assert_eq!(t.join().unwrap(), Ok(text.len()));
}

#[test]
fn locked_and_closed_slaves_cannot_be_opened() {
    let s = Stage::new();
    let master = s.open("/ptmx", OpenFlags::empty()).unwrap();
    assert_eq!(s.open("/0", OpenFlags::empty()).err(), Some(Error::Io));
    terminal(&master).state.lock().locked = false;
    let slave = s.open("/0", OpenFlags::empty()).unwrap();
    let second = s.open("/ptmx", OpenFlags::empty()).unwrap();
    assert_eq!(terminal(&second).number(), 1);
    drop(master);
    assert_eq!(
        s.open("/0", OpenFlags::empty()).err(),
        Some(Error::NotFound)
    );
    // What is left reads the end and cannot write.
    assert_eq!(get(&slave).unwrap(), b"");
    assert_eq!(put(&slave, b"x"), Err(Error::Io));
    assert!(slave.poll().contains(Events::HUP | Events::IN));
    drop(slave);
    // The number is given again.
    let third = s.open("/ptmx", OpenFlags::empty()).unwrap();
    assert_eq!(terminal(&third).number(), 0);
    drop((second, third));
    s.fake.control(None);
    assert_eq!(s.account.used(), 0);
}

#[test]
fn the_master_hears_that_nobody_is_left() {
    let s = Stage::new();
    let (master, slave) = s.pair();
    put(&slave, b"last").unwrap();
    drop(slave);
    assert!(master.poll().contains(Events::HUP | Events::IN));
    assert_eq!(get(&master).unwrap(), b"last");
    assert_eq!(get(&master), Err(Error::Io));
    let slave = s.open("/0", OpenFlags::empty()).unwrap();
    assert_eq!(get(&master), Err(Error::WouldBlock));
    drop(slave);
}

#[test]
fn the_leader_gets_a_terminal_by_opening_one() {
    let s = Stage::new();
    let (master, slave) = s.pair();
    let t = terminal(&master);
    assert!(Arc::ptr_eq(s.fake.terminal.lock().as_ref().unwrap(), &t));
    assert_eq!(t.foreground(), 10);
    put(&master, b"\x03").unwrap();
    put(&master, b"\x1a").unwrap();
    assert_eq!(s.fake.told(), ["10 Interrupt", "10 Suspend"]);
    // In the background.
    s.fake.group.lock().0 = 11;
    assert_eq!(get(&slave), Err(Error::Interrupted));
    assert_eq!(s.fake.told(), ["background BackgroundRead"]);
    put(&slave, b"fine").unwrap();
    for (outcome, read) in [
        (Background::Orphaned, Error::Io),
        (Background::Unheard, Error::Io),
        (Background::Signalled, Error::Interrupted),
    ] {
        s.fake.group.lock().1 = Some(outcome);
        assert_eq!(get(&slave), Err(read));
    }
    s.fake.told();
    drop(master);
    assert_eq!(s.fake.told(), ["hang-up 10"]);
    assert!(s.fake.terminal.lock().is_none());
}

#[test]
fn opening_without_becoming_controlled() {
    let s = Stage::new();
    let master = s.open("/ptmx", OpenFlags::empty()).unwrap();
    terminal(&master).state.lock().locked = false;
    let slave = s.open("/0", OpenFlags::NOCTTY).unwrap();
    assert!(s.fake.terminal.lock().is_none());
    drop((master, slave));
    assert!(s.fake.told().is_empty());
}

#[test]
fn packets_tell_what_happened() {
    let s = Stage::new();
    let (master, slave) = s.pair();
    terminal(&master).state.lock().packet = true;
    put(&slave, b"text").unwrap();
    assert_eq!(get(&master).unwrap(), b"\0text");
    put(&master, b"\x13").unwrap();
    assert!(master.poll().contains(Events::PRI | Events::IN));
    assert_eq!(get(&master).unwrap(), [packet::STOP]);
    assert_eq!(put(&slave, b"held"), Err(Error::WouldBlock));
    put(&master, b"\x11").unwrap();
    assert_eq!(get(&master).unwrap(), [packet::START]);
    put(&master, b"\x03").unwrap();
    let flushed = packet::FLUSH_READ | packet::FLUSH_WRITE;
    assert_eq!(get(&master).unwrap(), [flushed]);
    assert_eq!(get(&master).unwrap(), b"\0^C");
    // A reader with room for one byte gets the head alone, and is not kept.
    put(&slave, b"z").unwrap();
    let mut one = [9; 1];
    assert_eq!(master.read(&mut Sink::kernel(&mut one)), Ok(1));
    assert_eq!(one, [0]);
}

#[test]
fn minimum_and_time_shape_a_raw_read() {
    let s = Stage::new();
    let (master, slave) = s.pair();
    let set = |min: u8, time: u8| {
        let t = terminal(&master);
        let mut state = t.state.lock();
        let mut bytes = state.line.termios().to_bytes();
        bytes[12..16].fill(0);
        bytes[17 + termios::Control::Min as usize] = min;
        bytes[17 + termios::Control::Time as usize] = time;
        let new = state.line.termios().with_bytes(&bytes);
        state.line.set_termios(new);
    };
    slave.set_nonblocking(false);
    set(0, 0);
    assert_eq!(get(&slave).unwrap(), b"");
    set(0, 1);
    let before = std::time::Instant::now();
    assert_eq!(get(&slave).unwrap(), b"");
    assert!(before.elapsed().as_millis() >= 90);
    set(3, 0);
    put(&master, b"ab").unwrap();
    assert!(!slave.poll().contains(Events::IN));
    let waiting = slave.clone();
    let t = std::thread::spawn(move || get(&waiting));
    std::thread::sleep(core::time::Duration::from_millis(10));
    put(&master, b"cd").unwrap();
    assert!(t.join().unwrap().unwrap().len() >= 3);
    set(3, 1);
    put(&master, b"x").unwrap();
    // The pause after the first byte ends it.
    assert_eq!(get(&slave).unwrap(), b"x");
}

#[test]
fn the_directory_lists_what_there_is() {
    let s = Stage::new();
    let _pairs = [s.pair(), s.pair()];
    let root = s.fs.root();
    let mut names = Vec::new();
    let dir = root.dentry.inode().unwrap();
    dir.list(2, &mut |e| {
        names.push(String::from_utf8(e.name.to_vec()).unwrap());
        true
    })
    .unwrap();
    assert_eq!(names, ["ptmx", "0", "1"]);
    let node = dir.lookup(b"1").unwrap().stat();
    assert_eq!((node.rdev, node.mode, node.gid), (136 << 8 | 1, 0o20620, 5));
    // Memory for so many and no more.
    let more: Vec<_> = (0..3)
        .map(|_| s.open("/ptmx", OpenFlags::empty()))
        .collect();
    assert_eq!(more.iter().filter(|m| m.is_err()).count(), 1);
}
