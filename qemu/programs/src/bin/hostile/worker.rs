//! One process of a round: its threads take one step after another, each a call or a
//! chain of calls that follow from the round's seed and the number of the step.

use crate::{
    chains,
    kinds::{self, Kind},
    objects::{self, Class},
    random::Random,
    raw::{self, sys},
    rows::{self, FAMILIES_OF_CALLS, Makes, Row},
    scratch::Scratch,
    shared::{COUNTED, Shared, THREADS, WORKERS},
    structs,
};
use std::{
    arch::global_asm,
    cell::UnsafeCell,
    sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

/// Steps of each thread in a round.
pub(crate) const STEPS: u32 = 1200;
/// Call numbers: Linux's with a good margin, and some that no table has.
const NUMBERS: u64 = 480;
const BEYOND: [u64; 8] = [
    511,
    512,
    1000,
    0x4000_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    u64::MAX,
];
/// A thread that blocks is interrupted after this time.
const BLOCKED: Duration = Duration::from_millis(20);
/// After so many interruptions of a thread that does not go on, its process ends.
const STUCK: u32 = 50;
/// Memory, in bytes, that files of a worker and its address space may grow to.
const FILE_LIMIT: u64 = 1 << 20;
const SPACE_LIMIT: u64 = 256 << 20;
/// User that half of the workers are.
const NOBODY: u64 = 1000;

/// What children of this process, on whatever stack, need to know.
static SHARED: AtomicPtr<Shared> = AtomicPtr::new(std::ptr::null_mut());
static SEED: AtomicU64 = AtomicU64::new(0);
static NEWBORNS: AtomicU64 = AtomicU64::new(0);

/// Stacks of children that share memory with their parents.
const STACK_BYTES: usize = 64 << 10;
const STACK_COUNT: usize = 12;

#[repr(C, align(4096))]
struct Stacks(UnsafeCell<[[u8; STACK_BYTES]; STACK_COUNT]>);

// SAFETY: only used as room for stacks, by address. Two children may run on the same
// one, which is one way among many to run wild.
unsafe impl Sync for Stacks {}

static STACKS: Stacks = Stacks(UnsafeCell::new([[0; STACK_BYTES]; STACK_COUNT]));

/// Start and size of a stack.
pub(crate) fn stack(random: &mut Random) -> (u64, u64) {
    let start = STACKS.0.get() as u64 + (random.below(STACK_COUNT) * STACK_BYTES) as u64;
    (start, STACK_BYTES as u64)
}

/// A signal handler that does nothing, so that a signal only interrupts.
pub(crate) extern "C" fn ignore(_: i32) {}

global_asm!(
    ".globl hostile_restore",
    "hostile_restore:",
    "mov eax, 15",
    "syscall",
    "ud2",
);

unsafe extern "C" {
    fn hostile_restore();
}

/// Where a signal handler returns to.
pub(crate) fn restore() -> u64 {
    hostile_restore as *const () as u64
}

/// What a worker does; its exit status.
pub(crate) fn run(shared: &'static Shared, seed: u64, worker: usize) -> i32 {
    SHARED.store(std::ptr::from_ref(shared).cast_mut(), Relaxed);
    SEED.store(seed, Relaxed);
    let mut random = Random::part(seed, worker as u64);
    settle(&mut random);
    for thread in 0..THREADS {
        thread::spawn(move || {
            let Ok(mut scratch) = Scratch::new() else {
                return;
            };
            objects::PIDS.add(sys!(libc::SYS_gettid));
            let step = shared.step(worker, thread);
            loop {
                let next = step.fetch_add(1, Relaxed);
                if next >= STEPS {
                    step.store(STEPS, Relaxed);
                    return;
                }
                take(
                    shared,
                    seed,
                    Position {
                        worker,
                        thread,
                        step: next,
                    },
                    &mut scratch,
                );
            }
        });
    }
    watch(shared, worker)
}

/// Makes everything that calls can name, and gives up what would end the run.
fn settle(random: &mut Random) {
    sys!(libc::SYS_setsid);
    let null = sys!(libc::SYS_open, c"/dev/null".as_ptr(), libc::O_RDWR, 0);
    for standard in 0..3 {
        sys!(libc::SYS_dup2, null, standard);
    }
    sys!(libc::SYS_chdir, c"/tmp".as_ptr());
    let limits = [
        (libc::RLIMIT_FSIZE, FILE_LIMIT),
        (libc::RLIMIT_AS, SPACE_LIMIT),
    ];
    for (which, limit) in limits {
        let limit = [limit; 2];
        sys!(libc::SYS_setrlimit, which, limit.as_ptr());
    }
    for signal in 1..=64 {
        if ![
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGTRAP,
        ]
        .contains(&signal)
        {
            handle(signal);
        }
    }
    if random.once_in(2) {
        sys!(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY);
        sys!(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY);
    }
    objects::make(random);
    objects::PIDS.add(sys!(libc::SYS_getpid));
}

/// Has a signal interrupt and do nothing.
pub(crate) fn handle(signal: i32) {
    const SA_RESTORER: u64 = 0x0400_0000;
    let action = [ignore as *const () as u64, SA_RESTORER, restore(), 0];
    sys!(libc::SYS_rt_sigaction, signal, action.as_ptr(), 0, 8);
}

/// Interrupts threads that block, until all are through or one is stuck.
fn watch(shared: &Shared, worker: usize) -> i32 {
    let mut seen = [(0, 0u32); THREADS];
    let own = sys!(libc::SYS_getpid);
    let main = sys!(libc::SYS_gettid);
    loop {
        thread::sleep(BLOCKED);
        let mut working = false;
        for (thread, (last, same)) in seen.iter_mut().enumerate() {
            let step = shared.step(worker, thread).load(Relaxed);
            working |= step < STEPS;
            *same = if step == *last && step < STEPS {
                *same + 1
            } else {
                0
            };
            *last = step;
            if *same > STUCK {
                return 1;
            }
        }
        if !working {
            return 0;
        }
        let mut names = [0u8; 1024];
        for tid in tasks(&mut names).filter(|tid| *tid != main) {
            sys!(libc::SYS_tgkill, own, tid, libc::SIGALRM);
        }
    }
}

/// The threads of this process. `buffer` is for the kernel to write to.
fn tasks(buffer: &mut [u8; 1024]) -> impl Iterator<Item = i64> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let folder = sys!(libc::SYS_open, c"/proc/self/task".as_ptr(), flags, 0);
    let len = sys!(
        libc::SYS_getdents64,
        folder,
        buffer.as_mut_ptr(),
        buffer.len()
    );
    sys!(libc::SYS_close, folder);
    let mut rest = buffer.get(..len.max(0) as usize).unwrap_or_default();
    std::iter::from_fn(move || {
        // Length of the entry at 16, its name from 19 on: getdents(2).
        let len = u16::from_ne_bytes([*rest.get(16)?, *rest.get(17)?]) as usize;
        let name = rest.get(19..len)?;
        rest = rest.get(len..)?;
        let digits = name.iter().take_while(|byte| byte.is_ascii_digit());
        Some(digits.fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
    })
}

/// Where in a round a step is.
#[derive(Clone, Copy)]
struct Position {
    worker: usize,
    thread: usize,
    step: u32,
}

/// Takes one step.
fn take(shared: &Shared, seed: u64, at: Position, scratch: &mut Scratch) {
    let all = at.worker * THREADS + at.thread;
    let part = 1 << 32 | (all as u64) << 20 | u64::from(at.step);
    let mut random = Random::part(seed, part);
    scratch.reset();
    NEWBORNS.store(part << 16, Relaxed);
    match at.step % 16 {
        // All numbers in turn, whatever they are.
        0 | 5 | 10 => {
            let turn = (at.step / 16 * 3 + at.step % 16 / 5) as usize * WORKERS * THREADS + all;
            // A round that is cut short has begun elsewhere than the one before.
            let from = seed.wrapping_mul(181) % NUMBERS;
            let number = (from + turn as u64) % (NUMBERS + BEYOND.len() as u64);
            let number = match number.checked_sub(NUMBERS) {
                Some(beyond) => BEYOND[beyond as usize],
                None => number,
            };
            wild_call(shared, number, scratch, &mut random);
        }
        7 | 15 => chains::any(shared, scratch, &mut random),
        3 if random.once_in(4) => objects::renew(&mut random),
        _ => any_call(shared, scratch, &mut random),
    }
}

/// A call that the program knows, with arguments of the right kinds.
fn any_call(shared: &Shared, scratch: &mut Scratch, random: &mut Random) {
    let family = random.of(&FAMILIES_OF_CALLS);
    let row = random.of(family);
    let mut arguments = [0; 6];
    for (argument, kind) in arguments.iter_mut().zip(row.arguments) {
        *argument = kind.choose(scratch, random);
    }
    if row.number == libc::SYS_clone {
        arguments[0] = structs::clone_flags(random) | 17;
        let (start, bytes) = stack(random);
        arguments[1] = start + bytes;
    }
    make(
        shared,
        row.number as u64,
        Some(&row),
        arguments,
        scratch,
        random,
    );
}

/// Any number, with arguments of which few are right.
fn wild_call(shared: &Shared, number: u64, scratch: &mut Scratch, random: &mut Random) {
    let row = rows::of(number);
    let kinds = row.map_or(&[][..], |row| row.arguments);
    let mut arguments = [0; 6];
    for (at, argument) in arguments.iter_mut().enumerate() {
        let kind = kinds.get(at).copied().filter(|_| random.once_in(2));
        *argument = kind.unwrap_or(Kind::Wild).choose(scratch, random);
    }
    make(shared, number, row, arguments, scratch, random);
}

/// Makes a call, and remembers what it made.
fn make(
    shared: &Shared,
    number: u64,
    row: Option<&Row>,
    arguments: [u64; 6],
    scratch: &Scratch,
    random: &mut Random,
) {
    if spared(number, &arguments, random) {
        return;
    }
    shared.count_made(number);
    let result = match number as i64 {
        libc::SYS_fork | libc::SYS_vfork | libc::SYS_clone | libc::SYS_clone3 => {
            if !shared.may_make() {
                return;
            }
            raw::call_clone(number, arguments, newborn)
        }
        _ => raw::call(number, arguments),
    };
    shared.count_done(number, result);
    if let Some(row) = row
        && result >= 0
    {
        remember(row.makes, result, &arguments, scratch);
    }
}

/// Calls that would end this worker, or the whole run, too often: most are not made.
fn spared(number: u64, arguments: &[u64; 6], random: &mut Random) -> bool {
    // The first process judges the others, and is left alone.
    let first = |at: usize| arguments[at] as i32 == 1;
    match number as i64 {
        libc::SYS_ptrace => first(1) || arguments[0] == 0 && !random.once_in(16),
        libc::SYS_process_vm_writev | libc::SYS_prlimit64 => first(0),
        libc::SYS_chroot | libc::SYS_seccomp => !random.once_in(64),
        libc::SYS_exit | libc::SYS_exit_group | libc::SYS_rt_sigreturn => !random.once_in(16),
        libc::SYS_close_range | libc::SYS_vhangup => !random.once_in(8),
        // Seccomp by its older name.
        libc::SYS_prctl => arguments[0] == 22 && !random.once_in(64),
        libc::SYS_kill => arguments[0] as i32 == -1 && !random.once_in(8),
        _ => false,
    }
}

fn remember(makes: Makes, result: i64, arguments: &[u64; 6], scratch: &Scratch) {
    match makes {
        Makes::Nothing => {}
        Makes::Descriptor(class) => objects::add_descriptor(class, result),
        Makes::Pair(one, other, at) => {
            objects::add_pair([one, other], scratch.read(arguments[at]));
        }
        Makes::Mapping(at) => {
            // What lies elsewhere than asked for is the call's own.
            if result as u64 != arguments[0] && result > 0 {
                objects::add_mapping(result as u64, arguments[at].clamp(1, 1 << 30));
            }
        }
        Makes::Process => {
            objects::PIDS.add(result);
        }
        Makes::Shm => drop(objects::SHM.add(result)),
        Makes::Sem => drop(objects::SEM.add(result)),
        Makes::Msg => drop(objects::MSG.add(result)),
        Makes::Timer => {
            let timer: i32 = scratch.read(arguments[2]);
            let old = objects::TIMERS.add(i64::from(timer) + 1);
            if old > 0 {
                sys!(libc::SYS_timer_delete, old - 1);
            }
        }
    }
}

/// What a new process or thread does: a few steps.
pub(crate) extern "C" fn newborn() -> ! {
    // SAFETY: set before anything was made; the memory is never given back.
    let shared = unsafe { &*SHARED.load(Relaxed) };
    let part = NEWBORNS.fetch_add(1, Relaxed);
    let mut random = Random::part(SEED.load(Relaxed), 1 << 63 | part);
    if let Ok(mut scratch) = Scratch::new() {
        for _ in 0..random.below(30) {
            scratch.reset();
            any_call(shared, &mut scratch, &mut random);
        }
    }
    let how = match random.below(8) {
        0 => libc::SYS_exit_group,
        _ => libc::SYS_exit,
    };
    loop {
        sys!(how, random.below(3));
    }
}

/// Makes a process that does `work`; its number, or 0 if there may be no more.
pub(crate) fn child(shared: &Shared, work: impl FnOnce()) -> i64 {
    if !shared.may_make() {
        return 0;
    }
    let made = sys!(libc::SYS_fork);
    if made != 0 {
        objects::PIDS.add(made.max(0));
        return made.max(0);
    }
    work();
    loop {
        sys!(libc::SYS_exit_group, 0);
    }
}

/// Waits for a child to end, and ends it if it does not.
pub(crate) fn reap(child: i64) {
    if child <= 0 {
        return;
    }
    for round in 0..60 {
        if round == 20 {
            sys!(libc::SYS_kill, child, libc::SIGKILL);
        }
        let flags = libc::WNOHANG | libc::__WALL;
        let found = sys!(libc::SYS_wait4, child, 0, flags, 0);
        if found != 0 {
            return;
        }
        pause(2);
    }
}

/// Sleeps for so many milliseconds, or until a signal comes.
pub(crate) fn pause(milliseconds: u64) {
    let time = [0, milliseconds * 1_000_000];
    sys!(libc::SYS_nanosleep, time.as_ptr(), 0);
}

/// A descriptor of this kind, or another one.
pub(crate) fn descriptor(class: Class, random: &mut Random) -> u64 {
    kinds::descriptor(Some(class), random)
}

/// How many numbers of calls there are, and the highest that is counted.
pub(crate) const COUNTED_NUMBERS: usize = if (NUMBERS as usize) < COUNTED {
    NUMBERS as usize
} else {
    COUNTED
};

#[cfg(test)]
mod tests {
    use super::{NUMBERS, STEPS, tasks};
    use crate::shared::{THREADS, WORKERS};

    #[test]
    fn every_number_has_its_turn_in_a_round() {
        let turns = STEPS as usize / 16 * 3 * WORKERS * THREADS;
        assert!(turns > 2 * NUMBERS as usize);
    }

    #[test]
    fn own_threads_are_found() {
        let own = crate::raw::sys!(libc::SYS_gettid);
        assert!(tasks(&mut [0; 1024]).any(|tid| tid == own));
    }
}
