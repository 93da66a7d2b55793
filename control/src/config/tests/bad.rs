//! What is refused: where it is said to stand, what is said, and the exit code.

mod af_packet;
mod pcap;
mod tun;
mod vxlan;

use super::{FakeMachine, plan};
use crate::config::exit_code;

/// A case: what it is, the text, `--cores`, the exit code, and of each error in order its place and
/// fragments of its line.
type Case = (
    &'static str,
    &'static str,
    &'static str,
    u8,
    &'static [(&'static str, &'static [&'static str])],
);

/// Appended to a case that is about a port `p`, so that nothing else is wrong with it.
const FROM_P: &str = "\n[ports.out]\nkind = 'tap'\n[[pipelines]]\nfrom = ['p']\nto = ['out']\n";
/// The same for a port `p` that is a sink.
const TO_P: &str =
    "\n[ports.in]\nkind = 'pcap'\npath = 'b.pcap'\n[[pipelines]]\nfrom = ['in']\nto = ['p']\n";
/// The same for a policy `w`.
const BY_W: &str = "\n[ports.in]\nkind = 'pcap'\npath = 'b.pcap'\n[ports.out]\nkind = 'tap'\n[[pipelines]]\nfrom = ['in']\npolicy = 'w'\nto = ['out']\n";

fn check(cases: &[Case], rest: &str) {
    for (what, text, cores, code, expected) in cases {
        let text = format!("{text}{rest}");
        let errors = plan(&text, cores, &FakeMachine).expect_err(what);
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let shown = lines.join("\n");
        assert_eq!(lines.len(), expected.len(), "{what}:\n{shown}");
        for (line, (place, fragments)) in lines.iter().zip(*expected) {
            assert!(
                line.starts_with(&format!("{place}: ")),
                "{what}: {place}\n{shown}"
            );
            assert!(!line.contains('\n'), "{what}: one line\n{shown}");
            for fragment in *fragments {
                assert!(line.contains(fragment), "{what}: {fragment}\n{shown}");
            }
        }
        assert_eq!(exit_code(&errors), *code, "{what}:\n{shown}");
    }
}

#[test]
fn texts() {
    check(
        &[
            (
                "nothing",
                "",
                "",
                2,
                &[("dp.toml:1:1", &["no pipelines", "[[pipelines]]"])],
            ),
            (
                "no TOML",
                "[engine\n",
                "",
                2,
                &[("dp.toml:1:8", &["not TOML"])],
            ),
            (
                "a key twice",
                "[engine]\nbatch = 1\nbatch = 2\n",
                "",
                2,
                &[("dp.toml:3:1", &["not TOML: duplicate key"])],
            ),
            (
                "an unknown section",
                "[engin]\ncores = '1'\n[[pipelines]]\n",
                "",
                2,
                &[
                    (
                        "dp.toml:1:2",
                        &["unknown key \"engin\"", "did you mean \"engine\"?"],
                    ),
                    (
                        "dp.toml:3:1",
                        &["pipelines[0]: from is missing; write from = [\"uplink\"]"],
                    ),
                    ("dp.toml:3:1", &["to is missing; write to = [\"lc0\"]"]),
                ],
            ),
            (
                "sections of the wrong type",
                "engine = 1\ncontrol = []\nports = 'x'\npolicies = 2\npipelines = {}\n",
                "",
                2,
                &[
                    ("dp.toml:1:10", &["engine must be a table", "not 1"]),
                    ("dp.toml:2:11", &["control must be a table", "not an array"]),
                    ("dp.toml:3:9", &["ports must be a table", "not \"x\""]),
                    ("dp.toml:4:12", &["policies must be a table", "not 2"]),
                    ("dp.toml:5:13", &["pipelines must be tables", "not a table"]),
                ],
            ),
        ],
        "",
    );
}

