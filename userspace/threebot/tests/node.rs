//! The 3Bot with real processes: what is killed, hangs or crashes comes back, and only the owner
//! is obeyed.

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Node, answers, failing, manifest, once, owner, probe, web_server};
use rustix::process::{Signal, kill_process};
use serde_json::json;
use skep_api::KeyPair;
use skep_api::manifest::{Check, SignedManifest};

/// Not a test: what [`web_server`] capsules run.
#[test]
#[ignore = "the program of capsules, run by the other tests"]
fn capsule_program() {
    common::serve_as_capsule();
}

#[test]
fn a_killed_capsule_is_back_at_once() {
    let (web, port) = web_server("web");
    let node = Node::start(&[web]);
    let first = node.wait_until("web", "health", "ready");
    assert!(answers(port));
    let (status, _) = node.post("/api/v1/capsules/web/kill", br#"{"signal":9}"#);
    assert_eq!(status, 200);
    let second = node.wait_for("a second run", || {
        let capsule = node.get("/api/v1/capsules/web");
        (capsule["id"] == 2 && capsule["health"] == "ready").then_some(capsule)
    });
    assert!(answers(port));
    assert_eq!(
        (&first["restarts"], &second["restarts"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(second["last_exit"]["how"], "killed by SIGKILL");
    let started = node.events("started");
    let wait = started[1]
        .strip_prefix("started, ")
        .and_then(|rest| rest.strip_suffix(" ms after its exit"));
    let wait: u64 = wait
        .and_then(|ms| ms.parse().ok())
        .expect("the time is told");
    println!("restarted {wait} ms after the exit");
    assert!(wait <= 100, "{wait} ms");
}

#[test]
fn a_hang_is_caught_by_the_probe_and_healed() {
    let (web, port) = web_server("web");
    let node = Node::start(&[web]);
    node.wait_until("web", "health", "ready");
    let begin = Instant::now();
    let (status, _) = node.post("/api/v1/capsules/web/kill", br#"{"signal":19}"#);
    assert_eq!(status, 200);
    node.wait_for("a second run", || {
        let capsule = node.get("/api/v1/capsules/web");
        (capsule["id"] == 2 && capsule["health"] == "ready").then_some(())
    });
    println!("healed {} ms after the hang", begin.elapsed().as_millis());
    assert!(answers(port));
    assert_eq!(node.events("hung").len(), 1);
    assert!(node.events("hung")[0].contains("no answer within 300 ms"));
}

#[test]
fn a_crash_loop_backs_off_and_disturbs_nobody() {
    let (web, port) = web_server("web");
    let node = Node::start(&[failing("bad"), web]);
    let bad = node.wait_until("bad", "health", "crash-loop");
    assert_eq!(bad["last_exit"]["how"], "exit code 1");
    assert_eq!(node.events("crash-loop").len(), 1);
    node.wait_until("web", "health", "ready");
    assert!(answers(port));
    std::thread::sleep(Duration::from_millis(500));
    let restarts = node.get("/api/v1/capsules/bad")["restarts"]
        .as_u64()
        .expect("a number");
    assert!(restarts < 12, "{restarts} restarts: no back-off");
}

#[test]
fn the_3bot_dies_and_no_capsule_notices() {
    let (web, port) = web_server("web");
    let (idle, _) = web_server("idle");
    let node = Node::start(&[web, idle]);
    let before = node.wait_until("web", "health", "ready");
    assert_eq!(node.post("/api/v1/capsules/idle/stop", b"").0, 200);
    node.wait_until("idle", "state", "stopped");
    let last = node.get("/api/v1/events")["last"].as_u64();
    let stop = AtomicBool::new(false);
    let (served, failed) = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let (mut served, mut failed) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                if answers(port) {
                    served += 1
                } else {
                    failed += 1
                }
            }
            (served, failed)
        });
        for starts in 2..5 {
            kill_process(node.agent().expect("lives"), Signal::KILL).expect("killed");
            node.wait_for("the next 3Bot", || {
                let node = node.try_get("/api/v1/node")?;
                (node["agent_starts"] == starts).then_some(())
            });
        }
        stop.store(true, Ordering::Relaxed);
        client.join().expect("client ends")
    });
    println!("{served} requests served while the 3Bot was killed three times");
    assert_eq!(failed, 0);
    assert!(served > 0);
    let after = node.wait_until("web", "health", "ready");
    for field in ["id", "started_uptime_ms", "restarts"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    assert_eq!(node.get("/api/v1/capsules/idle")["state"], "stopped");
    assert!(
        node.get("/api/v1/events")["last"].as_u64() > last,
        "the journal goes on"
    );
    assert!(!node.events("adopted").is_empty());
    assert_eq!(node.post("/api/v1/capsules/idle/start", b"").0, 200);
    node.wait_until("idle", "health", "ready");
}

#[test]
fn only_the_owner_is_obeyed() {
    let (web, _) = web_server("web");
    let node = Node::start(&[web]);
    node.wait_until("web", "health", "ready");
    let path = "/api/v1/capsules/web/stop";
    let refused = |(status, body): (u16, serde_json::Value), reason: &str| {
        assert_eq!(status, 401, "{body}");
        assert_eq!(body, json!({ "error": "refused", "reason": reason }));
    };
    let (status, body) = node.request("POST", path, &[], b"").expect("an answer");
    let body = serde_json::from_slice(&body).expect("JSON");
    refused((status, body), "the request is not signed by the owner");
    let stranger = KeyPair::from_seed([8; 32]).expect("a seed");
    let headers = node.sign(&stranger, path, b"");
    refused(
        node.post_as(&headers, path, b""),
        "the signing key is not the owner's",
    );
    let headers = node.sign(&owner(), "/api/v1/capsules/web/kill", b"");
    refused(
        node.post_as(&headers, path, b""),
        "the signature does not fit the request",
    );
    let headers = node.sign(&owner(), path, b"");
    assert_eq!(node.post_as(&headers, path, b"").0, 200);
    refused(
        node.post_as(&headers, path, b""),
        "the challenge was used before",
    );
    node.wait_until("web", "state", "stopped");
    let (status, body) = node.post(path, b"");
    assert_eq!((status, &body["error"]), (409, &json!("conflict")));
    assert_eq!(node.post("/api/v1/capsules/nobody/stop", b"").0, 404);
    assert_eq!(node.post("/api/v1/node/reboot", b"").0, 501);
    assert_eq!(node.post("/api/v1/capsules/web/kill", b"{\"x\":1}").0, 400);
}

#[test]
fn refused_manifests_are_named_and_the_rest_runs() {
    let sign = |name: &str, key: &KeyPair| {
        let signed = SignedManifest::sign(&manifest(name, &["/bin/sleep", "1000"]), key);
        signed.expect("valid").encode()
    };
    let stranger = KeyPair::from_seed([8; 32]).expect("a seed");
    let mut flipped = sign("flipped", &owner());
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let entries = [
        ("good".to_owned(), sign("good", &owner())),
        ("foreign".to_owned(), sign("foreign", &stranger)),
        ("flipped".to_owned(), flipped),
    ];
    let node = Node::start_signed(&entries, |folder| {
        std::fs::write(folder.join("crash"), "the first line\nthe rest").expect("written");
    });
    node.wait_until("good", "health", "ready");
    let status = node.get("/api/v1/status");
    let reason = |entry: &str| {
        let manifests = status["manifests"].as_array().expect("a list");
        let found = manifests.iter().find(|manifest| manifest["entry"] == entry);
        found.expect("listed")["reason"].clone()
    };
    assert_eq!(reason("good"), json!(null));
    assert_eq!(
        reason("foreign"),
        "signed by a key that does not own this node"
    );
    assert_eq!(reason("flipped"), "the signature does not fit");
    assert_eq!(node.events("refused").len(), 2);
    assert_eq!(status["crash"]["reason"], "the first line");
    assert_eq!(node.post("/api/v1/crash/clear", b"").0, 200);
    assert_eq!(node.get("/api/v1/crash"), json!(null));
}

#[test]
fn starts_are_ordered_and_exec_probes_ask() {
    let folder = std::env::temp_dir().join(format!("skep-order-{}", std::process::id()));
    let _ = std::fs::remove_file(&folder);
    let flag = folder.to_str().expect("UTF-8");
    let script = format!("sleep 0.3; touch {flag}; exec sleep 1000");
    let mut first = manifest("first", &["/bin/sh", "-c", &script]);
    let test = ["/usr/bin/test", "-e", flag].map(str::to_owned).to_vec();
    first.probes.startup = probe(Check::Exec(test));
    let mut second = manifest("a-second", &["/bin/sleep", "1000"]);
    second.start_after = vec!["first".to_owned()];
    let job = once("job", &["/bin/sh", "-c", "echo done"]);
    let node = Node::start(&[first, second, job]);
    let second = node.wait_until("a-second", "health", "ready");
    let first = node.get("/api/v1/capsules/first");
    let started = |capsule: &serde_json::Value| capsule["started_uptime_ms"].as_u64();
    assert!(started(&second) >= started(&first).map(|ms| ms + 300));
    assert_eq!(first["health"], "ready");
    assert_eq!(node.wait_until("job", "state", "finished")["restarts"], 0);
    let _ = std::fs::remove_file(&folder);
}

#[test]
fn logs_are_read_from_any_place() {
    let job = once("job", &["/bin/sh", "-c", "echo one; echo zwölf >&2"]);
    let node = Node::start(&[job]);
    let all = node.wait_for("the log", || {
        let log = node.get("/api/v1/capsules/job/logs?from=0");
        (log["end"] == 11).then_some(log)
    });
    assert_eq!(all["text"], "one\nzwölf\n");
    assert_eq!(all["next"], 11);
    let cut = node.get("/api/v1/capsules/job/logs?from=4&max=3");
    assert_eq!(
        (&cut["text"], &cut["next"]),
        (&json!("zw"), &json!(6)),
        "not within the ö"
    );
    assert_eq!(node.get("/api/v1/capsules/job/logs?tail=2")["text"], "f\n");
    let (status, _) = node
        .request("GET", "/api/v1/capsules/x/logs", &[], b"")
        .expect("an answer");
    assert_eq!(status, 404);
    let (status, _) = node
        .request("GET", "/api/v1/capsules/job/logs?from=x", &[], b"")
        .expect("an answer");
    assert_eq!(status, 400);
}

#[test]
fn rude_clients_disturb_nobody() {
    let (web, _) = web_server("web");
    let node = Node::start(&[web]);
    node.wait_until("web", "health", "ready");
    // More half-open requests than the node allows connections: the oldest give way.
    let idle: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, node.port)).expect("open");
            stream
                .write_all(b"GET /api/v1/status HTT")
                .expect("written");
            stream
        })
        .collect();
    assert_eq!(node.get("/api/v1/capsules/web")["health"], "ready");
    let (status, _) = node.post("/api/v1/capsules/web/kill", b"");
    assert_eq!(status, 200);
    node.wait_for("a second run", || {
        (node.get("/api/v1/capsules/web")["id"] == 2).then_some(())
    });
    drop(idle);
    let long = format!("X: {}", "a".repeat(100_000));
    let (status, _) = node
        .request("GET", "/", &[long], b"")
        .unwrap_or((431, Vec::new()));
    assert_eq!(status, 431);
    let (status, body) = node
        .request("POST", "/api/v1/x", &[], &[b'a'; 20_000])
        .unwrap_or((400, Vec::new()));
    assert_eq!(status, 400, "{}", String::from_utf8_lossy(&body));
    let mut garbage = TcpStream::connect((Ipv4Addr::LOCALHOST, node.port)).expect("open");
    garbage.write_all(&[0xff; 1000]).expect("written");
    let _ = garbage.read(&mut [0; 10]);
    let (status, page) = node.request("GET", "/", &[], b"").expect("an answer");
    assert_eq!(status, 200);
    assert!(page.starts_with(b"<!doctype html>"));
    assert_eq!(
        node.request("PUT", "/", &[], b"").expect("an answer").0,
        405
    );
}
