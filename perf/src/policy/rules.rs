//! Rules by the thousand that look random and are the same in every run, and frames that they allow or not.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use dataplane::{
    packet::{Headers, Network, protocol, tcp_flags},
    policy::{PortRange, Protocol, Rule},
};
use ipnet::{IpNet, Ipv4Net};

/// Numbers that look random (splitmix64).
pub(super) fn scattered(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// What rules look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A host and a port each.
    Exact,
    /// A prefix of 12 to 28 bits and a port each.
    Cidr,
    /// A prefix of 12 to 28 bits and a range of ports each.
    Ranges,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Exact => "exact",
            Kind::Cidr => "CIDR",
            Kind::Ranges => "CIDR and port ranges",
        })
    }
}

/// So many rules.
pub(super) fn rules(kind: Kind, count: usize) -> Vec<Rule> {
    scattered(1)
        .take(count)
        .map(|random| {
            let address = Ipv4Addr::from_bits(random as u32);
            let length = 12 + (random >> 32) as u8 % 17;
            let first = 1 + (random >> 40) as u16 % 30_000;
            let (to, ports) = match kind {
                Kind::Exact => (
                    IpNet::from(IpAddr::from(address)),
                    PortRange::single((random >> 32) as u16 | 1),
                ),
                Kind::Cidr => (
                    Ipv4Net::new_assert(address, length).trunc().into(),
                    PortRange::single(first),
                ),
                Kind::Ranges => {
                    let last = first + 1 + (random >> 56) as u16 * 64;
                    let net = Ipv4Net::new_assert(address, length).trunc();
                    (net.into(), PortRange { first, last })
                }
            };
            Rule {
                protocol: Some(Protocol::Tcp),
                to: Some(to),
                to_ports: vec![ports],
                ..Rule::default()
            }
        })
        .collect()
}

/// Which frames are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    /// Such as a rule allows.
    Hit,
    /// To a rule's destination, but to the port below: nearly all are allowed by no rule.
    Miss,
    /// Either, at random: what branches cannot predict.
    Mixed,
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Traffic::Hit => "hit",
            Traffic::Miss => "miss",
            Traffic::Mixed => "mixed",
        })
    }
}

/// A frame to a random rule's destination.
pub(super) fn frame(rules: &[Rule], random: u64, traffic: Traffic) -> Headers {
    let hit = match traffic {
        Traffic::Hit => true,
        Traffic::Miss => false,
        Traffic::Mixed => random >> 63 == 1,
    };
    let rule = &rules[random as usize % rules.len()];
    let port = rule.to_ports[0].first;
    let dst = match rule.to {
        Some(IpNet::V4(net)) => {
            let host = u32::from(net.hostmask()) & (random >> 32) as u32;
            u128::from(net.addr().to_bits() | host)
        }
        _ => 0,
    };
    Headers {
        src: u128::from(random >> 32) & 0xffff_ffff,
        dst,
        src_port: random as u16,
        dst_port: if hit { port } else { port - 1 },
        protocol: protocol::TCP,
        tcp_flags: tcp_flags::ACK,
        network: Network::V4,
        ..Headers::default()
    }
}

/// What an exact rule or a frame to one is looked up by: address, port and protocol in one number above 0.
pub(super) fn key(headers: &Headers) -> u64 {
    (headers.dst as u64) << 32 | u64::from(headers.dst_port) << 16 | u64::from(headers.protocol)
}

#[cfg(test)]
mod tests {
    use dataplane::policy::{PolicySpec, Reason, Snapshot, Verdict, judge};

    use super::*;

    #[test]
    fn hits_are_allowed_and_misses_hardly_ever() {
        for kind in [Kind::Exact, Kind::Cidr, Kind::Ranges] {
            let spec = PolicySpec {
                rules: rules(kind, 100),
                ..PolicySpec::default()
            };
            let snapshot = Snapshot::compile(&spec, 1).expect("rules that compile");
            let allowed = |traffic| {
                let frames: Vec<_> = scattered(2)
                    .take(1000)
                    .map(|random| frame(&spec.rules, random, traffic))
                    .collect();
                let mut verdicts = vec![Verdict::Drop(Reason::Shutdown); frames.len()];
                judge(&frames, &snapshot, &mut verdicts);
                verdicts.iter().filter(|v| **v == Verdict::Forward).count()
            };
            assert_eq!(allowed(Traffic::Hit), 1000, "{kind}");
            assert!(allowed(Traffic::Miss) < 200, "{kind}");
            assert!((300..800).contains(&allowed(Traffic::Mixed)), "{kind}");
        }
    }
}