#[test]
fn engine_and_control() {
    check(
        &[
            (
                "a key",
                "[engine]\nslot = 1\n",
                "",
                2,
                &[("dp.toml:2:1", &["engine: ", "did you mean \"slots\"?"])],
            ),
            (
                "values",
                "[engine]\ncores = 2\nslots = 'many'\nslot_size = 1024\nhugepages = 'yes'\nidle = 'bussy'\nbatch = 65\n",
                "",
                2,
                &[
                    ("dp.toml:2:9", &["cores must be a string, not 2"]),
                    (
                        "dp.toml:3:9",
                        &["slots must be a whole number from 256", "\"many\""],
                    ),
                    (
                        "dp.toml:4:13",
                        &["slot_size must be 2048 or 4096, not 1024"],
                    ),
                    (
                        "dp.toml:5:13",
                        &["\"auto\", \"require\" or \"off\", not \"yes\""],
                    ),
                    (
                        "dp.toml:6:8",
                        &["\"adaptive\" or \"busy\"", "did you mean \"busy\"?"],
                    ),
                    ("dp.toml:7:9", &["from 1 to 64, not 65"]),
                ],
            ),
            (
                "memory",
                "[engine]\nslots = 600_000\n",
                "",
                2,
                &[("dp.toml:2:9", &["1 GiB", "at most 524288"])],
            ),
            (
                "cores, syntax",
                "[engine]\ncores = '2..5'\n",
                "",
                2,
                &[("dp.toml:2:9", &["\"2..5\"", "write them as \"2-5\""])],
            ),
            (
                "cores, twice",
                "[engine]\ncores = '0-2,1'\n",
                "",
                2,
                &[("dp.toml:2:9", &["core 1 is listed twice"])],
            ),
            (
                "cores, offline",
                "[engine]\ncores = '2-5'\n",
                "",
                3,
                &[
                    ("dp.toml:2:9", &["core 4 is not online; online are 0-3"]),
                    ("dp.toml:2:9", &["core 5 is not online"]),
                ],
            ),
            (
                "--cores, offline",
                "",
                "9",
                3,
                &[("--cores", &["core 9 is not online; online are 0-3"])],
            ),
            (
                "control",
                "[control]\nsocket = ''\nsocket_group = 'a:b'\nmetrics = '127.0.0.1:9464'\nsockets = 1\n",
                "",
                2,
                &[
                    ("dp.toml:2:10", &["socket must be the path"]),
                    ("dp.toml:3:16", &["name of a group"]),
                    (
                        "dp.toml:4:1",
                        &["metrics is not built yet", "dpctl stats --json"],
                    ),
                    ("dp.toml:5:1", &["did you mean \"socket\"?"]),
                ],
            ),
        ],
        "\n[ports.p]\nkind = 'pcap'\npath = 'b.pcap'\n[ports.out]\nkind = 'tap'\n[[pipelines]]\nfrom = ['p']\nto = ['out']\n",
    );
}

