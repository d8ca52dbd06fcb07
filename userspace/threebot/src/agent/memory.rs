//! What the 3Bot leaves with the kernel for its next life.

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skep_api::control::STATE_BYTES_MAX;

use super::Agent;
use crate::journal::Journal;
use crate::supervisor::UnitMemory;

/// Raised when the form changes; another version is forgotten, never misread.
const VERSION: u8 = 1;
/// After a save, changes within this time are saved together.
const GATHER: Duration = Duration::from_millis(100);

/// The saved form.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Memory {
    /// Of each capsule.
    pub(super) units: Vec<UnitMemory>,
    /// The newest entries.
    pub(super) journal: Journal,
}

/// Reads what was saved; an empty memory if there is none that can be read.
pub(super) fn decode(bytes: &[u8]) -> Memory {
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).unwrap_or_default(),
        _ => Memory::default(),
    }
}

/// Writes it within [`STATE_BYTES_MAX`]: all units, and of the journal what fits.
fn encode(units: Vec<UnitMemory>, journal: &Journal) -> Option<Vec<u8>> {
    let units_bytes = postcard::to_allocvec(&units).ok()?.len();
    let room = STATE_BYTES_MAX.checked_sub(units_bytes + 128)?;
    let memory = Memory {
        units,
        journal: journal.newest(room),
    };
    postcard::to_extend(&memory, vec![VERSION]).ok()
}

impl Agent {
    /// Saves what is worth saving whenever it has changed, for ever.
    pub async fn keep_saved(self: Rc<Self>) {
        let mut saved = None;
        loop {
            self.unsaved.notified().await;
            let found = self.worth_saving();
            // Most of what happens is a probe that succeeds, which changes nothing.
            if saved.as_ref() == Some(&found) {
                continue;
            }
            saved = self.save().await.then_some(found);
            tokio::time::sleep(GATHER).await;
        }
    }

    /// What the saved form depends on.
    fn worth_saving(&self) -> (Vec<UnitMemory>, u64) {
        let units = self.supervisor.borrow().memories();
        (units, self.journal.borrow().last_seq())
    }

    /// Saves now: after an owner's command, before it is confirmed. Whether the kernel
    /// has it.
    pub async fn save(&self) -> bool {
        let encoded = encode(self.supervisor.borrow().memories(), &self.journal.borrow());
        let saved = match encoded {
            Some(bytes) => self.control.save_state(bytes).await.is_ok(),
            None => false,
        };
        if !saved {
            crate::console::say(format_args!("the kernel did not keep the 3Bot's state"));
        }
        saved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::RecordKind;

    #[test]
    fn a_full_memory_fits_and_comes_back() {
        let units: Vec<_> = (0..200)
            .map(|number| UnitMemory {
                name: format!("capsule-with-a-long-name-{number}"),
                held: number % 2 == 0,
                ..UnitMemory::default()
            })
            .collect();
        let mut journal = Journal::default();
        for number in 0..600 {
            let text = "x".repeat(400);
            journal.append(
                number,
                Some(number),
                RecordKind::Exited,
                Some("web".to_owned()),
                text,
            );
        }
        let bytes = encode(units.clone(), &journal).expect("fits");
        assert!(bytes.len() <= STATE_BYTES_MAX);
        let memory = decode(&bytes);
        assert_eq!(memory.units, units);
        assert_eq!(memory.journal.last_seq(), 600);
        assert!(memory.journal.after(0).count() > 50);
    }

    #[test]
    fn strange_bytes_are_forgotten() {
        assert!(decode(&[]).units.is_empty());
        assert!(decode(&[2, 0, 0]).units.is_empty());
        assert!(decode(&[VERSION, 255, 255, 255]).units.is_empty());
    }
}
