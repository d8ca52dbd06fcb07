//! Programs for tests, written in Rust and run on the host.
//!
//! The machine room's host back end has no user mode: in its place a user thread
//! runs [`run`], which looks its program counter up in a list of closures. A
//! closure makes system calls through the real hooks, and what a processor would
//! do on the way back is done here: signal handlers run, interrupted calls are
//! made again, `execve` goes on in another closure.

use crate::hooks;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use machine::Account;
use machine::thread::{self, CpuGroup, Hooks, UserRegs};
use machine::user;
use net::{NetNode, StackConfig};
use process::{Birth, Events, ExitStatus, Invocation, Pid, World, WorldSpec, elf::Arguments};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, Once};
use vfs::mount::{Mount, MountFlags};
use vfs::open::How;
use vfs::tmpfs::{Config, TmpFs};
use vfs::tty::Terminals;
use vfs::{At, Caller, Caps, Credentials, FdTable, FsContext, LastLink, OpenFlags};

/// Where program files are loaded; entry `i` is closure number `i`.
const CODE: u64 = 0x40_0000;
/// Memory every program has for its data.
pub(crate) const DATA: usize = 0x50_0000;
const DATA_SIZE: u64 = 0x10_0000;
/// What a program counter says that is none of the closures': "in this call".
const PC: u64 = CODE + 0x1_0000;

type Code = Arc<dyn Fn(&mut Prog<'_>) + Send + Sync>;

static CODES: Mutex<Vec<Code>> = Mutex::new(Vec::new());

/// Adds a closure; its address.
pub(crate) fn code(f: impl Fn(&mut Prog<'_>) + Send + Sync + 'static) -> u64 {
    let mut codes = CODES.lock().unwrap();
    codes.push(Arc::new(f));
    CODE + codes.len() as u64 - 1
}

fn find(rip: u64) -> Option<Code> {
    let at = usize::try_from(rip.checked_sub(CODE)?).ok()?;
    CODES.lock().unwrap().get(at).cloned()
}

/// A thread of a program.
pub(crate) struct Prog<'a> {
    pub(crate) regs: &'a mut UserRegs,
}

/// What user threads do on the host.
fn run(regs: &mut UserRegs) {
    let mut prog = Prog { regs };
    prog.go();
}

impl Prog<'_> {
    /// Runs the closure at the program counter, then exits.
    fn go(&mut self) {
        prog_attention(self.regs);
        let f = find(self.regs.rip).expect("a closure");
        f(self);
        self.call(linux_raw_sys::general::__NR_exit_group, &[0]);
    }

    /// Makes a system call; what `rax` says then.
    pub(crate) fn call(&mut self, number: u32, args: &[usize]) -> i64 {
        self.call_at(PC, number, args)
    }

    /// As [`Prog::call`], going on at `pc` (a new task begins there).
    pub(crate) fn call_at(&mut self, pc: u64, number: u32, args: &[usize]) -> i64 {
        let arg = |i: usize| args.get(i).copied().unwrap_or(0) as u64;
        let r = &mut *self.regs;
        (r.rdi, r.rsi, r.rdx) = (arg(0), arg(1), arg(2));
        (r.r10, r.r8, r.r9) = (arg(3), arg(4), arg(5));
        (r.rip, r.rax) = (pc, u64::from(number));
        let mut number = u64::from(number);
        loop {
            self.regs.orig_rax = number;
            hooks::syscall(self.regs);
            loop {
                prog_attention(self.regs);
                let at = self.regs.rip;
                if at == pc {
                    return self.regs.rax as i64;
                }
                if at == pc - 2 {
                    break;
                }
                self.elsewhere();
            }
            // The instruction is executed again.
            number = self.regs.rax;
            self.regs.rip = pc;
        }
    }

    /// The program counter is in another closure: a handler, or a new program.
    fn elsewhere(&mut self) {
        let f = find(self.regs.rip).expect("a closure");
        let begins = self.regs.rdi == 0;
        if begins {
            f(self);
            self.call(linux_raw_sys::general::__NR_exit_group, &[0]);
        }
        let frame = *self.regs;
        // A handler's calls happen below its frame.
        f(self);
        *self.regs = frame;
        self.regs.rsp += 8;
        self.regs.orig_rax = u64::from(linux_raw_sys::general::__NR_rt_sigreturn);
        hooks::syscall(self.regs);
    }

    /// Makes a process that runs the closure `child`; its number.
    pub(crate) fn fork(&mut self, child: u64) -> Pid {
        let pid = self.call_at(child, linux_raw_sys::general::__NR_fork, &[]);
        Pid::try_from(pid).expect("fork")
    }

    pub(crate) fn exit(&mut self, code: usize) -> ! {
        self.call(linux_raw_sys::general::__NR_exit_group, &[code]);
        unreachable!("a program went on after its end");
    }

    /// wait4(2): who, and its status.
    pub(crate) fn wait(&mut self, pid: i64, options: usize) -> (i64, i32) {
        let args = [pid as usize, DATA, options, 0];
        let who = self.call(linux_raw_sys::general::__NR_wait4, &args);
        (who, self.get::<i32>(DATA))
    }

    pub(crate) fn put<T: zerocopy::IntoBytes + zerocopy::Immutable>(&self, at: usize, v: &T) {
        user::write_value(at, v).expect("the program's memory");
    }

    pub(crate) fn get<T: zerocopy::FromBytes + zerocopy::IntoBytes>(&self, at: usize) -> T {
        user::read_value(at).expect("the program's memory")
    }

    /// Installs the closure `handler` for `signal`.
    pub(crate) fn handle(&self, signal: u32, handler: u64, flags: u64) {
        const RESTORER: u64 = 0x0400_0000;
        let at = DATA + 0x8000;
        self.put(at, &[handler, flags | RESTORER, CODE, 0u64]);
        let mut p = Prog {
            regs: &mut self.regs.clone(),
        };
        let args = [signal as usize, at, 0, 8];
        assert_eq!(p.call(linux_raw_sys::general::__NR_rt_sigaction, &args), 0);
    }

    pub(crate) fn nap(&self) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn prog_attention(regs: &mut UserRegs) {
    while thread::current().attention() {
        hooks::Hooks.attention(regs);
    }
}

/// What a world tells its capsule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    Init(ExitStatus),
    Empty,
    OutOfMemory(Pid),
}

