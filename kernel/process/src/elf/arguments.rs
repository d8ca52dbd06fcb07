//! Arguments, environment, and the first stack of a program.

use super::auxv::{self, AuxInput, OnStack};
use super::{Loaded, Script};
use crate::{Error, Result};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use machine::addr::{PAGE_SIZE, page_ceil};
use mm::{AddressSpace, AreaFlags, MapRequest, Placement};

/// Longest single string, its NUL included (`MAX_ARG_STRLEN`).
const STRING_MAX: usize = 32 * PAGE_SIZE;
/// What arguments and environment may always take (`ARG_MAX`).
const TOTAL_MIN: usize = 32 * PAGE_SIZE;
/// What they may take at most: 3/4 of the usual stack.
const TOTAL_MAX: usize = 6 << 20;
/// Stack that is mapped at once beyond what is used.
const ROOM: usize = 32 * PAGE_SIZE;
const PLATFORM: &[u8] = b"x86_64\0";
const RANDOM_LEN: usize = 16;

/// Arguments and environment of a program to come, within the limits of
/// execve(2).
pub struct Arguments {
    args: Strings,
    envs: Strings,
    /// Bytes of strings and pointers together.
    limit: usize,
}

/// NUL-terminated strings, one behind the other.
#[derive(Default)]
struct Strings {
    bytes: Vec<u8>,
    count: usize,
}

impl Strings {
    /// The first string, its NUL included.
    fn first_len(&self) -> usize {
        let nul = self.bytes.iter().position(|b| *b == 0);
        nul.map_or(0, |n| n + 1)
    }

    /// The addresses of the strings if the first lies at `base`.
    fn addresses(&self, base: usize) -> impl Iterator<Item = usize> {
        let ends = self.bytes.iter().enumerate().filter(|(_, b)| **b == 0);
        let starts = core::iter::once(0).chain(ends.map(|(i, _)| i + 1));
        starts.take(self.count).map(move |s| base + s)
    }
}

/// Where the first stack's parts lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The first stack pointer.
    pub stack_pointer: usize,
    /// The argument strings (`/proc/PID/cmdline`).
    pub args: Range<usize>,
    /// The environment strings (`/proc/PID/environ`).
    pub envs: Range<usize>,
    /// The auxiliary vector as it lies there (`/proc/PID/auxv`).
    pub auxv: Arc<[u8]>,
}

impl Arguments {
    /// None yet, for a process with a stack limit of `stack_limit` bytes.
    #[must_use]
    pub fn new(stack_limit: usize) -> Arguments {
        Arguments {
            args: Strings::default(),
            envs: Strings::default(),
            limit: (stack_limit / 4).clamp(TOTAL_MIN, TOTAL_MAX),
        }
    }

    /// Number of arguments.
    #[must_use]
    pub fn count(&self) -> usize {
        self.args.count
    }

    /// Appends an argument, given without NUL.
    ///
    /// # Errors
    /// [`Error::TooBig`], no memory.
    pub fn push_arg(&mut self, arg: &[u8]) -> Result<()> {
        self.check(arg)?;
        append(&mut self.args, arg)
    }

    /// Appends an environment string, given without NUL.
    ///
    /// # Errors
    /// As [`Arguments::push_arg`].
    pub fn push_env(&mut self, env: &[u8]) -> Result<()> {
        self.check(env)?;
        append(&mut self.envs, env)
    }

    /// Replaces the first argument by what a script's first line asks for: its
    /// interpreter, the interpreter's argument, and the `path` of the script.
    ///
    /// # Errors
    /// As [`Arguments::push_arg`].
    pub fn apply_script(&mut self, script: &Script<'_>, path: &[u8]) -> Result<()> {
        let first = self.args.first_len();
        let mut fresh = Strings::default();
        append(&mut fresh, script.interpreter)?;
        if let Some(argument) = script.argument {
            append(&mut fresh, argument)?;
        }
        append(&mut fresh, path)?;
        let rest = &self.args.bytes[first..];
        fresh.bytes.try_reserve(rest.len())?;
        fresh.bytes.extend_from_slice(rest);
        fresh.count += self.args.count.saturating_sub(1);
        self.args = fresh;
        self.check(&[]).map(|_| ())
    }

    fn check(&self, more: &[u8]) -> Result<()> {
        let count = self.args.count + self.envs.count + 1;
        let strings = self.args.bytes.len() + self.envs.bytes.len() + more.len() + 1;
        if more.len() >= STRING_MAX || strings + count * size_of::<usize>() > self.limit {
            return Err(Error::TooBig);
        }
        Ok(())
    }

