//! Bad input gets an answer: for each case the exit code, and a message that names the thing and the
//! remedy. Nothing is left behind.

use std::{fs, path::Path, process::ExitCode, time::Duration};

use tests::{
    Bench, Daemon, Need, Netns, Theme,
    capture::{self, ETHERNET, Endian, Format, Packing},
    daemon, frames,
    process::tool_as_nobody,
    wait_until,
};

const ROOT: &[Need] = &[Need::Root];
const LIMIT: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let mut theme = Theme::new();
    for case in CONFIGURATIONS.iter().chain(MACHINES) {
        theme.test(case.name, ROOT, || case.check());
    }
    for flags in FLAGS {
        theme.test(flags.name, ROOT, || flags.check());
    }
    for damage in CAPTURES {
        theme.test(damage.name, ROOT, || damage.check());
    }
    theme.test("no_privilege", ROOT, no_privilege);
    theme.test("check_needs_no_privilege", ROOT, check_needs_no_privilege);
    theme.test(
        "frame_longer_than_the_slot",
        ROOT,
        frame_longer_than_the_slot,
    );
    theme.test(
        "program_of_a_second_daemon",
        ROOT,
        program_of_a_second_daemon,
    );
    theme.run()
}

/// A configuration that is refused. `DIR` in it stands for a folder with `sample.pcap`, `NS` for the
/// namespace of `up0`, in which the daemon runs.
struct Case {
    name: &'static str,
    /// What is done to the machine first.
    prepare: fn(&Bench),
    /// Lines of `[engine]`; empty is what all tests have.
    engine: &'static str,
    text: &'static str,
    code: i32,
    fragments: &'static [&'static str],
}

const fn config(
    name: &'static str,
    text: &'static str,
    code: i32,
    fragments: &'static [&'static str],
) -> Case {
    Case {
        name,
        prepare: |_| (),
        engine: "",
        text,
        code,
        fragments,
    }
}

const fn engine(
    name: &'static str,
    engine: &'static str,
    code: i32,
    fragments: &'static [&'static str],
) -> Case {
    Case {
        engine,
        ..config(name, SOUND, code, fragments)
    }
}

const fn machine(
    name: &'static str,
    prepare: fn(&Bench),
    text: &'static str,
    code: i32,
    fragments: &'static [&'static str],
) -> Case {
    Case {
        prepare,
        ..config(name, text, code, fragments)
    }
}

/// Nothing is wrong with this one.
const SOUND: &str = "
[ports.s]
kind = 'pcap'
path = 'DIR/sample.pcap'
[ports.lc0]
kind = 'tap'
[[pipelines]]
from = ['s']
to = ['lc0']
";

