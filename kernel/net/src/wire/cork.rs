//! What a connection holds back until more follows (`TCP_CORK`, `MSG_MORE`).

use super::conn::Conn;
use core::net::SocketAddr;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use machine::time::Instant;

/// How long `TCP_CORK` holds back less than a segment (tcp(7)).
const CORKED: Duration = Duration::from_millis(200);

impl Conn {
    /// The program is about to write, and says whether more follows at once.
    #[inline]
    pub(crate) fn expect_more(&self, more: bool) {
        if self.more.load(Relaxed) != more {
            self.more.store(more, Relaxed);
        }
    }

    /// How many bytes may leave although the connection is corked, where a packet has
    /// `mtu` bytes: whole segments, and after a while all.
    pub(super) fn uncorked(
        &self,
        held_until: &mut Option<Instant>,
        mtu: usize,
        now: Instant,
    ) -> usize {
        let headers = match self.flow.remote {
            SocketAddr::V4(_) => 40,
            SocketAddr::V6(_) => 60,
        };
        let segment = mtu.saturating_sub(headers).max(1);
        let waiting = self.wire.incoming().len();
        let whole = waiting - waiting % segment;
        let is_over = self.wire.is_peer_done() || held_until.is_some_and(|until| until <= now);
        if whole == waiting || is_over {
            *held_until = None;
            return usize::MAX;
        }
        held_until.get_or_insert(now.after(CORKED));
        whole
    }
}
