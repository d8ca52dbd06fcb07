//! The same program on a node and on this machine's Linux, to compare what both print.

use crate::{
    Artifacts, Machine,
    command::output,
    node::TempFolder,
    ramdisk::{Image, Ramdisk, manifest},
    seconds,
};
use anyhow::{Context as _, Result, ensure};
use skep_api::manifest::{Manifest, RestartPolicy};
use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

/// Environment of the programs, on the node and on the host.
const ENVIRONMENT: [(&str, &str); 4] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/tmp"),
    ("LANG", "C.UTF-8"),
    ("TZ", "UTC"),
];

/// Memory of a node that is not the capsule's, in MiB: kernel, 3Bot, and pages of the
/// ramdisk's index.
const NODE_MIB: u32 = 96;

/// What a capsule gets, beyond its image.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Memory of the capsule, in MiB; the node has that much more.
    pub memory_mib: u32,
    /// How long the program may run.
    pub time: Duration,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            memory_mib: 160,
            time: seconds(180),
        }
    }
}

/// What a program prints on the host, in a fresh folder.
pub fn on_the_host(program: &str, words: &[&str]) -> Result<String> {
    let folder = TempFolder::new()?;
    let mut host = host_command(Room::default().time);
    host.arg(program)
        .args(words)
        .env_clear()
        .envs(ENVIRONMENT)
        .env("TMPDIR", folder.path());
    output(host.current_dir(folder.path()))
}

/// The start of a command on the host: it ends after `limit`, and no signal is
/// ignored, as some are for whoever started the tests with `nohup`.
fn host_command(limit: Duration) -> Command {
    let mut command = Command::new("/usr/bin/timeout");
    command.args(["--kill-after=5", &limit.as_secs().to_string()]);
    command.args(["/usr/bin/env", "--default-signal"]);
    command
}

/// What a capsule of this image prints; it must end with status 0.
pub fn on_a_node(name: &str, image: &Image, command: &[&str], room: Room) -> Result<String> {
    what_it_prints(name, &capsule(image, command, room), image, room)
}

/// The manifest of the capsule `program`, which runs once, with the host's environment
/// and with this room.
pub fn capsule(image: &Image, command: &[&str], room: Room) -> Manifest {
    let mut program = manifest("program", image, command);
    program.environment = ENVIRONMENT
        .iter()
        .chain(&[("TMPDIR", "/tmp")])
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    program.working_directory = "/tmp".to_string();
    program.restart.policy = RestartPolicy::Never;
    program.limits.memory_bytes = u64::from(room.memory_mib) << 20;
    program.limits.processes = 512;
    program.limits.files = 8192;
    program
}

/// A machine with room for that capsule, not started yet.
pub fn machine(name: &str, program: &Manifest, image: &Image, room: Room) -> Result<Machine> {
    let mut ramdisk = Ramdisk::new()?;
    ramdisk.capsule(program, image)?;
    let path = ramdisk.write(name)?;
    let ramdisk_mib = u32::try_from(fs::metadata(&path)?.len() >> 20)?;
    Ok(Machine::new(name)
        .cpus(2)
        .memory_mib(NODE_MIB + room.memory_mib + ramdisk_mib)
        .ramdisk(&path))
}

/// What that capsule prints; it must end with status 0.
pub fn what_it_prints(name: &str, program: &Manifest, image: &Image, room: Room) -> Result<String> {
    let mut node = machine(name, program, image, room)?.start()?;
    node.wait_http(8080, "/", seconds(60))?;
    let ended = node.api().wait_finished("program", room.time);
    let log = node.api().log("program")?;
    let how = ended.with_context(|| format!("it printed: {log}"))?;
    ensure!(
        how == "exit code 0",
        "it ended with {how} and printed: {log}"
    );
    Ok(log)
}

/// Fails with the first line that differs; what both of `name` printed is kept beside
/// the node's logs.
pub fn ensure_same(name: &str, node: &str, host: &str) -> Result<()> {
    let logs = Artifacts::new().logs().join(name);
    fs::create_dir_all(&logs)?;
    fs::write(logs.join("node.txt"), node)?;
    fs::write(logs.join("host.txt"), host)?;
    let (mut ours, mut theirs) = (node.lines(), host.lines());
    for number in 1.. {
        match (ours.next(), theirs.next()) {
            (None, None) => break,
            (our, their) => ensure!(
                our == their,
                "line {number}: the node prints {our:?}, the host {their:?}; all is in {}",
                logs.display()
            ),
        }
    }
    ensure!(!host.is_empty() && node == host, "the ends of lines differ");
    Ok(())
}

/// Debian packages with everything they need, as an image and as files on the host.
pub struct Packages {
    folder: PathBuf,
}

