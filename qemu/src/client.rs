//! Clients that use a node while a scenario does something to it.

use crate::{
    http::{self, Response},
    seconds,
};
use anyhow::{Context as _, Result, ensure};
use rustix::io::Errno;
use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Time after which one visit has failed.
const PATIENCE: Duration = seconds(10);
/// Pause between two visits.
const PAUSE: Duration = Duration::from_millis(5);
/// Failures that are kept for the message.
const FAILURES_SHOWN: usize = 5;

/// A client in a thread of its own that fetches one page again and again, each time
/// over a new connection, and expects the same bytes.
pub struct Visitor {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Visits>,
}

/// What a [`Visitor`] has seen.
#[derive(Debug, Default)]
pub struct Visits {
    /// How long each successful visit took, sorted.
    pub times: Vec<Duration>,
    /// What went wrong, and how long after the first visit.
    pub failures: Vec<(Duration, String)>,
}

impl Visitor {
    /// Begins to fetch `path`; the first answer of status 200 is what is expected.
    pub fn start(address: SocketAddr, path: &str) -> Self {
        let path = path.to_string();
        Self::spawn(move || http::get(address, &path, PATIENCE))
    }

    /// As [`Visitor::start`], each time from the next of these ports that nobody else on
    /// this machine has, in a circle.
    pub fn start_from(ports: Range<u16>, address: SocketAddr, path: &str) -> Self {
        let path = path.to_string();
        let all = ports.len();
        let mut ports = ports.cycle();
        Self::spawn(move || {
            let mut answers = ports.by_ref().take(all).map(|port| {
                let answer = http::get_from(port, address, &path, PATIENCE);
                answer.map_or_else(
                    |error| (is_taken(&error), Err(error)),
                    |page| (false, Ok(page)),
                )
            });
            let free = answers.find(|(is_taken, _)| !is_taken);
            free.context("no free port to come from")?.1
        })
    }

    fn spawn(fetch: impl FnMut() -> Result<Response> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || visit(fetch, &stopped));
        Self { stop, thread }
    }

    /// Ends it and returns what it saw.
    pub fn finish(self) -> Visits {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// Whether somebody else has the port that a connection was to come from.
fn is_taken(error: &anyhow::Error) -> bool {
    let errno = error.downcast_ref::<Errno>();
    errno.is_some_and(|errno| *errno == Errno::ADDRINUSE)
}

fn visit(mut fetch: impl FnMut() -> Result<Response>, stopped: &AtomicBool) -> Visits {
    let mut visits = Visits::default();
    let mut expected = None;
    let start = Instant::now();
    while !stopped.load(Ordering::Relaxed) {
        let failure = match fetch() {
            Ok(answer) if answer.status != 200 => Some(format!("status {}", answer.status)),
            Ok(answer) => {
                visits.times.push(answer.took);
                let same = *expected.get_or_insert_with(|| answer.body.clone()) == answer.body;
                (!same).then(|| "other bytes than at first".to_string())
            }
            Err(error) => Some(format!("{error:#}")),
        };
        visits
            .failures
            .extend(failure.map(|failure| (start.elapsed(), failure)));
        thread::sleep(PAUSE);
    }
    visits.times.sort();
    visits
}

impl Visits {
    /// The time that this share of the visits, 0 to 1, did not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.times.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.times.get(at).copied().unwrap_or_default()
    }

    /// Prints how long visits took, and fails unless there were at least `least` of
    /// them and all succeeded.
    pub fn expect_all_served(&self, what: &str, least: usize) -> Result<()> {
        let ms = |share| self.quantile(share).as_secs_f64() * 1e3;
        println!(
            "{what}: {} visits, median {:.1} ms, 99 % {:.1} ms, longest {:.1} ms",
            self.times.len(),
            ms(0.5),
            ms(0.99),
            ms(1.0)
        );
        let shown = &self.failures[..self.failures.len().min(FAILURES_SHOWN)];
        ensure!(
            self.failures.is_empty(),
            "{what}: {} visits failed, the first: {shown:?}",
            self.failures.len()
        );
        ensure!(
            self.times.len() >= least,
            "{what}: only {} visits, not {least}",
            self.times.len()
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Visitor;
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread,
    };

    #[test]
    fn a_port_that_somebody_has_is_left_out() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        // One port that is taken, and the next one, which may be or not.
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let visitor = Visitor::start_from(port..port.saturating_add(20), address, "/");
        let (mut client, from) = server.accept().unwrap();
        assert_ne!(from.port(), port);
        client
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
            .unwrap();
        drop(client);
        drop(server);
        visitor.finish();
    }

    #[test]
    fn a_failed_visit_and_other_bytes_are_told() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let visitor = Visitor::start(address, "/");
        let answers = ["200 OK\r\nContent-Length: 1\r\n\r\na", "500 No\r\n\r\n", ""];
        let last = "200 OK\r\nContent-Length: 1\r\n\r\nb";
        for answer in answers.into_iter().chain([last]) {
            let (mut client, _) = server.accept().unwrap();
            let _ = client.read(&mut [0; 1024]).unwrap();
            let head = if answer.is_empty() { "" } else { "HTTP/1.1 " };
            write!(client, "{head}{answer}").unwrap();
        }
        let refused = thread::spawn(move || visitor.finish());
        drop(server);
        let visits = refused.join().unwrap();
        assert_eq!(visits.times.len(), 2);
        assert!(visits.failures.len() >= 3, "{:?}", visits.failures);
        assert!(visits.expect_all_served("x", 1).is_err());
        assert!(visits.quantile(0.0) <= visits.quantile(1.0));
    }
}
