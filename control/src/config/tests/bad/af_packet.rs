//! What is refused of a port that listens beside the host.

use super::{FROM_P, TO_P, check};

#[test]
fn packet_sources() {
    check(
        &[
            (
                "no interface",
                "[ports.p]\nkind = 'af_packet'",
                "",
                2,
                &[("dp.toml:1:8", &["interface is missing"])],
            ),
            (
                "another kind of word",
                "[ports.p]\nkind = 'af-packet'\ninterface = 'eth0'",
                "",
                2,
                &[("dp.toml:2:8", &["did you mean \"af_packet\"?"])],
            ),
            (
                "values",
                "[ports.p]\nkind = 'af_packet'\ninterface = 'a/b'\npromiscuous = 'yes'\ndirection = 'inn'\nchecksums = 'fix'\nmtu = 67\nbuffer = '16Mb/s'\nnetns = ''",
                "",
                2,
                &[
                    ("dp.toml:3:13", &["\"a/b\" contains '/'"]),
                    ("dp.toml:4:15", &["true or false, not \"yes\""]),
                    (
                        "dp.toml:5:13",
                        &["\"both\" or \"in\"", "did you mean \"in\"?"],
                    ),
                    ("dp.toml:6:13", &["\"auto\" or \"trust\", not \"fix\""]),
                    ("dp.toml:7:7", &["from 68 to 65536, not 67"]),
                    (
                        "dp.toml:8:10",
                        &["\"256KiB\" to \"1GiB\"", "\"16MiB\"", "not \"16Mb/s\""],
                    ),
                    ("dp.toml:9:9", &["name of a network namespace"]),
                ],
            ),
            (
                "a buffer that is too small",
                "[ports.p]\nkind = 'af_packet'\ninterface = 'eth0'\nbuffer = '255KiB'",
                "",
                2,
                &[("dp.toml:4:10", &["from \"256KiB\""])],
            ),
            (
                "a buffer that is too large",
                "[ports.p]\nkind = 'af_packet'\ninterface = 'eth0'\nbuffer = '99999999999999999999GiB'",
                "",
                2,
                &[("dp.toml:4:10", &["to \"1GiB\""])],
            ),
            (
                "a buffer without a unit",
                "[ports.p]\nkind = 'af_packet'\ninterface = 'eth0'\nbuffer = 4",
                "",
                2,
                &[("dp.toml:4:10", &["buffer must be a size", "not 4"])],
            ),
            (
                "keys of af_xdp",
                "[ports.p]\nkind = 'af_packet'\ninterface = 'eth0'\nqueues = 'all'\npromiscous = true",
                "",
                2,
                &[
                    ("dp.toml:4:1", &["unknown key \"queues\""]),
                    ("dp.toml:5:1", &["did you mean \"promiscuous\"?"]),
                ],
            ),
            (
                "all of them, promiscuous",
                "[ports.p]\nkind = 'af_packet'\ninterface = 'any'\npromiscuous = true",
                "",
                2,
                &[(
                    "dp.toml:4:15",
                    &["\"any\" names none", "promiscuous = false"],
                )],
            ),
            (
                "no such interface",
                "[ports.p]\nkind = 'af_packet'\ninterface = 'eth'",
                "",
                3,
                &[(
                    "dp.toml:3:13",
                    &["\"eth\" does not exist", "did you mean \"eth"],
                )],
            ),
            (
                "no such interface there",
                "[ports.p]\nkind = 'af_packet'\ninterface = 'veth2'\nnetns = 'ids'",
                "",
                3,
                &[(
                    "dp.toml:3:13",
                    &[
                        "does not exist in namespace \"ids\"",
                        "did you mean \"veth1\"?",
                    ],
                )],
            ),
            (
                "no such namespace",
                "[ports.p]\nkind = 'af_packet'\ninterface = 'any'\nnetns = 'idss'",
                "",
                3,
                &[(
                    "dp.toml:4:9",
                    &["\"idss\" does not exist", "did you mean \"ids\"?"],
                )],
            ),
            (
                "down",
                "[ports.p]\nkind = 'af_packet'\ninterface = 'down0'",
                "",
                3,
                &[(
                    "dp.toml:3:13",
                    &["down0 is down; run: ip link set down0 up"],
                )],
            ),
            (
                "no Ethernet",
                "[ports.p]\nkind = 'af_packet'\ninterface = 'ppp0'",
                "",
                3,
                &[(
                    "dp.toml:3:13",
                    &[
                        "ppp0 has no Ethernet frames",
                        "link type is 512",
                        "the interface below it",
                    ],
                )],
            ),
            (
                "slots that are too large together",
                "[engine]\nslots = 65536\n[ports.p]\nkind = 'af_packet'\ninterface = 'eth0'\nmtu = 65521",
                "",
                2,
                &[(
                    "dp.toml:6:7",
                    &["mtu 65521", "more than 1 GiB", "set slots = "],
                )],
            ),
            (
                "a device of ours",
                "[ports.p]\nkind = 'af_packet'\ninterface = 'out'",
                "",
                2,
                &[(
                    "dp.toml:3:13",
                    &[
                        "\"out\" is the device that port \"out\" (line 4) makes",
                        "round and round",
                    ],
                )],
            ),
        ],
        FROM_P,
    );
    check(
        &[(
            "a sink",
            "[ports.p]\nkind = 'af_packet'\ninterface = 'eth0'",
            "",
            2,
            &[(
                "dp.toml:9:7",
                &["\"p\" is a source only", "kind \"af_xdp\""],
            )],
        )],
        TO_P,
    );
    check(
        &[
            (
                "the other end of a veth is written to",
                "[ports.a]\nkind = 'af_packet'\ninterface = 'va'\n[ports.b]\nkind = 'af_xdp'\ninterface = 'vb'\n[[pipelines]]\nfrom = ['a']\nto = ['b']",
                "0",
                2,
                &[("dp.toml:9:7", &["two ends of one veth pair"])],
            ),
            (
                "a device of ours, its namespace spelt otherwise",
                "[ports.a]\nkind = 'af_packet'\ninterface = 'lc0'\nnetns = '/run/netns/ids'\n[ports.lc0]\nkind = 'tap'\nnetns = 'ids'\n[[pipelines]]\nfrom = ['a']\nto = ['lc0']",
                "0",
                2,
                &[(
                    "dp.toml:3:13",
                    &["the device that port \"lc0\" (line 5) makes"],
                )],
            ),
        ],
        "",
    );
}
