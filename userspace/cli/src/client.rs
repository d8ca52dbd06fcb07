//! The commands that talk to a running node.

mod connection;
mod enrol;
mod hardware;
mod identity;
mod nodes;
mod profile;
mod show;
mod symbols;
mod update;

use crate::manifest::signal;
use anyhow::{Context, Result};
use connection::Connection;
pub(crate) use enrol::{EnrolArgs, run as enrol};
pub(crate) use identity::{IdentityArgs, run as identity};
pub(crate) use profile::{ProfileArgs, run as profile};
use serde::Deserialize;
use show::{Capsule, Events, Status, plain};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

pub(crate) use update::{InstallArgs, UpdateArgs, install, slots, update};

/// How often `--follow` asks again.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(250);

/// Which node, and who asks.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    /// Address of the node's 3Bot, or the name that 'skep enrol' has given it
    #[arg(
        long,
        value_name = "URL or NAME",
        env = "SKEP_NODE",
        default_value = "http://127.0.0.1:8080"
    )]
    node: String,
    /// The node's own name; part of what is signed, so that no other node can use it [default:
    /// the enrolled node's, or 'node']
    #[arg(long, value_name = "NAME", env = "SKEP_NODE_NAME")]
    node_name: Option<String>,
    /// The owner's secret key; only commands that change something need it
    #[arg(
        short,
        long,
        value_name = "FILE",
        env = "SKEP_KEY",
        default_value = "owner.key"
    )]
    key: PathBuf,
    /// Print the node's answer as JSON
    #[arg(long)]
    json: bool,
}

/// `skep status`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Show how long each step of the node's boot took instead
    #[arg(long)]
    boot: bool,
    /// Show what the machine is made of instead
    #[arg(long, conflicts_with = "boot")]
    hardware: bool,
}

/// A capsule of a node.
#[derive(Debug, clap::Args)]
pub(crate) struct CapsuleArgs {
    /// Name of the capsule
    #[arg(value_name = "NAME", value_parser = capsule_name)]
    name: String,
    #[command(flatten)]
    node: NodeArgs,
}

/// `skep logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    capsule: CapsuleArgs,
    /// Keep printing what is added
    #[arg(short, long)]
    follow: bool,
}

/// `skep events`.
#[derive(Debug, clap::Args)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Keep printing what happens
    #[arg(short, long)]
    follow: bool,
}

/// `skep kill`.
#[derive(Debug, clap::Args)]
pub(crate) struct KillArgs {
    #[command(flatten)]
    capsule: CapsuleArgs,
    /// Signal, as number or name
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = signal_number)]
    signal: u8,
    /// Send it to every process, not only to the first one
    #[arg(long)]
    all: bool,
}

fn capsule_name(text: &str) -> Result<String, String> {
    match skep_api::manifest::is_capsule_name(text) {
        true => Ok(text.into()),
        false => Err("a capsule's name is lower-case letters, digits and '-'".into()),
    }
}

fn signal_number(text: &str) -> Result<u8, String> {
    signal(text).map_err(|error| error.to_string())
}

impl NodeArgs {
    /// To the node that is meant. Of one that was enrolled with a lasting key a proof is asked
    /// for first.
    fn connect(&self) -> Result<Connection> {
        let name = self.node_name.as_deref();
        if self.node.contains("://") {
            return Connection::new(&self.node, name.unwrap_or("node"), &self.key);
        }
        let known = nodes::find(&self.node)?;
        let connection = Connection::new(&known.url, name.unwrap_or(&known.node), &self.key)?;
        if let Some(id) = &known.id {
            identity::ask(&connection, Some(id)).with_context(|| {
                format!("'{}' is not what was enrolled by that name", self.node)
            })?;
        }
        Ok(connection)
    }
}

/// `skep status`.
pub(crate) fn status(args: &StatusArgs) -> Result<()> {
    let path = match args.hardware {
        true => "/api/v1/hardware",
        false => "/api/v1/status",
    };
    let text = args.node.connect()?.get(path)?;
    if args.node.json {
        println!("{text}");
    } else if args.hardware {
        print!("{}", hardware::show(&parse(&text)?));
    } else {
        let status: Status = parse(&text)?;
        print!(
            "{}",
            match args.boot {
                true => show::boot(&status),
                false => show::status(&status),
            }
        );
    }
    Ok(())
}

/// `skep logs`.
pub(crate) fn logs(args: &LogsArgs) -> Result<()> {
    #[derive(Deserialize)]
    struct Page {
        from: u64,
        next: u64,
        end: u64,
        text: String,
    }
    let connection = args.capsule.node.connect()?;
    let name = &args.capsule.name;
    let mut from = 0;
    loop {
        let answer = connection.get(&format!("/api/v1/capsules/{name}/logs?from={from}"))?;
        let page: Page = parse(&answer)?;
        if args.capsule.node.json {
            println!("{answer}");
        } else {
            if page.from > from && from > 0 {
                eprintln!("skep: {} bytes of the log were lost", page.from - from);
            }
            print!("{}", plain(&page.text));
        }
        // A node that makes no progress must not keep us busy.
        let more = page.next < page.end && page.next > from;
        from = page.next;
        if !more {
            if !args.follow {
                return Ok(());
            }
            thread::sleep(FOLLOW_INTERVAL);
        }
    }
}

/// `skep events`.
pub(crate) fn events(args: &EventsArgs) -> Result<()> {
    let connection = args.node.connect()?;
    let mut after = 0;
    loop {
        let answer = connection.get(&format!("/api/v1/events?after={after}"))?;
        let events: Events = parse(&answer)?;
        if args.node.json {
            println!("{answer}");
        } else {
            print!("{}", show::events(&events));
        }
        if !args.follow {
            return Ok(());
        }
        after = events.last;
        thread::sleep(FOLLOW_INTERVAL);
    }
}

/// `skep kill`.
pub(crate) fn kill(args: &KillArgs) -> Result<()> {
    let scope = if args.all { "all" } else { "init" };
    let body = serde_json::json!({ "signal": args.signal, "scope": scope }).to_string();
    let name = &args.capsule.name;
    let path = format!("/api/v1/capsules/{name}/kill");
    let answer = args.capsule.node.connect()?.post(&path, &body)?;
    if args.capsule.node.json {
        println!("{answer}");
    } else {
        println!("signal {} sent to {name}", args.signal);
    }
    Ok(())
}

/// `skep start`, `skep stop` and `skep restart`: `action` is that word.
pub(crate) fn change(args: &CapsuleArgs, action: &str) -> Result<()> {
    let path = format!("/api/v1/capsules/{}/{action}", args.name);
    let answer = args.node.connect()?.post(&path, "")?;
    if args.node.json {
        println!("{answer}");
    } else {
        let capsule: Capsule = parse(&answer)?;
        println!("{} is {}", plain(&capsule.name), plain(&capsule.state));
    }
    Ok(())
}

fn parse<'a, T: Deserialize<'a>>(answer: &'a str) -> Result<T> {
    serde_json::from_str(answer)
        .context("the node's answer is not understood; use the skep that belongs to it")
}
