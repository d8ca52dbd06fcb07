//! The programs' part of `docs/compatibility.md` is made from the lists, and this test
//! holds it to that. The rest of it is made from the table of system calls
//! (`kernel/syscall/src/compatibility.rs`).

use super::{PROGRAMS, clients::SERVED};
use std::{fmt::Write as _, fs};

const BEGIN: &str = "<!-- programs: begin -->\n";
const END: &str = "<!-- programs: end -->\n";

fn part() -> String {
    let mut text = String::from(
        "Made from `qemu/src/compat.rs` and `qemu/src/compat/clients.rs` by\n\
         `BLESS=1 cargo test -p skep-qemu compat`; do not edit. `scripts/test compat` runs them \
         all.\n\nEach of these scripts runs in a capsule of Debian packages, and in the same \
         files on this\nmachine's Linux; what it prints must be the same.\n\n\
         | scenario | packages | what runs |\n| --- | --- | --- |\n",
    );
    for program in PROGRAMS {
        let (name, packages) = (program.name, program.packages.join(" "));
        let about = program.about();
        assert!(about.ends_with('.'), "{name} does not say what it does");
        writeln!(text, "| `compat::{name}` | {packages} | {about} |").unwrap();
    }
    text += "\nThese serve clients outside the node. Where it can be compared, the clients must \
             print the same\nof the same server on this machine's Linux.\n\n\
             | scenario | packages | what runs |\n| --- | --- | --- |\n";
    for served in SERVED {
        let (name, packages, about) = (served.name, served.packages.1.join(" "), served.about);
        assert!(about.ends_with('.'), "{name} does not say what it does");
        writeln!(text, "| `compat_clients::{name}` | {packages} | {about} |").unwrap();
    }
    text += "\nThese are tried each in a way of its own.\n\n\
             | scenario | what runs |\n| --- | --- |\n";
    for (name, about) in described(include_str!("../../tests/compat_programs.rs")) {
        writeln!(text, "| `compat_programs::{name}` | {about} |").unwrap();
    }
    text
}

/// The scenarios of a source text, with the line that describes each.
fn described(source: &str) -> Vec<(&str, &str)> {
    let lines: Vec<_> = source.lines().collect();
    lines
        .windows(4)
        .filter(|four| four[1] == "#[test]")
        .map(|four| {
            let about = four[0].strip_prefix("/// ");
            // The long ones say so in between.
            let mut rest = four[2..].iter();
            let name = rest
                .find_map(|line| line.strip_prefix("fn "))
                .and_then(|rest| rest.split('(').next());
            (
                name.unwrap(),
                about.expect("a scenario is described in one line"),
            )
        })
        .collect()
}

#[test]
fn the_programs_in_the_document_are_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compatibility.md");
    let have = fs::read_to_string(path).unwrap();
    let (before, rest) = have.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let want = [before, BEGIN, &part(), END, after].concat();
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, &want).unwrap();
    } else {
        assert!(
            have == want,
            "stale: BLESS=1 cargo test -p skep-qemu compat"
        );
    }
}
