//! `skep identity`: a node proves that it has the key it says it has.

use super::connection::Connection;
use super::show::plain;
use super::{NodeArgs, parse};
use crate::key;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use skep_api::identity::{Kept, is_proof, node_id};
use skep_api::{PublicKey, Signature};

/// `skep identity`.
#[derive(Debug, clap::Args)]
pub(crate) struct IdentityArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Fail unless it is this node, by its ID or its whole key
    #[arg(long, value_name = "ID")]
    expect: Option<String>,
    /// Have the TPM keep the key of this boot, instead of one that it does not give out any
    /// more (signed)
    #[arg(long)]
    keep: bool,
}

/// The node's answer.
#[derive(Debug, Deserialize)]
pub(super) struct Proof {
    pub(super) key: PublicKey,
    pub(super) kept: Kept,
    problem: Option<String>,
    signature: String,
    /// As it came.
    #[serde(skip)]
    answer: String,
}

pub(crate) fn run(args: &IdentityArgs) -> Result<()> {
    let connection = args.node.connect()?;
    if args.keep {
        connection.post("/api/v1/node/identity/keep", "")?;
    }
    let proof = ask(&connection, args.expect.as_deref())?;
    match args.node.json {
        true => println!("{}", proof.answer),
        false => print!("{}", show(&proof)),
    }
    Ok(())
}

/// Has the node prove its key, and that it is the expected one.
pub(super) fn ask(connection: &Connection, expected: Option<&str>) -> Result<Proof> {
    let challenge = key::random_seed()?;
    // The text form of 32 bytes is that of a key.
    let digits = PublicKey(challenge).to_string();
    let answer = connection.get(&format!("/api/v1/identity?challenge={digits}"))?;
    let proof: Proof = parse(&answer)?;
    check(&proof, &challenge, expected)?;
    Ok(Proof { answer, ..proof })
}

/// Whether it is proven, and who was expected.
fn check(proof: &Proof, challenge: &[u8], expected: Option<&str>) -> Result<()> {
    let signature: Signature = proof
        .signature
        .parse()
        .context("the node's signature is malformed")?;
    ensure!(
        is_proof(&proof.key, challenge, &signature),
        "the node does not have the key that it shows: somebody is between you and it, or it lies"
    );
    let (id, whole) = (node_id(&proof.key), proof.key.to_string());
    let is_expected = expected.is_none_or(|name| name == id || name == whole);
    ensure!(
        is_expected,
        "this is node {id}, and not the one that you expect"
    );
    Ok(())
}

fn show(proof: &Proof) -> String {
    let kept = match proof.kept {
        Kept::Boot => "for this boot only",
        Kept::Image => "by the TPM, for this image",
        Kept::Owner => "by the TPM, for every release of its owner",
    };
    let mut out = format!("node ID   {}\n", node_id(&proof.key));
    out += &format!("key       {}\n", proof.key);
    out += &format!("kept      {kept}\n");
    if let Some(problem) = &proof.problem {
        out += &format!("problem   {}\n", plain(problem));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_api::{KeyPair, identity::prove};

    #[test]
    fn only_the_node_itself_passes() {
        let [node, other] = [1, 2].map(|n| KeyPair::from_seed([n; 32]).unwrap());
        let answer = |pair: &KeyPair, challenge: &[u8]| Proof {
            key: node.public(),
            kept: Kept::Boot,
            problem: None,
            signature: prove(pair, challenge).to_string(),
            answer: String::new(),
        };
        let good = answer(&node, &[7; 32]);
        let id = node_id(&node.public());
        assert!(check(&good, &[7; 32], None).is_ok());
        assert!(check(&good, &[7; 32], Some(&id)).is_ok());
        assert!(check(&good, &[7; 32], Some(&node.public().to_string())).is_ok());
        assert!(check(&good, &[7; 32], Some(&node_id(&other.public()))).is_err());
        assert!(check(&good, &[8; 32], None).is_err());
        assert!(check(&answer(&other, &[7; 32]), &[7; 32], None).is_err());
        assert!(show(&good).contains(&id));
    }
}
