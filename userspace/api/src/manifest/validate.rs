//! Which values the fields of a manifest can have.

use super::{
    Check, Limits, MAX_COMMAND, MAX_CPU_SHARE, MAX_DEVICE_NAME, MAX_DEVICES, MAX_ENVIRONMENT,
    MAX_NAME, MAX_PORTS, MAX_START_AFTER, MAX_TEXT, MAX_WAIT_MS, MIN_MEMORY, Manifest, Outbound,
    Port, Probe, Protocol, Restart,
};
use alloc::string::String;

/// A field with a value that it cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// Path of the field, such as `limits.memory_bytes`.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with the value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It must have a value.
    #[error("must not be empty")]
    Empty,
    /// It has more bytes or items than the limit.
    #[error("has more than {0} bytes or items")]
    TooLong(usize),
    /// It is below the least value.
    #[error("must be at least {0}")]
    TooSmall(u64),
    /// It is above the greatest value.
    #[error("must be at most {0}")]
    TooLarge(u64),
    /// It is no capsule name.
    #[error("must be lower-case letters, digits and single '-' inside")]
    NotAName,
    /// It is no device name.
    #[error("must be lower-case letters and digits, the first a letter")]
    NotADevice,
    /// It is no absolute path.
    #[error("must begin with '/'")]
    NotAbsolute,
    /// It holds a NUL byte.
    #[error("must not contain a NUL byte")]
    Nul,
    /// It is no environment variable: the name is empty or holds `=`.
    #[error("must have a name without '='")]
    NotAVariable,
    /// It is named twice.
    #[error("names the same thing twice")]
    Duplicate,
    /// The probe's port is not a published TCP port of the capsule.
    #[error("must be one of the published TCP ports of the capsule")]
    NotPublished,
    /// It makes no sense for a capsule that may not go out.
    #[error("needs outbound = \"allow\"")]
    NeedsOutbound,
    /// The capsule names itself.
    #[error("must not name the capsule itself")]
    Itself,
    /// The manifest ends before it begins.
    #[error("must not be before valid_from")]
    EndsBeforeStart,
}

