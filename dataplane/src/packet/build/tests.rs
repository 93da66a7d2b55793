//! Parsing what was built gives back what was described, and its checksums hold.

use proptest::prelude::*;

use super::*;
use crate::packet::checksum::{add, fold, internet, pseudo_v4, pseudo_v6};
use crate::packet::described::frames;
use crate::packet::{Fragment, Headers, Network, parse, tcp_flags};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn parse_of_build_is_the_identity(described in frames()) {
        let frame = described.frame();
        prop_assert_eq!(parse(&frame), described.headers());
    }

    #[test]
    fn checksums_of_whole_frames_hold(described in frames()) {
        let frame = described.frame();
        prop_assert!(checksums_hold(&frame, &parse(&frame)));
    }
}

/// Whether a receiver would accept the frame's checksums: the sums over what they cover are 0xffff.
fn checksums_hold(frame: &[u8], headers: &Headers) -> bool {
    let network = usize::from(headers.network_offset);
    if headers.network == Network::V4 {
        let length = usize::from(frame[network] & 0x0f) * 4;
        if internet(&frame[network..network + length]) != 0 {
            return false;
        }
    }
    // The builder has no datagram to sum for a fragment; a receiver sums the whole.
    if matches!(headers.fragment, Fragment::First | Fragment::Later) {
        return true;
    }
    let segment = &frame[usize::from(headers.transport_offset)..usize::from(headers.end)];
    let length = segment.len();
    let pseudo = match (headers.network, headers.protocol) {
        (Network::V4, protocol::ICMP) => 0,
        (Network::V4, protocol::TCP | protocol::UDP) => pseudo_v4(
            headers.src as u32,
            headers.dst as u32,
            headers.protocol,
            length as u16,
        ),
        (Network::V6, protocol::ICMPV6 | protocol::TCP | protocol::UDP) => {
            pseudo_v6(headers.src, headers.dst, headers.protocol, length as u32)
        }
        _ => return true,
    };
    fold(add(pseudo, segment)) == 0xffff
}

#[test]
fn bytes_of_a_known_frame() {
    let frame = FrameBuilder::new()
        .ethernet([1; 6], [2; 6])
        .ipv4(Ipv4::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into()))
        .udp(1000, 53)
        .payload(b"abc")
        .to_vec()
        .unwrap();
    // Both checksums (0xf6ca, 0xb354) were computed by other means.
    let expected = [
        2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 0x08, 0x00, //
        0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0xf6, 0xca, 192, 0, 2, 1, 192, 0, 2, 2, //
        0x03, 0xe8, 0, 53, 0, 11, 0xb3, 0x54, b'a', b'b', b'c',
    ];
    assert_eq!(frame, expected);
}

#[test]
fn a_buffer_keeps_what_lies_behind_the_frame() {
    let builder = FrameBuilder::new()
        .ipv4(Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()))
        .tcp(Tcp::new(1, 2, tcp_flags::SYN))
        .pad_to(60);
    let mut dirty = [0xaa; 64];
    assert_eq!(builder.write_to(&mut dirty), Ok(60));
    assert_eq!(dirty[..60], builder.to_vec().unwrap());
    assert_eq!(dirty[60..], [0xaa; 4]);

    let mut short = [0xaa; 59];
    let refused = BuildError::BufferTooSmall {
        needed: 60,
        have: 59,
    };
    assert_eq!(builder.write_to(&mut short), Err(refused));
    assert_eq!(short, [0xaa; 59]);
}

#[test]
fn parts_that_no_length_field_can_say_are_refused() {
    let v4 = Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let long = [0; 2047];
    let extensions = [Extension::DestinationOptions(&long)];
    let icv = [Extension::Authentication(&long[..1017])];
    let v6 = Ipv6::new(1.into(), 2.into());
    let payload = vec![0; 0xffff];
    let plain = FrameBuilder::new();
    for (builder, part) in [
        (
            plain.clone().ipv4(Ipv4 {
                options: &[0; 41],
                ..v4
            }),
            "the IPv4 options",
        ),
        (
            plain.clone().ipv4(v4).raw(1).payload(&payload),
            "the IPv4 packet",
        ),
        (
            plain.clone().ipv6(v6).udp(1, 2).payload(&payload),
            "the IPv6 payload",
        ),
        (
            plain.clone().ipv6(Ipv6 {
                extensions: &extensions,
                ..v6
            }),
            "an IPv6 extension header",
        ),
        (
            plain.clone().ipv6(Ipv6 {
                extensions: &icv,
                ..v6
            }),
            "the integrity check value",
        ),
        (
            plain.ipv4(v4).tcp(Tcp {
                options: &[0; 41],
                ..Tcp::default()
            }),
            "the TCP options",
        ),
    ] {
        match builder.to_vec() {
            Err(BuildError::TooLong { part: named, .. }) => assert_eq!(named, part),
            other => panic!("{part}: {other:?}"),
        }
    }
}
