use crate::blobs::BlobStore;
use crate::capsule::Capsule;
use crate::disks::Disks;
use crate::disks::tests::Idle;
use crate::platform::{BootLog, Platform};
use crate::room::{Capsules, Setup};
use crate::session::Session;
use crate::testing::{Bundle, Memory, config, manifest, owner, signed};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use machine::io::Source;
use machine::thread::{self, UserRegs};
use machine::time::Instant;
use net::NetNode;
use process::ExitStatus as ProcessEnd;
use process::Thread;
use skep_api::control::{
    CapsuleId, CapsuleState, ControlError, CrashRecord, Event, EventMask, ExitCause, ExitStatus,
    ExitSummary, FRAME_BYTES_MAX, KillScope, LimitKind, ManifestSource, Message, Refusal, Reply,
    Request, frame,
};
use skep_api::manifest::Manifest;

/// Where programs are loaded; the entry's distance from it says what they do.
const CODE: u64 = 0x40_0000;
const WAITS: u64 = 0;
const EXITS: u64 = 1;
const PRINTS: u64 = 2;
const PATIENCE: Duration = Duration::from_secs(20);

/// What user threads run on the host.
fn program(regs: &mut UserRegs) {
    process::signal::attention(regs);
    let me = thread::current().data::<Arc<Thread>>().unwrap().clone();
    match regs.rip - CODE {
        EXITS => me.process().begin_exit(ProcessEnd::Exited(3)),
        PRINTS => {
            let out = me.files.get().unwrap().get(1).unwrap();
            out.write(&mut Source::kernel(b"hello\n")).unwrap();
            me.process().begin_exit(ProcessEnd::Exited(0))
        }
        _ => loop {
            let _ = thread::park(machine::wait::Until::INTERRUPTED);
            process::signal::attention(regs);
        },
    };
    drop(me);
    process::signal::attention(regs);
    unreachable!("attention ends a thread that has to");
}

