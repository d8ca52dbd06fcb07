//! Arguments chosen to hurt: pointers, lengths, numbers and descriptors.

use crate::random::Random;
use std::ptr;

const PAGE: usize = 4096;

/// Numbers at which arithmetic breaks.
const NUMBERS: [u64; 26] = [
    0,
    1,
    2,
    3,
    7,
    8,
    16,
    64,
    255,
    4095,
    4096,
    4097,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_f000,
    0x8000_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x7fff_ffff_ffff_f000,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_f000,
    0xffff_ffff_ffff_fff8,
    u64::MAX - 2,
    u64::MAX - 1,
    u64::MAX,
];

/// Addresses that belong to the kernel, to nobody, or to no machine at all.
const FOREIGN: [u64; 12] = [
    0xffff_8000_0000_0000,
    0xffff_8000_0010_0000,
    0xffff_8880_0000_0000,
    0xffff_ffff_8000_0000,
    0xffff_ffff_8010_0000,
    0xffff_ffff_ffff_f000,
    0xffff_ff00_0000_0000,
    0x0000_8000_0000_0000,
    0x0000_7fff_ffff_ffff,
    0x8000_0000_0000_0000,
    0x1000,
    0x4141_4141_4141_4141,
];

/// Paths: some there, some not, some that are no paths. The program itself is not
/// among them: the first process would fall with it.
const PATHS: [&[u8]; 12] = [
    b"/tmp/a\0",
    b"/tmp\0",
    b"/\0",
    b"\0",
    b".\0",
    b"..\0",
    b"/proc/self/mem\0",
    b"/proc/self/fd/0\0",
    b"/proc/1/status\0",
    b"/dev/null\0",
    b"/dev/zero\0",
    b"/tmp/\xff\xfe/../a//./b\0",
];

/// Memory and descriptors that arguments point to.
pub(crate) struct Pool {
    /// Two pages for reading and writing, then one that may not be touched.
    writable: *mut u8,
    /// A page for reading only.
    readable: *mut u8,
    descriptors: Vec<i32>,
}

impl Pool {
    /// Takes the memory and opens descriptors of every kind.
    pub(crate) fn new() -> Result<Self, String> {
        let writable = map(3, libc::PROT_READ | libc::PROT_WRITE)?;
        let readable = map(1, libc::PROT_READ)?;
        // SAFETY: the third page of the mapping just made, to which nothing points.
        unsafe { libc::mprotect(writable.add(2 * PAGE).cast(), PAGE, libc::PROT_NONE) };
        let mut pool = Self {
            writable,
            readable,
            descriptors: vec![0, 1, 2],
        };
        pool.open();
        Ok(pool)
    }

    /// Opens one of each kind; a kernel may lack some.
    fn open(&mut self) {
        let mut pair = [0; 2];
        // SAFETY: the strings end with NUL, `pair` has room for two descriptors.
        let opened = unsafe {
            let file = libc::open(c"/tmp/a".as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600);
            libc::ftruncate(file, 100_000);
            self.descriptors.push(file);
            for path in [
                c"/tmp",
                c"/proc/self/status",
                c"/dev/null",
                c"/bin/hostile",
                c"/proc",
            ] {
                self.descriptors
                    .push(libc::open(path.as_ptr(), libc::O_RDONLY));
            }
            libc::pipe(pair.as_mut_ptr());
            self.descriptors.extend(pair);
            libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr());
            self.descriptors.extend(pair);
            [
                libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0),
                libc::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0),
                libc::epoll_create1(0),
                libc::eventfd(0, 0),
                libc::timerfd_create(libc::CLOCK_MONOTONIC, 0),
                libc::memfd_create(c"m".as_ptr(), 0),
            ]
        };
        self.descriptors.extend(opened);
        self.descriptors.retain(|descriptor| *descriptor >= 0);
    }

    /// Fills the writable memory anew: with pointers, lengths and numbers, so that
    /// whatever structure it is taken for is hostile too.
    pub(crate) fn stir(&self, random: &mut Random) {
        let words = 2 * PAGE / 8;
        for word in 0..words {
            let value = match random.below(4) {
                0 => self.pointer(random),
                1 => random.of(&NUMBERS),
                2 => u64::from(random.of(&self.descriptors) as u32),
                _ => random.next() >> random.below(64),
            };
            // SAFETY: within the two writable pages, which nothing else points to.
            // A call may have taken the memory away; then this process dies of it,
            // which is its business.
            unsafe { self.writable.cast::<u64>().add(word).write_volatile(value) };
        }
    }

    /// Any argument.
    pub(crate) fn argument(&self, random: &mut Random) -> u64 {
        match random.below(8) {
            0..3 => self.pointer(random),
            3 => random.of(&NUMBERS),
            4 | 5 => self.descriptor(random),
            6 => random.below(64) as u64,
            _ => random.next() >> random.below(64),
        }
    }

    /// A descriptor that is open, was never, or cannot be one.
    fn descriptor(&self, random: &mut Random) -> u64 {
        match random.below(4) {
            0 => random.of(&[
                999,
                1 << 20,
                0x7fff_ffff,
                0x8000_0000,
                u64::MAX,
                libc::AT_FDCWD as u64,
                0xffff_ff9c,
            ]),
            _ => random.of(&self.descriptors) as u64,
        }
    }

    fn pointer(&self, random: &mut Random) -> u64 {
        let writable = self.writable as u64;
        match random.below(8) {
            // Enough room, and none at all because the next page is forbidden.
            0 | 1 => writable + random.below(PAGE) as u64,
            2 => writable + (2 * PAGE - random.below(64)) as u64,
            3 => writable + 2 * PAGE as u64,
            4 => self.readable as u64 + random.below(PAGE) as u64,
            5 => random.of(&PATHS).as_ptr() as u64,
            6 => random.of(&FOREIGN).wrapping_add(random.below(PAGE) as u64),
            _ => 0,
        }
    }
}

/// Takes pages of memory that a fork copies.
fn map(pages: usize, protection: i32) -> Result<*mut u8, String> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, which harms none there is.
    let found = unsafe { libc::mmap(ptr::null_mut(), pages * PAGE, protection, flags, -1, 0) };
    if found == libc::MAP_FAILED {
        return Err(format!("mmap: {}", std::io::Error::last_os_error()));
    }
    Ok(found.cast())
}

/// Takes a page that is shared with children.
pub(crate) fn shared_page() -> Result<*mut u64, String> {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, which harms none there is.
    let found = unsafe { libc::mmap(ptr::null_mut(), PAGE, protection, flags, -1, 0) };
    if found == libc::MAP_FAILED {
        return Err(format!("mmap: {}", std::io::Error::last_os_error()));
    }
    Ok(found.cast())
}

#[cfg(test)]
mod tests {
    use super::Pool;
    use crate::random::Random;

    #[test]
    fn arguments_are_of_every_kind() {
        let pool = Pool::new().unwrap();
        let mut random = Random::new(1);
        pool.stir(&mut random);
        let found: Vec<u64> = (0..10_000).map(|_| pool.argument(&mut random)).collect();
        let has = |wanted: &dyn Fn(u64) -> bool| found.iter().any(|value| wanted(*value));
        assert!(has(&|value| value == 0) && has(&|value| value == u64::MAX));
        assert!(has(&|value| value >> 47 == 0x1_ffff), "no kernel address");
        assert!(
            has(&|value| value == pool.writable as u64 + 8192),
            "no forbidden page"
        );
        assert!(has(
            &|value| pool.descriptors.contains(&(value as i32)) && value < 100
        ));
    }
}
