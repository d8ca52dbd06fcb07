//! `skep-dev`: what `scripts/build`, `scripts/run` and `scripts/test` do.

mod bench;
mod build;
mod cargo;
mod check;
mod frames;
mod logged;
mod options;
mod ramdisk;
mod run;
mod runner;
mod scenarios;
mod steps;
mod test;
mod tidy;

use anyhow::{Result, bail};
use std::{env, process::ExitCode};

const USAGE: &str = "\
usage: skep-dev build [PART...]     build everything, or: kernel user direct image programs
       skep-dev run [--help | FLAG...]
       skep-dev test [--long] [--list | NAME...]
       skep-dev bench ARGUMENT...   those of the shared harness; `skep` names this node
       skep-dev bench prepare       adds PostgreSQL and Node.js to the harness's disk
       skep-dev bench prepare-linux makes what the Linux systems here boot from
       skep-dev bench publish [TAG] writes what was recorded to docs/performance.md";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    match dispatch(&words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(words: &[String]) -> Result<ExitCode> {
    match words.split_first() {
        Some((command, parts)) if command == "build" => {
            build::build(parts)?;
            Ok(ExitCode::SUCCESS)
        }
        Some((command, flags)) if command == "run" => run::run(flags),
        Some((command, options)) if command == "test" => test::test(options),
        Some((command, words)) if command == "bench" => bench::bench(words),
        Some((command, words)) if command.starts_with("bench-") => {
            bench::called_back(command, words)
        }
        _ => bail!("{USAGE}"),
    }
}
