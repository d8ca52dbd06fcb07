//! Registers and descriptor bits, by the names of Intel's manuals: "PCI/PCI-X Family of
//! Gigabit Ethernet Controllers Software Developer's Manual" (8254x, chapter 13), the
//! datasheets of the 82574 (chapter 10), the 82576 (chapter 8) and the I210 (chapter 8).

/// Device control, and its bits.
pub(crate) const CTRL: usize = 0x0000;
pub(crate) const CTRL_FD: u32 = 1 << 0;
/// Keeps the function from starting bus transactions (PCI Express parts).
pub(crate) const CTRL_MASTER_DISABLE: u32 = 1 << 2;
/// Holds the link of fibre parts in reset (8254x).
pub(crate) const CTRL_LRST: u32 = 1 << 3;
/// Set link up: the PHY may negotiate.
pub(crate) const CTRL_SLU: u32 = 1 << 6;
pub(crate) const CTRL_FORCE_SPEED: u32 = 1 << 11;
pub(crate) const CTRL_FORCE_DUPLEX: u32 = 1 << 12;
/// Resets all but the PHY; clears itself.
pub(crate) const CTRL_RST: u32 = 1 << 26;
/// Takes VLAN tags out of what comes in.
pub(crate) const CTRL_VME: u32 = 1 << 30;
pub(crate) const CTRL_PHY_RST: u32 = 1 << 31;

/// Device status, and its bits.
pub(crate) const STATUS: usize = 0x0008;
pub(crate) const STATUS_FULL_DUPLEX: u32 = 1 << 0;
pub(crate) const STATUS_LINK_UP: u32 = 1 << 1;
/// Which function of a chip with several ports this is.
pub(crate) const STATUS_PORT_SHIFT: u32 = 2;
pub(crate) const STATUS_SPEED_SHIFT: u32 = 6;
/// The function may still start bus transactions (PCI Express parts).
pub(crate) const STATUS_MASTER: u32 = 1 << 19;

/// Reading a word of the EEPROM. Two layouts exist: address and "done" bit differ.
pub(crate) const EERD: usize = 0x0014;
pub(crate) const EERD_START: u32 = 1 << 0;
pub(crate) const EERD_DONE_SMALL: u32 = 1 << 4;
pub(crate) const EERD_ADDRESS_SMALL: u32 = 8;
pub(crate) const EERD_DONE_LARGE: u32 = 1 << 1;
pub(crate) const EERD_ADDRESS_LARGE: u32 = 2;
pub(crate) const EERD_DATA: u32 = 16;

/// Extended device control, and its bits.
pub(crate) const CTRL_EXT: usize = 0x0018;
/// An MSI-X message clears its pending bit (82574).
pub(crate) const CTRL_EXT_PBA_CLEAR: u32 = 1 << 31;
/// Tells management firmware that a driver is in charge.
pub(crate) const CTRL_EXT_DRIVER: u32 = 1 << 28;

/// Access to the registers of the PHY, which on copper has address 1.
pub(crate) const MDIC: usize = 0x0020;
pub(crate) const MDIC_REGISTER_SHIFT: u32 = 16;
pub(crate) const MDIC_ADDRESS_1: u32 = 1 << 21;
pub(crate) const MDIC_WRITE: u32 = 1 << 26;
pub(crate) const MDIC_READ: u32 = 2 << 26;
pub(crate) const MDIC_READY: u32 = 1 << 28;
pub(crate) const MDIC_ERROR: u32 = 1 << 30;
/// The PHY's control register (IEEE 802.3, 22.2.4.1): power-down and isolation,
/// negotiation, and that it starts anew.
pub(crate) const BMCR: u32 = 0;
pub(crate) const BMCR_ASLEEP: u32 = 1 << 11 | 1 << 10;
pub(crate) const BMCR_NEGOTIATE: u32 = 1 << 12;
pub(crate) const BMCR_RESTART: u32 = 1 << 9;

/// Disabling "MULR" keeps the I219 from hanging in a reset with frames in its rings.
pub(crate) const FEXTNVM11: usize = 0x5bbc;
pub(crate) const FEXTNVM11_NO_MULR: u32 = 1 << 13;

