//! `skep bundle`: the ramdisk of a node.

use crate::image::store::{self, Store};
use crate::key;
use crate::units::show_bytes;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use skep_api::PublicKey;
use skep_api::bundle::{BundleBuilder, EntryKind};
use skep_api::manifest::{Manifest, SignedManifest};
use skep_api::node::{Console, ENTRY_NAME, Network, NodeConfig};
use skep_image::pack;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What to put together, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct BundleArgs {
    /// The node's configuration as TOML
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Owner of the node: 64 hexadecimal digits or a key file [default: as configured]
    #[arg(long, value_name = "KEY")]
    owner: Option<String>,
    /// A signed manifest (repeat or list several)
    #[arg(short, long, value_name = "FILE", num_args = 1.., required = true)]
    manifest: Vec<PathBuf>,
    /// An image; only what the manifests name is taken (repeat or list several)
    #[arg(short, long, value_name = "FOLDER", num_args = 1.., required = true)]
    image: Vec<PathBuf>,
    /// Take manifests that the node will refuse, and configured names without manifest
    #[arg(long)]
    no_check: bool,
    /// Pack the ramdisk, as 'skep image' and 'skep release' do by themselves: for loaders
    /// that read it from somewhere slow
    #[arg(long)]
    packed: bool,
    /// Where the ramdisk goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// The file `node.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeSource {
    name: String,
    owner: Option<PublicKey>,
    system: String,
    #[serde(default)]
    start: Vec<String>,
    #[serde(default)]
    network: Network,
    vlan: Option<u16>,
    #[serde(default)]
    console: Console,
}

fn read_config(path: &Path, owner: Option<&str>) -> Result<NodeConfig> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let source: NodeSource = toml::from_str(&text).with_context(|| format!("{shown} is wrong"))?;
    let owner = owner.map(key::public).transpose()?.or(source.owner);
    let config = NodeConfig {
        name: source.name,
        owner: owner.with_context(|| format!("{shown} names no owner; add one or use --owner"))?,
        system: source.system,
        start: source.start,
        network: source.network,
        vlan: source.vlan,
        console: source.console,
    };
    config
        .validate()
        .with_context(|| format!("{shown} is wrong"))?;
    Ok(config)
}

/// Bundles.
pub(crate) fn run(args: &BundleArgs) -> Result<()> {
    let config = read_config(&args.config, args.owner.as_deref())?;
    let stores: Vec<Store> = args
        .image
        .iter()
        .map(|path| Store::open(path))
        .collect::<Result<_>>()?;
    let mut builder = BundleBuilder::new();
    builder.add_entry(EntryKind::Node, ENTRY_NAME, config.encode()?)?;
    let mut names = Vec::new();
    for path in &args.manifest {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let manifest = match (check(&bytes, &config), args.no_check) {
            (Ok(manifest), _) => Some(manifest),
            (Err(_), true) => claimed(&bytes),
            (Err(error), false) => return Err(error.context(format!("{}", path.display()))),
        };
        let stem = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        let name = manifest
            .as_ref()
            .map(|manifest| manifest.name.clone())
            .or(stem);
        let name = name.with_context(|| format!("{} has no name", path.display()))?;
        if names.contains(&name) {
            bail!("two manifests are called {name}; leave one out");
        }
        builder.add_entry(EntryKind::Manifest, &name, bytes)?;
        if let Some(manifest) = manifest {
            add_blobs(&mut builder, &stores, &manifest, args.no_check)?;
        }
        names.push(name);
    }
    if !args.no_check {
        let wanted = config.start.iter().chain([&config.system]);
        if let Some(name) = wanted.into_iter().find(|name| !names.contains(name)) {
            bail!("the configuration starts {name}, which has no manifest; add it with --manifest");
        }
    }
    let mut bytes = builder.finish()?;
    if args.packed {
        bytes = pack::pack(&bytes)?.into_owned();
    }
    fs::write(&args.output, &bytes)
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    eprintln!(
        "{}: {} ({})",
        args.output.display(),
        names.join(", "),
        show_bytes(bytes.len() as u64)
    );
    Ok(())
}

/// The manifest, if the node will take it today.
fn check(bytes: &[u8], config: &NodeConfig) -> Result<Manifest> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    Ok(SignedManifest::decode(bytes)?.verify(&[config.owner], now)?)
}

/// What a manifest claims that the node will refuse.
fn claimed(bytes: &[u8]) -> Option<Manifest> {
    SignedManifest::decode(bytes)
        .ok()?
        .payload_unverified()
        .ok()
}

fn add_blobs(
    builder: &mut BundleBuilder,
    stores: &[Store],
    manifest: &Manifest,
    no_check: bool,
) -> Result<()> {
    if builder.has_blob(manifest.tree) {
        return Ok(());
    }
    match store::collect(stores, manifest.tree)? {
        Some(blobs) => {
            for (hash, content) in blobs {
                if !builder.has_blob(hash) {
                    builder.add_blob(content)?;
                }
            }
            Ok(())
        }
        None if no_check => Ok(()),
        None => bail!(
            "{} is signed for the image {}, which is not among --image; sign or pack again",
            manifest.name,
            manifest.tree
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_have_defaults_and_no_unknown_keys() {
        let parse = |text: &str| toml::from_str::<NodeSource>(text);
        let least = parse("name = 'a'\nsystem = 'b'").unwrap();
        assert_eq!(
            (least.network, least.console),
            (Network::Dhcp, Console::default())
        );
        let text = "name='a'\nsystem='b'\nconsole.screen=false\n[network.static]\n\
                    address='192.0.2.10'\nprefix=24";
        let fixed = parse(text).unwrap();
        assert_eq!(
            fixed.console,
            Console {
                screen: false,
                ..Console::default()
            }
        );
        let Network::Static {
            address,
            gateway,
            dns,
            ..
        } = fixed.network
        else {
            panic!()
        };
        assert_eq!(
            (address, gateway, dns),
            ([192, 0, 2, 10].into(), None, vec![])
        );
        assert!(parse("name='a'\nsystem='b'\nstrat=[]").is_err());
        assert!(parse("name='a'\nsystem='b'\nconsole.colour=true").is_err());
        assert!(parse(&format!("{text}\ngatway='192.0.2.1'")).is_err());
    }
}
