//! What is packed comes back; what is damaged is told, whatever it is, and costs no more
//! than itself.

use super::*;
use alloc::vec;
use alloc::vec::Vec;
use proptest::collection::vec as bytes_of;
use proptest::prelude::*;

/// Packs as the image builder does, every third block as it is.
fn pack(ramdisk: &[u8]) -> Vec<u8> {
    let mut table = Vec::new();
    let mut blocks = Vec::new();
    for (number, content) in ramdisk.chunks(BLOCK_BYTES).enumerate() {
        let packed = lz4_flex::block::compress(content);
        if number % 3 == 2 || packed.len() >= content.len() {
            table.push(content.len() as u32 | AS_IT_IS);
            blocks.extend_from_slice(content);
        } else {
            table.push(packed.len() as u32);
            blocks.extend_from_slice(&packed);
        }
    }
    let mut all = header(ramdisk.len() as u64, &table);
    all.extend(blocks);
    all
}

/// Five blocks and a bit, that can be packed and differ everywhere.
fn ramdisk() -> Vec<u8> {
    (0..5 * BLOCK_BYTES as u32 + 999)
        .map(|i| ((i / 11) ^ (i >> 9)) as u8)
        .collect()
}

fn unpack(packed: &[u8]) -> Result<(Vec<u8>, usize), PackedError> {
    let view = Packed::parse(packed)?;
    let mut into = vec![0xee; view.len()];
    let mut pauses = 0;
    let done = view.unpack(&mut into, || pauses += 1)?;
    assert_eq!(pauses, into.len().div_ceil(BLOCK_BYTES));
    Ok((into, done))
}

/// The header's hash made right again after a change.
fn rehash(packed: &mut [u8]) {
    let table = index(u32_at(packed, BLOCKS_AT).unwrap()) * ENTRY_BYTES;
    let mut hasher = Hasher::new();
    hasher.update(&packed[..HASH_AT]);
    hasher.update(
        packed
            .get(HEADER_BYTES..HEADER_BYTES + table)
            .unwrap_or(&[]),
    );
    let Hash(hash) = hasher.finish();
    put(packed, HASH_AT, &hash);
}

#[test]
fn what_is_packed_comes_back() {
    for len in [1, 4096, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1] {
        let ramdisk = &ramdisk()[..len];
        let packed = pack(ramdisk);
        assert!(is_packed(&packed) && !is_packed(ramdisk));
        let (back, damaged) = unpack(&packed).unwrap();
        assert!(back == ramdisk);
        assert_eq!(damaged, 0);
    }
    let ramdisk = ramdisk();
    let mut packed = pack(&ramdisk);
    assert!(packed.len() < ramdisk.len());
    // Loaders may hand over more than there is.
    packed.resize(packed.len().next_multiple_of(4096), 0xcc);
    assert!(unpack(&packed).unwrap().0 == ramdisk);
}

/// A ramdisk of somebody else's packer, byte by byte as `docs/reference/formats.md` says: four
/// letters, again and again, packed by hand, and four bytes as they are.
#[test]
fn the_format_does_not_change_by_accident() {
    let mut lz4 = vec![0x4f, b's', b'k', b'e', b'p', 4, 0];
    // The match: all but the literals before and behind it, less 4, less 15 of the token.
    let rest = BLOCK_BYTES - 4 - 8 - 4 - 15;
    lz4.extend(vec![255; rest / 255]);
    lz4.push((rest % 255) as u8);
    lz4.extend_from_slice(b"\x80skepskep");
    let mut packed = b"SKEPPACK\x01\0\0\0\x02\0\0\0".to_vec();
    packed.extend_from_slice(&(BLOCK_BYTES as u64 + 4).to_le_bytes());
    packed.extend_from_slice(&(64 + 8 + lz4.len() as u64 + 4).to_le_bytes());
    let table = [lz4.len() as u32, 0x8000_0004]
        .map(u32::to_le_bytes)
        .concat();
    packed.extend_from_slice(&Hash::of(&[&packed[..], &table].concat()).0);
    packed.extend_from_slice(&table);
    packed.extend_from_slice(&lz4);
    packed.extend_from_slice(b"node");
    let (back, damaged) = unpack(&packed).unwrap();
    assert_eq!(damaged, 0);
    assert!(back == [&b"skep".repeat(BLOCK_BYTES / 4)[..], b"node"].concat());
    let entries = [lz4.len() as u32, 4 | AS_IT_IS];
    assert_eq!(header(back.len() as u64, &entries), packed[..72]);
}

