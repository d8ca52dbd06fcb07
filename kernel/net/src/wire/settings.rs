//! What a program's options mean to the engine.

use crate::options::{Options, Switch};
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use smoltcp::socket::tcp;

/// How long a program's connection attempt may take: Linux's six SYNs.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(127);
/// How long data may stay unacknowledged (`tcp_retries2`, about 15 minutes).
pub(super) const DATA_TIMEOUT: Duration = Duration::from_secs(924);

/// Options and timers of a socket at the start of a connection.
pub(super) fn prepare(t: &mut tcp::Socket<'_>, options: &Options) {
    t.set_congestion_control(tcp::CongestionControl::Reno);
    apply(t, options, true);
}

pub(super) fn apply(t: &mut tcp::Socket<'_>, options: &Options, connecting: bool) {
    let seconds = |s: u32| smoltcp::time::Duration::from_secs(u64::from(s.max(1)));
    t.set_nagle_enabled(!options.on(Switch::NoDelay) || options.on(Switch::Cork));
    let ttl = options.ttl.load(Relaxed);
    t.set_hop_limit(Some(u8::try_from(ttl.clamp(1, 255)).unwrap_or(64)));
    let (idle, interval, count) = (
        options.keep_idle.load(Relaxed),
        options.keep_interval.load(Relaxed),
        options.keep_count.load(Relaxed),
    );
    let mut limit = match options.user_timeout.load(Relaxed) {
        0 if connecting => CONNECT_TIMEOUT,
        0 => DATA_TIMEOUT,
        ms => Duration::from_millis(u64::from(ms)),
    };
    if options.on(Switch::KeepAlive) {
        t.set_keep_alive(Some(seconds(idle)));
        // The engine repeats its probes after the idle time; what bounds them is
        // the time without any answer.
        let silence = u64::from(idle) + u64::from(interval) * u64::from(count);
        limit = limit.max(Duration::from_secs(silence));
    } else {
        t.set_keep_alive(None);
    }
    t.set_timeout(Some(timeout(limit)));
}

pub(super) fn timeout(d: Duration) -> smoltcp::time::Duration {
    smoltcp::time::Duration::from_micros(u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}
