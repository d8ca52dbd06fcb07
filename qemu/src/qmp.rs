//! QEMU's control protocol: JSON lines over a unix socket.
//!
//! Source: QEMU's `docs/interop/qmp-spec.rst`; the commands are in its QMP
//! reference manual.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::{
    collections::{BTreeSet, VecDeque},
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

/// How long QEMU may take to answer a command; it answers at once unless the
/// host is badly loaded.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Something QEMU reported by itself.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its name, such as `RESET` or `SHUTDOWN`.
    pub name: String,
    /// What belongs to it.
    pub data: Value,
}

/// A connection to one QEMU.
pub struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    /// A line of which only the beginning has arrived.
    partial: String,
    events: VecDeque<Event>,
}

impl Qmp {
    /// Connects and leaves the greeting behind.
    pub fn connect(socket: &Path) -> Result<Self> {
        let writer = UnixStream::connect(socket)?;
        let mut qmp = Self {
            reader: BufReader::new(writer.try_clone()?),
            writer,
            partial: String::new(),
            events: VecDeque::new(),
        };
        let greeting = qmp.read(Instant::now() + ANSWER_TIMEOUT)?;
        if greeting
            .as_ref()
            .is_none_or(|value| value.get("QMP").is_none())
        {
            bail!("QEMU did not greet: {greeting:?}");
        }
        qmp.execute("qmp_capabilities")?;
        Ok(qmp)
    }

    /// Executes a command without arguments and returns its result.
    pub fn execute(&mut self, command: &str) -> Result<Value> {
        self.send(&json!({ "execute": command }))
    }

    /// Executes a command and returns its result.
    pub fn execute_with(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        self.send(&json!({ "execute": command, "arguments": arguments }))
    }

    /// Sends a non-maskable interrupt to every CPU.
    pub fn inject_nmi(&mut self) -> Result<()> {
        self.execute("inject-nmi").map(drop)
    }

    /// Presses the power button; a node shuts down cleanly on it.
    pub fn power_button(&mut self) -> Result<()> {
        self.execute("system_powerdown").map(drop)
    }

    /// Presses the reset button.
    pub fn reset(&mut self) -> Result<()> {
        self.execute("system_reset").map(drop)
    }

    /// Freezes all CPUs.
    pub fn stop(&mut self) -> Result<()> {
        self.execute("stop").map(drop)
    }

    /// Lets frozen CPUs go on.
    pub fn resume(&mut self) -> Result<()> {
        self.execute("cont").map(drop)
    }

    /// Ends QEMU at once, like pulling the plug.
    pub fn quit(&mut self) -> Result<()> {
        self.execute("quit").map(drop)
    }

    /// Pulls or plugs the network cable of a device or network back end.
    pub fn set_link(&mut self, name: &str, up: bool) -> Result<()> {
        self.execute_with("set_link", &json!({ "name": name, "up": up }))
            .map(drop)
    }

    /// Plugs in a device; `arguments` are those of `-device`, with `driver` and `id`.
    pub fn device_add(&mut self, arguments: &Value) -> Result<()> {
        self.execute_with("device_add", arguments).map(drop)
    }

    /// Asks for a device to be unplugged; [`Event`] `DEVICE_DELETED` says when it is.
    pub fn device_del(&mut self, id: &str) -> Result<()> {
        self.execute_with("device_del", &json!({ "id": id }))
            .map(drop)
    }

    /// Presses a key of the node's keyboard, by QEMU's name for it.
    pub fn press_key(&mut self, name: &str) -> Result<()> {
        let keys = json!([{ "type": "qcode", "data": name }]);
        self.execute_with("send-key", &json!({ "keys": keys }))
            .map(drop)
    }

    /// Writes a picture of the screen as PPM.
    pub fn screendump(&mut self, out: &Path) -> Result<()> {
        let arguments = json!({ "filename": out, "format": "ppm" });
        self.execute_with("screendump", &arguments).map(drop)
    }

    /// Runs a command of the human monitor, for the few things QMP lacks.
    pub fn monitor(&mut self, line: &str) -> Result<String> {
        let value = self.execute_with("human-monitor-command", &json!({ "command-line": line }))?;
        Ok(value.as_str().unwrap_or_default().to_string())
    }

