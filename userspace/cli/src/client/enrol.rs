//! `skep enrol`: makes a node one of the owner's own list, once it has proven that it is the
//! one whose screen the owner has before him, and that it obeys him.

use super::connection::Connection;
use super::identity::{self, Proof};
use super::nodes::{self, Known};
use super::parse;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use skep_api::identity::{Kept, node_id};
use skep_api::manifest::is_capsule_name;
use std::path::PathBuf;

/// `skep enrol`.
#[derive(Debug, clap::Args)]
pub(crate) struct EnrolArgs {
    /// Enrolment code: what the QR code on the node's screen says, its address and behind a #
    /// its node ID
    #[arg(value_name = "http://ADDRESS:PORT/#NODE-ID")]
    code: String,
    /// Name for the node in your list [default: the node's own]
    #[arg(long)]
    name: Option<String>,
    /// The owner's secret key
    #[arg(
        short,
        long,
        value_name = "FILE",
        env = "SKEP_KEY",
        default_value = "owner.key"
    )]
    key: PathBuf,
}

pub(crate) fn run(args: &EnrolArgs) -> Result<()> {
    let (url, id) = parts(&args.code)?;
    let (proof, own) = meet(&Connection::new(url, "", &args.key)?, id)?;
    // Whoever answers here instead of the node learns nothing: what is signed names this node
    // and one challenge, and changes nothing.
    let key = args.key.display();
    let connection = Connection::new(url, &own, &args.key)?;
    let obeys = connection.post("/api/v1/owner", "");
    obeys.with_context(|| format!("node '{own}', asked whether it obeys {key}"))?;
    let lasts = proof.kept != Kept::Boot;
    let known = Known {
        url: url.to_owned(),
        node: own.clone(),
        id: lasts.then(|| node_id(&proof.key)),
    };
    let name = args.name.as_deref().unwrap_or(&own);
    let list = nodes::add(name, known)?;
    println!("node '{own}' is {id} and obeys {key}");
    if !lasts {
        println!("its key is for this boot only: later commands cannot tell it from another node");
    }
    println!("use it by --node {name}; it is in {}", list.display());
    Ok(())
}

/// The node's proof that it has this ID, and its own name.
fn meet(stranger: &Connection, id: &str) -> Result<(Proof, String)> {
    #[derive(Deserialize)]
    struct Node {
        name: String,
    }
    let proof = identity::ask(stranger, Some(id))?;
    let answer = stranger.get("/api/v1/node")?;
    let node: Node = parse(&answer)?;
    ensure!(
        is_capsule_name(&node.name),
        "the node's name is malformed; use the skep that belongs to it"
    );
    Ok((proof, node.name))
}

/// Address and node ID of a code.
fn parts(code: &str) -> Result<(&str, &str)> {
    let parts = code.split_once('#').filter(|(_, id)| !id.is_empty());
    let (url, id) = parts.context(
        "the code has no node ID; take it from the node's screen: http://ADDRESS:PORT/#NODE-ID",
    )?;
    Ok((url.trim_end_matches('/'), id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_an_address_and_an_id() {
        let whole = parts("http://10.0.2.15:8080/#8386-b964-61ab-e607-bd83").unwrap();
        assert_eq!(whole, ("http://10.0.2.15:8080", "8386-b964-61ab-e607-bd83"));
        for bad in ["", "http://10.0.2.15:8080", "http://10.0.2.15:8080/#"] {
            assert!(parts(bad).is_err(), "{bad}");
        }
    }
}
