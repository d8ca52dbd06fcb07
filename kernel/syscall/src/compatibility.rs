//! The system calls' part of `docs/compatibility.md` is made from the table, and this
//! test holds it to that. `BLESS=1 cargo test -p syscall compatibility` writes it. The
//! rest of it is made from the list of programs (`qemu/src/compat/document.rs`).

use crate::table::{NAMES, Status, TABLE};
use std::fmt::Write;
use std::string::String;

const BEGIN: &str = "<!-- system calls: begin -->\n";
const END: &str = "<!-- system calls: end -->\n";

fn part() -> String {
    let mut out = String::from(
        "Made from `kernel/syscall/src/table.rs` by \
         `BLESS=1 cargo test -p syscall compatibility`; do not edit.\n\n",
    );
    let known = || {
        NAMES
            .iter()
            .zip(&TABLE)
            .enumerate()
            .filter(|(_, (n, _))| !n.is_empty())
    };
    let count = |f: fn(&Status) -> bool| known().filter(|(_, (_, r))| f(&r.status)).count();
    let _ = writeln!(
        out,
        "{} full, {} partial, {} refused on purpose, {} missing (`ENOSYS`, counted per capsule).\n",
        count(|s| *s == Status::Full),
        count(|s| matches!(s, Status::Partial(_))),
        count(|s| matches!(s, Status::Refused(_))),
        count(|s| *s == Status::Missing),
    );
    out.push_str("| number | call | status | note |\n| ---: | --- | --- | --- |\n");
    for (number, (name, row)) in known() {
        let (status, note) = match row.status {
            Status::Full => ("full", ""),
            Status::Partial(note) => ("partial", note),
            Status::Refused(note) => ("refused", note),
            Status::Missing => continue,
        };
        let _ = writeln!(out, "| {number} | `{name}` | {status} | {note} |");
    }
    out.push_str("\nMissing:");
    for (_, (name, _)) in known().filter(|(_, (_, r))| r.status == Status::Missing) {
        let _ = write!(out, " `{name}`");
    }
    out.push('\n');
    out
}

#[test]
fn the_system_calls_in_the_document_are_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/compatibility.md");
    let have = std::fs::read_to_string(path).unwrap();
    let (before, rest) = have.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let want = [before, BEGIN, &part(), END, after].concat();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &want).unwrap();
    } else {
        assert!(
            have == want,
            "stale: run BLESS=1 cargo test -p syscall compatibility"
        );
    }
}