    /// The kinds of objects that the machine is made of, from the root of QEMU's tree of
    /// them; memory regions are left out.
    pub fn parts(&mut self) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        let mut paths = vec!["/machine".to_string()];
        while let Some(path) = paths.pop() {
            let list = self.execute_with("qom-list", &json!({ "path": path }))?;
            for entry in list.as_array().into_iter().flatten() {
                let word = |key: &str| entry[key].as_str().unwrap_or_default();
                let kind = word("type").strip_prefix("child<");
                let kind = kind.and_then(|rest| rest.strip_suffix('>'));
                if let Some(kind) = kind.filter(|kind| *kind != "memory-region") {
                    found.insert(kind.to_string());
                    paths.push(format!("{path}/{}", word("name")));
                }
            }
        }
        Ok(found)
    }

    /// Waits for an event of this name; those of other names are dropped, an
    /// event that came before is taken.
    pub fn wait_event(&mut self, name: &str, timeout: Duration) -> Result<Event> {
        let deadline = Instant::now() + timeout;
        loop {
            while let Some(event) = self.events.pop_front() {
                if event.name == name {
                    return Ok(event);
                }
            }
            match self.read(deadline)? {
                Some(message) => self.keep_event(&message),
                None => bail!("no event {name} within {timeout:?}"),
            }
        }
    }

    /// Forgets the events that have arrived.
    pub fn clear_events(&mut self) -> Result<()> {
        while let Some(message) = self.read(Instant::now())? {
            self.keep_event(&message);
        }
        self.events.clear();
        Ok(())
    }

    fn send(&mut self, command: &Value) -> Result<Value> {
        writeln!(self.writer, "{command}").context("QEMU does not take commands any more")?;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let Some(mut message) = self.read(deadline)? else {
                bail!("QEMU did not answer {command}");
            };
            if let Some(result) = message.get_mut("return") {
                return Ok(result.take());
            }
            if let Some(error) = message.get("error") {
                bail!(
                    "QEMU refused {command}: {}",
                    error["desc"].as_str().unwrap_or("?")
                );
            }
            self.keep_event(&message);
        }
    }

    fn keep_event(&mut self, message: &Value) {
        if let Some(name) = message.get("event").and_then(Value::as_str) {
            let data = message.get("data").cloned().unwrap_or_default();
            self.events.push_back(Event {
                name: name.to_string(),
                data,
            });
        }
    }

    /// The next message, or `None` when the deadline passes first.
    fn read(&mut self, deadline: Instant) -> Result<Option<Value>> {
        loop {
            // A timeout of zero would mean none at all.
            let left = deadline.saturating_duration_since(Instant::now());
            let left = left.max(Duration::from_millis(1));
            self.reader.get_ref().set_read_timeout(Some(left))?;
            match self.reader.read_line(&mut self.partial) {
                Ok(0) => bail!("QEMU closed its control socket"),
                Ok(_) => {
                    let line = std::mem::take(&mut self.partial);
                    return serde_json::from_str(&line)
                        .context("QEMU sent no JSON")
                        .map(Some);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error).context("QEMU's control socket broke"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Qmp;
    use serde_json::Value;
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        os::unix::net::UnixListener,
        path::PathBuf,
        thread::{self, JoinHandle},
        time::Duration,
    };

    /// A server that greets, then answers each command with the next text.
    fn server(name: &str, answers: &'static [&'static str]) -> (PathBuf, JoinHandle<()>) {
        let path = std::env::temp_dir().join(format!("skep-qmp-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut commands = BufReader::new(stream.try_clone().unwrap()).lines();
            stream.write_all(b"{\"QMP\":{}}\n").unwrap();
            for answer in [r#"{"return":{}}"#].iter().chain(answers) {
                let command = commands.next().unwrap().unwrap();
                assert!(serde_json::from_str::<Value>(&command).is_ok());
                // In two pieces, as a socket may deliver it.
                let (first, second) = answer.split_at(answer.len() / 2);
                stream.write_all(first.as_bytes()).unwrap();
                thread::sleep(Duration::from_millis(20));
                stream.write_all(second.as_bytes()).unwrap();
                stream.write_all(b"\n").unwrap();
            }
        });
        (path, server)
    }

    #[test]
    fn answers_and_events_are_told_apart() {
        const ANSWER: &str =
            "{\"event\":\"RESET\",\"data\":{\"guest\":true}}\n{\"return\":{\"a\":1}}";
        let (path, server) = server("events", &[ANSWER]);
        let mut qmp = Qmp::connect(&path).unwrap();
        assert_eq!(qmp.execute("query-x").unwrap()["a"], 1);
        let event = qmp.wait_event("RESET", Duration::from_secs(1)).unwrap();
        assert_eq!(event.data["guest"], true);
        server.join().unwrap();
    }

    #[test]
    fn the_machine_is_walked_to_its_leaves() {
        let (path, server) = server(
            "parts",
            &[
                r#"{"return":[{"name":"a","type":"child<box>"},{"name":"b","type":"link<c>"}]}"#,
                r#"{"return":[{"name":"n","type":"child<e1000>"},{"name":"x","type":"uint8"}]}"#,
                r#"{"return":[{"name":"bar[0]","type":"child<memory-region>"}]}"#,
            ],
        );
        let parts = Qmp::connect(&path).unwrap().parts().unwrap();
        assert_eq!(parts.into_iter().collect::<Vec<_>>(), ["box", "e1000"]);
        server.join().unwrap();
    }

    #[test]
    fn refusals_are_errors_with_their_reason() {
        let (path, server) = server(
            "refusal",
            &[r#"{"error":{"class":"GenericError","desc":"no such thing"}}"#],
        );
        let mut qmp = Qmp::connect(&path).unwrap();
        let error = qmp.execute("eject").unwrap_err().to_string();
        assert!(error.contains("no such thing"), "{error}");
        server.join().unwrap();
    }
}
