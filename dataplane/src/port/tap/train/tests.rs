//! Trains against a model that cuts them again, and a table of what is coupled.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::packet::build::{FrameBuilder, Ipv4, Ipv6, Tag, Tcp};

/// The times of a segment, as Linux writes them (RFC 7323, appendix A).
const TIMES: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9];

const ACK: u8 = tcp_flags::ACK;

/// One segment of a flow, as a table or a strategy changes it.
#[derive(Clone, Debug)]
struct Made {
    v6: bool,
    sequence: u32,
    payload: usize,
    flags: u8,
    id: u16,
    dont_fragment: bool,
    ttl: u8,
    port: u16,
    acknowledgment: u32,
    window: u16,
    options: Vec<u8>,
    tagged: bool,
    padded: bool,
    /// Bytes that are changed behind all checksums: where, and with what they are mixed.
    damage: Vec<(usize, u8)>,
}

impl Made {
    fn new(v6: bool, sequence: u32, payload: usize, id: u16) -> Self {
        Self {
            v6,
            sequence,
            payload,
            flags: ACK,
            id,
            dont_fragment: true,
            ttl: 64,
            port: 443,
            acknowledgment: 1,
            window: 500,
            options: TIMES.to_vec(),
            tagged: false,
            padded: false,
            damage: Vec::new(),
        }
    }

