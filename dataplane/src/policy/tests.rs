//! The policy as a whole: a table of rules and frames, and a model that reads the rules one by one,
//! written from what the configuration promises and knowing nothing of how they are compiled.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::packet::{Fault, Fragment, Headers, Network, ethertype, protocol, tcp_flags};

fn ip(src: &str, dst: &str, protocol: u8) -> Headers {
    let number = |text: &str| match text.parse::<IpAddr>().unwrap() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let v6 = dst.contains(':');
    Headers {
        src: number(src),
        dst: number(dst),
        protocol,
        ethertype: if v6 { ethertype::IPV6 } else { ethertype::IPV4 },
        network: if v6 { Network::V6 } else { Network::V4 },
        ..Headers::default()
    }
}

fn tcp(src: &str, src_port: u16, dst: &str, dst_port: u16, flags: u8) -> Headers {
    Headers {
        src_port,
        dst_port,
        tcp_flags: flags,
        ..ip(src, dst, protocol::TCP)
    }
}

fn udp(src: &str, src_port: u16, dst: &str, dst_port: u16) -> Headers {
    Headers {
        src_port,
        dst_port,
        ..ip(src, dst, protocol::UDP)
    }
}

fn icmp(src: &str, dst: &str, kind: u8) -> Headers {
    let protocol = if dst.contains(':') {
        protocol::ICMPV6
    } else {
        protocol::ICMP
    };
    Headers {
        icmp_type: kind,
        ..ip(src, dst, protocol)
    }
}

fn arp() -> Headers {
    Headers {
        network: Network::Arp,
        ethertype: ethertype::ARP,
        ..Headers::default()
    }
}

/// `tcp 10.0.0.0/8:1000 > 10.0.0.1:80,443 replies`: a short hand for the tables below.
fn rule(text: &str) -> Rule {
    let mut rule = Rule::default();
    let mut left = true;
    for word in text.split_whitespace() {
        if let Ok(protocol) = Protocol::parse(word) {
            rule.protocol = Some(protocol);
        } else if let Ok(kind) = IcmpKind::parse(word) {
            rule.icmp = Some(kind);
        } else if word == "replies" {
            rule.replies = true;
        } else if word == ">" {
            left = false;
        } else {
            let (network, ports) = word.split_once('@').unwrap_or((word, ""));
            let network = (network != "*").then(|| parse_network(network).unwrap());
            let ports = if ports.is_empty() {
                Vec::new()
            } else {
                PortRange::parse_list(ports).unwrap()
            };
            if left {
                (rule.from, rule.from_ports) = (network, ports);
            } else {
                (rule.to, rule.to_ports) = (network, ports);
            }
        }
    }
    rule
}

fn filtered(rules: Vec<Rule>) -> PolicySpec {
    PolicySpec {
        rules,
        ..PolicySpec::default()
    }
}

fn verdict(spec: &PolicySpec, headers: Headers) -> Verdict {
    let snapshot = Snapshot::compile(spec, 1).unwrap();
    let mut verdicts = [Verdict::Drop(Reason::Shutdown)];
    judge(&[headers], &snapshot, &mut verdicts);
    verdicts[0]
}

