//! The owner's list of nodes: which name means which address and which node.
//!
//! `nodes.toml` in the folder `skep` of the user's configuration (`$XDG_CONFIG_HOME`, or
//! `~/.config`), or the file that `SKEP_NODES` names:
//!
//! ```toml
//! [attic]
//! url = "http://192.168.1.20:8080"
//! node = "node"                     # the node's own name
//! id = "8386-b964-61ab-e607-bd83"   # absent if the node's key is for one boot only
//! ```

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs, process};

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Known {
    /// Where its 3Bot answers.
    pub(super) url: String,
    /// Its own name, which is part of what is signed.
    pub(super) node: String,
    /// Its node ID, if that outlives its boots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
}

/// The nodes by their names.
type List = BTreeMap<String, Known>;

/// The file, whether it is there or not.
fn path() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(file) = set("SKEP_NODES") {
        return Ok(file.into());
    }
    let folder = set("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(set("HOME")?).join(".config")));
    let folder = folder.context("there is no home folder; name the list of nodes by SKEP_NODES")?;
    Ok(folder.join("skep/nodes.toml"))
}

fn read(path: &Path) -> Result<List> {
    match fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text)
            .with_context(|| format!("{} is no list of nodes; mend or remove it", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(List::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The node of this name.
///
/// # Errors
/// There is none, or the list cannot be read.
pub(super) fn find(name: &str) -> Result<Known> {
    let path = path()?;
    let list = read(&path)?;
    match list.get(name) {
        Some(known) => Ok(known.clone()),
        None => bail!(
            "no node '{name}' is known; write its address as http://ADDRESS:PORT, or enrol it: \
             skep enrol 'http://ADDRESS:PORT/#NODE-ID'"
        ),
    }
}

/// Adds a node, in place of one that had its name; where the list is.
///
/// # Errors
/// The list cannot be read or written.
pub(super) fn add(name: &str, known: Known) -> Result<PathBuf> {
    let path = path()?;
    let mut list = read(&path)?;
    list.insert(name.to_owned(), known);
    write(&path, &list).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// In one step, so that a list is never cut short.
fn write(path: &Path, list: &List) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension(format!("toml.{}", process::id()));
    fs::write(&new, toml::to_string(list)?)?;
    fs::rename(&new, path)?;
    Ok(())
}