/// Causes of interrupts, the same in ICR, IMS and IMC.
pub(crate) const CAUSE_SENT: u32 = 1 << 0;
pub(crate) const CAUSE_LINK: u32 = 1 << 2;
pub(crate) const CAUSE_FEW_BUFFERS: u32 = 1 << 4;
pub(crate) const CAUSE_OVERRUN: u32 = 1 << 6;
pub(crate) const CAUSE_RECEIVED: u32 = 1 << 7;
/// With MSI-X on an 82574: queue 0 of each direction, and all else.
pub(crate) const CAUSE_RECEIVE_QUEUE: u32 = 1 << 20;
pub(crate) const CAUSE_TRANSMIT_QUEUE: u32 = 1 << 22;
pub(crate) const CAUSE_OTHER: u32 = 1 << 24;

/// Least time between two interrupts in units of 256 ns.
pub(crate) const ITR: usize = 0x00c4;
/// 82574: which MSI-X vector a cause uses (4 bits each), causes cleared by their
/// message, and a throttle for each vector.
pub(crate) const IVAR_82574: usize = 0x00e4;
pub(crate) const EIAC_82574: usize = 0x00dc;
pub(crate) const EITR_82574: usize = 0x00e8;

/// 82576 and later: the same for vectors instead of causes.
pub(crate) const GPIE: usize = 0x1514;
pub(crate) const GPIE_NON_SELECTIVE_CLEAR: u32 = 1 << 0;
pub(crate) const GPIE_MULTIPLE_MSIX: u32 = 1 << 4;
pub(crate) const GPIE_AUTO_MASK: u32 = 1 << 30;
pub(crate) const GPIE_PBA: u32 = 1 << 31;
pub(crate) const EICR: usize = 0x1580;
pub(crate) const EIMS: usize = 0x1524;
pub(crate) const EIMC: usize = 0x1528;
pub(crate) const EIAC: usize = 0x152c;
pub(crate) const EIAM: usize = 0x1530;
pub(crate) const IVAR0: usize = 0x1700;
pub(crate) const IVAR_MISC: usize = 0x1740;
pub(crate) const IVAR_VALID: u32 = 1 << 7;
/// Throttle of vector n in microseconds, from bit 2 on.
pub(crate) const EITR: usize = 0x1680;

/// Receive control, and its bits.
pub(crate) const RCTL: usize = 0x0100;
pub(crate) const RCTL_ENABLE: u32 = 1 << 1;
pub(crate) const RCTL_LONG: u32 = 1 << 5;
pub(crate) const RCTL_ALL_MULTICAST: u32 = 1 << 4;
pub(crate) const RCTL_BROADCAST: u32 = 1 << 15;
/// Buffers of 16 KiB, with [`RCTL_SIZE_TIMES_16`].
pub(crate) const RCTL_SIZE_1024: u32 = 1 << 16;
pub(crate) const RCTL_SIZE_TIMES_16: u32 = 1 << 25;
pub(crate) const RCTL_STRIP_CRC: u32 = 1 << 26;
/// Buffers of so many KiB (82571 and later).
pub(crate) const RCTL_KIB_SHIFT: u32 = 27;

/// Transmit control, and its bits.
pub(crate) const TCTL: usize = 0x0400;
pub(crate) const TCTL_ENABLE: u32 = 1 << 1;
pub(crate) const TCTL_PAD: u32 = 1 << 3;
/// Fifteen tries after collisions, and the distance of full duplex.
pub(crate) const TCTL_COLLISIONS: u32 = 15 << 4 | 0x40 << 12;
/// Gaps between frames, as all copper parts want them.
pub(crate) const TIPG: usize = 0x0410;
pub(crate) const TIPG_COPPER: u32 = 8 | 8 << 10 | 6 << 20;

/// Receive checksum control: check IP's, and TCP's and UDP's.
pub(crate) const RXCSUM: usize = 0x5000;
pub(crate) const RXCSUM_IP: u32 = 1 << 8;
pub(crate) const RXCSUM_TCP_UDP: u32 = 1 << 9;
/// Receive filters: extended descriptors; no parsing of IPv6 extension headers, by
/// which some chips hang; no interrupt of its own for TCP's acknowledgements.
pub(crate) const RFCTL: usize = 0x5008;
pub(crate) const RFCTL_EXTENDED: u32 = 1 << 15;
pub(crate) const RFCTL_NO_ACK_INTERRUPT: u32 = 1 << 12;
pub(crate) const RFCTL_NO_IPV6_EXTENSIONS: u32 = 3 << 16;
/// Longest frame (82576 and later).
pub(crate) const RLPML: usize = 0x5004;

