use super::sem::Operation;
use super::*;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use machine::Account;
use machine::time::Instant;
use proptest::prelude::*;
use std::thread;
use vfs::Caps;

const CREATE: u32 = 0o1000;
const EXCLUSIVE: u32 = 0o2000;

struct Stage {
    ipc: Ipc,
    account: Arc<Account>,
    cred: Credentials,
}

impl Stage {
    fn new() -> Stage {
        Stage {
            ipc: Ipc::default(),
            account: Arc::new(Account::new(64).unwrap()),
            cred: Credentials::user(1000, 1000),
        }
    }

    fn who(&self, pid: Pid) -> Caller<'_> {
        Caller {
            cred: &self.cred,
            pid,
        }
    }

    fn set(&self, count: usize) -> i32 {
        let wanted = Wanted {
            key: 0,
            flags: 0o600,
        };
        self.ipc
            .semget(wanted, count, &self.account, self.who(1))
            .unwrap()
    }

    fn value(&self, id: i32, number: usize) -> i32 {
        self.ipc.sem_look(id, number, self.who(1)).unwrap().value
    }
}

fn op(number: u16, change: i16) -> Operation {
    Operation {
        number,
        change,
        nowait: true,
        undo: false,
    }
}

#[test]
fn keys_and_modes_decide_who_gets_what() {
    let s = Stage::new();
    let get = |key, flags, cred: &Credentials| {
        let wanted = Wanted { key, flags };
        s.ipc.semget(wanted, 2, &s.account, Caller { cred, pid: 1 })
    };
    let other = Credentials::user(7, 7);
    let mine = &s.cred;
    assert_eq!(get(5, 0o600, mine), Err(Error::NotFound));
    let id = get(5, CREATE | 0o640, mine).unwrap();
    assert_eq!(get(5, 0o600, mine), Ok(id));
    assert_eq!(get(5, CREATE | EXCLUSIVE, mine), Err(Error::Exists));
    assert_eq!(get(5, 0o400, &other), Err(Error::Denied));
    assert_eq!(get(5, 0, &other), Ok(id));
    let group = Credentials::user(8, 1000);
    assert_eq!(get(5, 0o040, &group), Ok(id));
    assert_eq!(get(5, 0o020, &group), Err(Error::Denied));
    let powerful = Credentials {
        effective: Caps::IPC_OWNER,
        ..other.clone()
    };
    assert_eq!(get(5, 0o666, &powerful), Ok(id));
    let remove = |cred| s.ipc.sem_remove(id, Caller { cred, pid: 1 });
    assert_eq!(remove(&other), Err(Error::NotPermitted));
    assert_eq!(remove(mine), Ok(()));
    assert_eq!(remove(mine), Err(Error::Invalid));
    // The place is used again under another identifier.
    assert_ne!(get(5, CREATE | 0o600, mine).unwrap(), id);
    assert_ne!(get(0, 0o600, mine), get(0, 0o600, mine));
}

#[test]
fn operations_happen_together_or_not_at_all() {
    let s = Stage::new();
    let id = s.set(2);
    let run = |ops: &[Operation]| s.ipc.semop(id, ops, None, s.who(3));
    run(&[op(0, 5), op(1, 1)]).unwrap();
    assert_eq!(run(&[op(0, -2), op(1, -2)]), Err(Error::WouldBlock));
    assert_eq!((s.value(id, 0), s.value(id, 1)), (5, 1));
    assert_eq!(run(&[op(0, -5), op(0, 0), op(0, 3)]), Ok(()));
    assert_eq!(s.value(id, 0), 3);
    assert_eq!(run(&[op(0, 32_767)]), Err(Error::Range));
    assert_eq!(run(&[op(2, 1)]), Err(Error::NoSuchSemaphore));
    assert_eq!(run(&[]), Err(Error::Invalid));
}

#[test]
fn waiters_are_counted_woken_and_told_of_the_end() {
    let s = Arc::new(Stage::new());
    let id = s.set(1);
    let wait = |change| {
        let s = s.clone();
        thread::spawn(move || {
            let op = Operation {
                nowait: false,
                ..op(0, change)
            };
            s.ipc.semop(id, &[op], None, s.who(4))
        })
    };
    let look = || s.ipc.sem_look(id, 0, s.who(1)).unwrap();
    let a = wait(-2);
    while look().growing == 0 {
        thread::yield_now();
    }
    s.ipc.semop(id, &[op(0, 1)], None, s.who(1)).unwrap();
    s.ipc.semop(id, &[op(0, 1)], None, s.who(1)).unwrap();
    assert_eq!(a.join().unwrap(), Ok(()));
    assert_eq!((look().growing, look().value, look().pid), (0, 0, 4));
    s.ipc.sem_assign(id, 0, &[1], s.who(1)).unwrap();
    let b = wait(0);
    while look().zero == 0 {
        thread::yield_now();
    }
    s.ipc.sem_remove(id, s.who(1)).unwrap();
    assert_eq!(b.join().unwrap(), Err(Error::Removed));
    let id = s.set(1);
    let soon = Some(Instant::now().after(Duration::from_millis(5)));
    let op = Operation {
        nowait: false,
        ..op(0, -1)
    };
    assert_eq!(
        s.ipc.semop(id, &[op], soon, s.who(1)),
        Err(Error::WouldBlock)
    );
}

