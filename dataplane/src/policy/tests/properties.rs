//! Whatever the rules and the frames, the snapshot answers as the model does. Addresses and ports come
//! from small universes, so that prefixes nest and frames hit.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::{filtered, model};
use crate::packet::{Fault, Fragment, Headers, Network, protocol};
use crate::policy::{IcmpKind, PortRange, Protocol, Reason, Rule, Snapshot, Verdict, judge};

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
