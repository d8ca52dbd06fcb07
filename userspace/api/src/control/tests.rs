//! Round trips, limits and hostile bytes.

use alloc::string::ToString;
use alloc::vec;

use proptest::prelude::*;

use super::frame::{
    HEADER_BYTES, decode_message, decode_request, encode_message, encode_request, header, split,
};
use super::*;

fn round_trip(request: &Request) -> Result<Request, ControlError> {
    let bytes = encode_request(7, request).expect("fits a frame");
    let (head, body, rest) = split(&bytes).expect("a whole frame");
    assert_eq!(head.id, 7);
    assert!(rest.is_empty());
    decode_request(&head, body)
}

fn exec(argv: Vec<String>, timeout_ms: u32) -> Request {
    Request::Exec {
        capsule: CapsuleId(3),
        argv,
        env: vec!["A=b".to_string()],
        timeout_ms,
    }
}

/// The bytes on the wire are part of the contract: changing this test means raising the version.
#[test]
fn wire_bytes_are_fixed() {
    let stop = Request::Stop {
        capsule: CapsuleId(300),
        signal: 15,
        grace_ms: 5000,
    };
    let expected = [
        6, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0, 3, 0xac, 2, 15, 0x88, 0x27,
    ];
    assert_eq!(encode_request(9, &stop).expect("fits"), expected);
    let event = EventRecord {
        sequence: 1,
        time_ns: 2,
        event: Event::Ping { token: 3 },
    };
    let expected = [5, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 11, 3];
    assert_eq!(
        encode_message(0, &Message::Event(event)).expect("fits"),
        expected
    );
}

#[test]
fn requests_survive_the_wire() {
    for request in [
        Request::Hello {
            client: "threebot".to_string(),
        },
        Request::Start {
            manifest: ManifestSource::Bundle("nginx".to_string()),
        },
        Request::Start {
            manifest: ManifestSource::Signed(vec![1; MANIFEST_BYTES_MAX]),
        },
        exec(vec!["/bin/true".to_string()], 1000),
        Request::Subscribe {
            events: EventMask::ALL,
        },
        Request::SaveState {
            bytes: vec![0xff; STATE_BYTES_MAX],
        },
        Request::PowerOff,
        Request::Judge {
            capsule: CapsuleId(3),
            health: CapsuleHealth::Failing,
        },
    ] {
        assert_eq!(round_trip(&request), Ok(request));
    }
}

#[test]
fn limits_are_enforced() {
    let too_large = |field: &str| Err(ControlError::TooLarge(field.to_string()));
    let invalid = |field: &str| Err(ControlError::Invalid(field.to_string()));
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    assert_eq!(
        round_trip(&Request::ReadManifest { name: long }),
        too_large("name")
    );
    let prove = |len| {
        round_trip(&Request::ProveIdentity {
            challenge: vec![7; len],
        })
    };
    assert!(prove(16).is_ok() && prove(64).is_ok());
    assert_eq!(prove(15), invalid("challenge"));
    assert_eq!(prove(65), too_large("challenge"));
    let state = Request::SaveState {
        bytes: vec![0; STATE_BYTES_MAX + 1],
    };
    assert_eq!(round_trip(&state), too_large("bytes"));
    let kill = |signal| Request::Kill {
        capsule: CapsuleId(1),
        signal,
        scope: KillScope::All,
    };
    assert_eq!(round_trip(&kill(0)), invalid("signal"));
    assert_eq!(round_trip(&kill(65)), invalid("signal"));
    assert!(round_trip(&kill(64)).is_ok());
    assert_eq!(round_trip(&exec(vec![], 1)), invalid("argv"));
    assert_eq!(
        round_trip(&exec(vec!["a\0b".to_string()], 1)),
        invalid("argv")
    );
    assert_eq!(
        round_trip(&exec(vec!["a".to_string()], 0)),
        invalid("timeout_ms")
    );
    let many = vec!["a".to_string(); EXEC_STRINGS_MAX + 1];
    assert_eq!(round_trip(&exec(many, 1)), too_large("argv"));
    let fat = vec!["a".repeat(EXEC_BYTES_MAX)];
    assert_eq!(round_trip(&exec(fat, 1)), too_large("argv"));
    let over = Request::SaveState {
        bytes: vec![0; FRAME_BYTES_MAX],
    };
    assert_eq!(encode_request(1, &over), Err(FrameError::TooLarge));
}

