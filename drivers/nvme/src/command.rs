//! Commands and completions in their form on the wire (NVM Express Base 1.4, 4.2, 4.6
//! and 5; NVM Command Set 1.0, 3).

use machine::block::{BlockError, Operation};

/// Bytes of a command.
pub(crate) const COMMAND_LEN: usize = 64;
/// Bytes of a completion.
pub(crate) const COMPLETION_LEN: usize = 16;

/// A command: sixteen words, of which the first carries the identifier that a queue
/// gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Command(pub(crate) [u32; 16]);

/// Features (5.21.1).
const FEATURE_QUEUES: u32 = 0x07;
const FEATURE_EVENTS: u32 = 0x0b;
/// Critical warnings of health in [`FEATURE_EVENTS`].
const EVENTS_HEALTH: u32 = 0x1f;

impl Command {
    fn new(opcode: u32, namespace: u32, words: [(usize, u32); 3]) -> Command {
        let mut command = Command::default();
        command.set(0, opcode);
        command.set(1, namespace);
        for (n, word) in words {
            command.set(n, word);
        }
        command
    }

    fn admin(opcode: u32, word_10: u32, word_11: u32) -> Command {
        Command::new(opcode, 0, [(10, word_10), (11, word_11), (12, 0)])
    }

    fn set(&mut self, n: usize, word: u32) {
        if let Some(w) = self.0.get_mut(n) {
            *w = word;
        }
    }

    pub(crate) fn word(&self, n: usize) -> u32 {
        self.0.get(n).copied().unwrap_or(0)
    }

    /// The same command with an identifier.
    pub(crate) fn with_id(mut self, id: u16) -> Command {
        let opcode = self.word(0) & 0xffff;
        self.set(0, opcode | u32::from(id) << 16);
        self
    }

    /// The same command with its data at `first`, and at or listed at `second`.
    pub(crate) fn with_data(mut self, first: u64, second: u64) -> Command {
        for (n, half) in [first, first >> 32, second, second >> 32]
            .into_iter()
            .enumerate()
        {
            self.set(6 + n, half as u32);
        }
        self
    }

    pub(crate) fn namespace(&self) -> u32 {
        self.word(1)
    }

    /// Reads or writes `blocks`, at least one.
    pub(crate) fn transfer(operation: Operation, namespace: u32, block: u64, blocks: u32) -> Self {
        let opcode = match operation {
            Operation::Read => 0x02,
            Operation::WriteZeroes => 0x08,
            _ => 0x01,
        };
        let count = blocks.wrapping_sub(1) & 0xffff;
        let (low, high) = (block as u32, (block >> 32) as u32);
        Command::new(opcode, namespace, [(10, low), (11, high), (12, count)])
    }

    pub(crate) fn flush(namespace: u32) -> Command {
        Command::new(0x00, namespace, [(10, 0), (11, 0), (12, 0)])
    }

    /// Forgets the one range in the command's data.
    pub(crate) fn discard(namespace: u32) -> Command {
        const DEALLOCATE: u32 = 1 << 2;
        Command::new(0x09, namespace, [(10, 0), (11, DEALLOCATE), (12, 0)])
    }

    /// What is known of `namespace`, or of the controller, or a list: by `what` (CNS).
    pub(crate) fn identify(what: u32, namespace: u32) -> Command {
        Command::new(0x06, namespace, [(10, what), (11, 0), (12, 0)])
    }

    /// As many pairs of I/O queues as the controller has, at most `pairs`.
    pub(crate) fn set_queues(pairs: u16) -> Command {
        let count = u32::from(pairs.saturating_sub(1));
        Command::admin(0x09, FEATURE_QUEUES, count << 16 | count)
    }

    /// Events are wanted when the controller's health becomes critical.
    pub(crate) fn set_events() -> Command {
        Command::admin(0x09, FEATURE_EVENTS, EVENTS_HEALTH)
    }

    pub(crate) fn create_completion_queue(
        id: u16,
        entries: u16,
        phys: u64,
        vector: u16,
    ) -> Command {
        const CONTIGUOUS: u32 = 1;
        const INTERRUPTS: u32 = 1 << 1;
        let words = CONTIGUOUS | INTERRUPTS | u32::from(vector) << 16;
        Command::admin(0x05, queue_words(id, entries), words).with_data(phys, 0)
    }

    pub(crate) fn create_submission_queue(id: u16, entries: u16, phys: u64) -> Command {
        const CONTIGUOUS: u32 = 1;
        let words = CONTIGUOUS | u32::from(id) << 16;
        Command::admin(0x01, queue_words(id, entries), words).with_data(phys, 0)
    }

    pub(crate) fn abort(queue: u16, id: u16) -> Command {
        Command::admin(0x08, u32::from(id) << 16 | u32::from(queue), 0)
    }

