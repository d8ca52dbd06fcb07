//! What the owner has counted and sampled.

use crate::room::Capsules;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::time::Duration;
use machine::sample;
use machine::time::Instant;
use process::profile::{self, Call};
use skep_api::control::{
    CallProfile, CapsuleId, ControlError, PROFILE_CALLS_MAX, PROFILE_PLACES_MAX, Profile, Reply,
    Samples,
};

/// What is asked of the profile that was started last.
#[derive(Clone, Default)]
pub(crate) struct Asked {
    hz: u16,
    capsule: Option<String>,
}

impl Capsules {
    /// Answers [`skep_api::control::Request::StartProfile`].
    pub(crate) fn start_profile(
        &self,
        seconds: u16,
        hz: u16,
        capsule: Option<CapsuleId>,
    ) -> Result<Reply, ControlError> {
        let capsule = match capsule {
            Some(id) => Some(self.by_id(id).ok_or(ControlError::NotFound)?),
            None => None,
        };
        let parts = capsule.map(|c| c.parts().ok_or(ControlError::NotRunning));
        let world = parts.transpose()?.map(|p| p.world.clone());
        let until = Instant::now().after(Duration::from_secs(seconds.into()));
        let mut asked = self.profile.lock();
        profile::start(world.as_ref(), until).map_err(|_| ControlError::NoResources)?;
        sample::start(hz.into(), until).map_err(|_| ControlError::NoResources)?;
        *asked = Asked {
            hz,
            capsule: world.map(|w| String::from(w.name())),
        };
        Ok(Reply::Done)
    }

    /// Answers [`skep_api::control::Request::ReadProfile`].
    pub(crate) fn read_profile(&self) -> Result<Reply, ControlError> {
        let asked = self.profile.lock();
        let Some(recorder) = profile::current() else {
            return Ok(Reply::Profile(None));
        };
        let mut calls: Vec<Call> = recorder.calls().collect();
        calls.sort_unstable_by_key(|c| (Reverse(c.total_ns), c.number));
        let left_out = calls.len().saturating_sub(PROFILE_CALLS_MAX);
        calls.truncate(PROFILE_CALLS_MAX);
        let met = sample::read(PROFILE_PLACES_MAX).map_err(|_| ControlError::NoResources)?;
        let now = Instant::now();
        let (began, until) = (recorder.began(), recorder.until());
        Ok(Reply::Profile(Some(Profile {
            running: now < until,
            began_ns: began.0,
            lasted_ns: now.min(until).0.saturating_sub(began.0),
            capsule: asked.capsule.clone(),
            hz: asked.hz,
            calls: calls.iter().map(told).collect(),
            calls_left_out: u32::try_from(left_out).unwrap_or(u32::MAX),
            samples: Samples {
                user: met.user,
                kernel: met.kernel,
                lost: met.lost,
                places: met.places,
            },
        })))
    }
}

fn told(call: &Call) -> CallProfile {
    let used = call.classes.iter().rposition(|n| *n != 0);
    let classes = call.classes.iter().take(used.map_or(0, |last| last + 1));
    CallProfile {
        number: u16::try_from(call.number).unwrap_or(u16::MAX),
        name: String::from(profile::name(call.number)),
        made: call.made,
        failed: call.failed,
        total_ns: call.total_ns,
        longest_ns: call.longest_ns,
        classes: classes.copied().collect(),
    }
}