#[test]
fn sources() {
    check(
        &[
            (
                "no kind",
                "[ports.p]\ninterface = 'eth0'",
                "",
                2,
                &[("dp.toml:1:8", &["ports.p: kind is missing"])],
            ),
            (
                "a kind",
                "[ports.p]\nkind = 'afxdp'",
                "",
                2,
                &[("dp.toml:2:8", &["did you mean \"af_xdp\"?"])],
            ),
            (
                "veth",
                "[ports.p]\nkind = 'veth'",
                "",
                2,
                &[(
                    "dp.toml:2:8",
                    &["\"veth\" is not built yet", "it can be \"af_xdp\", "],
                )],
            ),
            (
                "nat",
                "[ports.p]\nkind = 'nat'",
                "",
                2,
                &[("dp.toml:2:8", &["\"nat\" is not built yet"])],
            ),
            (
                "vm",
                "[ports.p]\nkind = 'vm'",
                "",
                2,
                &[("dp.toml:2:8", &["\"vm\" is not built yet"])],
            ),
            (
                "nat",
                "[ports.p]\nkind = 'nat'",
                "",
                2,
                &[("dp.toml:2:8", &["\"nat\" is not built yet"])],
            ),
            (
                "a key, counted in characters",
                "[ports.p]\n\"kind\" = 'af_xdp'\n  interfce = 'é'\ninterface = 'eth0'",
                "",
                2,
                &[(
                    "dp.toml:3:3",
                    &["ports.p: unknown key \"interfce\"; did you mean \"interface\"?"],
                )],
            ),
            (
                "values of af_xdp",
                "[ports.p]\nkind = 'af_xdp'\ninterface = 'eth0'\nqueues = 'some'\nmode = 'fast'\nchecksums = 1\noffloads = 'fixed'\nforce = 'yes'\nclaim = 'vlan'\noffload = 'nic'\ncores = []\nnetns = 'a/b'",
                "",
                2,
                &[
                    ("dp.toml:4:10", &["queues must be \"all\", not \"some\""]),
                    (
                        "dp.toml:5:8",
                        &["\"auto\", \"zero-copy\", \"copy\" or \"skb\", not \"fast\""],
                    ),
                    ("dp.toml:6:13", &["\"auto\" or \"trust\", not 1"]),
                    ("dp.toml:7:12", &["did you mean \"fix\"?"]),
                    ("dp.toml:8:9", &["true or false, not \"yes\""]),
                    (
                        "dp.toml:9:9",
                        &["\"vlan\" is not built yet; it can be \"all\""],
                    ),
                    ("dp.toml:10:1", &["offload is not built yet"]),
                    ("dp.toml:11:9", &["cores is empty"]),
                    ("dp.toml:12:9", &["network namespace", "\"a/b\""]),
                ],
            ),
            (
                "queues, twice",
                "[ports.p]\nkind = 'af_xdp'\ninterface = 'eth0'\nqueues = [0, 1, 0]",
                "",
                2,
                &[("dp.toml:4:17", &["queue 0 twice"])],
            ),
            (
                "queues, none",
                "[ports.p]\nkind = 'af_xdp'\ninterface = 'eth0'\nqueues = []",
                "",
                2,
                &[("dp.toml:4:10", &["queues is empty"])],
            ),
            (
                "queues, negative",
                "[ports.p]\nkind = 'af_xdp'\ninterface = 'eth0'\nqueues = [-1]",
                "",
                2,
                &[("dp.toml:4:11", &["from 0", "not -1"])],
            ),
            (
                "no interface",
                "[ports.p]\nkind = 'af_xdp'",
                "",
                2,
                &[(
                    "dp.toml:1:8",
                    &["interface is missing; write interface = \"eth0\""],
                )],
            ),
            (
                "a long interface",
                "[ports.p]\nkind = 'af_xdp'\ninterface = 'enp0s31f6np0vf10'",
                "",
                2,
                &[(
                    "dp.toml:3:13",
                    &["is 16 bytes long; the kernel allows an interface 15"],
                )],
            ),
            (
                "an impossible interface",
                "[ports.p]\nkind = 'af_xdp'\ninterface = 'eth0:1'",
                "",
                2,
                &[("dp.toml:3:13", &["contains ':'"])],
            ),
            (
                "a missing interface",
                "[ports.p]\nkind = 'af_xdp'\ninterface = 'etho'",
                "",
                3,
                &[(
                    "dp.toml:3:13",
                    &["interface \"etho\" does not exist; did you mean \"eth0\"?"],
                )],
            ),
            (
                "a missing interface elsewhere",
                "[ports.p]\nkind = 'af_xdp'\ninterface = 'eth0'\nnetns = 'ids'",
                "",
                3,
                &[("dp.toml:3:13", &["in namespace \"ids\""])],
            ),
            (
                "a missing namespace",
                "[ports.p]\nkind = 'af_xdp'\ninterface = 'eth0'\nnetns = 'idz'",
                "",
                3,
                &[(
                    "dp.toml:4:9",
                    &[
                        "\"idz\" does not exist",
                        "did you mean \"ids\"?",
                        "ip netns add idz",
                    ],
                )],
            ),
            (
                "down",
                "[ports.p]\nkind = 'af_xdp'\ninterface = 'down0'",
                "",
                3,
                &[(
                    "dp.toml:3:13",
                    &["down0 is down; run: ip link set down0 up"],
                )],
            ),
            (
                "an address",
                "[ports.p]\nkind = 'af_xdp'\ninterface = 'addr0'",
                "",
                3,
                &[(
                    "dp.toml:3:13",
                    &["192.0.2.1/24", "force = true", "af_packet"],
                )],
            ),
            (
                "the default route",
                "[ports.p]\nkind = 'af_xdp'\ninterface = 'gw0'",
                "",
                3,
                &[(
                    "dp.toml:3:13",
                    &["192.0.2.2/24 and the default route", "force = true"],
                )],
            ),
            (
                "a program",
                "[ports.p]\nkind = 'af_xdp'\ninterface = 'xdp0'",
                "",
                3,
                &[(
                    "dp.toml:3:13",
                    &[
                        "id 17",
                        "held by xdpdump with pid 99",
                        "ip link set dev xdp0 xdp off",
                    ],
                )],
            ),
            (
                "a program that a link holds",
                "[ports.p]\nkind = 'af_xdp'\ninterface = 'xdp1'",
                "",
                3,
                &[(
                    "dp.toml:3:13",
                    &["id 18", "stop its owner", "bpftool link detach"],
                )],
            ),
            (
                "a missing queue",
                "[ports.p]\nkind = 'af_xdp'\ninterface = 'eth0'\nqueues = [1, 4]",
                "",
                3,
                &[(
                    "dp.toml:4:14",
                    &[
                        "eth0 has queues 0-1, no queue 4",
                        "ethtool -L eth0 combined 5",
                    ],
                )],
            ),
            (
                "no zero-copy",
                "[ports.p]\nkind = 'af_xdp'\ninterface = 'va'\nmode = 'zero-copy'",
                "",
                3,
                &[(
                    "dp.toml:4:8",
                    &["driver \"veth\"", "mode = \"auto\" or \"copy\""],
                )],
            ),
            (
                "a core without worker",
                "[ports.p]\nkind = 'af_xdp'\ninterface = 'eth0'\ncores = [2, 1]",
                "2-3",
                2,
                &[(
                    "dp.toml:4:9",
                    &["core 1 has no worker; the workers' cores are 2-3 (--cores)"],
                )],
            ),
            (
                "values of pcap",
                "[ports.p]\nkind = 'pcap'\npath = ''\npace = 'topp'\nspeed = 0\nloops = -1\nfile = 'x'",
                "",
                2,
                &[
                    ("dp.toml:3:8", &["path is empty; name a capture file"]),
                    ("dp.toml:4:8", &["did you mean \"top\"?"]),
                    ("dp.toml:5:9", &["a number from 0.001 to 1000000, not 0"]),
                    ("dp.toml:6:9", &["from 0 to 4294967295, not -1"]),
                    ("dp.toml:7:1", &["unknown key \"file\""]),
                ],
            ),
            (
                "two paces",
                "[ports.p]\nkind = 'pcap'\npath = 'b.pcap'\npace = { pps = 1, mbps = 1 }",
                "",
                2,
                &[("dp.toml:4:8", &["{ pps = 1000 } or { mbps = 10 }"])],
            ),
            (
                "a pace",
                "[ports.p]\nkind = 'pcap'\npath = 'b.pcap'\npace = { fps = 1 }",
                "",
                2,
                &[
                    ("dp.toml:4:8", &["must be \"original\""]),
                    (
                        "dp.toml:4:10",
                        &["unknown key \"fps\"; did you mean \"pps\"?"],
                    ),
                ],
            ),
            (
                "a speed",
                "[ports.p]\nkind = 'pcap'\npath = 'b.pcap'\npace = 'top'\nspeed = 2.0",
                "",
                2,
                &[("dp.toml:5:9", &["goes with pace = \"original\" only"])],
            ),
            (
                "no path",
                "[ports.p]\nkind = 'pcap'",
                "",
                2,
                &[("dp.toml:1:8", &["path is missing"])],
            ),
            (
                "no file",
                "[ports.p]\nkind = 'pcap'\npath = 'no.pcap'",
                "",
                2,
                &[("dp.toml:3:8", &["no.pcap does not exist"])],
            ),
            (
                "an empty file",
                "[ports.p]\nkind = 'pcap'\npath = 'empty.pcap'",
                "",
                2,
                &[("dp.toml:3:8", &["empty.pcap is empty"])],
            ),
            (
                "a device",
                "[ports.p]\nkind = 'pcap'\npath = 'device'",
                "",
                2,
                &[("dp.toml:3:8", &["device is no file and no pipe"])],
            ),
            (
                "a directory",
                "[ports.p]\nkind = 'pcap'\npath = 'folder'",
                "",
                2,
                &[("dp.toml:3:8", &["folder is a directory"])],
            ),
            (
                "a secret file",
                "[ports.p]\nkind = 'pcap'\npath = 'secret.pcap'",
                "",
                3,
                &[("dp.toml:3:8", &["secret.pcap may not be read"])],
            ),
            (
                "a sink only",
                "[ports.p]\nkind = 'tap'\npassive = true",
                "",
                2,
                &[(
                    "dp.toml:7:9",
                    &["pipelines[0]", "sink only", "passive = false in [ports.p]"],
                )],
            ),
            (
                "a wrong file and a refusing machine",
                "[ports.p]\nkind = 'af_xdp'\ninterface = 'down0'\n[[pipelines]]\nfrom = ['x']\nto = ['out']",
                "",
                2,
                &[
                    ("dp.toml:3:13", &["down0 is down"]),
                    ("dp.toml:5:9", &["unknown port \"x\""]),
                ],
            ),
        ],
        FROM_P,
    );
}

