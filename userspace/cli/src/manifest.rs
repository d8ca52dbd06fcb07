//! The manifest as its author writes it: TOML with units and defaults.

use crate::units;
use anyhow::{Context, Result};
use serde::{Deserialize, Deserializer};
use skep_api::Hash;
use skep_api::manifest::{
    Check, Limits, Manifest, Outbound, Port, Probe, Probes, Protocol, Restart, RestartPolicy, Stop,
    Validity,
};
use std::collections::BTreeMap;

/// The file `manifest.toml`. What is absent has the default of [`Manifest`]'s parts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ManifestSource {
    name: String,
    sequence: Option<u64>,
    command: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    working_directory: Option<String>,
    #[serde(default)]
    user: u32,
    #[serde(default)]
    group: u32,
    #[serde(default)]
    limits: LimitsSource,
    #[serde(default)]
    ports: Vec<PortSource>,
    #[serde(default)]
    outbound: Outbound,
    #[serde(default)]
    probes: ProbesSource,
    #[serde(default)]
    restart: RestartSource,
    #[serde(default)]
    stop: StopSource,
    #[serde(default)]
    start_after: Vec<String>,
    #[serde(default)]
    system: bool,
    #[serde(default)]
    devices: Vec<String>,
    #[serde(default)]
    raw_network: bool,
    #[serde(default)]
    validity: ValiditySource,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsSource {
    memory: Option<Bytes>,
    cpu_share: Option<u32>,
    cpu_quota_percent: Option<u32>,
    processes: Option<u32>,
    files: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortSource {
    capsule: u16,
    node: Option<u16>,
    protocol: Option<Protocol>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProbesSource {
    startup: Option<ProbeSource>,
    liveness: Option<ProbeSource>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProbeSource {
    exec: Option<Vec<String>>,
    tcp: Option<u16>,
    http: Option<HttpSource>,
    interval: Option<Time>,
    timeout: Option<Time>,
    failures: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpSource {
    port: u16,
    path: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RestartSource {
    policy: Option<RestartPolicy>,
    backoff_initial: Option<Time>,
    backoff_max: Option<Time>,
    crash_window: Option<Time>,
    crash_limit: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StopSource {
    signal: Option<SignalSource>,
    grace: Option<Time>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum SignalSource {
    Number(u8),
    Name(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ValiditySource {
    valid_from: Option<Moment>,
    not_after: Option<Moment>,
}

/// Bytes, as a number or as text with a unit.
#[derive(Debug)]
struct Bytes(u64);

/// Milliseconds, as text with a unit.
#[derive(Debug)]
struct Time(u32);

/// Seconds since 1970, as a number or as a TOML date and time with its offset.
#[derive(Debug)]
struct Moment(u64);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(bytes) => Ok(Self(bytes)),
            Either::Text(text) => units::bytes(&text)
                .map(Self)
                .map_err(serde::de::Error::custom),
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        units::milliseconds(&text)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Seconds(u64),
            Date(toml::value::Datetime),
        }
        match Either::deserialize(deserializer)? {
            Either::Seconds(seconds) => Ok(Self(seconds)),
            Either::Date(date) => unix_seconds(&date).map(Self).ok_or_else(|| {
                serde::de::Error::custom(
                    "needs date, time and offset, such as 2027-01-31T12:00:00Z",
                )
            }),
        }
    }
}

/// Seconds since 1970 of a date and time with offset.
fn unix_seconds(moment: &toml::value::Datetime) -> Option<u64> {
    let (date, time) = (moment.date?, moment.time?);
    let offset_minutes = match moment.offset? {
        toml::value::Offset::Z => 0,
        toml::value::Offset::Custom { minutes } => i64::from(minutes),
    };
    // Years that begin in March have their leap day at the end.
    let (year, month) = (i64::from(date.year), i64::from(date.month));
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + i64::from(date.day)
        - 1
        - 719_468;
    let second = i64::from(time.second.unwrap_or(0));
    let minutes = i64::from(time.hour) * 60 + i64::from(time.minute) - offset_minutes;
    u64::try_from(days * 86_400 + minutes * 60 + second).ok()
}

/// Signals that people ask programs to end with.
const SIGNALS: [(&str, u8); 8] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("KILL", 9),
    ("USR1", 10),
    ("USR2", 12),
    ("TERM", 15),
    ("WINCH", 28),
];

/// The Linux number of a signal: `15`, `TERM` or `SIGTERM`.
pub(crate) fn signal(name: &str) -> Result<u8> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let found = SIGNALS.iter().find(|(name, _)| *name == bare);
    let known = || {
        let names: Vec<&str> = SIGNALS.iter().map(|(name, _)| *name).collect();
        format!(
            "unknown signal '{name}'; use a number or one of {}",
            names.join(", ")
        )
    };
    found.map(|(_, number)| *number).with_context(known)
}

impl ManifestSource {
    /// Reads the file's text.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    /// The manifest for the image `tree`. `now` numbers it when the file does not.
    pub(crate) fn build(self, tree: Hash, now: u64) -> Result<Manifest> {
        let limits = Limits::default();
        let restart = Restart::default();
        let stop = Stop::default();
        let time = |value: Option<Time>, default| value.map_or(default, |time| time.0);
        let port = |port: PortSource| Port {
            capsule: port.capsule,
            node: port.node.unwrap_or(port.capsule),
            protocol: port.protocol.unwrap_or(Protocol::Tcp),
        };
        let stop_signal = match self.stop.signal {
            None => stop.signal,
            Some(SignalSource::Number(number)) => number,
            Some(SignalSource::Name(name)) => signal(&name).context("stop.signal")?,
        };
        let manifest = Manifest {
            name: self.name,
            sequence: self.sequence.unwrap_or(now),
            tree,
            command: self.command,
            environment: self.environment.into_iter().collect(),
            working_directory: self.working_directory.unwrap_or_else(|| "/".into()),
            user: self.user,
            group: self.group,
            limits: Limits {
                memory_bytes: self
                    .limits
                    .memory
                    .map_or(limits.memory_bytes, |bytes| bytes.0),
                cpu_share: self.limits.cpu_share.unwrap_or(limits.cpu_share),
                cpu_quota_percent: self.limits.cpu_quota_percent,
                processes: self.limits.processes.unwrap_or(limits.processes),
                files: self.limits.files.unwrap_or(limits.files),
            },
            ports: self.ports.into_iter().map(port).collect(),
            outbound: self.outbound,
            probes: Probes {
                startup: self.probes.startup.map(ProbeSource::build).transpose()?,
                liveness: self.probes.liveness.map(ProbeSource::build).transpose()?,
            },
            restart: Restart {
                policy: self.restart.policy.unwrap_or(restart.policy),
                backoff_initial_ms: time(self.restart.backoff_initial, restart.backoff_initial_ms),
                backoff_max_ms: time(self.restart.backoff_max, restart.backoff_max_ms),
                crash_window_ms: time(self.restart.crash_window, restart.crash_window_ms),
                crash_limit: self.restart.crash_limit.unwrap_or(restart.crash_limit),
            },
            stop: Stop {
                signal: stop_signal,
                grace_ms: time(self.stop.grace, stop.grace_ms),
            },
            start_after: self.start_after,
            system: self.system,
            validity: Validity {
                valid_from: self.validity.valid_from.map(|moment| moment.0),
                not_after: self.validity.not_after.map(|moment| moment.0),
            },
            devices: self.devices,
            raw_network: self.raw_network,
        };
        manifest.validate()?;
        Ok(manifest)
    }
}

impl ProbeSource {
    fn build(self) -> Result<Probe> {
        let check = match (self.exec, self.tcp, self.http) {
            (Some(command), None, None) => Check::Exec(command),
            (None, Some(port), None) => Check::Tcp(port),
            (None, None, Some(http)) => Check::Http {
                port: http.port,
                path: http.path.unwrap_or_else(|| "/".into()),
            },
            _ => anyhow::bail!("a probe needs exactly one of exec, tcp and http"),
        };
        Ok(Probe {
            check,
            interval_ms: self.interval.map_or(2000, |time| time.0),
            timeout_ms: self.timeout.map_or(1000, |time| time.0),
            failure_threshold: self.failures.unwrap_or(3),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
        name = "web"
        sequence = 3
        command = ["/bin/web", "-x"]
        working_directory = "/srv"
        user = 33
        group = 33
        outbound = "allow"
        start_after = ["db"]
        devices = ["vda"]
        raw_network = true
        environment = { B = "2", A = "1" }
        limits = { memory = "32MiB", cpu_share = 50, cpu_quota_percent = 200, processes = 8, files = 99 }
        ports = [{ capsule = 80, node = 8081 }, { capsule = 53, protocol = "udp" }]
        restart = { policy = "on-failure", backoff_initial = "20ms", backoff_max = "1min" }
        stop = { signal = "SIGQUIT", grace = "5s" }
        validity = { valid_from = 1000, not_after = 2027-01-31T13:00:00+01:00 }
        [probes.liveness]
        http = { port = 80 }
        interval = "500ms"
    "#;

    fn build(text: &str) -> Result<Manifest> {
        ManifestSource::parse(text)?.build(Hash::of(b""), 42)
    }

    #[test]
    fn every_field_arrives() {
        let manifest = build(FULL).unwrap();
        assert_eq!(manifest.environment[0], ("A".into(), "1".into()));
        assert_eq!(manifest.limits.memory_bytes, 32 << 20);
        assert_eq!(
            manifest.ports[1],
            Port {
                capsule: 53,
                node: 53,
                protocol: Protocol::Udp
            }
        );
        assert_eq!(manifest.restart.backoff_max_ms, 60_000);
        assert_eq!(
            manifest.stop,
            Stop {
                signal: 3,
                grace_ms: 5000
            }
        );
        assert_eq!(manifest.validity.not_after, Some(1_801_396_800));
        let probe = manifest.probes.liveness.unwrap();
        assert_eq!((probe.interval_ms, probe.timeout_ms), (500, 1000));
        assert_eq!(
            probe.check,
            Check::Http {
                port: 80,
                path: "/".into()
            }
        );
        assert_eq!((manifest.sequence, manifest.outbound), (3, Outbound::Allow));
        assert_eq!(manifest.devices, ["vda"]);
        assert!(manifest.raw_network);
    }

    #[test]
    fn little_is_enough_and_mistakes_are_named() {
        let small = build("name = 'a'\ncommand = ['/a']").unwrap();
        assert_eq!((small.sequence, small.outbound), (42, Outbound::Deny));
        let error = |text: &str| format!("{:#}", build(text).unwrap_err());
        assert!(error("name = 'a'\ncomand = ['/a']").contains("comand"));
        assert!(error("name = 'a'\ncommand = ['a']").contains("command: must begin with '/'"));
        assert!(error("name='a'\ncommand=['/a']\nlimits={memory='1MB'}").contains("unknown unit"));
        assert!(error("name='a'\ncommand=['/a']\nprobes.startup={}").contains("exactly one"));
        assert!(error("name='a'\ncommand=['/a']\nstop.signal='FOO'").contains("unknown signal"));
        let device = error("name='a'\ncommand=['/a']\ndevices=['/dev/vda']");
        assert!(device.contains("devices: must be lower-case letters"));
        let raw = error("name='a'\ncommand=['/a']\nraw_network=true");
        assert!(raw.contains("raw_network: needs outbound"), "{raw}");
    }

    #[test]
    fn dates_are_seconds_since_1970() {
        let seconds = |text: &str| unix_seconds(&text.parse().unwrap());
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2000-02-29T23:59:59Z"), Some(951_868_799));
        assert_eq!(seconds("2026-11-22T00:00:00-01:30"), Some(1_795_311_000));
        assert_eq!(seconds("1969-12-31T23:59:59Z"), None);
        assert_eq!(seconds("2026-11-22"), None);
    }
}
