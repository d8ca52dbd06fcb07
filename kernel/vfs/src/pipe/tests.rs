use super::*;
use std::thread;
use std::vec;
use std::vec::Vec;

fn account() -> Arc<Account> {
    Arc::new(Account::new(1000).unwrap())
}

fn new() -> (Arc<OpenFile>, Arc<OpenFile>) {
    pipe(account(), OpenFlags::empty()).unwrap()
}

fn put(f: &OpenFile, bytes: &[u8]) -> Result<usize> {
    f.write(&mut Source::kernel(bytes))
}

fn get(f: &OpenFile, len: usize) -> Result<Vec<u8>> {
    let mut buf = vec![0; len];
    let n = f.read(&mut Sink::kernel(&mut buf))?;
    buf.truncate(n);
    Ok(buf)
}

#[test]
fn bytes_come_out_in_order() {
    let (r, w) = new();
    put(&w, b"hello ").unwrap();
    put(&w, b"world").unwrap();
    assert_eq!(get(&r, 8).unwrap(), b"hello wo");
    assert_eq!(get(&r, 100).unwrap(), b"rld");
    assert_eq!(put(&r, b"x"), Err(Error::BadDescriptor));
    assert_eq!(get(&w, 1), Err(Error::BadDescriptor));
}

#[test]
fn a_full_pipe_holds_64_kib_and_atomic_writes_stay_whole() {
    let (r, w) = new();
    w.set_nonblocking(true);
    assert!(w.poll().contains(Events::OUT));
    assert_eq!(put(&w, &[1; 70_000]), Ok(65_536));
    assert!(!w.poll().contains(Events::OUT));
    assert_eq!(put(&w, b"x"), Err(Error::WouldBlock));
    get(&r, 4095).unwrap();
    assert_eq!(put(&w, b"x"), Err(Error::WouldBlock));
    get(&r, 1).unwrap();
    assert_eq!(put(&w, &[2; 4000]), Ok(4000));
    // 96 bytes are left: less than an atomic write may be split into.
    assert_eq!(put(&w, &[3; 200]), Err(Error::WouldBlock));
    assert_eq!(put(&w, &[3; 96]), Ok(96));
}

#[test]
fn the_last_end_is_noticed() {
    let (r, w) = new();
    put(&w, b"rest").unwrap();
    drop(w);
    assert!(r.poll().contains(Events::HUP | Events::IN));
    assert_eq!(get(&r, 10).unwrap(), b"rest");
    assert_eq!(get(&r, 10).unwrap(), b"");
    let (r, w) = new();
    drop(r);
    assert!(w.poll().contains(Events::ERR));
    assert_eq!(put(&w, b"x"), Err(Error::BrokenPipe));
}

#[test]
fn packets_keep_their_bounds() {
    let (r, w) = pipe(account(), OpenFlags::DIRECT).unwrap();
    put(&w, b"one").unwrap();
    put(&w, b"three").unwrap();
    assert_eq!(get(&r, 100).unwrap(), b"one");
    assert_eq!(get(&r, 2).unwrap(), b"th");
    r.set_nonblocking(true);
    assert_eq!(get(&r, 2), Err(Error::WouldBlock));
}

#[test]
fn streams_between_threads() {
    let (r, w) = new();
    let want: Vec<u8> = (0..1_000_000u32).map(|i| (i * 7 / 3) as u8).collect();
    let send = want.clone();
    let t = thread::spawn(move || {
        for chunk in send.chunks(9_999) {
            assert_eq!(put(&w, chunk), Ok(chunk.len()));
        }
    });
    let mut have = Vec::new();
    loop {
        let part = get(&r, 7_001).unwrap();
        if part.is_empty() {
            break;
        }
        have.extend(part);
    }
    t.join().unwrap();
    assert!(have == want);
}

#[test]
fn many_readers_share_tokens() {
    let (r, w) = new();
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let r = r.clone();
            thread::spawn(move || {
                let mut n = 0;
                while get(&r, 1).unwrap().len() == 1 {
                    n += 1;
                }
                n
            })
        })
        .collect();
    for _ in 0..500 {
        put(&w, b"tt").unwrap();
    }
    drop(w);
    let total: usize = readers.into_iter().map(|t| t.join().unwrap()).sum();
    assert_eq!(total, 1000);
}

#[test]
fn the_size_can_change() {
    let (r, w) = new();
    let end = w.downcast::<PipeEnd>().unwrap();
    assert_eq!(end.set_capacity(5000, false), Ok(8192));
    w.set_nonblocking(true);
    assert_eq!(put(&w, &[1; 9000]), Ok(8192));
    assert_eq!(end.set_capacity(4096, false), Err(Error::Busy));
    assert_eq!(end.set_capacity(2 << 20, false), Err(Error::NotPermitted));
    get(&r, 5000).unwrap();
    assert_eq!(end.set_capacity(1, false), Ok(4096));
}

#[test]
fn what_was_not_passed_on_goes_back() {
    let (r, w) = new();
    put(&w, b"tail").unwrap();
    let head: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
    r.downcast::<PipeEnd>().unwrap().unread(&head).unwrap();
    let all = get(&r, 20_000).unwrap();
    assert!(all[..10_000] == head[..] && &all[10_000..] == b"tail");
}

#[test]
fn a_fifo_waits_for_the_other_side() {
    let slot = Arc::new(FifoSlot::new(account()));
    let nonblock = OpenFlags::WRITE_ONLY | OpenFlags::NONBLOCK;
    assert_eq!(slot.open(nonblock).err(), Some(Error::NoDevice));
    let other = slot.clone();
    let t = thread::spawn(move || {
        let w = other.open(OpenFlags::WRITE_ONLY).unwrap();
        let w = OpenFile::new(
            w,
            OpenFlags::WRITE_ONLY,
            None,
            machine::FileCharge::kernel(),
        );
        put(&w, b"through").unwrap();
    });
    let r = slot.open(OpenFlags::empty()).unwrap();
    let r = OpenFile::new(r, OpenFlags::empty(), None, machine::FileCharge::kernel());
    assert_eq!(get(&r, 100).unwrap(), b"through");
    t.join().unwrap();
    assert_eq!(get(&r, 100).unwrap(), b"");
}