#[test]
fn sinks() {
    check(
        &[
            (
                "an address where frames would be sent",
                "[ports.p]\nkind = 'af_xdp'\ninterface = 'addr0'",
                "",
                3,
                &[(
                    "dp.toml:3:13",
                    &[
                        "192.0.2.1/24",
                        "into the host's own network",
                        "force = true",
                    ],
                )],
            ),
            (
                "values of tap",
                "[ports.p]\nkind = 'tap'\nname = 'a b'\nnetns = ''\nmtu = 67\nwait_for_consumer = '5'\npassive = 1\nmut = 1",
                "",
                2,
                &[
                    ("dp.toml:3:8", &["contains ' '"]),
                    ("dp.toml:4:9", &["network namespace"]),
                    ("dp.toml:5:7", &["from 68 to 65521, not 67"]),
                    ("dp.toml:6:21", &["\"5s\", \"500ms\" or \"2m\", not \"5\""]),
                    ("dp.toml:7:11", &["true or false, not 1"]),
                    ("dp.toml:8:1", &["did you mean \"mtu\"?"]),
                ],
            ),
            (
                "a taken name",
                "[ports.p]\nkind = 'tap'\nname = 'taken'",
                "",
                3,
                &[(
                    "dp.toml:3:8",
                    &[
                        "a TAP or TUN device \"taken\" already",
                        "ip link delete taken",
                    ],
                )],
            ),
            (
                "a taken name elsewhere",
                "[ports.p]\nkind = 'tap'\nname = 'busy0'\nnetns = 'ids'",
                "",
                3,
                &[("dp.toml:3:8", &["in namespace \"ids\"", "driver \"ixgbe\""])],
            ),
            (
                "a missing namespace",
                "[ports.p]\nkind = 'tap'\nnetns = 'nowhere'",
                "",
                3,
                &[(
                    "dp.toml:3:9",
                    &["\"nowhere\" does not exist; make it: ip netns add nowhere"],
                )],
            ),
            (
                "memory",
                "[engine]\nslots = 100_000\n[ports.p]\nkind = 'tap'\nmtu = 65521",
                "",
                2,
                &[("dp.toml:5:7", &["65664 bytes", "1 GiB", "slots = 16352"])],
            ),
        ],
        TO_P,
    );
    check(
        &[(
            "a long default name",
            "[ports.a-very-long-port-name]\nkind = 'tap'\n[ports.p]\nkind = 'tap'",
            "",
            2,
            &[(
                "dp.toml:1:8",
                &[
                    "a-very-long-port-name",
                    "is 21 bytes long",
                    "name = \"lc0\"",
                ],
            )],
        )],
        TO_P,
    );
}

