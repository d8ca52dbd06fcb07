//! A program that means harm: `hostile calls SECONDS NEXT SEED...` makes every system
//! call, in rounds that follow from seeds: the given ones, then from NEXT on (a number,
//! or `clock`) for the rest of the time; `hostile instructions` runs what only a kernel
//! may, `hostile storms` has the kernel do things for ever, and `hostile registers` goes
//! on with registers that no processor takes.
//!
//! Ends with status 0 when it could do no harm that a process itself can see; what
//! became of the kernel and of the neighbours is for others to judge. Because the
//! calls hurt any machine that lets them, `calls` works only as the first process
//! of a Skep capsule.

mod calls;
mod chains;
mod instructions;
mod kinds;
mod leavings;
mod objects;
mod process;
mod random;
mod raw;
mod registers;
mod rows;
mod scratch;
mod shared;
mod storms;
mod structs;
mod worker;

use std::{env, process::ExitCode, time::Duration};

const USAGE: &str =
    "usage: hostile calls SECONDS NEXT|clock SEED... | instructions | registers | storms";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["calls", seconds, next, ref seeds @ ..] => calls(seconds, next, seeds),
        ["instructions"] => instructions::run(),
        ["registers"] => registers::run(),
        ["storms"] => storms::run(),
        _ => Err(USAGE.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn calls(seconds: &str, next: &str, seeds: &[&str]) -> Result<(), String> {
    let seconds = seconds.parse().map_err(|_| USAGE.to_string())?;
    let next = match next {
        "clock" => None,
        next => Some(seed(next)?),
    };
    let seeds = seeds
        .iter()
        .map(|text| seed(text))
        .collect::<Result<Vec<_>, _>>()?;
    calls::run(Duration::from_secs(seconds), next, &seeds)
}

/// A seed, written with or without `0x`; the first is how it is printed.
fn seed(text: &str) -> Result<u64, String> {
    let found = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    found.map_err(|_| format!("not a seed: {text}"))
}
