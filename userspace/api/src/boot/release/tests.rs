use super::*;
use alloc::vec::Vec;
use proptest::prelude::*;

fn pair() -> KeyPair {
    KeyPair::from_seed([4; 32]).unwrap()
}

fn release() -> Release {
    Release {
        version: 7,
        len: 1 << 20,
        kernel: Piece {
            offset: 8192,
            len: 100_001,
            hash: Hash::of(b"kernel"),
        },
        ramdisk: Piece {
            offset: 128 << 10,
            len: 500_000,
            hash: Hash::of(b"ramdisk"),
        },
        volume: Hash::of(b"volume"),
        key: pair().public(),
        health_seconds: 60,
        tries: 2,
        command_line: "console=serial".into(),
    }
}

#[test]
fn what_was_signed_comes_back() {
    let head = release().sign(&pair());
    assert_eq!(Release::verify(&head, &pair().public()), Ok(release()));
}

#[test]
fn another_key_is_named_before_anything_else() {
    let head = release().sign(&pair());
    let other = KeyPair::from_seed([5; 32]).unwrap();
    assert_eq!(
        Release::verify(&head, &other.public()),
        Err(ReleaseError::WrongKey)
    );
    assert_eq!(
        Release::verify(&[0; HEAD_BYTES], &pair().public()),
        Err(ReleaseError::Missing)
    );
    assert_eq!(
        Release::verify(b"short", &pair().public()),
        Err(ReleaseError::Missing)
    );
}

#[test]
fn a_signed_head_must_still_make_sense() {
    type Change = fn(&mut Release);
    let changes: [Change; 7] = [
        |release| release.kernel.len = 0,
        |release| release.kernel.offset = 512,
        |release| release.kernel.offset += 512,
        |release| release.ramdisk.len = u64::MAX,
        |release| release.ramdisk.len = 1 << 20,
        |release| release.len = 1000,
        |release| release.len = !511,
    ];
    for change in changes {
        let mut release = release();
        change(&mut release);
        let head = release.sign(&pair());
        assert_eq!(
            Release::verify(&head, &pair().public()),
            Err(ReleaseError::BadHead)
        );
    }
}

proptest! {
    #[test]
    fn every_bit_is_under_the_signature(bit in 0..HEAD_BYTES * 8) {
        let mut head = release().sign(&pair());
        head[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Release::verify(&head, &pair().public()).is_err());
    }

    #[test]
    fn any_bytes_are_refused_without_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), HEAD_BYTES),
        with_magic in any::<bool>(),
    ) {
        if with_magic {
            bytes[..8].copy_from_slice(b"SKEPREL1");
        }
        let _ = Release::decode(&bytes);
        prop_assert!(Release::verify(&bytes, &pair().public()).is_err());
    }
}

#[test]
fn the_longest_command_line_fits() {
    let mut release = release();
    release.command_line = core::iter::repeat_n('x', COMMAND_LINE_BYTES_MAX).collect();
    let head: Vec<u8> = release.sign(&pair()).to_vec();
    assert_eq!(Release::verify(&head, &pair().public()), Ok(release));
}
