//! What is accepted, and the plan that it becomes.

use std::time::Duration;

use dataplane::policy::{IcmpKind, PortRange, Protocol, Rule};

use super::{FULL, FakeMachine, parsed, plan};
use crate::{
    config::{Mode, parse_policy, parse_rule},
    ports::{PortKind, af_packet::Direction, pcap::Pace, tap::DeviceType},
};

#[test]
fn every_key_is_read() {
    let config = parsed(FULL);
    assert_eq!(
        config.engine.cores.as_ref().map(|c| c.to_string()),
        Some("0-1".into())
    );
    assert_eq!((*config.engine.slots, config.engine.batch), (4096, 32));
    let names: Vec<&str> = config.ports.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "uplink", "down", "sample", "slow", "lc0", "packets", "record", "far", "beside"
        ],
        "in the order of the file"
    );
    let PortKind::Tap(tap) = &config.port("lc0").expect("lc0").kind else {
        panic!("lc0 is a TAP");
    };
    assert_eq!(
        (*tap.mtu, tap.wait_for_consumer),
        (9000, Some(Duration::from_secs(5)))
    );
    assert_eq!(tap.device_type, DeviceType::Tap);
    let PortKind::Tap(tun) = &config.port("packets").expect("packets").kind else {
        panic!("packets is a TUN");
    };
    assert_eq!(
        (tun.device_type, *tun.mtu, tun.device.as_str()),
        (DeviceType::Tun, 1500, "tun0")
    );
    let PortKind::AfPacket(beside) = &config.port("beside").expect("beside").kind else {
        panic!("beside listens");
    };
    assert_eq!(
        (
            *beside.promiscuous,
            beside.direction,
            beside.buffer.to_string()
        ),
        (true, Direction::In, "8MiB".to_owned())
    );
    let PortKind::Pcap(pcap) = &config.port("sample").expect("sample").kind else {
        panic!("sample is a file");
    };
    assert_eq!((pcap.pace(), pcap.loops()), (Pace::Pps(1000.0), 0));
    let web = config.policy("web").expect("web");
    assert_eq!(
        web.rules()[..2],
        [
            Rule {
                protocol: Some(Protocol::Tcp),
                to: Some("10.0.0.0/8".parse().expect("a network")),
                to_ports: vec![
                    PortRange {
                        first: 80,
                        last: 80
                    },
                    PortRange {
                        first: 443,
                        last: 443
                    },
                    PortRange {
                        first: 8000,
                        last: 8100
                    },
                ],
                replies: true,
                ..Rule::default()
            },
            Rule {
                protocol: Some(Protocol::Udp),
                from: Some("10.1.0.0/16".parse().expect("a network")),
                from_ports: vec![PortRange {
                    first: 1024,
                    last: 65535
                }],
                to: Some("203.0.113.50/32".parse().expect("a network")),
                to_ports: vec![PortRange {
                    first: 51820,
                    last: 51820
                }],
                ..Rule::default()
            },
        ]
    );
    assert_eq!(web.rules()[2].icmp, Some(IcmpKind::Echo));
    assert_eq!(config.policy("open").expect("open").mode, Mode::Direct);
}

#[test]
fn a_configuration_written_out_reads_back() {
    let config = parsed(FULL);
    let text = config.to_toml().expect("TOML");
    let mut again = parsed(&text);
    // Tables are written in the order that they have here, so that nothing but the places differs.
    again.file.clone_from(&config.file);
    assert_eq!(again, config, "{text}");
}

#[test]
fn rules_and_policies_alone() {
    let bare = parse_rule(" proto = \"tcp\", ports = \"443\" ").expect("a rule");
    let braced = parse_rule("{ proto = \"tcp\", ports = \"443\" }").expect("a rule");
    assert_eq!(bare, braced);
    for wrong in ["", "}", "proto = \"tpc\"", "{", "a = 1 }, b = {"] {
        if let Ok(rule) = parse_rule(wrong) {
            assert_eq!(
                (wrong, rule),
                ("", Rule::default()),
                "no field means any frame"
            );
        }
    }
    let error = &parse_rule("proto = \"tpc\"").expect_err("no protocol")[0];
    assert!(
        error.to_string().starts_with("rule: proto must be"),
        "{error}"
    );
    let policy = parse_policy(
        "arp = false\nallow = [{ to = '10.0.0.1' }]",
        "new.toml",
        "web",
    );
    let policy = policy.expect("a policy");
    assert_eq!(
        (policy.name.as_str(), policy.arp, policy.allow.len()),
        ("web", false, 1)
    );
    let error = &parse_policy("allow = 1", "new.toml", "web").expect_err("no list")[0];
    assert!(
        error
            .to_string()
            .starts_with("new.toml:1:9: policies.web: allow"),
        "{error}"
    );
}