#[test]
fn the_end_of_a_process_takes_back_what_it_did() {
    let s = Stage::new();
    let id = s.set(3);
    let undo = |number, change| Operation {
        undo: true,
        ..op(number, change)
    };
    let run = |pid, ops: &[Operation]| s.ipc.semop(id, ops, None, s.who(pid));
    s.ipc.sem_assign(id, 0, &[4, 4, 4], s.who(1)).unwrap();
    run(9, &[undo(0, -3), undo(1, 2), op(2, 1)]).unwrap();
    run(8, &[undo(0, -1)]).unwrap();
    // What fails leaves nothing to take back.
    assert_eq!(run(9, &[undo(1, 1), undo(0, -9)]), Err(Error::WouldBlock));
    // Setting a value forgets what was to be taken back of it.
    s.ipc.sem_assign(id, 1, &[7], s.who(1)).unwrap();
    s.ipc.process_ended(9);
    assert_eq!([0, 1, 2].map(|n| s.value(id, n)), [3, 7, 5]);
    s.ipc.process_ended(8);
    s.ipc.process_ended(8);
    assert_eq!(s.value(id, 0), 4);
}

#[test]
fn messages_come_by_type() {
    use super::msg::{Message, Which};
    let s = Stage::new();
    let wanted = Wanted {
        key: 0,
        flags: 0o600,
    };
    let id = s.ipc.msgget(wanted, &s.account, s.who(1)).unwrap();
    let send = |kind, text: &str| {
        let message = Message {
            kind,
            text: text.as_bytes().to_vec(),
        };
        s.ipc.msgsnd(id, message, false, s.who(1))
    };
    let receive = |which, max, cut| {
        let m = s.ipc.msgrcv(id, which, max, cut, false, s.who(2))?;
        Ok((m.kind, std::string::String::from_utf8(m.text).unwrap()))
    };
    for (kind, text) in [(3, "c"), (1, "a"), (2, "bbb"), (1, "d")] {
        send(kind, text).unwrap();
    }
    let is = |kind, text: &str| Ok((kind, text.into()));
    assert_eq!(receive(Which::UpTo(2), 9, false), is(1, "a"));
    assert_eq!(receive(Which::Copy(0), 9, false), is(3, "c"));
    assert_eq!(receive(Which::Not(3), 2, false), Err(Error::TooBig));
    assert_eq!(receive(Which::Not(3), 2, true), is(2, "bb"));
    assert_eq!(receive(Which::Kind(2), 9, false), Err(Error::NoMessage));
    assert_eq!(receive(Which::First, 9, false), is(3, "c"));
    assert_eq!(receive(Which::Kind(1), 9, false), is(1, "d"));
    assert_eq!(send(0, "x"), Err(Error::Invalid));
    let big = "x".repeat(8192);
    send(1, &big).unwrap();
    send(1, &big).unwrap();
    assert_eq!(send(1, "y"), Err(Error::WouldBlock));
    let used = s.account.used();
    assert!(used >= 4);
    s.ipc.msg_remove(id, s.who(1)).unwrap();
    assert_eq!(s.account.used(), 0);
}

#[test]
fn a_queue_of_empty_messages_has_an_end() {
    use super::msg::{Message, QUEUE_BYTES};
    let mut s = Stage::new();
    s.account = Arc::new(Account::new(4096).unwrap());
    s.cred.effective = Caps::SYS_RESOURCE;
    let wanted = Wanted {
        key: 0,
        flags: 0o600,
    };
    let id = s.ipc.msgget(wanted, &s.account, s.who(1)).unwrap();
    let owner = (1000, 1000, 0o600);
    s.ipc.msg_set(id, s.who(1), owner, usize::MAX).unwrap();
    let send = || {
        let message = Message {
            kind: 1,
            text: Vec::new(),
        };
        s.ipc.msgsnd(id, message, false, s.who(1))
    };
    let sent = (0..=QUEUE_BYTES).take_while(|_| send().is_ok()).count();
    assert_eq!(sent, QUEUE_BYTES);
    assert_eq!(send(), Err(Error::WouldBlock));
}

