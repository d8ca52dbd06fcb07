//! Test suites that other people wrote do on a node what their recorded tables say
//! (`skep_qemu::suite`).

use anyhow::Result;
use skep_qemu::suite;

#[test]
#[ignore = "long: `scripts/test ltp` runs it"]
fn ltp() -> Result<()> {
    suite::ltp::suite()?.check()
}
