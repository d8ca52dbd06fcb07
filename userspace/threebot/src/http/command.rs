//! What the owner may have done: requests that are signed.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, StatusCode};
use serde::{Deserialize, Serialize};
use skep_api::control::{self, CapsuleId, KillScope};
use skep_api::owner::{
    CHALLENGE_MS, HEADER_CHALLENGE, HEADER_KEY, HEADER_SIGNATURE, OwnerError, RequestParts,
    SignedHeaders,
};

use super::reply::{Answer, Problem, json};
use super::routes::api_path;
use super::{profile, update, view};
use crate::agent::{Agent, random, words};
use crate::runtime::Failure;
use crate::supervisor::{Command, CommandError, Phase, RecordKind};

/// No body of a command is longer, but for a piece of a release.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// A body must arrive within this time, which a piece of a release has more of.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for an answer to leave before the 3Bot dies on command.
const ANSWER_LEAVES: Duration = Duration::from_millis(50);

/// The answer to `GET /api/v1/challenge`.
#[derive(Serialize)]
pub(super) struct ChallengeView {
    node: String,
    challenge: String,
    valid_ms: u64,
}

/// The answer to a command that was taken.
#[derive(Serialize)]
struct Taken {
    done: bool,
}

/// The body of `kill`; an empty body means all defaults.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct KillBody {
    /// Linux signal number.
    signal: u8,
    /// `init` or `all`.
    scope: Scope,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scope {
    Init,
    All,
}

impl Default for KillBody {
    fn default() -> Self {
        Self {
            signal: 9,
            scope: Scope::Init,
        }
    }
}

/// A fresh challenge.
pub(super) fn challenge(agent: &Agent) -> Result<ChallengeView, Problem> {
    let salt = random().ok_or_else(|| {
        let reason = "the node has no random numbers";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", reason)
    })?;
    let challenge = agent.verifier.borrow().challenge(agent.clock.now(), salt);
    let node = agent.node_name.clone();
    Ok(ChallengeView {
        node,
        challenge: challenge.to_hex(),
        valid_ms: CHALLENGE_MS,
    })
}

/// Answers a POST: reads it, checks who signed it, and does it.
pub(super) async fn post(agent: &Rc<Agent>, request: Request<Incoming>) -> Result<Answer, Problem> {
    let (head, body) = request.into_parts();
    let body = match api_path(head.uri.path()).as_deref() {
        Some(["node", "update", "write"]) => {
            read_body(body, update::PIECE_BYTES_MAX, PIECE_TIMEOUT).await?
        }
        _ => read_body(body, BODY_BYTES_MAX, BODY_TIMEOUT).await?,
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let parts = RequestParts {
        method: "POST",
        path,
        body: &body,
    };
    let signed = signed_headers(&head.headers);
    let now = agent.clock.now();
    agent
        .verifier
        .borrow_mut()
        .verify(now, signed.as_ref(), &parts)
        .map_err(refused)?;
    match api_path(head.uri.path()).as_deref() {
        Some(["capsules", name, "start"]) => supervise(agent, name, Command::Start).await,
        Some(["capsules", name, "stop"]) => supervise(agent, name, Command::Stop).await,
        Some(["capsules", name, "restart"]) => supervise(agent, name, Command::Restart).await,
        Some(["capsules", name, "kill"]) => kill(agent, name, &body).await,
        Some(["profile"]) => {
            let (request, what) = profile::start(agent, &body)?;
            tell(agent, request, &what).await
        }
        // Only whether the request is the owner's.
        Some(["owner"]) => Ok(json(&Taken { done: true })),
        Some(["agent", "restart"]) => Ok(restart_agent(agent)),
        Some(["crash", "clear"]) => {
            tell(agent, control::Request::ClearCrash, "forget the crash").await
        }
        Some(["node", "update", step]) => {
            let query = head.uri.query().unwrap_or_default();
            update::step(agent, step, query, &body).await
        }
        Some(["node", "install", step]) => update::install(agent, step, &body).await,
        Some(["node", "identity", "keep"]) => {
            tell(agent, control::Request::KeepIdentity, "keep the node's key").await
        }
        Some(["node", "reboot"]) => tell(agent, control::Request::Reboot, "reboot").await,
        Some(["node", "poweroff"]) => tell(agent, control::Request::PowerOff, "power off").await,
        _ => Err(Problem::not_found("command")),
    }
}

fn refused(error: OwnerError) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "refused", error.to_string())
}

