//! Devices that fail, disks in the hands of capsules, and a cable that is pulled.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_qemu::{
    Bus, Machine, Visitor, command,
    disks::{
        a_while, broken_disk, data, disk_image, ensure_durable, error, run_beside_nginx, scripted,
        start_with_nginx, throttle, tools,
    },
    http,
    machine::escape,
    node::TempFolder,
    ramdisk::{Image, Ramdisk, standard_manifest},
    seconds,
};
use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

const NGINX: u16 = 8081;
/// Name of the network device in the machine.
const CABLE: &str = "net0-device";
/// How long the cable is out.
const OUT: Duration = seconds(3);

/// Pulls the cable while a client downloads: nothing comes meanwhile, the download
/// goes on when it is back and gives the same bytes, and the node tells of both.
#[test]
fn a_pulled_cable() -> Result<()> {
    let file: Vec<u8> = (0..16_000_000u32)
        .map(|n| (n >> 8) as u8 ^ n as u8)
        .collect();
    let image = Image::nginx()?.with_files(&[("/var/www/html/download", 0o644, &file)])?;
    let mut ramdisk = Ramdisk::new()?;
    ramdisk.capsule(&standard_manifest("nginx", &image)?, &image)?;
    let path = ramdisk.write("devices-cable")?;
    let mut node = Machine::new("devices-cable").ramdisk(&path).start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    node.wait_http(8080, "/", seconds(30))?;
    let before = node.api().last_event()?;
    let address = node.address(NGINX);
    let download = thread::spawn(move || http::get(address, "/download", seconds(120)));
    thread::sleep(Duration::from_millis(30));
    node.qmp().set_link(CABLE, false)?;
    ensure!(
        node.get(NGINX, "/", OUT).is_err(),
        "a page came through a pulled cable"
    );
    node.qmp().set_link(CABLE, true)?;
    node.wait_http(NGINX, "/", seconds(30))?;
    let got = download.join().expect("the client does not panic")?;
    ensure!(got.body == file, "other bytes");
    let told = node
        .api()
        .wait_events(before, "device", None, 2, seconds(10))?;
    println!("told: {told:?}");
    let restarts = node.api().capsule("nginx")?["restarts"].clone();
    ensure!(restarts == 0, "nginx was restarted because of the cable");
    Ok(())
}

/// A virtio console shows the log from its first line on, as the serial line does.
#[test]
fn a_second_console() -> Result<()> {
    let folder = TempFolder::new()?;
    let shown = folder.path().join("console");
    let file = format!("file,id=second,path={}", escape(&shown));
    let mut node = Machine::new("devices-console")
        .option("-chardev", &file)
        .option("-device", "virtio-serial-pci")
        .option("-device", "virtconsole,chardev=second")
        .start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    let last = "nginx: ready";
    let serial = node.wait_serial(last, seconds(30))?;
    let deadline = Instant::now() + seconds(10);
    let second = loop {
        let second = String::from_utf8_lossy(&fs::read(&shown)?).into_owned();
        if second.contains(last) {
            break second;
        }
        ensure!(
            Instant::now() < deadline,
            "the second console shows {second:?}"
        );
        thread::sleep(Duration::from_millis(50));
    };
    let lines = |text: &str| {
        text.lines()
            .map(|l| l.trim_end().to_string())
            .collect::<Vec<_>>()
    };
    let (serial, second) = (lines(&serial), lines(&second));
    let end = second.iter().position(|line| line.contains(last));
    for line in &second[..end.context("no last line")?] {
        ensure!(
            serial.contains(line),
            "only the second console shows {line:?}"
        );
    }
    ensure!(end > Some(5), "the second console shows only {second:?}");
    Ok(())
}

