//! The programs people deploy do on a node what they do on this machine's Linux.
//! `skep_qemu::compat` says how each is tried.
//!
//! What is marked as long runs when it is named, or in `scripts/test --long`.

use anyhow::Result;
use skep_qemu::compat::Program;

fn check(name: &str) -> Result<()> {
    Program::named(name)?.check()
}

#[test]
fn coreutils() -> Result<()> {
    check("coreutils")
}

#[test]
fn terminals() -> Result<()> {
    check("terminals")
}

#[test]
fn text_tools() -> Result<()> {
    check("text_tools")
}

#[test]
fn python() -> Result<()> {
    check("python")
}

#[test]
fn limits() -> Result<()> {
    check("limits")
}

#[test]
fn memory() -> Result<()> {
    check("memory")
}

#[test]
#[ignore = "long: `scripts/test compat` runs it"]
fn perl() -> Result<()> {
    check("perl")
}

#[test]
#[ignore = "long: `scripts/test compat` runs it"]
fn node() -> Result<()> {
    check("node")
}

#[test]
#[ignore = "long: `scripts/test compat` runs it"]
fn go() -> Result<()> {
    check("go")
}

#[test]
#[ignore = "long: `scripts/test compat` runs it"]
fn java() -> Result<()> {
    check("java")
}

#[test]
#[ignore = "long: `scripts/test compat` runs it"]
fn nginx_and_php() -> Result<()> {
    check("nginx_and_php")
}

#[test]
fn redis() -> Result<()> {
    check("redis")
}

#[test]
fn postgres() -> Result<()> {
    check("postgres")
}

#[test]
#[ignore = "long: `scripts/test compat` runs it"]
fn mariadb() -> Result<()> {
    check("mariadb")
}

#[test]
fn sqlite() -> Result<()> {
    check("sqlite")
}

#[test]
#[ignore = "long: `scripts/test compat` runs it"]
fn git() -> Result<()> {
    check("git")
}

#[test]
fn ssh() -> Result<()> {
    check("ssh")
}

#[test]
#[ignore = "long: `scripts/test compat` runs it"]
fn seccomp() -> Result<()> {
    check("seccomp")
}

#[test]
#[ignore = "long: `scripts/test compat` runs it"]
fn gcc_and_make() -> Result<()> {
    check("gcc_and_make")
}

#[test]
#[ignore = "long: `scripts/test compat` runs it"]
fn trace() -> Result<()> {
    check("trace")
}

#[test]
#[ignore = "long: `scripts/test compat` runs it"]
fn sockets() -> Result<()> {
    check("sockets")
}
