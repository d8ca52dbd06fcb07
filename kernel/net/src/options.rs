//! Socket options that are plain values; the sockets look at them where they
//! matter (socket(7), tcp(7), ip(7)).

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;

/// Receive and send buffer of a new socket: `net.core.rmem_default`, as Linux has
/// it since 2.6.
pub const BUFFER_DEFAULT: usize = 212_992;
/// The largest buffer a program can ask for.
pub const BUFFER_MAX: usize = 4 << 20;
/// The smallest buffer.
pub const BUFFER_MIN: usize = 4608;

macro_rules! switches {
    ($($(#[$doc:meta])* $name:ident = $bit:expr;)*) => {
        /// Options that are on or off.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Switch { $($(#[$doc])* $name = 1 << $bit,)* }
    };
}

switches! {
    /// `SO_REUSEADDR`.
    ReuseAddr = 0;
    /// `SO_REUSEPORT`.
    ReusePort = 1;
    /// `SO_KEEPALIVE`.
    KeepAlive = 2;
    /// `SO_BROADCAST`.
    Broadcast = 3;
    /// `SO_PASSCRED`.
    PassCred = 4;
    /// `SO_OOBINLINE`.
    OobInline = 5;
    /// `SO_DONTROUTE`.
    DontRoute = 6;
    /// `TCP_NODELAY`.
    NoDelay = 7;
    /// `TCP_CORK`.
    Cork = 8;
    /// `TCP_QUICKACK`.
    QuickAck = 9;
    /// `IPV6_V6ONLY`.
    V6Only = 10;
    /// `IP_PKTINFO`.
    PacketInfo = 11;
    /// `IPV6_RECVPKTINFO`.
    PacketInfo6 = 12;
    /// `IP_RECVTTL`.
    ReceiveTtl = 13;
    /// `IP_RECVTOS`.
    ReceiveTos = 14;
    /// `IP_RECVERR` and `IPV6_RECVERR`.
    ReceiveErrors = 15;
    /// `IP_FREEBIND`.
    FreeBind = 16;
    /// `SO_TIMESTAMP`: microseconds.
    Timestamp = 17;
    /// `IP_BIND_ADDRESS_NO_PORT`.
    BindNoPort = 18;
    /// `IP_MULTICAST_LOOP`.
    MulticastLoop = 19;
    /// `IPV6_RECVHOPLIMIT`.
    ReceiveHopLimit = 20;
    /// `SO_ZEROCOPY`.
    ZeroCopy = 21;
    /// `IPV6_RECVTCLASS`.
    ReceiveClass = 22;
    /// `IP_MULTICAST_ALL` and `IPV6_MULTICAST_ALL`.
    MulticastAll = 23;
    /// `IP_HDRINCL`.
    HeaderIncluded = 24;
    /// `SO_TIMESTAMPNS`: nanoseconds.
    TimestampNs = 25;
    /// `IPV6_DONTFRAG`.
    DontFragment = 27;
    /// `IP_RECVOPTS` and `IP_RETOPTS`: no packet with options comes so far.
    ReceiveOptions = 26;
}

/// What a program says of packets that are longer than an MTU on their way
/// (`IP_MTU_DISCOVER` and `IPV6_MTU_DISCOVER`): `IP_PMTUDISC_DONT` (0), `_WANT`, `_DO`,
/// `_PROBE`, `_INTERFACE` and `_OMIT` (5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discovery(u32);

impl Discovery {
    /// That of a new socket: `IP_PMTUDISC_WANT`, as `net.ipv4.ip_no_pmtu_disc` has it.
    pub const WANT: u32 = 1;

    /// Whether what is longer than the link's MTU leaves in fragments. Else it is refused
    /// (`ip_sk_ignore_df` of Linux).
    #[must_use]
    pub fn cuts(self) -> bool {
        matches!(self.0, 0 | 1 | 5)
    }

    /// Whether what leaves whole may not be cut on the way (`ip_dont_fragment` of Linux).
    #[must_use]
    pub fn forbids_cutting(self) -> bool {
        matches!(self.0, 1..=3)
    }
}

/// The options of one socket.
#[derive(Debug)]
pub struct Options {
    switches: AtomicU32,
    /// `SO_RCVTIMEO` in nanoseconds, 0 for none.
    pub receive_timeout: AtomicU64,
    /// `SO_SNDTIMEO` in nanoseconds, 0 for none.
    pub send_timeout: AtomicU64,
    /// `SO_RCVBUF` in bytes.
    pub receive_buffer: AtomicUsize,
    /// `SO_SNDBUF` in bytes.
    pub send_buffer: AtomicUsize,
    /// `SO_LINGER` in seconds, negative when off.
    pub linger: AtomicI32,
    /// `TCP_KEEPIDLE` in seconds.
    pub keep_idle: AtomicU32,
    /// `TCP_KEEPINTVL` in seconds.
    pub keep_interval: AtomicU32,
    /// `TCP_KEEPCNT`.
    pub keep_count: AtomicU32,
    /// `TCP_USER_TIMEOUT` in milliseconds, 0 for the default.
    pub user_timeout: AtomicU32,
    /// `IP_TTL` or `IPV6_UNICAST_HOPS`.
    pub ttl: AtomicU32,
    /// `IP_TOS` or `IPV6_TCLASS`.
    pub tos: AtomicU32,
    /// `SO_RCVLOWAT` in bytes.
    pub receive_low: AtomicU32,
    /// `SO_PRIORITY`.
    pub priority: AtomicU32,
    /// `SO_MARK`.
    pub mark: AtomicU32,
    /// `TCP_DEFER_ACCEPT` in seconds.
    pub defer_accept: AtomicU32,
    /// `TCP_SYNCNT`.
    pub syn_count: AtomicU32,
    /// `TCP_LINGER2` in seconds.
    pub linger2: AtomicI32,
    /// `TCP_NOTSENT_LOWAT` in bytes.
    pub unsent_low: AtomicU32,
    /// `UDP_SEGMENT`: bytes of data in each datagram, 0 for whole messages.
    pub segment: AtomicU32,
    /// `IP_MTU_DISCOVER`, see [`Discovery`].
    pub mtu_discover: AtomicU32,
    /// `IPV6_MTU_DISCOVER`.
    pub mtu_discover6: AtomicU32,
    /// `IP_MULTICAST_TTL`.
    pub multicast_ttl: AtomicU32,
    /// Interface that datagrams to groups leave on (`IP_MULTICAST_IF`), 0 for the
    /// usual one.
    pub multicast_link: AtomicU32,
    /// The address by which a program named it, as a number.
    pub multicast_address: AtomicU32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            switches: AtomicU32::new(Switch::MulticastLoop as u32 | Switch::MulticastAll as u32),
            receive_timeout: AtomicU64::new(0),
            send_timeout: AtomicU64::new(0),
            receive_buffer: AtomicUsize::new(BUFFER_DEFAULT),
            send_buffer: AtomicUsize::new(BUFFER_DEFAULT),
            linger: AtomicI32::new(-1),
            keep_idle: AtomicU32::new(7200),
            keep_interval: AtomicU32::new(75),
            keep_count: AtomicU32::new(9),
            user_timeout: AtomicU32::new(0),
            ttl: AtomicU32::new(64),
            tos: AtomicU32::new(0),
            receive_low: AtomicU32::new(1),
            priority: AtomicU32::new(0),
            mark: AtomicU32::new(0),
            defer_accept: AtomicU32::new(0),
            syn_count: AtomicU32::new(6),
            linger2: AtomicI32::new(60),
            unsent_low: AtomicU32::new(u32::MAX),
            segment: AtomicU32::new(0),
            mtu_discover: AtomicU32::new(Discovery::WANT),
            mtu_discover6: AtomicU32::new(Discovery::WANT),
            multicast_ttl: AtomicU32::new(1),
            multicast_link: AtomicU32::new(0),
            multicast_address: AtomicU32::new(0),
        }
    }
}

