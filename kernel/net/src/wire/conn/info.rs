//! What a connection tells of itself.

use super::Conn;
use crate::wire::meter::Figures;
use smoltcp::socket::tcp::State;

/// What `TCP_INFO` can tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct Info {
    /// State, numbered as Linux does (`TCP_ESTABLISHED` is 1).
    pub state: u8,
    /// Bytes sent or to be sent that were not acknowledged.
    pub unacknowledged: usize,
    /// What was measured.
    pub figures: Figures,
}

impl Conn {
    /// For `TCP_INFO`.
    #[must_use]
    pub fn info(&self) -> Info {
        let mut core = self.core.lock();
        let figures = core.meter.figures;
        let Some(s) = &mut core.socket else {
            return Info {
                state: 7,
                unacknowledged: 0,
                figures,
            };
        };
        let t = s.tcp();
        Info {
            state: match t.state() {
                State::Established => 1,
                State::SynSent => 2,
                State::SynReceived => 3,
                State::FinWait1 => 4,
                State::FinWait2 => 5,
                State::TimeWait => 6,
                State::Closed => 7,
                State::CloseWait => 8,
                State::LastAck => 9,
                State::Listen => 10,
                State::Closing => 11,
            },
            unacknowledged: t.send_queue(),
            figures,
        }
    }
}
