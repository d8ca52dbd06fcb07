//! The 3Bot's JSON API, as scenarios use it (`docs/reference/api.md`).

use crate::{
    Node,
    http::{self, Response},
    ramdisk::{THREEBOT_PORT, owner},
    seconds,
};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use skep_api::{
    KeyPair,
    owner::{Challenge, HEADER_CHALLENGE, HEADER_KEY, HEADER_SIGNATURE, RequestParts, sign},
};
use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

/// How long the API may take for one answer.
const ANSWER_TIMEOUT: Duration = seconds(10);
/// Pause between two looks at a state that is waited for.
const POLL: Duration = Duration::from_millis(20);

/// The API of one node.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    address: SocketAddr,
}

impl Node {
    /// The API of this node's 3Bot, on port 8080.
    pub fn api(&self) -> Api {
        Api {
            address: self.address(THREEBOT_PORT),
        }
    }
}

impl Api {
    /// Fetches `/api/v1/` and this, as JSON.
    pub fn get(&self, path: &str) -> Result<Value> {
        let response = http::get(self.address, &format!("/api/v1/{path}"), ANSWER_TIMEOUT)?;
        ensure!(
            response.status == 200,
            "{path}: {} {}",
            response.status,
            response.text()
        );
        response.json()
    }

    /// What the 3Bot knows about a capsule.
    pub fn capsule(&self, name: &str) -> Result<Value> {
        self.get(&format!("capsules/{name}"))
    }

    /// Asks about a capsule until `wanted` holds, and returns that answer. The
    /// 3Bot may be away meanwhile.
    pub fn wait_capsule(
        &self,
        name: &str,
        timeout: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + timeout;
        loop {
            let found = self.capsule(name);
            if let Ok(capsule) = &found
                && wanted(capsule)
            {
                return found;
            }
            ensure!(
                Instant::now() < deadline,
                "capsule {name} is not as wanted after {timeout:?}; last seen: {found:?}"
            );
            thread::sleep(POLL);
        }
    }

    /// The events after number `after`: those of this kind, about this capsule if one
    /// is given.
    pub fn events(&self, after: u64, kind: &str, capsule: Option<&str>) -> Result<Vec<Value>> {
        let mut answer = self.get(&format!("events?after={after}"))?;
        let events = answer["events"].as_array_mut().context("no events")?;
        events.retain(|event| {
            event["kind"] == kind && capsule.is_none_or(|name| event["capsule"] == name)
        });
        Ok(std::mem::take(events))
    }

    /// Number of the newest event.
    pub fn last_event(&self) -> Result<u64> {
        let answer = self.get("events")?;
        answer["last"].as_u64().context("no number of an event")
    }

    /// Waits for `count` events as in [`Self::events`], and returns them.
    pub fn wait_events(
        &self,
        after: u64,
        kind: &str,
        capsule: Option<&str>,
        count: usize,
        timeout: Duration,
    ) -> Result<Vec<Value>> {
        let deadline = Instant::now() + timeout;
        loop {
            let found = self.events(after, kind, capsule);
            if let Ok(events) = &found
                && events.len() >= count
            {
                return found;
            }
            ensure!(
                Instant::now() < deadline,
                "no {count} events {kind} about {capsule:?} after {timeout:?}; last seen: {found:?}"
            );
            thread::sleep(POLL);
        }
    }

    /// Waits for a capsule that is not restarted to end, and returns how it did.
    pub fn wait_finished(&self, name: &str, timeout: Duration) -> Result<String> {
        let found = self.wait_capsule(name, timeout, |capsule| capsule["state"] == "finished")?;
        let how = found["last_exit"]["how"].as_str();
        Ok(how.context("it ended in no way")?.to_string())
    }

    /// Everything that a capsule has printed and that is still kept.
    pub fn log(&self, name: &str) -> Result<String> {
        let mut text = String::new();
        let mut from = 0;
        loop {
            let part = self.get(&format!("capsules/{name}/logs?from={from}"))?;
            text += part["text"].as_str().context("a log without text")?;
            let next = part["next"].as_u64().context("a log without end")?;
            if next == from || part["end"] == part["next"] {
                return Ok(text);
            }
            from = next;
        }
    }

    /// Does what only the owner may: posts to `/api/v1/` and this, signed with
    /// the owner's key. Fails when it is refused.
    pub fn command(&self, path: &str, body: &Value) -> Result<()> {
        let response = self.command_as(&owner()?, path, body)?;
        ensure!(
            response.status == 200,
            "{path}: {} {}",
            response.status,
            response.text()
        );
        Ok(())
    }

    /// As [`Self::command`], signed with any key; a refusal is an answer.
    pub fn command_as(&self, key: &KeyPair, path: &str, body: &Value) -> Result<Response> {
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        self.post_as(key, path, &body)
    }

    /// Posts any bytes to `/api/v1/` and this, signed with any key; a refusal is an answer.
    pub fn post_as(&self, key: &KeyPair, path: &str, body: &[u8]) -> Result<Response> {
        let challenge = self.get("challenge")?;
        let text = |name: &str| challenge[name].as_str().unwrap_or_default();
        let parsed = Challenge::from_hex(text("challenge")).context("not a challenge")?;
        let path = format!("/api/v1/{path}");
        let parts = RequestParts {
            method: "POST",
            path: &path,
            body,
        };
        let signed = sign(key.secret(), text("node"), parsed, &parts);
        let headers = [
            (HEADER_KEY, signed.key.as_str()),
            (HEADER_CHALLENGE, &signed.challenge),
            (HEADER_SIGNATURE, &signed.signature),
            ("Content-Type", "application/json"),
        ];
        http::request(self.address, "POST", &path, &headers, body, ANSWER_TIMEOUT)
    }
}
