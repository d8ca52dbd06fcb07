//! The node's HTTP server: the JSON API and the status page.
//!
//! Bounded everywhere: connections, their life, the size and time of requests. It shares a thread
//! with the agent and never waits while holding anything of it, so no client can slow down
//! supervision.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::agent::Agent;

mod boot;
mod command;
mod profile;
mod reply;
mod routes;
mod update;
mod view;

/// Connections at a time. One more closes the oldest, so that idle or slow clients cannot keep
/// others out.
const CONNECTIONS_MAX: usize = 64;
/// A connection is closed after this time.
const LIFE: Duration = Duration::from_secs(120);
/// The head of a request must arrive within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The head of a request is no longer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// After a failed accept (no descriptors, say) the next is tried after this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves for ever.
pub async fn serve(agent: Rc<Agent>, listener: TcpListener) {
    let connections = RefCell::new(VecDeque::new());
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                make_room(&mut connections.borrow_mut());
                let task = tokio::task::spawn_local(converse(Rc::clone(&agent), stream));
                connections.borrow_mut().push_back(task.abort_handle());
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Opens the listening socket.
///
/// # Errors
///
/// What binding gives.
pub async fn listen(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

fn make_room(connections: &mut VecDeque<AbortHandle>) {
    connections.retain(|connection| !connection.is_finished());
    while connections.len() >= CONNECTIONS_MAX {
        if let Some(oldest) = connections.pop_front() {
            oldest.abort();
        }
    }
}

async fn converse(agent: Rc<Agent>, stream: TcpStream) {
    let _ = stream.set_nodelay(true); // only makes it faster
    let service = service_fn(move |request| {
        let agent = Rc::clone(&agent);
        async move { Ok::<_, Infallible>(routes::answer(&agent, request).await) }
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    // What goes wrong on a connection is its client's affair.
    let _ = tokio::time::timeout(LIFE, connection).await;
}