#[test]
fn rules_allow_what_they_say_and_nothing_else() {
    const SYN: u8 = tcp_flags::SYN;
    const ACK: u8 = tcp_flags::ACK;
    const RST: u8 = tcp_flags::RST;
    let (a, b, c) = ("10.0.0.1", "10.0.0.2", "192.0.2.1");
    let (a6, b6) = ("2001:db8::1", "2001:db8::2");
    // Rules, a frame, whether it passes.
    let cases: &[(&[&str], Headers, bool)] = &[
        (&[], tcp(a, 1000, b, 80, SYN), false),
        // A rule without fields: the three protocols of both families.
        (&[""], tcp(a, 1000, b, 80, SYN), true),
        (&[""], udp(a6, 1000, b6, 80), true),
        (&[""], icmp(a6, b6, 200), true),
        // One exact endpoint.
        (&["tcp > 10.0.0.2@80"], tcp(a, 1000, b, 80, SYN), true),
        (&["tcp > 10.0.0.2@80"], tcp(a, 1000, b, 81, SYN), false),
        (&["tcp > 10.0.0.2@80"], tcp(a, 1000, c, 80, SYN), false),
        (&["tcp > 10.0.0.2@80"], udp(a, 1000, b, 80), false),
        (&["tcp > 10.0.0.2@80"], tcp(b, 80, a, 1000, ACK), false),
        (&["tcp > 2001:db8::2@80"], tcp(a6, 1, b6, 80, SYN), true),
        (&["tcp > 2001:db8::2@80"], tcp(a6, 1, a6, 80, SYN), false),
        (&["tcp > 2001:db8::2@80"], udp(a6, 1, b6, 80), false),
        // An IPv6 address whose number is that of an IPv4 one.
        (
            &["tcp > 10.0.0.2@80"],
            tcp(a6, 1, "::a00:2", 80, SYN),
            false,
        ),
        (&["tcp > ::a00:2@80"], tcp(a, 1, b, 80, SYN), false),
        (
            &["tcp * > 10.0.0.0/8"],
            tcp(a6, 1, "::a00:2", 80, SYN),
            false,
        ),
        (
            &["tcp 10.0.0.0/8@1 > *@80"],
            tcp("::a00:1", 1, b6, 80, SYN),
            false,
        ),
        // Ports without a protocol: TCP and UDP, not ICMP.
        (&["* > *@53"], udp(a, 1000, b, 53), true),
        (&["* > *@53"], tcp(a6, 1000, b6, 53, SYN), true),
        (&["* > *@53"], icmp(a, b, 8), false),
        (&["* > *@1-5"], icmp(a, b, 8), false),
        // Networks, ranges, sources.
        (
            &["udp 10.0.0.0/24 > 192.0.2.0/24@50-60"],
            udp(a, 9, c, 60),
            true,
        ),
        (
            &["udp 10.0.0.0/24 > 192.0.2.0/24@50-60"],
            udp(a, 9, c, 61),
            false,
        ),
        (
            &["udp 10.0.0.0/24 > 192.0.2.0/24@50-60"],
            udp(c, 9, c, 60),
            false,
        ),
        (
            &["udp 10.0.0.0/24 > 192.0.2.0/24@50-60"],
            udp(a, 9, b, 60),
            false,
        ),
        (&["udp 10.0.0.1 > *"], udp(a, 9, c, 60), true),
        (&["udp 10.0.0.1 > *"], udp(b, 9, a, 60), false),
        (&["udp *@67 > *@68"], udp(b, 67, a, 68), true),
        (&["udp *@67 > *@68"], udp(b, 68, a, 68), false),
        (&["udp *@67 > *@68"], udp(b, 67, a, 67), false),
        (&["tcp *@20 > *"], tcp(b, 20, a, 9, SYN), true),
        (&["tcp *@20 > *"], tcp(b, 21, a, 9, ACK), false),
        // A union: what one rule does not allow, another may.
        (
            &["tcp > 10.0.0.0/8@80", "tcp > 10.0.0.2@81-99"],
            tcp(a, 9, b, 80, SYN),
            true,
        ),
        (
            &["tcp > 10.0.0.2@81-99", "tcp > 10.0.0.0/8@80"],
            tcp(a, 9, b, 81, SYN),
            true,
        ),
        (
            &["tcp > 10.0.0.0/8@80", "tcp > 10.0.0.2@81-99"],
            tcp(a, 9, a, 81, SYN),
            false,
        ),
        // Replies: TCP only with ACK or RST.
        (
            &["tcp > 10.0.0.2@80 replies"],
            tcp(b, 80, a, 9, SYN | ACK),
            true,
        ),
        (&["tcp > 10.0.0.2@80 replies"], tcp(b, 80, a, 9, RST), true),
        (&["tcp > 10.0.0.2@80 replies"], tcp(b, 80, a, 9, SYN), false),
        (&["tcp > 10.0.0.2@80 replies"], tcp(b, 80, a, 9, 0), false),
        (&["tcp > 10.0.0.2@80 replies"], tcp(b, 81, a, 9, ACK), false),
        (&["tcp > 10.0.0.2@80 replies"], tcp(a, 80, b, 9, ACK), false),
        (&["tcp > 10.0.0.2@80 replies"], udp(b, 80, a, 9), false),
        (
            &["tcp > 2001:db8::2@80 replies"],
            tcp(b6, 80, a6, 9, ACK),
            true,
        ),
        (
            &["tcp > 2001:db8::2@80 replies"],
            tcp(b6, 80, a6, 9, SYN),
            false,
        ),
        (&["tcp > *@80 replies"], tcp(b6, 80, a6, 9, ACK), true),
        (&["tcp > *@80 replies"], tcp(b6, 80, a6, 9, SYN), false),
        (
            &["tcp 10.0.0.1 > 10.0.0.0/30@80 replies"],
            tcp(b, 80, a, 9, ACK),
            true,
        ),
        (
            &["tcp 10.0.0.1 > 10.0.0.0/30@80 replies"],
            tcp(b, 80, b, 9, ACK),
            false,
        ),
        (
            &["udp 10.0.0.1@5 > 10.0.0.2@6 replies"],
            udp(b, 6, a, 5),
            true,
        ),
        (
            &["udp 10.0.0.1@5 > 10.0.0.2@6 replies"],
            udp(b, 6, a, 6),
            false,
        ),
        (&["udp > 10.0.0.2@53 replies"], udp(b, 53, a, 9), true),
        (&["udp > 10.0.0.2@53"], udp(b, 53, a, 9), false),
        // ICMP, by message and family.
        (&["icmp echo > 10.0.0.0/8"], icmp(a, b, 8), true),
        (&["icmp echo > 10.0.0.0/8"], icmp(a, b, 0), false),
        (&["icmp echo > 10.0.0.2 replies"], icmp(b, a, 0), true),
        (&["icmp echo > 10.0.0.2 replies"], icmp(a, c, 0), false),
        (&["icmp echo > 10.0.0.2 replies"], icmp(b, a, 8), false),
        (&["icmp > 10.0.0.2 replies"], icmp(b, a, 0), true),
        (&["icmp > 10.0.0.2 replies"], icmp(b, a, 3), false),
        (&["icmp > 10.0.0.2"], icmp(a, b, 5), true),
        (&["icmp echo"], icmp(a6, b6, 128), true),
        (&["icmp echo"], icmp(a6, b6, 8), false),
        (&["icmp echo-reply"], icmp(a6, b6, 129), true),
        (&["icmp unreachable"], icmp(a6, b6, 1), true),
        (&["icmp unreachable"], icmp(a6, b6, 2), true),
        (&["icmp unreachable"], icmp(a, b, 3), true),
        (&["icmp time-exceeded"], icmp(a, b, 11), true),
        (&["icmp time-exceeded"], icmp(a6, b6, 3), true),
        // A redirect is no neighbour discovery, in either family.
        (&[], icmp(a6, b6, 137), false),
        (&["icmp"], icmp(a6, b6, 137), true),
    ];
    for (rules, headers, passes) in cases {
        let spec = filtered(rules.iter().map(|text| rule(text)).collect());
        let expected = if *passes {
            Verdict::Forward
        } else {
            Verdict::Drop(Reason::NotAllowed)
        };
        assert_eq!(verdict(&spec, *headers), expected, "{rules:?} {headers:?}");
    }
}