    /// Is answered when something happens.
    pub(crate) fn event() -> Command {
        Command::admin(0x0c, 0, 0)
    }

    /// The first `len` bytes of a log of the controller.
    pub(crate) fn log(which: u8, len: u32) -> Command {
        let words = u32::from(which) | (len / 4).saturating_sub(1) << 16;
        Command::new(0x02, u32::MAX, [(10, words), (11, 0), (12, 0)])
    }
}

fn queue_words(id: u16, entries: u16) -> u32 {
    u32::from(entries.saturating_sub(1)) << 16 | u32::from(id)
}

/// The range of a discard (NVM Command Set 1.0, 3.2.3): attributes, blocks, start.
pub(crate) fn range(block: u64, blocks: u32) -> [u64; 2] {
    [u64::from(blocks) << 32, block]
}

/// A completion (4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    /// What the command gives, by its kind.
    pub(crate) result: u32,
    /// How far the controller has read the submission queue.
    pub(crate) head: u16,
    /// The submission queue.
    pub(crate) queue: u16,
    /// The command.
    pub(crate) id: u16,
    pub(crate) status: Status,
}

impl Completion {
    /// Decodes the last three words that matter; the phase is not part of it.
    pub(crate) fn decode(result: u32, word_2: u32, word_3: u32) -> Completion {
        Completion {
            result,
            head: word_2 as u16,
            queue: (word_2 >> 16) as u16,
            id: word_3 as u16,
            status: Status((word_3 >> 17) as u16),
        }
    }
}

/// How a command ended (4.6.1): code in the low byte, then three bits of type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) u16);

/// What follows from a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    /// Not done, and worth another try.
    Again,
    Failed(BlockError),
}

impl Status {
    /// The driver had it aborted.
    const ABORTED: u16 = 0x007;
    /// The namespace is not ready yet.
    const NOT_READY: u16 = 0x082;
    /// Trying again is of no use.
    const NO_RETRY: u16 = 1 << 14;

    pub(crate) fn verdict(self) -> Verdict {
        /// Unknown command, and unknown or missing part of one.
        const UNKNOWN: [u16; 2] = [0x001, 0x002];
        const OUT_OF_RANGE: u16 = 0x080;
        const WRITE_PROTECTED: [u16; 2] = [0x020, 0x182];
        match self.0 & 0x7ff {
            0 => Verdict::Done,
            Self::ABORTED | Self::NOT_READY if self.0 & Self::NO_RETRY == 0 => Verdict::Again,
            code if UNKNOWN.contains(&code) => Verdict::Failed(BlockError::Unsupported),
            code if WRITE_PROTECTED.contains(&code) => Verdict::Failed(BlockError::ReadOnly),
            OUT_OF_RANGE => Verdict::Failed(BlockError::OutOfRange),
            _ => Verdict::Failed(BlockError::Failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_on_the_wire() {
        let c = Command::transfer(Operation::Read, 1, 0x1_2345_6789, 8);
        let c = c.with_id(0x0102).with_data(0xa000, 0x1_0000_b000);
        assert_eq!(c.0[..2], [0x0102_0002, 1]);
        assert_eq!(c.0[6..13], [0xa000, 0, 0xb000, 1, 0x2345_6789, 1, 7]);
        assert_eq!(
            Command::transfer(Operation::Write, 1, 0, 65536).word(12),
            0xffff
        );
    }

    #[test]
    fn queues_on_the_wire() {
        let c = Command::create_completion_queue(3, 64, 0x5000, 2);
        assert_eq!((c.word(0), c.word(6)), (5, 0x5000));
        assert_eq!((c.word(10), c.word(11)), (63 << 16 | 3, 2 << 16 | 3));
        let s = Command::create_submission_queue(3, 64, 0x6000);
        assert_eq!((s.word(10), s.word(11)), (63 << 16 | 3, 3 << 16 | 1));
        assert_eq!(Command::set_queues(4).word(11), 3 << 16 | 3);
        assert_eq!(range(7, 9), [9 << 32, 7]);
    }

    #[test]
    fn what_a_status_means() {
        let verdict = |word_3: u32| Completion::decode(0, 0, word_3).status.verdict();
        assert_eq!(verdict(0x1_0000), Verdict::Done);
        // Unrecovered read error, media type.
        let failed = Verdict::Failed(BlockError::Failed);
        assert_eq!(verdict(0x281 << 17), failed);
        assert_eq!(verdict(0x007 << 17), Verdict::Again);
        assert_eq!(verdict(0x007 << 17 | 1 << 31), failed);
        assert_eq!(
            verdict(0x001 << 17),
            Verdict::Failed(BlockError::Unsupported)
        );
    }
}
