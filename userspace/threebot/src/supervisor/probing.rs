//! When to probe a running capsule and what its answers add up to.

use super::Millis;
use super::spec::{Probe, UnitSpec};

/// The start-up probe is asked first after this time, then at doubling distances up to its
/// interval: quick programs are ready quickly, slow ones are not pestered.
const STARTUP_FIRST_MS: Millis = 20;
/// After a failure the liveness probe is asked again after this time, or its interval if shorter:
/// so a hang is certain soon, and a healthy capsule is asked seldom.
const RETRY_MS: Millis = 500;
/// An answer later than the probe's time-out by this much is not waited for any more.
const LATE_MS: Millis = 2_000;

/// Which of a capsule's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// The one that decides readiness.
    Startup,
    /// The one that watches for hangs.
    Liveness,
}

/// What the answers so far mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing new.
    Unchanged,
    /// The start-up probe succeeded.
    Ready,
    /// The capsule hangs; why, for people.
    Hung(String),
}

/// The probes of one run of a capsule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probing {
    kind: ProbeKind,
    /// When to ask next, if nothing is under way.
    due: Option<Millis>,
    /// Until when the question under way is waited for.
    pending_until: Option<Millis>,
    failures: u32,
    startup_since: Millis,
    startup_wait: Millis,
}

impl Probing {
    /// Begins with a run at `now`. `ready`: the start-up probe has already succeeded.
    pub fn new(now: Millis, spec: &UnitSpec, ready: bool) -> Self {
        let starting = !ready && spec.startup.is_some();
        let mut probing = Self {
            kind: if starting {
                ProbeKind::Startup
            } else {
                ProbeKind::Liveness
            },
            due: None,
            pending_until: None,
            failures: 0,
            startup_since: now,
            startup_wait: STARTUP_FIRST_MS,
        };
        if starting {
            probing.due = spec
                .startup
                .as_ref()
                .map(|p| now + STARTUP_FIRST_MS.min(p.interval));
        } else {
            probing.begin_liveness(now, spec);
        }
        probing
    }

    /// Whether the start-up probe has succeeded (or there is none).
    pub fn is_ready(&self) -> bool {
        self.kind == ProbeKind::Liveness
    }

    /// Failures in a row of the liveness probe.
    pub fn failures(&self) -> u32 {
        if self.is_ready() { self.failures } else { 0 }
    }

    /// When [`Probing::poll`] wants to be called next.
    pub fn deadline(&self) -> Option<Millis> {
        self.pending_until.or(self.due)
    }

    /// The probe to ask now, if one is due; its answer is given to [`Probing::answer`].
    pub fn poll(&mut self, now: Millis, spec: &UnitSpec) -> Option<ProbeKind> {
        if self.pending_until.is_some() || self.due.is_none_or(|due| due > now) {
            return None;
        }
        let probe = self.probe(spec)?;
        self.due = None;
        self.pending_until = Some(now + probe.timeout + LATE_MS);
        Some(self.kind)
    }

    /// Whether the question under way was not answered at all in its time.
    pub fn is_overdue(&self, now: Millis) -> bool {
        self.pending_until.is_some_and(|until| until <= now)
    }

    /// Takes the answer to a question of `kind`: `Err` says what was wrong.
    pub fn answer(
        &mut self,
        now: Millis,
        spec: &UnitSpec,
        kind: ProbeKind,
        answer: Result<(), String>,
    ) -> Verdict {
        if kind != self.kind || self.pending_until.take().is_none() {
            return Verdict::Unchanged; // late: it was already counted as a failure
        }
        match (self.kind, answer) {
            (ProbeKind::Startup, Ok(())) => {
                self.begin_liveness(now, spec);
                Verdict::Ready
            }
            (ProbeKind::Startup, Err(why)) => self.startup_failed(now, spec, &why),
            (ProbeKind::Liveness, Ok(())) => {
                self.failures = 0;
                self.due = spec.liveness.as_ref().map(|probe| now + probe.interval);
                Verdict::Unchanged
            }
            (ProbeKind::Liveness, Err(why)) => self.liveness_failed(now, spec, &why),
        }
    }

    fn begin_liveness(&mut self, now: Millis, spec: &UnitSpec) {
        self.kind = ProbeKind::Liveness;
        self.failures = 0;
        self.due = spec.liveness.as_ref().map(|probe| now + probe.interval);
    }

    fn startup_failed(&mut self, now: Millis, spec: &UnitSpec, why: &str) -> Verdict {
        let Some(probe) = &spec.startup else {
            return Verdict::Unchanged;
        };
        let waited = now.saturating_sub(self.startup_since);
        if waited >= probe.interval * Millis::from(probe.failures) {
            return Verdict::Hung(format!("not ready after {waited} ms: {why}"));
        }
        self.startup_wait = (self.startup_wait * 2).min(probe.interval);
        self.due = Some(now + self.startup_wait);
        Verdict::Unchanged
    }

    fn liveness_failed(&mut self, now: Millis, spec: &UnitSpec, why: &str) -> Verdict {
        let Some(probe) = &spec.liveness else {
            return Verdict::Unchanged;
        };
        self.failures += 1;
        if self.failures >= probe.failures.max(1) {
            return Verdict::Hung(format!("{} failures in a row: {why}", self.failures));
        }
        self.due = Some(now + RETRY_MS.min(probe.interval));
        Verdict::Unchanged
    }

    fn probe<'s>(&self, spec: &'s UnitSpec) -> Option<&'s Probe> {
        match self.kind {
            ProbeKind::Startup => spec.startup.as_ref(),
            ProbeKind::Liveness => spec.liveness.as_ref(),
        }
    }
}