#[test]
fn a_profile_ends_and_does_not_drown_the_machine() {
    let start = |seconds, hz| {
        round_trip(&Request::StartProfile {
            seconds,
            hz,
            capsule: Some(CapsuleId(4)),
        })
    };
    assert!(start(1, 0).is_ok());
    assert!(start(PROFILE_SECONDS_MAX, PROFILE_HZ_MAX).is_ok());
    assert_eq!(
        start(0, 10),
        Err(ControlError::Invalid("seconds".to_string()))
    );
    assert_eq!(
        start(PROFILE_SECONDS_MAX + 1, 10),
        Err(ControlError::TooLarge("seconds".to_string()))
    );
    assert_eq!(
        start(1, PROFILE_HZ_MAX + 1),
        Err(ControlError::TooLarge("hz".to_string()))
    );
}

#[test]
fn the_largest_profile_fits_a_frame() {
    let call = CallProfile {
        number: u16::MAX,
        name: "clock_nanosleep_or_longer".to_string(),
        made: u64::MAX,
        failed: u64::MAX,
        total_ns: u64::MAX,
        longest_ns: u64::MAX,
        classes: vec![u32::MAX; LATENCY_CLASSES],
    };
    let profile = Profile {
        running: true,
        began_ns: u64::MAX,
        lasted_ns: u64::MAX,
        capsule: Some("n".repeat(NAME_BYTES_MAX)),
        hz: PROFILE_HZ_MAX,
        calls: vec![call; PROFILE_CALLS_MAX],
        calls_left_out: u32::MAX,
        samples: Samples {
            user: u64::MAX,
            kernel: u64::MAX,
            lost: u64::MAX,
            places: vec![(u32::MAX, u32::MAX); PROFILE_PLACES_MAX],
        },
    };
    let message = Message::Reply(Reply::Profile(Some(profile)));
    let bytes = encode_message(1, &message).expect("fits");
    let (head, body, _) = split(&bytes).expect("a whole frame");
    assert_eq!(decode_message(&head, body), Ok(message));
}

#[test]
fn other_versions_and_leftovers_are_named() {
    let mut bytes = encode_request(5, &Request::NodeInfo).expect("fits");
    bytes[4] = 1;
    let (head, body, _) = split(&bytes).expect("a whole frame");
    assert_eq!(head.id, 5);
    assert_eq!(
        decode_request(&head, body),
        Err(ControlError::Version { kernel: 9 })
    );
    let mut bytes = encode_request(5, &Request::NodeInfo).expect("fits");
    bytes.push(0);
    bytes[0] += 1;
    let (head, body, _) = split(&bytes).expect("a whole frame");
    assert_eq!(decode_request(&head, body), Err(ControlError::Malformed));
}

#[test]
fn headers_are_checked() {
    assert_eq!(header(&[0; HEADER_BYTES - 1]), Err(FrameError::Truncated));
    let mut bytes = [0; HEADER_BYTES];
    bytes[2] = 1;
    assert_eq!(header(&bytes), Err(FrameError::TooLarge));
    let mut bytes = [0; HEADER_BYTES];
    bytes[6] = 1;
    assert_eq!(header(&bytes), Err(FrameError::Reserved));
    let bytes = encode_request(1, &Request::NodeInfo).expect("fits");
    assert_eq!(split(&bytes[..bytes.len() - 1]), Err(FrameError::Truncated));
}

#[test]
fn masks_know_their_families() {
    let both = EventMask::CAPSULE.union(EventMask::LOG);
    assert!(both.contains(EventMask::LOG));
    assert!(!both.contains(EventMask::DEVICE));
    assert!(EventMask::ALL.contains(both));
}

proptest! {
    /// Whatever bytes arrive, decoding ends in a value or a typed error.
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok((head, body, _)) = split(&bytes) {
            let _ = decode_request(&head, body);
            let _ = decode_message(&head, body);
        }
    }

    /// The same with a good header, so that the bodies are reached; what decodes encodes again.
    #[test]
    fn hostile_bodies_never_panic(
        variant in 0u8..20,
        tail in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut body = vec![variant];
        body.extend_from_slice(&tail);
        let head = frame::Header { body_bytes: body.len(), version: PROTOCOL_VERSION, id: 1 };
        if let Ok(request) = decode_request(&head, &body) {
            prop_assert_eq!(round_trip(&request), Ok(request));
        }
        if let Ok(message) = decode_message(&head, &body) {
            let bytes = encode_message(1, &message).expect("fits a frame");
            let (head, body, _) = split(&bytes).expect("a whole frame");
            prop_assert_eq!(decode_message(&head, body), Ok(message));
        }
    }

    /// One flipped bit in a good frame is an error or another valid message, never a panic.
    #[test]
    fn flipped_bits_never_panic(position in 0usize..40, bit in 0u8..8) {
        let request = exec(vec!["/bin/sh".to_string(), "-c".to_string()], 1000);
        let mut bytes = encode_request(1, &request).expect("fits a frame");
        let index = position % bytes.len();
        bytes[index] ^= 1 << bit;
        if let Ok((head, body, _)) = split(&bytes) {
            let _ = decode_request(&head, body);
        }
    }
}