#[test]
fn the_frame_itself_is_judged_before_any_rule() {
    let (a, b) = ("10.0.0.1", "10.0.0.2");
    let sound = udp(a, 1, b, 2);
    let with = |change: fn(&mut Headers)| {
        let mut headers = sound;
        change(&mut headers);
        headers
    };
    let drop = Verdict::Drop;
    // A frame; the verdict under a policy that allows everything that rules can speak of.
    let cases = [
        (sound, Verdict::Forward),
        (
            with(|h| h.fault = Some(Fault::Truncated)),
            drop(Reason::Truncated),
        ),
        (
            with(|h| h.fault = Some(Fault::Length)),
            drop(Reason::BadLength),
        ),
        (
            with(|h| h.fault = Some(Fault::Header)),
            drop(Reason::BadHeader),
        ),
        (
            with(|h| h.fault = Some(Fault::TooDeep)),
            drop(Reason::TooDeep),
        ),
        (
            with(|h| h.fragment = Fragment::Later),
            drop(Reason::Fragment),
        ),
        (with(|h| h.fragment = Fragment::First), Verdict::Forward),
        (with(|h| h.fragment = Fragment::Atomic), Verdict::Forward),
        (
            with(|h| h.network = Network::Other),
            drop(Reason::UnknownEthertype),
        ),
        (with(|h| h.protocol = 47), drop(Reason::UnknownProtocol)),
        (
            with(|h| h.protocol = protocol::ICMPV6),
            drop(Reason::UnknownProtocol),
        ),
        (
            ip("::1", "::2", protocol::ICMP),
            drop(Reason::UnknownProtocol),
        ),
        (
            with(|h| (h.vlan_tags, h.vlan_id) = (2, 42)),
            Verdict::Forward,
        ),
        (
            Headers {
                fault: Some(Fault::Truncated),
                ..arp()
            },
            drop(Reason::Truncated),
        ),
        (Headers::default(), drop(Reason::UnknownEthertype)),
    ];
    let open = filtered(vec![Rule::default()]);
    let direct = PolicySpec {
        mode: Mode::Direct,
        ..PolicySpec::default()
    };
    for (headers, expected) in cases {
        assert_eq!(verdict(&open, headers), expected, "{headers:?}");
        assert_eq!(verdict(&direct, headers), Verdict::Forward, "{headers:?}");
    }
}

