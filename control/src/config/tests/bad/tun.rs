//! What is refused of a TUN device.

use super::{FROM_P, TO_P, check};

#[test]
fn tun_sinks() {
    check(
        &[
            (
                "another type",
                "[ports.p]\nkind = 'tap'\ntype = 'tum'",
                "",
                2,
                &[(
                    "dp.toml:3:8",
                    &[
                        "type must be \"tap\" or \"tun\", not \"tum\"",
                        "did you mean \"tun\"?",
                    ],
                )],
            ),
            (
                "no name of a type",
                "[ports.p]\nkind = 'tap'\ntype = 3",
                "",
                2,
                &[("dp.toml:3:8", &["\"tap\" or \"tun\", not 3"])],
            ),
            (
                "a key that is nearly right",
                "[ports.p]\nkind = 'tap'\ntyp = 'tun'",
                "",
                2,
                &[("dp.toml:3:1", &["did you mean \"type\"?"])],
            ),
            (
                "a kind of its own",
                "[ports.p]\nkind = 'tun'",
                "",
                2,
                &[("dp.toml:2:8", &["not \"tun\"", "\"tap\""])],
            ),
            (
                "trains",
                "[ports.p]\nkind = 'tap'\ngso = true\ntype = 'tun'",
                "",
                2,
                &[(
                    "dp.toml:3:7",
                    &["gso is for devices of layer 2", "leave it out"],
                )],
            ),
            (
                "no answer",
                "[ports.p]\nkind = 'tap'\ngso = 'on'",
                "",
                2,
                &[("dp.toml:3:7", &["gso", "true or false"])],
            ),
            (
                "a taken name",
                "[ports.p]\nkind = 'tap'\ntype = 'tun'\nname = 'taken'",
                "",
                3,
                &[(
                    "dp.toml:4:8",
                    &[
                        "a TAP or TUN device \"taken\" already",
                        "ip link delete taken",
                    ],
                )],
            ),
        ],
        TO_P,
    );
}

#[test]
fn tun_sources() {
    check(
        &[
            (
                "nothing to write trains to",
                "[ports.p]\nkind = 'tap'\ngso = true",
                "",
                2,
                &[("dp.toml:3:7", &["gso is for a sink", "leave it out"])],
            ),
            (
                "a sink only",
                "[ports.p]\nkind = 'tap'\ntype = 'tun'\npassive = true",
                "",
                2,
                &[(
                    "dp.toml:8:9",
                    &["sink only", "passive = false in [ports.p]"],
                )],
            ),
        ],
        FROM_P,
    );
}
