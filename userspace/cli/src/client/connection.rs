//! HTTP to one node, and signed requests.

use crate::key;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use skep_api::owner::{
    Challenge, HEADER_CHALLENGE, HEADER_KEY, HEADER_SIGNATURE, RequestParts, sign,
};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::Response;
use ureq::{Agent, Body};

/// A node that does not answer within this time is given up.
const TIMEOUT: Duration = Duration::from_secs(15);
/// No answer of a node is longer.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Where a node is, and the key that it obeys.
#[derive(Debug)]
pub(super) struct Connection {
    agent: Agent,
    url: String,
    node_name: String,
    key: PathBuf,
}

impl Connection {
    /// Nothing is sent yet, and the key is not read before it is needed.
    pub(super) fn new(url: &str, node_name: &str, key: &Path) -> Result<Self> {
        let url = url.trim_end_matches('/');
        if !url.starts_with("http://") {
            bail!("'{url}' is not a node's address; write it as http://ADDRESS:PORT");
        }
        let agent = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .build()
            .new_agent();
        Ok(Self {
            agent,
            url: url.into(),
            node_name: node_name.into(),
            key: key.into(),
        })
    }

    /// The body that `path` answers with.
    pub(super) fn get(&self, path: &str) -> Result<String> {
        let answer = self.agent.get(format!("{}{path}", self.url)).call();
        self.read(answer)
    }

    /// Sends a request that changes something, signed by the owner.
    pub(super) fn post(&self, path: &str, body: &str) -> Result<String> {
        self.post_bytes(path, body.as_bytes())
    }

    /// As [`Self::post`], with any body.
    pub(super) fn post_bytes(&self, path: &str, body: &[u8]) -> Result<String> {
        #[derive(Deserialize)]
        struct Given {
            node: String,
            challenge: String,
        }
        let pair = key::load(&self.key)?;
        let given: Given = serde_json::from_str(&self.get("/api/v1/challenge")?)
            .context("the node gives no challenge; use the skep that belongs to it")?;
        if given.node != self.node_name {
            let (theirs, ours) = (super::show::plain(&given.node), &self.node_name);
            bail!("this node is '{theirs}', not '{ours}'; use --node-name {theirs} if you mean it");
        }
        let challenge =
            Challenge::from_hex(&given.challenge).context("the node's challenge is malformed")?;
        let parts = RequestParts {
            method: "POST",
            path,
            body,
        };
        let headers = sign(pair.secret(), &self.node_name, challenge, &parts);
        let answer = self
            .agent
            .post(format!("{}{path}", self.url))
            .header(HEADER_KEY, headers.key)
            .header(HEADER_CHALLENGE, headers.challenge)
            .header(HEADER_SIGNATURE, headers.signature)
            .send(body);
        self.read(answer)
    }

    /// The body of a good answer; the node's own reason for a bad one.
    fn read(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<String> {
        #[derive(Deserialize)]
        struct Problem {
            reason: String,
        }
        let mut answer = answer.with_context(|| {
            format!(
                "no node answers at {}; check that it runs and --node is right",
                self.url
            )
        })?;
        let status = answer.status();
        let body = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string();
        let body = body.context("the node's answer was cut short; try again")?;
        if status.is_success() {
            return Ok(body);
        }
        let reason = match serde_json::from_str::<Problem>(&body) {
            Ok(problem) => super::show::plain(&problem.reason),
            Err(_) => format!("HTTP status {status}"),
        };
        bail!("the node refuses: {reason}");
    }
}
