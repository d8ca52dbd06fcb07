//! The node's status for whoever stands before the machine or at its serial line.
//!
//! It says nothing that changes from second to second, so that a screen is drawn
//! again only when something has happened.

use crate::capsule::Capsule;
use crate::control::KERNEL;
use crate::room::Capsules;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::Ordering::Relaxed;
use machine::klog;
use machine::time::Instant;
use skep_api::control::{CapsuleHealth, CapsuleState, ExitStatus};
use skep_api::identity::Kept;

/// Columns that are left for text beside the code.
const COLUMNS: usize = 78;
/// Last messages that are shown.
const MESSAGES_SHOWN: usize = 8;
/// Bytes of the log that are looked at for them.
const LOG_TAIL: usize = 2048;
/// The port of the 3Bot's API and status page.
const API_PORT: u16 = 8080;

/// What the screen shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusPage {
    /// What the node is and how it is.
    pub head: Vec<String>,
    /// A line for each capsule.
    pub capsules: Vec<String>,
    /// The last messages, oldest first.
    pub messages: Vec<String>,
    /// The node's enrolment code: the address of its status page, and behind a `#` the node ID,
    /// if it has one. `skep enrol` checks it. Empty while the node has no address.
    pub code: String,
}

impl Capsules {
    /// The status; `None` before the 3Bot has begun: until then the messages say more.
    #[must_use]
    pub fn status_page(&self) -> Option<StatusPage> {
        if self.agent_starts.load(Relaxed) == 0 || !self.hub.has_listener() {
            return None;
        }
        let url = self.url();
        Some(StatusPage {
            head: self.head(&url),
            capsules: self.list_capsules(),
            messages: last_messages(),
            code: self.code(url),
        })
    }

    fn head(&self, url: &str) -> Vec<String> {
        let addresses = self.addresses();
        let address = match addresses.is_empty() {
            true => String::from("none yet"),
            false => addresses.join("  "),
        };
        let frames = machine::frame::stats();
        let mib = (frames.total * machine::addr::PAGE_SIZE) >> 20;
        let cpus = machine::cpu::count();
        let plural = if cpus == 1 { "" } else { "s" };
        let page = if url.is_empty() { "none yet" } else { url };
        let mut lines = Vec::from([
            String::new(),
            format!(" {}   {KERNEL}", self.config.name),
            String::new(),
            format!(" Node ID    {}", self.node_id()),
            format!(" Address    {address}"),
            format!(" Status at  {page}"),
            format!(" Machine    {cpus} CPU{plural}, {mib} MiB of memory"),
            format!(" Clock      {}", clock(machine::time::wall())),
            format!(" Up         {}", uptime(Instant::now())),
        ]);
        lines.extend(self.disk_health().map(|told| format!(" Disks      {told}")));
        if let Some(info) = self.guard.as_ref().and_then(|g| g.info()) {
            let fed = info.withheld.unwrap_or_else(|| String::from("all is well"));
            lines.push(format!(" Watchdog   {}: {fed}", info.device));
        }
        if let Some(record) = self.platform.crash() {
            let (id, reason) = (record.id, cut(&record.reason));
            lines.push(format!(" Crash      {id:08x} {reason}"));
        }
        lines
    }

    /// Of the disks that tell of themselves: who fails, how warm they are.
    fn disk_health(&self) -> Option<String> {
        let told = self
            .disks
            .health()
            .into_iter()
            .filter_map(|(name, health)| {
                let words = match (health.is_failing, health.temperature) {
                    (true, _) => String::from("fails"),
                    (false, Some(degrees)) => format!("{degrees} °C"),
                    (false, None) => return None,
                };
                Some(format!("{name} {words}"))
            });
        let told: Vec<String> = told.collect();
        (!told.is_empty()).then(|| cut(&told.join("  ")))
    }

    fn list_capsules(&self) -> Vec<String> {
        let all = self.all();
        let mut others: Vec<&Arc<Capsule>> = all.iter().filter(|c| !c.is_system()).collect();
        others.sort_unstable_by_key(|c| String::from(c.name()));
        if others.is_empty() {
            return Vec::from([String::from("   none")]);
        }
        let line = |capsule: &&Arc<Capsule>| {
            let summary = capsule.summary();
            let mut state = state(&summary.state);
            if summary.state == CapsuleState::Running {
                let since = Instant(summary.started_ns);
                let ns = Instant::now().since(since).as_nanos();
                let time = uptime(Instant(u64::try_from(ns).unwrap_or(u64::MAX)));
                let health = match capsule.health() {
                    CapsuleHealth::Unknown => "",
                    CapsuleHealth::Starting => ", not ready yet",
                    CapsuleHealth::Ready => ", ready",
                    CapsuleHealth::Failing => ", its probe fails",
                };
                let _ = write!(state, " for {time}{health}");
            }
            format!("   {:<20} {state}", capsule.name())
        };
        others.iter().map(line).collect()
    }

