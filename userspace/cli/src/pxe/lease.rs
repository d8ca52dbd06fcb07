//! Addresses to give away, where no other DHCP server does.

use super::dhcp::Mac;
use anyhow::{Context, Result, ensure};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// How long a machine may keep an address without asking again.
pub(crate) const LEASE: Duration = Duration::from_secs(3600);
/// Addresses in a pool at most, which bounds what strangers can make us remember.
const POOL_MAX: u32 = 4096;

/// A range of addresses, and who has which.
#[derive(Debug)]
pub(crate) struct Pool {
    range: RangeInclusive<u32>,
    leases: HashMap<Ipv4Addr, Lease>,
}

#[derive(Debug)]
struct Lease {
    /// `None`: somebody has it without having asked us.
    holder: Option<Mac>,
    until: Instant,
}

impl Pool {
    /// The pool of a range such as `192.168.1.100-192.168.1.199`.
    ///
    /// # Errors
    /// It is no such range, or too long, or holds `server`, our own address.
    pub(crate) fn parse(text: &str, server: Ipv4Addr) -> Result<Self> {
        let wrong = || format!("{text:?} is no range such as 192.168.1.100-192.168.1.199");
        let (first, last) = text.split_once('-').with_context(wrong)?;
        let number = |text: &str| text.trim().parse().map(|a: Ipv4Addr| u32::from(a));
        let first: u32 = number(first).with_context(wrong)?;
        let last: u32 = number(last).with_context(wrong)?;
        ensure!(first <= last, wrong());
        ensure!(
            last - first < POOL_MAX,
            "{text}: at most {POOL_MAX} addresses can be given"
        );
        let range = first..=last;
        ensure!(
            !range.contains(&server.into()),
            "{text} holds this machine's own address {server}; leave it out"
        );
        Ok(Self {
            range,
            leases: HashMap::new(),
        })
    }

    /// The address that `mac` gets when it asks at `now`: the one it has, else the one
    /// it wants if that is free, else any that is; `None` when all are taken.
    pub(crate) fn offer(
        &mut self,
        mac: Mac,
        wanted: Option<Ipv4Addr>,
        now: Instant,
    ) -> Option<Ipv4Addr> {
        let held = self.leases.iter().find(|(_, l)| l.holder == Some(mac));
        let held = held.map(|(address, _)| *address);
        let address = held
            .or(wanted.filter(|address| self.is_free(*address, now)))
            .or_else(|| {
                let mut all = self.range.clone().map(Ipv4Addr::from);
                all.find(|address| self.is_free(*address, now))
            })?;
        self.keep(address, Some(mac), now);
        Some(address)
    }

    /// Whether `mac` may have `address` from `now` on; then it has.
    pub(crate) fn take(&mut self, mac: Mac, address: Ipv4Addr, now: Instant) -> bool {
        let held = self.leases.get(&address);
        let mine = held.is_some_and(|lease| lease.holder == Some(mac));
        let granted = mine || self.is_free(address, now);
        if granted {
            self.leases.retain(|_, lease| lease.holder != Some(mac));
            self.keep(address, Some(mac), now);
        }
        granted
    }

    /// `mac` found somebody else at `address`, which nobody gets for a while.
    pub(crate) fn decline(&mut self, mac: Mac, address: Ipv4Addr, now: Instant) {
        let held = self.leases.get(&address);
        if held.is_some_and(|lease| lease.holder == Some(mac)) {
            self.keep(address, None, now);
        }
    }

    /// `mac` needs its address no more.
    pub(crate) fn release(&mut self, mac: Mac) {
        self.leases.retain(|_, lease| lease.holder != Some(mac));
    }

    fn is_free(&self, address: Ipv4Addr, now: Instant) -> bool {
        let lease = self.leases.get(&address);
        self.range.contains(&address.into()) && lease.is_none_or(|lease| lease.until <= now)
    }

    fn keep(&mut self, address: Ipv4Addr, holder: Option<Mac>, now: Instant) {
        let until = now + LEASE;
        self.leases.insert(address, Lease { holder, until });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn mac(last: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, last])
    }

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    #[test]
    fn a_machine_keeps_its_address_and_nobody_gets_anothers() {
        let mut pool = Pool::parse("10.0.0.10-10.0.0.11", SERVER).unwrap();
        let now = Instant::now();
        assert_eq!(
            pool.offer(mac(1), Some(address(11)), now),
            Some(address(11))
        );
        assert_eq!(
            pool.offer(mac(2), Some(address(11)), now),
            Some(address(10))
        );
        assert_eq!(pool.offer(mac(1), None, now), Some(address(11)));
        assert_eq!(pool.offer(mac(3), None, now), None);
        assert!(pool.take(mac(1), address(11), now));
        assert!(!pool.take(mac(3), address(11), now));
        assert!(!pool.take(mac(3), address(99), now), "not of the pool");
        assert_eq!(pool.offer(mac(3), None, now + LEASE), Some(address(10)));
    }

    #[test]
    fn addresses_that_are_in_use_or_given_back() {
        let mut pool = Pool::parse("10.0.0.10-10.0.0.11", SERVER).unwrap();
        let now = Instant::now();
        assert_eq!(pool.offer(mac(1), None, now), Some(address(10)));
        pool.decline(mac(2), address(10), now);
        assert_eq!(
            pool.offer(mac(1), None, now),
            Some(address(10)),
            "not its own"
        );
        pool.decline(mac(1), address(10), now);
        assert_eq!(pool.offer(mac(1), None, now), Some(address(11)));
        pool.release(mac(1));
        assert_eq!(pool.offer(mac(2), None, now), Some(address(11)));
    }

    #[test]
    fn ranges_that_are_none() {
        for text in [
            "",
            "10.0.0.9",
            "10.0.0.9-10.0.0.8",
            "10.0.0.0-10.0.0.9",
            "10.0.0.2-10.1.0.2",
        ] {
            assert!(Pool::parse(text, SERVER).is_err(), "{text}");
        }
    }
}