/// A case: what it is, the ports and pipelines, `--cores`, the plan in short (a line a worker: its
/// core, what it polls, what it writes), and fragments of its notes.
type Case = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const XDP: &str = "[ports.a]\nkind = 'af_xdp'\ninterface = 'eth0'\n[ports.b]\nkind = 'af_xdp'\ninterface = 'eth1'\n[ports.lc0]\nkind = 'tap'\n[ports.f]\nkind = 'pcap'\npath = 'b.pcap'\n[ports.g]\nkind = 'pcap'\npath = 'b.pcap'\n";

#[test]
fn who_polls_what() {
    let cases: &[Case] = &[
        (
            "a file onto a TAP",
            "[[pipelines]]\nfrom = ['f']\nto = ['lc0']",
            "2",
            &["2: f | lc0"],
            &["port \"a\" (line 1) is in no pipeline"],
        ),
        (
            "inline and monitored: queue q meets queue q",
            "[[pipelines]]\nfrom = ['a']\nto = ['b', 'lc0']\n[[pipelines]]\nfrom = ['b']\nto = ['a', 'lc0']",
            "1-2",
            &["1: a/0 b/0 | a/0 b/0 lc0/0", "2: a/1 b/1 | a/1 b/1 lc0/1"],
            &[],
        ),
        (
            "one worker has all queues",
            "[[pipelines]]\nfrom = ['a']\nto = ['lc0']",
            "3",
            &["3: a/0 a/1 | lc0/0"],
            &[],
        ),
        (
            "no cores named: the last",
            "[[pipelines]]\nfrom = ['a']\nto = ['lc0']",
            "",
            &["3: a/0 a/1 | lc0/0"],
            &["one worker runs on core 3"],
        ),
        (
            "more cores than queues",
            "[[pipelines]]\nfrom = ['a']\nto = ['lc0']",
            "0-3",
            &["0: a/0 | lc0/0", "1: a/1 | lc0/1"],
            &["nothing is left to poll for cores 2-3"],
        ),
        (
            "a sink alone takes one queue a worker",
            "[[pipelines]]\nfrom = ['f']\nto = ['b']",
            "0-1",
            &["0: f | b/0"],
            &[
                "only written to: its queue(s) 1",
                "no worker",
                "nothing is left to poll for core 1",
            ],
        ),
        (
            "two files, two workers, the less loaded each",
            "[[pipelines]]\nfrom = ['f', 'g']\nto = ['lc0']",
            "0-1",
            &["0: f | lc0/0", "1: g | lc0/1"],
            &[],
        ),
        (
            "a file beside busy queues",
            "[[pipelines]]\nfrom = ['a', 'f']\nto = ['lc0']",
            "0-2",
            &["0: a/0 | lc0/0", "1: a/1 | lc0/1", "2: f | lc0/2"],
            &[],
        ),
        (
            "a TAP that is written is read where it is written",
            "[[pipelines]]\nfrom = ['a']\nto = ['lc0']\n[[pipelines]]\nfrom = ['lc0']\nto = ['a']",
            "0-1",
            &["0: a/0 lc0/0 | a/0 lc0/0", "1: a/1 lc0/1 | a/1 lc0/1"],
            &[],
        ),
        (
            "a TAP that is only a source has one worker",
            "[[pipelines]]\nfrom = ['lc0']\nto = ['a']",
            "0-1",
            &["0: lc0 | a/0"],
            &[],
        ),
        (
            "cores of a port",
            "[ports.q]\nkind = 'af_xdp'\ninterface = 'quad'\ncores = [3, 1]\n[[pipelines]]\nfrom = ['q']\nto = ['lc0']",
            "0-3",
            &["1: q/1 q/3 | lc0/0", "3: q/0 q/2 | lc0/1"],
            &["cores 0,2"],
        ),
        (
            "two TAPs in a circle of their own",
            "[ports.lc1]\nkind = 'tap'\n[[pipelines]]\nfrom = ['lc0']\nto = ['lc1']\n[[pipelines]]\nfrom = ['lc1']\nto = ['lc0']",
            "0-1",
            &["0: lc0 lc1 | lc0 lc1"],
            &[],
        ),
        (
            "a namespace that may not be looked into",
            "[ports.s]\nkind = 'af_xdp'\ninterface = 'x0'\nnetns = 'secret'\n[[pipelines]]\nfrom = ['s']\nto = ['lc0']",
            "0",
            &["0: s/0 | lc0"],
            &[
                "\"secret\" were not inspected: looking into another network namespace needs root",
                "the queues of x0 are not known; queue 0 stands for all",
            ],
        ),
        (
            "long frames",
            "[ports.j]\nkind = 'af_xdp'\ninterface = 'jumbo0'\n[[pipelines]]\nfrom = ['j']\nto = ['lc0']",
            "0",
            &["0: j/0 | lc0"],
            &[
                "jumbo0 has mtu 3000",
                "holds frames of 1792",
                "slot_size = 4096",
            ],
        ),
        (
            "frames that the driver hands over in pieces without copies",
            "[ports.i]\nkind = 'af_xdp'\ninterface = 'igb0'\n[[pipelines]]\nfrom = ['i']\nto = ['lc0']",
            "0",
            &["0: i/0 | lc0"],
            &[
                "port \"i\": igb0 copies: in zero-copy mode igb receives frames of more than 1024 bytes in pieces",
                "slot_size = 4096 mends that",
            ],
        ),
        (
            "the same where it must not copy",
            "[ports.i]\nkind = 'af_xdp'\ninterface = 'igb0'\nmode = 'zero-copy'\n[[pipelines]]\nfrom = ['i']\nto = ['lc0']",
            "0",
            &["0: i/0 | lc0"],
            &["port \"i\": igb0 will not start: in zero-copy mode igb receives"],
        ),
        (
            "the same where it copies, and only frames for itself",
            "[ports.i]\nkind = 'af_xdp'\ninterface = 'igb0'\nmode = 'copy'\npromiscuous = false\n[[pipelines]]\nfrom = ['i']\nto = ['lc0']",
            "0",
            &["0: i/0 | lc0"],
            &[],
        ),
        (
            "an address, forced",
            "[ports.w]\nkind = 'af_xdp'\ninterface = 'gw0'\nforce = true\n[[pipelines]]\nfrom = ['w']\nto = ['lc0']",
            "0",
            &["0: w/0 | lc0"],
            &[],
        ),
    ];
    for (what, text, cores, workers, notes) in cases {
        let plan = plan(&format!("{XDP}{text}"), cores, &FakeMachine)
            .unwrap_or_else(|errors| panic!("{what}: {errors:?}"));
        let short: Vec<String> = plan
            .workers
            .iter()
            .map(|worker| {
                let names = |wanted: fn(&crate::config::Unit) -> bool| -> Vec<String> {
                    let units = worker.units.iter().filter(|unit| wanted(unit));
                    units.map(|unit| plan.unit(unit)).collect()
                };
                format!(
                    "{}: {} | {}",
                    worker.core,
                    names(|unit| unit.source).join(" "),
                    names(|unit| unit.sink).join(" ")
                )
            })
            .collect();
        let workers: Vec<String> = workers
            .iter()
            // A TAP of one descriptor is shown without its number.
            .map(|line| match workers.len() {
                1 => line.replace("lc0/0", "lc0"),
                _ => (*line).to_owned(),
            })
            .collect();
        assert_eq!(short, workers, "{what}\n{plan}");
        for note in *notes {
            assert!(plan.to_string().contains(note), "{what}: {note}\n{plan}");
        }
        every_unit_belongs(what, &plan);
    }
}

