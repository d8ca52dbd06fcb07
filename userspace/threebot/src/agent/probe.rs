//! Asks a capsule how it is.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use skep_api::control::{CapsuleId, EXEC_TIMEOUT_MS_MAX, ExitStatus};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Agent;
use crate::supervisor::{Check, Probe};

/// An HTTP status line is never longer.
const STATUS_LINE_BYTES_MAX: usize = 256;

/// Asks once, within the probe's time-out. `Err` says what was wrong.
pub(super) async fn ask(agent: &Agent, capsule: CapsuleId, probe: &Probe) -> Result<(), String> {
    let limit = Duration::from_millis(probe.timeout);
    let answer = async {
        match &probe.check {
            Check::Exec(argv) => exec(agent, capsule, argv, probe).await,
            Check::Tcp(port) => connect(*port).await.map(drop),
            Check::Http { port, path } => http(*port, path).await,
        }
    };
    match timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} ms", probe.timeout)),
    }
}

async fn exec(
    agent: &Agent,
    capsule: CapsuleId,
    argv: &[String],
    probe: &Probe,
) -> Result<(), String> {
    let timeout_ms = u32::try_from(probe.timeout)
        .unwrap_or(u32::MAX)
        .min(EXEC_TIMEOUT_MS_MAX);
    let exec = agent.control.exec(capsule, argv.to_vec(), timeout_ms).await;
    let exec = exec.map_err(|failure| failure.to_string())?;
    match agent.execs.finished(exec).await {
        Some(ExitStatus::Code(0)) => Ok(()),
        Some(ExitStatus::Code(code)) => Err(format!("exit code {code}")),
        Some(ExitStatus::Signal(signal)) => Err(super::words::signal_name(signal)),
        None => Err(format!("no end within {} ms", probe.timeout)),
    }
}

async fn connect(port: u16) -> Result<TcpStream, String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect(address)
        .await
        .map_err(|error| format!("connect to port {port}: {error}"))
}

async fn http(port: u16, path: &str) -> Result<(), String> {
    let mut stream = connect(port).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: skep-probe\r\n\
         Connection: close\r\n\r\n"
    );
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|error| error.to_string())?;
    let mut head = Vec::new();
    let mut buffer = [0; STATUS_LINE_BYTES_MAX];
    while !head.contains(&b'\n') && head.len() < STATUS_LINE_BYTES_MAX {
        let count = stream
            .read(&mut buffer)
            .await
            .map_err(|error| error.to_string())?;
        if count == 0 {
            break;
        }
        head.extend_from_slice(&buffer[..count]);
    }
    judge(&head)
}

/// Whether a status line begins `HTTP/1.x` and a status of 200 to 399.
fn judge(head: &[u8]) -> Result<(), String> {
    let line = head
        .split(|byte| *byte == b'\r' || *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .and_then(|status| status.parse::<u16>().ok());
    match status {
        Some(200..=399) => Ok(()),
        Some(status) => Err(format!("HTTP status {status}")),
        None => Err("no HTTP answer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn status_lines_are_judged() {
        assert!(judge(b"HTTP/1.1 200 OK\r\nServer: x\r\n").is_ok());
        assert!(judge(b"HTTP/1.0 399 \r\n").is_ok());
        assert_eq!(
            judge(b"HTTP/1.1 503 no\r\n"),
            Err("HTTP status 503".to_owned())
        );
        for strange in [
            "",
            "HTTP/1.1",
            "HTTP/1.1 2é0 OK\r\n",
            "SSH-2.0-x\r\n",
            "HTTP/2 200\r\n",
        ] {
            assert!(judge(strange.as_bytes()).is_err(), "{strange}");
        }
    }
}
