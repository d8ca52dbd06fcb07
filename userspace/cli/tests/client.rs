//! The commands for a running node, against a small server that checks signatures
//! with the node's own [`Verifier`].

mod common;

use common::{fails, ok, workplace};
use skep_api::identity::{node_id, prove};
use skep_api::owner::{HEADER_CHALLENGE, HEADER_KEY, HEADER_SIGNATURE};
use skep_api::owner::{RequestParts, SignedHeaders, Verifier};
use skep_api::{KeyPair, PublicKey};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// A request as it arrived.
struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn read(reader: &mut BufReader<TcpStream>) -> Option<Self> {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let mut words = line.split_whitespace().map(String::from);
        let (method, path) = (words.next()?, words.next()?);
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim().split_once(": ") else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut request = Self {
            method,
            path,
            headers,
            body: Vec::new(),
        };
        let len = request
            .header("content-length")
            .and_then(|len| len.parse().ok())
            .unwrap_or(0);
        request.body.resize(len, 0);
        reader.read_exact(&mut request.body).ok()?;
        Some(request)
    }

    fn header(&self, name: &str) -> Option<String> {
        let mut headers = self.headers.iter();
        headers
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.clone())
    }

    fn signed(&self) -> Option<SignedHeaders> {
        Some(SignedHeaders {
            key: self.header(HEADER_KEY)?,
            challenge: self.header(HEADER_CHALLENGE)?,
            signature: self.header(HEADER_SIGNATURE)?,
        })
    }
}

/// The key of every node here.
fn node_key() -> KeyPair {
    KeyPair::from_seed([5; 32]).unwrap()
}

/// Answers as a node of that name and owner would; reports the commands that it took.
fn serve(listener: &TcpListener, name: &str, owner: [u8; 32], taken: &Sender<String>) {
    let mut verifier = Verifier::new(name.into(), vec![owner], [3; 32]);
    for stream in listener.incoming().flatten() {
        let mut reader = BufReader::new(stream);
        while let Some(request) = Request::read(&mut reader) {
            let (status, body) = answer(&mut verifier, name, &request, taken);
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = reader.get_mut().write_all((head + &body).as_bytes());
        }
    }
}

