use super::*;
use crate::testing::{Bundle, config, manifest, owner, signed, stranger};
use proptest::prelude::*;
use skep_api::manifest::Validity;

fn open(bundle: Bundle, config: &NodeConfig) -> Manifests {
    let bytes: &'static [u8] = bundle.build().leak();
    Manifests::new(BundleView::parse(bytes).unwrap(), config, config.owner)
}

fn refusal_of(list: &[ManifestEntry], name: &str) -> Option<Refusal> {
    list.iter()
        .find(|l| l.name == name)
        .unwrap()
        .refusal
        .clone()
}

#[test]
fn each_fault_is_named_and_the_others_stand() {
    let config = config(&["good", "stranger"]);
    let mut bundle = Bundle::new(&config);
    let tree = Hash([1; 32]);
    let good = manifest("good", tree, 81);
    bundle.manifest("good", signed(&good, &owner()));
    bundle.manifest("stranger", signed(&manifest("s", tree, 82), &stranger()));
    let mut flipped = signed(&manifest("flipped", tree, 83), &owner());
    *flipped.last_mut().unwrap() ^= 1;
    bundle.manifest("flipped", flipped);
    let mut version = signed(&manifest("version", tree, 84), &owner());
    version[8] = 9;
    bundle.manifest("version", version);
    bundle.manifest("noise", b"noise".to_vec());
    let manifests = open(bundle, &config);
    let list = manifests.list();
    assert_eq!(refusal_of(&list, "good"), None);
    assert_eq!(refusal_of(&list, "stranger"), Some(Refusal::UnknownKey));
    assert_eq!(refusal_of(&list, "flipped"), Some(Refusal::BadSignature));
    assert_eq!(
        refusal_of(&list, "version"),
        Some(Refusal::UnknownVersion(9))
    );
    assert!(matches!(
        refusal_of(&list, "noise"),
        Some(Refusal::Malformed(_))
    ));
    let role = |n: &str| list.iter().find(|l| l.name == n).unwrap().role;
    assert_eq!(role("stranger"), ManifestRole::Start);
    assert_eq!(role("noise"), ManifestRole::Idle);
    assert_eq!(manifests.get("good").unwrap().unwrap().manifest, good);
    assert!(manifests.get("nobody").is_none());
    assert_eq!(manifests.bytes("noise"), Some(&b"noise"[..]));
}

#[test]
fn validity_counts_only_with_a_clock_that_can_be_right() {
    let mut m = manifest("m", Hash([1; 32]), 81);
    m.validity = Validity {
        valid_from: Some(2_000_000_000),
        not_after: Some(2_000_000_100),
    };
    let accepted = check_signed(&signed(&m, &owner()), &[owner().public()]).unwrap();
    let at = |now| check_times(&accepted.manifest, now);
    assert_eq!(at(Some(2_000_000_050)), Ok(()));
    assert_eq!(at(None), Ok(()));
    assert_eq!(
        at(Some(2_000_000_101)),
        Err(Refusal::Expired {
            since_unix_ms: 2_000_000_100_000
        })
    );
    assert_eq!(
        at(Some(1_999_999_999)),
        Err(Refusal::NotYetValid {
            from_unix_ms: 2_000_000_000_000
        })
    );
}

#[test]
fn of_duplicates_the_newest_counts() {
    let config = config(&[]);
    let mut bundle = Bundle::new(&config);
    let mut m = manifest("web", Hash([1; 32]), 81);
    bundle.manifest("b-old", signed(&m, &owner()));
    m.sequence = 9;
    bundle.manifest("a-new", signed(&m, &owner()));
    m.command.push("twin".into());
    bundle.manifest("c-twin", signed(&m, &owner()));
    let list = open(bundle, &config).list();
    assert_eq!(refusal_of(&list, "a-new"), None);
    assert_eq!(refusal_of(&list, "b-old"), Some(Refusal::OldSequence(9)));
    assert!(matches!(
        refusal_of(&list, "c-twin"),
        Some(Refusal::Malformed(_))
    ));
}