/// A program file with one segment.
fn elf(what: u64) -> Vec<u8> {
    let mut file = alloc::vec![0u8; 4096];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    put(16, &2u16.to_le_bytes());
    put(18, &62u16.to_le_bytes());
    put(20, &1u32.to_le_bytes());
    put(24, &(CODE + what).to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(52, &64u16.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &1u16.to_le_bytes());
    put(64, &1u32.to_le_bytes());
    put(68, &5u32.to_le_bytes());
    put(80, &CODE.to_le_bytes());
    put(88, &CODE.to_le_bytes());
    put(96, &4096u64.to_le_bytes());
    put(104, &4096u64.to_le_bytes());
    put(112, &4096u64.to_le_bytes());
    file
}

struct Bench;

impl Platform for Bench {
    fn crash(&self) -> Option<CrashRecord> {
        None
    }
    fn had_crash(&self) -> bool {
        false
    }
    fn clear_crash(&self) {}
    fn hardware(&self) -> skep_api::control::hardware::Hardware {
        Default::default()
    }
    fn identity(&self) -> Option<skep_api::identity::Identity> {
        None
    }
    fn prove(&self, _challenge: &[u8]) -> Option<skep_api::Signature> {
        None
    }
    fn keep_identity(&self) -> bool {
        false
    }
    fn can_power_off(&self) -> bool {
        true
    }
    fn restart(&self) {}
    fn power_off(&self) {}
}

struct Node {
    room: Arc<Capsules>,
    session: Arc<Session>,
}

/// A node with capsules called after what their programs do.
fn node(change: impl Fn(&mut Manifest)) -> Node {
    static BOOT: BootLog = BootLog::new();
    machine::timer::start().unwrap();
    machine::host::set_program(program);
    let config = config(&[]);
    let mut bundle = Bundle::new(&config);
    let programs = [WAITS, EXITS, PRINTS].map(elf);
    let tree = bundle.image(&[
        ("bin/waits", &programs[0]),
        ("bin/exits", &programs[1]),
        ("bin/prints", &programs[2]),
    ]);
    for (name, port) in [("waits", 81), ("twin", 81), ("exits", 82), ("prints", 83)] {
        let mut m = manifest(name, tree, port);
        m.command = Vec::from([alloc::format!("/bin/{}", name.replace("twin", "waits"))]);
        change(&mut m);
        bundle.manifest(name, signed(&m, &owner()));
    }
    let mut system = manifest("threebot", tree, 8080);
    system.command = Vec::from([String::from("/bin/exits")]);
    bundle.manifest("threebot", signed(&system, &owner()));
    let disks = Arc::new(Disks::default());
    disks.add(vfs::block::DiskId::virtio(0), Arc::new(Idle::default()));
    let setup = Setup {
        store: BlobStore::open(Memory::new(bundle.build())).unwrap(),
        owners: crate::OwnersFiles::none(config.owner),
        config,
        net: NetNode::new(),
        disks,
        started: crate::Started::Untold,
        platform: Box::new(Bench),
        guard: None,
        boot: &BOOT,
    };
    let room = Capsules::new(setup).unwrap();
    let session = room.open_session().unwrap();
    let node = Node { room, session };
    let client = String::from("test");
    assert!(matches!(
        node.ask(Request::Hello { client }),
        Reply::Hello { .. }
    ));
    node.ask(Request::Subscribe {
        events: EventMask::CAPSULE,
    });
    node
}

impl Node {
    fn ask(&self, request: Request) -> Reply {
        self.room.answer(&self.session, request)
    }

    fn start(&self, name: &str) -> Result<Arc<Capsule>, ControlError> {
        let manifest = ManifestSource::Bundle(name.into());
        match self.ask(Request::Start { manifest }) {
            Reply::Started { capsule, .. } => Ok(self.room.by_id(capsule).unwrap()),
            Reply::Error(e) => Err(e),
            other => panic!("{other:?}"),
        }
    }

    fn event(&self) -> Event {
        let deadline = Instant::now().after(PATIENCE);
        let until = machine::wait::Until::deadline(Some(deadline));
        let next = || self.session.take(FRAME_BYTES_MAX).unwrap();
        let frame = self.session.hub().wait_readable(until, next).unwrap();
        let (head, body, _) = frame::split(&frame).unwrap();
        match frame::decode_message(&head, body).unwrap() {
            Message::Event(record) => record.event,
            Message::Reply(r) => panic!("{r:?}"),
        }
    }

    /// The next exit of a capsule, its start passed over.
    fn exit(&self) -> (CapsuleId, ExitSummary) {
        loop {
            match self.event() {
                Event::CapsuleExited { capsule, exit, .. } => return (capsule, exit),
                Event::CapsuleStarted { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_capsule_runs_and_gives_everything_back() {
    let node = node(|_| ());
    let capsule = node.start("prints").unwrap();
    let account = capsule.parts().map(|p| p.account.clone());
    let (id, exit) = node.exit();
    assert_eq!(id, capsule.id());
    assert_eq!(
        (exit.status, exit.cause),
        (ExitStatus::Code(0), ExitCause::Own)
    );
    assert_eq!(capsule.info().state, CapsuleState::Exited(exit));
    if let Some(account) = account {
        assert_eq!(account.used(), 0);
    }
    let again = node.start("prints").unwrap();
    assert!(again.id() > capsule.id());
    node.exit();
    let log = node.ask(Request::ReadLog {
        name: "prints".into(),
        from_offset: 0,
        bytes_max: 100,
    });
    let Reply::Log { bytes, .. } = log else {
        panic!("{log:?}")
    };
    assert_eq!(bytes, b"hello\nhello\n");
}

#[test]
fn a_stop_that_is_not_heard_kills_after_the_grace() {
    let node = node(|_| ());
    let capsule = node.start("waits").unwrap();
    let account = capsule.parts().unwrap().account.clone();
    assert!(account.used() > 0);
    assert_eq!(
        node.start("waits").err(),
        Some(ControlError::AlreadyRunning {
            capsule: capsule.id()
        })
    );
    let stop = Request::Stop {
        capsule: capsule.id(),
        signal: 15,
        grace_ms: 50,
    };
    assert_eq!(node.ask(stop.clone()), Reply::Done);
    assert_eq!(capsule.info().state, CapsuleState::Stopping);
    let (_, exit) = node.exit();
    assert_eq!(
        (exit.status, exit.cause),
        (ExitStatus::Signal(9), ExitCause::Stopped)
    );
    assert_eq!(account.used(), 0);
    assert_eq!(node.ask(stop), Reply::Error(ControlError::NotRunning));
}

#[test]
fn a_port_is_free_again_with_its_capsule() {
    let node = node(|_| ());
    let capsule = node.start("waits").unwrap();
    assert_eq!(
        node.start("twin").err(),
        Some(ControlError::Refused(Refusal::PortTaken(81)))
    );
    let capsule = capsule.id();
    let kill = Request::Kill {
        capsule,
        signal: 9,
        scope: KillScope::All,
    };
    assert_eq!(node.ask(kill), Reply::Done);
    let (_, exit) = node.exit();
    assert_eq!(
        (exit.status, exit.cause),
        (ExitStatus::Signal(9), ExitCause::Own)
    );
    node.start("twin").unwrap();
}

#[test]
fn programs_run_beside_the_first_one() {
    let node = node(|_| ());
    let capsule = node.start("waits").unwrap();
    assert!(matches!(node.event(), Event::CapsuleStarted { .. }));
    let run = |path: &str, timeout_ms| {
        let reply = node.ask(Request::Exec {
            capsule: capsule.id(),
            argv: Vec::from([String::from(path)]),
            env: Vec::new(),
            timeout_ms,
        });
        match reply {
            Reply::ExecStarted { exec } => exec,
            other => panic!("{other:?}"),
        }
    };
    let exec = run("/bin/exits", 10_000);
    let status = Some(ExitStatus::Code(3));
    assert_eq!(node.event(), Event::ExecFinished { exec, status });
    let exec = run("/bin/waits", 50);
    let status = None;
    assert_eq!(node.event(), Event::ExecFinished { exec, status });
    assert_eq!(capsule.info().pids, [1]);
    let missing = Request::Exec {
        capsule: capsule.id(),
        argv: Vec::from([String::from("/bin/none")]),
        env: Vec::new(),
        timeout_ms: 9,
    };
    let failed = Reply::Error(ControlError::ExecFailed { errno: 2 });
    assert_eq!(node.ask(missing), failed);
}

#[test]
fn a_limit_is_told_at_most_once_a_second() {
    let node = node(|_| ());
    let capsule = node.start("waits").unwrap();
    assert!(matches!(node.event(), Event::CapsuleStarted { .. }));
    node.ask(Request::Subscribe {
        events: EventMask::TROUBLE,
    });
    let world = capsule.parts().unwrap().world.clone();
    let begun = Instant::now();
    for _ in 0..1000 {
        world.tell_limit(process::Limited::Files);
    }
    world.tell_limit(process::Limited::Threads);
    let hit = |limit| Event::LimitHit {
        capsule: capsule.id(),
        limit,
    };
    assert_eq!(node.event(), hit(LimitKind::Files));
    if Instant::now().since(begun) < Duration::from_secs(1) {
        assert_eq!(node.event(), hit(LimitKind::Processes));
    }
}

#[test]
fn what_cannot_start_leaves_nothing() {
    let node = node(|m| m.command = Vec::from([String::from("/bin/none")]));
    assert_eq!(
        node.start("waits").err(),
        Some(ControlError::ExecFailed { errno: 2 })
    );
    assert_eq!(
        node.start("twin").err(),
        Some(ControlError::ExecFailed { errno: 2 })
    );
    assert_eq!(node.ask(Request::ListCapsules), Reply::Capsules(Vec::new()));
    let other = node.start("threebot").err();
    assert_eq!(other, Some(ControlError::NotFound));
}

#[test]
fn the_system_capsule_comes_back_and_no_other_notices() {
    let node = node(|_| ());
    let other = node.start("waits").unwrap();
    assert!(matches!(node.event(), Event::CapsuleStarted { .. }));
    node.room.begin();
    let mut ends = 0;
    while ends < 3 {
        if let Event::CapsuleExited { name, .. } = node.event() {
            assert_eq!(name, "threebot");
            ends += 1;
        }
    }
    assert!(other.is_running());
    assert_eq!(other.info().pids, [1]);
    let client = String::from("again");
    let Reply::Hello { agent_starts, .. } = node.ask(Request::Hello { client }) else {
        panic!("no greeting")
    };
    assert!(agent_starts >= 3);
    let Reply::Capsules(list) = node.ask(Request::ListCapsules) else {
        panic!("no list")
    };
    assert_eq!(list.len(), 1);
    node.room.begin_shutdown(true).unwrap();
    let mut names = Vec::new();
    while !names.iter().any(|n| n == "waits") {
        if let Event::CapsuleExited { name, .. } = node.event() {
            names.push(name);
        }
    }
}

#[test]
fn a_disk_is_seen_by_its_holder_alone() {
    let node = node(|m| {
        if m.name == "waits" || m.name == "prints" {
            m.devices = Vec::from([String::from("vda")]);
        }
        if m.name == "exits" {
            m.devices = Vec::from([String::from("vdb")]);
        }
        if m.name == "twin" {
            m.ports.clear();
        }
    });
    let missing = Refusal::DeviceMissing("vdb".into());
    assert_eq!(
        node.start("exits").err(),
        Some(ControlError::Refused(missing))
    );
    let (holder, other) = (node.start("waits").unwrap(), node.start("twin").unwrap());
    let sees = |capsule: &Capsule, path: &[u8]| {
        let fs = vfs::FsContext::new(capsule.parts().unwrap().root.path());
        let cred = vfs::Credentials::root(vfs::Caps::all());
        let caller = vfs::Caller {
            fs: &fs,
            cred: &cred,
        };
        let found = caller.lookup(vfs::At::Cwd, path, vfs::LastLink::Follow);
        found.map(drop)
    };
    for path in [&b"/dev/vda"[..], b"/sys/block/vda/size"] {
        assert_eq!(sees(&holder, path), Ok(()));
        assert_eq!(sees(&other, path), Err(vfs::Error::NotFound));
    }
    let taken = Refusal::DeviceTaken {
        device: "vda".into(),
        holder: "waits".into(),
    };
    assert_eq!(
        node.start("prints").err(),
        Some(ControlError::Refused(taken))
    );
    let stop = Request::Stop {
        capsule: holder.id(),
        signal: 9,
        grace_ms: 0,
    };
    node.ask(stop);
    node.exit();
    assert!(node.start("prints").is_ok());
    node.exit();
    node.ask(Request::Stop {
        capsule: other.id(),
        signal: 9,
        grace_ms: 0,
    });
    node.exit();
}
