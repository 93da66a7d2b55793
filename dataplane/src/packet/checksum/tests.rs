//! The sum against a plain model, and what may and may not be finished.

use proptest::prelude::*;

use super::*;
use crate::packet::build::{
    Checksum, Extension, FragmentField, FrameBuilder, Icmp, Ipv4, Ipv6, Tag, Tcp,
};
use crate::packet::{Fault, parse, parse_head, tcp_flags};

/// RFC 1071, section 1, word by word.
fn model(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

proptest! {
    /// Cut into parts anywhere behind its headers, a frame is read and finished as it is in one.
    #[test]
    fn parts_are_read_and_finished_as_a_whole(
        v6: bool,
        of_tcp: bool,
        payload in prop::collection::vec(any::<u8>(), 200..3_000),
        first in 100usize..200,
        sizes in prop::collection::vec(1usize..900, 1..8),
        damage in prop::option::of((0usize..60, any::<u8>())),
    ) {
        let builder = FrameBuilder::new().payload(&payload).checksum(Checksum::Partial);
        let builder = if of_tcp { builder.tcp(Tcp::new(1, 2, 0x10)) } else { builder.udp(1, 2) };
        let builder = if v6 { builder.ipv6(V6) } else { builder.ipv4(V4) };
        let mut whole = builder.to_vec().expect("short enough");
        if let Some((at, with)) = damage {
            whole[at] ^= with;
        }
        let (head, mut left) = whole.split_at(first);
        let mut head = head.to_vec();
        let mut parts = Vec::new();
        for size in sizes {
            let (part, behind) = left.split_at(size.min(left.len()));
            parts.push(part.to_vec());
            left = behind;
        }
        parts.push(left.to_vec());
        let of_head = parse_head(&head, whole.len() - head.len());
        let headers = parse(&whole);
        // Extension headers may reach behind the head; that is said.
        if of_head.fault != Some(Fault::Truncated) {
            prop_assert_eq!(of_head, headers);
        }
        let did = finish_partial_parts(&mut head, parts.iter().map(Vec::as_slice), &of_head);
        if of_head == headers {
            prop_assert_eq!(did, finish_partial(&mut whole, &headers));
        }
        prop_assert_eq!([vec![head], parts].concat().concat(), whole);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn sums_equal_the_model(bytes in prop::collection::vec(any::<u8>(), 0..2_000), split in any::<prop::sample::Index>()) {
        prop_assert_eq!(internet(&bytes), model(&bytes));
        // In two pieces, the first of even length.
        let (first, second) = bytes.split_at(split.index(bytes.len() + 1) & !1);
        prop_assert_eq!(!fold(add(add(0, first), second)), model(&bytes));
    }

    #[test]
    fn pseudo_headers_equal_the_model(src in any::<u128>(), dst in any::<u128>(), protocol in any::<u8>(), length in any::<u16>()) {
        let [high, low] = length.to_be_bytes();
        let v6 = [&src.to_be_bytes()[..], &dst.to_be_bytes(), &[0, 0, high, low, 0, 0, 0, protocol]].concat();
        prop_assert_eq!(!fold(pseudo_v6(src, dst, protocol, length.into())), model(&v6));
        let (src, dst) = (src as u32, dst as u32);
        let v4 = [&src.to_be_bytes()[..], &dst.to_be_bytes(), &[0, protocol, high, low]].concat();
        prop_assert_eq!(!fold(pseudo_v4(src, dst, protocol, length)), model(&v4));
    }

    /// Whatever the bytes say: a frame that is not finished stays, and one that is reads as before.
    #[test]
    fn arbitrary_frames_survive(mut frame in prop::collection::vec(any::<u8>(), 0..120), v6 in any::<bool>()) {
        if let Some(start) = frame.get_mut(12..15) {
            start.copy_from_slice(if v6 { &[0x86, 0xdd, 0x60] } else { &[8, 0, 0x45] });
        }
        let (headers, before) = (parse(&frame), frame.clone());
        if !finish_partial(&mut frame, &headers) {
            prop_assert_eq!(&frame, &before);
        }
        prop_assert_eq!(parse(&frame), headers);
    }
}

#[test]
fn the_example_of_rfc_1071() {
    // Section 3: the sum is 0xddf2.
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(fold(add(0, &bytes)), 0xddf2);
    assert_eq!(internet(&[]), 0xffff);
    assert_eq!(fold(u64::MAX), 0xffff);
}

const V4: Ipv4<'_> = Ipv4::new(
    std::net::Ipv4Addr::new(10, 0, 0, 1),
    std::net::Ipv4Addr::new(10, 0, 0, 2),
);
const V6: Ipv6<'_> = Ipv6::new(
    std::net::Ipv6Addr::from_bits(1),
    std::net::Ipv6Addr::from_bits(2),
);
const PAYLOAD: &[u8] = b"an odd number of bytes.";

