//! What is refused of VXLAN ports.

use super::{TO_P, check};

#[test]
fn values() {
    check(
        &[
            (
                "no network",
                "[ports.p]\nkind = 'vxlan'\nremote = '192.0.2.1'",
                "0",
                2,
                &[("dp.toml:1:8", &["ports.p: vni is missing; write vni = 42"])],
            ),
            (
                "networks that cannot be",
                "[ports.p]\nkind = 'vxlan'\nvni = 16777216\nremote = '192.0.2.1'",
                "0",
                2,
                &[(
                    "dp.toml:3:7",
                    &["vni must be a whole number from 0 to 16777215"],
                )],
            ),
            (
                "a negative network",
                "[ports.p]\nkind = 'vxlan'\nvni = -1\nremote = '192.0.2.1'",
                "0",
                2,
                &[("dp.toml:3:7", &["from 0 to 16777215, not -1"])],
            ),
            (
                "a name as far end",
                "[ports.p]\nkind = 'vxlan'\nvni = 1\nremote = 'far.example'",
                "0",
                2,
                &[(
                    "dp.toml:4:10",
                    &[
                        "must be an IPv4 or IPv6 address",
                        "\"far.example\"",
                        "not looked up",
                    ],
                )],
            ),
            (
                "an address with its port",
                "[ports.p]\nkind = 'vxlan'\nvni = 1\nremote = '192.0.2.1:4789'",
                "0",
                2,
                &[(
                    "dp.toml:4:10",
                    &["must be an IPv4 or IPv6 address", "192.0.2.1:4789"],
                )],
            ),
            (
                "a group",
                "[ports.p]\nkind = 'vxlan'\nvni = 1\nremote = '239.1.1.1'",
                "0",
                2,
                &[(
                    "dp.toml:4:10",
                    &["239.1.1.1 is a multicast group", "name a host"],
                )],
            ),
            (
                "an IPv6 group",
                "[ports.p]\nkind = 'vxlan'\nvni = 1\nremote = 'ff02::1'",
                "0",
                2,
                &[("dp.toml:4:10", &["ff02::1 is a multicast group"])],
            ),
            (
                "everybody",
                "[ports.p]\nkind = 'vxlan'\nvni = 1\nremote = '255.255.255.255'",
                "0",
                2,
                &[("dp.toml:4:10", &["is the broadcast address; name one host"])],
            ),
            (
                "everybody here",
                "[ports.p]\nkind = 'vxlan'\nvni = 1\nremote = '192.0.2.255'",
                "0",
                2,
                &[(
                    "dp.toml:4:10",
                    &["192.0.2.255 is a broadcast address of one of this host's networks"],
                )],
            ),
            (
                "nobody",
                "[ports.p]\nkind = 'vxlan'\nvni = 1\nremote = '::'",
                "0",
                2,
                &[("dp.toml:4:10", &[":: is no host's address"])],
            ),
            (
                "an address of a link",
                "[ports.p]\nkind = 'vxlan'\nvni = 1\nremote = 'fe80::1'",
                "0",
                2,
                &[("dp.toml:4:10", &["fe80::1 is an address of one link alone"])],
            ),
            (
                "two IP versions",
                "[ports.p]\nkind = 'vxlan'\nvni = 1\nremote = '192.0.2.1'\nlocal = '2001:db8::1'",
                "0",
                2,
                &[(
                    "dp.toml:5:9",
                    &["local 2001:db8::1 and remote 192.0.2.1 are of two IP versions"],
                )],
            ),
            (
                "another host's address",
                "[ports.p]\nkind = 'vxlan'\nvni = 1\nremote = '192.0.2.1'\nlocal = '192.0.2.99'",
                "0",
                3,
                &[(
                    "dp.toml:5:9",
                    &["local 192.0.2.99 is no address of this host", "ip address"],
                )],
            ),
            (
                "numbers out of range",
                "[ports.p]\nkind = 'vxlan'\nvni = 1\nremote = '192.0.2.1'\nport = 0\nttl = 0\ndscp = 64\nsource_ports = 257\nmtu = 65478",
                "0",
                2,
                &[
                    (
                        "dp.toml:5:8",
                        &["port must be a whole number from 1 to 65535"],
                    ),
                    ("dp.toml:6:7", &["ttl must be a whole number from 1 to 255"]),
                    (
                        "dp.toml:7:8",
                        &["dscp must be a whole number from 0 to 63, not 64"],
                    ),
                    (
                        "dp.toml:8:16",
                        &["source_ports must be a whole number from 1 to 256"],
                    ),
                    (
                        "dp.toml:9:7",
                        &["mtu must be a whole number from 68 to 65477"],
                    ),
                ],
            ),
            (
                "other types",
                "[ports.p]\nkind = 'vxlan'\nvni = '1'\nremote = 1\ndont_fragment = 'yes'\nchecksums = 'off'\nnetns = ''",
                "0",
                2,
                &[
                    ("dp.toml:3:7", &["vni must be a whole number", "not \"1\""]),
                    ("dp.toml:4:10", &["remote must be a string, not 1"]),
                    ("dp.toml:5:17", &["dont_fragment must be true or false"]),
                    ("dp.toml:6:13", &["checksums must be \"auto\" or \"trust\""]),
                    (
                        "dp.toml:7:9",
                        &["netns must be the name of a network namespace"],
                    ),
                ],
            ),
            (
                "keys of others",
                "[ports.p]\nkind = 'vxlan'\nvni = 1\nremote = '192.0.2.1'\ngroup = '239.1.1.1'\nvnis = [1]",
                "0",
                2,
                &[
                    (
                        "dp.toml:5:1",
                        &["unknown key \"group\"", "known here: kind, vni, remote"],
                    ),
                    (
                        "dp.toml:6:1",
                        &["unknown key \"vnis\"; did you mean \"vni\"?"],
                    ),
                ],
            ),
            (
                "a namespace that is not there",
                "[ports.p]\nkind = 'vxlan'\nvni = 1\nremote = '192.0.2.1'\nnetns = 'idss'",
                "0",
                3,
                &[(
                    "dp.toml:5:9",
                    &[
                        "network namespace \"idss\" does not exist",
                        "did you mean \"ids\"?",
                    ],
                )],
            ),
        ],
        TO_P,
    );
}

