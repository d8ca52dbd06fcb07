//! A node on this machine: the real 3Bot over the host runtime, real processes, real HTTP.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use skep_api::manifest::{
    Check, Limits, Manifest, Outbound, Port, Probe, Probes, Protocol, Restart, RestartPolicy,
    SignedManifest, Stop, Validity,
};
use skep_api::node::{Console, Network, NodeConfig};
use skep_api::owner::{self, Challenge, RequestParts, SignedHeaders};
use skep_api::{Hash, KeyPair};

/// Nothing that is waited for takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Tells the capsule program below which port to serve.
const PORT_VARIABLE: &str = "SKEP_TEST_PORT";

pub(crate) fn owner() -> KeyPair {
    KeyPair::from_seed([7; 32]).expect("a seed")
}

/// A manifest with all defaults.
pub(crate) fn manifest(name: &str, command: &[&str]) -> Manifest {
    Manifest {
        name: name.to_owned(),
        sequence: 1,
        tree: Hash::default(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        environment: Vec::new(),
        working_directory: "/".to_owned(),
        user: 0,
        group: 0,
        limits: Limits::default(),
        ports: Vec::new(),
        outbound: Outbound::Deny,
        probes: Probes::default(),
        restart: Restart::default(),
        stop: Stop {
            signal: 15,
            grace_ms: 2_000,
        },
        start_after: Vec::new(),
        system: false,
        validity: Validity::default(),
        devices: Vec::new(),
        raw_network: false,
    }
}

pub(crate) fn probe(check: Check) -> Option<Probe> {
    Some(Probe {
        check,
        interval_ms: 300,
        timeout_ms: 300,
        failure_threshold: 100,
    })
}

/// A capsule that serves HTTP: this test program itself, see [`serve_if_capsule`].
pub(crate) fn web_server(name: &str) -> (Manifest, u16) {
    let port = free_port();
    let own = std::env::current_exe().expect("own path");
    let command = [
        own.to_str().expect("UTF-8"),
        "--exact",
        "capsule_program",
        "--ignored",
        "--nocapture",
    ];
    let mut manifest = manifest(name, &command);
    manifest.environment = vec![(PORT_VARIABLE.to_owned(), port.to_string())];
    manifest.ports = vec![Port {
        capsule: port,
        node: port,
        protocol: Protocol::Tcp,
    }];
    let check = Check::Http {
        port,
        path: "/".to_owned(),
    };
    manifest.probes.startup = probe(check.clone());
    let liveness = Probe {
        check,
        interval_ms: 300,
        timeout_ms: 300,
        failure_threshold: 3,
    };
    manifest.probes.liveness = Some(liveness);
    (manifest, port)
}

/// The program of [`web_server`]: answers every connection with one page.
pub(crate) fn serve_as_capsule() {
    let Ok(port) = std::env::var(PORT_VARIABLE) else {
        return;
    };
    let port: u16 = port.parse().expect("a port");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("port is free");
    println!("serving with é");
    for stream in listener.incoming().flatten() {
        let mut stream = stream;
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    }
}

pub(crate) fn failing(name: &str) -> Manifest {
    manifest(name, &["/bin/false"])
}

pub(crate) fn once(name: &str, command: &[&str]) -> Manifest {
    let mut manifest = manifest(name, command);
    manifest.restart.policy = RestartPolicy::OnFailure;
    manifest
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// A running node; ends with it.
pub(crate) struct Node {
    host: Child,
    pub(crate) port: u16,
    folder: PathBuf,
}

impl Node {
    /// Starts a node with these capsules, all signed by the owner and to be started.
    pub(crate) fn start(manifests: &[Manifest]) -> Self {
        let signed: Vec<_> = manifests
            .iter()
            .map(|manifest| {
                let signed = SignedManifest::sign(manifest, &owner()).expect("valid");
                (manifest.name.clone(), signed.encode())
            })
            .collect();
        Self::start_signed(&signed, |_| ())
    }

    /// Starts a node with these entries; `prepare` may put more into its folder.
    pub(crate) fn start_signed(entries: &[(String, Vec<u8>)], prepare: impl Fn(&PathBuf)) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("skep-threebot-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder");
        let node = NodeConfig {
            name: "test-node".to_owned(),
            owner: owner().public(),
            system: "threebot".to_owned(),
            start: entries.iter().map(|(name, _)| name.clone()).collect(),
            network: Network::default(),
            vlan: None,
            console: Console::default(),
        };
        fs::write(folder.join("node"), node.encode().expect("valid")).expect("written");
        for (name, bytes) in entries {
            fs::write(folder.join(format!("{name}.manifest")), bytes).expect("written");
        }
        prepare(&folder);
        let port = free_port();
        let host = Command::new(env!("CARGO_BIN_EXE_threebot-host"))
            .arg(&folder)
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .spawn()
            .expect("threebot-host starts");
        let node = Self { host, port, folder };
        node.wait_for("the API", || node.try_get("/api/v1/status"));
        node
    }

    /// Waits until `f` gives something.
    pub(crate) fn wait_for<T>(&self, what: &str, mut f: impl FnMut() -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            if let Some(value) = f() {
                return value;
            }
            if begin.elapsed() > PATIENCE {
                let status = self.try_get("/api/v1/status");
                let events = self.try_get("/api/v1/events");
                panic!("waited in vain for {what}: {status:#?} {events:#?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a capsule's `field` has this value, and gives the capsule.
    pub(crate) fn wait_until(&self, name: &str, field: &str, value: &str) -> Value {
        self.wait_for(&format!("{name}.{field} = {value}"), || {
            let capsule = self.try_get(&format!("/api/v1/capsules/{name}"))?;
            (capsule[field] == value).then_some(capsule)
        })
    }

    pub(crate) fn try_get(&self, path: &str) -> Option<Value> {
        let (status, body) = self.request("GET", path, &[], b"")?;
        (status == 200).then(|| serde_json::from_slice(&body).expect("JSON"))
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.try_get(path)
            .unwrap_or_else(|| panic!("GET {path} fails"))
    }

    /// The texts of all events of a kind.
    pub(crate) fn events(&self, kind: &str) -> Vec<String> {
        let events = self.get("/api/v1/events?after=0");
        let events = events["events"].as_array().expect("a list").iter();
        let of_kind = events.filter(|event| event["kind"] == kind);
        of_kind
            .map(|event| event["text"].as_str().expect("text").to_owned())
            .collect()
    }

    pub(crate) fn sign(&self, key: &KeyPair, path: &str, body: &[u8]) -> SignedHeaders {
        let challenge = self.get("/api/v1/challenge");
        let challenge = challenge["challenge"]
            .as_str()
            .and_then(Challenge::from_hex);
        let parts = RequestParts {
            method: "POST",
            path,
            body,
        };
        owner::sign(
            key.secret(),
            "test-node",
            challenge.expect("a challenge"),
            &parts,
        )
    }

    /// Sends a command with these headers; status and answer.
    pub(crate) fn post_as(&self, headers: &SignedHeaders, path: &str, body: &[u8]) -> (u16, Value) {
        let headers = [
            format!("{}: {}", owner::HEADER_KEY, headers.key),
            format!("{}: {}", owner::HEADER_CHALLENGE, headers.challenge),
            format!("{}: {}", owner::HEADER_SIGNATURE, headers.signature),
        ];
        let (status, body) = self
            .request("POST", path, &headers, body)
            .expect("an answer");
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    /// Sends a command signed by the owner.
    pub(crate) fn post(&self, path: &str, body: &[u8]) -> (u16, Value) {
        let headers = self.sign(&owner(), path, body);
        self.post_as(&headers, path, body)
    }

    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[String],
        body: &[u8],
    ) -> Option<(u16, Vec<u8>)> {
        let headers: String = headers
            .iter()
            .map(|header| format!("{header}\r\n"))
            .collect();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\
             Content-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        let answer = exchange(self.port, &[head.as_bytes(), body].concat())?;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
        let status = std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()?;
        Some((status, answer[end + 4..].to_vec()))
    }

    /// The 3Bot's process, if it lives.
    pub(crate) fn agent(&self) -> Option<Pid> {
        for entry in fs::read_dir("/proc").ok()?.flatten() {
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
                continue;
            };
            let Some((head, rest)) = stat.rsplit_once(") ") else {
                continue;
            };
            let parent = rest
                .split(' ')
                .nth(1)
                .and_then(|word| word.parse::<u32>().ok());
            if parent == Some(self.host.id())
                && let Some((pid, "threebot")) = head.split_once(" (")
            {
                return Pid::from_raw(pid.parse().ok()?);
            }
        }
        None
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.host.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.host.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Sends bytes to a local port and reads until the other side closes.
pub(crate) fn exchange(port: u16, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    stream.write_all(bytes).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(answer)
}

/// Whether a web server capsule answers.
pub(crate) fn answers(port: u16) -> bool {
    let answer = exchange(port, b"GET / HTTP/1.0\r\n\r\n");
    answer.is_some_and(|answer| answer.ends_with(b"ok"))
}