    /// Maps the stack of the new `space` and puts arguments, environment and
    /// auxiliary vector there. `file_name` is the path given to `execve`.
    ///
    /// # Errors
    /// [`Error::TooBig`], memory and limits.
    pub fn place(
        mut self,
        space: &AddressSpace,
        loaded: &Loaded,
        file_name: &[u8],
        input: &AuxInput,
    ) -> Result<Placed> {
        if self.args.count == 0 {
            // Programs take argv[0] for granted (as Linux since 5.18).
            append(&mut self.args, b"")?;
        }
        let plan = Plan::new(space.layout().stack_top, &self, file_name);
        map_stack(space, loaded, &plan)?;
        let mut out = Writer::new(space, plan.args);
        out.put(&self.args.bytes)?;
        out.put(&self.envs.bytes)?;
        out.put(file_name)?;
        out.put(&[0])?;
        out.flush()?;
        let mut random = [0; RANDOM_LEN];
        machine::random::fill(&mut random);
        let mut out = Writer::new(space, plan.on_stack.random);
        out.put(&random)?;
        out.put(PLATFORM)?;
        out.flush()?;
        let mut out = Writer::new(space, plan.stack_pointer);
        out.word(self.args.count)?;
        for strings in [(&self.args, plan.args), (&self.envs, plan.envs)] {
            for addr in strings.0.addresses(strings.1) {
                out.word(addr)?;
            }
            out.word(0)?;
        }
        let mut auxv = Vec::with_capacity(auxv::ENTRIES_MAX * 2 * size_of::<u64>());
        for (key, value) in auxv::entries(loaded, input, &plan.on_stack) {
            auxv.extend_from_slice(&key.to_le_bytes());
            auxv.extend_from_slice(&value.to_le_bytes());
        }
        out.put(&auxv)?;
        out.flush()?;
        Ok(Placed {
            stack_pointer: plan.stack_pointer,
            args: plan.args..plan.envs,
            envs: plan.envs..plan.on_stack.file_name,
            auxv: auxv.into(),
        })
    }
}

fn append(strings: &mut Strings, s: &[u8]) -> Result<()> {
    // A NUL inside would make two strings of it.
    let s = s.split(|b| *b == 0).next().unwrap_or_default();
    strings.bytes.try_reserve(s.len() + 1)?;
    strings.bytes.extend_from_slice(s);
    strings.bytes.push(0);
    strings.count += 1;
    Ok(())
}

/// Addresses on the first stack, from the top down.
struct Plan {
    args: usize,
    envs: usize,
    on_stack: OnStack,
    stack_pointer: usize,
}

impl Plan {
    fn new(top: usize, a: &Arguments, file_name: &[u8]) -> Plan {
        // The limit of `Arguments` keeps all sums far below `top`. The topmost
        // word stays zero.
        let file = top - size_of::<usize>() - file_name.len() - 1;
        let envs = file - a.envs.bytes.len();
        let args = envs - a.args.bytes.len();
        let random = (args - PLATFORM.len() - RANDOM_LEN) & !15;
        let words = 1 + a.args.count + 1 + a.envs.count + 1 + 2 * auxv::ENTRIES_MAX;
        Plan {
            args,
            envs,
            on_stack: OnStack {
                random,
                platform: random + RANDOM_LEN,
                file_name: file,
            },
            stack_pointer: (random - words * size_of::<usize>()) & !15,
        }
    }
}

fn map_stack(space: &AddressSpace, loaded: &Loaded, plan: &Plan) -> Result<()> {
    let top = space.layout().stack_top;
    let used = page_ceil(top - plan.stack_pointer).ok_or(Error::TooBig)?;
    let limit = space.limits().stack;
    if used > limit {
        return Err(Error::TooBig);
    }
    let len = (used + ROOM).min(limit & !(PAGE_SIZE - 1)).max(used);
    let request = MapRequest::anonymous(len, loaded.stack_access)
        .at(Placement::FixedNoReplace(top - len))
        .with(AreaFlags::GROWS_DOWN);
    space.map(request)?;
    Ok(())
}

/// Collects words and strings, so that memory is written in larger pieces.
struct Writer<'a> {
    space: &'a AddressSpace,
    at: usize,
    buffer: [u8; 512],
    len: usize,
}

impl Writer<'_> {
    fn new(space: &AddressSpace, at: usize) -> Writer<'_> {
        Writer {
            space,
            at,
            buffer: [0; 512],
            len: 0,
        }
    }

    fn word(&mut self, n: usize) -> Result<()> {
        self.put(&n.to_le_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() > self.buffer.len() - self.len {
            self.flush()?;
        }
        if bytes.len() > self.buffer.len() {
            return self.write_out(bytes);
        }
        self.buffer[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let (buffer, len) = (self.buffer, core::mem::take(&mut self.len));
        self.write_out(&buffer[..len])
    }

    fn write_out(&mut self, bytes: &[u8]) -> Result<()> {
        if self.space.write(self.at, bytes) < bytes.len() {
            return Err(Error::NoMemory);
        }
        self.at += bytes.len();
        Ok(())
    }
}
