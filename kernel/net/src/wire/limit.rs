//! How long a connection may go unanswered.

use smoltcp::socket::tcp::{self, State};

/// Takes the engine's time limit away while the peer owes nothing, and gives it back: the
/// engine counts from what it heard last, and would end a connection that is just idle.
pub(super) fn renew(t: &mut tcp::Socket<'_>, saved: &mut Option<smoltcp::time::Duration>) {
    let open = matches!(t.state(), State::Established | State::CloseWait);
    let is_idle = open && t.send_queue() == 0 && t.keep_alive().is_none();
    match (is_idle, t.timeout()) {
        (true, Some(limit)) => {
            *saved = Some(limit);
            t.set_timeout(None);
        }
        (false, None) => t.set_timeout(saved.take()),
        _ => {}
    }
}
