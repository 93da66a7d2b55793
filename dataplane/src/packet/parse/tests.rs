//! Tables of frames and of what the parser must say of them.

use super::*;
use crate::packet::build::{
    Arp, Extension, FragmentField, FrameBuilder, Icmp, Ipv4, Ipv6, Tag, Tcp,
};
use crate::packet::tcp_flags;

mod faults;

const V4: Ipv4<'_> = Ipv4::new(
    std::net::Ipv4Addr::new(10, 0, 0, 1),
    std::net::Ipv4Addr::new(10, 0, 0, 2),
);
const V6: Ipv6<'_> = Ipv6::new(
    std::net::Ipv6Addr::from_bits(1),
    std::net::Ipv6Addr::from_bits(2),
);
const ARP: Arp = Arp {
    operation: 1,
    sender_mac: [2; 6],
    sender: std::net::Ipv4Addr::new(10, 0, 0, 1),
    target_mac: [0; 6],
    target: std::net::Ipv4Addr::new(10, 0, 0, 2),
};
/// Where the network header stands in a frame without tags, and what lies behind.
const IP: usize = 14;
const V4_PAYLOAD: usize = IP + 20;
const V6_PAYLOAD: usize = IP + 40;

fn built(builder: FrameBuilder<'_>) -> Vec<u8> {
    builder.to_vec().expect("short enough")
}

fn tcp() -> FrameBuilder<'static> {
    FrameBuilder::new().tcp(Tcp::new(1000, 80, tcp_flags::SYN))
}

fn udp() -> FrameBuilder<'static> {
    FrameBuilder::new().udp(1000, 53).payload(b"payload")
}

#[test]
fn short_frames_are_truncated() {
    for length in 0..14 {
        assert_eq!(parse(&vec![0; length]).fault, Some(Fault::Truncated));
    }
}

#[test]
fn frames_longer_than_offsets_reach_are_refused() {
    assert_eq!(parse(&vec![0; MAX_FRAME]).fault, None);
    assert_eq!(parse(&vec![0; MAX_FRAME]).end, u16::MAX);
    assert_eq!(
        parse(&vec![0; MAX_FRAME + 1]),
        Headers {
            fault: Some(Fault::Length),
            ..Headers::default()
        }
    );
}

#[test]
fn every_field_of_a_tagged_tcp_frame() {
    let tags = [Tag::service(7), Tag::customer(42)];
    let options = [1; 4];
    let ip = Ipv4 {
        options: &options,
        ..V4
    };
    assert_eq!(
        parse(&built(tcp().tags(&tags).ipv4(ip).pad_to(100))),
        Headers {
            src: 0x0a00_0001,
            dst: 0x0a00_0002,
            src_port: 1000,
            dst_port: 80,
            ethertype: ethertype::IPV4,
            network_offset: 22,
            transport_offset: 46,
            end: 66,
            protocol: protocol::TCP,
            tcp_flags: tcp_flags::SYN,
            vlan_tags: 2,
            vlan_id: 7,
            network: Network::V4,
            ..Headers::default()
        }
    );
}

#[test]
fn every_field_of_an_ipv6_udp_frame_with_extensions() {
    let extensions = [
        Extension::HopByHop(&[]),
        Extension::Fragment(FragmentField::FIRST, 1),
        Extension::Authentication(&[0; 12]),
    ];
    let ip = Ipv6 {
        extensions: &extensions,
        ..V6
    };
    assert_eq!(
        parse(&built(udp().ipv6(ip))),
        Headers {
            src: 1,
            dst: 2,
            src_port: 1000,
            dst_port: 53,
            ethertype: ethertype::IPV6,
            network_offset: 14,
            transport_offset: 94,
            end: 109,
            protocol: protocol::UDP,
            fragment: Fragment::First,
            network: Network::V6,
            ..Headers::default()
        }
    );
}

#[test]
fn every_field_of_an_arp_frame() {
    assert_eq!(
        parse(&built(FrameBuilder::new().arp(ARP).pad_to(60))),
        Headers {
            src: 0x0a00_0001,
            dst: 0x0a00_0002,
            ethertype: ethertype::ARP,
            network_offset: 14,
            end: 42,
            icmp_type: 1,
            network: Network::Arp,
            ..Headers::default()
        }
    );
}

#[test]
fn ieee_802_3_is_other_with_its_length() {
    let headers = parse(&built(FrameBuilder::new().other(38).payload(&[0x42; 38])));
    assert_eq!(
        (
            headers.network,
            headers.ethertype,
            headers.end,
            headers.fault
        ),
        (Network::Other, 38, 52, None)
    );
}

#[test]
fn fragments_are_told_apart() {
    let field = |offset, more| FragmentField { offset, more };
    for (offset, more, v4, v6) in [
        (0, false, Fragment::None, Fragment::Atomic),
        (0, true, Fragment::First, Fragment::First),
        (1, true, Fragment::Later, Fragment::Later),
        (0x1fff, false, Fragment::Later, Fragment::Later),
    ] {
        let fragment = field(offset, more);
        let four = parse(&built(udp().ipv4(Ipv4 { fragment, ..V4 })));
        let extensions = [Extension::Fragment(fragment, 1)];
        let six = parse(&built(udp().ipv6(Ipv6 {
            extensions: &extensions,
            ..V6
        })));
        assert_eq!((four.fragment, six.fragment), (v4, v6));
        for headers in [four, six] {
            let later = headers.fragment == Fragment::Later;
            assert_eq!(headers.fault, None);
            assert_eq!(headers.protocol, protocol::UDP);
            assert_eq!(headers.dst_port, if later { 0 } else { 53 });
            assert_eq!(headers.transport_offset == 0, later);
        }
    }
}

#[test]
fn protocols_that_end_the_walk() {
    for number in [protocol::ESP, protocol::NO_NEXT_HEADER, 47, 132, 135, 253] {
        let builder = FrameBuilder::new().raw(number).payload(&[0; 4]);
        for frame in [built(builder.clone().ipv4(V4)), built(builder.ipv6(V6))] {
            let headers = parse(&frame);
            assert_eq!((headers.fault, headers.protocol), (None, number));
            assert_eq!(headers.transport_offset + 4, headers.end);
        }
    }
}
