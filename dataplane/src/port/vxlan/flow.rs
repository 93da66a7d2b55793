//! Which flow a frame belongs to, as a number: RFC 7348, section 5, wants the outer source port to be a hash
//! of the inner headers, so that routers that spread traffic by ports keep each flow on one path.
//!
//! The hash is keyed with a secret, so that nobody outside can aim all flows at one path.

use std::hash::{BuildHasher, RandomState};

use crate::packet::{Fragment, Headers, Network, parse};

/// The secret of one port.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlowHash([u64; 4]);

impl FlowHash {
    /// Draws a secret. `RandomState` is the standard library's way to the kernel's randomness.
    pub(super) fn random() -> Self {
        // Odd, so that no multiplication forgets its other operand.
        Self([0, 1, 2, 3].map(|i: u64| RandomState::new().hash_one(i) | 1))
    }

    /// A number below `ways` for the flow of a frame: addresses, protocol and ports of IP and ARP, the
    /// Ethernet header of everything else. The fragments of a datagram go one way, since the later ones
    /// show no ports.
    #[inline]
    pub(super) fn way(&self, frame: &[u8], ways: usize) -> usize {
        let headers = parse(frame);
        let hash = match headers.network {
            Network::V4 | Network::V6 | Network::Arp => self.addresses(&headers),
            Network::Other => self.ethernet(frame),
        };
        // One step more: with the last alone, flows that differ in a few low bits of a port go one way
        // under every two hundredth secret.
        let hash = fold(hash ^ self.0[1], MIX);
        // The high half of the product is below `ways`, and evenly so.
        ((u128::from(hash) * ways as u128) >> 64) as usize
    }

    #[inline]
    fn addresses(&self, headers: &Headers) -> u64 {
        let Self([a, b, c, d]) = self;
        let whole = matches!(headers.fragment, Fragment::None | Fragment::Atomic);
        let ports = match whole {
            true => u64::from(headers.src_port) << 16 | u64::from(headers.dst_port),
            false => 0,
        };
        let rest = ports << 32 | u64::from(headers.vlan_id) << 8 | u64::from(headers.protocol);
        let src = fold(headers.src as u64 ^ a, (headers.src >> 64) as u64 ^ b);
        let dst = fold(headers.dst as u64 ^ c, (headers.dst >> 64) as u64 ^ d);
        fold(fold(src ^ a, dst.rotate_left(32) ^ b) ^ c, rest ^ d)
    }

    #[inline]
    fn ethernet(&self, frame: &[u8]) -> u64 {
        let Self([a, b, c, _]) = self;
        let mut header = [0; 16];
        let n = frame.len().min(14);
        header[..n].copy_from_slice(&frame[..n]);
        let bits = u128::from_ne_bytes(header);
        fold(fold(bits as u64 ^ a, (bits >> 64) as u64 ^ b), *c)
    }
}

