//! `skep profile`: what programs ask of a node's kernel, and where it spends its time.

use super::symbols::Symbols;
use super::{NodeArgs, capsule_name, parse, show::plain};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, thread};

/// Calls and functions that are printed unless more are asked for.
const TOP: usize = 25;
/// Characters of a function's name that are printed.
const NAME_WIDTH: usize = 100;
/// How long after its time a profile is given up that does not end.
const GRACE: u32 = 10;

/// `skep profile`.
#[derive(Debug, clap::Args)]
pub(crate) struct ProfileArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// How long
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    seconds: u16,
    /// Samples a second of each busy CPU; 0 for none
    #[arg(long, value_name = "HZ", default_value_t = 199)]
    hz: u16,
    /// Count only the system calls of this capsule
    #[arg(short, long, value_name = "NAME", value_parser = capsule_name)]
    capsule: Option<String>,
    /// The kernel with its symbols (skep-kernel.debug), to name its functions
    #[arg(long, value_name = "FILE", env = "SKEP_SYMBOLS")]
    symbols: Option<PathBuf>,
    /// Show what the profile has that runs or was the last, and start none (not signed)
    #[arg(long)]
    last: bool,
    /// Most calls and functions to print
    #[arg(long, value_name = "N", default_value_t = TOP)]
    top: usize,
}

#[derive(Debug, Deserialize)]
struct Answer {
    profile: Option<Profile>,
}

#[derive(Debug, Deserialize)]
struct Profile {
    running: bool,
    lasted_ms: u64,
    capsule: Option<String>,
    calls: Vec<Call>,
    calls_left_out: u32,
    hz: u16,
    user: u64,
    kernel: u64,
    lost: u64,
    places: Vec<(u32, u32)>,
}

#[derive(Debug, Deserialize)]
struct Call {
    number: u16,
    name: String,
    made: u64,
    failed: u64,
    total_ns: u64,
    longest_ns: u64,
    classes: Vec<u32>,
}

/// `skep profile`.
pub(crate) fn run(args: &ProfileArgs) -> Result<()> {
    let symbols = args.symbols.as_deref().map(read_symbols).transpose()?;
    let connection = args.node.connect()?;
    if !args.last {
        let body = serde_json::json!({
            "seconds": args.seconds, "hz": args.hz, "capsule": args.capsule,
        });
        connection.post("/api/v1/profile", &body.to_string())?;
        eprintln!("skep: counting for {} s ...", args.seconds);
        thread::sleep(Duration::from_secs(args.seconds.into()));
    }
    let mut waited = 0;
    loop {
        let answer = connection.get("/api/v1/profile")?;
        let profile: Answer = parse(&answer)?;
        let ends = profile.profile.as_ref().is_some_and(|p| p.running) && !args.last;
        if ends && waited < GRACE {
            waited += 1;
            thread::sleep(Duration::from_secs(1));
            continue;
        }
        if args.node.json {
            println!("{answer}");
        } else {
            match &profile.profile {
                Some(profile) => print!("{}", show(profile, symbols.as_ref(), args.top)),
                None => println!("nothing was profiled since the node's boot"),
            }
        }
        return Ok(());
    }
}

fn read_symbols(path: &Path) -> Result<Symbols> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Symbols::read(&bytes).with_context(|| format!("no symbols in {}", path.display()))
}

fn show(profile: &Profile, symbols: Option<&Symbols>, top: usize) -> String {
    let mut out = String::new();
    let whose = profile.capsule.as_deref().map_or("the node".into(), plain);
    let so_far = if profile.running { " so far" } else { "" };
    let seconds = profile.lasted_ms as f64 / 1000.0;
    let _ = writeln!(out, "profile of {whose}, {seconds:.1} s{so_far}\n");
    show_calls(&mut out, profile, top);
    show_places(&mut out, profile, symbols, top);
    out
}