#[test]
fn neighbours_are_found_as_the_policy_says_whatever_the_rules() {
    for arp_passes in [false, true] {
        for rules in [vec![], vec![Rule::default()]] {
            let spec = PolicySpec {
                arp: arp_passes,
                ..filtered(rules)
            };
            let expected = if arp_passes {
                Verdict::Forward
            } else {
                Verdict::Drop(Reason::Arp)
            };
            assert_eq!(verdict(&spec, arp()), expected);
            for kind in 133..=136 {
                assert_eq!(verdict(&spec, icmp("fe80::1", "ff02::1", kind)), expected);
            }
        }
    }
}

#[test]
fn slices_of_different_length_are_judged_as_far_as_both_go() {
    let snapshot = Snapshot::compile(&filtered(vec![rule("udp > 10.0.0.2@53")]), 1).unwrap();
    let untouched = Verdict::Drop(Reason::Shutdown);
    let headers = [udp("10.0.0.1", 1, "10.0.0.2", 53); 200];
    for (frames, room) in [
        (0, 0),
        (0, 3),
        (3, 0),
        (1, 2),
        (2, 1),
        (63, 64),
        (64, 64),
        (65, 66),
        (200, 200),
    ] {
        let mut verdicts = vec![untouched; room];
        judge(&headers[..frames], &snapshot, &mut verdicts);
        let judged = frames.min(room);
        assert!(
            verdicts[..judged]
                .iter()
                .all(|&verdict| verdict == Verdict::Forward)
        );
        assert!(
            verdicts[judged..]
                .iter()
                .all(|&verdict| verdict == untouched)
        );
    }
}