/// The golden ratio of 64 bits: odd, with no pattern in its bits.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Both halves of the product, folded: the mixing step of wyhash.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::build::{FragmentField, FrameBuilder, Ipv4, Ipv6, Tag};

    const HASH: FlowHash = FlowHash([
        0x9e37_79b9_7f4a_7c15,
        0xbf58_476d_1ce4_e5b9,
        0x94d0_49bb_1331_11eb,
        0xd6e8_feb8_6659_fd93,
    ]);

    fn ipv4(host: u8, port: u16, payload: &[u8]) -> Vec<u8> {
        FrameBuilder::new()
            .ipv4(Ipv4::new([10, 0, 0, host].into(), [10, 0, 1, 1].into()))
            .udp(port, 53)
            .payload(payload)
            .to_vec()
            .expect("a frame")
    }

    /// A kind of flows, and the `n`-th of it.
    type Flows = (&'static str, fn(u16) -> Vec<u8>);

    fn flows() -> [Flows; 6] {
        [
            ("IPv4 ports", |n| ipv4(1, n, b"")),
            ("IPv4 hosts", |n| ipv4(n as u8, n >> 8, b"")),
            ("IPv6 hosts", |n| {
                let src = u128::from(n) | 0x2001_0db8 << 96;
                FrameBuilder::new()
                    .ipv6(Ipv6::new(src.into(), 1u128.into()))
                    .udp(1, 2)
                    .to_vec()
                    .expect("a frame")
            }),
            ("VLANs", |n| {
                let tags = [Tag::customer(n & 0xfff)];
                FrameBuilder::new()
                    .tags(&tags)
                    .ipv4(Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()))
                    .udp(1, 2)
                    .to_vec()
                    .expect("a frame")
            }),
            ("no IP", |n| {
                let mut frame = vec![0; 60];
                frame[10..12].copy_from_slice(&n.to_be_bytes());
                frame[12..14].copy_from_slice(&0x88b5u16.to_be_bytes());
                frame
            }),
            ("broken IP", |n| {
                let mut frame = ipv4(1, 1, b"");
                frame.truncate(20);
                frame[6..8].copy_from_slice(&n.to_be_bytes());
                frame[12..14].copy_from_slice(&0x88b5u16.to_be_bytes());
                frame
            }),
        ]
    }

    #[test]
    fn flows_are_spread_evenly() {
        for (what, flow) in flows() {
            for ways in [1, 2, 7, 16, 256] {
                let mut seen = vec![0u32; ways];
                for n in 0..4000 {
                    seen[HASH.way(&flow(n), ways)] += 1;
                }
                let fair = 4000 / ways as u32;
                for n in seen {
                    assert!(
                        n > fair / 4 && n < fair * 3 + 20,
                        "{what}: {n} of {fair}, {ways} ways"
                    );
                }
            }
        }
    }

    /// Flows that begin one after the other have ports one after the other.
    #[test]
    fn few_flows_are_spread_under_every_secret() {
        let mut state = 0u64;
        let mut random = || {
            // SplitMix64
            state = state.wrapping_add(MIX);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        for (what, flow) in flows() {
            let flows: Vec<_> = (0..64).map(flow).collect();
            for _ in 0..2000 {
                let hash = FlowHash([(); 4].map(|()| random() | 1));
                let mut seen = [0; 8];
                for flow in &flows {
                    seen[hash.way(flow, 8)] += 1;
                }
                assert!(seen.iter().all(|&n| n < 32), "{what}: {seen:?} {hash:?}");
            }
        }
    }

    #[test]
    fn a_flow_goes_one_way_whatever_it_carries() {
        for n in 0..100 {
            let way = HASH.way(&ipv4(1, n, b""), 256);
            assert_eq!(HASH.way(&ipv4(1, n, b"anything"), 256), way);
        }
    }

    #[test]
    fn fragments_go_one_way() {
        let fragment = |offset: u16, more: bool| {
            let mut ip = Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
            ip.fragment = FragmentField { offset, more };
            FrameBuilder::new()
                .ipv4(ip)
                .udp(offset, 53)
                .payload(&[7; 16])
                .to_vec()
                .expect("a frame")
        };
        let first = HASH.way(&fragment(0, true), 256);
        assert_eq!(HASH.way(&fragment(2, true), 256), first);
        assert_eq!(HASH.way(&fragment(4, false), 256), first);
    }

    #[test]
    fn two_ports_have_two_secrets() {
        let ways = |hash: FlowHash| {
            (0..64)
                .map(|n| hash.way(&ipv4(1, n, b""), 256))
                .collect::<Vec<_>>()
        };
        assert_ne!(ways(FlowHash::random()), ways(FlowHash::random()));
    }

    #[test]
    fn any_bytes_have_a_way() {
        for len in 0..64 {
            assert!(HASH.way(&vec![0x45; len], 3) < 3);
        }
    }
}
