//! What the person at the keyboard sees of each client.

use super::files::Release;
use super::{Clients, Mac};
use crate::units::show_bytes;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Time between two reports of one client's progress.
const PAUSE: Duration = Duration::from_secs(1);
/// Clients whose last report is kept in mind.
const REPORTS_MAX: usize = 4096;

/// Hears what happens to clients.
pub(crate) trait Watch {
    /// Something happened.
    fn note(&self, client: IpAddr, words: &str);
    /// So many bytes of something have been given.
    fn progress(&self, client: IpAddr, what: &str, bytes: u64);
    /// All of it has.
    fn done(&self, client: IpAddr, what: &str, bytes: u64);
    /// A machine asked by DHCP, which has no address yet.
    fn asked(&self, mac: Mac, words: &str);
}

/// Lines on standard error.
pub(crate) struct Console {
    clients: Rc<Clients>,
    release: Rc<Release>,
    reported: RefCell<HashMap<IpAddr, Instant>>,
}

impl Console {
    /// Names clients as `clients` and `release` know them.
    pub(crate) fn new(clients: Rc<Clients>, release: Rc<Release>) -> Self {
        Self {
            clients,
            release,
            reported: RefCell::default(),
        }
    }

    fn say(&self, mac: Option<Mac>, other: &str, words: &str) {
        let who = mac.map_or_else(|| other.to_string(), |mac| mac.to_string());
        let name = &self.release.profile(mac, None).name;
        // A terminal that is gone is no reason to stop serving.
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("{who} ({name}): {words}\n"),
        );
    }
}

impl Watch for Console {
    fn note(&self, client: IpAddr, words: &str) {
        self.say(self.clients.mac(client), &client.to_string(), words);
    }

    fn progress(&self, client: IpAddr, what: &str, bytes: u64) {
        let now = Instant::now();
        let mut reported = self.reported.borrow_mut();
        let last = reported.get(&client);
        if last.is_some_and(|last| now.duration_since(*last) < PAUSE) {
            return;
        }
        if reported.len() >= REPORTS_MAX {
            reported.clear();
        }
        // A short transfer is told once, at its end.
        if reported.insert(client, now).is_some() {
            drop(reported);
            self.note(client, &format!("{what}: {}", show_bytes(bytes)));
        }
    }

    fn done(&self, client: IpAddr, what: &str, bytes: u64) {
        self.note(client, &format!("{what}: all {}", show_bytes(bytes)));
    }

    fn asked(&self, mac: Mac, words: &str) {
        self.say(Some(mac), "", words);
    }
}

/// Nobody watches.
#[cfg(test)]
pub(crate) struct Quiet;

#[cfg(test)]
impl Watch for Quiet {
    fn note(&self, _: IpAddr, _: &str) {}
    fn progress(&self, _: IpAddr, _: &str, _: u64) {}
    fn done(&self, _: IpAddr, _: &str, _: u64) {}
    fn asked(&self, _: Mac, _: &str) {}
}
