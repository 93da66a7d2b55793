//! What a verdict costs, and what a policy costs to compile. One iteration judges a batch of 64 frames;
//! divan's "item" is one frame. Every batch is new and random, so that large tables miss the caches as
//! they do in use.

use std::net::Ipv4Addr;

use dataplane::packet::{Headers, Network, protocol, tcp_flags};
use dataplane::policy::{
    PolicySpec, PortRange, Protocol, Reason, Rule, Snapshot, Verdict, judge, parse_network,
};
use divan::Bencher;
use divan::counter::ItemsCount;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}

const BATCH: usize = 64;

/// Numbers that look random and are the same in every run (splitmix64).
fn scattered(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

fn tcp_rule(to: IpNet, ports: PortRange) -> Rule {
    Rule {
        protocol: Some(Protocol::Tcp),
        to: Some(to),
        to_ports: vec![ports],
        ..Rule::default()
    }
}

/// One host and one port each.
fn exact(rules: usize) -> Vec<Rule> {
    scattered(1)
        .take(rules)
        .map(|random| {
            let port = (random >> 32) as u16 | 1;
            let host = IpNet::from(std::net::IpAddr::from(Ipv4Addr::from_bits(random as u32)));
            tcp_rule(host, PortRange::single(port))
        })
        .collect()
}

/// Prefixes of 12 to 28 bits, each with a range of ports.
fn prefixes(rules: usize) -> Vec<Rule> {
    scattered(2)
        .take(rules)
        .map(|random| {
            let length = 12 + (random >> 32) as u8 % 17;
            let net = Ipv4Net::new_assert(Ipv4Addr::from_bits(random as u32), length).trunc();
            tcp_rule(net.into(), range(random))
        })
        .collect()
}

/// Prefixes of 32 to 64 bits under 2001::/16, each with a range of ports.
fn prefixes6(rules: usize) -> Vec<Rule> {
    scattered(3)
        .take(rules)
        .map(|random| {
            let length = 32 + (random >> 32) as u8 % 33;
            let address = 0x2001 << 112 | u128::from(random) << 48;
            let net = Ipv6Net::new_assert(address.into(), length).trunc();
            tcp_rule(net.into(), range(random))
        })
        .collect()
}

fn range(random: u64) -> PortRange {
    let first = 1 + (random >> 40) as u16 % 30_000;
    PortRange {
        first,
        last: first + 1 + (random >> 56) as u16 * 64,
    }
}

/// Which frames are judged.
#[derive(Clone, Copy)]
enum Traffic {
    /// Allowed ones.
    Hit,
    /// Others.
    Miss,
    /// Either, at random: what branches cannot predict.
    Mixed,
}

/// A frame to a random rule's destination: to an allowed port, or (a miss) to the port below.
fn frame(rules: &[Rule], random: u64, traffic: Traffic) -> Headers {
    let hit = match traffic {
        Traffic::Hit => true,
        Traffic::Miss => false,
        Traffic::Mixed => random >> 63 == 1,
    };
    let rule = &rules[random as usize % rules.len()];
    let port = rule.to_ports[0].first;
    let (dst, network) = match rule.to {
        Some(IpNet::V4(net)) => {
            let host = u32::from(net.hostmask()) & (random >> 32) as u32;
            (u128::from(net.addr().to_bits() | host), Network::V4)
        }
        Some(IpNet::V6(net)) => {
            let host = u128::from(net.hostmask()) & u128::from(random);
            (net.addr().to_bits() | host, Network::V6)
        }
        None => (0, Network::V4),
    };
    Headers {
        src: u128::from(random >> 32),
        dst,
        src_port: random as u16,
        dst_port: if hit { port } else { port - 1 },
        protocol: protocol::TCP,
        tcp_flags: tcp_flags::ACK,
        network,
        ..Headers::default()
    }
}

fn compile(rules: Vec<Rule>) -> Snapshot {
    let spec = PolicySpec {
        rules,
        ..PolicySpec::default()
    };
    Snapshot::compile(&spec, 1).unwrap_or_else(|e| panic!("{e}"))
}

fn run(bencher: Bencher<'_, '_>, mut rules: Vec<Rule>, traffic: Traffic, replies: bool) {
    for rule in &mut rules {
        rule.replies = replies;
    }
    let snapshot = compile(rules);
    let mut random = scattered(4);
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| {
            let mut batch = [Headers::default(); BATCH];
            for (headers, random) in batch.iter_mut().zip(&mut random) {
                *headers = frame(snapshot.rules(), random, traffic);
            }
            (batch, [Verdict::Drop(Reason::Shutdown); BATCH])
        })
        .bench_local_refs(|(batch, verdicts)| judge(batch, &snapshot, verdicts));
}

const EXACT: &[usize] = &[10, 65_536, 1_000_000];
const PREFIXES: &[usize] = &[10_000, 100_000];

