//! The policy as a whole: tables of rules, frames and verdicts. Beside them, properties against a model
//! (`properties`, `model`) and policies of many rules (`scale`).

mod model;
mod properties;
mod scale;

use std::net::IpAddr;

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