const CONFIGURATIONS: &[Case] = &[
    config(
        "unknown_key",
        "[ports.s]\nkind = 'pcap'\npath = 'DIR/sample.pcap'\npase = 'top'\n[ports.lc0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['s']\nto = ['lc0']\n",
        2,
        &[
            "dp.toml:9:1: ports.s: ",
            "\"pase\"",
            "did you mean \"pace\"?",
        ],
    ),
    config(
        "unknown_port",
        "[ports.s]\nkind = 'pcap'\npath = 'DIR/sample.pcap'\n[ports.lc0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['s']\nto = ['lc1']\n",
        2,
        &["dp.toml:13:7: ", "\"lc1\"", "did you mean \"lc0\"?"],
    ),
    config(
        "unknown_policy",
        "[ports.s]\nkind = 'pcap'\npath = 'DIR/sample.pcap'\n[ports.lc0]\nkind = 'tap'\n[policies.web]\nallow = []\n[[pipelines]]\nfrom = ['s']\npolicy = 'wep'\nto = ['lc0']\n",
        2,
        &["\"wep\"", "did you mean \"web\"?"],
    ),
    config(
        "passive_tap_as_source",
        "[ports.a]\nkind = 'tap'\npassive = true\n[ports.lc0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['a']\nto = ['lc0']\n",
        2,
        &["\"a\" is a sink only", "passive = false"],
    ),
    config(
        "no_type_of_a_tap",
        "[ports.s]\nkind = 'pcap'\npath = 'DIR/sample.pcap'\n[ports.lc0]\nkind = 'tap'\ntype = 'tum'\n[[pipelines]]\nfrom = ['s']\nto = ['lc0']\n",
        2,
        &[
            "dp.toml:11:8: ports.lc0: ",
            "\"tap\" or \"tun\", not \"tum\"",
            "did you mean \"tun\"?",
        ],
    ),
    config(
        "tun_as_a_kind",
        "[ports.s]\nkind = 'pcap'\npath = 'DIR/sample.pcap'\n[ports.lc0]\nkind = 'tun'\n[[pipelines]]\nfrom = ['s']\nto = ['lc0']\n",
        2,
        &["kind must be", "not \"tun\"", "did you mean \"tap\"?"],
    ),
    config(
        "recording_over_its_source",
        "[ports.s]\nkind = 'pcap'\npath = 'DIR/sample.pcap'\n[ports.t]\nkind = 'pcap'\npath = 'DIR/sample.pcap'\n[[pipelines]]\nfrom = ['s']\nto = ['t']\n",
        2,
        &[
            "dp.toml:11:8: ports.t: ",
            "sample.pcap",
            "is read by port \"s\"",
            "another file",
        ],
    ),
    config(
        "recording_with_a_pace",
        "[ports.s]\nkind = 'pcap'\npath = 'DIR/sample.pcap'\n[ports.t]\nkind = 'pcap'\npath = 'DIR/x'\npace = 'top'\n[[pipelines]]\nfrom = ['s']\nto = ['t']\n",
        2,
        &[
            "dp.toml:12:8: ports.t: ",
            "pace is for playing",
            "leave it out",
        ],
    ),
    config(
        "recording_in_gzip",
        "[ports.s]\nkind = 'pcap'\npath = 'DIR/sample.pcap'\n[ports.t]\nkind = 'pcap'\npath = 'DIR/x.pcap.gz'\n[[pipelines]]\nfrom = ['s']\nto = ['t']\n",
        2,
        &["dp.toml:11:8: ports.t: ", "gzip", "compress = \"zstd\""],
    ),
    config(
        "recording_nowhere",
        "[ports.s]\nkind = 'pcap'\npath = 'DIR/sample.pcap'\n[ports.t]\nkind = 'pcap'\npath = 'DIR/nowhere/x'\n[[pipelines]]\nfrom = ['s']\nto = ['t']\n",
        2,
        &[
            "dp.toml:11:8: ports.t: ",
            "nowhere does not exist",
            "mkdir -p",
        ],
    ),
    config(
        "standard_input_with_nothing_in_it",
        "[ports.s]\nkind = 'pcap'\npath = '-'\n[ports.lc0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['s']\nto = ['lc0']\n",
        2,
        &["port s: standard input: the file is empty"],
    ),
    config(
        "source_of_two_pipelines",
        "[ports.s]\nkind = 'pcap'\npath = 'DIR/sample.pcap'\n[ports.a]\nkind = 'tap'\n[ports.b]\nkind = 'tap'\n[[pipelines]]\nfrom = ['s']\nto = ['a']\n[[pipelines]]\nfrom = ['s']\nto = ['b']\n",
        2,
        &[
            "\"s\" is already the source of pipelines[0]",
            "several names in `to`",
        ],
    ),
    config(
        "loop",
        "[ports.a]\nkind = 'tap'\n[[pipelines]]\nfrom = ['a']\nto = ['a']\n",
        2,
        &["\"a\" is in `from` too", "take it out of one"],
    ),
    config(
        "overlong_interface",
        "[ports.s]\nkind = 'af_xdp'\ninterface = 'averyverylongname'\n[ports.lc0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['s']\nto = ['lc0']\n",
        2,
        &["averyverylongname", "17 bytes", "15"],
    ),
    config(
        "vxlan_group",
        "[ports.n]\nkind = 'vxlan'\nvni = 1\nremote = '239.1.1.1'\n[ports.lc0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['lc0']\nto = ['n']\n",
        2,
        &["239.1.1.1 is a multicast group", "name a host"],
    ),
    config(
        "vxlan_without_far_end",
        "[ports.n]\nkind = 'vxlan'\nvni = 1\n[ports.lc0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['lc0']\nto = ['n']\n",
        2,
        &["port \"n\" has nobody to send to", "remote = \"192.0.2.1\""],
    ),
    config(
        "vxlan_local_of_another",
        "[ports.n]\nkind = 'vxlan'\nvni = 1\nlocal = '203.0.113.77'\n[ports.lc0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['n']\nto = ['lc0']\n",
        3,
        &[
            "local 203.0.113.77 is no address of this host",
            "ip address",
        ],
    ),
    config(
        "unbuilt_kind",
        "[ports.s]\nkind = 'nat'\n[ports.lc0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['s']\nto = ['lc0']\n",
        2,
        &["\"nat\" is not built yet"],
    ),
    engine(
        "offline_core",
        "cores = '999'",
        3,
        &["core 999 is not online", "online are"],
    ),
    engine(
        "core_twice",
        "cores = '0,0'",
        2,
        &["core 0 is listed twice"],
    ),
];