/// What holds of every plan: a queue is on one worker, a pipeline on a worker has all its sinks there,
/// and every source is polled by someone.
fn every_unit_belongs(what: &str, plan: &crate::config::Plan) {
    let mut seen = std::collections::HashSet::new();
    let mut polled = std::collections::HashSet::new();
    for worker in &plan.workers {
        assert!(
            !worker.pipelines.is_empty(),
            "{what}: a worker without work\n{plan}"
        );
        for unit in &worker.units {
            assert!(
                seen.insert((unit.port, unit.queue)),
                "{what}: shared\n{plan}"
            );
        }
        for pipeline in &worker.pipelines {
            let whole = &plan.pipelines[pipeline.pipeline];
            let sinks: Vec<usize> = pipeline
                .sinks
                .iter()
                .map(|&s| worker.units[s].port)
                .collect();
            assert_eq!(sinks, whole.to, "{what}\n{plan}");
            for &source in &pipeline.sources {
                assert!(
                    whole.from.contains(&worker.units[source].port),
                    "{what}\n{plan}"
                );
                polled.insert(worker.units[source].port);
            }
        }
    }
    for (i, port) in plan.ports.iter().enumerate() {
        assert_eq!(
            polled.contains(&i),
            port.source,
            "{what}: {}\n{plan}",
            port.name
        );
    }
}