fn tcp() -> FrameBuilder<'static> {
    FrameBuilder::new()
        .tcp(Tcp::new(1, 2, tcp_flags::ACK))
        .payload(PAYLOAD)
}

fn udp() -> FrameBuilder<'static> {
    FrameBuilder::new().udp(1, 2).payload(PAYLOAD)
}

/// Builds the frame with a partial checksum, and says whether it was finished; if it was, it must
/// equal the frame that was complete from the start.
fn finished(builder: FrameBuilder<'_>) -> bool {
    let complete = builder
        .clone()
        .checksum(Checksum::Complete)
        .to_vec()
        .unwrap();
    let partial = builder.checksum(Checksum::Partial).to_vec().unwrap();
    let mut frame = partial.clone();
    let done = finish_partial(&mut frame, &parse(&partial));
    assert_eq!(frame, if done { &complete[..] } else { &partial[..] });
    let mut again = complete.clone();
    finish_partial(&mut again, &parse(&complete));
    assert_eq!(again, complete, "a complete checksum stays");
    done
}

#[test]
fn partial_checksums_are_finished() {
    let extensions = [
        Extension::HopByHop(&[]),
        Extension::Routing(&[2, 0]),
        Extension::DestinationOptions(&[1, 2, 0, 0]),
        Extension::Fragment(FragmentField::WHOLE, 1),
        Extension::Authentication(&[0; 12]),
    ];
    for builder in [
        tcp().ipv4(V4),
        udp().ipv4(V4),
        tcp().ipv6(V6),
        udp().ipv6(V6),
        tcp().ipv4(V4).payload(&[]).pad_to(60),
        tcp()
            .ipv4(V4)
            .tags(&[Tag::service(1), Tag::customer(2)])
            .pad_to(100),
        // Router alert, then the end of the list.
        tcp().ipv4(Ipv4 {
            options: &[148, 4, 0, 0, 1, 0],
            ..V4
        }),
        udp().ipv6(Ipv6 {
            extensions: &extensions,
            ..V6
        }),
    ] {
        assert!(finished(builder.clone()), "{builder:?}");
    }
}

