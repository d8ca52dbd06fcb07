//! Driving this machine's apt with a private, empty state.

use super::closure::Relations;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// One package of a solution.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) architecture: String,
}

/// apt, told to look at nothing of this machine but its sources and lists.
#[derive(Debug)]
pub(super) struct Apt {
    cache: PathBuf,
}

impl Apt {
    /// Uses `cache` for archives and for the empty state.
    pub(super) fn new(cache: &Path) -> Result<Self> {
        let make = || -> std::io::Result<PathBuf> {
            fs::create_dir_all(cache.join("apt/archives/partial"))?;
            fs::write(cache.join("status"), "")?;
            cache.canonicalize()
        };
        let cache = make().with_context(|| format!("cannot use {} as cache", cache.display()))?;
        Ok(Self { cache })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let option = |name: &str, file: &str| format!("{name}={}", self.cache.join(file).display());
        let options = [
            option("Dir::State::status", "status"),
            option("Dir::State::extended_states", "extended_states"),
            option("Dir::Cache", "apt"),
            "Dir::Log=/dev/null".into(),
            "APT::Install-Recommends=false".into(),
            "APT::Install-Suggests=false".into(),
            // Nothing of the system is written, so its locks do not matter.
            "Debug::NoLocking=true".into(),
            // As root, apt would fetch as a user who cannot write to our cache.
            "APT::Sandbox::User=".into(),
        ];
        for option in options {
            command.arg("-o").arg(option);
        }
        command.env("LC_ALL", "C").current_dir(&self.cache);
        command
    }

    /// The packages that apt would install for `names` on an empty machine.
    pub(super) fn resolve(&self, names: &[String]) -> Result<Vec<Package>> {
        let mut command = self.command("apt-get");
        command
            .args(["--simulate", "--quiet", "install", "--"])
            .args(names);
        let output = run(&mut command)?;
        if !output.status.success() {
            return Err(explain(&output, names));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().filter_map(parse_inst).collect())
    }

    /// What the packages of a solution depend on and provide.
    pub(super) fn relations(&self, packages: &[Package]) -> Result<Relations> {
        let mut command = self.command("apt-cache");
        command
            .args(["show", "--"])
            .args(packages.iter().map(exact));
        let output = run(&mut command)?;
        if !output.status.success() {
            return Err(explain(&output, &[]));
        }
        Ok(Relations::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// The version of one package that apt would choose, its dependencies aside.
    pub(super) fn candidate(&self, name: &str) -> Result<Package> {
        let mut command = self.command("apt-cache");
        let output = run(command.args(["--no-all-versions", "show", "--", name]))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let field = |name: &str| {
            let mut values = text
                .lines()
                .filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            values.next().map(String::from)
        };
        match (field("Package"), field("Version"), field("Architecture")) {
            (Some(name), Some(version), Some(architecture)) => Ok(Package {
                name,
                version,
                architecture,
            }),
            _ => Err(explain(&output, &[name.into()])),
        }
    }

    /// Fetches the archives that are not in the cache yet. apt checks all of them,
    /// those in the cache too, against its signed lists.
    pub(super) fn download(&self, packages: &[Package]) -> Result<Vec<PathBuf>> {
        let mut command = self.command("apt-get");
        command
            .args(["--quiet", "--quiet", "download", "--"])
            .args(packages.iter().map(exact));
        let output = run(&mut command)?;
        if !output.status.success() {
            let reason = last_error(&output);
            bail!(
                "cannot fetch the packages ({reason}); check the network, or run 'apt-get update'"
            );
        }
        let path = |package: &Package| {
            // apt's file names: a colon would not survive every file system.
            let version = package.version.replace(':', "%3a");
            let name = format!("{}_{version}_{}.deb", package.name, package.architecture);
            let path = self.cache.join(name);
            if !path.is_file() {
                bail!("apt has not fetched {}; try again", path.display());
            }
            Ok(path)
        };
        packages.iter().map(path).collect()
    }
}

fn exact(package: &Package) -> String {
    format!(
        "{}:{}={}",
        package.name,
        architecture_for_apt(package),
        package.version
    )
}

/// `all` is no architecture that apt can select; such packages count as native.
fn architecture_for_apt(package: &Package) -> &str {
    if package.architecture == "all" {
        "native"
    } else {
        &package.architecture
    }
}

fn run(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| {
        let program = command.get_program().to_string_lossy().into_owned();
        format!("cannot run {program}; packages can only be taken on Debian and its relatives")
    })
}

/// Reads a line such as `Inst zlib1g (1:1.2.13 Debian:12/stable [amd64]) []`.
fn parse_inst(line: &str) -> Option<Package> {
    let rest = line.strip_prefix("Inst ")?;
    let (name, rest) = rest.split_once(' ')?;
    let (_, rest) = rest.split_once('(')?;
    let (inside, _) = rest.split_once(')')?;
    let (version, rest) = inside.split_once(' ')?;
    let architecture = rest.rsplit_once('[')?.1.strip_suffix(']')?;
    let name = name.split_once(':').map_or(name, |(name, _)| name);
    Some(Package {
        name: name.into(),
        version: version.into(),
        architecture: architecture.into(),
    })
}

fn last_error(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut errors = text.lines().filter_map(|line| line.strip_prefix("E: "));
    errors
        .next()
        .unwrap_or("apt failed")
        .trim_end_matches('.')
        .into()
}

/// One sentence for a failed apt run.
fn explain(output: &Output, names: &[String]) -> anyhow::Error {
    let lists = fs::read_dir("/var/lib/apt/lists").map(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    });
    if !lists.unwrap_or(false) {
        return anyhow::anyhow!("apt knows no packages yet; run 'sudo apt-get update' first");
    }
    let reason = last_error(output);
    anyhow::anyhow!(
        "apt cannot install {}: {reason}; check the name with 'apt-cache policy'",
        names.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulation_lines() {
        let line =
            "Inst zlib1g (1:1.2.13.dfsg-1 Debian:12.15/oldstable, Debian-Security:12 [amd64]) []";
        let package = parse_inst(line).unwrap();
        assert_eq!(
            (&*package.name, &*package.version, &*package.architecture),
            ("zlib1g", "1:1.2.13.dfsg-1", "amd64")
        );
        assert_eq!(parse_inst("Inst a:i386 (1 D [i386])").unwrap().name, "a");
        assert!(parse_inst("Conf zlib1g (1 Debian [amd64])").is_none());
        assert!(parse_inst("Inst broken").is_none());
    }
}