#[test]
fn memory() {
    let text = format!(
        "[engine]\nslots = 1024\n{XDP}[ports.big]\nkind = 'tap'\nmtu = 9000\n[[pipelines]]\nfrom = ['a', 'f']\nto = ['big']"
    );
    let plan = plan(&text, "0", &FakeMachine).expect("a plan");
    let worker = &plan.workers[0];
    // 64 bytes of headroom, 9,000 and 22 of headers, in whole cache lines.
    assert_eq!(worker.own_slot_size, Some(9088));
    assert_eq!(plan.memory(worker), 1024 * (2 * 2048 + 9088));
    assert!(!plan.finite);
    assert_eq!(worker.node, Some(0));
}

/// What nobody knows the length of makes slots large, and only that.
#[test]
fn slots_of_recordings() {
    for (source, keys, size) in [
        ("kind = 'pcap'\npath = 'b.pcap'", "", 9088),
        ("kind = 'tap'", "", 2048),
        ("kind = 'tap'\nmtu = 3000", "", 3136),
        ("kind = 'tap'", "max_frame = 4000", 4096),
    ] {
        let text = format!(
            "[ports.s]\n{source}\n[ports.r]\nkind = 'pcap'\npath = 'x.pcapng'\n{keys}\n[[pipelines]]\nfrom = ['s']\nto = ['r']"
        );
        let plan = plan(&text, "0", &FakeMachine).expect("a plan");
        assert_eq!(plan.workers[0].own_slot_size, Some(size), "{text}");
    }
}

/// What a recording's plan says: the port's line, and notes.
#[test]
fn recordings() {
    for (path, keys, line, note) in [
        ("x.pcapng", "", "pcap x.pcapng", ""),
        ("-", "", "pcap standard output", ""),
        ("folder/x", "", "pcap folder/x", ""),
        (
            "b.pcap",
            "",
            "pcap b.pcap",
            "\"r\": b.pcap is there already and is overwritten",
        ),
        (
            "x.pcapng.zst",
            "",
            "pcap x.pcapng.zst, compressed with zstd",
            "",
        ),
        (
            "-",
            "compress = 'zstd'",
            "pcap standard output, compressed with zstd",
            "",
        ),
        (
            "fifo",
            "",
            "pcap fifo",
            "waits up to 5s for somebody to read the FIFO fifo",
        ),
        (
            "x",
            "rotate = { size = '64KiB' }\nkeep = 2",
            "pcap x, a new file after 64KiB, the last 2 kept",
            "",
        ),
        (
            "x",
            "rotate = { time = '2m' }",
            "pcap x, a new file after 120s",
            "",
        ),
        (
            "x",
            "rotate = { size = '5000B' }",
            "pcap x, a new file after 5kB",
            "",
        ),
    ] {
        let text = format!(
            "[ports.r]\nkind = 'pcap'\npath = '{path}'\n{keys}\n[ports.i]\nkind = 'pcap'\npath = '-'\n[[pipelines]]\nfrom = ['i']\nto = ['r']"
        );
        let plan = plan(&text, "0", &FakeMachine).expect("a plan");
        let shown = plan.to_string();
        assert!(
            shown.contains(&format!("  r  out      {line}\n")),
            "{line}\n{shown}"
        );
        assert!(shown.contains("  i  in       pcap standard input at its original pace\n"));
        match note {
            "" => assert!(plan.notes.is_empty(), "{shown}"),
            note => assert!(plan.notes[0].contains(note), "{shown}"),
        }
        let config = parsed(&text);
        let again = parsed(&config.to_toml().expect("a file"));
        assert_eq!(again.ports, config.ports, "written and read");
    }
}

