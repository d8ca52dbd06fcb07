//! Load on a block device: `disk load PATH SECONDS` writes and reads back random
//! blocks from several threads and compares them; `disk broken PATH OFFSET` expects
//! the block at that byte to answer EIO, and its neighbours not.
//!
//! Ends with 0 when all is as it must be, 1 when bytes differ, 2 when something else
//! went wrong. Works on a file as well.
#![forbid(unsafe_code)]

use std::{
    env,
    fs::File,
    io::{self, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
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
        ["broken", path, offset] => broken(Path::new(path), offset.parse().unwrap_or(0)),
        _ => Err(io::Error::other(
            "usage: disk load PATH SECONDS | broken PATH OFFSET",
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
    Ok(round > 0)
}

/// Whether the block at `offset` answers EIO for reading and the rest works: at
/// once, and as often as asked.
fn broken(path: &Path, offset: u64) -> io::Result<bool> {
    let file = open(path)?;
    let mut bytes = [0; BLOCK];
    for _ in 0..5 {
        match file.read_exact_at(&mut bytes, offset) {
            Err(error) if error.raw_os_error() == Some(EIO) => {}
            other => {
                println!("the broken block: {other:?}");
                return Ok(false);
            }
        }
        for good in [offset - BLOCK as u64, offset + BLOCK as u64] {
            file.write_all_at(&block(good, 1), good)?;
            file.read_exact_at(&mut bytes, good)?;
            if bytes != block(good, 1) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, PART_BLOCKS, THREADS, broken, load};
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
        assert!(!broken(&path, 1 << 20).unwrap());
        fs::remove_file(path).unwrap();
    }
}
