//! The start of programs inside a capsule.

use crate::capsule::{Capsule, Parts};
use crate::log_ring::Output;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use machine::Account;
use machine::io::{Sink, Source};
use mm::Randomize;
use process::clone::NewTask;
use process::elf::Arguments;
use process::{Birth, Error, Invocation};
use skep_api::control::ControlError;
use vfs::{
    At, Caller, Caps, Credentials, FdTable, FileOps, FsContext, LastLink, OpenFile, OpenFlags,
};

/// What root may do in a capsule: what concerns nothing but the capsule's own files,
/// processes and names. The node's clock, modules, devices and network are not among
/// it; memory, processes and files stay within the manifest's limits whatever root may.
const ROOT_CAPS: Caps = Caps::CHOWN
    .union(Caps::DAC_OVERRIDE)
    .union(Caps::DAC_READ_SEARCH)
    .union(Caps::FOWNER)
    .union(Caps::FSETID)
    .union(Caps::KILL)
    .union(Caps::SETGID)
    .union(Caps::SETUID)
    .union(Caps::SETPCAP)
    .union(Caps::NET_BIND_SERVICE)
    .union(Caps::NET_RAW)
    .union(Caps::IPC_LOCK)
    .union(Caps::IPC_OWNER)
    .union(Caps::SYS_CHROOT)
    .union(Caps::SYS_PTRACE)
    .union(Caps::SYS_ADMIN)
    .union(Caps::SYS_NICE)
    .union(Caps::SYS_RESOURCE)
    .union(Caps::SYS_TTY_CONFIG)
    .union(Caps::SETFCAP);

/// A program to be started.
pub(crate) struct Program<'a> {
    /// Path and arguments; at least one.
    pub(crate) command: &'a [String],
    /// `NAME=value`, one after the other.
    pub(crate) environment: &'a [String],
}

/// What `/dev/null` does, for descriptors that no path leads to.
struct Nothing;

impl FileOps for Nothing {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _: &OpenFile, _: &mut Sink<'_>) -> vfs::Result<usize> {
        Ok(0)
    }

    fn write(&self, _: &OpenFile, source: &mut Source<'_>) -> vfs::Result<usize> {
        Ok(source.left())
    }

    fn name(&self, out: &mut dyn core::fmt::Write) {
        let _ = out.write_str("/dev/null");
    }
}

/// Standard input that has ended, standard output and standard error to `output`.
fn stdio(account: &Arc<Account>, output: Arc<dyn FileOps>) -> vfs::Result<FdTable> {
    let charge = || account.charge_file().ok_or(vfs::Error::FilesExhausted);
    let files = FdTable::new(account.clone());
    let nothing = OpenFile::new(Arc::new(Nothing), OpenFlags::empty(), None, charge()?);
    let output = OpenFile::new(output, OpenFlags::WRITE_ONLY, None, charge()?);
    for (fd, file) in [(0, nothing), (1, output.clone()), (2, output)] {
        files.insert(file, false, fd, fd + 1)?;
    }
    Ok(files)
}

/// Makes the first process of a capsule. It does not run yet.
///
/// # Errors
/// [`ControlError::ExecFailed`], [`ControlError::NoResources`].
pub(crate) fn first(
    parts: &Parts,
    capsule: &Capsule,
    program: &Program<'_>,
    output: Arc<Output>,
) -> Result<NewTask, ControlError> {
    spawn(parts, capsule, program, output).map_err(|e| exec_failed(&e))
}

/// Makes a process beside the first one. It does not run yet.
///
/// # Errors
/// As [`first`].
pub(crate) fn beside(
    parts: &Parts,
    capsule: &Capsule,
    program: &Program<'_>,
) -> Result<NewTask, ControlError> {
    spawn(parts, capsule, program, Arc::new(Nothing)).map_err(|e| exec_failed(&e))
}

fn spawn(
    parts: &Parts,
    capsule: &Capsule,
    program: &Program<'_>,
    output: Arc<dyn FileOps>,
) -> Result<NewTask, Error> {
    let manifest = capsule.manifest();
    let cred = match manifest.user {
        0 => Credentials {
            bounding: ROOT_CAPS,
            ..identity(Credentials::root(ROOT_CAPS), manifest.group)
        },
        user => Credentials {
            bounding: ROOT_CAPS,
            ..Credentials::user(user, manifest.group)
        },
    };
    let fs = FsContext::new(parts.root.path());
    let caller = Caller {
        fs: &fs,
        cred: &cred,
    };
    let directory = manifest.working_directory.as_bytes();
    let directory = caller.lookup(At::Cwd, directory, LastLink::Follow)?;
    if directory.dentry.dir().is_none() {
        return Err(Error::File(vfs::Error::NotDirectory));
    }
    fs.set_cwd(directory);
    let limits = mm::Limits::default();
    let mut arguments = Arguments::new(limits.stack);
    for word in program.command {
        arguments.push_arg(word.as_bytes())?;
    }
    for variable in program.environment {
        arguments.push_env(variable.as_bytes())?;
    }
    let name = program.command.first().map_or(&b""[..], |n| n.as_bytes());
    let path = caller.lookup(At::Cwd, name, LastLink::Follow)?;
    let what = Invocation {
        caller,
        account: parts.account.clone(),
        limits,
        randomize: Randomize::Yes,
        no_new_privs: false,
        name,
        arguments,
    };
    let files = Arc::new(stdio(&parts.account, output)?);
    let birth = Birth {
        fs: Arc::new(fs.clone()),
        files,
    };
    parts.world.spawn(birth, what, &path)
}

/// `cred` with the group `gid`.
fn identity(cred: Credentials, gid: u32) -> Credentials {
    Credentials {
        gid,
        egid: gid,
        sgid: gid,
        fsgid: gid,
        ..cred
    }
}

/// The 3Bot is told an error of `execve` by its Linux number, as part of the
/// messages' contract.
fn exec_failed(error: &Error) -> ControlError {
    let errno = match error {
        Error::NoMemory | Error::Memory(_) | Error::File(vfs::Error::NoMemory) => {
            return ControlError::NoResources;
        }
        Error::File(vfs::Error::NotFound) => 2,
        Error::File(vfs::Error::Io) => 5,
        Error::TooBig => 7,
        Error::NotExecutable => 8,
        Error::LimitReached => 11,
        Error::Denied | Error::File(vfs::Error::AccessDenied) => 13,
        Error::File(vfs::Error::NotDirectory) => 20,
        Error::File(vfs::Error::IsDirectory) => 21,
        Error::File(vfs::Error::FilesExhausted) => 23,
        Error::File(vfs::Error::NameTooLong) => 36,
        Error::TooManyLinks | Error::File(vfs::Error::TooManyLinks) => 40,
        _ => 22,
    };
    ControlError::ExecFailed { errno }
}
