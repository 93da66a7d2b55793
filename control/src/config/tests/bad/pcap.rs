//! Captures in the wrong role, recordings that cannot be, and streams that two ports want.

use super::{FROM_P, TO_P, check};

#[test]
fn of_the_other_role() {
    check(
        &[(
            "keys of a sink",
            "[ports.p]\nkind = 'pcap'\npath = 'b.pcap'\nrotate = { frames = 1 }\nkeep = 3\ncompress = 'zstd'",
            "",
            2,
            &[
                (
                    "dp.toml:4:10",
                    &["rotate is for recording", "in `from`", "leave it out"],
                ),
                ("dp.toml:5:8", &["keep is for recording"]),
                ("dp.toml:6:12", &["compress is for recording"]),
            ],
        )],
        FROM_P,
    );
    check(
        &[(
            "keys of a source",
            "[ports.p]\nkind = 'pcap'\npath = 'x.pcap'\npace = 'original'\nspeed = 2.0\nloops = 3",
            "",
            2,
            &[
                (
                    "dp.toml:4:8",
                    &["pace is for playing", "in `to`", "leave it out"],
                ),
                ("dp.toml:5:9", &["speed is for playing"]),
                ("dp.toml:6:9", &["loops is for playing"]),
            ],
        )],
        TO_P,
    );
    check(
        &[(
            "both",
            "[ports.p]\nkind = 'pcap'\npath = 'b.pcap'\n[ports.a]\nkind = 'tap'\n[[pipelines]]\nfrom = ['p']\nto = ['a']\n[[pipelines]]\nfrom = ['a']\nto = ['p']",
            "",
            2,
            &[(
                "dp.toml:1:8",
                &["either played or recorded", "make two ports"],
            )],
        )],
        "",
    );
}