/// Programs of Debian and a load on a disk: they see it as on Linux, and what they
/// made durable is in the host's file.
#[test]
fn a_disk_for_a_capsule() -> Result<()> {
    let folder = TempFolder::new()?;
    let (file, other) = (disk_image(&folder, "a")?, disk_image(&folder, "b")?);
    let image = tools()?;
    let script = include_str!("scripts/disk-tools.sh");
    let time = a_while().to_string();
    let tools = scripted(
        "tools",
        &image,
        script,
        &[&time, "vda", "vdb"],
        &["vda", "vdb"],
    );
    let machine = Machine::new("devices-disk");
    let machine = machine.disk("d0", &file).disk("d1", &other);
    let mut node = start_with_nginx(machine, &image, &[], &[&tools])?;
    let log = run_beside_nginx(&node, "tools", seconds(180))?;
    for line in [
        "device: block special file fe:0 0 660",
        "bytes: 33554432",
        "sectors: 65536 65536",
        "blocks: 512 512 0",
        "partitions: 254 0 32768 vda 254 16 32768 vdb",
        "dd: error reading '/dev/vda': Invalid argument",
        "dd: error writing '/dev/vda': No space left on device",
    ] {
        ensure!(
            log.lines().any(|said| said.trim() == line),
            "{line:?} is missing: {log}"
        );
    }
    node.shut_down(seconds(60))?;
    let bytes = fs::read(&file)?;
    ensure_durable(&log, &bytes)?;
    let data = data();
    let line = log.lines().find_map(|line| line.strip_prefix("checksum: "));
    let copy = folder.path().join("data");
    fs::write(&copy, &data)?;
    let sum = command::output(Command::new("sha256sum").arg(&copy))?;
    let sum = sum.split(' ').next().unwrap_or_default();
    ensure!(
        line.is_some_and(|line| line.starts_with(sum)),
        "not {sum}: {log}"
    );
    let places = [
        ("whole", 8 << 20),
        ("direct", 24 << 20),
        ("crooked", 16_777_300),
    ];
    for (name, start) in places {
        let len = if name == "direct" {
            1 << 20
        } else {
            data.len()
        };
        let same = bytes[start..start + len] == data[..len];
        ensure!(same, "the {name} copy in the image differs");
    }
    Ok(())
}

/// Meets the errors of [`a_disk_with_errors`].
const ERRORS: &str = "disk load /dev/vda $1 & load=$!
        disk expect /dev/vda read 10485760 always || exit 11
        disk expect /dev/vda write 12582912 always || exit 12
        disk expect /dev/vda read 14680064 once || exit 13
        disk expect /dev/vda write 16777216 once || exit 14
        disk expect /dev/vdb flush 4096 once || exit 15
        disk expect /dev/vdc flush 4096 always || exit 16
        good=$(dd if=/dev/vda bs=1M count=1 iflag=skip_bytes skip=10420224 2>/dev/null | wc -c)
        echo \"good before the bad: $good\"
        dd if=/dev/zero of=/dev/vdc count=1 conv=notrunc,fsync
        sync --file-system /dev/vda && exit 18
        sync || exit 19
        wait $load || exit 17";

/// A disk that fails at some places, once or always: the program gets EIO there and
/// right bytes everywhere else, while the disk is under load and nginx serves.
#[test]
fn a_disk_with_errors() -> Result<()> {
    let folder = TempFolder::new()?;
    let files = ["a", "b", "c"].map(|name| disk_image(&folder, name));
    let [a, b, c] = files;
    let (a, b, c) = (a?, b?, c?);
    let image = tools()?;
    let time = a_while().to_string();
    let devices = ["vda", "vdb", "vdc"];
    let capsule = scripted("load", &image, ERRORS, &[&time], &devices);
    let places = json!([
        error("read", Some(10 << 20), false),
        error("write", Some(12 << 20), false),
        error("read", Some(14 << 20), true),
        error("write", Some(16 << 20), true),
    ]);
    let machine = broken_disk(
        Machine::new("devices-errors"),
        Bus::Virtio,
        "d0",
        &a,
        &places,
    );
    let machine = broken_disk(
        machine,
        Bus::Virtio,
        "d1",
        &b,
        &json!([error("flush", None, true)]),
    );
    let machine = broken_disk(
        machine,
        Bus::Virtio,
        "d2",
        &c,
        &json!([error("flush", None, false)]),
    );
    let mut node = start_with_nginx(machine, &image, &[], &[&capsule])?;
    let before = node.api().last_event()?;
    let log = run_beside_nginx(&node, "load", seconds(180))?;
    ensure!(log.contains("good before the bad: 65536"), "{log}");
    ensure!(
        log.contains("fsync failed for '/dev/vdc': Input/output error"),
        "{log}"
    );
    let told = node
        .api()
        .wait_events(before, "device", None, 2, seconds(10))?;
    println!("told: {told:?}");
    let says = |what: &str| told.iter().any(|event| event["text"] == what);
    ensure!(says("vda: reading at sector 20480 failed"), "{told:?}");
    ensure!(says("vdb: flushing failed"), "{told:?}");
    ensure!(
        log.contains("error syncing '/dev/vda': Input/output error"),
        "{log}"
    );
    node.shut_down(seconds(60))?;
    let last_words = "vdc: flushing before the end: the device reports a failure";
    ensure!(
        node.serial().contains(last_words),
        "it went down without flushing"
    );
    ensure_durable(&log, &fs::read(&a)?)
}

