//! Which packages of apt's solution a running program needs.

use std::collections::{BTreeMap, BTreeSet};

/// Packages that others depend on for their installation scripts, which never run
/// here. They are cut, with all that only they need, unless asked for by name.
const FOR_INSTALLATION: [&str; 22] = [
    "adduser",
    "cdebconf",
    "cron",
    "cron-daemon-common",
    "debconf",
    "debianutils",
    "dpkg",
    "init-system-helpers",
    "install-info",
    "logrotate",
    "lsb-base",
    "opensysusers",
    "passwd",
    "sensible-utils",
    "systemd",
    "systemd-standalone-sysusers",
    "systemd-standalone-tmpfiles",
    "systemd-sysv",
    "sysvinit-utils",
    "ucf",
    "update-inetd",
    "usrmerge",
];

/// What the packages of a solution depend on and provide.
#[derive(Debug, Default)]
pub(super) struct Relations {
    /// By package: its dependencies, each a list of alternatives.
    depends: BTreeMap<String, Vec<Vec<String>>>,
    /// By name: the packages that are it or provide it.
    providers: BTreeMap<String, BTreeSet<String>>,
}

impl Relations {
    /// Reads the stanzas that `apt-cache show` prints.
    pub(super) fn parse(text: &str) -> Self {
        let mut relations = Self::default();
        for stanza in text.split("\n\n") {
            relations.add(stanza);
        }
        relations
    }

    fn add(&mut self, stanza: &str) {
        let field = |name: &str| {
            let mut lines = stanza.lines();
            lines
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        let Some(package) = field("Package") else {
            return;
        };
        let mut depends = Vec::new();
        for groups in [field("Pre-Depends"), field("Depends")]
            .into_iter()
            .flatten()
        {
            depends.extend(
                groups
                    .split(',')
                    .map(|group| group.split('|').map(name_of).collect()),
            );
        }
        self.depends.insert(package.into(), depends);
        let provided = field("Provides")
            .unwrap_or_default()
            .split(',')
            .map(name_of);
        for name in provided
            .chain([package.into()])
            .filter(|name: &String| !name.is_empty())
        {
            self.providers
                .entry(name)
                .or_default()
                .insert(package.into());
        }
    }
}

/// The name in `libc6:any (>= 2.34) [amd64]`.
fn name_of(relation: &str) -> String {
    let end = |c: char| c.is_whitespace() || matches!(c, '(' | '[' | ':');
    relation.trim().split(end).next().unwrap_or_default().into()
}

/// The packages reached from `wanted` without passing through one that is cut.
pub(super) fn keep(wanted: &[&str], without: &[String], relations: &Relations) -> BTreeSet<String> {
    let is_cut = |name: &str| {
        let by_rule = FOR_INSTALLATION.contains(&name) && !wanted.contains(&name);
        by_rule || without.iter().any(|other| other == name)
    };
    let mut kept = BTreeSet::new();
    let mut left: Vec<&str> = wanted.to_vec();
    while let Some(name) = left.pop() {
        for package in relations.providers.get(name).into_iter().flatten() {
            if is_cut(package) || !kept.insert(package.clone()) {
                continue;
            }
            let groups = relations.depends.get(package).into_iter().flatten();
            left.extend(groups.flatten().map(String::as_str));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "\
Package: web
Pre-Depends: debconf (>= 1) | debconf-2.0
Depends: libc (>= 2.34), awk, missing | tools:any

Package: debconf
Provides: debconf-2.0
Depends: perl

Package: perl
Depends: libc

Package: mawk
Provides: awk (= 1)

Package: tools

Package: libc
";

    #[test]
    fn installation_helpers_are_cut_with_all_that_only_they_need() {
        let relations = Relations::parse(STANZAS);
        let names = |wanted: &[&str], without: &[String]| {
            keep(wanted, without, &relations)
                .into_iter()
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(names(&["web"], &[]), "libc mawk tools web");
        assert_eq!(
            names(&["web", "debconf"], &[]),
            "debconf libc mawk perl tools web"
        );
        assert_eq!(
            names(&["web"], &["tools".into(), "mawk".into()]),
            "libc web"
        );
        assert_eq!(names(&["awk"], &[]), "mawk");
    }
}