impl Packages {
    /// Packs these packages for `name`, unless that has been done by the command line
    /// there is now.
    pub fn pack(name: &str, packages: &[&str]) -> Result<Self> {
        let artifacts = Artifacts::new();
        let all = artifacts.out().join("compat");
        fs::create_dir_all(&all)?;
        // Scenarios run beside one another, and some share an image.
        let alone = File::create(all.join(".lock"))?;
        alone.lock()?;
        let folder = all.join(name);
        let cli = artifacts.require(artifacts.cli())?;
        let made = |path: &Path| fs::metadata(path)?.modified();
        let wanted = packages.join(" ");
        let list = folder.join("packages");
        if fs::read_to_string(&list).is_ok_and(|found| found == wanted)
            && made(&list)? > made(&cli)?
        {
            return Ok(Self { folder });
        }
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let image = folder.join("image");
        let mut pack = Command::new(&cli);
        pack.args(["pack", "--deb"]).args(packages);
        output(pack.arg("-o").arg(&image))?;
        let mut unpack = Command::new(&cli);
        output(
            unpack
                .arg("unpack")
                .arg(&image)
                .arg("-o")
                .arg(folder.join("files")),
        )?;
        fs::write(list, wanted)?;
        Ok(Self { folder })
    }

    /// What this command prints on the host, where `script` is the file `/script`.
    pub fn on_the_host(&self, script: &[u8], command: &[&str]) -> Result<Vec<u8>> {
        printed(
            command,
            self.run_on_the_host(None, script, command, seconds(600))?,
        )
    }

    /// Runs this command on the host, where `script` is the file `/script` and what is
    /// in the folder `over` lies over the files of the packages; 124 is the code of one
    /// that is ended because its time is over.
    pub fn run_on_the_host(
        &self,
        over: Option<&Path>,
        script: &[u8],
        command: &[&str],
        limit: Duration,
    ) -> Result<Output> {
        self.host(host_command(limit), over, script, command)
    }

    /// What a script for bash prints on the host, with the host's own network, so that
    /// it reaches a node.
    pub fn reaching_out(&self, script: &str, limit: Duration) -> Result<String> {
        let mut host = host_command(limit);
        host.env("HOST_NETWORK", "1");
        let words = ["/bin/bash", "/script"];
        let ran = self.host(host, None, script.as_bytes(), &words)?;
        Ok(String::from_utf8_lossy(&printed(&words, ran)?).into_owned())
    }

    fn host(
        &self,
        mut host: Command,
        over: Option<&Path>,
        script: &[u8],
        command: &[&str],
    ) -> Result<Output> {
        let folder = TempFolder::new()?;
        let file = folder.path().join("script");
        fs::write(&file, script)?;
        // The overlay's lower folders: the first lies over the others.
        let mut layers = OsString::new();
        if let Some(over) = over {
            layers.push(over);
            layers.push(":");
        }
        layers.push(self.files());
        host.arg(host_script()).arg(layers);
        host.arg(&file).args(command);
        host.output().context("cannot run host.sh")
    }

    /// The folder with the files of the packages.
    pub fn files(&self) -> PathBuf {
        self.folder.join("files")
    }

    /// A file of the packages.
    pub fn file(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.files().join(path.trim_start_matches('/'));
        fs::read(&path).with_context(|| format!("no {}", path.display()))
    }

    /// The image, with these files more.
    pub fn image(&self, files: &[(&str, u16, &[u8])]) -> Result<Image> {
        Image::open(&self.folder.join("image"))?.with_files(files)
    }

    /// Runs the command in both places; both must print the same.
    pub fn same(&self, name: &str, script: &[u8], command: &[&str], room: Room) -> Result<()> {
        let host = self.on_the_host(script, command)?;
        let name = format!("compat-{name}");
        let node = on_a_node(
            &name,
            &self.image(&[("/script", 0o755, script)])?,
            command,
            room,
        )?;
        ensure_same(&name, &node, &String::from_utf8_lossy(&host))
    }
}

/// What a command printed, if it succeeded.
pub(crate) fn printed(command: &[&str], ran: Output) -> Result<Vec<u8>> {
    let said = String::from_utf8_lossy(&ran.stdout);
    let failed = String::from_utf8_lossy(&ran.stderr);
    ensure!(
        ran.status.success(),
        "on the host {command:?} ends with {}: {failed}{said}",
        ran.status
    );
    Ok(ran.stdout)
}

fn host_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat/host.sh")
}

/// Runs a script by this shell of an image, and by the host's.
pub fn same_script(name: &str, image: &Image, shell: &[&str], script: &str) -> Result<()> {
    let folder = TempFolder::new()?;
    let file = folder.path().join("script");
    fs::write(&file, script)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    let (program, words) = shell.split_first().context("no shell")?;
    let path = file.to_string_lossy();
    let host = on_the_host(program, &[words, &[&path]].concat())?;
    let image = image.with_files(&[
        ("/script", 0o755, script.as_bytes()),
        ("/tmp/.folder", 0o644, b""),
    ])?;
    let node = on_a_node(
        name,
        &image,
        &[shell, &["/script"]].concat(),
        Room::default(),
    )?;
    ensure_same(name, &node, &host)
}
