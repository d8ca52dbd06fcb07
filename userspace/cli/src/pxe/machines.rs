//! Which machine gets which configuration: the file of `skep pxe serve --machines`.

use super::dhcp::Mac;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Deserializer};
use skep_api::bundle::{BundleBuilder, BundleView, EntryKind};
use skep_api::node::{Console, ENTRY_NAME, Network, NodeConfig};
use std::fs;
use std::path::{Path, PathBuf};

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    machine: Vec<Machine>,
}

/// A machine, and what is different about it. What is not said stays as the ramdisk has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Machine {
    /// Hardware address of the port it boots from.
    #[serde(default, deserialize_with = "mac")]
    pub(crate) mac: Option<Mac>,
    /// Serial number of the system, as its firmware tells it (SMBIOS). Only iPXE says it.
    pub(crate) serial: Option<String>,
    /// Another ramdisk; a relative path begins at the folder of this file.
    pub(crate) ramdisk: Option<PathBuf>,
    name: Option<String>,
    start: Option<Vec<String>>,
    network: Option<Network>,
    vlan: Option<u16>,
    console: Option<Console>,
}

fn mac<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Mac>, D::Error> {
    let text = String::deserialize(source)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

/// Reads the file.
///
/// # Errors
/// It cannot be read or is wrong; where.
pub(crate) fn read(path: &Path) -> Result<Vec<Machine>> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let mut machines = parse(&text).with_context(|| format!("{shown} is wrong"))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    for machine in &mut machines {
        if let Some(ramdisk) = &mut machine.ramdisk {
            *ramdisk = folder.join(&ramdisk);
        }
    }
    Ok(machines)
}

fn parse(text: &str) -> Result<Vec<Machine>> {
    let file: File = toml::from_str(text)?;
    for (number, machine) in file.machine.iter().enumerate() {
        if machine.mac.is_none() && machine.serial.is_none() {
            bail!("machine {} has neither mac nor serial", number + 1);
        }
        let twice = file.machine[..number].iter().any(|other| {
            (machine.mac.is_some() && other.mac == machine.mac)
                || (machine.serial.is_some() && other.serial == machine.serial)
        });
        if twice {
            bail!("machine {} is there twice", number + 1);
        }
    }
    Ok(file.machine)
}

impl Machine {
    /// What it is called in our messages.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("a known machine")
    }

    /// Whether this is the machine with that hardware address or serial number.
    pub(crate) fn is(&self, mac: Option<Mac>, serial: Option<&str>) -> bool {
        let serial = serial.filter(|serial| !serial.is_empty());
        (self.mac.is_some() && self.mac == mac)
            || (self.serial.is_some() && self.serial.as_deref() == serial)
    }

    /// `ramdisk` with this machine's configuration.
    ///
    /// # Errors
    /// The ramdisk is none, or the configuration cannot be.
    pub(crate) fn apply(&self, ramdisk: &[u8]) -> Result<Vec<u8>> {
        let bundle = BundleView::parse(ramdisk)?;
        let mut config = NodeConfig::decode(bundle.entry(EntryKind::Node, ENTRY_NAME)?)?;
        if let Some(name) = &self.name {
            config.name.clone_from(name);
        }
        if let Some(start) = &self.start {
            config.start.clone_from(start);
        }
        if let Some(network) = &self.network {
            config.network = network.clone();
        }
        config.vlan = self.vlan.or(config.vlan);
        if let Some(console) = &self.console {
            config.console = console.clone();
        }
        let mut builder = BundleBuilder::new();
        for entry in bundle.entries() {
            let content = if (entry.kind, entry.name) == (EntryKind::Node, ENTRY_NAME) {
                config.encode()?
            } else {
                bundle.content(&entry)?.to_vec()
            };
            builder.add_entry(entry.kind, entry.name, content)?;
        }
        for (hash, _) in bundle.blobs() {
            builder.add_blob(bundle.blob(hash)?.verified_data()?.to_vec())?;
        }
        for name in config.start.iter().chain([&config.system]) {
            bundle
                .entry(EntryKind::Manifest, name)
                .with_context(|| format!("the ramdisk has no manifest of {name} to start"))?;
        }
        Ok(builder.finish()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_api::PublicKey;

    fn ramdisk() -> Vec<u8> {
        let config = NodeConfig {
            name: "node".into(),
            owner: PublicKey([7; 32]),
            system: "threebot".into(),
            start: vec![],
            network: Network::Dhcp,
            vlan: None,
            console: Console::default(),
        };
        let mut builder = BundleBuilder::new();
        let config = config.encode().unwrap();
        builder
            .add_entry(EntryKind::Node, ENTRY_NAME, config)
            .unwrap();
        for name in ["threebot", "nginx"] {
            builder
                .add_entry(EntryKind::Manifest, name, name.into())
                .unwrap();
        }
        builder.add_blob(vec![5; 40_000]).unwrap();
        builder.finish().unwrap()
    }

    fn machine(text: &str) -> Machine {
        parse(&format!("[[machine]]\n{text}")).unwrap().remove(0)
    }

    #[test]
    fn a_machine_changes_what_it_says_and_nothing_else() {
        let text = "mac = '52:54:00:12:34:56'\nname = 'kitchen'\nstart = ['nginx']\n\
                    network.static = { address = '192.0.2.5', prefix = 24 }";
        let before = ramdisk();
        let after = machine(text).apply(&before).unwrap();
        let (old, new) = (
            BundleView::parse(&before).unwrap(),
            BundleView::parse(&after).unwrap(),
        );
        let config = NodeConfig::decode(new.entry(EntryKind::Node, ENTRY_NAME).unwrap()).unwrap();
        assert_eq!(
            (config.name.as_str(), &config.start[..]),
            ("kitchen", &["nginx".into()][..])
        );
        assert!(matches!(config.network, Network::Static { prefix: 24, .. }));
        assert_eq!(
            (config.owner, config.console),
            (PublicKey([7; 32]), Console::default())
        );
        assert!(new.blobs().eq(old.blobs()));
        assert_eq!(new.entry(EntryKind::Manifest, "nginx").unwrap(), b"nginx");
        assert_eq!(machine("serial = 'x'").apply(&before).unwrap(), before);
    }

    #[test]
    fn what_cannot_be_started_is_said_before_anything_boots() {
        let error = machine("serial='x'\nstart=['other']")
            .apply(&ramdisk())
            .unwrap_err();
        assert!(
            format!("{error:#}").contains("no manifest of other"),
            "{error:#}"
        );
        assert!(
            machine("serial='x'\nname='no good'")
                .apply(&ramdisk())
                .is_err()
        );
    }

    #[test]
    fn machines_are_found_by_either_mark() {
        let both = machine("mac = '52:54:00:12:34:56'\nserial = 'S1'");
        let mac = both.mac;
        assert!(both.is(mac, None) && both.is(None, Some("S1")) && both.is(mac, Some("")));
        assert!(!both.is(None, None) && !both.is(None, Some("")) && !both.is(None, Some("S2")));
        assert!(!machine("mac = '52:54:00:12:34:56'").is(None, Some("")));
    }

    #[test]
    fn a_wrong_file_is_refused() {
        for text in [
            "[[machine]]\nname = 'x'",
            "[[machine]]\nmac = 'x'",
            "[[machine]]\nserial = 'a'\ncolour = 'red'",
            "[[machine]]\nserial = 'a'\n[[machine]]\nserial = 'a'",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("").unwrap().is_empty());
    }
}