/// A port `up` of `up0`, to lc0.
const UP: &str = "
[ports.up]
kind = 'af_xdp'
interface = 'up0'
[ports.lc0]
kind = 'tap'
[[pipelines]]
from = ['up']
to = ['lc0']
";

/// The same beside the host.
const BESIDE: &str = "
[ports.up]
kind = 'af_packet'
interface = 'up0'
[ports.lc0]
kind = 'tap'
[[pipelines]]
from = ['up']
to = ['lc0']
";

const MACHINES: &[Case] = &[
    machine(
        "missing_interface_to_copy",
        |bench| drop(bench.inside.ip(&["link", "set", "up0", "name", "up1"])),
        BESIDE,
        3,
        &[
            "dp.toml:",
            "\"up0\" does not exist",
            "did you mean \"up1\"?",
        ],
    ),
    machine(
        "interface_to_copy_that_is_down",
        |bench| drop(bench.inside.ip(&["link", "set", "up0", "down"])),
        BESIDE,
        3,
        &["up0 is down", "ip link set up0 up"],
    ),
    machine(
        "tun_to_copy",
        |bench| {
            let ns = &bench.inside;
            ns.ip(&["link", "del", "up0"]);
            ns.ip(&["tuntap", "add", "up0", "mode", "tun"]);
            ns.ip(&["link", "set", "up0", "up"]);
        },
        BESIDE,
        3,
        &[
            "up0 has no Ethernet frames",
            "listen on the interface below it",
        ],
    ),
    config(
        "copy_of_our_own_device",
        "[ports.s]\nkind = 'af_packet'\ninterface = 'lc0'\n[ports.lc0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['s']\nto = ['lc0']\n",
        2,
        &[
            "dp.toml:8:13: ports.s: ",
            "the device that port \"lc0\"",
            "round and round",
        ],
    ),
    config(
        "packet_socket_as_sink",
        "[ports.s]\nkind = 'pcap'\npath = 'DIR/sample.pcap'\n[ports.t]\nkind = 'af_packet'\ninterface = 'up0'\n[[pipelines]]\nfrom = ['s']\nto = ['t']\n",
        2,
        &["\"t\" is a source only", "\"af_xdp\""],
    ),
    machine(
        "missing_interface",
        |bench| drop(bench.inside.ip(&["link", "del", "up0"])),
        UP,
        3,
        &["\"up0\" does not exist", "there is lo"],
    ),
    machine(
        "interface_that_is_down",
        |bench| drop(bench.inside.ip(&["link", "set", "up0", "down"])),
        UP,
        3,
        &["up0 is down", "ip link set up0 up"],
    ),
    machine(
        "missing_queue",
        |_| (),
        "[ports.up]\nkind = 'af_xdp'\ninterface = 'up0'\nqueues = [7]\n[ports.lc0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['up']\nto = ['lc0']\n",
        3,
        &["up0", "queue 7"],
    ),
    machine(
        "zero_copy_on_a_veth",
        |_| (),
        "[ports.up]\nkind = 'af_xdp'\ninterface = 'up0'\nmode = 'zero-copy'\n[ports.lc0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['up']\nto = ['lc0']\n",
        3,
        &["up0", "zero-copy", "mode = \"auto\""],
    ),
    machine(
        "interface_with_an_address",
        |bench| bench.inside.address("up0", "10.9.8.7/24"),
        UP,
        3,
        &["up0", "10.9.8.7", "force = true", "af_packet"],
    ),
    machine(
        "interface_with_the_default_route",
        |bench| drop(bench.inside.ip(&["route", "add", "default", "dev", "up0"])),
        UP,
        3,
        &["up0", "default route", "force = true"],
    ),
    machine(
        "foreign_program",
        |bench| {
            let object = concat!(env!("CARGO_MANIFEST_DIR"), "/../dataplane/bpf/xsk.bpf.o");
            let set = [
                "link",
                "set",
                "dev",
                "up0",
                "xdp",
                "obj",
                object,
                "sec",
                "xdp.frags",
            ];
            bench.inside.ip(&set);
        },
        UP,
        3,
        &["up0", "XDP program", "xsk", "ip link set", "xdp off"],
    ),
    machine(
        "tap_name_in_use",
        |bench| {
            drop(
                bench
                    .inside
                    .ip(&["tuntap", "add", "dev", "lc0", "mode", "tap"]),
            )
        },
        SOUND,
        3,
        &["\"lc0\" already", "ip link delete lc0"],
    ),
    machine(
        "missing_namespace",
        |_| (),
        "[ports.s]\nkind = 'pcap'\npath = 'DIR/sample.pcap'\n[ports.lc0]\nkind = 'tap'\nnetns = 'nowhere-dpt'\n[[pipelines]]\nfrom = ['s']\nto = ['lc0']\n",
        3,
        &["nowhere-dpt", "ip netns add nowhere-dpt"],
    ),
    machine(
        "missing_capture",
        |_| (),
        "[ports.s]\nkind = 'pcap'\npath = 'DIR/nothing.pcap'\n[ports.lc0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['s']\nto = ['lc0']\n",
        2,
        &["nothing.pcap"],
    ),
    machine(
        "folder_as_capture",
        |_| (),
        "[ports.s]\nkind = 'pcap'\npath = 'DIR'\n[ports.lc0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['s']\nto = ['lc0']\n",
        2,
        &["directory"],
    ),
    machine(
        "unknown_group",
        |_| (),
        "socket_group = 'no-such-group'\n[ports.s]\nkind = 'pcap'\npath = 'DIR/sample.pcap'\n[ports.lc0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['s']\nto = ['lc0']\n",
        2,
        &["no-such-group"],
    ),
];

