//! Which request is answered by what. The whole API, at a glance.

use std::rc::Rc;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};

use super::reply::{self, Answer, Problem, json};
use super::{command, profile, update, view};
use crate::agent::Agent;

/// The status page: one file without outside resources.
const PAGE: &str = include_str!("../../../dashboard/index.html");
/// Most entries of one answer to `/events`.
const EVENTS_MAX: usize = 512;
/// Most bytes of log in one answer.
const LOG_BYTES_MAX: u32 = 32 * 1024;

/// Answers a request.
pub(super) async fn answer(agent: &Rc<Agent>, request: Request<Incoming>) -> Answer {
    let answer = match *request.method() {
        Method::GET | Method::HEAD => get(agent, &request).await,
        Method::POST => command::post(agent, request).await,
        _ => Err(Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "only GET, HEAD and POST are known",
        )),
    };
    answer.unwrap_or_else(Answer::from)
}

/// Splits a path below `/api/v1` into its parts.
pub(super) fn api_path(path: &str) -> Option<Vec<&str>> {
    Some(path.strip_prefix("/api/v1/")?.split('/').collect())
}

async fn get(agent: &Rc<Agent>, request: &Request<Incoming>) -> Result<Answer, Problem> {
    let path = request.uri().path();
    if path == "/" {
        return Ok(reply::page(PAGE));
    }
    let query = request.uri().query().unwrap_or_default();
    match api_path(path).as_deref() {
        Some(["status"]) => Ok(json(&view::status(agent).await)),
        Some(["node", "slots"]) => Ok(json(&update::slots(agent).await?)),
        Some(["node"]) => Ok(json(&view::node(agent).await?)),
        Some(["identity"]) => {
            let challenge = text(query, "challenge").unwrap_or_default();
            Ok(json(&view::identity(agent, challenge).await?))
        }
        Some(["hardware"]) => Ok(json(&view::hardware(agent).await?)),
        Some(["capsules"]) => Ok(json(&view::capsules(agent).await)),
        Some(["capsules", name]) => Ok(json(&view::capsule(agent, name).await?)),
        Some(["capsules", name, "logs"]) => logs(agent, name, query).await,
        Some(["manifests"]) => Ok(json(&view::manifests(agent))),
        Some(["events"]) => {
            let after = number(query, "after")?.unwrap_or(0);
            Ok(json(&view::events(agent, after, EVENTS_MAX)))
        }
        Some(["crash"]) => Ok(json(&view::crash(agent).await?)),
        Some(["profile"]) => Ok(json(&profile::view(agent).await?)),
        Some(["challenge"]) => Ok(json(&command::challenge(agent)?)),
        _ => Err(Problem::not_found("page")),
    }
}

async fn logs(agent: &Rc<Agent>, name: &str, query: &str) -> Result<Answer, Problem> {
    let max = number(query, "max")?.map_or(LOG_BYTES_MAX, |max| {
        u32::try_from(max)
            .unwrap_or(u32::MAX)
            .clamp(1, LOG_BYTES_MAX)
    });
    let from = match (number(query, "from")?, number(query, "tail")?) {
        (Some(from), _) => view::LogFrom::Offset(from),
        (None, tail) => view::LogFrom::Tail(tail.unwrap_or_else(|| max.into())),
    };
    Ok(json(&view::logs(agent, name, from, max).await?))
}

/// What a query gives a name, if it does.
fn text<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// The number that a query gives a name, if it does.
pub(super) fn number(query: &str, name: &str) -> Result<Option<u64>, Problem> {
    let Some(value) = text(query, name) else {
        return Ok(None);
    };
    let parsed = value.parse().map_err(|_| format!("{name} is not a number"));
    parsed.map(Some).map_err(Problem::bad_request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split() {
        assert_eq!(
            api_path("/api/v1/capsules/web/logs"),
            Some(vec!["capsules", "web", "logs"])
        );
        assert_eq!(api_path("/api/v2/status"), None);
        assert_eq!(api_path("/"), None);
    }

    #[test]
    fn numbers_are_found_in_queries() {
        assert_eq!(number("after=7&x=1", "after"), Ok(Some(7)));
        assert_eq!(number("x=1", "after"), Ok(None));
        assert!(number("after=-1", "after").is_err());
        assert!(number("after=99999999999999999999", "after").is_err());
    }
}