#[test]
fn posix_queues_sort_by_priority_and_tell_once() {
    use super::mqueue::{How, Notify, OpenQueue, Size};
    use vfs::file::OpenFlags;
    let s = Stage::new();
    let flags = OpenFlags::READ_WRITE | OpenFlags::CREATE | OpenFlags::NONBLOCK;
    let size = Size {
        messages: 3,
        bytes: 16,
    };
    let open = |name: &[u8], flags, size| {
        s.ipc
            .mqueues()
            .open(name, flags, 0o600, size, &s.account, s.who(1))
    };
    let file = open(b"q", flags, Some(size)).unwrap();
    let q = file.downcast::<OpenQueue>().unwrap();
    let told = machine::sync::SpinLock::new(Vec::new());
    let notifier = |n: &Notify, _: Pid, _: u32| told.lock().push(n.pid);
    let send =
        |text: &[u8], priority| q.send(&file, text.to_vec(), priority, None, (s.who(1), &notifier));
    let notify = Notify {
        pid: 5,
        how: How::Nothing,
    };
    assert_eq!(q.notify(5, Some(notify.clone())), Ok(()));
    assert_eq!(q.notify(6, Some(notify)), Err(Error::Busy));
    for (text, priority) in [(b"low", 1), (b"hi1", 9), (b"hi2", 9)] {
        send(text, priority).unwrap();
    }
    assert_eq!(*told.lock(), [5]);
    assert_eq!(send(b"x", 0), Err(Error::WouldBlock));
    assert_eq!(send(&[0; 17], 0), Err(Error::MessageSize));
    assert!(!file.poll().contains(vfs::Events::OUT));
    let mut order = Vec::new();
    while let Ok((text, _)) = q.receive(&file, 16, None) {
        order.push(text);
    }
    assert_eq!(order, [b"hi1", b"hi2", b"low"]);
    assert_eq!(q.receive(&file, 15, None), Err(Error::MessageSize));
    // A name goes, the queue stays with its openings.
    let names = s.ipc.mqueues();
    assert_eq!(names.unlink(b"q", s.who(1)), Ok(()));
    assert_eq!(names.unlink(b"q", s.who(1)), Err(Error::NotFound));
    assert_eq!(
        open(b"q", OpenFlags::READ_WRITE, None).err(),
        Some(Error::NotFound)
    );
    let many = Some(Size {
        messages: 11,
        bytes: 1,
    });
    assert_eq!(open(b"r", flags, many).err(), Some(Error::Invalid));
    assert_eq!(open(b"a/b", flags, None).err(), Some(Error::Denied));
    drop(file);
    assert_eq!(s.account.used(), 0);
}

#[test]
fn a_removed_segment_lives_with_its_attachments() {
    use super::shm::Attach;
    let s = Stage::new();
    let wanted = Wanted {
        key: 77,
        flags: CREATE | 0o600,
    };
    let get = || s.ipc.shmget(wanted, 5000, &s.account, s.who(1));
    let id = get().unwrap();
    let space = mm::AddressSpace::new(s.account.clone()).unwrap();
    let how = Attach {
        addr: 0,
        round: false,
        read_only: false,
        exec: false,
        replace: false,
    };
    let count = || s.ipc.shm_status(id, s.who(1)).map(|(_, s)| s.attachments);
    let a = s.ipc.shmat(id, how, &space, s.who(1)).unwrap();
    let b = s.ipc.shmat(id, how, &space, s.who(1)).unwrap();
    assert_eq!(count(), Ok(2));
    // The second page of one is taken out: the rest is still an attachment.
    space.unmap(a + 4096, 4096).unwrap();
    let child = space.fork().unwrap();
    assert_eq!(count(), Ok(4));
    drop(child);
    s.ipc.shm_remove(id, s.who(1)).unwrap();
    assert_ne!(get(), Ok(id));
    assert_eq!(count(), Ok(2));
    assert_eq!(s.ipc.shmdt(a + 4096, &space, s.who(1)), Err(Error::Invalid));
    s.ipc.shmdt(a, &space, s.who(1)).unwrap();
    assert_eq!(count(), Ok(1));
    s.ipc.shmdt(b, &space, s.who(1)).unwrap();
    assert_eq!(count(), Err(Error::Invalid));
    assert_eq!(s.ipc.shmdt(b, &space, s.who(1)), Err(Error::Invalid));
    let at = |addr, round| Attach { addr, round, ..how };
    let id = get().unwrap();
    assert_eq!(
        s.ipc.shmat(id, at(b + 1, false), &space, s.who(1)),
        Err(Error::Invalid)
    );
    assert_eq!(s.ipc.shmat(id, at(b + 1, true), &space, s.who(1)), Ok(b));
    assert_eq!(
        s.ipc.shmat(id, at(b, false), &space, s.who(1)),
        Err(Error::Invalid)
    );
}

proptest! {
    /// Whatever processes do with SEM_UNDO, their end restores the values.
    #[test]
    fn undo_restores(ops in proptest::collection::vec((1u32..5, 0u16..3, -4i16..5), 0..60)) {
        let s = Stage::new();
        let id = s.set(3);
        s.ipc.sem_assign(id, 0, &[1000; 3], s.who(1)).unwrap();
        for (pid, number, change) in ops {
            let op = Operation { undo: true, ..op(number, change) };
            // Some of these would have to wait.
            let _ = s.ipc.semop(id, &[op], None, s.who(pid));
        }
        for pid in 1..5 {
            s.ipc.process_ended(pid);
        }
        prop_assert_eq!([0, 1, 2].map(|n| s.value(id, n)), [1000; 3]);
    }
}