/// Each line that is no part of the plan says who speaks.
fn assert_refused(ended: &daemon::Ended, code: i32, fragments: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    let said = ended.stderr.lines().find(|line| {
        line.starts_with("dataplane: ") && fragments.iter().all(|fragment| line.contains(fragment))
    });
    assert!(
        said.is_some(),
        "no line with all of {fragments:?} in\n{}",
        ended.stderr
    );
    for words in ["panicked", "RUST_BACKTRACE"] {
        assert!(!ended.stderr.contains(words), "{}", ended.stderr);
    }
}

impl Case {
    fn check(&self) {
        let bench = Bench::new();
        (self.prepare)(&bench);
        let had_lc0 = bench.inside.has_link("lc0");
        let program = |bench: &Bench| bench.inside.ip(&["-d", "link", "show"]).contains("xdp");
        let had_program = program(&bench);
        let folder = daemon::folder();
        capture::write(&folder.path().join("sample.pcap"), &frames::mixed(10, 100));
        let text = self
            .text
            .replace("DIR", &folder.path().display().to_string());
        let preamble = |socket: &Path| {
            let usual = daemon::preamble(socket);
            if self.engine.is_empty() {
                usual
            } else {
                usual.replace("cores = \"0\"", self.engine)
            }
        };
        let ended = Daemon::spawn_in(&bench.inside, folder, &text, preamble).wait(LIMIT);
        assert_refused(&ended, self.code, self.fragments);
        let clean = wait_until(Duration::from_secs(1), || {
            bench.inside.has_link("lc0") == had_lc0 && program(&bench) == had_program
        });
        assert!(clean, "{}", bench.inside.ip(&["-d", "link", "show"]));
    }
}

/// A capture that is damaged or no capture of frames.
struct Damage {
    name: &'static str,
    file: fn() -> Vec<u8>,
    code: i32,
    fragments: &'static [&'static str],
    /// How many of its frames come before the damage.
    delivered: u64,
}