struct Listener(Mutex<Sender<News>>);

impl Listener {
    fn tell(&self, news: News) {
        // A test that is over does not listen any more.
        let _ = self.0.lock().unwrap().send(news);
    }
}

impl Events for Listener {
    fn init_exited(&self, status: ExitStatus) {
        self.tell(News::Init(status));
    }
    fn emptied(&self) {
        self.tell(News::Empty);
    }
    fn out_of_memory(&self, pid: Pid, _: &str) {
        self.tell(News::OutOfMemory(pid));
    }
}

/// A world with a file tree of programs.
pub(crate) struct Stage {
    pub(crate) world: Arc<World>,
    pub(crate) news: Receiver<News>,
    pub(crate) account: Arc<Account>,
    fs: Arc<FsContext>,
    cred: Credentials,
}

impl Stage {
    pub(crate) fn new() -> Stage {
        Stage::limited(4096)
    }

    /// With at most `pages` of memory.
    pub(crate) fn limited(pages: usize) -> Stage {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            hooks::install();
            machine::host::set_program(run);
            machine::timer::start().unwrap();
        });
        let account = Arc::new(Account::new(pages).unwrap());
        // The test itself stands outside.
        let files = Arc::new(Account::new(4096).unwrap());
        let tree = TmpFs::tree(files, Config::default()).unwrap();
        let root = Mount::root(tree, MountFlags::empty(), "test").path();
        let config = StackConfig {
            ports: Vec::new(),
            outbound: false,
            raw: false,
            system: false,
            account: account.clone(),
            sockets_max: 16,
        };
        let cred = Credentials::root(Caps::all());
        let fs = Arc::new(FsContext::new(root.clone()));
        let (tx, news) = channel();
        let world = World::new(WorldSpec {
            name: String::from("test"),
            host_name: String::from("host"),
            account: account.clone(),
            group: CpuGroup::new(100, None),
            network: NetNode::new().new_stack(config).unwrap(),
            threads_max: 64,
            files_max: 64,
            disks: Vec::new(),
            events: Box::new(Listener(Mutex::new(tx))),
        });
        let stage = Stage {
            world,
            news,
            account,
            fs,
            cred,
        };
        stage.mount_proc();
        stage.mount_dev();
        stage
    }

    fn mount_proc(&self) {
        let who = self.who();
        who.make(At::Cwd, b"/proc", vfs::Kind::Directory, 0o555, &[])
            .unwrap();
        let at = who.lookup(At::Cwd, b"/proc", LastLink::Follow).unwrap();
        let tree = vfs::procfs::tree(vfs::procfs::ProcConfig {
            processes: process::procfs::source(self.world.clone()),
            account: self.account.clone(),
            group: self.world.group().clone(),
            started: machine::time::Instant::now(),
            release: process::RELEASE,
            version: process::VERSION,
            files: Vec::new(),
        });
        Mount::attach(&at, tree, MountFlags::empty(), "proc").unwrap();
    }

    /// `/dev` with its terminals; tests that count memory do not pay for it.
    fn mount_dev(&self) {
        let account = Arc::new(Account::new(4096).unwrap());
        let terminals = Terminals::new(process::terminal::jobs(&self.world), account.clone());
        let dev = vfs::devfs::tree(vfs::devfs::DevConfig {
            account,
            console: None,
            nodes: Vec::new(),
            terminals: Some(terminals.clone()),
        });
        let who = self.who();
        who.make(At::Cwd, b"/dev", vfs::Kind::Directory, 0o755, &[])
            .unwrap();
        for (path, tree) in [
            (&b"/dev"[..], dev.unwrap()),
            (b"/dev/pts", terminals.tree()),
        ] {
            let at = who.lookup(At::Cwd, path, LastLink::Follow).unwrap();
            Mount::attach(&at, tree, MountFlags::empty(), "dev").unwrap();
        }
    }

    fn who(&self) -> Caller<'_> {
        Caller {
            fs: &self.fs,
            cred: &self.cred,
        }
    }

    /// Writes the file `path`.
    pub(crate) fn write(&self, path: &str, bytes: &[u8]) {
        let how = How {
            flags: OpenFlags::READ_WRITE | OpenFlags::CREATE,
            mode: 0o755,
            ..How::default()
        };
        let file = self
            .who()
            .open(
                At::Cwd,
                path.as_bytes(),
                &how,
                machine::FileCharge::kernel(),
            )
            .unwrap();
        let mut source = machine::io::Source::kernel(bytes);
        assert_eq!(file.write(&mut source).unwrap(), bytes.len());
    }

    /// Makes `path` a program that runs the closure `entry`.
    pub(crate) fn install(&self, path: &str, entry: u64) {
        self.write(path, &elf(entry));
    }

    /// Starts the first process with the closure `entry`.
    pub(crate) fn start(&self, entry: u64) {
        self.install("/init", entry);
        let path = self
            .who()
            .lookup(At::Cwd, b"/init", LastLink::Follow)
            .unwrap();
        let mut arguments = Arguments::new(8 << 20);
        arguments.push_arg(b"init").unwrap();
        let what = Invocation {
            caller: self.who(),
            account: self.account.clone(),
            limits: mm::Limits::default(),
            randomize: mm::Randomize::Yes,
            no_new_privs: false,
            name: b"/init",
            arguments,
        };
        let birth = Birth {
            fs: self.fs.clone(),
            files: Arc::new(FdTable::new(self.account.clone())),
        };
        self.world.spawn(birth, what, &path).unwrap().start();
    }

    /// The next thing the world tells.
    pub(crate) fn next(&self) -> News {
        self.news
            .recv_timeout(Duration::from_secs(20))
            .expect("news")
    }

    /// Runs `f` as the first process; how it ended.
    pub(crate) fn run(&self, f: impl Fn(&mut Prog<'_>) + Send + Sync + 'static) {
        self.start(code(f));
        assert_eq!(self.next(), News::Init(ExitStatus::Exited(0)));
        assert_eq!(self.next(), News::Empty);
        assert_eq!(self.world.process_count(), 0);
        assert_eq!(self.world.thread_count().0, 0);
        assert_eq!(self.world.unknown_calls().iter().count(), 0);
    }
}

/// A program file with code at [`CODE`] and memory at [`DATA`].
fn elf(entry: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let half = |out: &mut Vec<u8>, v: u16| out.extend(v.to_le_bytes());
    let word = |out: &mut Vec<u8>, v: u32| out.extend(v.to_le_bytes());
    let long = |out: &mut Vec<u8>, v: u64| out.extend(v.to_le_bytes());
    out.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    half(&mut out, 2);
    half(&mut out, 62);
    word(&mut out, 1);
    for v in [entry, 64, 0] {
        long(&mut out, v);
    }
    word(&mut out, 0);
    for v in [64, 56, 2, 0, 0, 0] {
        half(&mut out, v);
    }
    for (flags, addr, memory) in [(5, CODE, 0x1000), (6, DATA as u64, DATA_SIZE)] {
        let file = if flags == 5 { 0x1000 } else { 0 };
        word(&mut out, 1);
        word(&mut out, flags);
        for v in [0, addr, addr, file, memory, 0x1000] {
            long(&mut out, v);
        }
    }
    out.resize(0x1000, 0);
    out
}
