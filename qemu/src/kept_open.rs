//! HTTP connections that stay open for one request after another.

use crate::http::{Response, is_complete, parse};
use anyhow::{Context as _, Result, ensure};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// One connection.
pub struct KeptOpen {
    stream: TcpStream,
    address: SocketAddr,
    asked: Instant,
}

impl KeptOpen {
    /// Connects; that and each wait for an answer take at most `timeout`.
    pub fn connect(address: SocketAddr, timeout: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, timeout).context("cannot connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self {
            stream,
            address,
            asked: Instant::now(),
        })
    }

    /// Asks for a page, and does not wait for it.
    pub fn ask(&mut self, path: &str) -> Result<()> {
        self.asked = Instant::now();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        let sent = self.stream.write_all(request.as_bytes());
        sent.context("cannot send the request")
    }

    /// The answer, whose length must be told in its head. Fails when the connection was
    /// closed instead, or more came than was asked for.
    pub fn answer(&mut self) -> Result<Response> {
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        while !is_complete(&answer, "GET") {
            let count = self.stream.read(&mut chunk).context("no answer")?;
            ensure!(
                count > 0,
                "closed after {} bytes of an answer",
                answer.len()
            );
            answer.extend_from_slice(&chunk[..count]);
        }
        let mut response = parse(&answer, "GET")?;
        let end = answer.len() - response.body.len();
        ensure!(
            answer
                .get(..end)
                .is_some_and(|head| head.ends_with(b"\r\n\r\n")),
            "more came than the answer"
        );
        response.took = self.asked.elapsed();
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::KeptOpen;
    use crate::seconds;
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread,
    };

    #[test]
    fn one_connection_carries_several_requests_and_tells_when_it_is_closed() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let serving = thread::spawn(move || {
            let (mut client, _) = server.accept().unwrap();
            for body in ["a", "bc"] {
                assert!(client.read(&mut [0; 1024]).unwrap() > 0);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}", body.len());
                write!(client, "{head}\r\n\r\n{body}").unwrap();
            }
        });
        let mut connection = KeptOpen::connect(address, seconds(5)).unwrap();
        for body in ["a", "bc"] {
            connection.ask("/").unwrap();
            assert_eq!(connection.answer().unwrap().text(), body);
        }
        serving.join().unwrap();
        assert!(
            connection
                .ask("/")
                .and_then(|()| connection.answer())
                .is_err()
        );
    }

    #[test]
    fn more_than_the_answer_is_an_error() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let serving = thread::spawn(move || {
            let (mut client, _) = server.accept().unwrap();
            assert!(client.read(&mut [0; 1024]).unwrap() > 0);
            write!(client, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab").unwrap();
        });
        let mut connection = KeptOpen::connect(address, seconds(5)).unwrap();
        connection.ask("/").unwrap();
        assert!(connection.answer().is_err());
        serving.join().unwrap();
    }
}