#[test]
fn a_bad_rule_is_named_by_place_and_text() {
    let spec = filtered(vec![
        Rule::default(),
        Rule {
            icmp: Some(IcmpKind::Echo),
            ..Rule::default()
        },
    ]);
    assert_eq!(
        Snapshot::compile(&spec, 1).unwrap_err().to_string(),
        "rule 2 of the policy, { icmp = \"echo\" }: `icmp` needs proto = \"icmp\"; set it, or leave `icmp` out"
    );
}

/// The rules as the configuration promises them, one by one.
mod model {
    use super::*;

    pub(super) fn allows(rules: &[Rule], frame: &Headers) -> bool {
        rules
            .iter()
            .any(|rule| forward(rule, frame) || rule.replies && mirrored(rule, frame))
    }

    fn holds(network: Option<IpNet>, address: u128, family: Network) -> bool {
        network.is_none_or(|network| match (network, family) {
            (IpNet::V4(network), Network::V4) => {
                network.contains(&std::net::Ipv4Addr::from_bits(address as u32))
            }
            (IpNet::V6(network), Network::V6) => {
                network.contains(&std::net::Ipv6Addr::from_bits(address))
            }
            _ => false,
        })
    }

    fn any_of(ports: &[PortRange], port: u16) -> bool {
        ports.is_empty()
            || ports
                .iter()
                .any(|range| range.first <= port && port <= range.last)
    }

    fn protocol_of(frame: &Headers) -> Protocol {
        match frame.protocol {
            protocol::TCP => Protocol::Tcp,
            protocol::UDP => Protocol::Udp,
            _ => Protocol::Icmp,
        }
    }

    fn kind_of(frame: &Headers) -> Option<IcmpKind> {
        match (frame.network, frame.icmp_type) {
            (Network::V4, 8) | (Network::V6, 128) => Some(IcmpKind::Echo),
            (Network::V4, 0) | (Network::V6, 129) => Some(IcmpKind::EchoReply),
            (Network::V4, 3) | (Network::V6, 1 | 2) => Some(IcmpKind::Unreachable),
            (Network::V4, 11) | (Network::V6, 3) => Some(IcmpKind::TimeExceeded),
            _ => None,
        }
    }

    fn forward(rule: &Rule, frame: &Headers) -> bool {
        let protocol = protocol_of(frame);
        rule.protocol.is_none_or(|named| named == protocol)
            && holds(rule.from, frame.src, frame.network)
            && holds(rule.to, frame.dst, frame.network)
            && match protocol {
                Protocol::Icmp => {
                    rule.from_ports.is_empty()
                        && rule.to_ports.is_empty()
                        && (rule.icmp.is_none() || rule.icmp == kind_of(frame))
                }
                _ => {
                    any_of(&rule.from_ports, frame.src_port)
                        && any_of(&rule.to_ports, frame.dst_port)
                }
            }
    }

    fn mirrored(rule: &Rule, frame: &Headers) -> bool {
        let turned = Headers {
            src: frame.dst,
            dst: frame.src,
            src_port: frame.dst_port,
            dst_port: frame.src_port,
            ..*frame
        };
        match protocol_of(frame) {
            Protocol::Tcp => {
                forward(rule, &turned) && frame.tcp_flags & (tcp_flags::ACK | tcp_flags::RST) != 0
            }
            Protocol::Udp => forward(rule, &turned),
            // The frame is the reply to an echo that the rule admits.
            Protocol::Icmp => {
                kind_of(frame) == Some(IcmpKind::EchoReply)
                    && forward(
                        rule,
                        &Headers {
                            icmp_type: if frame.network == Network::V4 { 8 } else { 128 },
                            ..turned
                        },
                    )
            }
        }
    }
}

