//! One block of LZ4, packed as small as its format allows at little effort: of all earlier
//! places that begin as this one does the one that goes on longest, and one byte later if
//! that is longer (what the original calls its high-compression levels). What is unpacked
//! thousands of times is packed once. `lz4_flex` has only the quick way, which leaves a
//! fifth more.

/// Shortest match.
const MATCH_MIN: usize = 4;
/// The last bytes are never part of a match, and none begins this near the end.
const LAST_LITERALS: usize = 5;
const MATCH_END_MIN: usize = 12;
/// Farthest match.
const DISTANCE_MAX: usize = 0xffff;
/// Earlier places that are looked at: more hardly helps.
const TRIES: usize = 256;
const HASH_BITS: u32 = 16;
const NONE: u32 = u32::MAX;

/// Places of a block, each linked to the one before that begins with the same four bytes
/// (or others of the same hash).
struct Chains<'a> {
    bytes: &'a [u8],
    /// The last place of each hash.
    heads: Vec<u32>,
    /// The place before each place.
    before: Vec<u32>,
    /// Places that are in the chains: those before this one.
    done: usize,
}

/// A match: how far back, and how long.
#[derive(Clone, Copy, Default)]
struct Match {
    distance: usize,
    len: usize,
}

impl<'a> Chains<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            heads: vec![NONE; 1 << HASH_BITS],
            before: vec![NONE; bytes.len()],
            done: 0,
        }
    }

    fn hash(&self, at: usize) -> usize {
        let bytes = &self.bytes[at..at + 4];
        let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        (word.wrapping_mul(2_654_435_761) >> (32 - HASH_BITS)) as usize
    }

    /// The longest match for the bytes at `at`, which is no nearer to the end than
    /// [`MATCH_END_MIN`]; nothing if there is none.
    fn longest(&mut self, at: usize) -> Match {
        while self.done < at {
            let hash = self.hash(self.done);
            self.before[self.done] = self.heads[hash];
            // No block has so many bytes that this could not be told.
            self.heads[hash] = self.done as u32;
            self.done += 1;
        }
        let end = self.bytes.len() - LAST_LITERALS;
        let mut best = Match::default();
        let mut place = self.heads[self.hash(at)];
        for _ in 0..TRIES {
            if place == NONE || at - place as usize > DISTANCE_MAX {
                break;
            }
            let from = place as usize;
            // One that does not go on where the best one ended is no longer than it.
            if at + best.len < end && self.bytes[from + best.len] == self.bytes[at + best.len] {
                let pairs = self.bytes[from..].iter().zip(&self.bytes[at..end]);
                let len = pairs.take_while(|(a, b)| a == b).count();
                if len > best.len {
                    best = Match {
                        distance: at - from,
                        len,
                    };
                }
            }
            place = self.before[from];
        }
        match best.len >= MATCH_MIN {
            true => best,
            false => Match::default(),
        }
    }
}

/// Packs `bytes`, at most 4 GiB.
pub(crate) fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut chains = Chains::new(bytes);
    let (mut at, mut literals_from) = (0, 0);
    while at + MATCH_END_MIN <= bytes.len() {
        let mut found = chains.longest(at);
        if found.len == 0 {
            at += 1;
            continue;
        }
        while at + 1 + MATCH_END_MIN <= bytes.len() {
            let next = chains.longest(at + 1);
            if next.len <= found.len {
                break;
            }
            at += 1;
            found = next;
        }
        sequence(&mut out, &bytes[literals_from..at], Some(found));
        at += found.len;
        literals_from = at;
    }
    sequence(&mut out, &bytes[literals_from..], None);
    out
}

/// Adds literals and the match behind them, which only the last sequence lacks.
fn sequence(out: &mut Vec<u8>, literals: &[u8], found: Option<Match>) {
    let extra = found.map_or(0, |found| found.len - MATCH_MIN);
    out.push((literals.len().min(15) << 4 | extra.min(15)) as u8);
    length(out, literals.len());
    out.extend_from_slice(literals);
    if let Some(found) = found {
        // At most `DISTANCE_MAX`.
        out.extend_from_slice(&(found.distance as u16).to_le_bytes());
        length(out, extra);
    }
}

/// What of a length does not fit into its half of the token.
fn length(out: &mut Vec<u8>, len: usize) {
    if let Some(mut rest) = len.checked_sub(15) {
        while rest >= 255 {
            out.push(255);
            rest -= 255;
        }
        out.push(rest as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::compress;
    use proptest::collection::vec as bytes_of;
    use proptest::prelude::*;

    fn back(packed: &[u8], len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let count = lz4_flex::block::decompress_into(packed, &mut bytes).unwrap();
        assert_eq!(count, len);
        bytes
    }

    /// The rules of the format that a decoder may rely on: the last sequence has five
    /// literals at least, and no match begins in the last twelve bytes.
    fn keeps_the_rules(packed: &[u8], len: usize) {
        let (mut at, mut done) = (0, 0);
        let long = |at: &mut usize, first: u8| {
            let mut sum = usize::from(first);
            let mut goes_on = first == 15;
            while goes_on {
                sum += usize::from(packed[*at]);
                goes_on = packed[*at] == 255;
                *at += 1;
            }
            sum
        };
        loop {
            let token = packed[at];
            at += 1;
            let literals = long(&mut at, token >> 4);
            at += literals;
            done += literals;
            if at == packed.len() {
                assert!(literals >= 5 || done == literals, "{literals}");
                assert_eq!(done, len);
                return;
            }
            assert!(len - done >= 12, "a match at {done} of {len}");
            at += 2;
            done += 4 + long(&mut at, token & 15);
        }
    }

    #[test]
    fn blocks_of_all_lengths_come_back() {
        for len in (0..300).chain([4095, 65_535, 65_536, 70_000, 262_144]) {
            for bytes in [
                vec![7; len],
                (0..len).map(|i| (i * i / 5) as u8).collect(),
                (0..len).map(|i| (i % 7) as u8).collect::<Vec<u8>>(),
            ] {
                let packed = compress(&bytes);
                keeps_the_rules(&packed, len);
                assert!(back(&packed, len) == bytes, "{len}");
            }
        }
    }

    #[test]
    fn it_is_smaller_than_the_quick_way() {
        let words = [
            "kernel ", "ramdisk ", "release ", "medium ", "a ", "the ", "node, ",
        ];
        let mut state = 9u32;
        let mut text = String::new();
        while text.len() < 200_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text.push_str(words[(state >> 24) as usize % words.len()]);
        }
        let (ours, quick) = (
            compress(text.as_bytes()),
            lz4_flex::block::compress(text.as_bytes()),
        );
        assert!(
            ours.len() < quick.len() * 9 / 10,
            "{} {}",
            ours.len(),
            quick.len()
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn round_trip(
            parts in bytes_of((bytes_of(any::<u8>(), 0..60), 1..40usize, any::<u8>()), 0..60),
        ) {
            let mut bytes = Vec::new();
            for (part, times, mask) in parts {
                for _ in 0..times {
                    bytes.extend(part.iter().map(|byte| byte & mask));
                }
            }
            let packed = compress(&bytes);
            keeps_the_rules(&packed, bytes.len());
            prop_assert!(back(&packed, bytes.len()) == bytes);
        }
    }
}