fn answer(
    verifier: &mut Verifier,
    name: &str,
    request: &Request,
    taken: &Sender<String>,
) -> (&'static str, String) {
    let get = |text: &str| ("200 OK", text.to_owned());
    let capsule = r#"{"name":"web","state":"starting","health":"starting","reason":null,
        "running_ms":null,"restarts":0,"last_exit":null,"ports":[],"usage":null,
        "limits":{"memory_bytes":1}}"#;
    match (&*request.method, &*request.path) {
        ("GET", "/api/v1/challenge") => {
            let challenge = verifier.challenge(0, [9; 8]).to_hex();
            get(&format!(
                r#"{{"node":"{name}","challenge":"{challenge}","valid_ms":60000}}"#
            ))
        }
        ("GET", "/api/v1/node") => get(&format!(r#"{{"name":"{name}"}}"#)),
        ("GET", path) if path.starts_with("/api/v1/identity?challenge=") => {
            let challenge = path.split_once('=').unwrap().1;
            let bytes = challenge.parse::<PublicKey>().unwrap().0;
            let pair = node_key();
            let (key, proof) = (pair.public(), prove(&pair, &bytes));
            get(&format!(
                r#"{{"key":"{key}","kept":"owner","problem":null,"signature":"{proof}"}}"#
            ))
        }
        ("GET", "/api/v1/status") => get(&format!(
            r#"{{"node":null,"capsules":[{capsule}],"manifests":[],"crash":null,"last_event":0}}"#
        )),
        ("GET", "/api/v1/capsules/web/logs?from=0") => {
            get(r#"{"from":0,"next":4,"end":8,"text":"one\n"}"#)
        }
        ("GET", "/api/v1/capsules/web/logs?from=4") => {
            get(r#"{"from":4,"next":8,"end":8,"text":"two\n"}"#)
        }
        ("GET", "/api/v1/events?after=0") => get(
            r#"{"events":[{"seq":1,"uptime_ms":1234,"unix_ms":null,"kind":"started",
                "capsule":"web","text":"as configured","hash":""}],"last":1}"#,
        ),
        ("POST", path) => {
            let parts = RequestParts {
                method: "POST",
                path,
                body: &request.body,
            };
            match verifier.verify(1, request.signed().as_ref(), &parts) {
                Ok(()) => {
                    let body = String::from_utf8_lossy(&request.body);
                    taken.send(format!("{path} {body}")).unwrap();
                    get(capsule)
                }
                Err(error) => (
                    "401 Unauthorized",
                    format!(r#"{{"error":"refused","reason":"{error}"}}"#),
                ),
            }
        }
        _ => (
            "404 Not Found",
            r#"{"error":"not-found","reason":"there is no such page"}"#.into(),
        ),
    }
}

/// Starts a node for the owner of the workplace; its address and what it takes.
fn start(folder: &Path) -> (String, Receiver<String>) {
    start_named(folder, "node")
}

fn start_named(folder: &Path, name: &'static str) -> (String, Receiver<String>) {
    let public = std::fs::read_to_string(folder.join("owner.key.pub")).unwrap();
    let key: PublicKey = public.split_whitespace().last().unwrap().parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    thread::spawn(move || serve(&listener, name, key.0, &sender));
    (url, receiver)
}

#[test]
fn reading_needs_no_key() {
    let place = workplace();
    let (url, _taken) = start(place.path());
    std::fs::remove_file(place.path().join("owner.key")).unwrap();
    let run = |args: &[&str]| ok(place.path(), &[args, &["--node", &url]].concat());
    assert!(run(&["status"]).contains("web   starting  starting"));
    assert!(run(&["status", "--json"]).starts_with("{\"node\":null"));
    assert_eq!(run(&["logs", "web"]), "one\ntwo\n");
    assert!(run(&["events"]).contains("1.234  started      web"));
    let error = fails(place.path(), &["stop", "web", "--node", &url]);
    assert!(error.contains("skep keygen"), "{error}");
}

#[test]
fn commands_are_signed_as_the_node_demands() {
    let place = workplace();
    let (url, taken) = start(place.path());
    let run = |args: &[&str]| ok(place.path(), &[args, &["--node", &url]].concat());
    assert_eq!(run(&["start", "web"]), "web is starting\n");
    assert_eq!(taken.recv().unwrap(), "/api/v1/capsules/web/start ");
    let other = start(place.path());
    let kill = [
        "kill", "web", "--signal", "SIGTERM", "--all", "--node", &other.0,
    ];
    ok(place.path(), &kill);
    let killed = other.1.recv().unwrap();
    assert_eq!(
        killed,
        r#"/api/v1/capsules/web/kill {"scope":"all","signal":15}"#
    );
    // The little server gives the same challenge again: a replay.
    let error = fails(place.path(), &["stop", "web", "--node", &url]);
    assert!(error.contains("the challenge was used before"), "{error}");
}

#[test]
fn strangers_and_strange_nodes_are_refused() {
    let place = workplace();
    let (url, taken) = start(place.path());
    ok(place.path(), &["keygen", "-o", "stranger.key"]);
    let error = fails(
        place.path(),
        &["kill", "web", "--key", "stranger.key", "--node", &url],
    );
    assert!(
        error.contains("the signing key is not the owner's"),
        "{error}"
    );
    let error = fails(
        place.path(),
        &["kill", "web", "--node-name", "mine", "--node", &url],
    );
    assert!(error.contains("this node is 'node', not 'mine'"), "{error}");
    assert!(taken.try_recv().is_err());
    let error = fails(place.path(), &["status", "--node", "http://127.0.0.1:1"]);
    assert!(error.contains("no node answers"), "{error}");
    assert!(fails(place.path(), &["status", "--node", "127.0.0.1"]).contains("http://"));
    assert!(fails(place.path(), &["logs", "db", "--node", &url]).contains("no such page"));
}

#[test]
fn an_enrolled_node_is_known_by_its_name_and_its_key() {
    let place = workplace();
    let (url, taken) = start_named(place.path(), "cellar");
    let id = node_id(&node_key().public());
    let code = format!("{url}/#{id}");
    let said = ok(place.path(), &["enrol", &code, "--name", "attic"]);
    assert!(said.contains("--node attic"), "{said}");
    assert_eq!(taken.recv().unwrap(), "/api/v1/owner ");
    let status = ok(place.path(), &["status", "--node", "attic"]);
    assert!(status.contains("web   starting"), "{status}");
    // What is signed has the node's own name, which nobody had to say.
    let error = fails(place.path(), &["stop", "web", "--node", "attic"]);
    assert!(error.contains("the challenge was used before"), "{error}");
    let error = fails(place.path(), &["status", "--node", "cellar"]);
    assert!(error.contains("no node 'cellar' is known"), "{error}");

    // Whoever has another key is not the node, at its address either.
    let list = place.path().join("nodes.toml");
    let text = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, text.replace(&id, "0000-0000-0000-0000-0000")).unwrap();
    let error = fails(place.path(), &["status", "--node", "attic"]);
    assert!(error.contains("not what was enrolled"), "{error}");
    std::fs::write(&list, "[attic]\nurl = 1\n").unwrap();
    let error = fails(place.path(), &["status", "--node", "attic"]);
    assert!(error.contains("no list of nodes"), "{error}");
}

#[test]
fn a_node_of_somebody_else_or_another_one_is_not_enrolled() {
    let place = workplace();
    let (url, taken) = start(place.path());
    let id = node_id(&node_key().public());
    ok(place.path(), &["keygen", "-o", "stranger.key"]);
    let code = format!("{url}/#{id}");
    let error = fails(place.path(), &["enrol", &code, "--key", "stranger.key"]);
    assert!(
        error.contains("obeys stranger.key: the node refuses: the signing key is not"),
        "{error}"
    );
    let other = format!("{url}/#0000-0000-0000-0000-0000");
    let error = fails(place.path(), &["enrol", &other]);
    assert!(error.contains("not the one that you expect"), "{error}");
    let error = fails(place.path(), &["enrol", &url]);
    assert!(error.contains("no node ID"), "{error}");
    assert!(taken.try_recv().is_err());
    assert!(!place.path().join("nodes.toml").exists());
}