async fn read_body(body: Incoming, most: usize, time: Duration) -> Result<Bytes, Problem> {
    let collected = Limited::new(body, most).collect();
    match tokio::time::timeout(time, collected).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(_)) => {
            let reason = format!("the body is cut short or longer than {most} bytes");
            Err(Problem::bad_request(reason))
        }
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "the body did not arrive in time",
        )),
    }
}

/// The three headers; `None` unless all are there.
fn signed_headers(headers: &HeaderMap) -> Option<SignedHeaders> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::to_owned);
    Some(SignedHeaders {
        key: text(HEADER_KEY)?,
        challenge: text(HEADER_CHALLENGE)?,
        signature: text(HEADER_SIGNATURE)?,
    })
}

async fn supervise(agent: &Rc<Agent>, name: &str, command: Command) -> Result<Answer, Problem> {
    agent.command(name, command).map_err(|error| match error {
        CommandError::Unknown => Problem::not_found("capsule"),
        CommandError::AlreadyRunning => conflict("it runs already"),
        CommandError::NotRunning => conflict("it is stopped already"),
    })?;
    agent.save().await; // the owner's word must outlive the 3Bot
    Ok(json(&view::capsule(agent, name).await?))
}

async fn kill(agent: &Rc<Agent>, name: &str, body: &[u8]) -> Result<Answer, Problem> {
    let asked: KillBody = match body {
        [] => KillBody::default(),
        body => serde_json::from_slice(body)
            .map_err(|error| Problem::bad_request(format!("body: {error}")))?,
    };
    let capsule = running(agent, name)?;
    let (scope, whom) = match asked.scope {
        Scope::Init => (KillScope::Init, "its init process"),
        Scope::All => (KillScope::All, "all its processes"),
    };
    agent
        .control
        .kill(capsule, asked.signal, scope)
        .await
        .map_err(|error| failed(&error))?;
    let text = format!("kill: {} to {whom}", words::signal_name(asked.signal));
    agent.record(RecordKind::Owner, Some(name), text);
    Ok(json(&Taken { done: true }))
}

/// Has the 3Bot die as it would of a fault of its own: without a farewell, so that
/// what heals it is what heals it always.
fn restart_agent(agent: &Rc<Agent>) -> Answer {
    agent.record(RecordKind::Owner, None, "restart of the 3Bot".to_owned());
    agent.spawn(|_| async {
        tokio::time::sleep(ANSWER_LEAVES).await;
        std::process::abort();
    });
    json(&Taken { done: true })
}

async fn tell(agent: &Rc<Agent>, request: control::Request, what: &str) -> Result<Answer, Problem> {
    agent
        .control
        .tell(request)
        .await
        .map_err(|error| failed(&error))?;
    agent.record(RecordKind::Owner, None, what.to_owned());
    Ok(json(&Taken { done: true }))
}

pub(super) fn running(agent: &Agent, name: &str) -> Result<CapsuleId, Problem> {
    let supervisor = agent.supervisor.borrow();
    let unit = supervisor
        .unit(name)
        .ok_or_else(|| Problem::not_found("capsule"))?;
    match &unit.phase {
        Phase::Running(run) => Ok(CapsuleId(run.instance)),
        Phase::Stopping { instance, .. } => Ok(CapsuleId(*instance)),
        _ => Err(conflict("it does not run")),
    }
}

fn conflict(reason: &str) -> Problem {
    Problem::new(StatusCode::CONFLICT, "conflict", reason)
}

/// The kernel's refusal as an answer.
pub(super) fn failed(failure: &Failure) -> Problem {
    use skep_api::control::ControlError;
    let (status, error) = match failure {
        Failure::Refused(ControlError::NotFound) => (StatusCode::NOT_FOUND, "not-found"),
        Failure::Refused(ControlError::NotRunning) => (StatusCode::CONFLICT, "conflict"),
        Failure::Refused(ControlError::Unsupported) => (StatusCode::NOT_IMPLEMENTED, "unsupported"),
        Failure::Refused(ControlError::Invalid(_) | ControlError::TooLarge(_)) => {
            (StatusCode::BAD_REQUEST, "bad-request")
        }
        Failure::Refused(_) => (StatusCode::CONFLICT, "conflict"),
        Failure::NoAnswer => (StatusCode::GATEWAY_TIMEOUT, "no-answer"),
    };
    Problem::new(status, error, failure.to_string())
}
