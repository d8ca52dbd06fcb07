//! One packet of which fragments have come.

use alloc::vec::Vec;

/// Most bytes behind the header of a packet: its length has 16 bits (RFC 791, 3.1; RFC 8200, 3).
const PAYLOAD_MAX: usize = 65_535;
/// Most fragments of one packet. Where the MTU is 576 bytes, the least that is usual over IPv4,
/// the longest packet comes in 119; eight bytes a fragment would be 8192 of them.
pub(super) const PIECES_MAX: usize = 128;
/// What a fragment costs beside its bytes: a place in the list, and what the heap adds.
const PIECE_COST: usize = 64;

/// A fragment as it came.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'a> {
    /// Where it begins behind the packet's header, in bytes.
    start: usize,
    /// Whether no other one follows it.
    is_last: bool,
    data: &'a [u8],
}

impl<'a> Piece<'a> {
    /// The fragment with these bytes at `start`; `None` for what no sender makes: an empty one,
    /// one that ends where no other can begin (RFC 8200, 4.5), or beyond the longest packet.
    pub(crate) fn new(start: usize, is_last: bool, data: &'a [u8]) -> Option<Piece<'a>> {
        let is_full = is_last || data.len().is_multiple_of(8);
        let is_possible = start.is_multiple_of(8) && start + data.len() <= PAYLOAD_MAX;
        (!data.is_empty() && is_full && is_possible).then_some(Piece {
            start,
            is_last,
            data,
        })
    }

    /// What it costs to keep it, if this is its header.
    pub(super) fn cost(&self, header: &[u8]) -> usize {
        PIECE_COST + self.data.len() + if self.start == 0 { header.len() } else { 0 }
    }

    /// Whether it is its packet's only one.
    pub(super) fn is_whole(&self) -> bool {
        self.start == 0 && self.is_last
    }

    fn end(&self) -> usize {
        self.start + self.data.len()
    }
}

/// What has come of a packet.
#[derive(Default)]
pub(super) struct Making {
    /// What is in front of the payload of the fragment at 0, which becomes the packet's own.
    header: Vec<u8>,
    /// Where each fragment begins, and its bytes: in order, and none reaches into the next.
    pieces: Vec<(usize, Vec<u8>)>,
    /// Bytes of the whole payload, once the last fragment has told.
    len: Option<usize>,
    /// Bytes of it that are there.
    have: usize,
    /// Two fragments contradicted each other. The packet is lost, with what else comes of it
    /// (RFC 5722, 4).
    is_spoilt: bool,
}

/// Where a fragment goes.
enum Place {
    At(usize),
    /// It is there.
    Known,
    /// It contradicts what is there.
    Nowhere,
}

impl Making {
    /// Bytes of memory that it holds.
    pub(super) fn cost(&self) -> usize {
        self.header.len() + self.have + self.pieces.len() * PIECE_COST
    }

    /// Takes in a fragment, with what is in front of its payload. Whether the packet is whole.
    pub(super) fn add(&mut self, header: &[u8], piece: &Piece<'_>) -> bool {
        if self.is_spoilt {
            return false;
        }
        match self.place(piece) {
            Place::Known => {}
            // Without memory it is lost like one that did not come.
            Place::At(at) => drop(self.insert(at, header, piece)),
            Place::Nowhere => {
                *self = Making {
                    is_spoilt: true,
                    ..Making::default()
                };
            }
        }
        self.len == Some(self.have)
    }

    fn place(&self, piece: &Piece<'_>) -> Place {
        let at = self
            .pieces
            .partition_point(|(start, _)| *start < piece.start);
        let end = piece.end();
        let is_len_known = self.len == Some(end);
        let same = self.pieces.get(at).is_some_and(|(start, bytes)| {
            *start == piece.start && bytes == piece.data && piece.is_last == is_len_known
        });
        if same {
            return Place::Known;
        }
        let before = at.checked_sub(1).and_then(|i| self.pieces.get(i));
        let is_behind = before.is_none_or(|(start, bytes)| start + bytes.len() <= piece.start);
        let is_before = self.pieces.get(at).is_none_or(|(start, _)| end <= *start);
        // The last one is behind all others, and there is one only.
        let ends_well = match (piece.is_last, self.len) {
            (true, Some(_)) => false,
            (true, None) => at == self.pieces.len(),
            (false, len) => len.is_none_or(|len| end < len),
        };
        match is_behind && is_before && ends_well && self.pieces.len() < PIECES_MAX {
            true => Place::At(at),
            false => Place::Nowhere,
        }
    }

    fn insert(&mut self, at: usize, header: &[u8], piece: &Piece<'_>) -> Option<()> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(piece.data.len()).ok()?;
        bytes.extend_from_slice(piece.data);
        self.pieces.try_reserve(1).ok()?;
        if piece.start == 0 {
            self.header.try_reserve_exact(header.len()).ok()?;
            self.header.extend_from_slice(header);
        }
        self.pieces.insert(at, (piece.start, bytes));
        self.have += piece.data.len();
        if piece.is_last {
            self.len = Some(piece.end());
        }
        Some(())
    }

    /// The packet, once it is whole: the first fragment's header and the payload.
    pub(super) fn finish(self) -> Option<Vec<u8>> {
        let mut packet = Vec::new();
        let len = self.header.len() + self.have;
        packet.try_reserve_exact(len).ok()?;
        packet.extend_from_slice(&self.header);
        for (_, bytes) in &self.pieces {
            packet.extend_from_slice(bytes);
        }
        Some(packet)
    }
}