#[test]
fn a_port_goes_to_the_first_in_the_configuration() {
    let config = config(&["z", "a", "b"]);
    let mut bundle = Bundle::new(&config);
    for (name, port) in [
        ("threebot", 8080),
        ("a", 81),
        ("b", 8080),
        ("z", 81),
        ("idle", 81),
    ] {
        bundle.manifest(name, signed(&manifest(name, Hash([1; 32]), port), &owner()));
    }
    let list = open(bundle, &config).list();
    let refused: Vec<_> = ["threebot", "z", "a", "b", "idle"]
        .map(|n| refusal_of(&list, n))
        .into();
    assert_eq!(
        refused,
        [
            None,
            None,
            Some(Refusal::PortTaken(81)),
            Some(Refusal::PortTaken(8080)),
            None
        ]
    );
}

#[test]
fn an_old_manifest_cannot_be_played_again() {
    let config = config(&[]);
    let manifests = open(Bundle::new(&config), &config);
    let mut m = manifest("web", Hash([1; 32]), 81);
    assert_eq!(manifests.admit(&m), Ok(()));
    m.sequence = 8;
    assert_eq!(manifests.admit(&m), Ok(()));
    assert_eq!(manifests.admit(&m), Ok(()));
    m.sequence = 7;
    assert_eq!(manifests.admit(&m), Err(Refusal::OldSequence(8)));
}

proptest! {
    #[test]
    fn nothing_but_the_owners_bytes_is_accepted(at in 0usize..2000, bit in 0u8..8) {
        let mut bytes = signed(&manifest("m", Hash([1; 32]), 81), &owner());
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert!(check_signed(&bytes, &[owner().public()]).is_err());
    }

    #[test]
    fn noise_is_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(check_signed(&bytes, &[owner().public()]).is_err());
    }
}

/// A new owner takes over a node that somebody else has built: what is in the ramdisk
/// may still run, and whatever else there is must be the new owner's.
#[test]
fn the_maker_signs_what_is_built_in_and_nothing_else() {
    let maker = owner();
    let mut config = config(&["web", "own", "foreign"]);
    let mut bundle = Bundle::new(&config);
    let tree = Hash([1; 32]);
    bundle.manifest("web", signed(&manifest("web", tree, 81), &maker));
    config.owner = stranger().public();
    let bytes: &'static [u8] = bundle.build().leak();
    let bundle = BundleView::parse(bytes).unwrap();
    let mut all = Manifests::new(bundle, &config, maker.public());
    all.add(
        "own".into(),
        signed(&manifest("own", tree, 82), &stranger()),
    );
    all.add(
        "foreign".into(),
        signed(&manifest("foreign", tree, 83), &maker),
    );
    let list = all.list();
    for name in ["web", "own"] {
        assert_eq!(refusal_of(&list, name), None, "{name}");
    }
    assert_eq!(refusal_of(&list, "foreign"), Some(Refusal::UnknownKey));
    assert_eq!(all.owners(), [stranger().public()]);
    assert!(
        all.check(&signed(&manifest("x", tree, 84), &maker))
            .is_err()
    );
}

#[test]
fn a_newer_manifest_beside_the_ramdisk_takes_the_place_of_the_one_in_it() {
    let config = config(&["web"]);
    let mut bundle = Bundle::new(&config);
    let tree = Hash([1; 32]);
    let web = manifest("web", tree, 81);
    bundle.manifest("web", signed(&web, &owner()));
    let mut all = open(bundle, &config);
    let mut newer = web.clone();
    newer.sequence += 1;
    newer.tree = Hash([2; 32]);
    all.add("web".into(), signed(&newer, &stranger()));
    assert_eq!(all.get("web").unwrap().unwrap().manifest.tree, tree);
    assert_eq!(
        refusal_of(&all.list(), "web-beside"),
        Some(Refusal::UnknownKey)
    );
    all.add("web".into(), signed(&newer, &owner()));
    assert_eq!(all.get("web").unwrap().unwrap().manifest.tree, newer.tree);
    let role = all.list().iter().find(|l| l.name == "web").unwrap().role;
    assert_eq!(role, ManifestRole::Start);
    // The older one comes too late.
    all.add("web".into(), signed(&web, &owner()));
    assert_eq!(all.get("web").unwrap().unwrap().manifest.tree, newer.tree);
}