/// Whether `name` can be the name of a capsule or a node: 1 to [`MAX_NAME`]
/// lower-case letters, digits and `-`, the last neither first nor last.
#[must_use]
pub fn is_capsule_name(name: &str) -> bool {
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(fits)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Whether `name` can be the name of a device: 1 to [`MAX_DEVICE_NAME`] lower-case
/// letters and digits, the first a letter.
#[must_use]
pub fn is_device_name(name: &str) -> bool {
    name.len() <= MAX_DEVICE_NAME
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'))
}

/// Shorthand for a check of one field.
pub(crate) fn require(
    holds: bool,
    field: &'static str,
    problem: Problem,
) -> Result<(), FieldError> {
    if holds {
        Ok(())
    } else {
        Err(FieldError { field, problem })
    }
}

fn within(value: u64, least: u64, most: u64, field: &'static str) -> Result<(), FieldError> {
    require(value >= least, field, Problem::TooSmall(least))?;
    require(value <= most, field, Problem::TooLarge(most))
}

fn wait(value: u32, least: u64, field: &'static str) -> Result<(), FieldError> {
    within(u64::from(value), least, u64::from(MAX_WAIT_MS), field)
}

fn text(value: &str, field: &'static str) -> Result<(), FieldError> {
    require(value.len() <= MAX_TEXT, field, Problem::TooLong(MAX_TEXT))?;
    require(!value.contains('\0'), field, Problem::Nul)
}

fn path(value: &str, field: &'static str) -> Result<(), FieldError> {
    text(value, field)?;
    require(value.starts_with('/'), field, Problem::NotAbsolute)
}

fn command(words: &[String], field: &'static str) -> Result<(), FieldError> {
    let program = words.first().ok_or(FieldError {
        field,
        problem: Problem::Empty,
    })?;
    require(
        words.len() <= MAX_COMMAND,
        field,
        Problem::TooLong(MAX_COMMAND),
    )?;
    path(program, field)?;
    words.iter().try_for_each(|word| text(word, field))
}

impl Manifest {
    /// Checks that every field has a value that it can have.
    ///
    /// # Errors
    /// The first field that has not, and why.
    pub fn validate(&self) -> Result<(), FieldError> {
        require(is_capsule_name(&self.name), "name", Problem::NotAName)?;
        command(&self.command, "command")?;
        self.validate_environment()?;
        path(&self.working_directory, "working_directory")?;
        self.limits.validate()?;
        validate_ports(&self.ports)?;
        if let Some(probe) = &self.probes.startup {
            self.validate_probe(probe, "probes.startup")?;
        }
        if let Some(probe) = &self.probes.liveness {
            self.validate_probe(probe, "probes.liveness")?;
        }
        self.restart.validate()?;
        // 64 is Linux's number of signals; 0 would ask for nothing.
        within(u64::from(self.stop.signal), 1, 64, "stop.signal")?;
        wait(self.stop.grace_ms, 0, "stop.grace_ms")?;
        self.validate_start_after()?;
        validate_devices(&self.devices)?;
        // Such a socket goes out whatever the rest says.
        let raw = !self.raw_network || self.outbound == Outbound::Allow;
        require(raw, "raw_network", Problem::NeedsOutbound)?;
        if let (Some(from), Some(until)) = (self.validity.valid_from, self.validity.not_after) {
            require(
                from <= until,
                "validity.not_after",
                Problem::EndsBeforeStart,
            )?;
        }
        Ok(())
    }

    fn validate_environment(&self) -> Result<(), FieldError> {
        const FIELD: &str = "environment";
        let count = self.environment.len();
        require(
            count <= MAX_ENVIRONMENT,
            FIELD,
            Problem::TooLong(MAX_ENVIRONMENT),
        )?;
        for (number, (name, value)) in self.environment.iter().enumerate() {
            text(name, FIELD)?;
            text(value, FIELD)?;
            let is_name = !name.is_empty() && !name.contains('=');
            require(is_name, FIELD, Problem::NotAVariable)?;
            let mut earlier = self.environment.iter().take(number);
            require(
                !earlier.any(|(other, _)| other == name),
                FIELD,
                Problem::Duplicate,
            )?;
        }
        Ok(())
    }

    fn validate_start_after(&self) -> Result<(), FieldError> {
        const FIELD: &str = "start_after";
        let count = self.start_after.len();
        require(
            count <= MAX_START_AFTER,
            FIELD,
            Problem::TooLong(MAX_START_AFTER),
        )?;
        for (number, name) in self.start_after.iter().enumerate() {
            require(is_capsule_name(name), FIELD, Problem::NotAName)?;
            require(*name != self.name, FIELD, Problem::Itself)?;
            let mut earlier = self.start_after.iter().take(number);
            require(
                !earlier.any(|other| other == name),
                FIELD,
                Problem::Duplicate,
            )?;
        }
        Ok(())
    }

    fn validate_probe(&self, probe: &Probe, field: &'static str) -> Result<(), FieldError> {
        wait(probe.interval_ms, 1, field)?;
        wait(probe.timeout_ms, 1, field)?;
        within(u64::from(probe.failure_threshold), 1, 1000, field)?;
        let published = |port: u16| {
            let mut ports = self.ports.iter();
            ports.any(|other| other.capsule == port && other.protocol == Protocol::Tcp)
        };
        match &probe.check {
            Check::Exec(words) => command(words, field),
            Check::Tcp(port) => require(published(*port), field, Problem::NotPublished),
            Check::Http { port, path: target } => {
                require(published(*port), field, Problem::NotPublished)?;
                path(target, field)
            }
        }
    }
}

impl Limits {
    fn validate(&self) -> Result<(), FieldError> {
        within(
            self.memory_bytes,
            MIN_MEMORY,
            u64::MAX,
            "limits.memory_bytes",
        )?;
        let share = u64::from(self.cpu_share);
        within(share, 1, u64::from(MAX_CPU_SHARE), "limits.cpu_share")?;
        if let Some(percent) = self.cpu_quota_percent {
            within(u64::from(percent), 1, 100_000, "limits.cpu_quota_percent")?;
        }
        within(u64::from(self.processes), 1, 1 << 20, "limits.processes")?;
        // Standard input, output and error.
        within(u64::from(self.files), 3, 1 << 24, "limits.files")
    }
}

impl Restart {
    fn validate(&self) -> Result<(), FieldError> {
        wait(self.backoff_initial_ms, 0, "restart.backoff_initial_ms")?;
        let least = u64::from(self.backoff_initial_ms);
        wait(self.backoff_max_ms, least, "restart.backoff_max_ms")?;
        wait(self.crash_window_ms, 0, "restart.crash_window_ms")?;
        within(u64::from(self.crash_limit), 1, 1000, "restart.crash_limit")
    }
}

fn validate_devices(devices: &[String]) -> Result<(), FieldError> {
    const FIELD: &str = "devices";
    let few = devices.len() <= MAX_DEVICES;
    require(few, FIELD, Problem::TooLong(MAX_DEVICES))?;
    for (number, name) in devices.iter().enumerate() {
        require(is_device_name(name), FIELD, Problem::NotADevice)?;
        let mut earlier = devices.iter().take(number);
        let is_new = !earlier.any(|other| other == name);
        require(is_new, FIELD, Problem::Duplicate)?;
    }
    Ok(())
}

fn validate_ports(ports: &[Port]) -> Result<(), FieldError> {
    require(
        ports.len() <= MAX_PORTS,
        "ports",
        Problem::TooLong(MAX_PORTS),
    )?;
    for (number, port) in ports.iter().enumerate() {
        within(
            u64::from(port.capsule),
            1,
            u64::from(u16::MAX),
            "ports.capsule",
        )?;
        within(u64::from(port.node), 1, u64::from(u16::MAX), "ports.node")?;
        let mut earlier = ports
            .iter()
            .take(number)
            .filter(|other| other.protocol == port.protocol);
        let clash = earlier.any(|other| other.node == port.node || other.capsule == port.capsule);
        require(!clash, "ports", Problem::Duplicate)?;
    }
    Ok(())
}
