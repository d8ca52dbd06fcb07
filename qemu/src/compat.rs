//! The programs people deploy, and how each is tried: straight from Debian's
//! packages, with one script that runs on a node and on this machine's Linux. Of programs
//! whose packages are named after a version, the release's own one is taken.

pub mod clients;
#[cfg(test)]
mod document;

use crate::{
    seconds,
    twin::{Packages, Room},
};
use anyhow::{Context as _, Result};

/// A program and its script.
pub struct Program {
    /// Name of the scenario.
    pub name: &'static str,
    /// Debian packages of the image.
    pub packages: &'static [&'static str],
    /// What runs; `/script` in it is the script.
    pub command: &'static [&'static str],
    /// A file of `tests/compat/`, whose first line says what it does.
    pub script: &'static str,
    /// How the script becomes what runs, if it is source text.
    pub build: Option<Build>,
    /// What the capsule gets.
    pub room: Room,
}

/// A compiler that runs on the host, in the files of its own packages.
pub struct Build {
    /// Debian packages of the compiler.
    pub packages: &'static [&'static str],
    /// Shell words that make of `/script` what they print.
    pub command: &'static str,
}

const BASH: &[&str] = &["/bin/bash", "/script"];

/// A script for bash, or for what `command` names.
const fn program(
    name: &'static str,
    packages: &'static [&'static str],
    command: &'static [&'static str],
    script: &'static str,
) -> Program {
    Program {
        name,
        packages,
        command,
        script,
        build: None,
        room: Room {
            memory_mib: 512,
            time: seconds(300),
        },
    }
}

/// Room for the larger ones: MiB of memory and seconds.
const fn room(memory_mib: u32, time: u64) -> Room {
    Room {
        memory_mib,
        time: seconds(time),
    }
}

const GO: Build = Build {
    packages: &["golang-go", "dash", "coreutils"],
    command: "cp /script main.go; export GOCACHE=/tmp/cache GO111MODULE=off CGO_ENABLED=0
go build -o prog main.go >log 2>&1 || { cat log; exit 1; }; cat prog",
};

const JDK: Build = Build {
    packages: &["default-jdk-headless", "dash", "coreutils"],
    command: "PATH=$PATH:/usr/lib/jvm/default-java/bin; cp /script Main.java
{ javac Main.java && jar cfe main.jar Main *.class; } >log 2>&1 || { cat log; exit 1; }
cat main.jar",
};

/// Of a script whose end is the source of a C program: the script, and after it the
/// program in base64.
const TRACED: Build = Build {
    packages: &["gcc", "libc6-dev", "bash", "dash", "coreutils", "sed"],
    command: "sed -n '/^#source$/,/^#end$/p' /script | sed '1d;$d' >prog.c
gcc -g -static -o prog prog.c >log 2>&1 || { cat log; exit 1; }
cat /script; echo '#program'; base64 prog",
};