#[test]
fn what_is_no_partial_checksum_is_left_alone() {
    let routing = [Extension::Routing(&[2, 1])];
    let home = [Extension::DestinationOptions(&[1, 0, 201, 16, 0])];
    let malformed = [Extension::DestinationOptions(&[1, 0, 7, 200])];
    let first = [Extension::Fragment(FragmentField::FIRST, 1)];
    for builder in [
        tcp().ipv4(Ipv4 {
            fragment: FragmentField::FIRST,
            ..V4
        }),
        tcp().ipv4(Ipv4 {
            fragment: FragmentField {
                offset: 9,
                more: false,
            },
            ..V4
        }),
        tcp().ipv6(Ipv6 {
            extensions: &first,
            ..V6
        }),
        tcp().ipv6(Ipv6 {
            extensions: &routing,
            ..V6
        }),
        tcp().ipv6(Ipv6 {
            extensions: &home,
            ..V6
        }),
        tcp().ipv6(Ipv6 {
            extensions: &malformed,
            ..V6
        }),
        tcp().ipv4(Ipv4 {
            options: &[1, 131, 7, 4, 10, 0, 0, 9],
            ..V4
        }),
        tcp().ipv4(Ipv4 {
            options: &[137, 7, 4, 10, 0, 0, 9],
            ..V4
        }),
        tcp().ipv4(Ipv4 {
            options: &[7, 9],
            ..V4
        }),
        FrameBuilder::new().icmp(Icmp::default()).ipv4(V4),
        FrameBuilder::new().payload(PAYLOAD),
    ] {
        assert!(!finished(builder.clone()), "{builder:?}");
    }
    for builder in [udp().ipv4(V4), udp().ipv6(V6), tcp().ipv4(V4)] {
        let zero = builder.checksum(Checksum::Zero).to_vec().unwrap();
        let mut frame = zero.clone();
        assert!(!finish_partial(&mut frame, &parse(&zero)));
        assert_eq!(frame, zero);
    }
}

#[test]
fn faulty_frames_are_left_alone() {
    let partial = tcp().ipv4(V4).checksum(Checksum::Partial).to_vec().unwrap();
    let mut cut = partial[..partial.len() - 1].to_vec();
    let (headers, before) = (parse(&cut), cut.clone());
    assert!(headers.fault.is_some());
    assert!(!finish_partial(&mut cut, &headers));
    assert_eq!(cut, before);
    // Headers of a longer frame than this one.
    assert!(!finish_partial(&mut cut, &parse(&partial)));
    assert_eq!(cut, before);
}

#[test]
fn a_udp_sum_of_zero_is_sent_as_ones() {
    // Two bytes of payload that bring the sum to 0xffff, found by looking.
    let payload = (0..=u16::MAX)
        .map(u16::to_be_bytes)
        .find(|payload| {
            let frame = FrameBuilder::new()
                .ipv4(V4)
                .udp(1, 2)
                .payload(payload)
                .to_vec()
                .unwrap();
            frame[40..42] == [0xff, 0xff]
        })
        .expect("one of all sums is zero");
    let builder = FrameBuilder::new().ipv4(V4).udp(1, 2).payload(&payload);
    let frame = builder.clone().to_vec().unwrap();
    let headers = parse(&frame);
    let pseudo = pseudo_v4(headers.src as u32, headers.dst as u32, protocol::UDP, 10);
    assert_eq!(fold(add(pseudo, &frame[34..])), 0xffff);
    assert!(finished(builder));
}

#[test]
fn udp_is_summed_as_long_as_its_own_length_says() {
    let builder = udp().ipv4(V4);
    let mut frame = builder
        .clone()
        .checksum(Checksum::Partial)
        .to_vec()
        .unwrap();
    let complete = builder.to_vec().unwrap();
    // Four bytes behind the datagram, inside the IP payload (RFC 9868).
    frame.extend_from_slice(&[1, 2, 3, 4]);
    let total = u16::from_be_bytes([frame[16], frame[17]]) + 4;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    let headers = parse(&frame);
    assert!(finish_partial(&mut frame, &headers));
    assert_eq!(frame[34..complete.len()], complete[34..]);
}

#[test]
fn a_complete_checksum_that_looks_partial_stays() {
    // Payloads are tried until the complete checksum happens to equal the pseudo header's sum.
    let mut met = 0;
    for payload in (0..=u16::MAX).map(u16::to_be_bytes) {
        let builder = FrameBuilder::new()
            .ipv4(V4)
            .tcp(Tcp::new(1, 2, 0))
            .payload(&payload);
        let complete = builder.to_vec().unwrap();
        let mut frame = complete.clone();
        if finish_partial(&mut frame, &parse(&complete)) {
            assert_eq!(frame, complete);
            met += 1;
        }
    }
    assert!(met > 0);
}