/// A ring's registers, from its block on.
pub(crate) const RING_BASE_LOW: usize = 0x00;
pub(crate) const RING_BASE_HIGH: usize = 0x04;
pub(crate) const RING_LEN: usize = 0x08;
/// Shape of a receive ring's descriptors and buffers (82576 and later).
pub(crate) const RING_SRRCTL: usize = 0x0c;
pub(crate) const SRRCTL_ADVANCED: u32 = 1 << 25;
/// Frames without a buffer are dropped, and do not block other queues.
pub(crate) const SRRCTL_DROP: u32 = 1 << 31;
pub(crate) const RING_HEAD: usize = 0x10;
pub(crate) const RING_TAIL: usize = 0x18;
pub(crate) const RING_CONTROL: usize = 0x28;
pub(crate) const RING_CONTROL_ENABLE: u32 = 1 << 25;
/// Of the transmit ring, must be set on the 82571 and later.
pub(crate) const RING_CONTROL_COUNT: u32 = 1 << 22;

/// The exact address: a pair of words.
pub(crate) const RAL0: usize = 0x5400;
pub(crate) const RAH0: usize = 0x5404;
pub(crate) const RAH_VALID: u32 = 1 << 31;

/// Statistics, cleared when read: damaged, missed for want of buffers, too long.
pub(crate) const CRCERRS: usize = 0x4000;
pub(crate) const RXERRC: usize = 0x400c;
pub(crate) const MISSED: usize = 0x4010;

/// Transmit descriptors: command bits.
pub(crate) const TX_END: u32 = 1 << 24;
pub(crate) const TX_CRC: u32 = 1 << 25;
pub(crate) const TX_REPORT: u32 = 1 << 27;
/// Its status: done.
pub(crate) const TX_DONE: u32 = 1 << 0;
/// It is not a legacy one, and then it is a context unless these say that it is data
/// (8254x, 3.3.6 and 3.3.7).
pub(crate) const TX_EXTENDED: u32 = 1 << 29;
pub(crate) const TX_EXTENDED_DATA: u32 = 1 << 20;
/// The frame is cut into segments. Of an extended descriptor, in context and data; of an
/// advanced one, in data.
pub(crate) const TX_CUT: u32 = 1 << 26;
pub(crate) const TX_ADVANCED_CUT: u32 = 1 << 31;
/// Of a context, in its high half: bytes of headers (all, or with advanced descriptors
/// TCP's), and of data in each segment.
pub(crate) const TX_CUT_HEADER_SHIFT: u32 = 8;
pub(crate) const TX_CUT_SIZE_SHIFT: u32 = 16;
/// Of a context: the packets are TCP's, and IPv4's.
pub(crate) const TX_CONTEXT_TCP: u32 = 1 << 24;
pub(crate) const TX_CONTEXT_IPV4: u32 = 1 << 25;
/// The same of advanced descriptors (82576, 7.2.2).
pub(crate) const TX_ADVANCED_CONTEXT: u32 = 2 << 20;
pub(crate) const TX_ADVANCED_DATA: u32 = 3 << 20;
pub(crate) const TX_ADVANCED_IPV4: u32 = 1 << 10;
pub(crate) const TX_ADVANCED_TCP: u32 = 1 << 11;
/// Beside the status: checksums to write, that of IPv4's header and TCP's or UDP's.
pub(crate) const TX_SUM_HEADER: u32 = 1 << 8;
pub(crate) const TX_SUM_TRANSPORT: u32 = 1 << 9;

/// Receive descriptors: status in the low bits, errors from bit 24 on.
pub(crate) const RX_DONE: u32 = 1 << 0;
pub(crate) const RX_END: u32 = 1 << 1;
/// Checksums that were checked, UDP's (82574 and later), TCP's or UDP's, and that of
/// IPv4's header, unless they were to be ignored; and what was wrong with them.
pub(crate) const RX_IGNORE_CHECKSUMS: u32 = 1 << 2;
pub(crate) const RX_CHECKED_UDP: u32 = 1 << 4;
pub(crate) const RX_CHECKED_TRANSPORT: u32 = 1 << 5;
pub(crate) const RX_CHECKED_HEADER: u32 = 1 << 6;
pub(crate) const RX_WRONG: u32 = 1 << 29 | 1 << 30;
/// Damaged: CRC, symbol, sequence, carrier extension, data.
pub(crate) const RX_DAMAGED: u32 = 0b1001_0111 << 24;
