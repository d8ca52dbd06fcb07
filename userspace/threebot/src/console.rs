//! The node's console.

use std::fmt::Arguments;
use std::io::Write;

/// Writes a line. A console that is gone is no reason to die, as `println` would.
pub fn say(line: Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "3bot: {line}");
}