fn sound() -> Vec<u8> {
    let records = capture::records(&frames::mixed(10, 100), 1_000);
    capture::encode(&records, Format::Micro, Endian::Little, ETHERNET)
}

/// Frames of 100 bytes: each takes 116 in the file, behind 24.
fn even(link_type: u32) -> Vec<u8> {
    let frames = vec![vec![7; 100]; 10];
    capture::encode(
        &capture::records(&frames, 1_000),
        Format::Micro,
        Endian::Little,
        link_type,
    )
}

const CAPTURES: &[Damage] = &[
    Damage {
        name: "capture_empty",
        file: Vec::new,
        code: 2,
        fragments: &["sample.pcap", "empty"],
        delivered: 0,
    },
    Damage {
        name: "capture_that_is_a_text",
        file: || b"frames, please: as many as you have, and quickly\n".to_vec(),
        code: 2,
        fragments: &["sample.pcap", "not a capture"],
        delivered: 0,
    },
    Damage {
        name: "capture_without_frames",
        file: || sound()[..24].to_vec(),
        code: 0,
        fragments: &["all sources have ended"],
        delivered: 0,
    },
    Damage {
        name: "capture_not_ethernet",
        // LINKTYPE_LINUX_SLL
        file: || even(113),
        code: 2,
        fragments: &["sample.pcap", "113", "Ethernet"],
        delivered: 0,
    },
    Damage {
        name: "capture_cut_in_a_frame",
        file: || even(ETHERNET)[..24 + 5 * 116 + 50].to_vec(),
        code: 1,
        fragments: &["port s: ", "604", "5 frames"],
        delivered: 5,
    },
    Damage {
        name: "capture_cut_in_a_header",
        file: || even(ETHERNET)[..24 + 5 * 116 + 9].to_vec(),
        code: 1,
        fragments: &["port s: ", "604", "5 frames"],
        delivered: 5,
    },
    Damage {
        name: "capture_corrupt",
        file: || {
            let mut bytes = even(ETHERNET);
            let at = 24 + 3 * 116;
            bytes[at + 8..at + 12].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
            bytes
        },
        code: 1,
        fragments: &["port s: ", "372", "3 frames"],
        delivered: 3,
    },
    Damage {
        name: "capture_gzip_cut",
        file: || {
            let mut bytes = capture::pack(even(ETHERNET), Packing::Gzip);
            bytes.truncate(bytes.len() - 9);
            bytes
        },
        code: 1,
        fragments: &["port s: ", "gzip"],
        delivered: 10,
    },
];

impl Damage {
    fn check(&self) {
        let ns = Netns::new();
        let folder = daemon::folder();
        fs::write(folder.path().join("sample.pcap"), (self.file)()).expect("our own folder");
        let text = SOUND.replace("DIR", &folder.path().display().to_string());
        let ended = Daemon::spawn_in(&ns, folder, &text, daemon::preamble).wait(LIMIT);
        assert_refused(&ended, self.code, self.fragments);
        match ended.stats {
            Some(stats) => {
                daemon::assert_explained(&stats);
                assert_eq!(daemon::port(&stats, "lc0").tx.frames, self.delivered);
            }
            None => assert_eq!((self.delivered, self.code), (0, 2), "no summary"),
        }
    }
}

/// A copy of the daemon and a configuration where an ordinary user may read them.
fn for_nobody(text: &str) -> (tempfile::TempDir, String, String) {
    use std::os::unix::fs::PermissionsExt;
    let folder = daemon::folder();
    let program = folder.path().join("dataplane");
    fs::copy(daemon::binary("dataplane"), &program).expect("our own folder");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("our own file");
    capture::write(&folder.path().join("sample.pcap"), &frames::mixed(10, 100));
    let config = folder.path().join("dp.toml");
    let text = text.replace("DIR", &folder.path().display().to_string());
    let preamble = daemon::preamble(&folder.path().join("control.sock"));
    fs::write(&config, preamble + &text).expect("our own folder");
    let path = |path: &Path| path.display().to_string();
    let (program, config) = (path(&program), path(&config));
    (folder, program, config)
}

