//! Answers in JSON and HTML.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// An answer to be sent.
pub(super) type Answer = Response<Full<Bytes>>;

/// What goes wrong with a request: a status, a short word for programs, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) error: &'static str,
    pub(super) reason: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, error: &'static str, reason: impl Into<String>) -> Self {
        Self {
            status,
            error,
            reason: reason.into(),
        }
    }

    pub(super) fn not_found(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            format!("there is no such {what}"),
        )
    }

    pub(super) fn bad_request(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", reason)
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        #[derive(Serialize)]
        struct Body<'a> {
            error: &'a str,
            reason: &'a str,
        }
        let body = Body {
            error: problem.error,
            reason: &problem.reason,
        };
        let mut answer = json(&body);
        *answer.status_mut() = problem.status;
        answer
    }
}

/// 200 with JSON.
pub(super) fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(bytes) => with_body(
            bytes,
            "application/json",
            "default-src 'none'; frame-ancestors 'none'",
        ),
        // None of our types can fail to be written; but the answer must not depend on that.
        Err(_) => {
            let mut answer = Answer::default();
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            answer
        }
    }
}

/// 200 with the status page.
pub(super) fn page(html: &'static str) -> Answer {
    // Everything is in the page itself; what it may load is the node's own API.
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                  connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'";
    with_body(html.as_bytes(), "text/html; charset=utf-8", policy)
}

fn with_body(body: impl Into<Bytes>, content_type: &'static str, policy: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}