#[test]
fn a_run_ends_with_its_files() {
    for (loops, source, finite) in [(1, "f", true), (0, "f", false), (1, "lc1", false)] {
        let text = format!(
            "[ports.f]\nkind = 'pcap'\npath = 'b.pcap'\nloops = {loops}\n[ports.lc1]\nkind = 'tap'\n[ports.lc0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['{source}']\nto = ['lc0']"
        );
        let plan = plan(&text, "0", &FakeMachine).expect("a plan");
        assert_eq!(plan.finite, finite, "loops = {loops}, from {source}");
        let lc0 = plan
            .ports
            .iter()
            .find(|port| port.name == "lc0")
            .expect("lc0");
        assert!(lc0.passive());
        for port in plan.ports.iter().filter(|port| port.source) {
            assert!(!port.passive());
        }
    }
}

#[test]
fn the_printed_plan() {
    let plan = plan(FULL, "2-3", &FakeMachine).expect_err("core 1 is not among them");
    assert!(
        plan[0].to_string().contains("core 1 has no worker"),
        "{}",
        plan[0]
    );
    let text = FULL.replace("cores = [1]\n", "");
    let plan = super::plan(&text, "2-3", &FakeMachine)
        .expect("a plan")
        .to_string();
    let expected = "\
ports
  uplink  in       af_xdp on eth0, queues 0-1, mode auto, checksums auto, offloads fix (ixgbe, mtu 1500; its driver does not tell how flows are spread)
  sample  in       pcap sample.pcapng at 1000 frames a second, for ever
  slow    in       pcap sample.pcapng at 0.5 times its original pace
  lc0     out      tap lc0 in namespace ids, to be made, mtu 9000, 2 queues, passive, TCP trains, waits 5s for a listener
  record  out      pcap record-%Y%m%d-%H%M%S.pcapng, compressed with zstd, a new file after 100MB or 60s or 1000000 frames, the last 10 kept
pipelines
  uplink, sample -> web (filtered, 4 rules, ARP passes) -> lc0
  slow -> open (everything) -> lc0, record
workers
  core 2 (node 1)  polls uplink/0, sample; writes lc0/0
    memory 44 MiB: 1 UMEM of 4096 slots of 2048 bytes, a region of 4096 slots of 9088 bytes
  core 3 (node 1)  polls uplink/1, slow; writes lc0/1, record
    memory 44 MiB: 1 UMEM of 4096 slots of 2048 bytes, a region of 4096 slots of 9088 bytes
engine
  2 workers, 87 MiB of frame memory (huge pages: off), batches of 32, idle: busy
note: port \"down\" (line 23) is in no pipeline; it is not opened
note: port \"packets\" (line 53) is in no pipeline; it is not opened
note: port \"far\" (line 66) is in no pipeline; it is not opened
note: port \"beside\" (line 80) is in no pipeline; it is not opened
";
    assert_eq!(plan, expected);
}

/// A TUN is described as one, and its frames need no less room than a TAP's: headers are cut at the sink.
#[test]
fn a_tun() {
    let text = "[ports.in0]\nkind = 'tap'\ntype = 'tun'\nmtu = 4000\n[ports.lc0]\nkind = 'tap'\ntype = 'tun'\n[[pipelines]]\nfrom = ['in0']\nto = ['lc0']\n";
    let plan = super::plan(text, "2", &FakeMachine)
        .expect("a plan")
        .to_string();
    for line in [
        "  in0  in       tun in0, to be made, mtu 4000\n",
        "  lc0  out      tun lc0, to be made, mtu 1500, passive\n",
        "slots of 4096 bytes",
    ] {
        assert!(plan.contains(line), "{line:?} is not in\n{plan}");
    }
}

/// Only where frames are read into slots does the header before them take room there.
#[test]
fn a_tap_with_trains() {
    for (rest, line, slots) in [
        (
            "[[pipelines]]\nfrom = ['sample']\nto = ['lc0']",
            "lc0     out      tap lc0, to be made, mtu 4010, passive, TCP trains\n",
            4096,
        ),
        (
            "[[pipelines]]\nfrom = ['sample']\nto = ['lc0']\n[[pipelines]]\nfrom = ['lc0']\nto = ['far']",
            "lc0     in, out  tap lc0, to be made, mtu 4010, TCP trains\n",
            4160,
        ),
    ] {
        let text = format!(
            "[ports.sample]\nkind = 'pcap'\npath = 'sample.pcapng'\n[ports.lc0]\nkind = 'tap'\nmtu = 4010\ngso = true\n[ports.far]\nkind = 'tap'\n{rest}"
        );
        let plan = super::plan(&text, "2", &FakeMachine)
            .expect("a plan")
            .to_string();
        assert!(plan.contains(line), "{line:?} is not in\n{plan}");
        assert!(
            plan.contains(&format!("slots of {slots} bytes")),
            "{slots}\n{plan}"
        );
    }
}