fn no_privilege() {
    for (text, fragments) in [
        (SOUND, &["tap port lc0", "CAP_NET_ADMIN", "sudo"][..]),
        (UP, &["af_xdp port up", "CAP_NET_ADMIN", "CAP_BPF", "sudo"]),
        (BESIDE, &["af_packet port up", "CAP_NET_RAW", "sudo"]),
    ] {
        let bench = Bench::new();
        let (_folder, program, config) = for_nobody(text);
        let name = bench.inside.name();
        let output = tests::Tool::new("ip")
            .args([
                "netns", "exec", name, "setpriv", "--reuid", "65534", "--regid", "65534",
            ])
            .args(["--clear-groups", &program, "--config", &config])
            .output();
        let ended = daemon::Ended {
            code: output.status.code(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            stats: None,
        };
        assert_refused(&ended, 3, fragments);
    }
}

fn check_needs_no_privilege() {
    let (_folder, program, config) = for_nobody(SOUND);
    let output = tool_as_nobody(&[&program, "--check", "--config", &config]).output();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let plan = String::from_utf8_lossy(&output.stdout);
    for fragment in ["core 0  polls s; writes lc0", "tap lc0", "sample.pcap"] {
        assert!(plan.contains(fragment), "{fragment} in\n{plan}");
    }
}

/// Frames of up to 3,014 bytes on an interface whose slots take 1,792: counted, and the run goes on.
fn frame_longer_than_the_slot() {
    let bench = Bench::new();
    for (ns, end) in [(&bench.inside, "up0"), (&bench.outside, "out0")] {
        ns.ip(&["link", "set", end, "mtu", "3000"]);
    }
    let daemon = bench.start("", None);
    let sent = [100, 1_792, 1_793, 3_014, 200].map(|length| frames::udp(1, 53, length));
    bench.sender().send(&sent);
    let stats = daemon.stats_when(LIMIT, |stats| daemon::port(stats, "lc0").tx.offered == 5);
    daemon::assert_explained(&stats);
    // They come whole, in several slots; what lc0's own MTU of 1,500 has no room for is counted there.
    assert_eq!(daemon::port(&stats, "up").rx.forwarded, 5, "{stats:#?}");
    let lc0 = &daemon::port(&stats, "lc0").tx;
    assert_eq!(lc0.dropped.get("too_long"), Some(&3), "{stats:#?}");
    assert_eq!(lc0.frames, 2, "{stats:#?}");
    daemon.stop().explained();
}

fn program_of_a_second_daemon() {
    let bench = Bench::new();
    let first = bench.start("", None);
    let text = UP.replace("kind = 'tap'", "kind = 'tap'\nname = 'lc1'");
    let second = Daemon::spawn(&bench.inside, &text).wait(LIMIT);
    let holder = format!("held by dataplane with pid {}", first.pid());
    assert_refused(&second, 3, &["up0", "XDP program", &holder]);
    // The first has lost nothing.
    bench.sender().send(&frames::mixed(10, 100));
    first.stats_when(LIMIT, |stats| daemon::port(stats, "lc0").tx.frames == 10);
    first.stop().explained();
}

/// Flags that are refused. `DIR` in them stands for a folder with `sample.pcap`; `up0` has no address,
/// `host0` has one.
struct Flags {
    name: &'static str,
    flags: &'static [&'static str],
    code: i32,
    /// With what the line begins that says why, after who speaks.
    flag: &'static str,
    fragments: &'static [&'static str],
}

const fn flags(
    name: &'static str,
    flags: &'static [&'static str],
    code: i32,
    flag: &'static str,
    fragments: &'static [&'static str],
) -> Flags {
    Flags {
        name,
        flags,
        code,
        flag,
        fragments,
    }
}

