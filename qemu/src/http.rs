//! A small HTTP/1.1 client: one request per connection, every wait bounded.

use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::{self, AddressFamily, SocketType, sockopt};
use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// Largest answer accepted, in bytes.
const ANSWER_MAX: usize = 256 << 20;

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code, such as 200.
    pub status: u16,
    /// Header names in lower case, with their values.
    pub headers: Vec<(String, String)>,
    /// The content, with any chunking undone.
    pub body: Vec<u8>,
    /// From before connecting to the last byte.
    pub took: Duration,
}

impl Response {
    /// The value of a header, its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The content as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| {
            format!(
                "not JSON: {}",
                self.text().chars().take(200).collect::<String>()
            )
        })
    }
}

/// Fetches `path`, in at most `timeout` altogether.
pub fn get(address: SocketAddr, path: &str, timeout: Duration) -> Result<Response> {
    request(address, "GET", path, &[], &[], timeout)
}

/// As [`get`], from port `source` of this machine.
pub fn get_from(
    source: u16,
    address: SocketAddr,
    path: &str,
    timeout: Duration,
) -> Result<Response> {
    let start = Instant::now();
    let stream = connect_from(source, address, timeout).context("cannot connect")?;
    exchange((stream, start), address, "GET", path, &[], &[], timeout)
}

/// Makes any request, in at most `timeout` altogether. A status other than 200
/// is an answer, not an error.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    timeout: Duration,
) -> Result<Response> {
    let start = Instant::now();
    let stream = TcpStream::connect_timeout(&address, timeout).context("cannot connect")?;
    let begun = (stream, start);
    exchange(begun, address, method, path, headers, body, timeout)
}

fn connect_from(source: u16, to: SocketAddr, timeout: Duration) -> rustix::io::Result<TcpStream> {
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    // An earlier connection of this port may still be in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, source)))?;
    // Bounds `connect` too (socket(7)).
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(timeout))?;
    net::connect(&socket, &to)?;
    Ok(socket.into())
}

/// The rest of a request: `begun` is a connection, and when it was begun.
fn exchange(
    (mut stream, start): (TcpStream, Instant),
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    timeout: Duration,
) -> Result<Response> {
    let left = || {
        timeout
            .checked_sub(start.elapsed())
            .filter(|left| !left.is_zero())
    };
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || !matches!(method, "GET" | "HEAD") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.set_write_timeout(Some(left().context("timed out")?))?;
    stream
        .write_all(&[head.as_bytes(), body].concat())
        .context("cannot send the request")?;

    let mut answer = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    while !is_complete(&answer, method) {
        stream.set_read_timeout(Some(left().context("timed out waiting for the answer")?))?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                bail!("timed out after {} bytes of the answer", answer.len())
            }
            Err(error) => return Err(error).context("the connection broke"),
        }
        ensure!(
            answer.len() <= ANSWER_MAX,
            "the answer is over {ANSWER_MAX} bytes"
        );
    }
    let mut response = parse(&answer, method)?;
    response.took = start.elapsed();
    Ok(response)
}

/// Whether an answer of known length has arrived, so that a server that keeps
/// the connection open does not hold us up.
pub(crate) fn is_complete(answer: &[u8], method: &str) -> bool {
    let Some((head, body)) = split_head(answer) else {
        return false;
    };
    if method == "HEAD" {
        return true;
    }
    let length = header_lines(head)
        .find(|(name, _)| name == "content-length")
        .and_then(|(_, value)| value.parse::<usize>().ok());
    length.is_some_and(|length| body.len() >= length)
}

fn split_head(answer: &[u8]) -> Option<(&str, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some((
        std::str::from_utf8(&answer[..end]).ok()?,
        &answer[end + 4..],
    ))
}

fn header_lines(head: &str) -> impl Iterator<Item = (String, String)> + '_ {
    head.split("\r\n").skip(1).filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().to_ascii_lowercase(), value.trim().to_string()))
    })
}

pub(crate) fn parse(answer: &[u8], method: &str) -> Result<Response> {
    ensure!(
        !answer.is_empty(),
        "the connection was closed without an answer"
    );
    let (head, body) = split_head(answer).context("the answer has no complete head")?;
    let status = head
        .strip_prefix("HTTP/1.")
        .and_then(|line| line.get(2..5))
        .and_then(|code| code.parse().ok())
        .with_context(|| format!("not an HTTP answer: {:?}", head.lines().next()))?;
    let headers: Vec<_> = header_lines(head).collect();
    let mut response = Response {
        status,
        headers,
        body: Vec::new(),
        took: Duration::ZERO,
    };
    let chunked = response
        .header("transfer-encoding")
        .is_some_and(|value| value == "chunked");
    response.body = if chunked {
        unchunk(body)?
    } else if let Some(length) = response
        .header("content-length")
        .filter(|_| method != "HEAD")
    {
        let length = length.parse().context("bad Content-Length")?;
        let found = body.len();
        body.get(..length)
            .with_context(|| format!("the answer ends after {found} of {length} bytes"))?
            .to_vec()
    } else {
        body.to_vec()
    };
    Ok(response)
}

/// Undoes chunked transfer coding (RFC 9112, section 7.1); trailers are dropped.
fn unchunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest
            .windows(2)
            .position(|two| two == b"\r\n")
            .context("a chunk is cut short")?;
        let size = std::str::from_utf8(&rest[..end])?
            .split(';')
            .next()
            .unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16).context("bad chunk size")?;
        if size == 0 {
            return Ok(body);
        }
        let data = rest[end + 2..]
            .split_at_checked(size)
            .context("a chunk is cut short")?;
        body.extend_from_slice(data.0);
        rest = data
            .1
            .strip_prefix(b"\r\n")
            .context("a chunk is cut short")?;
    }
}

#[cfg(test)]
mod tests {
    use super::{get, parse};
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        time::{Duration, Instant},
    };

    #[test]
    fn reads_a_body_of_known_length() {
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nX-A: b\r\n\r\nabcdef";
        let response = parse(answer, "GET").unwrap();
        assert_eq!((response.status, response.text().as_str()), (404, "abc"));
        assert_eq!(response.header("x-a"), Some("b"));
    }

    #[test]
    fn reads_a_chunked_body() {
        let answer =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=1\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(parse(answer, "GET").unwrap().text(), "abc0123456789");
    }

    #[test]
    fn refuses_what_is_cut_short() {
        for answer in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\nConte",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            b"SSH-2.0-x\r\n\r\n",
        ] {
            assert!(parse(answer, "GET").is_err(), "{answer:?}");
        }
    }

    #[test]
    fn a_server_that_says_nothing_is_given_up_on_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let start = Instant::now();
        assert!(get(address, "/", Duration::from_millis(100)).is_err());
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_kept_open_connection_does_not_hold_up_the_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1000]).unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
                .unwrap();
            stream
        });
        let response = get(address, "/", Duration::from_secs(5)).unwrap();
        assert_eq!(response.text(), "hi");
        drop(server.join().unwrap());
    }
}
