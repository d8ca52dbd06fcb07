//! The owner sees what programs ask of the kernel: a busybox that makes a known number of
//! calls, counted from outside.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_api::manifest::RestartPolicy;
use skep_qemu::{
    Artifacts, Machine, Node,
    api::Api,
    command::output,
    ramdisk::{Image, Ramdisk, manifest, stranger},
    seconds,
};
use std::{process::Command, thread, time::Instant};

const THREEBOT: u16 = 8080;
/// Calls of `read` and of `write` that `dd` makes, and what the whole node may make
/// beside it meanwhile.
const CALLS: u64 = 40_000;
const OTHERS: u64 = 4_000;
/// Seconds of a profile around it.
const SECONDS: u64 = 12;

fn node() -> Result<Node> {
    let image = Image::open(&Artifacts::new().shell_image())?;
    let mut ramdisk = Ramdisk::new()?;
    let count = format!("count={CALLS}");
    let words = [
        "/bin/busybox",
        "dd",
        "if=/dev/zero",
        "of=/dev/null",
        "bs=1",
        &count,
    ];
    let mut copy = manifest("copy", &image, &words);
    copy.restart.policy = RestartPolicy::Never;
    ramdisk.idle_capsule(&copy, &image)?;
    let idle = manifest("idle", &image, &["/bin/busybox", "sleep", "1000"]);
    ramdisk.capsule(&idle, &image)?;
    let path = ramdisk.write("profile")?;
    let node = Machine::new("profile").cpus(2).ramdisk(&path).start()?;
    node.api()
        .wait_capsule("idle", seconds(60), |capsule| capsule["state"] == "running")?;
    Ok(node)
}

fn number(value: &Value, path: &str) -> Result<u64> {
    let found = value.pointer(path).and_then(Value::as_u64);
    found.with_context(|| format!("no {path} in {value}"))
}

/// The call of this name in a profile.
fn call<'a>(profile: &'a Value, name: &str) -> Option<&'a Value> {
    let calls = profile["calls"].as_array()?;
    calls.iter().find(|call| call["name"] == name)
}

fn made(profile: &Value, name: &str) -> Result<u64> {
    call(profile, name).map_or(Ok(0), |call| number(call, "/made"))
}

/// Starts a profile, has `dd` run in it, and waits for its end.
fn around_dd(api: &Api, body: &Value) -> Result<Value> {
    api.command("profile", body)?;
    run_dd(api)?;
    wait_end(api)
}

fn run_dd(api: &Api) -> Result<()> {
    let before = api.last_event()?;
    api.command("capsules/copy/start", &Value::Null)?;
    let told = api.wait_events(before, "exited", Some("copy"), 1, seconds(60))?;
    let text = told.first().map(|event| event["text"].to_string());
    ensure!(
        text.as_ref()
            .is_some_and(|text| text.contains("exit code 0")),
        "dd ended otherwise: {text:?}"
    );
    Ok(())
}

fn wait_end(api: &Api) -> Result<Value> {
    let deadline = Instant::now() + seconds(SECONDS + 30);
    loop {
        let profile = api.get("profile")?["profile"].clone();
        if profile["running"] == false {
            return Ok(profile);
        }
        ensure!(Instant::now() < deadline, "it does not end: {profile}");
        thread::sleep(seconds(1));
    }
}

#[test]
fn the_owner_sees_what_a_program_asks_of_the_kernel() -> Result<()> {
    let node = node()?;
    let api = node.api();
    ensure!(
        api.get("profile")?["profile"].is_null(),
        "there is a profile that nobody asked for"
    );
    let refused = api.command_as(&stranger()?, "profile", &Value::Null)?;
    ensure!(refused.status == 401, "a stranger's: {}", refused.status);

    let body = json!({"seconds": SECONDS, "hz": 997});
    let profile = around_dd(&api, &body)?;
    for name in ["read", "write"] {
        let made = made(&profile, name)?;
        ensure!(
            (CALLS..CALLS + OTHERS).contains(&made),
            "{made} calls of {name}, of which dd's are {CALLS}"
        );
        check_times(&profile, name)?;
    }
    let (user, kernel) = (number(&profile, "/user")?, number(&profile, "/kernel")?);
    ensure!(user > 10 && kernel > 10, "{user} and {kernel} samples");
    check_what_the_owner_reads(&node)?;

    // Off again, nothing is counted, and what was counted stays.
    run_dd(&api)?;
    let later = api.get("profile")?["profile"].clone();
    ensure!(later == profile, "it went on: {later}");

    let body = json!({"seconds": SECONDS, "hz": 0, "capsule": "idle"});
    let profile = around_dd(&api, &body)?;
    let reads = made(&profile, "read")?;
    ensure!(reads < 100, "{reads} calls of read are not those of sleep");
    ensure!(profile["capsule"] == "idle" && profile["kernel"] == 0);
    Ok(())
}

/// The classes of a call's durations, its total and its longest belong together.
fn check_times(profile: &Value, name: &str) -> Result<()> {
    let call = call(profile, name).context("no such call")?;
    let classes = call["classes"].as_array().context("no classes")?;
    let returned: u64 = classes.iter().filter_map(Value::as_u64).sum();
    let made = number(call, "/made")?;
    // A thread or two of the 3Bot may be in a call.
    ensure!(
        returned <= made && returned + 16 > made,
        "{returned} of {made} calls of {name} returned"
    );
    let (total, longest) = (number(call, "/total_ns")?, number(call, "/longest_ns")?);
    let last = classes.len() as u32;
    ensure!(
        longest < 1 << last && longest >= 1 << (last - 2),
        "the longest {name} took {longest} ns, the last class is 2^{last}"
    );
    ensure!(
        total >= longest && total / returned < 1_000_000,
        "{total} ns for {returned} calls of {name}"
    );
    Ok(())
}

/// What `skep profile` prints of it, with the names of the kernel's functions.
fn check_what_the_owner_reads(node: &Node) -> Result<()> {
    let artifacts = Artifacts::new();
    let printed = output(
        Command::new(artifacts.cli())
            .args(["profile", "--last", "--top", "60"])
            .arg("--node")
            .arg(format!("http://{}", node.address(THREEBOT)))
            .arg("--symbols")
            .arg(artifacts.kernel_symbols()),
    )?;
    println!("{printed}");
    let line = |word: &str| printed.lines().find(|line| line.starts_with(word));
    ensure!(line("read ").is_some() && line("write ").is_some());
    let places: Vec<_> = printed.lines().filter(|l| l.contains(" %  ")).collect();
    ensure!(
        places.iter().any(|place| place.contains("::")) && !printed.contains(" 0x"),
        "the kernel's functions have no names: {places:?}"
    );
    Ok(())
}