/// Addresses from a small universe with its ends, so that prefixes nest and frames hit.
fn address(v6: bool) -> impl Strategy<Value = u128> {
    let low = prop_oneof![0u128..12, Just(0x40), Just(0xff)];
    let (base, top) = if v6 {
        (0x2001_0db8 << 96, u128::MAX)
    } else {
        (0x0a00_0000, u128::from(u32::MAX))
    };
    prop_oneof![
        8 => low.clone().prop_map(move |low| base | low),
        2 => low.prop_map(move |low| base | low << 8),
        1 => Just(0),
        1 => Just(top),
    ]
}

fn network(v6: bool) -> impl Strategy<Value = IpNet> {
    let lengths = if v6 {
        prop::sample::select(vec![0, 1, 32, 119, 124, 126, 127, 128, 128])
    } else {
        prop::sample::select(vec![0, 1, 8, 23, 28, 30, 31, 32, 32])
    };
    (address(v6), lengths).prop_map(move |(address, length)| {
        let address: IpAddr = if v6 {
            std::net::Ipv6Addr::from_bits(address).into()
        } else {
            std::net::Ipv4Addr::from_bits(address as u32).into()
        };
        IpNet::new(address, length).unwrap().trunc()
    })
}

fn ports() -> impl Strategy<Value = Vec<PortRange>> {
    let port = || prop_oneof![1u16..8, Just(u16::MAX)];
    let range = (port(), port()).prop_map(|(a, b)| PortRange {
        first: a.min(b),
        last: a.max(b),
    });
    let single = port().prop_map(PortRange::single);
    prop_oneof![
        3 => Just(Vec::new()),
        3 => prop::collection::vec(single, 1..3),
        2 => prop::collection::vec(range, 1..3),
        // Many of them: searched, and from some number on a bitmap.
        1 => (2u16..300).prop_map(|n| (0..n).map(|i| PortRange::single(1 + 2 * i)).collect()),
    ]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let networks = any::<bool>().prop_flat_map(|v6| {
        (
            prop::option::weighted(0.4, network(v6)),
            prop::option::weighted(0.7, network(v6)),
        )
    });
    let protocol = prop::option::weighted(0.8, prop::sample::select(Protocol::ALL.to_vec()));
    let kind = prop::option::of(prop::sample::select(IcmpKind::ALL.to_vec()));
    let from_ports = prop_oneof![4 => Just(Vec::new()), 1 => ports()];
    (networks, protocol, kind, from_ports, ports(), any::<bool>()).prop_map(
        |((from, to), protocol, icmp, from_ports, to_ports, replies)| {
            let is_icmp = protocol == Some(Protocol::Icmp);
            let icmp = icmp.filter(|_| is_icmp);
            let keep = |ports: Vec<PortRange>| if is_icmp { Vec::new() } else { ports };
            Rule {
                protocol,
                from,
                from_ports: keep(from_ports),
                to,
                to_ports: keep(to_ports),
                icmp,
                replies: replies && matches!(icmp, None | Some(IcmpKind::Echo)),
            }
        },
    )
}

