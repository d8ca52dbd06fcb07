//! Profiles: what programs ask of the kernel, and where it spends its time.

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use skep_api::control::{CallProfile, Profile, Request};

use super::command::{failed, running};
use super::reply::Problem;
use crate::agent::Agent;

/// The body of a command; an empty body means all defaults.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Body {
    seconds: u16,
    hz: u16,
    capsule: Option<String>,
}

impl Default for Body {
    fn default() -> Self {
        Self {
            seconds: 10,
            // Not a divisor of what programs like to do at.
            hz: 199,
            capsule: None,
        }
    }
}

/// The answer to `GET /api/v1/profile`.
#[derive(Serialize)]
pub(super) struct ProfileView {
    profile: Option<Found>,
}

#[derive(Serialize)]
struct Found {
    running: bool,
    began_uptime_ms: u64,
    lasted_ms: u64,
    capsule: Option<String>,
    calls: Vec<CallView>,
    calls_left_out: u32,
    hz: u16,
    user: u64,
    kernel: u64,
    lost: u64,
    places: Vec<(u32, u32)>,
}

#[derive(Serialize)]
struct CallView {
    number: u16,
    name: String,
    made: u64,
    failed: u64,
    total_ns: u64,
    longest_ns: u64,
    classes: Vec<u32>,
}

/// What the owner asks for, and in words for the journal.
pub(super) fn start(agent: &Agent, body: &[u8]) -> Result<(Request, String), Problem> {
    let asked = parse(body)?;
    let capsule = match &asked.capsule {
        Some(name) => Some(running(agent, name)?),
        None => None,
    };
    let of = asked.capsule.as_ref().map(|name| format!(" of {name}"));
    let what = format!(
        "profile{} for {} s, {} samples a second",
        of.unwrap_or_default(),
        asked.seconds,
        asked.hz
    );
    let request = Request::StartProfile {
        seconds: asked.seconds,
        hz: asked.hz,
        capsule,
    };
    Ok((request, what))
}

fn parse(body: &[u8]) -> Result<Body, Problem> {
    match body {
        [] => Ok(Body::default()),
        body => serde_json::from_slice(body)
            .map_err(|error| Problem::bad_request(format!("body: {error}"))),
    }
}

/// The profile that runs, or the last one.
pub(super) async fn view(agent: &Rc<Agent>) -> Result<ProfileView, Problem> {
    let profile = agent.control.profile().await;
    let profile = profile.map_err(|error| failed(&error))?.map(found);
    Ok(ProfileView { profile })
}

fn found(profile: Profile) -> Found {
    Found {
        running: profile.running,
        began_uptime_ms: profile.began_ns / 1_000_000,
        lasted_ms: profile.lasted_ns / 1_000_000,
        capsule: profile.capsule,
        calls: profile.calls.into_iter().map(call).collect(),
        calls_left_out: profile.calls_left_out,
        hz: profile.hz,
        user: profile.samples.user,
        kernel: profile.samples.kernel,
        lost: profile.samples.lost,
        places: profile.samples.places,
    }
}

fn call(call: CallProfile) -> CallView {
    CallView {
        number: call.number,
        name: call.name,
        made: call.made,
        failed: call.failed,
        total_ns: call.total_ns,
        longest_ns: call.longest_ns,
        classes: call.classes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read() {
        let body = |text: &str| parse(text.as_bytes()).ok();
        assert!(body("").is_some_and(|b| b.seconds == 10 && b.capsule.is_none()));
        let named = body(r#"{"seconds": 2, "hz": 0, "capsule": "web"}"#);
        assert!(named.is_some_and(|b| (b.seconds, b.hz) == (2, 0) && b.capsule.is_some()));
        assert!(body(r#"{"second": 2}"#).is_none());
        assert!(body(r#"{"seconds": 70000}"#).is_none());
    }
}