    fn url(&self) -> String {
        let config = self.net.config();
        match &config.v4 {
            Some(v4) => {
                let text = v4.to_string();
                let address = text.split('/').next().unwrap_or_default();
                format!("http://{address}:{API_PORT}/")
            }
            None => String::new(),
        }
    }

    fn code(&self, url: String) -> String {
        match self.platform.identity() {
            Some(identity) if !url.is_empty() => format!("{url}#{}", identity.id()),
            _ => url,
        }
    }

    /// The name of the node's key, and how long that lasts.
    fn node_id(&self) -> String {
        let Some(identity) = self.platform.identity() else {
            return String::from("none");
        };
        match identity.kept {
            Kept::Boot => format!("{} (for this boot only)", identity.id()),
            Kept::Image | Kept::Owner => identity.id(),
        }
    }
}

/// In minutes, hours or days.
fn uptime(now: Instant) -> String {
    let minutes = now.0 / 60_000_000_000;
    match minutes {
        0 => String::from("under a minute"),
        1..60 => format!("{minutes} min"),
        60..1440 => format!("{} h {:02} min", minutes / 60, minutes % 60),
        _ => format!("{} days {} h", minutes / 1440, minutes / 60 % 24),
    }
}

/// A time in nanoseconds since 1970 as a date in UTC, to the minute.
fn clock(wall_ns: i64) -> String {
    /// The first second of 2025: a clock before it was never set.
    const SENSIBLE: i64 = 1_735_689_600;
    let seconds = wall_ns.div_euclid(1_000_000_000);
    if seconds < SENSIBLE {
        return String::from("not set");
    }
    let (days, minutes) = (seconds / 86_400, seconds / 60 % 1440);
    let (year, month, day) = date(days);
    let (hour, minute) = (minutes / 60, minutes % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// The Gregorian date of a day counted from 1970-01-01. Years are counted from March, so
/// that the leap day is a year's last, in cycles of 400.
fn date(days: i64) -> (i64, i64, i64) {
    const CYCLE: i64 = 146_097;
    // From 0000-03-01 on.
    let days = days + 719_468;
    let (cycle, day) = (days.div_euclid(CYCLE), days.rem_euclid(CYCLE));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..10 => (year, month + 3),
        _ => (year + 1, month - 9),
    };
    (400 * cycle + year, month, day)
}

fn state(state: &CapsuleState) -> String {
    match state {
        CapsuleState::Created => String::from("starting"),
        CapsuleState::Running => String::from("running"),
        CapsuleState::Stopping => String::from("stopping"),
        CapsuleState::Exited(exit) => match exit.status {
            ExitStatus::Code(code) => format!("ended with code {code}"),
            ExitStatus::Signal(signal) => format!("ended by signal {signal}"),
        },
        CapsuleState::Refused(why) => format!("refused: {}", crate::verify::words(why)),
    }
}

fn cut(line: &str) -> String {
    line.chars().take(COLUMNS).collect()
}

/// The end of the log, line by line.
fn last_messages() -> Vec<String> {
    let mut tail = [0; LOG_TAIL];
    let from = klog::written().saturating_sub(LOG_TAIL as u64);
    let (start, n) = klog::read(from, &mut tail);
    let text = String::from_utf8_lossy(tail.get(..n).unwrap_or_default());
    // The first line may have lost its beginning.
    let whole = if start > 0 { 1 } else { 0 };
    let lines: Vec<String> = text.lines().skip(whole).map(cut).collect();
    let first = lines.len().saturating_sub(MESSAGES_SHOWN);
    lines.into_iter().skip(first).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptimes_change_once_a_minute_at_most() {
        let at = |s: u64| uptime(Instant(s * 1_000_000_000));
        assert_eq!(at(59), "under a minute");
        assert_eq!(at(61), at(119));
        assert_eq!(at(3_661), "1 h 01 min");
        assert_eq!(at(200_000), "2 days 7 h");
    }

    #[test]
    fn the_clock_shows_dates_that_are_sensible() {
        assert_eq!(clock(0), "not set");
        let at = |seconds: i64| clock(seconds * 1_000_000_000);
        assert_eq!(at(1_735_689_600), "2025-01-01 00:00 UTC");
        assert_eq!(at(1_835_478_479), "2028-02-29 23:07 UTC");
        assert_eq!(at(1_835_483_160), "2028-03-01 00:26 UTC");
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(-1), (1969, 12, 31));
        assert_eq!(date(47_541), (2100, 3, 1));
    }

    #[test]
    fn long_messages_are_cut() {
        assert_eq!(cut(&"x".repeat(500)).len(), COLUMNS);
    }
}