fn show_calls(out: &mut String, profile: &Profile, top: usize) {
    let _ = writeln!(
        out,
        "{:<18} {:>10} {:>8} {:>11} {:>10} {:>10} {:>10} {:>10}",
        "system call", "made", "failed", "total ms", "mean us", "50 % <", "99 % <", "longest"
    );
    for call in profile.calls.iter().take(top) {
        let name = match call.name.as_str() {
            "" => call.number.to_string(),
            name => plain(name),
        };
        let returned: u64 = call.classes.iter().map(|n| u64::from(*n)).sum();
        let mean = call.total_ns as f64 / returned.max(1) as f64;
        let _ = writeln!(
            out,
            "{name:<18} {:>10} {:>8} {:>11.3} {:>10.2} {:>10.2} {:>10.2} {:>10.2}",
            call.made,
            call.failed,
            call.total_ns as f64 / 1e6,
            mean / 1e3,
            below(&call.classes, 0.50) / 1e3,
            below(&call.classes, 0.99) / 1e3,
            call.longest_ns as f64 / 1e3,
        );
    }
    let more = profile.calls.len().saturating_sub(top) as u64 + u64::from(profile.calls_left_out);
    if more > 0 {
        let _ = writeln!(out, "and {more} more");
    }
}

/// A bound in nanoseconds below which this part of the durations lies: the end of the class
/// where it is reached.
fn below(classes: &[u32], part: f64) -> f64 {
    let all: f64 = classes.iter().map(|n| f64::from(*n)).sum();
    let mut sum = 0.0;
    let class = classes.iter().position(|n| {
        sum += f64::from(*n);
        sum >= all * part
    });
    class.map_or(0.0, |class| 2f64.powi(class as i32))
}

fn show_places(out: &mut String, profile: &Profile, symbols: Option<&Symbols>, top: usize) {
    let all = profile.user + profile.kernel;
    if all == 0 {
        return;
    }
    let percent = |n: u64| 100.0 * n as f64 / all as f64;
    let _ = writeln!(
        out,
        "\n{all} samples of busy CPUs at {} Hz: {:.1} % in programs, {:.1} % in the kernel",
        profile.hz,
        percent(profile.user),
        percent(profile.kernel)
    );
    let none = Symbols::default();
    let folded = symbols.unwrap_or(&none).fold(&profile.places);
    for (name, count) in folded.iter().take(top) {
        let name: String = name.chars().take(NAME_WIDTH).collect();
        let _ = writeln!(out, "{:>6.2} %  {name}", percent(*count));
    }
    if profile.lost > 0 {
        let _ = writeln!(
            out,
            "{:>6.2} %  (places without room)",
            percent(profile.lost)
        );
    }
    if symbols.is_none() && !folded.is_empty() {
        let _ = writeln!(out, "--symbols FILE names these places");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_durations_lie_below_the_end_of_a_class() {
        let bound = |classes: &[u32], part| below(classes, part) as u64;
        assert_eq!(bound(&[0, 0, 0, 10], 0.5), 8);
        assert_eq!(bound(&[5, 0, 4, 1], 0.5), 1);
        assert_eq!(bound(&[5, 0, 4, 1], 0.9), 4);
        assert_eq!(bound(&[5, 0, 4, 1], 0.99), 8);
        assert_eq!(bound(&[], 0.5), 0);
    }

    #[test]
    fn a_profile_is_shown_with_all_that_it_has() {
        let answer = r#"{"profile": {"running": false, "began_uptime_ms": 5, "lasted_ms": 2000,
            "capsule": "web", "calls": [{"number": 39, "name": "getpid", "made": 1000,
            "failed": 0, "total_ns": 100000, "longest_ns": 4000, "classes": [0,0,0,0,0,0,0,1000]},
            {"number": 500, "name": "", "made": 1, "failed": 1, "total_ns": 1, "longest_ns": 1,
            "classes": [0,1]}], "calls_left_out": 2, "hz": 100, "user": 30, "kernel": 10,
            "lost": 1, "places": [[256, 9]]}}"#;
        let answer: Answer = serde_json::from_str(answer).expect("fits");
        let text = show(&answer.profile.expect("there is one"), None, 1);
        let getpid = "getpid                   1000        0       0.100       0.10       0.13";
        for part in [
            "profile of web, 2.0 s\n",
            getpid,
            "and 3 more",
            "40 samples of busy CPUs at 100 Hz: 75.0 % in programs, 25.0 % in the kernel",
            " 22.50 %  0x100",
            "--symbols",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
    }
}
