//! A program that means harm: `hostile calls SECONDS` makes every system call with
//! arguments chosen to hurt, `hostile instructions` runs what only a kernel may,
//! `hostile storms` has the kernel do things for ever, and `hostile registers` goes on
//! with registers that no processor takes.
//!
//! Ends with status 0 when it could do no harm that a process itself can see; what
//! became of the kernel and of the neighbours is for others to judge. Because the
//! calls hurt any machine that lets them, `calls` works only as the first process
//! of a Skep capsule.

mod calls;
mod instructions;
mod leavings;
mod pool;
mod process;
mod random;
mod registers;
mod storms;

use std::{env, process::ExitCode, time::Duration};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["calls", seconds] => calls::run(Duration::from_secs(seconds.parse().unwrap_or(10))),
        ["instructions"] => instructions::run(),
        ["registers"] => registers::run(),
        ["storms"] => storms::run(),
        _ => Err("usage: hostile calls SECONDS | instructions | registers | storms".to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
    }
}
