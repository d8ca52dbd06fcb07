//! How long a connection may go unanswered.

use smoltcp::socket::tcp::{self, State};
use smoltcp::time::{Duration, Instant};

/// What was taken away from an idle connection, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifted {
    limit: Duration,
    at: Instant,
}

/// Takes the engine's time limit away while the peer owes nothing, and gives it back: the
/// engine counts from what it heard last, and would end a connection that is just idle.
///
/// Where the program sends, the engine counts anew. Where it closes, the engine does not:
/// there the time that was idle is allowed besides.
pub(super) fn renew(t: &mut tcp::Socket<'_>, lifted: &mut Option<Lifted>, now: Instant) {
    let open = matches!(t.state(), State::Established | State::CloseWait);
    let is_idle = open && t.send_queue() == 0 && t.keep_alive().is_none();
    if let Some(limit) = t.timeout()
        && is_idle
    {
        *lifted = Some(Lifted { limit, at: now });
        t.set_timeout(None);
    } else if t.timeout().is_none()
        && !is_idle
        && let Some(Lifted { limit, at }) = lifted.take()
    {
        let idle = if open { Duration::ZERO } else { now - at };
        t.set_timeout(Some(limit + idle));
    }
}