/// All of them, in the order of `docs/compatibility.md`.
pub const PROGRAMS: &[Program] = &[
    program(
        "coreutils",
        &["bash", "coreutils"],
        BASH,
        include_str!("../tests/compat/coreutils.sh"),
    ),
    program(
        "terminals",
        &[
            "bash",
            "coreutils",
            "grep",
            "bsdutils",
            "util-linux",
            "perl-base",
        ],
        BASH,
        include_str!("../tests/compat/terminals.sh"),
    ),
    program(
        "text_tools",
        &[
            "bash",
            "dash",
            "coreutils",
            "findutils",
            "grep",
            "sed",
            "gawk",
            "libc-bin",
        ],
        BASH,
        include_str!("../tests/compat/text.sh"),
    ),
    program(
        "python",
        &["python3", "openssl", "dash", "coreutils"],
        &["/usr/bin/python3", "/script"],
        include_str!("../tests/compat/python.py"),
    ),
    program(
        "limits",
        &["python3", "bash", "coreutils"],
        &["/usr/bin/python3", "/script"],
        include_str!("../tests/compat/limits.py"),
    ),
    program(
        "memory",
        &["python3", "coreutils"],
        &["/usr/bin/python3", "/script"],
        include_str!("../tests/compat/memory.py"),
    ),
    program(
        "perl",
        &["perl", "dash", "coreutils", "netbase"],
        &["/usr/bin/perl", "/script"],
        include_str!("../tests/compat/perl.pl"),
    ),
    program(
        "node",
        &["nodejs", "node-express", "dash", "coreutils"],
        &["/usr/bin/node", "/script"],
        include_str!("../tests/compat/node.js"),
    ),
    Program {
        build: Some(GO),
        ..program(
            "go",
            &["dash", "coreutils"],
            &["/script"],
            include_str!("../tests/compat/main.go"),
        )
    },
    Program {
        build: Some(JDK),
        room: room(768, 600),
        ..program(
            "java",
            &["default-jre-headless", "dash", "coreutils"],
            &[
                "/usr/lib/jvm/default-java/bin/java",
                "-Xmx128m",
                // Else it depends on the size of the machine which collector it is.
                "-XX:+UseG1GC",
                "-jar",
                "/script",
            ],
            include_str!("../tests/compat/Main.java"),
        )
    },
    program(
        "nginx_and_php",
        &[
            "nginx",
            "php-fpm",
            "php-sqlite3",
            "curl",
            "openssl",
            "bash",
            "dash",
            "coreutils",
            "grep",
            "sed",
            "mawk",
        ],
        BASH,
        include_str!("../tests/compat/web.sh"),
    ),
    program(
        "redis",
        &["redis-server", "bash", "coreutils", "grep", "sed"],
        BASH,
        include_str!("../tests/compat/redis.sh"),
    ),
    program(
        "postgres",
        &[
            "postgresql",
            "bash",
            "dash",
            "coreutils",
            "procps",
            "util-linux",
            "sed",
            "grep",
        ],
        BASH,
        include_str!("../tests/compat/postgres.sh"),
    ),
    Program {
        room: room(768, 300),
        ..program(
            "mariadb",
            &["mariadb-server", "bash", "dash", "coreutils", "sed", "grep"],
            BASH,
            include_str!("../tests/compat/mariadb.sh"),
        )
    },
    program(
        "sqlite",
        &["sqlite3", "bash", "dash", "coreutils", "procps", "sed"],
        BASH,
        include_str!("../tests/compat/sqlite.sh"),
    ),
    program(
        "git",
        &[
            "git",
            "python3",
            "bash",
            "dash",
            "coreutils",
            "tar",
            "grep",
            "sed",
        ],
        BASH,
        include_str!("../tests/compat/git.sh"),
    ),
    program(
        "ssh",
        &[
            "openssh-server",
            "openssh-client",
            "openssh-sftp-server",
            "bash",
            "dash",
            "coreutils",
            "diffutils",
            "grep",
        ],
        BASH,
        include_str!("../tests/compat/ssh.sh"),
    ),
    program(
        "seccomp",
        &["python3-seccomp", "python3", "dash", "coreutils"],
        &["/usr/bin/python3", "/script"],
        include_str!("../tests/compat/filters.py"),
    ),
    Program {
        room: room(512, 600),
        ..program(
            "gcc_and_make",
            &[
                "gcc",
                "g++",
                "make",
                "libc6-dev",
                "bash",
                "dash",
                "coreutils",
                "grep",
                "sed",
            ],
            BASH,
            include_str!("../tests/compat/build.sh"),
        )
    },
    Program {
        build: Some(TRACED),
        room: room(512, 600),
        ..program(
            "trace",
            &[
                "strace",
                "gdb",
                "gawk",
                "bash",
                "dash",
                "coreutils",
                "grep",
                "sed",
            ],
            BASH,
            include_str!("../tests/compat/trace.sh"),
        )
    },
    program(
        "sockets",
        &["python3", "iproute2"],
        &["/usr/bin/python3", "/script"],
        include_str!("../tests/compat/sockets.py"),
    ),
];

impl Program {
    /// The one called `name`.
    pub fn named(name: &str) -> Result<&'static Self> {
        let found = PROGRAMS.iter().find(|program| program.name == name);
        found.with_context(|| format!("there is no program {name}"))
    }

    /// What it does, in the words of its script.
    pub fn about(&self) -> &'static str {
        let mut lines = self.script.lines().filter(|line| !line.starts_with("#!"));
        let line = lines.next().unwrap_or_default();
        line.trim_start_matches(['#', '/', ' '])
    }

    /// Runs it in both places; both must print the same.
    pub fn check(&self) -> Result<()> {
        let script = match &self.build {
            None => self.script.as_bytes().to_vec(),
            Some(build) => {
                let compiler = Packages::pack(&format!("{}-build", self.name), build.packages)?;
                let words = ["/bin/sh", "-c", build.command];
                compiler.on_the_host(self.script.as_bytes(), &words)?
            }
        };
        let packages = Packages::pack(self.name, self.packages)?;
        packages.same(self.name, &script, self.command, self.room)
    }
}