#[test]
fn policies() {
    check(
        &[
            (
                "mode",
                "[policies.w]\nmode = 'filterd'\nallow = []",
                "",
                2,
                &[("dp.toml:2:8", &["did you mean \"filtered\"?"])],
            ),
            (
                "conntrack",
                "[policies.w]\nmode = 'conntrack'\nallow = []",
                "",
                2,
                &[(
                    "dp.toml:2:8",
                    &["\"conntrack\" is not built yet; it can be \"direct\" or \"filtered\""],
                )],
            ),
            (
                "sampled",
                "[policies.w]\nmode = 'sampled'\nallow = []",
                "",
                2,
                &[("dp.toml:2:8", &["\"sampled\" is not built yet"])],
            ),
            (
                "what is not built",
                "[policies.w]\nprofile = 'vm'\non_violation = 'terminate'\noffload = 'xdp'\nallow = []",
                "",
                2,
                &[
                    (
                        "dp.toml:2:11",
                        &["\"vm\" is not built yet; it can be \"network\""],
                    ),
                    (
                        "dp.toml:3:16",
                        &["\"terminate\" is not built yet; it can be \"drop\""],
                    ),
                    ("dp.toml:4:1", &["offload is not built yet"]),
                ],
            ),
            (
                "no allowlist",
                "[policies.w]\nmode = 'filtered'",
                "",
                2,
                &[(
                    "dp.toml:1:11",
                    &["allow is missing", "allow = [] to block everything"],
                )],
            ),
            (
                "rules for nothing",
                "[policies.w]\nmode = 'direct'\nallow = []\narp = false",
                "",
                2,
                &[
                    (
                        "dp.toml:3:1",
                        &["allow has no meaning with mode = \"direct\""],
                    ),
                    ("dp.toml:4:1", &["arp has no meaning"]),
                ],
            ),
            (
                "no list",
                "[policies.w]\nallow = 'all'",
                "",
                2,
                &[(
                    "dp.toml:2:9",
                    &["allow must be a list of rules", "not \"all\""],
                )],
            ),
            (
                "rules",
                "[policies.w]\nallow = [\n  { prot = 'tcp' },\n  { proto = 'tpc' },\n  { to = '10.0.0.1/8' },\n  { to = 'example.org' },\n  { ports = '80-' },\n  { ports = '9-8' },\n  { ports = 443 },\n  { ports = '65536' },\n  { icmp = 'ping' },\n  { proto = 'icmp', ports = '1' },\n  { proto = 'tcp', icmp = 'echo' },\n  { from = '10.0.0.0/8', to = '2001:db8::1' },\n  'tcp',\n  { replies = 'yes' },\n]",
                "",
                2,
                &[
                    (
                        "dp.toml:3:5",
                        &["policies.w.allow[0]: unknown key \"prot\"; did you mean \"proto\"?"],
                    ),
                    (
                        "dp.toml:4:13",
                        &["\"tcp\", \"udp\" or \"icmp\"", "did you mean \"tcp\"?"],
                    ),
                    (
                        "dp.toml:5:10",
                        &[
                            "to: 10.0.0.1/8 has bits set behind its prefix; write 10.0.0.0/8 for the network, or 10.0.0.1",
                        ],
                    ),
                    ("dp.toml:6:10", &["to: \"example.org\" is no network"]),
                    (
                        "dp.toml:7:13",
                        &["is no port list; write ports and ranges such as"],
                    ),
                    ("dp.toml:8:13", &["ends before it begins; write 8-9"]),
                    ("dp.toml:9:13", &["must be a string, not 443"]),
                    (
                        "dp.toml:10:13",
                        &["is no port list; write ports and ranges such as"],
                    ),
                    ("dp.toml:11:12", &["\"echo\", \"echo-reply\""]),
                    ("dp.toml:12:3", &["ICMP has no ports; leave"]),
                    ("dp.toml:13:3", &["`icmp` needs proto = \"icmp\""]),
                    ("dp.toml:14:3", &["one is IPv4, the other IPv6"]),
                    ("dp.toml:15:3", &["list of tables", "not \"tcp\""]),
                    ("dp.toml:16:15", &["replies must be true or false"]),
                ],
            ),
            (
                "its name",
                "[policies.'a b']\nmode = 'direct'\n[policies.w]\nallow = []",
                "",
                2,
                &[("dp.toml:1:11", &["letters, digits, - and _", "\"a b\""])],
            ),
        ],
        BY_W,
    );
}

