//! A new release on its way from the owner to the kernel, piece by piece.
//!
//! Every piece is a signed request of its own, and the kernel checks the release against the
//! release key anyway: the 3Bot is only the carrier.

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use skep_api::control::{
    Request, SlotInfo, SlotStatus, SlotsInfo, UPDATE_CHUNK_BYTES_MAX, UpdateProgress,
};

use super::command::failed;
use super::reply::{Answer, Problem, json};
use crate::agent::Agent;
use crate::supervisor::RecordKind;

/// No piece of a release in one request is longer.
pub(super) const PIECE_BYTES_MAX: usize = 512 * 1024;
/// Parts that one request has read back, so that it is answered in a few seconds.
const CHECKS: usize = 8;

/// The answer to `GET /api/v1/node/slots`.
#[derive(Serialize)]
pub(super) struct SlotsView {
    running: &'static str,
    version: u64,
    release_key: String,
    slots: Vec<SlotView>,
    update: Option<UpdateView>,
}

#[derive(Serialize)]
struct SlotView {
    name: &'static str,
    status: &'static str,
    tries_left: u8,
    version: u64,
}

#[derive(Serialize)]
struct UpdateView {
    version: u64,
    written: u64,
    checked: u64,
    total: u64,
}

/// What is in the slots.
pub(super) async fn slots(agent: &Agent) -> Result<SlotsView, Problem> {
    let slots = agent.control.slots().await.map_err(|why| failed(&why))?;
    Ok(slots_view(slots))
}

fn slots_view(slots: SlotsInfo) -> SlotsView {
    const NAMES: [&str; 2] = ["A", "B"];
    let view = |(name, slot): (&'static str, &SlotInfo)| {
        let (status, tries_left) = match slot.status {
            SlotStatus::Empty => ("empty", 0),
            SlotStatus::Trying { tries_left } => ("trying", tries_left),
            SlotStatus::Good => ("good", 0),
            SlotStatus::Bad => ("bad", 0),
        };
        SlotView {
            name,
            status,
            tries_left,
            version: slot.version,
        }
    };
    SlotsView {
        running: NAMES
            .get(usize::from(slots.running))
            .copied()
            .unwrap_or("?"),
        version: slots.version,
        release_key: skep_api::PublicKey(slots.release_key).to_string(),
        slots: NAMES.into_iter().zip(&slots.slots).map(view).collect(),
        update: slots.update.map(update_view),
    }
}

fn update_view(update: UpdateProgress) -> UpdateView {
    UpdateView {
        version: update.version,
        written: update.written,
        checked: update.checked,
        total: update.total,
    }
}

/// `POST node/update/STEP`.
pub(super) async fn step(
    agent: &Rc<Agent>,
    step: &str,
    query: &str,
    body: &[u8],
) -> Result<Answer, Problem> {
    match step {
        "begin" => {
            let head = body.to_vec();
            tell(agent, Request::UpdateBegin { head }).await?;
            agent.record(RecordKind::Owner, None, "an update begins".to_owned());
        }
        "write" => write(agent, query, body).await?,
        "check" => {
            for _ in 0..CHECKS {
                let (checked, total) = agent
                    .control
                    .check_update()
                    .await
                    .map_err(|why| failed(&why))?;
                if checked == total {
                    break;
                }
            }
        }
        "finish" => {
            tell(agent, Request::UpdateFinish).await?;
            let text = "the update is complete and tried at the next start".to_owned();
            agent.record(RecordKind::Owner, None, text);
        }
        _ => return Err(Problem::not_found("step of an update")),
    }
    Ok(json(&slots(agent).await?))
}

/// The answer to a step of an installation.
#[derive(Serialize)]
struct InstallView {
    done: u64,
    total: u64,
}

/// The body of the first step.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InstallBody {
    disk: String,
}

/// `POST node/install/STEP`.
pub(super) async fn install(agent: &Rc<Agent>, step: &str, body: &[u8]) -> Result<Answer, Problem> {
    let (mut done, mut total) = (0, 0);
    match step {
        "begin" => {
            let asked: InstallBody = serde_json::from_slice(body)
                .map_err(|error| Problem::bad_request(format!("body: {error}")))?;
            let text = format!("installation to {}", asked.disk);
            tell(agent, Request::InstallBegin { disk: asked.disk }).await?;
            agent.record(RecordKind::Owner, None, text);
        }
        "step" => {
            for _ in 0..CHECKS {
                (done, total) = agent
                    .control
                    .install_step()
                    .await
                    .map_err(|why| failed(&why))?;
                if done == total {
                    break;
                }
            }
        }
        _ => return Err(Problem::not_found("step of an installation")),
    }
    Ok(json(&InstallView { done, total }))
}

async fn write(agent: &Agent, query: &str, body: &[u8]) -> Result<(), Problem> {
    let offset = super::routes::number(query, "offset")?;
    let mut offset = offset.ok_or_else(|| Problem::bad_request("offset is missing"))?;
    for piece in body.chunks(UPDATE_CHUNK_BYTES_MAX) {
        let bytes = piece.to_vec();
        tell(agent, Request::UpdateWrite { offset, bytes }).await?;
        offset += piece.len() as u64;
    }
    Ok(())
}

async fn tell(agent: &Agent, request: Request) -> Result<(), Problem> {
    agent
        .control
        .tell(request)
        .await
        .map_err(|why| failed(&why))
}