/// What a VXLAN port looks like in the plan, and what is said of frames that the outer headers make too
/// long.
#[test]
fn vxlan_ports() {
    const IN: &str = "\n[ports.in0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['in0']\nto = ['net']";
    const OUT: &str = "\n[ports.lc0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['net']\nto = ['lc0']";
    const ETH: &str = "\n[ports.e]\nkind = 'af_xdp'\ninterface = 'eth0'\n[[pipelines]]\nfrom = ['e']\nto = ['net']";
    const FILE: &str =
        "\n[ports.f]\nkind = 'pcap'\npath = 'b.pcap'\n[[pipelines]]\nfrom = ['f']\nto = ['net']";
    let cases: &[(&str, &str, &[&str], &[&str])] = &[
        (
            "remote = '192.0.2.1'",
            IN,
            &["vxlan 7 with 192.0.2.1 port 4789, mtu 1500, ttl 64, dscp 0 (path mtu 1500)"],
            &[
                "frames of port \"in0\" (mtu 1500) take 50 bytes more on the way to 192.0.2.1, whose mtu is 1500",
                "more than 1450 bytes and an Ethernet header are sent in fragments",
                "make the way's mtu 1550",
                "(mtu = 1450 in [ports.in0])",
            ],
        ),
        (
            "remote = '2001:db8::1'\ndont_fragment = true",
            ETH,
            &["not to be fragmented (path mtu 1500)"],
            &[
                "frames of port \"e\" (mtu 1500) take 70 bytes more",
                "more than 1430 bytes and an Ethernet header are dropped as too_long",
                "make the way's mtu 1570",
                "(ip link set eth0 mtu 1430)",
            ],
        ),
        // The way is wide enough, and the port takes no more.
        ("remote = '198.51.100.1'", IN, &["(path mtu 9000)"], &[]),
        ("remote = '192.0.2.1'\nmtu = 1450", IN, &["mtu 1450"], &[]),
        (
            "remote = '192.0.2.1'",
            FILE,
            &["vxlan 7 with"],
            &[
                "frames of port \"f\"",
                "(mtu = 1450 in [ports.net], which drops them as too_long)",
            ],
        ),
        (
            "remote = '203.0.113.9'",
            IN,
            &["vxlan 7 with"],
            &[
                "port \"net\": there is no way to 203.0.113.9 now",
                "ip route",
            ],
        ),
        (
            "remote = '203.0.113.9'",
            OUT,
            &["vxlan 7 with 203.0.113.9 at port 4789, mtu 1500\n"],
            &[],
        ),
        ("", OUT, &["vxlan 7 at port 4789, mtu 1500\n"], &[]),
        (
            "local = '192.0.2.7'\nnetns = 'ids'",
            OUT,
            &[
                "vxlan 7 at 192.0.2.7:4789 in namespace ids, mtu 1500\n",
                "core 2",
                "core 3",
            ],
            &[],
        ),
    ];
    for (lines, rest, expected, note) in cases {
        let text = format!("[ports.net]\nkind = 'vxlan'\nvni = 7\n{lines}{rest}");
        let plan = plan(&text, "2-3", &FakeMachine).expect("a plan");
        let shown = plan.to_string();
        for fragment in expected.iter().chain(*note) {
            assert!(shown.contains(fragment), "{lines}: {fragment}\n{shown}");
        }
        let said = plan.notes.iter().any(|said| said.contains("port \"net\""));
        assert_eq!(said, !note.is_empty(), "{lines}\n{shown}");
        every_unit_belongs(lines, &plan);
    }
}