/// A disk that stops answering: requests under way end with EIO, nothing hangs, the
/// disk works again when it answers again, and all of it is told.
#[test]
fn a_disk_that_does_not_answer() -> Result<()> {
    let folder = TempFolder::new()?;
    let file = disk_image(&folder, "a")?;
    let image = tools()?;
    let script = "exec disk watch /dev/vda 600";
    let capsule = scripted("watch", &image, script, &[], &["vda"]);
    let machine = Machine::new("devices-silent").disk("d0", &file);
    let mut node = start_with_nginx(machine, &image, &[&capsule], &[])?;
    let api = node.api();
    let before = api.last_event()?;
    let wait = |words: &[&str]| -> Result<String> {
        let deadline = std::time::Instant::now() + seconds(90);
        loop {
            let log = api.log("watch")?;
            let said: Vec<&str> = log.lines().collect();
            let fits = |(said, word): (&&str, &&str)| said.starts_with(word);
            if said.len() >= words.len() && said.iter().zip(words).all(fits) {
                return Ok(log);
            }
            ensure!(std::time::Instant::now() < deadline, "not {words:?}: {log}");
            thread::sleep(Duration::from_millis(100));
        }
    };
    wait(&["works"])?;
    let visitor = Visitor::start(node.address(NGINX), "/");
    throttle(&mut node, "d0", 1)?;
    let log = wait(&["works", "EIO"])?;
    throttle(&mut node, "d0", 0)?;
    visitor
        .finish()
        .expect_all_served("nginx beside the disk", 5)?;
    let ms = log.lines().nth(1).and_then(|line| line.split(' ').nth(2));
    let ms: u64 = ms.context("no time")?.parse()?;
    println!("EIO after {ms} ms");
    ensure!(ms < 20_000, "EIO came after {ms} ms only");
    let deadline = std::time::Instant::now() + seconds(90);
    while api.log("watch")?.lines().last() != Some("works") {
        ensure!(std::time::Instant::now() < deadline, "it never works again");
        thread::sleep(Duration::from_millis(100));
    }
    let told = api.wait_events(before, "device", None, 1, seconds(10))?;
    let text = told[0]["text"].as_str().unwrap_or_default();
    ensure!(text == "vda: it did not answer and was reset", "{told:?}");
    api.command("capsules/watch/stop", &Value::Null)?;
    api.wait_capsule("watch", seconds(30), |c| c["state"] == "stopped")?;
    node.shut_down(seconds(60))
}

/// A disk is its holder's alone: others do not see it, cannot make a way to it and
/// cannot be started with it; when the holder is gone the next may have it.
#[test]
fn a_disk_has_one_holder() -> Result<()> {
    const OUTSIDER: &str = "exec 2>&1
        [ ! -e /dev/vda ] || exit 11
        [ -z \"$(cat /proc/partitions)\" ] || exit 12
        [ -z \"$(ls /sys/block)\" ] || exit 13
        mknod /tmp/disk b 254 0 && exit 14
        mknod /dev/vda b 254 0 && exit 15
        exit 0";
    let folder = TempFolder::new()?;
    let file = disk_image(&folder, "a")?;
    let image = tools()?;
    let write = "echo a message > /dev/vda && exec sleep 1000";
    let holder = scripted("holder", &image, write, &[], &["vda"]);
    let outsider = scripted("outsider", &image, OUTSIDER, &[], &[]);
    let next = scripted("next", &image, "head -n 1 /dev/vda", &[], &["vda"]);
    let dreamer = scripted("dreamer", &image, "exit 0", &[], &["vdq"]);
    let machine = Machine::new("devices-holder").disk("d0", &file);
    let idle = [&next, &dreamer];
    let node = start_with_nginx(machine, &image, &[&holder, &outsider], &idle)?;
    let api = node.api();
    let how = api.wait_finished("outsider", seconds(60))?;
    ensure!(how == "exit code 0", "{how}: {}", api.log("outsider")?);
    api.wait_capsule("holder", seconds(30), |c| c["state"] == "running")?;
    for (name, why) in [
        ("next", "device vda is held by the capsule holder"),
        ("dreamer", "this node has no device vdq to give"),
    ] {
        let _ = api.command(&format!("capsules/{name}/start"), &Value::Null);
        let refused = api.wait_capsule(name, seconds(30), |c| c["state"] == "refused")?;
        ensure!(
            refused["reason"].as_str().is_some_and(|r| r.contains(why)),
            "{refused}"
        );
    }
    api.command("capsules/holder/stop", &Value::Null)?;
    api.wait_capsule("holder", seconds(30), |c| c["state"] == "stopped")?;
    api.command("capsules/next/start", &Value::Null)?;
    let how = api.wait_finished("next", seconds(30))?;
    let said = api.log("next")?;
    ensure!(
        how == "exit code 0" && said == "a message\n",
        "{how}: {said}"
    );
    Ok(())
}