impl Options {
    /// Whether `s` is on.
    #[inline]
    #[must_use]
    pub fn on(&self, s: Switch) -> bool {
        self.switches.load(Relaxed) & s as u32 != 0
    }

    /// The time of a message that arrives now, if the socket wants to know; else 0.
    #[must_use]
    pub fn arrival(&self) -> i64 {
        let either = Switch::Timestamp as u32 | Switch::TimestampNs as u32;
        match self.switches.load(Relaxed) & either {
            0 => 0,
            _ => machine::time::wall(),
        }
    }

    /// Switches `s`.
    pub fn switch(&self, s: Switch, on: bool) {
        if on {
            self.switches.fetch_or(s as u32, Relaxed);
        } else {
            self.switches.fetch_and(!(s as u32), Relaxed);
        }
    }

    /// The options an accepted socket starts with: those of its listener.
    #[must_use]
    pub fn inherit(&self) -> Options {
        let u32s = |a: &AtomicU32| AtomicU32::new(a.load(Relaxed));
        Options {
            switches: u32s(&self.switches),
            receive_timeout: AtomicU64::new(self.receive_timeout.load(Relaxed)),
            send_timeout: AtomicU64::new(self.send_timeout.load(Relaxed)),
            receive_buffer: AtomicUsize::new(self.receive_buffer.load(Relaxed)),
            send_buffer: AtomicUsize::new(self.send_buffer.load(Relaxed)),
            linger: AtomicI32::new(self.linger.load(Relaxed)),
            keep_idle: u32s(&self.keep_idle),
            keep_interval: u32s(&self.keep_interval),
            keep_count: u32s(&self.keep_count),
            user_timeout: u32s(&self.user_timeout),
            ttl: u32s(&self.ttl),
            tos: u32s(&self.tos),
            receive_low: u32s(&self.receive_low),
            priority: u32s(&self.priority),
            mark: u32s(&self.mark),
            defer_accept: AtomicU32::new(0),
            syn_count: u32s(&self.syn_count),
            linger2: AtomicI32::new(self.linger2.load(Relaxed)),
            unsent_low: u32s(&self.unsent_low),
            segment: u32s(&self.segment),
            mtu_discover: u32s(&self.mtu_discover),
            mtu_discover6: u32s(&self.mtu_discover6),
            multicast_ttl: u32s(&self.multicast_ttl),
            multicast_link: u32s(&self.multicast_link),
            multicast_address: u32s(&self.multicast_address),
        }
    }

    /// What is to become of long packets over IPv4, or IPv6.
    #[must_use]
    pub fn discovery(&self, v6: bool) -> Discovery {
        Discovery(match v6 {
            false => self.mtu_discover.load(Relaxed),
            // The same as IPV6_PMTUDISC_DO where nobody but the sender cuts.
            true if self.on(Switch::DontFragment) => 2,
            true => self.mtu_discover6.load(Relaxed),
        })
    }

    /// The send buffer in bytes.
    #[must_use]
    pub fn sndbuf(&self) -> usize {
        self.send_buffer.load(Relaxed)
    }

    /// The receive buffer in bytes.
    #[must_use]
    pub fn rcvbuf(&self) -> usize {
        self.receive_buffer.load(Relaxed)
    }

    /// A time-out, if it is set.
    #[must_use]
    pub fn timeout(which: &AtomicU64) -> Option<Duration> {
        match which.load(Relaxed) {
            0 => None,
            ns => Some(Duration::from_nanos(ns)),
        }
    }
}