const FLAGS: &[Flags] = &[
    flags(
        "flags_file_and_interface",
        &["-r", "DIR/sample.pcap", "-i", "up0"],
        2,
        "error: ",
        &["--read", "--interface", "cannot be used with"],
    ),
    flags(
        "flags_beside_a_configuration",
        &["--config", "dp.toml", "--to", "lc0"],
        2,
        "error: ",
        &["--to", "--config", "cannot be used with"],
    ),
    flags(
        "flags_unknown_pace",
        &["-r", "DIR/sample.pcap", "--pace", "fast"],
        2,
        "error: ",
        &["--pace", "\"fast\"", "10000pps"],
    ),
    flags(
        "flags_pace_of_an_interface",
        &["-i", "up0", "--pace", "top"],
        2,
        "error: ",
        &["--pace", "--interface"],
    ),
    flags(
        "flags_pace_out_of_range",
        &["-r", "DIR/sample.pcap", "--pace", "0pps"],
        2,
        "--pace 0pps: ",
        &["0.001"],
    ),
    flags(
        "flags_rule_with_an_unknown_field",
        &["-r", "DIR/sample.pcap", "--allow", "prot=tcp"],
        2,
        "error: ",
        &["--allow", "\"prot\"", "did you mean \"proto\"?"],
    ),
    flags(
        "flags_overlong_device",
        &["-r", "DIR/sample.pcap", "--to", "averyverylongname"],
        2,
        "error: ",
        &["--to", "17 bytes", ".pcap"],
    ),
    flags(
        "flags_one_place_twice",
        &["-r", "DIR/sample.pcap", "--to", "lc0", "--to", "lc0"],
        2,
        "--to lc0: ",
        &["twice", "leave one out"],
    ),
    flags(
        "flags_back_where_it_came_from",
        &["-i", "up0", "--to", "up0"],
        2,
        "--to up0: ",
        &["-i up0", "name another"],
    ),
    flags(
        "flags_onto_what_is_read",
        &["-r", "DIR/sample.pcap", "--to", "DIR/sample.pcap"],
        2,
        "--to ",
        &["is read by -r ", "another file"],
    ),
    flags(
        "flags_namespace_of_nothing",
        &["-r", "DIR/sample.pcap", "--to", "-", "--netns", "ids"],
        2,
        "--netns ids: ",
        &["leave it out"],
    ),
    flags(
        "flags_missing_namespace",
        &["-r", "DIR/sample.pcap", "--netns", "nowhere-dpt"],
        3,
        "--netns nowhere-dpt: ",
        &["ip netns add nowhere-dpt"],
    ),
    flags(
        "flags_missing_file",
        &["-r", "DIR/nothing.pcap"],
        2,
        "-r ",
        &["nothing.pcap", "does not exist"],
    ),
    flags(
        "flags_missing_interface",
        &["-i", "up1"],
        3,
        "-i up1: ",
        &["\"up1\"", "did you mean \"up0\"?"],
    ),
    flags(
        "flags_sink_with_an_address",
        &["-r", "DIR/sample.pcap", "--to", "host0"],
        3,
        "--to host0: ",
        &["10.9.8.7", "force = true", "--print-config"],
    ),
    flags(
        "flags_offline_core",
        &["-r", "DIR/sample.pcap", "--cores", "999"],
        3,
        "--cores: ",
        &["core 999 is not online"],
    ),
];

impl Flags {
    fn check(&self) {
        let bench = Bench::new();
        bench.inside.veth("host0", &bench.outside, "host1");
        bench.inside.address("host0", "10.9.8.7/24");
        let folder = daemon::folder();
        capture::write(&folder.path().join("sample.pcap"), &frames::mixed(10, 100));
        let place = folder.path().display().to_string();
        let flags: Vec<String> = self
            .flags
            .iter()
            .map(|f| f.replace("DIR", &place))
            .collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let ended = Daemon::spawn_flags(&bench.inside, &flags).wait(LIMIT);
        assert_eq!(ended.code, Some(self.code), "{}", ended.stderr);
        let said = ended.stderr.lines().find(|line| {
            let line = line.strip_prefix("dataplane: ").unwrap_or(line);
            let all = |fragment: &&str| line.contains(fragment);
            line.starts_with(self.flag) && self.fragments.iter().all(all)
        });
        assert!(said.is_some(), "no such line in\n{}", ended.stderr);
        // Nobody has seen the configuration that the flags became.
        for words in ["panicked", "ports.", "pipelines[", "(line"] {
            assert!(!ended.stderr.contains(words), "{words} in {}", ended.stderr);
        }
        assert!(!bench.inside.has_link("lc0"), "{}", ended.stderr);
    }
}