#[test]
fn a_room_that_is_too_small_is_refused() {
    let packed = pack(&ramdisk());
    let view = Packed::parse(&packed).unwrap();
    let mut into = vec![7; view.len() - 1];
    let refused = view.unpack(&mut into, || ());
    assert_eq!(refused, Err(PackedError::NoRoom(view.len() as u64)));
    assert!(into.iter().all(|&byte| byte == 7));
}

#[test]
fn every_cut_leaves_what_is_before_it() {
    let ramdisk = ramdisk();
    let packed = pack(&ramdisk);
    let view = Packed::parse(&packed).unwrap();
    let head = HEADER_BYTES + view.table.len();
    for cut in 0..head {
        assert_eq!(unpack(&packed[..cut]).unwrap_err(), PackedError::BadHeader);
    }
    let cuts = (head..packed.len()).step_by(997);
    for cut in cuts.chain([head, packed.len() - 1]) {
        let whole = view
            .blocks()
            .filter(|block| block.packed.end <= cut)
            .count();
        if whole == 0 {
            assert_eq!(unpack(&packed[..cut]), Err(PackedError::CutShort));
            continue;
        }
        let (back, damaged) = unpack(&packed[..cut]).unwrap();
        assert_eq!(
            (back.len(), damaged),
            (whole * BLOCK_BYTES, 0),
            "cut at {cut}"
        );
        assert!(back == ramdisk[..back.len()]);
    }
}

#[test]
fn every_wrong_byte_of_header_and_table_is_found() {
    let packed = pack(&ramdisk());
    let head = HEADER_BYTES + Packed::parse(&packed).unwrap().table.len();
    for at in 0..head {
        let mut wrong = packed.clone();
        wrong[at] ^= 0x10;
        let error = unpack(&wrong).unwrap_err();
        let expected = match at {
            8..12 => matches!(error, PackedError::UnknownVersion(_)),
            _ => error == PackedError::BadHeader,
        };
        assert!(expected, "byte {at}: {error}");
    }
}

/// A header that is whole and lies: whoever signs may be wrong, and under a BIOS nobody has
/// checked who signed.
#[test]
fn a_header_that_lies_is_refused() {
    let packed = pack(&ramdisk());
    let lie = |at: usize, bytes: &[u8]| {
        let mut packed = packed.clone();
        put(&mut packed, at, bytes);
        rehash(&mut packed);
        unpack(&packed).unwrap_err()
    };
    let len = ramdisk().len() as u64;
    let long = RAMDISK_BYTES_MAX + 1;
    let ramdisk_len = |len: u64| lie(RAMDISK_LEN_AT, &len.to_le_bytes());
    assert_eq!(ramdisk_len(long), PackedError::TooLong(long));
    assert_eq!(ramdisk_len(u64::MAX), PackedError::TooLong(u64::MAX));
    for wrong in [
        0,
        1,
        len - 1000,
        len + BLOCK_BYTES as u64,
        RAMDISK_BYTES_MAX,
    ] {
        assert_eq!(ramdisk_len(wrong), PackedError::Senseless, "{wrong}");
    }
    for wrong in [
        0,
        packed.len() as u64 - 1,
        packed.len() as u64 + 1,
        u64::MAX,
    ] {
        assert_eq!(lie(LEN_AT, &wrong.to_le_bytes()), PackedError::Senseless);
    }
    for blocks in [0u32, 5] {
        assert_eq!(
            lie(BLOCKS_AT, &blocks.to_le_bytes()),
            PackedError::Senseless
        );
    }
    assert_eq!(
        lie(BLOCKS_AT, &u32::MAX.to_le_bytes()),
        PackedError::BadHeader
    );
    // A length of none, of more than it holds, and one that is as it is and shorter.
    for entry in [0, BLOCK_BYTES as u32, !AS_IT_IS, AS_IT_IS | 5] {
        let error = lie(HEADER_BYTES, &entry.to_le_bytes());
        assert_eq!(error, PackedError::Senseless, "{entry:#x}");
    }
}

/// Lies that agree with one another.
#[test]
fn tables_that_do_not_fit_the_ramdisk_are_refused() {
    let two = 2 * BLOCK_BYTES as u64;
    for (ramdisk_len, table) in [
        (1000, &[AS_IT_IS | 5][..]),
        (1000, &[AS_IT_IS | 2000]),
        (1000, &[1000]),
        (1000, &[3]),
        (1000, &[]),
        (1000, &[500, AS_IT_IS]),
        (two, &[5000]),
        (two, &[5000, 5000, AS_IT_IS]),
    ] {
        let mut packed = header(ramdisk_len, table);
        packed.resize(packed.len() + 20_000, 0);
        let refused = unpack(&packed).map(drop);
        assert_eq!(refused, Err(PackedError::Senseless), "{table:x?}");
    }
}

