//! The journal: an append-only record of what happened, when and why.
//!
//! Bounded in memory: the newest [`ENTRIES_MAX`] entries stay. Each entry carries the BLAKE3 of
//! its text form chained to the hash of the one before, so that a change or a gap shows:
//!
//! ```text
//! hash = BLAKE3(previous hash ‖ "skep-event-v1\n" seq "\n" uptime_ms "\n" unix_ms or "-" "\n"
//!               kind "\n" capsule or "-" "\n" text)
//! ```
//!
//! The first entry of a boot has 32 zero bytes as its previous hash.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::supervisor::{Millis, RecordKind};

/// The newest entries that are kept.
pub const ENTRIES_MAX: usize = 512;
/// A longer text is cut.
pub const TEXT_BYTES_MAX: usize = 512;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts from 1 in each boot.
    pub seq: u64,
    /// When, in milliseconds since boot.
    pub uptime_ms: Millis,
    /// When, in milliseconds since 1970, if the node knew the time.
    pub unix_ms: Option<u64>,
    /// What kind of thing.
    pub kind: RecordKind,
    /// The capsule it is about.
    pub capsule: Option<String>,
    /// What and why, for people.
    pub text: String,
    /// Chains it to the entry before; see the module.
    pub hash: [u8; 32],
}

/// The journal of this boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    entries: VecDeque<Entry>,
    last_seq: u64,
    last_hash: [u8; 32],
}

impl Journal {
    /// Appends an entry; all but `seq` and `hash`, which are set here.
    pub fn append(
        &mut self,
        uptime_ms: Millis,
        unix_ms: Option<u64>,
        kind: RecordKind,
        capsule: Option<String>,
        mut text: String,
    ) -> &Entry {
        if text.len() > TEXT_BYTES_MAX {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        }
        self.last_seq += 1;
        let seq = self.last_seq;
        let mut entry = Entry {
            seq,
            uptime_ms,
            unix_ms,
            kind,
            capsule,
            text,
            hash: [0; 32],
        };
        entry.hash = chained(&self.last_hash, &entry);
        self.last_hash = entry.hash;
        if self.entries.len() == ENTRIES_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
        &self.entries[self.entries.len() - 1]
    }

    /// The entries after number `seq`, oldest first.
    pub fn after(&self, seq: u64) -> impl Iterator<Item = &Entry> {
        let first = self.entries.partition_point(|entry| entry.seq <= seq);
        self.entries.range(first..)
    }

    /// The number of the newest entry; 0 if there is none.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// A copy with the newest entries only, as many as fit `bytes_max` of text and overhead.
    pub fn newest(&self, bytes_max: usize) -> Self {
        // Hash, numbers and lengths take less than this in the saved form.
        const OVERHEAD: usize = 80;
        let mut bytes = 0;
        let fits = self.entries.iter().rev().take_while(|entry| {
            bytes += entry.text.len() + entry.capsule.as_ref().map_or(0, String::len) + OVERHEAD;
            bytes <= bytes_max
        });
        let first = self.entries.len() - fits.count();
        Self {
            entries: self.entries.range(first..).cloned().collect(),
            ..*self
        }
    }
}

fn chained(previous: &[u8; 32], entry: &Entry) -> [u8; 32] {
    let unix = entry
        .unix_ms
        .map_or_else(|| "-".to_owned(), |ms| ms.to_string());
    let kind = kind_name(entry.kind);
    let capsule = entry.capsule.as_deref().unwrap_or("-");
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous);
    let head = format!(
        "skep-event-v1\n{}\n{}\n{unix}\n",
        entry.seq, entry.uptime_ms
    );
    hasher.update(head.as_bytes());
    hasher.update(format!("{kind}\n{capsule}\n{}", entry.text).as_bytes());
    *hasher.finalize().as_bytes()
}

/// The kind as the API writes it.
pub fn kind_name(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Agent => "agent",
        RecordKind::Started => "started",
        RecordKind::Adopted => "adopted",
        RecordKind::Ready => "ready",
        RecordKind::Exited => "exited",
        RecordKind::StartFailed => "start-failed",
        RecordKind::Refused => "refused",
        RecordKind::Hung => "hung",
        RecordKind::CrashLoop => "crash-loop",
        RecordKind::Settled => "settled",
        RecordKind::Owner => "owner",
        RecordKind::Limit => "limit",
        RecordKind::Device => "device",
        RecordKind::Crash => "crash",
        RecordKind::Warning => "warning",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: u64) -> Journal {
        let mut journal = Journal::default();
        for number in 0..count {
            let name = Some("web".to_owned());
            journal.append(
                number,
                None,
                RecordKind::Started,
                name,
                format!("text {number}"),
            );
        }
        journal
    }

    #[test]
    fn numbers_go_on_and_old_entries_leave() {
        let journal = filled(ENTRIES_MAX as u64 + 10);
        assert_eq!(journal.after(0).count(), ENTRIES_MAX);
        assert_eq!(journal.after(0).next().expect("kept").seq, 11);
        assert_eq!(journal.last_seq(), ENTRIES_MAX as u64 + 10);
        assert_eq!(journal.after(journal.last_seq() - 2).count(), 2);
        assert_eq!(journal.after(u64::MAX).count(), 0);
    }

    #[test]
    fn every_change_breaks_the_chain() {
        let journal = filled(3);
        let entries: Vec<_> = journal.after(0).cloned().collect();
        assert_eq!(chained(&[0; 32], &entries[0]), entries[0].hash);
        assert_eq!(chained(&entries[0].hash, &entries[1]), entries[1].hash);
        for change in [
            |entry: &mut Entry| entry.text.push('x'),
            |entry: &mut Entry| entry.seq += 1,
            |entry: &mut Entry| entry.uptime_ms += 1,
            |entry: &mut Entry| entry.unix_ms = Some(1),
            |entry: &mut Entry| entry.capsule = None,
            |entry: &mut Entry| entry.kind = RecordKind::Exited,
        ] {
            let mut forged = entries[1].clone();
            change(&mut forged);
            assert_ne!(chained(&entries[0].hash, &forged), forged.hash);
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut journal = Journal::default();
        let text = "é".repeat(TEXT_BYTES_MAX);
        let entry = journal.append(0, None, RecordKind::Warning, None, format!("x{text}"));
        assert_eq!(entry.text.len(), TEXT_BYTES_MAX - 1);
    }

    #[test]
    fn a_saved_journal_goes_on_where_it_was() {
        let mut journal = filled(500);
        let saved = journal.newest(20_000);
        let bytes = postcard::to_allocvec(&saved).expect("encodes");
        assert!(bytes.len() <= 20_200, "{}", bytes.len());
        let mut again: Journal = postcard::from_bytes(&bytes).expect("decodes");
        assert!(again.after(0).count() > 100);
        let next = |journal: &mut Journal| {
            journal
                .append(9, None, RecordKind::Agent, None, "restarted".to_owned())
                .clone()
        };
        assert_eq!(next(&mut again), next(&mut journal));
    }
}