#[divan::bench(args = EXACT, sample_count = 1000, sample_size = 20)]
fn exact_hit(bencher: Bencher<'_, '_>, rules: usize) {
    run(bencher, exact(rules), Traffic::Hit, false);
}

#[divan::bench(args = EXACT, sample_count = 1000, sample_size = 20)]
fn exact_miss(bencher: Bencher<'_, '_>, rules: usize) {
    run(bencher, exact(rules), Traffic::Miss, false);
}

#[divan::bench(args = EXACT, sample_count = 1000, sample_size = 20)]
fn exact_with_replies_miss(bencher: Bencher<'_, '_>, rules: usize) {
    run(bencher, exact(rules), Traffic::Miss, true);
}

#[divan::bench(args = PREFIXES, sample_count = 1000, sample_size = 20)]
fn prefixes_hit(bencher: Bencher<'_, '_>, rules: usize) {
    run(bencher, prefixes(rules), Traffic::Hit, false);
}

#[divan::bench(args = PREFIXES, sample_count = 1000, sample_size = 20)]
fn prefixes_miss(bencher: Bencher<'_, '_>, rules: usize) {
    run(bencher, prefixes(rules), Traffic::Miss, false);
}

#[divan::bench(args = EXACT, sample_count = 1000, sample_size = 20)]
fn exact_mixed(bencher: Bencher<'_, '_>, rules: usize) {
    run(bencher, exact(rules), Traffic::Mixed, false);
}

#[divan::bench(args = PREFIXES, sample_count = 1000, sample_size = 20)]
fn prefixes_mixed(bencher: Bencher<'_, '_>, rules: usize) {
    run(bencher, prefixes(rules), Traffic::Mixed, false);
}

#[divan::bench(args = PREFIXES, sample_count = 1000, sample_size = 20)]
fn prefixes_ipv6_hit(bencher: Bencher<'_, '_>, rules: usize) {
    run(bencher, prefixes6(rules), Traffic::Hit, false);
}

/// Rules of every kind, as people write them; the frames match the last, by both of their addresses.
#[divan::bench(sample_count = 1000, sample_size = 20)]
fn ten_rules(bencher: Bencher<'_, '_>) {
    // Protocol, from, to, ports, whether replies pass.
    let rules = [
        ("tcp", "", "10.0.0.0/8", "80,443,8000-8100", true),
        ("tcp", "", "10.0.0.0/8", "22", true),
        ("tcp", "10.1.0.0/16", "10.2.0.10", "5432", true),
        ("tcp", "10.1.0.0/16", "10.2.0.11", "6379", true),
        ("udp", "", "10.0.0.53", "53", true),
        ("udp", "", "10.0.0.123", "123", true),
        ("udp", "10.1.0.0/16", "203.0.113.50", "51820", false),
        ("udp", "", "192.0.2.0/24", "4000-5000", false),
        ("icmp", "", "10.0.0.0/8", "", true),
        ("udp", "10.9.0.1", "10.9.0.2", "5201", false),
    ]
    .map(|(protocol, from, to, ports, replies)| Rule {
        protocol: Protocol::parse(protocol).ok(),
        from: parse_network(from).ok(),
        to: parse_network(to).ok(),
        to_ports: PortRange::parse_list(ports).unwrap_or_default(),
        replies,
        ..Rule::default()
    });
    let snapshot = compile(rules.to_vec());
    let frame = Headers {
        src: 0x0a09_0001,
        dst: 0x0a09_0002,
        src_port: 40_000,
        dst_port: 5_201,
        protocol: protocol::UDP,
        network: Network::V4,
        ..Headers::default()
    };
    let batch = [frame; BATCH];
    let mut verdicts = [Verdict::Drop(Reason::Shutdown); BATCH];
    bencher
        .counter(ItemsCount::new(BATCH))
        .bench_local(|| judge(divan::black_box(&batch), &snapshot, &mut verdicts));
    assert_eq!(verdicts, [Verdict::Forward; BATCH]);
}

#[divan::bench(args = EXACT, sample_count = 5, sample_size = 1)]
fn compile_exact(bencher: Bencher<'_, '_>, rules: usize) {
    bencher
        .with_inputs(|| PolicySpec {
            rules: exact(rules),
            ..PolicySpec::default()
        })
        .bench_local_refs(|spec| Snapshot::compile(spec, 1));
}

#[divan::bench(args = PREFIXES, sample_count = 5, sample_size = 1)]
fn compile_prefixes(bencher: Bencher<'_, '_>, rules: usize) {
    bencher
        .with_inputs(|| PolicySpec {
            rules: prefixes(rules),
            ..PolicySpec::default()
        })
        .bench_local_refs(|spec| Snapshot::compile(spec, 1));
}
