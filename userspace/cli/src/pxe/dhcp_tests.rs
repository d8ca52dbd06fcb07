use super::*;
use proptest::prelude::*;

/// A client's message with these options.
pub(in crate::pxe) fn query(options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; HEAD];
    bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
    bytes[4..8].copy_from_slice(&[0xaa, 0xbb, 0xcc, 0xdd]);
    bytes[28..34].copy_from_slice(&[0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    bytes[236..240].copy_from_slice(&COOKIE.to_be_bytes());
    for (kind, data) in options {
        bytes.extend([*kind, data.len() as u8]);
        bytes.extend_from_slice(data);
    }
    bytes.push(255);
    bytes
}

fn firmware_of(options: &[(u8, &[u8])]) -> Option<Firmware> {
    let mut all = vec![(option::MESSAGE_TYPE, &[1u8][..])];
    all.extend_from_slice(options);
    Query::parse(&query(&all)).unwrap().firmware
}

#[test]
fn firmware_is_known_by_what_it_says() {
    let pxe: (u8, &[u8]) = (60, b"PXEClient:Arch:00007:UNDI:003016");
    assert_eq!(firmware_of(&[]), None);
    assert_eq!(firmware_of(&[(60, b"udhcp 1.35")]), None);
    assert_eq!(firmware_of(&[pxe, (93, &[0, 0])]), Some(Firmware::Bios));
    assert_eq!(firmware_of(&[pxe, (93, &[0, 7])]), Some(Firmware::Uefi));
    assert_eq!(firmware_of(&[pxe, (93, &[0, 9])]), Some(Firmware::Uefi));
    let http: (u8, &[u8]) = (60, b"HTTPClient:Arch:00016:UNDI:003001");
    assert_eq!(
        firmware_of(&[http, (93, &[0, 16])]),
        Some(Firmware::UefiHttp)
    );
    assert_eq!(
        firmware_of(&[pxe, (93, &[0, 0]), (77, b"iPXE")]),
        Some(Firmware::Ipxe)
    );
    assert_eq!(
        firmware_of(&[pxe, (93, &[0, 11])]),
        Some(Firmware::Other(11))
    );
    assert_eq!(
        firmware_of(&[pxe, (93, &[0])]),
        Some(Firmware::Other(u16::MAX))
    );
}

#[test]
fn an_answer_carries_what_both_old_and_new_firmware_read() {
    let bytes = query(&[(53, &[1]), (60, b"PXEClient"), (97, &[0; 17])]);
    let query = Query::parse(&bytes).unwrap();
    let mut reply = Reply::new(Answer::Offer, [192, 0, 2, 1].into());
    reply.file = "bootx64.efi".to_string();
    reply.option(option::CLASS, b"PXEClient");
    let answer = reply.encode(&query).unwrap();
    let packet = DhcpPacket::new_checked(&answer[..]).unwrap();
    assert_eq!(packet.opcode(), DhcpOpCode::Reply);
    assert_eq!(packet.transaction_id(), 0xaabb_ccdd);
    assert_eq!(packet.get_boot_file(), Ok("bootx64.efi"));
    assert_eq!(&answer[44..54], b"192.0.2.1\0");
    let options: Vec<_> = packet
        .options()
        .map(|o| (o.kind, o.data.to_vec()))
        .collect();
    let expected: [(u8, &[u8]); 5] = [
        (53, &[2]),
        (54, &[192, 0, 2, 1]),
        (60, b"PXEClient"),
        (97, &[0; 17]),
        (67, b"bootx64.efi"),
    ];
    assert_eq!(options, expected.map(|(kind, data)| (kind, data.to_vec())));
}

#[test]
fn an_answer_that_is_too_long_is_none() {
    let query = Query::parse(&query(&[(53, &[1])])).unwrap();
    let mut reply = Reply::new(Answer::Ack, Ipv4Addr::LOCALHOST);
    for _ in 0..2 {
        reply.option(option::VENDOR_INFORMATION, &[0; 200]);
    }
    assert_eq!(reply.encode(&query), None);
}

#[test]
fn hardware_addresses_are_read_in_both_spellings() {
    let mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x5f]);
    assert_eq!("52:54:00:12:34:5f".parse(), Ok(mac));
    assert_eq!("52-54-00-12-34-5F".parse(), Ok(mac));
    for wrong in [
        "",
        "52:54:00:12:34",
        "52:54:00:12:34:56:78",
        "5:254:00:12:34:56",
        "+1:54:00:12:34:5",
    ] {
        assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
    }
    assert_eq!(mac.to_string(), "52:54:00:12:34:5f");
}

proptest! {
    #[test]
    fn no_message_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..600), cookie: bool) {
        let mut bytes = bytes;
        if cookie && bytes.len() >= HEAD {
            bytes[..3].copy_from_slice(&[1, 1, 6]);
            bytes[236..240].copy_from_slice(&COOKIE.to_be_bytes());
        }
        if let Some(query) = Query::parse(&bytes) {
            let reply = Reply::new(Answer::Ack, Ipv4Addr::LOCALHOST).encode(&query);
            prop_assert!(reply.is_none_or(|bytes| bytes.len() <= LENGTH_MAX));
        }
    }
}
