use super::*;
use crate::platform::{BootLog, Platform};
use crate::room::Setup;
use crate::testing::{Bundle, Memory, config, manifest, owner, signed};
use alloc::boxed::Box;
use net::NetNode;
use proptest::prelude::*;
use skep_api::Hash;
use skep_api::control::{
    ControlError, CrashRecord, EventMask, ManifestSource, Message, Refusal, Request,
};
use vfs::OpenFlags;

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
        false
    }
    fn restart(&self) {}
    fn power_off(&self) {}
}

fn room() -> Arc<Capsules> {
    static BOOT: BootLog = BootLog::new();
    let config = config(&[]);
    let mut bundle = Bundle::new(&config);
    let missing = manifest("missing", Hash([9; 32]), 81);
    bundle.manifest("missing", signed(&missing, &owner()));
    let store = crate::blobs::BlobStore::open(Memory::new(bundle.build())).unwrap();
    let setup = Setup {
        store,
        owners: crate::OwnersFiles::none(config.owner),
        config,
        net: NetNode::new(),
        disks: Arc::default(),
        started: crate::Started::Untold,
        platform: Box::new(Bench),
        guard: None,
        boot: &BOOT,
    };
    Capsules::new(setup).unwrap()
}

fn open(room: &Arc<Capsules>) -> Arc<OpenFile> {
    let flags = OpenFlags::READ_WRITE | OpenFlags::NONBLOCK;
    OpenFile::new(
        Device::open(room).unwrap(),
        flags,
        None,
        machine::FileCharge::kernel(),
    )
}

fn send(file: &OpenFile, bytes: &[u8]) -> Result<usize> {
    file.write(&mut Source::kernel(bytes))
}

fn receive(file: &OpenFile) -> Vec<(u32, Message)> {
    let mut buffer = alloc::vec![0; FRAME_BYTES_MAX];
    let n = match file.read(&mut Sink::kernel(&mut buffer)) {
        Ok(n) => n,
        Err(Error::WouldBlock) => 0,
        Err(e) => panic!("{e:?}"),
    };
    let (mut rest, mut all) = (&buffer[..n], Vec::new());
    while !rest.is_empty() {
        let (head, body, after) = frame::split(rest).unwrap();
        all.push((head.id, frame::decode_message(&head, body).unwrap()));
        rest = after;
    }
    all
}

fn ask(file: &OpenFile, request: &Request) -> Reply {
    let bytes = frame::encode_request(5, request).unwrap();
    assert_eq!(send(file, &bytes), Ok(bytes.len()));
    match receive(file).pop() {
        Some((5, Message::Reply(reply))) => reply,
        other => panic!("{other:?}"),
    }
}

fn hello(file: &OpenFile) {
    let client = "test".into();
    assert!(matches!(
        ask(file, &Request::Hello { client }),
        Reply::Hello { .. }
    ));
}

#[test]
fn a_conversation() {
    let room = room();
    let file = open(&room);
    let early = ask(&file, &Request::ListCapsules);
    assert_eq!(early, Reply::Error(ControlError::NotGreeted));
    hello(&file);
    assert_eq!(
        ask(&file, &Request::ListCapsules),
        Reply::Capsules(Vec::new())
    );
    let bytes = alloc::vec![1, 2, 3];
    assert_eq!(
        ask(
            &file,
            &Request::SaveState {
                bytes: bytes.clone()
            }
        ),
        Reply::Done
    );
    assert_eq!(ask(&file, &Request::LoadState), Reply::State(bytes));
    let Reply::Manifests(list) = ask(&file, &Request::ListManifests) else {
        panic!("no list")
    };
    assert_eq!((list.len(), &list[0].refusal), (1, &None));
    let manifest = ManifestSource::Bundle("missing".into());
    assert_eq!(
        ask(&file, &Request::Start { manifest }),
        Reply::Error(ControlError::Refused(Refusal::BlobMissing([9; 32])))
    );
    let off = ask(&file, &Request::PowerOff);
    assert_eq!(off, Reply::Error(ControlError::Unsupported));
    let name = "nobody".into();
    let log = Request::ReadLog {
        name,
        from_offset: 0,
        bytes_max: 9,
    };
    assert_eq!(ask(&file, &log), Reply::Error(ControlError::NotFound));
    assert!(matches!(ask(&file, &Request::NodeInfo), Reply::Node(_)));
}

#[test]
fn frames_come_whole_or_not_at_all() {
    let room = room();
    let file = open(&room);
    let one = frame::encode_request(1, &Request::ListCapsules).unwrap();
    let two = [&one[..], &one[..]].concat();
    for bad in [&one[..one.len() - 1], &one[..5], &two, &[]] {
        assert_eq!(send(&file, bad), Err(Error::Invalid));
    }
    let mut zero = one.clone();
    zero[8..12].fill(0);
    assert_eq!(send(&file, &zero), Err(Error::Invalid));
    assert!(receive(&file).is_empty());
    let mut other = one.clone();
    other[4] = 77;
    assert_eq!(send(&file, &other), Ok(one.len()));
    let kernel = frame::PROTOCOL_VERSION;
    let version = Message::Reply(Reply::Error(ControlError::Version { kernel }));
    assert_eq!(receive(&file), [(1, version)]);
    send(&file, &one).unwrap();
    let mut small = [0; 8];
    assert_eq!(file.read(&mut Sink::kernel(&mut small)), Err(MESSAGE_SIZE));
    assert_eq!(receive(&file).len(), 1);
}

#[test]
fn readiness_and_sessions() {
    let room = room();
    let file = open(&room);
    assert_eq!(file.poll(), Events::WRITABLE);
    hello(&file);
    ask(
        &file,
        &Request::Subscribe {
            events: EventMask::ALL,
        },
    );
    room.hub().emit(skep_api::control::Event::LinkUp {
        interface: "eth0".into(),
    });
    assert!(file.poll().contains(Events::READABLE));
    assert!(matches!(receive(&file)[..], [(0, Message::Event(_))]));
    let more: Vec<_> = (1..crate::SESSIONS_MAX).map(|_| open(&room)).collect();
    assert_eq!(Device::open(&room).err(), Some(Error::Busy));
    drop(more);
    open(&room);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn noise_is_answered_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let room = room();
        let file = open(&room);
        hello(&file);
        let mut bytes = frame::encode_request(3, &Request::ListCapsules).unwrap();
        bytes.truncate(HEADER_BYTES);
        bytes[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&body);
        // A random Reboot would be obeyed.
        let known = frame::decode_request(&frame::header(&bytes).unwrap(), &body);
        if !matches!(known, Ok(Request::Reboot)) {
            prop_assert_eq!(send(&file, &bytes), Ok(bytes.len()));
            let all = receive(&file);
            prop_assert!(matches!(all[..], [(3, Message::Reply(_))]));
        }
    }
}
