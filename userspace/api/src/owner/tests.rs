//! Every reason for refusal, and that a good request passes once.

use alloc::string::ToString;
use alloc::vec;

use ed25519_compact::{KeyPair, Seed};
use proptest::prelude::*;

use super::*;

fn owner() -> KeyPair {
    KeyPair::from_seed(Seed::new([7; 32]))
}

fn verifier() -> Verifier {
    Verifier::new("node".to_string(), vec![*owner().pk], [9; 32])
}

const KILL: RequestParts<'static> = RequestParts {
    method: "POST",
    path: "/api/v1/capsules/nginx/kill",
    body: b"{}",
};

fn signed(verifier: &Verifier, now_ms: u64, salt: u8) -> SignedHeaders {
    sign(
        &owner().sk,
        "node",
        verifier.challenge(now_ms, [salt; 8]),
        &KILL,
    )
}

#[test]
fn owner_passes_once() {
    let mut verifier = verifier();
    let headers = signed(&verifier, 100, 1);
    assert_eq!(verifier.verify(200, Some(&headers), &KILL), Ok(()));
    assert_eq!(
        verifier.verify(201, Some(&headers), &KILL),
        Err(OwnerError::Replayed)
    );
    let again = signed(&verifier, 100, 2);
    assert_eq!(verifier.verify(202, Some(&again), &KILL), Ok(()));
}

#[test]
fn each_refusal_is_named() {
    let mut v = verifier();
    assert_eq!(v.verify(0, None, &KILL), Err(OwnerError::Unsigned));
    let good = signed(&v, 0, 1);
    let mut short = good.clone();
    short.signature.pop();
    assert_eq!(v.verify(0, Some(&short), &KILL), Err(OwnerError::BadHeader));
    let mut odd = good.clone();
    odd.key.replace_range(0..1, "g");
    assert_eq!(v.verify(0, Some(&odd), &KILL), Err(OwnerError::BadHeader));
    let stranger = KeyPair::from_seed(Seed::new([8; 32]));
    let theirs = sign(&stranger.sk, "node", v.challenge(0, [1; 8]), &KILL);
    assert_eq!(
        v.verify(0, Some(&theirs), &KILL),
        Err(OwnerError::UnknownKey)
    );
    let other_run = Verifier::new("node".to_string(), vec![*owner().pk], [10; 32]);
    let old = signed(&other_run, 0, 1);
    assert_eq!(
        v.verify(0, Some(&old), &KILL),
        Err(OwnerError::ForeignChallenge)
    );
    assert_eq!(
        v.verify(CHALLENGE_MS + 1, Some(&good), &KILL),
        Err(OwnerError::Expired)
    );
    assert_eq!(v.verify(CHALLENGE_MS, Some(&good), &KILL), Ok(()));
}

#[test]
fn signature_covers_every_part() {
    let mut v = verifier();
    let good = signed(&v, 0, 1);
    for other in [
        RequestParts {
            method: "GET",
            ..KILL
        },
        RequestParts {
            path: "/api/v1/capsules/redis/kill",
            ..KILL
        },
        RequestParts {
            body: b"{ }",
            ..KILL
        },
    ] {
        assert_eq!(
            v.verify(0, Some(&good), &other),
            Err(OwnerError::BadSignature)
        );
    }
    let elsewhere = sign(&owner().sk, "other", v.challenge(0, [1; 8]), &KILL);
    assert_eq!(
        v.verify(0, Some(&elsewhere), &KILL),
        Err(OwnerError::BadSignature)
    );
    assert_eq!(
        v.verify(0, Some(&good), &KILL),
        Ok(()),
        "refusals use nothing up"
    );
}

#[test]
fn memory_of_used_challenges_is_bounded() {
    let mut v = verifier();
    for salt in 0..USED_MAX as u64 {
        let headers = sign(
            &owner().sk,
            "node",
            v.challenge(0, salt.to_le_bytes()),
            &KILL,
        );
        assert_eq!(v.verify(0, Some(&headers), &KILL), Ok(()));
    }
    let late = sign(&owner().sk, "node", v.challenge(0, [0xff; 8]), &KILL);
    assert_eq!(v.verify(0, Some(&late), &KILL), Err(OwnerError::TooMany));
    let fresh = signed(&v, CHALLENGE_MS + 1, 1);
    assert_eq!(v.verify(CHALLENGE_MS + 1, Some(&fresh), &KILL), Ok(()));
}

#[test]
fn hexadecimal_goes_both_ways() {
    assert_eq!(hex(&[0, 0xab, 0xff]), "00abff");
    assert_eq!(unhex::<3>("00ABff"), Some([0, 0xab, 0xff]));
    assert_eq!(unhex::<2>("é1z"), None);
}

proptest! {
    /// Whatever stands in the headers, the answer is a typed refusal.
    #[test]
    fn hostile_headers_are_refused(key in ".{0,70}", challenge in ".{0,70}", signature in ".{0,140}") {
        let headers = SignedHeaders { key, challenge, signature };
        prop_assert!(verifier().verify(0, Some(&headers), &KILL).is_err());
    }

    /// No forged challenge passes, even under the owner's signature.
    #[test]
    fn forged_challenges_are_refused(bytes in any::<[u8; 32]>(), now_ms: u64) {
        let headers = sign(&owner().sk, "node", Challenge(bytes), &KILL);
        let answer = verifier().verify(now_ms, Some(&headers), &KILL);
        prop_assert_eq!(answer, Err(OwnerError::ForeignChallenge));
    }
}
