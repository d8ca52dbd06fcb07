//! Test suites that other people wrote do on a node what their recorded tables say
//! (`skep_qemu::suite`). That of stress-ng is with the programs, in `compat_programs`.

use anyhow::Result;
use skep_qemu::suite;

#[test]
#[ignore = "long: `scripts/test ltp` runs it"]
fn ltp() -> Result<()> {
    suite::ltp::suite()?.check()
}

#[test]
#[ignore = "long: `scripts/test busybox` runs it"]
fn busybox() -> Result<()> {
    suite::busybox::suite()?.check()
}

#[test]
#[ignore = "long: `scripts/test cpython` runs it"]
fn cpython() -> Result<()> {
    suite::cpython::suite()?.check()
}

#[test]
#[ignore = "long: `scripts/test go` runs it"]
fn go() -> Result<()> {
    suite::go::suite()?.check()
}

#[test]
#[ignore = "long: `scripts/test libc_test` runs it"]
fn libc_test() -> Result<()> {
    suite::libc_test::suite()?.check()
}