/// A socket for each worker that reaches the sinks, slots for the longest frames of the interface, and what is
/// said of it.
#[test]
fn copies_of_an_interface() {
    let af_packet = |interface: &str, more: &str| {
        format!("[ports.p]\nkind = 'af_packet'\ninterface = '{interface}'\n{more}\n")
    };
    let to_lc0 = "[ports.lc0]\nkind = 'tap'\n[[pipelines]]\nfrom = ['p']\nto = ['lc0']\n";
    let taken = "[ports.x]\nkind = 'af_xdp'\ninterface = 'eth0'\n[[pipelines]]\nfrom = ['x']\nto = ['lc0']\n";
    let cases: &[(&str, String, &str, &[&str])] = &[
        (
            "one worker, as it comes",
            af_packet("gw0", ""),
            "2",
            &[
                "  p    in       af_packet on gw0, both directions, mtu 1500, checksums auto, buffer 16MiB (ixgbe)\n",
                "core 2 (node 1)  polls p; writes lc0\n",
                "8192 slots of 2048 bytes",
            ],
        ),
        (
            "two workers",
            af_packet(
                "eth0",
                "direction = 'in'\npromiscuous = true\nbuffer = '512KiB'",
            ),
            "0-1",
            &[
                "on eth0, incoming only, promiscuous, mtu 1500, checksums auto, buffer 512KiB for each of 2 workers, by flow (ixgbe)",
                "core 0 (node 0)  polls p/0; writes lc0/0",
                "core 1 (node 0)  polls p/1; writes lc0/1",
            ],
        ),
        (
            "long frames",
            af_packet("jumbo0", ""),
            "2",
            &["mtu 3000", "8192 slots of 3136 bytes"],
        ),
        (
            "short ones, because it says so",
            af_packet("jumbo0", "mtu = 1500"),
            "2",
            &["mtu 1500", "8192 slots of 2048 bytes"],
        ),
        (
            "the loopback interface, whose frames are the longest",
            af_packet("lo", "").replace("[ports.p]", "[engine]\nslots = 256\n[ports.p]"),
            "2",
            &["mtu 65536", "256 slots of 65664 bytes"],
        ),
        (
            "all of them",
            af_packet("any", "netns = 'ids'"),
            "2",
            &["af_packet on all interfaces in namespace ids, both directions, mtu 1500"],
        ),
        (
            "what XDP takes is not copied",
            af_packet("eth0", "") + taken,
            "2",
            &[
                "note: port \"p\" gets no copy of the frames of \"eth0\" that port \"x\" takes: XDP takes them first",
            ],
        ),
        (
            "the same name elsewhere is another interface",
            af_packet("veth1", "netns = 'ids'") + &taken.replace("eth0", "eth1"),
            "2",
            &["af_packet on veth1 in namespace ids"],
        ),
    ];
    for (what, text, cores, lines) in cases {
        let plan = plan(&format!("{text}{to_lc0}"), cores, &FakeMachine)
            .unwrap_or_else(|errors| panic!("{what}: {errors:?}"));
        for line in *lines {
            let shown = plan.to_string();
            assert!(shown.contains(line), "{what}: {line:?} is not in\n{shown}");
        }
        let shown = plan.to_string();
        assert_eq!(
            shown.contains("gets no copy"),
            *what == "what XDP takes is not copied",
            "{shown}"
        );
    }
}

/// Datagrams that leave by an interface whose frames they are made of.
#[test]
fn vxlan_ports_that_hear_themselves() {
    const TCP: &str = "[policies.w]\nmode = 'filtered'\nallow = [{ proto = 'tcp' }]";
    const DNS: &str = "[policies.w]\nmode = 'filtered'\nallow = [{ proto = 'udp', ports = '53' }]";
    const UDP: &str =
        "[policies.w]\nmode = 'filtered'\nallow = [{ proto = 'udp', to = '198.51.100.0/24' }]";
    const AWAY: &str =
        "[policies.w]\nmode = 'filtered'\nallow = [{ proto = 'udp', to = '10.0.0.0/8' }]";
    const ALL: &str = "[policies.w]\nmode = 'direct'";
    for (copied, policy, told) in [
        ("interface = 'gw0'", "", true),
        ("interface = 'any'", "", true),
        ("interface = 'gw0'\ndirection = 'in'", "", false),
        ("interface = 'eth0'", "", false),
        ("interface = 'any'\nnetns = 'ids'", "", false),
        ("interface = 'gw0'", ALL, true),
        ("interface = 'gw0'", UDP, true),
        ("interface = 'gw0'", TCP, false),
        ("interface = 'gw0'", DNS, false),
        ("interface = 'gw0'", AWAY, false),
    ] {
        let judged = match policy {
            "" => "",
            _ => "policy = 'w'\n",
        };
        let text = format!(
            "[ports.net]\nkind = 'vxlan'\nvni = 7\nremote = '198.51.100.1'\n[ports.p]\nkind = 'af_packet'\n{copied}\n{policy}\n[[pipelines]]\nfrom = ['p']\n{judged}to = ['net']"
        );
        let plan = plan(&text, "2", &FakeMachine).expect("a plan");
        let words =
            "port \"net\": what it sends to 198.51.100.1 leaves by gw0, where port \"p\" copies it";
        let said = plan.notes.iter().any(|note| note.contains(words));
        assert_eq!(said, told, "{copied} {policy}: {:?}", plan.notes);
    }
}