#[test]
fn recordings() {
    check(
        &[
            (
                "gzip by its name",
                "[ports.p]\nkind = 'pcap'\npath = 'x.pcap.gz'",
                "",
                2,
                &[(
                    "dp.toml:3:8",
                    &["gzip", "not written", ".zst", "compress = \"zstd\""],
                )],
            ),
            (
                "gzip",
                "[ports.p]\nkind = 'pcap'\npath = 'x.pcap'\ncompress = 'gzip'",
                "",
                2,
                &[("dp.toml:4:12", &["\"gzip\" is not built yet", "\"zstd\""])],
            ),
            (
                "keep alone",
                "[ports.p]\nkind = 'pcap'\npath = 'x.pcap'\nkeep = 3",
                "",
                2,
                &[("dp.toml:4:8", &["keep", "set rotate too"])],
            ),
            (
                "nothing is kept",
                "[ports.p]\nkind = 'pcap'\npath = 'x.pcap'\nrotate = { frames = 1 }\nkeep = 0",
                "",
                2,
                &[("dp.toml:5:8", &["from 1 to 1000000, not 0"])],
            ),
            (
                "no limit",
                "[ports.p]\nkind = 'pcap'\npath = 'x.pcap'\nrotate = {}",
                "",
                2,
                &[("dp.toml:4:10", &["is empty", "size = \"100MB\""])],
            ),
            (
                "values of rotate",
                "[ports.p]\nkind = 'pcap'\npath = 'x.pcap'\nrotate = { size = '10 bananas', time = '5', frames = 0, files = 3 }",
                "",
                2,
                &[
                    (
                        "dp.toml:4:19",
                        &[
                            "size must be a size of at least \"4KiB\"",
                            "\"100MB\"",
                            "\"10 bananas\"",
                        ],
                    ),
                    ("dp.toml:4:40", &["time must be a time such as"]),
                    ("dp.toml:4:54", &["frames must be a whole number from 1"]),
                    ("dp.toml:4:57", &["unknown key \"files\""]),
                ],
            ),
            (
                "too small, too short",
                "[ports.p]\nkind = 'pcap'\npath = 'x.pcap'\nrotate = { size = '1kB', time = '10ms' }",
                "",
                2,
                &[
                    ("dp.toml:4:19", &["size of at least \"4KiB\"", "\"1kB\""]),
                    ("dp.toml:4:33", &["time must be a second at least"]),
                ],
            ),
            (
                "rotate as a number",
                "[ports.p]\nkind = 'pcap'\npath = 'x.pcap'\nrotate = 5",
                "",
                2,
                &[("dp.toml:4:10", &["rotate must be a table such as"])],
            ),
            (
                "a conversion that there is not",
                "[ports.p]\nkind = 'pcap'\npath = '100%.pcap'",
                "",
                2,
                &[("dp.toml:3:8", &["strftime", "%% is a percent sign"])],
            ),
            (
                "no folder",
                "[ports.p]\nkind = 'pcap'\npath = 'nowhere/x.pcap'",
                "",
                2,
                &[(
                    "dp.toml:3:8",
                    &["nowhere does not exist", "mkdir -p nowhere"],
                )],
            ),
            (
                "a file as folder",
                "[ports.p]\nkind = 'pcap'\npath = 'b.pcap/x'",
                "",
                2,
                &[("dp.toml:3:8", &["b.pcap is no directory"])],
            ),
            (
                "a directory",
                "[ports.p]\nkind = 'pcap'\npath = 'folder'",
                "",
                2,
                &[("dp.toml:3:8", &["folder is a directory; name a file in it"])],
            ),
            (
                "a device",
                "[ports.p]\nkind = 'pcap'\npath = 'device'",
                "",
                2,
                &[("dp.toml:3:8", &["device is no file and no pipe"])],
            ),
            (
                "standard output in parts",
                "[ports.p]\nkind = 'pcap'\npath = '-'\nrotate = { frames = 9 }",
                "",
                2,
                &[("dp.toml:4:10", &["standard output cannot be rotated"])],
            ),
            (
                "a FIFO in parts",
                "[ports.p]\nkind = 'pcap'\npath = 'fifo'\nrotate = { frames = 9 }",
                "",
                2,
                &[("dp.toml:4:10", &["fifo cannot be rotated"])],
            ),
            (
                "its own source",
                "[ports.p]\nkind = 'pcap'\npath = 'b.pcap'",
                "",
                2,
                &[(
                    "dp.toml:6:8",
                    &[
                        "\"b.pcap\"",
                        "written by port \"p\" (line 1)",
                        "another file",
                    ],
                )],
            ),
        ],
        TO_P,
    );
}

#[test]
fn streams_have_one_port() {
    check(
        &[
            (
                "two on standard input",
                "[ports.a]\nkind = 'pcap'\npath = '-'\n[ports.b]\nkind = 'pcap'\npath = '-'\n[ports.c]\nkind = 'tap'\n[[pipelines]]\nfrom = ['a', 'b']\nto = ['c']",
                "",
                2,
                &[(
                    "dp.toml:6:8",
                    &["standard input is read by port \"a\" (line 1)"],
                )],
            ),
            (
                "two on standard output",
                "[ports.a]\nkind = 'pcap'\npath = '-'\n[ports.b]\nkind = 'pcap'\npath = '-'\n[ports.c]\nkind = 'tap'\n[[pipelines]]\nfrom = ['c']\nto = ['a', 'b']",
                "",
                2,
                &[(
                    "dp.toml:6:8",
                    &["standard output is written by port \"a\" (line 1)"],
                )],
            ),
            (
                "two recordings in one file",
                "[ports.a]\nkind = 'pcap'\npath = 'x'\n[ports.b]\nkind = 'pcap'\npath = 'x'\n[ports.c]\nkind = 'tap'\n[[pipelines]]\nfrom = ['c']\nto = ['a', 'b']",
                "",
                2,
                &[(
                    "dp.toml:6:8",
                    &[
                        "the file is written by port \"a\" (line 1)",
                        "one port for both",
                    ],
                )],
            ),
        ],
        "",
    );
}
