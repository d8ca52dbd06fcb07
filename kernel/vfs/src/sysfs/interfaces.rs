//! `/sys/class/net`: the network's interfaces (Linux's
//! `Documentation/ABI/testing/sysfs-class-net`).

use crate::pseudo::{Content, PseudoFs, StaticDir};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// An interface, as the network room supplies it.
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What is told of it, by name of the file.
    pub files: Vec<(&'static str, Arc<dyn Content>)>,
}

/// Adds them. To a capsule they are as those of a container: devices of nothing it sees.
pub(super) fn add(interfaces: Vec<Interface>, fs: &PseudoFs, root: &StaticDir) {
    root.add_at(fs, "class/net", fs.dir());
    for Interface { name, files } in interfaces {
        let place = format!("devices/virtual/net/{name}");
        for (file, content) in files {
            root.add_at(fs, &format!("{place}/{file}"), fs.file(0o444, content));
        }
        let link = fs.link(&format!("../../{place}"));
        root.add_at(fs, &format!("class/net/{name}"), link);
    }
}