/// What is said of how flows come to the queues of an interface: in the port's line, and in notes.
#[test]
fn how_flows_are_spread_and_what_does_not_suit_that() {
    const PORTS: &str = "TCP by addresses and ports, UDP by addresses";
    for (interface, more, cores, line, notes) in [
        ("one", "", "0", "(ixgbe, mtu 1500)", &[][..]),
        ("rss4", "", "0-3", "RSS over queues 0-3, TCP by", &[]),
        ("rss4", "", "0-3", PORTS, &[]),
        (
            "rss4",
            "",
            "0-1",
            PORTS,
            &[
                "port \"p\": 4 queues of rss4 on 2 cores, each with memory of its own; give it more cores (--cores), or run: ethtool -L rss4 combined 2",
            ],
        ),
        (
            "rss4",
            "queues = [0, 1]",
            "0-1",
            PORTS,
            &[
                "port \"p\": frames that rss4 receives on queues 2-3 pass it by, on to the host; set queues = \"all\", or run: ethtool -X rss4 equal 2",
            ],
        ),
        (
            "rss4",
            "queues = [1, 3]",
            "0-1",
            PORTS,
            &[
                "receives on queues 0,2 pass it by, on to the host; set queues = \"all\", or run: ethtool -X rss4 weight 0 1 0 1",
            ],
        ),
        (
            "rss2",
            "",
            "0-3",
            "RSS over queues 0-1",
            &["port \"p\": RSS of rss2 sends nothing to queues 2-3; run: ethtool -X rss2 equal 4"],
        ),
        ("rss2", "queues = [0, 1]", "0-1", "RSS over queues 0-1", &[]),
        // A rule may send a flow to any queue.
        ("ruled", "", "0-3", "and 3 ntuple rules", &[]),
        (
            "ruled",
            "queues = [0, 1]",
            "0-1",
            "and 3 ntuple rules",
            &["on queues 2-3 pass it by"],
        ),
        (
            "quad",
            "queues = [0, 1, 2]",
            "0-2",
            "its driver does not tell how flows are spread",
            &[
                "receives on queue 3 pass it by, on to the host; set queues = \"all\", or run: ethtool -L quad combined 3",
            ],
        ),
        (
            "wide",
            "queues = [0]",
            "0",
            "its peer's transmit queue decides the queue",
            &[
                "on queue 1 pass it by, on to the host; set queues = \"all\", or run: ethtool -L wide rx 1 tx 1",
            ],
        ),
    ] {
        let text = format!(
            "[ports.p]\nkind = \"af_xdp\"\ninterface = \"{interface}\"\n{more}\n[ports.lc0]\nkind = \"tap\"\n\
             [[pipelines]]\nfrom = [\"p\"]\nto = [\"lc0\"]\n"
        );
        let plan = plan(&text, cores, &FakeMachine).expect("a plan");
        let shown = plan.to_string();
        assert!(shown.contains(line), "{interface} {more}: {line}\n{shown}");
        let of_port = plan.notes.iter().filter(|note| note.starts_with("port"));
        let said: Vec<&String> = of_port.collect();
        assert_eq!(said.len(), notes.len(), "{interface} {more}\n{shown}");
        for (said, expected) in said.iter().zip(notes) {
            assert!(said.contains(expected), "{interface} {more}\n{said}");
        }
    }
    // A sink only sends.
    let text = "[ports.p]\nkind = \"af_xdp\"\ninterface = \"rss4\"\nqueues = [0]\n[ports.s]\nkind = \"pcap\"\n\
                path = \"sample.pcapng\"\n[[pipelines]]\nfrom = [\"s\"]\nto = [\"p\"]\n";
    let plan = plan(text, "0", &FakeMachine).expect("a plan");
    assert!(plan.notes.is_empty(), "{plan}");
}