/// One that unpacks well, to fewer bytes than it should.
#[test]
fn a_block_that_is_too_short_is_damaged() {
    let block = lz4_flex::block::compress(&[7; 900]);
    let mut packed = header(1000, &[block.len() as u32]);
    packed.extend_from_slice(&block);
    assert_eq!(unpack(&packed), Ok((vec![0; 1000], 1)));
}

/// A file of some kilobytes cannot claim gigabytes: LZ4 does not grow that much, and what a
/// block says beyond its room is not written.
#[test]
fn bombs_are_refused() {
    let least = BLOCK_BYTES.div_ceil(GROWTH_MAX) as u32;
    let bomb = |entry: u32| {
        let blocks = (RAMDISK_BYTES_MAX / BLOCK_BYTES as u64) as usize;
        header(RAMDISK_BYTES_MAX, &vec![entry; blocks])
    };
    let refused = Packed::parse(&bomb(least - 1)).map(|view| view.len());
    assert_eq!(refused, Err(PackedError::Senseless));
    // This one could be, and no room is taken for what is not there.
    let cut = Packed::parse(&bomb(least)).map(|view| view.len());
    assert_eq!(cut, Err(PackedError::CutShort));
    let mut one = bomb(least);
    one.resize(one.len() + least as usize, 0);
    assert_eq!(Packed::parse(&one).unwrap().len(), BLOCK_BYTES);
    // A block that is a whole one, in the place of one of 1000 bytes.
    let content = lz4_flex::block::compress(&[0; BLOCK_BYTES]);
    let mut packed = header(1000, &[100]);
    packed.extend_from_slice(&content[..100]);
    let (back, damaged) = unpack(&packed).unwrap();
    assert_eq!((back.len(), damaged), (1000, 1));
    assert!(back.iter().all(|&byte| byte == 0));
}

#[test]
fn damage_stays_in_its_block() {
    let ramdisk = ramdisk();
    let packed = pack(&ramdisk);
    let blocks: Vec<Block> = Packed::parse(&packed).unwrap().blocks().collect();
    for hurt in &blocks {
        let mut wrong = packed.clone();
        wrong[hurt.packed.clone()].fill(0xff);
        let (back, damaged) = unpack(&wrong).unwrap();
        assert_eq!(back.len(), ramdisk.len());
        assert_eq!(damaged, usize::from(!hurt.is_as_it_is));
        for block in &blocks {
            let part = &back[block.content.clone()];
            if block.content != hurt.content {
                assert!(part == &ramdisk[block.content.clone()]);
            } else if !hurt.is_as_it_is {
                assert!(part.iter().all(|&byte| byte == 0));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn round_trip(
        seed in bytes_of(any::<u8>(), 1..3000),
        times in 1..400usize,
        tail in 0..100usize,
    ) {
        let mut ramdisk = seed.repeat(times);
        ramdisk.truncate(3 * BLOCK_BYTES + tail);
        let (back, damaged) = unpack(&pack(&ramdisk)).unwrap();
        prop_assert!(back == ramdisk);
        prop_assert_eq!(damaged, 0);
    }

    /// Whatever a block's bytes are, the kernel lives.
    #[test]
    fn no_damage_is_a_panic(
        damage in bytes_of((0usize.., any::<u8>()), 1..40),
        seed in bytes_of(any::<u8>(), 1..200),
    ) {
        let mut ramdisk = seed.repeat(2000);
        ramdisk.truncate(BLOCK_BYTES / 8);
        let mut packed = pack(&ramdisk);
        let head = HEADER_BYTES + ENTRY_BYTES;
        let len = packed.len() - head;
        for (at, byte) in damage {
            packed[head + at % len] = byte;
        }
        prop_assert_eq!(unpack(&packed).unwrap().0.len(), ramdisk.len());
    }

    #[test]
    fn no_block_is_a_panic(block in bytes_of(any::<u8>(), 129..4000), room in 4000..32_000u64) {
        let mut packed = header(room, &[block.len() as u32]);
        packed.extend_from_slice(&block);
        prop_assert_eq!(unpack(&packed).unwrap().0.len() as u64, room);
    }

    #[test]
    fn no_header_is_a_panic(mut bytes in bytes_of(any::<u8>(), 0..200), right in any::<bool>()) {
        put(&mut bytes, 0, &MAGIC);
        if right && bytes.len() >= HEADER_BYTES {
            put(&mut bytes, 8, &VERSION.to_le_bytes());
            let blocks = (bytes.len() - HEADER_BYTES) as u32 / 4;
            put(&mut bytes, BLOCKS_AT, &blocks.to_le_bytes());
            put(&mut bytes, RAMDISK_LEN_AT + 4, &[0; 4]);
            rehash(&mut bytes);
        }
        prop_assert!(Packed::parse(&bytes).is_err() || right);
    }
}