    fn frame(&self) -> Vec<u8> {
        let payload: Vec<_> = (0..self.payload)
            .map(|at| (self.sequence as usize + at) as u8)
            .collect();
        let tags = [Tag::customer(5)];
        let mut tcp = Tcp::new(40_000, self.port, self.flags);
        tcp.sequence = self.sequence;
        tcp.acknowledgment = self.acknowledgment;
        tcp.window = self.window;
        tcp.options = &self.options;
        let mut builder = FrameBuilder::new();
        if self.tagged {
            builder = builder.tags(&tags);
        }
        let builder = if self.v6 {
            let mut ip = Ipv6::new(Ipv6Addr::LOCALHOST, Ipv6Addr::from(u128::from(self.port)));
            ip.hop_limit = self.ttl;
            builder.ipv6(ip)
        } else {
            let mut ip = Ipv4::new(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
            ip.ttl = self.ttl;
            ip.identification = self.id;
            ip.dont_fragment = self.dont_fragment;
            builder.ipv4(ip)
        };
        let builder = builder.tcp(tcp).payload(&payload);
        let mut frame = builder.to_vec().expect("short enough");
        if self.padded {
            frame.extend([0; 3]);
        }
        for &(at, with) in &self.damage {
            let at = at % frame.len();
            frame[at] ^= with;
        }
        frame
    }
}

/// What is written of frames, one write after the other, and of how many each is.
fn couple(frames: &[Vec<u8>]) -> Vec<(Vec<u8>, usize)> {
    let mut writes = Vec::new();
    let mut rest = frames;
    while let Some(first) = rest.first() {
        let (write, n) = match Train::of(rest.iter().map(Vec::as_slice)) {
            None => ([&ALONE[..], first].concat(), 1),
            Some(train) => {
                let mut write = train.header().to_vec();
                for frame in &rest[..train.frames] {
                    write.extend(&frame[train.instead_of..]);
                }
                (write, train.frames)
            }
        };
        writes.push((write, n));
        rest = &rest[n..];
    }
    writes
}

/// Cuts a write as the kernel does (net/ipv4/tcp_offload.c, `tcp_gso_segment`; net/ipv4/af_inet.c,
/// `inet_gso_segment`), with complete checksums.
fn cut(write: &[u8]) -> Vec<Vec<u8>> {
    let (virtio, frame) = write.split_at(VIRTIO);
    let field = |at: usize| usize::from(u16::from_ne_bytes([virtio[at], virtio[at + 1]]));
    let (headers, size, tcp) = (field(2), field(4), field(6));
    if virtio[1] == 0 {
        assert_eq!(virtio, ALONE);
        return vec![frame.to_vec()];
    }
    assert_eq!((virtio[0], field(8)), (1, 16));
    let v6 = virtio[1] == 4;
    assert_eq!(tcp, if v6 { 54 } else { 34 });
    assert_eq!(headers, tcp + usize::from(frame[tcp + 12] >> 4) * 4);
    assert!(frame.len() - headers > size && frame.len() <= 14 + LONGEST);
    let word = |frame: &[u8], at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    // What the kernel starts from: the lengths and sums of the whole.
    let pseudo = |frame: &[u8]| {
        let length = frame.len() - tcp;
        if v6 {
            let address = |at: usize| u128::from_be_bytes(frame[at..at + 16].try_into().unwrap());
            pseudo_v6(address(22), address(38), 6, length as u32)
        } else {
            let address = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
            pseudo_v4(address(26), address(30), 6, length as u16)
        }
    };
    assert_eq!(word(frame, tcp + 16), fold(pseudo(frame)));
    if v6 {
        assert_eq!(usize::from(word(frame, 18)), frame.len() - 54);
    } else {
        assert_eq!(usize::from(word(frame, 16)), frame.len() - 14);
        assert_eq!(internet(&frame[14..34]), 0);
    }
    let (head, payload) = frame.split_at(headers);
    let last = payload.len().div_ceil(size) - 1;
    let segment = |(n, bytes): (usize, &[u8])| {
        let mut frame = [head, bytes].concat();
        let length = frame.len();
        if v6 {
            frame[18..20].copy_from_slice(&((length - 54) as u16).to_be_bytes());
        } else {
            let id = word(&frame, 18).wrapping_add(n as u16);
            frame[16..18].copy_from_slice(&((length - 14) as u16).to_be_bytes());
            frame[18..20].copy_from_slice(&id.to_be_bytes());
            frame[24..26].fill(0);
            let sum = internet(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        let sequence = number(&frame, tcp + 4).wrapping_add((n * size) as u32);
        frame[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
        if n < last {
            frame[tcp + 13] &= !(tcp_flags::FIN | tcp_flags::PSH);
        }
        frame[tcp + 16..tcp + 18].fill(0);
        let sum = transport(pseudo(&frame), &frame[tcp..]);
        frame[tcp + 16..tcp + 18].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    payload.chunks(size).enumerate().map(segment).collect()
}

/// Sets the identification to what counts on from 0, where it is 0 and means nothing.
fn without_ids(mut frame: Vec<u8>) -> Vec<u8> {
    frame[18..20].fill(0);
    frame[24..26].fill(0);
    frame
}

/// Of how many frames each write is.
fn counts(made: &[Made]) -> Vec<usize> {
    let frames: Vec<_> = made.iter().map(Made::frame).collect();
    couple(&frames).into_iter().map(|(_, n)| n).collect()
}

#[test]
fn what_is_coupled() {
    type Change = fn(&mut [Made]);
    // Five segments of 100 bytes, each behind the other; changed; (what, how, of how many each write is)
    let cases: &[(&str, Change, &[usize])] = &[
        ("a train", |_| {}, &[5]),
        ("a short last one", |m| m[4].payload = 1, &[5]),
        ("a short one ends it", |m| m[2].payload = 99, &[3, 2]),
        (
            "a longer one begins another",
            |m| m[3].payload = 101,
            &[3, 1, 1],
        ),
        ("PSH at the end", |m| m[4].flags |= tcp_flags::PSH, &[5]),
        ("PSH ends it", |m| m[1].flags |= tcp_flags::PSH, &[2, 3]),
        (
            "PSH on the first",
            |m| m[0].flags |= tcp_flags::PSH,
            &[1, 4],
        ),
        ("FIN ends it", |m| m[3].flags |= tcp_flags::FIN, &[4, 1]),
        ("SYN", |m| m[2].flags |= tcp_flags::SYN, &[2, 1, 2]),
        ("RST", |m| m[2].flags |= tcp_flags::RST, &[2, 1, 2]),
        ("URG", |m| m[2].flags |= 0x20, &[2, 1, 2]),
        ("CWR", |m| m[2].flags |= 0x80, &[2, 1, 2]),
        ("no ACK", |m| m[2].flags = 0, &[2, 1, 2]),
        ("ECE on one", |m| m[2].flags |= ECE, &[2, 1, 2]),
        (
            "ECE on all",
            |m| m.iter_mut().for_each(|m| m.flags |= ECE),
            &[5],
        ),
        ("a gap", |m| m[2].sequence += 1, &[2, 1, 2]),
        ("one again", |m| m[2].sequence = m[1].sequence, &[2, 1, 2]),
        (
            "nothing but an acknowledgment",
            |m| m[2].payload = 0,
            &[2, 1, 2],
        ),
        (
            "another acknowledgment",
            |m| m[2].acknowledgment += 1,
            &[2, 1, 2],
        ),
        ("another window", |m| m[2].window += 1, &[2, 1, 2]),
        ("another flow", |m| m[2].port += 1, &[2, 1, 2]),
        ("another time", |m| m[2].options[7] += 1, &[2, 1, 2]),
        ("no times", |m| m[2].options.clear(), &[2, 1, 2]),
        ("another hop limit", |m| m[2].ttl -= 1, &[2, 1, 2]),
        ("a VLAN tag", |m| m[2].tagged = true, &[2, 1, 2]),
        ("padding", |m| m[2].padded = true, &[2, 1, 2]),
        ("damage", |m| m[2].damage.push((90, 1)), &[2, 1, 2]),
        (
            "damage to the first",
            |m| m[0].damage.push((90, 1)),
            &[1, 4],
        ),
        ("damage to the last", |m| m[4].damage.push((90, 1)), &[4, 1]),
    ];
    let of_v4: &[(&str, Change, &[usize])] = &[
        ("another number", |m| m[2].id += 7, &[2, 1, 2]),
        ("no numbers", |m| m.iter_mut().for_each(|m| m.id = 0), &[5]),
        (
            "no numbers, and may be fragmented",
            |m| {
                m.iter_mut()
                    .for_each(|m| (m.id, m.dont_fragment) = (0, false))
            },
            &[1, 1, 1, 1, 1],
        ),
        (
            "may be fragmented",
            |m| m.iter_mut().for_each(|m| m.dont_fragment = false),
            &[5],
        ),
        (
            "one may be fragmented",
            |m| m[2].dont_fragment = false,
            &[2, 1, 2],
        ),
        (
            "a damaged header",
            |m| m[2].damage.push((15, 4)),
            &[2, 1, 2],
        ),
        ("a fragment", |m| m[2].damage.push((20, 0x20)), &[2, 1, 2]),
    ];
    for v6 in [false, true] {
        for &(what, change, expected) in cases.iter().chain(of_v4.iter().filter(|_| !v6)) {
            // Numbers wrap on the way.
            let mut made: Vec<_> = (0..5u32)
                .map(|n| {
                    let sequence = n.wrapping_mul(100).wrapping_sub(150);
                    Made::new(v6, sequence, 100, (n as u16).wrapping_sub(2))
                })
                .collect();
            change(&mut made);
            assert_eq!(counts(&made), expected, "{what}, IPv6: {v6}");
        }
    }
}

#[test]
fn a_train_has_an_end() {
    // (bytes of a payload, how many can be in one)
    for (payload, most) in [(10, SHARES), (1448, 45), (8948, 7), (33_000, 1)] {
        for v6 in [false, true] {
            let made: Vec<_> = (0..=most as u32)
                .map(|n| Made::new(v6, n * payload, payload as usize, n as u16))
                .collect();
            assert_eq!(counts(&made), [most, 1], "{payload}, IPv6: {v6}");
        }
    }
}

fn made() -> impl Strategy<Value = (u8, Made)> {
    let what = (
        any::<u8>(),
        any::<bool>(),
        0usize..300,
        prop::sample::select(vec![100usize, 100, 100, 99, 0, 101]),
    );
    what.prop_map(|(what, v6, at, payload)| {
        let mut made = Made::new(v6, 0, payload, 0);
        match what / 8 {
            0 => made.flags |= tcp_flags::PSH,
            1 => made.flags |= tcp_flags::FIN,
            2 => made.flags = at as u8,
            3 => made.window += 1,
            4 => made.options.clear(),
            5 => made.damage.push((at, what | 1)),
            6 => made.dont_fragment = false,
            7 => made.tagged = true,
            8 => made.padded = true,
            9 => made.ttl = 3,
            _ => {}
        }
        (what, made)
    })
}

proptest! {
    /// Whatever comes, cut again it is what came, in the same order; and only intact segments were coupled.
    #[test]
    fn cut_again_a_train_is_what_it_was_made_of(
        all in prop::collection::vec(made(), 1..100),
        mixed in any::<bool>(),
        numbered in any::<bool>(),
        start in any::<u32>(),
    ) {
        let (mut sequence, mut id) = (start, start as u16);
        let v6 = all[0].1.v6;
        let frames: Vec<_> = all.into_iter().map(|(what, mut made)| {
            if !mixed {
                made.v6 = v6;
            }
            (made.sequence, made.id) = (sequence, if numbered { id } else { 0 });
            id = id.wrapping_add(1);
            if what % 16 != 0 {
                sequence = sequence.wrapping_add(made.payload as u32);
            }
            made.frame()
        }).collect();
        let writes = couple(&frames);
        prop_assert_eq!(writes.iter().map(|(_, n)| n).sum::<usize>(), frames.len());
        let mut at = 0;
        for (write, n) in writes {
            let again = cut(&write);
            prop_assert_eq!(again.len(), n);
            for (again, frame) in again.into_iter().zip(&frames[at..at + n]) {
                if n > 1 && frame[12..14] == [8, 0] && frame[18..20] == [0, 0] {
                    prop_assert_eq!(without_ids(again), without_ids(frame.clone()));
                } else {
                    prop_assert_eq!(&again, frame);
                }
            }
            at += n;
        }
    }

    /// Any bytes at all: nothing panics, and what is not a segment goes as it is.
    #[test]
    fn any_bytes_are_written(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..8),
        ethertype in prop::sample::select(vec![[8u8, 0], [0x86, 0xdd]]),
    ) {
        let frames: Vec<_> = frames.into_iter().map(|mut frame| {
            if frame.len() > 24 {
                frame[12..14].copy_from_slice(&ethertype);
                frame[14] = if ethertype[0] == 8 { 0x45 } else { 0x60 };
                frame[23] = 6;
                frame[20] = 6;
            }
            frame
        }).collect();
        let writes = couple(&frames);
        prop_assert_eq!(writes.iter().map(|(_, n)| n).sum::<usize>(), frames.len());
    }
}
