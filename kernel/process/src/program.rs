//! A program made ready to run: everything of `execve` that may fail, before
//! anything of the caller has changed.

use crate::elf::{self, Arguments, AuxInput, ExecFile, Image, Loaded};
use crate::process::Program;
use crate::thread::{COMM_LEN, comm_from};
use crate::{Error, Result};
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::io::Sink;
use machine::thread::UserRegs;
use machine::{Account, FileCharge};
use mm::{AddressSpace, Backing, Layout, Limits, Randomize};
use vfs::cred::Want;
use vfs::file::Mappable;
use vfs::inode::{S_ISGID, S_ISUID};
use vfs::mount::MountFlags;
use vfs::writers::Running;
use vfs::{At, Caller, Caps, Credentials, Kind, LastLink, OpenFile, OpenFlags, Opening, Path};

/// Most scripts that name each other as interpreters (as Linux).
const SCRIPTS_MAX: usize = 4;
/// Bytes looked at to tell a script from a program.
const HEAD: usize = 256;
/// Bit of the exec group in a mode: without it set-group-id means something else.
const GROUP_EXEC: u32 = 0o010;
/// `HWCAP2_FSGSBASE`: programs may use these instructions.
const HWCAP2_FSGSBASE: u64 = 2;
/// Interrupts enabled, and the bit that is always set.
const RFLAGS: u64 = 0x202;

/// What is to be run, and for whom.
pub struct Invocation<'a> {
    /// Who runs it.
    pub caller: Caller<'a>,
    /// Who pays for its memory.
    pub account: Arc<Account>,
    /// Limits of its memory.
    pub limits: Limits,
    /// Whether addresses are random.
    pub randomize: Randomize,
    /// Set-id bits count for nothing (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privs: bool,
    /// The name the program is told (`AT_EXECFN`), and a script's interpreter gets.
    pub name: &'a [u8],
    /// Arguments and environment.
    pub arguments: Arguments,
}

/// A program in a space of its own, not running yet.
pub struct Ready {
    /// Its memory.
    pub space: Arc<AddressSpace>,
    /// The registers it starts with.
    pub regs: UserRegs,
    /// Who it runs as.
    pub credentials: Credentials,
    /// Its rights differ from those of who started it.
    pub secure: bool,
    pub(crate) program: Program,
    pub(crate) comm: [u8; COMM_LEN],
}

/// A program's file, opened for execution.
struct Executable {
    file: Arc<OpenFile>,
    backing: Arc<dyn Backing>,
    running: Arc<Running>,
}

impl Executable {
    /// Opens what `path` names, if `caller` may execute it.
    fn open(caller: &Caller<'_>, path: &Path) -> Result<Executable> {
        let inode = path.inode()?;
        let attr = inode.attr();
        let no_exec = path.mount.flags().contains(MountFlags::NOEXEC);
        if attr.kind != Kind::File || no_exec {
            return Err(Error::Denied);
        }
        attr.check(caller.cred, Want::EXEC)?;
        let how = Opening {
            flags: OpenFlags::empty(),
            cred: caller.cred,
            path,
        };
        let ops = inode.clone().open(&how)?;
        let file = OpenFile::new(
            ops,
            OpenFlags::empty(),
            Some(path.clone()),
            FileCharge::kernel(),
        );
        match file.ops().clone().mapping(&file, false)? {
            Mappable::Object(backing) => Ok(Executable {
                file,
                backing,
                running: Arc::new(Running::new(path.clone())?),
            }),
            Mappable::Anonymous => Err(Error::Denied),
        }
    }

    fn head(&self) -> Result<Vec<u8>> {
        let mut head = Vec::new();
        head.try_reserve_exact(HEAD)?;
        head.resize(HEAD, 0);
        let n = self.read_at(0, &mut head)?;
        head.truncate(n);
        Ok(head)
    }
}

impl ExecFile for Executable {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize> {
        Ok(self.file.pread(&mut Sink::kernel(out), offset)?)
    }

    fn backing(&self) -> Arc<dyn Backing> {
        self.backing.clone()
    }
}

