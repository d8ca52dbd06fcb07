use super::*;
use alloc::vec::Vec;
use proptest::prelude::*;

/// A disk with the two copies, whose power may fail.
#[derive(Clone)]
struct Disk {
    copies: [[u8; STATE_BYTES]; 2],
}

impl Disk {
    fn new(state: BootState) -> Self {
        Self {
            copies: [state.encode(), [0; STATE_BYTES]],
        }
    }

    fn load(&self) -> (BootState, usize) {
        BootState::load([&self.copies[0], &self.copies[1]]).expect("one copy is valid")
    }

    /// Writes `state`, of which only the first `bytes` reach the disk.
    fn write_torn(&mut self, state: BootState, bytes: usize) {
        let (current, copy) = self.load();
        let (_, new) = state.store(&current);
        self.copies[copy][..bytes].copy_from_slice(&new[..bytes]);
    }

    fn write(&mut self, state: BootState) {
        self.write_torn(state, STATE_BYTES);
    }
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Empty),
        (0u8..4).prop_map(|tries_left| Status::Trying { tries_left }),
        Just(Status::Good),
        Just(Status::Bad),
    ]
}

fn any_state() -> impl Strategy<Value = BootState> {
    let slot =
        || (status(), any::<u64>()).prop_map(|(status, version)| SlotState { status, version });
    (0..u64::MAX - 100, any::<bool>(), slot(), slot()).prop_map(|(generation, b, first, second)| {
        BootState {
            generation,
            active: if b { Slot::B } else { Slot::A },
            slots: [first, second],
        }
    })
}

/// How much of a write reaches the disk: often all of it.
fn cut() -> impl Strategy<Value = usize> {
    prop_oneof![Just(STATE_BYTES), 0..=STATE_BYTES]
}

proptest! {
    #[test]
    fn bytes_and_meaning_are_the_same(state in any_state()) {
        prop_assert_eq!(BootState::decode(&state.encode()), Some(state));
    }

    /// The state is the old one or the new one, wherever power is cut.
    #[test]
    fn a_torn_write_changes_all_or_nothing(
        before in any_state(),
        after in any_state(),
        cut in cut(),
    ) {
        let mut disk = Disk::new(before);
        // Once, so that both copies hold something.
        disk.write(before);
        disk.write_torn(after, cut);
        let found = disk.load().0;
        let meaning = |state: &BootState| (state.active, state.slots);
        prop_assert!(meaning(&found) == meaning(&before) || meaning(&found) == meaning(&after));
        if cut == STATE_BYTES {
            prop_assert_eq!(meaning(&found), meaning(&after));
        }
    }

    #[test]
    fn a_changed_bit_is_found(state in any_state(), bit in 0..STATE_BYTES * 8) {
        let mut bytes = state.encode();
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(BootState::decode(&bytes), None);
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = BootState::decode(&bytes);
    }

    /// Whatever is updated, cut short or broken, and however often: a node whose release
    /// was good once is never left with nothing good to start.
    #[test]
    fn there_is_always_a_good_release_to_come_back_to(
        steps in proptest::collection::vec((0..4u8, cut(), any::<bool>()), 1..60),
    ) {
        let mut disk = Disk::new(BootState::fresh(1));
        // What the slots really hold: whether it comes up and gets healthy.
        let mut holds = [true, false];
        for (step, cut, works) in steps {
            let (state, _) = disk.load();
            let other = state.active.other().index();
            match step {
                // An update, cut short while the slot or the state is written.
                0 | 1 if state.may_update() => {
                    disk.write_torn(state.begin_update(), cut);
                    // The kernel goes on only after the write was flushed.
                    if cut == STATE_BYTES {
                        holds[other] = false;
                        if step == 1 {
                            holds[other] = works;
                            let (state, _) = disk.load();
                            disk.write_torn(state.finish_update(state.generation, 1), cut);
                        }
                    }
                }
                2 if state.may_update() => {
                    disk.write(state.begin_update());
                    holds[other] = works;
                    let (state, _) = disk.load();
                    disk.write_torn(state.finish_update(9, 2), cut);
                }
                _ => {
                    // A start, which power may cut short before or after it is healthy.
                    let choice = state.choose();
                    if let Some(new) = choice.store {
                        disk.write_torn(new, cut);
                        if cut < STATE_BYTES {
                            continue;
                        }
                    }
                    if holds[choice.slot.index()] && works
                        && let Some(good) = disk.load().0.confirm()
                    {
                        disk.write(good);
                    }
                }
            }
            // From here on power stays: within a few starts a release that works runs.
            let mut later = disk.clone();
            let comes_up = (0..8).any(|_| {
                let choice = later.load().0.choose();
                if let Some(new) = choice.store {
                    later.write(new);
                }
                holds[choice.slot.index()]
            });
            prop_assert!(comes_up, "{:?} holds {:?}", disk.load(), holds);
        }
    }
}

#[test]
fn a_good_release_starts_without_a_write() {
    let state = BootState::fresh(3);
    assert_eq!(
        state.choose(),
        Choice {
            slot: Slot::A,
            store: None
        }
    );
}

#[test]
fn a_new_release_that_is_never_healthy_goes_back_after_its_tries() {
    let mut disk = Disk::new(BootState::fresh(1));
    disk.write(disk.load().0.begin_update());
    disk.write(disk.load().0.finish_update(2, 2));
    let mut started = Vec::new();
    for _ in 0..4 {
        let choice = disk.load().0.choose();
        if let Some(new) = choice.store {
            disk.write(new);
        }
        started.push(choice.slot);
    }
    assert_eq!(started, [Slot::B, Slot::B, Slot::A, Slot::A]);
    let state = disk.load().0;
    assert_eq!(state.slot(Slot::B).status, Status::Bad);
    assert!(state.may_update());
}

#[test]
fn a_healthy_one_stays_and_a_refused_one_goes_back() {
    let trying = BootState::fresh(1).begin_update().finish_update(2, 1);
    let started = trying.choose().store.unwrap();
    let good = started.confirm().unwrap();
    assert_eq!((good.active, good.confirm()), (Slot::B, None));
    let refused = started.refuse(Slot::B);
    assert_eq!(refused.slot, Slot::A);
    assert_eq!(refused.store.unwrap().choose().slot, Slot::A);
}

#[test]
fn an_update_needs_a_running_release_that_is_good() {
    let trying = BootState::fresh(1).finish_update(2, 1);
    assert!(BootState::fresh(1).may_update() && !trying.may_update());
}