#[test]
fn roles() {
    check(
        &[(
            "a sink without a far end",
            "[ports.p]\nkind = 'vxlan'\nvni = 1",
            "0",
            2,
            &[(
                "dp.toml:9:7",
                &["port \"p\" has nobody to send to", "[ports.p]", "remote = "],
            )],
        )],
        TO_P,
    );
}

/// Two sources cannot have one UDP port, whatever their networks; two sinks can.
#[test]
fn one_port_twice() {
    const Q: &str = "[ports.q]\nkind = 'vxlan'\nvni = 2\n";
    const OUT: &str =
        "\n[ports.out]\nkind = 'tap'\n[[pipelines]]\nfrom = ['p', 'q']\nto = ['out']\n";
    let taken: &[&str] = &[
        "UDP port 4789 is that of port \"p\" (line 1) already",
        "local = ",
        "another port",
    ];
    for (p, q, fault) in [
        ("", "", Some("dp.toml:4:8")),
        (
            "remote = '192.0.2.1'",
            "remote = '192.0.2.2'",
            Some("dp.toml:5:8"),
        ),
        ("remote = '192.0.2.1'", "", Some("dp.toml:5:8")),
        ("remote = '192.0.2.1'", "remote = '2001:db8::1'", None),
        ("local = '192.0.2.1'", "local = '192.0.2.2'", None),
        (
            "local = '192.0.2.1'",
            "local = '192.0.2.1'",
            Some("dp.toml:5:8"),
        ),
        ("local = '192.0.2.1'", "port = 4790", None),
        (
            "local = '192.0.2.1'",
            "remote = '192.0.2.2'",
            Some("dp.toml:5:8"),
        ),
        ("", "netns = 'ids'", None),
        (
            "netns = 'ids'",
            "netns = '/run/netns/ids'",
            Some("dp.toml:5:8"),
        ),
    ] {
        let line = |more: &str| {
            if more.is_empty() {
                String::new()
            } else {
                format!("{more}\n")
            }
        };
        let text = format!(
            "[ports.p]\nkind = 'vxlan'\nvni = 1\n{}{Q}{}",
            line(p),
            line(q)
        );
        let planned = super::plan(&format!("{text}{OUT}"), "0", &super::FakeMachine);
        match (fault, planned) {
            (None, Ok(_)) => {}
            (Some(place), Err(errors)) => {
                let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
                assert_eq!(lines.len(), 1, "{lines:?}");
                assert!(lines[0].starts_with(place), "{place}: {}", lines[0]);
                for words in taken {
                    assert!(lines[0].contains(words), "{words}: {}", lines[0]);
                }
            }
            (_, other) => panic!("{p} and {q}: {other:?}"),
        }
    }
}
