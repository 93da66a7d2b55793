//! Policies of many rules: still right, and linear in memory.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{filtered, model, udp};
use crate::packet::{Headers, Network, protocol};
use crate::policy::{PortRange, Protocol, Reason, Rule, Snapshot, Verdict, judge};

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