fn any_frame() -> impl Strategy<Value = Headers> {
    let port = || prop_oneof![6 => 1u16..8, 1 => Just(u16::MAX), 1 => 1u16..620];
    any::<bool>().prop_flat_map(move |v6| {
        let kinds: Vec<u8> = if v6 {
            vec![128, 129, 1, 2, 3, 137]
        } else {
            vec![8, 0, 3, 11, 5]
        };
        let flags = prop::sample::select(vec![2u8, 0x12, 0x10, 4, 0]);
        (
            (address(v6), address(v6), port(), port()),
            0u8..3,
            prop::sample::select(kinds),
            flags,
        )
            .prop_map(
                move |((src, dst, src_port, dst_port), protocol, kind, flags)| {
                    let base = Headers {
                        src,
                        dst,
                        network: if v6 { Network::V6 } else { Network::V4 },
                        ..Headers::default()
                    };
                    match protocol {
                        0 => Headers {
                            protocol: protocol::TCP,
                            src_port,
                            dst_port,
                            tcp_flags: flags,
                            ..base
                        },
                        1 => Headers {
                            protocol: protocol::UDP,
                            src_port,
                            dst_port,
                            ..base
                        },
                        _ => Headers {
                            protocol: if v6 { protocol::ICMPV6 } else { protocol::ICMP },
                            icmp_type: kind,
                            ..base
                        },
                    }
                },
            )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn the_snapshot_agrees_with_the_rules_read_one_by_one(
        rules in prop::collection::vec(any_rule(), 0..40),
        frames in prop::collection::vec(any_frame(), 0..200),
    ) {
        let snapshot = Snapshot::compile(&filtered(rules.clone()), 1).unwrap();
        let mut verdicts = vec![Verdict::Drop(Reason::Shutdown); frames.len()];
        judge(&frames, &snapshot, &mut verdicts);
        for (frame, verdict) in frames.iter().zip(verdicts) {
            // The table above covers neighbour discovery; here every frame is the rules' to judge.
            let expected = if model::allows(&rules, frame) {
                Verdict::Forward
            } else {
                Verdict::Drop(Reason::NotAllowed)
            };
            prop_assert_eq!(verdict, expected, "{:?}", frame);
        }
        prop_assert_eq!(snapshot.rules(), &rules[..]);
    }

    #[test]
    fn few_rules_agree_with_the_model_frame_by_frame(
        rules in prop::collection::vec(any_rule(), 1..4),
        frames in prop::collection::vec(any_frame(), 100),
    ) {
        let spec = filtered(rules);
        let snapshot = Snapshot::compile(&spec, 1).unwrap();
        for frame in &frames {
            let mut verdict = [Verdict::Drop(Reason::Shutdown)];
            judge(std::slice::from_ref(frame), &snapshot, &mut verdict);
            prop_assert_eq!(
                verdict[0] == Verdict::Forward,
                model::allows(&spec.rules, frame),
                "{:?}", frame
            );
        }
    }

    #[test]
    fn no_headers_make_judging_panic(
        rules in prop::collection::vec(any_rule(), 0..10),
        words in prop::collection::vec(any::<(u128, u128, u16, u16, u8, u8, u8)>(), 0..150),
        shape in prop::collection::vec((0u8..4, 0u8..4, 0u8..8), 150),
    ) {
        let frames: Vec<_> = words.into_iter().zip(shape).map(
            |((src, dst, src_port, dst_port, protocol, tcp_flags, icmp_type), (network, fragment, fault))| Headers {
                src, dst, src_port, dst_port, tcp_flags, icmp_type,
                protocol: [protocol, protocol::TCP, protocol::UDP, protocol::ICMPV6][usize::from(protocol) % 4],
                network: [Network::Other, Network::V4, Network::V6, Network::Arp][usize::from(network)],
                fragment: [Fragment::None, Fragment::First, Fragment::Atomic, Fragment::Later][usize::from(fragment)],
                fault: [Some(Fault::Truncated), Some(Fault::Length), Some(Fault::Header), Some(Fault::TooDeep)]
                    .get(usize::from(fault)).copied().flatten(),
                ..Headers::default()
            },
        ).collect();
        let untouched = Verdict::Drop(Reason::Shutdown);
        let mut verdicts = vec![untouched; frames.len()];
        let snapshot = Snapshot::compile(&filtered(rules), 1).unwrap();
        judge(&frames, &snapshot, &mut verdicts);
        prop_assert!(!verdicts.contains(&untouched));
    }
}

/// Numbers that look random and are the same in every run.
fn scattered(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

#[test]
fn a_hundred_thousand_rules_of_every_sort() {
    // Exact endpoints, networks with ranges, and sources, a third each; probed at and beside them.
    let rules: Vec<Rule> = scattered(1)
        .take(100_000)
        .map(|random| {
            let address = std::net::Ipv4Addr::from_bits(random as u32);
            let length = match random % 3 {
                0 => 32,
                _ => 12 + (random >> 32) as u8 % 18,
            };
            let network = IpNet::new(address.into(), length).unwrap().trunc();
            let port = 1 + (random >> 40) as u16 % 60_000;
            let source = random % 3 == 2;
            Rule {
                protocol: Some(Protocol::Tcp),
                to: (!source).then_some(network),
                from: source.then_some(network),
                to_ports: vec![PortRange {
                    first: port,
                    last: port + u16::from(length < 32) * 100,
                }],
                ..Rule::default()
            }
        })
        .collect();
    let snapshot = Snapshot::compile(&filtered(rules.clone()), 1).unwrap();
    // The rules are linear in memory, whatever nests in whatever.
    assert!(
        snapshot.memory_bytes() < 64 << 20,
        "{}",
        snapshot.memory_bytes()
    );

    let probes: Vec<_> = scattered(2)
        .zip(rules.iter().step_by(500))
        .flat_map(|(random, rule)| {
            let network = rule.to.or(rule.from).unwrap();
            let IpAddr::V4(inside) = network.addr() else {
                unreachable!()
            };
            let inside = u128::from(inside.to_bits());
            let elsewhere = u128::from(random as u32);
            let (src, dst) = if rule.to.is_some() {
                (elsewhere, inside)
            } else {
                (inside, elsewhere)
            };
            let hit = Headers {
                src,
                dst,
                dst_port: rule.to_ports[0].last,
                src_port: 9,
                protocol: protocol::TCP,
                network: Network::V4,
                ..Headers::default()
            };
            [
                (hit, true),
                (
                    Headers {
                        dst_port: hit.dst_port + 1,
                        ..hit
                    },
                    false,
                ),
                (
                    Headers {
                        dst: hit.dst ^ 1,
                        ..hit
                    },
                    false,
                ),
                (
                    Headers {
                        src: hit.src ^ 0x8000_0000,
                        ..hit
                    },
                    false,
                ),
            ]
        })
        .collect();
    let headers: Vec<_> = probes.iter().map(|&(headers, _)| headers).collect();
    let mut verdicts = vec![Verdict::Drop(Reason::Shutdown); headers.len()];
    judge(&headers, &snapshot, &mut verdicts);
    for ((headers, must_pass), verdict) in probes.into_iter().zip(verdicts) {
        let passes = verdict == Verdict::Forward;
        assert_eq!(passes, model::allows(&rules, &headers), "{headers:?}");
        assert!(passes || !must_pass, "{headers:?}");
    }
}

#[test]
fn nested_prefixes_with_many_ports_stay_linear_in_memory() {
    // One network with as many ranges as a bitmap has, and every host of it with a range of its own.
    let many = (0..200).map(|i| PortRange::single(1 + 2 * i)).collect();
    let wide = Rule {
        to: Some("10.0.0.0/8".parse().unwrap()),
        to_ports: many,
        ..Rule::default()
    };
    let hosts = (0..20_000u32).map(|host| Rule {
        to: Some(IpNet::from(IpAddr::from(std::net::Ipv4Addr::from_bits(
            0x0a00_0000 + 7 * host,
        )))),
        to_ports: vec![PortRange {
            first: 1000,
            last: 2000 + host as u16,
        }],
        ..Rule::default()
    });
    let spec = filtered(std::iter::once(wide).chain(hosts).collect());
    let snapshot = Snapshot::compile(&spec, 1).unwrap();
    assert!(
        snapshot.memory_bytes() < 4 << 20,
        "{}",
        snapshot.memory_bytes()
    );
    let host = "10.0.0.7";
    for (port, passes) in [
        (1, true),
        (2, false),
        (399, true),
        (400, false),
        (2001, true),
        (2002, false),
    ] {
        let mut verdicts = [Verdict::Drop(Reason::Shutdown)];
        judge(&[udp("192.0.2.1", 9, host, port)], &snapshot, &mut verdicts);
        assert_eq!(verdicts[0] == Verdict::Forward, passes, "{port}");
    }
}