#[test]
fn pipelines() {
    let ports = "\n[ports.a]\nkind = 'af_xdp'\ninterface = 'eth0'\n[ports.b]\nkind = 'af_xdp'\ninterface = 'eth1'\n[ports.lc0]\nkind = 'tap'\n[policies.web]\nallow = []\n";
    check(
        &[
            (
                "unknown names",
                "[[pipelines]]\nfrom = ['aa']\npolicy = 'wbe'\nto = ['lc1', 'nowhere']",
                "0",
                2,
                &[
                    (
                        "dp.toml:2:9",
                        &["pipelines[0]: unknown port \"aa\"; there is a, b and lc0"],
                    ),
                    (
                        "dp.toml:3:10",
                        &["unknown policy \"wbe\"; did you mean \"web\"?"],
                    ),
                    (
                        "dp.toml:4:7",
                        &["unknown port \"lc1\"; did you mean \"lc0\"?"],
                    ),
                    (
                        "dp.toml:4:14",
                        &["unknown port \"nowhere\"; there is a, b and lc0"],
                    ),
                ],
            ),
            (
                "keys and values",
                "[[pipelines]]\nfrom = 'a'\nto = []\nvia = 'web'\n[[pipelines]]\nfrom = ['a', 'a']\nto = [1]\nsteps = []",
                "0",
                2,
                &[
                    (
                        "dp.toml:2:8",
                        &["from must be a list of port names", "not \"a\""],
                    ),
                    ("dp.toml:3:6", &["to is empty"]),
                    ("dp.toml:4:1", &["unknown key \"via\""]),
                    ("dp.toml:6:14", &["from names \"a\" twice"]),
                    ("dp.toml:7:7", &["to must be a string, not 1"]),
                    ("dp.toml:8:1", &["steps is not built yet"]),
                ],
            ),
            (
                "a source in two",
                "[[pipelines]]\nfrom = ['a']\nto = ['b']\n[[pipelines]]\nfrom = ['a']\nto = ['lc0']",
                "0",
                2,
                &[(
                    "dp.toml:5:9",
                    &[
                        "pipelines[1]: port \"a\" is already the source of pipelines[0] (line 1)",
                        "several names in `to`",
                    ],
                )],
            ),
            (
                "a loop",
                "[[pipelines]]\nfrom = ['a', 'b']\nto = ['lc0', 'a']",
                "0",
                2,
                &[("dp.toml:3:14", &["\"a\" is in `from` too"])],
            ),
        ],
        ports,
    );
    check(
        &[
            (
                "an interface in two ports",
                "[ports.a]\nkind = 'af_xdp'\ninterface = 'eth0'\nqueues = [0]\n[ports.b]\nkind = 'af_xdp'\ninterface = 'eth0'\n[[pipelines]]\nfrom = ['a']\nto = ['b']",
                "0",
                2,
                &[(
                    "dp.toml:7:13",
                    &[
                        "ports.b: \"eth0\" is the device of port \"a\" (line 1) already",
                        "one port",
                    ],
                )],
            ),
            (
                "a tap twice",
                "[ports.in]\nkind = 'pcap'\npath = 'b.pcap'\n[ports.a]\nkind = 'tap'\nname = 'lc0'\n[ports.lc0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['in']\nto = ['a', 'lc0']",
                "0",
                2,
                &[(
                    "dp.toml:7:8",
                    &[
                        "\"lc0\" is the device of port \"a\" (line 4) already",
                        "another name",
                    ],
                )],
            ),
            (
                "a veth's ends",
                "[ports.a]\nkind = 'af_xdp'\ninterface = 'va'\n[ports.b]\nkind = 'af_xdp'\ninterface = 'vb'\n[[pipelines]]\nfrom = ['a']\nto = ['b']",
                "0",
                2,
                &[(
                    "dp.toml:9:7",
                    &[
                        "\"a\" and \"b\" are the two ends of one veth pair",
                        "two pairs",
                    ],
                )],
            ),
            (
                "a veth's ends in two namespaces",
                "[ports.a]\nkind = 'af_xdp'\ninterface = 'vc'\n[ports.b]\nkind = 'af_xdp'\ninterface = 'veth1'\nnetns = '/run/netns/ids'\n[[pipelines]]\nfrom = ['b']\nto = ['a']",
                "0",
                2,
                &[("dp.toml:10:7", &["two ends of one veth pair"])],
            ),
            (
                "two workers, one sink queue",
                "[ports.a]\nkind = 'af_xdp'\ninterface = 'eth0'\n[ports.b]\nkind = 'af_xdp'\ninterface = 'one'\n[[pipelines]]\nfrom = ['a']\nto = ['b']",
                "2-3",
                2,
                &[(
                    "dp.toml:9:7",
                    &[
                        "worker on core 3 would write to \"b\", whose one queue belong",
                        "core 2",
                        "ethtool -L one combined 2",
                        "--cores 2",
                    ],
                )],
            ),
            (
                "a file between two workers",
                "[ports.f]\nkind = 'pcap'\npath = 'b.pcap'\n[ports.a]\nkind = 'af_xdp'\ninterface = 'one'\ncores = [0]\n[ports.b]\nkind = 'af_xdp'\ninterface = 'two'\ncores = [1]\n[[pipelines]]\nfrom = ['f']\nto = ['a', 'b']",
                "0-1",
                2,
                &[(
                    "dp.toml:14:12",
                    &["worker on core 0 would write to \"b\"", "core 1"],
                )],
            ),
        ],
        "",
    );
}