/// Makes the program at `path` ready.
///
/// # Errors
/// Those of execve(2).
pub fn prepare(mut what: Invocation<'_>, path: &Path) -> Result<Ready> {
    let caller = what.caller;
    let comm = comm_from(what.name.rsplit(|b| *b == b'/').next().unwrap_or_default());
    let mut path = path.clone();
    let mut executable = Executable::open(&caller, &path)?;
    let mut name: Vec<u8> = what.name.into();
    let mut scripts = 0;
    loop {
        let head = executable.head()?;
        let Some(script) = elf::parse_script(&head)? else {
            break;
        };
        scripts += 1;
        if scripts > SCRIPTS_MAX {
            return Err(Error::TooManyLinks);
        }
        what.arguments.apply_script(&script, &name)?;
        path = caller.lookup(At::Cwd, script.interpreter, LastLink::Follow)?;
        executable = Executable::open(&caller, &path)?;
        name = script.interpreter.into();
    }
    let image = Image::read(&executable)?;
    let interpreter = match image.interpreter() {
        Some(path) => {
            let path = caller.lookup(At::Cwd, path, LastLink::Follow)?;
            Some(Executable::open(&caller, &path)?)
        }
        None => None,
    };
    let (credentials, secure) = new_credentials(caller.cred, &path, what.no_new_privs)?;
    let layout = Layout::new(what.randomize, what.limits.stack);
    let space = AddressSpace::with_layout(what.account, layout, what.limits)?;
    let loaded = load(&space, &executable, &image, interpreter.as_ref())?;
    let input = AuxInput {
        credentials: elf::Credentials {
            uid: credentials.uid,
            euid: credentials.euid,
            gid: credentials.gid,
            egid: credentials.egid,
        },
        vdso: elf::map_vdso(&space)?,
        hwcap2: if machine::cpu::fsgsbase() {
            HWCAP2_FSGSBASE
        } else {
            0
        },
        signal_stack_min: crate::signal::frame_size(),
    };
    let placed = what.arguments.place(&space, &loaded, what.name, &input)?;
    Ok(Ready {
        regs: UserRegs {
            rip: loaded.start as u64,
            rsp: placed.stack_pointer as u64,
            rflags: RFLAGS,
            orig_rax: u64::MAX,
            ..UserRegs::default()
        },
        program: Program {
            exe: Some(executable.running.clone()),
            arguments: (placed.args.start, placed.args.end),
            environment: (placed.envs.start, placed.envs.end),
            auxv: placed.auxv,
        },
        space,
        credentials,
        secure,
        comm,
    })
}

fn load(
    space: &AddressSpace,
    file: &Executable,
    image: &Image,
    interpreter: Option<&Executable>,
) -> Result<Loaded> {
    let program = elf::Program { file, image };
    let Some(interpreter) = interpreter else {
        return elf::load(space, program, None);
    };
    let image = Image::read(interpreter)?;
    let second = elf::Program {
        file: interpreter,
        image: &image,
    };
    elf::load(space, program, Some(second))
}

/// Who the program at `path` runs as when `old` starts it, and whether that is
/// somebody else (credentials(7), capabilities(7) "Transformation of capabilities
/// during execve()").
fn new_credentials(
    old: &Credentials,
    path: &Path,
    no_new_privs: bool,
) -> Result<(Credentials, bool)> {
    let mut new = old.clone();
    let attr = path.inode()?.attr();
    let mode = attr.mode();
    if !no_new_privs && !path.mount.flags().contains(MountFlags::NOSUID) {
        if mode & S_ISUID != 0 {
            new.euid = attr.uid();
        }
        if mode & (S_ISGID | GROUP_EXEC) == S_ISGID | GROUP_EXEC {
            new.egid = attr.gid();
        }
    }
    let changed = new.euid != old.euid || new.egid != old.egid;
    (new.suid, new.fsuid) = (new.euid, new.euid);
    (new.sgid, new.fsgid) = (new.egid, new.egid);
    if changed {
        new.ambient = Caps::empty();
    }
    if new.uid == 0 || new.euid == 0 {
        new.permitted = new.inheritable | new.bounding;
        new.effective = match new.euid {
            0 => new.permitted,
            _ => new.ambient,
        };
    } else {
        new.permitted = new.ambient;
        new.effective = new.ambient;
    }
    Ok((new, changed))
}
