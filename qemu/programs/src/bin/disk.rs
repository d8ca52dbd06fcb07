//! Load on a block device, and what comes of its errors.
//!
//! * `disk load PATH SECONDS` writes and reads back random blocks from several
//!   threads and compares them; it prints a checksum of what each thread's part holds
//!   after the last fsync.
//! * `disk expect PATH read|write|flush OFFSET once|always` tries that on the block at
//!   that byte, expects EIO at the first try or at every try, and the blocks beside it
//!   to work.
//! * `disk watch PATH SECONDS` writes and reads a block again and again and prints
//!   whenever that begins to work or to fail, and how long the failure took.
//! * `disk log PATH SECONDS` writes one block after the other and prints how many are
//!   durable, after each fsync of 16.
//! * `disk speed PATH` prints how fast large and small transfers are.
//!
//! Ends with 0 when all is as it must be, 1 when bytes differ, 2 when something else
//! went wrong. Works on a file as well.
#![forbid(unsafe_code)]

use std::{
    env,
    fs::File,
    io::{self, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

const BLOCK: usize = 4096;
/// Threads, each with a part of the device for itself.
const THREADS: u64 = 4;
/// Blocks of a thread's part.
const PART_BLOCKS: u64 = 256;
/// Linux's number of EIO.
const EIO: i32 = 5;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["load", path, seconds] => load(Path::new(path), seconds.parse().unwrap_or(5)),
        ["expect", path, what, offset, times] => {
            expect(Path::new(path), what, offset.parse().unwrap_or(0), times)
        }
        ["watch", path, seconds] => watch(Path::new(path), seconds.parse().unwrap_or(5)),
        ["log", path, seconds] => log(Path::new(path), seconds.parse().unwrap_or(5)),
        ["speed", path] => speed(Path::new(path)),
        _ => Err(io::Error::other(
            "usage: disk load PATH SECONDS | expect PATH read|write|flush OFFSET once|always \
             | watch PATH SECONDS | log PATH SECONDS | speed PATH",
        )),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error}");
            ExitCode::from(2)
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

/// Content of a block that tells which it is and when it was written.
fn block(number: u64, round: u64) -> [u8; BLOCK] {
    let mut bytes = [0; BLOCK];
    for (at, word) in bytes.chunks_exact_mut(8).enumerate() {
        let value = (number << 32 ^ round).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at as u64;
        word.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// Whether every block read back is the one written last.
fn load(path: &Path, seconds: u64) -> io::Result<bool> {
    let length = open(path)?.seek(SeekFrom::End(0))?;
    if length < THREADS * PART_BLOCKS * BLOCK as u64 {
        return Err(io::Error::other(format!("{length} bytes are too few")));
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|part| scope.spawn(move || use_part(path, part, until)))
            .collect();
        let mut same = true;
        for thread in threads {
            let found = thread
                .join()
                .map_err(|_| io::Error::other("a thread died"))?;
            same &= found?;
        }
        Ok(same)
    })
}

fn use_part(path: &Path, part: u64, until: Instant) -> io::Result<bool> {
    let file = open(path)?;
    let first = part * PART_BLOCKS;
    let mut written = [0u64; PART_BLOCKS as usize];
    for number in 0..PART_BLOCKS {
        file.write_all_at(&block(first + number, 0), (first + number) * BLOCK as u64)?;
    }
    let mut state = part + 1;
    let mut round = 0;
    while Instant::now() < until {
        round += 1;
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let at = (state >> 33) % PART_BLOCKS;
        let offset = (first + at) * BLOCK as u64;
        let mut found = [0; BLOCK];
        file.read_exact_at(&mut found, offset)?;
        if found != block(first + at, written[at as usize]) {
            println!("block {} differs", first + at);
            return Ok(false);
        }
        file.write_all_at(&block(first + at, round), offset)?;
        written[at as usize] = round;
        if round % 64 == 0 {
            file.sync_all()?;
        }
    }
    file.sync_all()?;
    let contents = (first..).zip(&written).map(|(at, round)| block(at, *round));
    println!("part {part} {:016x}", checksum(contents));
    Ok(round > 0)
}

/// FNV-1a over the words of blocks; the scenario computes the same.
fn checksum(blocks: impl Iterator<Item = [u8; BLOCK]>) -> u64 {
    blocks.fold(0xcbf2_9ce4_8422_2325, |sum, block| {
        let words = block.chunks_exact(8);
        let number = |word: &[u8]| {
            word.iter()
                .rev()
                .fold(0, |n, byte| n << 8 | u64::from(*byte))
        };
        words.fold(sum, |sum, word| {
            (sum ^ number(word)).wrapping_mul(0x100_0000_01b3)
        })
    })
}

/// Whether `what` at `offset` answers EIO `times`, and what is beside it works.
fn expect(path: &Path, what: &str, offset: u64, times: &str) -> io::Result<bool> {
    const TRIES: usize = 5;
    let file = open(path)?;
    let mut bytes = [0; BLOCK];
    let mut refused = Vec::new();
    for _ in 0..TRIES {
        let done = match what {
            "read" => file.read_exact_at(&mut bytes, offset),
            "write" => file.write_all_at(&block(offset, 2), offset),
            // A device may skip a flush that has nothing to do.
            _ => file
                .write_all_at(&block(offset, 3), offset)
                .map_err(|error| io::Error::other(format!("the write itself: {error}")))
                .and_then(|()| file.sync_data()),
        };
        refused.push(match done {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == Some(EIO) => true,
            Err(error) => return Err(error),
        });
        if what == "flush" {
            continue;
        }
        for good in [offset - BLOCK as u64, offset + BLOCK as u64] {
            file.write_all_at(&block(good, 1), good)?;
            file.read_exact_at(&mut bytes, good)?;
            if bytes != block(good, 1) {
                println!("the block at {good} differs");
                return Ok(false);
            }
        }
    }
    println!("{what} at {offset}: EIO at tries {refused:?}");
    Ok(match times {
        "always" => refused.iter().all(|eio| *eio),
        _ => refused.iter().position(|eio| *eio) == Some(0) && !refused[1..].contains(&true),
    })
}

/// Tells when the device begins to work and when to fail. Ends well whatever it saw:
/// the scenario reads what it prints.
fn watch(path: &Path, seconds: u64) -> io::Result<bool> {
    let file = open(path)?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut worked = None;
    for round in 0.. {
        let start = Instant::now();
        let mut bytes = [0; BLOCK];
        let done = file
            .write_all_at(&block(0, round), 0)
            .and_then(|()| file.read_exact_at(&mut bytes, 0));
        match done {
            Ok(()) if bytes != block(0, round) => return Ok(false),
            Ok(()) if worked == Some(true) => {}
            Ok(()) => println!("works"),
            Err(error) if error.raw_os_error() != Some(EIO) => return Err(error),
            Err(_) => println!("EIO after {} ms", start.elapsed().as_millis()),
        }
        worked = Some(done.is_ok());
        if Instant::now() >= until {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}

/// Writes block after block, and tells of those that are durable.
fn log(path: &Path, seconds: u64) -> io::Result<bool> {
    const BATCH: u64 = 16;
    let mut file = open(path)?;
    let blocks = file.seek(SeekFrom::End(0))? / BLOCK as u64;
    let until = Instant::now() + Duration::from_secs(seconds);
    for number in 0..blocks {
        file.write_all_at(&block(number, 0), number * BLOCK as u64)?;
        if (number + 1) % BATCH == 0 {
            file.sync_all()?;
            println!("durable {}", number + 1);
        }
        if Instant::now() >= until {
            break;
        }
    }
    Ok(true)
}

/// A buffer that `O_DIRECT` takes.
#[repr(align(4096))]
struct Aligned([u8; 1 << 20]);

fn speed(path: &Path) -> io::Result<bool> {
    /// Past every cache, on x86-64.
    const O_DIRECT: i32 = 0o40000;
    const LARGE: u64 = 1 << 20;
    const SMALL: usize = 4096;
    const SMALL_COUNT: u32 = 4000;
    let mut options = File::options();
    let file = options.read(true).write(true).custom_flags(O_DIRECT);
    let mut file = file.open(path)?;
    let count = (file.seek(SeekFrom::End(0))? / LARGE).min(128);
    if count == 0 {
        return Err(io::Error::other("less than 1 MiB"));
    }
    let mut buffer = Box::new(Aligned([7; 1 << 20]));
    let rate = |name: &str, start: Instant| {
        let mib = count as f64 / start.elapsed().as_secs_f64();
        println!("{name}: {mib:.0} MiB/s");
    };
    let start = Instant::now();
    for n in 0..count {
        file.write_all_at(&buffer.0, n * LARGE)?;
    }
    file.sync_all()?;
    rate("sequential write of 1 MiB", start);
    let start = Instant::now();
    for n in 0..count {
        file.read_exact_at(&mut buffer.0, n * LARGE)?;
    }
    rate("sequential read of 1 MiB", start);
    let mut state = 1u64;
    let mut place = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % (count * LARGE / SMALL as u64) * SMALL as u64
    };
    let per_second = |name: &str, start: Instant| {
        let rate = f64::from(SMALL_COUNT) / start.elapsed().as_secs_f64();
        println!("{name}: {rate:.0}/s");
    };
    let start = Instant::now();
    for _ in 0..SMALL_COUNT {
        file.read_exact_at(&mut buffer.0[..SMALL], place())?;
    }
    per_second("random reads of 4 KiB", start);
    let start = Instant::now();
    for _ in 0..SMALL_COUNT {
        file.write_all_at(&buffer.0[..SMALL], place())?;
    }
    per_second("random writes of 4 KiB", start);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, PART_BLOCKS, THREADS, block, checksum, expect, load, watch};
    use std::{fs, path::PathBuf};

    fn file(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("skep-disk-{}-{name}", std::process::id()));
        let length = THREADS * PART_BLOCKS * BLOCK as u64;
        fs::File::create(&path).unwrap().set_len(length).unwrap();
        path
    }

    #[test]
    fn a_file_bears_the_load_and_is_not_broken() {
        let path = file("load");
        assert!(
            load(&path, 0).is_ok_and(|same| !same),
            "nothing done in no time"
        );
        assert!(load(&path, 1).unwrap());
        for what in ["read", "write", "flush"] {
            assert!(!expect(&path, what, 1 << 20, "once").unwrap());
            assert!(!expect(&path, what, 1 << 20, "always").unwrap());
        }
        assert!(watch(&path, 0).unwrap());
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_checksum_tells_blocks_and_their_order_apart() {
        let sum = |blocks: &[(u64, u64)]| checksum(blocks.iter().map(|(n, r)| block(*n, *r)));
        assert_ne!(sum(&[(1, 1)]), sum(&[(1, 2)]));
        assert_ne!(sum(&[(1, 1), (2, 1)]), sum(&[(2, 1), (1, 1)]));
        assert_eq!(sum(&[]), 0xcbf2_9ce4_8422_2325);
    }
}
