use super::*;
use crate::node::Console;

fn parse(text: &str) -> Result<Settings, String> {
    Settings::parse(text.as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn a_file_of_comments_says_nothing() {
    assert_eq!(parse(""), Ok(Settings::default()));
    assert_eq!(parse(TEMPLATE), Ok(Settings::default()));
}

/// The template promises keys: each must be one, and all of them together a file.
#[test]
fn every_line_of_the_template_can_be_used() {
    let uncommented: Vec<_> = TEMPLATE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
            _ => line,
        })
        .collect();
    let settings = parse(&uncommented.join("\r\n")).unwrap();
    assert_eq!(settings.name.as_deref(), Some("node"));
    assert_eq!(settings.vlan, Some(12));
    assert_eq!(settings.start, Some(Vec::from([String::from("nginx")])));
    assert_eq!(settings.level, Some(LogLevel::Info));
    assert_eq!(settings.capsules, Some(CapsuleOutput::Hidden));
    assert_eq!((settings.serial, settings.screen), (Some(true), Some(true)));
    let fixed = Network::Static {
        address: [192, 0, 2, 10].into(),
        prefix: 24,
        gateway: Some([192, 0, 2, 1].into()),
        dns: Vec::from([[192, 0, 2, 53].into()]),
    };
    assert_eq!(settings.network, Some(fixed));
    assert!(settings.owner.is_some());
}

#[test]
fn what_is_wrong_is_told_by_line_and_key() {
    for (text, told) in [
        ("\nname = 3\n", "line 2, name: 3 is not a text"),
        ("name = \"A b\"", "line 1, name: \"A b\" is not a name"),
        (
            "name = \"a\"\n\nowner = \"12\"",
            "line 3, owner: \"12\" is not the owner's",
        ),
        (
            "[network]\n# c\naddress = \"10.0.0.300/24\"",
            "line 3, network.address: \"10.0.0.300/24\"",
        ),
        (
            "[network]\naddress = \"10.0.0.3\"",
            "line 2, network.address",
        ),
        (
            "network.address = \"224.0.0.1/8\"",
            "line 1, network.address: 224.0.0.1 cannot",
        ),
        (
            "[network]\nvlan = 4095",
            "line 2, network.vlan: 4095 is not a number from 1 to 4094",
        ),
        ("[network]\nvlan = -1", "line 2, network.vlan: -1 is not"),
        (
            "[network]\ngateway = \"10.0.0.1\"",
            "line 2, network.gateway: only together",
        ),
        ("[network]\ndhcp = false", "line 2, network.dhcp"),
        (
            "[network]\ndhcp = true\naddress = \"10.0.0.3/8\"",
            "line 3, network.address",
        ),
        (
            "[network]\naddres = \"10.0.0.3/8\"",
            "line 2, network.addres: there is no such key",
        ),
        ("\n\n[netwrk]\n", "line 3, netwrk: there is no such key"),
        ("console = true", "line 1, console: must be a table"),
        (
            "[console]\nlevel = \"loud\"",
            "line 2, console.level: \"loud\" is not one of error, ",
        ),
        (
            "start = [\"a\", \"B\"]",
            "line 1, start: \"B\" is not a name",
        ),
        ("name = \"a\"\nname = \"b\"", "line 2: duplicate key"),
        ("name = \"a", "line 1: "),
        ("a\n[", "line 1: "),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(told), "{text:?}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    assert!(parse(&"#".repeat(MAX_LEN + 1)).is_err());
    let not_text = Settings::parse(b"name = \"a\"\n\xff").unwrap_err();
    assert_eq!(not_text.line, 2);
}

#[test]
fn what_the_file_says_takes_the_place_of_the_configuration() {
    let mut config = NodeConfig {
        name: String::from("old"),
        owner: PublicKey([1; 32]),
        system: String::from("threebot"),
        start: Vec::from([String::from("nginx")]),
        network: Network::Dhcp,
        vlan: None,
        console: Console::default(),
    };
    let before = config.clone();
    parse("").unwrap().apply(&mut config);
    assert_eq!(config, before);
    let text =
        "name = 'new'\nstart = ['web', 'threebot']\nnetwork.vlan = 7\nconsole.serial = false";
    parse(text).unwrap().apply(&mut config);
    assert_eq!((config.name.as_str(), config.vlan), ("new", Some(7)));
    assert_eq!(config.start, ["web"]);
    assert_eq!(
        (config.console.serial, config.console.screen),
        (false, true)
    );
    assert_eq!(config.owner, before.owner);
    assert_eq!(config.validate(), Ok(()));
}
