//! `skep update` and `skep slots`: the releases on a node's boot disk.

use super::connection::Connection;
use super::{NodeArgs, parse, plain};
use crate::units::show_bytes;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use skep_api::boot::Release;
use skep_api::boot::release::{HEAD_AT, HEAD_END};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of one request: what a node takes at a time.
const PIECE_BYTES: u64 = 512 * 1024;

/// `skep update`.
#[derive(Debug, clap::Args)]
pub(crate) struct UpdateArgs {
    /// The release to send
    #[arg(value_name = "FILE")]
    release: PathBuf,
    /// Leave the restart, which tries the new release, to another time
    #[arg(long)]
    no_restart: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// A node's answer about its slots.
#[derive(Debug, Deserialize)]
struct Slots {
    running: String,
    version: u64,
    slots: Vec<Slot>,
    update: Option<Progress>,
}

#[derive(Debug, Deserialize)]
struct Slot {
    name: String,
    status: String,
    tries_left: u8,
    version: u64,
}

#[derive(Debug, Deserialize)]
struct Progress {
    checked: u64,
    total: u64,
}

/// `skep slots`.
pub(crate) fn slots(args: &NodeArgs) -> Result<()> {
    let text = args.connect()?.get("/api/v1/node/slots")?;
    if args.json {
        println!("{text}");
    } else {
        print!("{}", show(&parse(&text)?));
    }
    Ok(())
}

fn show(slots: &Slots) -> String {
    let mut text = String::new();
    for slot in &slots.slots {
        let what = match slot.status.as_str() {
            "empty" => "empty".to_owned(),
            "trying" => format!(
                "release {}, new, {} tries left",
                slot.version, slot.tries_left
            ),
            status => format!("release {}, {}", slot.version, plain(status)),
        };
        let runs = match slot.name == slots.running {
            true => "  (runs)",
            false => "",
        };
        text += &format!("slot {}: {what}{runs}\n", plain(&slot.name));
    }
    text
}

/// `skep update`.
pub(crate) fn update(args: &UpdateArgs) -> Result<()> {
    let (file, head, release) = open(&args.release)?;
    let connection = args.node.connect()?;
    // Before anything is sent: the node would refuse a release of another key too.
    let running: Slots = parse(&connection.get("/api/v1/node/slots")?)?;
    let post = |step: &str, body: &[u8]| {
        connection.post_bytes(&format!("/api/v1/node/update/{step}"), body)
    };
    post("begin", &head)?;
    send(&connection, &file, release.len)?;
    loop {
        let answer: Slots = parse(&post("check", b"")?)?;
        let Some(progress) = answer.update else {
            bail!("the node has given the update up");
        };
        report("checked", progress.checked, progress.total);
        if progress.checked == progress.total {
            break;
        }
    }
    let answer = post("finish", b"")?;
    if args.node.json {
        println!("{answer}");
    }
    let version = release.version;
    if args.no_restart {
        eprintln!("release {version} is tried at the next start of the node");
        return Ok(());
    }
    connection.post_bytes("/api/v1/node/reboot", b"")?;
    eprintln!(
        "the node restarts with release {version}; if that is not healthy within {} s, release {} comes back",
        release.health_seconds, running.version
    );
    Ok(())
}

/// The file, its head, and what that says.
fn open(path: &Path) -> Result<(File, Vec<u8>, Release)> {
    let cannot = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    let mut head = vec![0; HEAD_END - HEAD_AT];
    let bytes = file.metadata().with_context(cannot)?.len();
    if bytes >= HEAD_END as u64 {
        file.read_exact_at(&mut head, HEAD_AT as u64)
            .with_context(cannot)?;
    }
    let release = Release::decode(&head)
        .and_then(|release| Release::verify(&head, &release.key))
        .with_context(|| format!("{} is not a release", path.display()))?;
    if release.len != bytes {
        bail!("{} is cut short or has something behind it", path.display());
    }
    Ok((file, head, release))
}

fn send(connection: &Connection, file: &File, len: u64) -> Result<()> {
    let mut offset = 0;
    let mut piece = vec![0; usize::try_from(PIECE_BYTES)?];
    while offset < len {
        let count = usize::try_from((len - offset).min(PIECE_BYTES))?;
        file.read_exact_at(&mut piece[..count], offset)?;
        let path = format!("/api/v1/node/update/write?offset={offset}");
        connection.post_bytes(&path, &piece[..count])?;
        offset += count as u64;
        report("sent", offset, len);
    }
    Ok(())
}

/// `skep install`.
#[derive(Debug, clap::Args)]
pub(crate) struct InstallArgs {
    /// The disk to install to, as the node calls it, such as vdb or nvme0n1
    #[arg(value_name = "DISK")]
    disk: String,
    /// Yes, everything on it may be erased
    #[arg(long)]
    erase: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// `skep install`.
pub(crate) fn install(args: &InstallArgs) -> Result<()> {
    #[derive(Deserialize)]
    struct Part {
        done: u64,
        total: u64,
    }
    if !args.erase {
        bail!(
            "everything on disk {} of the node would be erased; say --erase if that is what you want",
            args.disk
        );
    }
    let connection = args.node.connect()?;
    let body = serde_json::json!({ "disk": args.disk }).to_string();
    connection.post("/api/v1/node/install/begin", &body)?;
    loop {
        let part: Part = parse(&connection.post("/api/v1/node/install/step", "")?)?;
        report("installed", part.done, part.total);
        if part.done == part.total {
            break;
        }
    }
    eprintln!(
        "installed to {}; take out what the node was started from and restart it",
        args.disk
    );
    Ok(())
}

/// Shows how far it is, where somebody watches.
fn report(what: &str, done: u64, all: u64) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let end = if done == all { "\n" } else { "" };
        let (done, all) = (show_bytes(done), show_bytes(all));
        // A terminal that cannot be written to is no reason to stop.
        let _ = write!(terminal, "\r{what} {done} of {all}    {end}");
    }
}

#[cfg(test)]
mod tests {
    use super::{Slots, show};

    #[test]
    fn slots_are_told_in_words() {
        let answer = r#"{"running":"B","version":3,"release_key":"","update":null,"slots":[
            {"name":"A","status":"good","tries_left":0,"version":2},
            {"name":"B","status":"trying","tries_left":1,"version":3}]}"#;
        let slots: Slots = serde_json::from_str(answer).unwrap();
        assert_eq!(
            show(&slots),
            "slot A: release 2, good\nslot B: release 3, new, 1 tries left  (runs)\n"
        );
    }
}
