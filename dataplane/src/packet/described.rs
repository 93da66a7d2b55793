//! Arbitrary frames for property tests: a description that owns its parts, the frame that the builder
//! makes of it, and the headers that a parser must find in it.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proptest::{collection, option};

use super::build::{Arp, Extension, FragmentField, FrameBuilder, Icmp, Ipv4, Ipv6, Tag, Tcp};
use super::{Fragment, Headers, Network, ethertype, protocol};

#[derive(Clone, Debug)]
pub(super) struct Described {
    tags: Vec<Tag>,
    network: Net,
    transport: Transport,
    payload: Vec<u8>,
    minimum: usize,
}

#[derive(Clone, Debug)]
enum Net {
    V4 {
        src: u32,
        dst: u32,
        fragment: FragmentField,
        options: Vec<u8>,
    },
    V6 {
        src: u128,
        dst: u128,
        extensions: Vec<Ext>,
    },
    Arp(Arp),
    Other(u16),
}

#[derive(Clone, Debug)]
enum Ext {
    HopByHop(Vec<u8>),
    Routing(Vec<u8>),
    Destination(Vec<u8>),
    Fragment(FragmentField),
    Authentication(Vec<u8>),
}

#[derive(Clone, Debug)]
enum Transport {
    Tcp {
        ports: (u16, u16),
        flags: u8,
        options: Vec<u8>,
    },
    Udp {
        ports: (u16, u16),
    },
    Icmp {
        kind: u8,
        code: u8,
    },
    Raw(u8),
}

impl Ext {
    fn borrowed(&self) -> Extension<'_> {
        match self {
            Self::HopByHop(data) => Extension::HopByHop(data),
            Self::Routing(data) => Extension::Routing(data),
            Self::Destination(data) => Extension::DestinationOptions(data),
            Self::Fragment(field) => Extension::Fragment(*field, 7),
            Self::Authentication(icv) => Extension::Authentication(icv),
        }
    }
}

impl Described {
    pub(super) fn frame(&self) -> Vec<u8> {
        let builder = FrameBuilder::new()
            .tags(&self.tags)
            .payload(&self.payload)
            .pad_to(self.minimum);
        let builder = match &self.transport {
            Transport::Tcp {
                ports,
                flags,
                options,
            } => builder.tcp(Tcp {
                options,
                ..Tcp::new(ports.0, ports.1, *flags)
            }),
            Transport::Udp { ports } => builder.udp(ports.0, ports.1),
            Transport::Icmp { kind, code } => builder.icmp(Icmp {
                kind: *kind,
                code: *code,
                rest: [1, 2, 3, 4],
            }),
            Transport::Raw(protocol) => builder.raw(*protocol),
        };
        let extensions: Vec<Extension<'_>>;
        let builder = match &self.network {
            Net::V4 {
                src,
                dst,
                fragment,
                options,
            } => builder.ipv4(Ipv4 {
                fragment: *fragment,
                options,
                ..Ipv4::new(Ipv4Addr::from_bits(*src), Ipv4Addr::from_bits(*dst))
            }),
            Net::V6 {
                src,
                dst,
                extensions: owned,
            } => {
                extensions = owned.iter().map(Ext::borrowed).collect();
                builder.ipv6(Ipv6 {
                    extensions: &extensions,
                    ..Ipv6::new(Ipv6Addr::from_bits(*src), Ipv6Addr::from_bits(*dst))
                })
            }
            Net::Arp(packet) => builder.arp(*packet),
            Net::Other(ethertype) => builder.other(*ethertype),
        };
        builder.to_vec().expect("every part is short enough")
    }

    /// What the description says, in the parser's words.
    pub(super) fn headers(&self) -> Headers {
        let network_offset = 14 + 4 * self.tags.len();
        let mut headers = Headers {
            network_offset: network_offset as u16,
            vlan_tags: self.tags.len() as u8,
            vlan_id: self.tags.first().map_or(0, |tag| tag.control & 0x0fff),
            ..Headers::default()
        };
        match &self.network {
            Net::V4 {
                src,
                dst,
                fragment,
                options,
            } => {
                headers.ethertype = ethertype::IPV4;
                headers.network = Network::V4;
                (headers.src, headers.dst) = (u128::from(*src), u128::from(*dst));
                headers.fragment = position(*fragment, Fragment::None);
                let header = network_offset + 20 + options.len().next_multiple_of(4);
                headers.end = (header + self.segment()) as u16;
                self.add_transport(&mut headers, header, protocol::ICMP);
            }
            Net::V6 {
                src,
                dst,
                extensions,
            } => {
                headers.ethertype = ethertype::IPV6;
                headers.network = Network::V6;
                (headers.src, headers.dst) = (*src, *dst);
                let lengths: usize = extensions.iter().map(|e| e.borrowed().wire_length()).sum();
                let header = network_offset + 40 + lengths;
                headers.end = (header + self.segment()) as u16;
                for (at, extension) in extensions.iter().enumerate() {
                    let Ext::Fragment(field) = extension else {
                        continue;
                    };
                    headers.fragment = position(*field, Fragment::Atomic);
                    if let (Fragment::Later, Some(next)) =
                        (headers.fragment, extensions.get(at + 1))
                    {
                        headers.protocol = next.borrowed().protocol();
                        return headers;
                    }
                }
                self.add_transport(&mut headers, header, protocol::ICMPV6);
            }
            Net::Arp(packet) => {
                headers.ethertype = ethertype::ARP;
                headers.network = Network::Arp;
                headers.src = u128::from(packet.sender.to_bits());
                headers.dst = u128::from(packet.target.to_bits());
                headers.icmp_type = packet.operation as u8;
                headers.end = (network_offset + 28) as u16;
            }
            Net::Other(ethertype) => {
                headers.ethertype = *ethertype;
                headers.end = (network_offset + self.payload.len()).max(self.minimum) as u16;
            }
        }
        headers
    }

    fn segment(&self) -> usize {
        let header = match &self.transport {
            Transport::Tcp { options, .. } => 20 + options.len().next_multiple_of(4),
            Transport::Udp { .. } | Transport::Icmp { .. } => 8,
            Transport::Raw(_) => 0,
        };
        header + self.payload.len()
    }

    fn add_transport(&self, headers: &mut Headers, at: usize, icmp: u8) {
        let later = headers.fragment == Fragment::Later;
        headers.transport_offset = if later { 0 } else { at as u16 };
        headers.protocol = match self.transport {
            Transport::Tcp { .. } => protocol::TCP,
            Transport::Udp { .. } => protocol::UDP,
            Transport::Icmp { .. } => icmp,
            Transport::Raw(protocol) => protocol,
        };
        if later {
            return;
        }
        match self.transport {
            Transport::Tcp { ports, flags, .. } => {
                (headers.src_port, headers.dst_port) = ports;
                headers.tcp_flags = flags;
            }
            Transport::Udp { ports } => (headers.src_port, headers.dst_port) = ports,
            Transport::Icmp { kind, code } => {
                (headers.icmp_type, headers.icmp_code) = (kind, code);
            }
            Transport::Raw(_) => {}
        }
    }
}

fn position(field: FragmentField, whole: Fragment) -> Fragment {
    match field {
        FragmentField::WHOLE => whole,
        FragmentField { offset: 0, .. } => Fragment::First,
        _ => Fragment::Later,
    }
}

/// Frames without a fault, of every shape that the builder knows.
pub(super) fn frames() -> impl Strategy<Value = Described> {
    (
        collection::vec(tag(), 0..=4),
        network(),
        transport(),
        bytes(40),
        prop_oneof![Just(0), Just(60)],
    )
        .prop_map(|(tags, network, transport, payload, minimum)| Described {
            tags,
            network,
            transport,
            payload,
            minimum,
        })
}

fn bytes(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(Vec::new()), collection::vec(any::<u8>(), 0..=longest)]
}

fn tag() -> impl Strategy<Value = Tag> {
    const ANNOUNCED: &[u16] = &[ethertype::VLAN, ethertype::QINQ, ethertype::QINQ_OLD];
    (proptest::sample::select(ANNOUNCED), any::<u16>())
        .prop_map(|(ethertype, control)| Tag { ethertype, control })
}

fn fragment() -> impl Strategy<Value = FragmentField> {
    prop_oneof![
        3 => Just(FragmentField::WHOLE),
        1 => Just(FragmentField::FIRST),
        1 => (1u16..0x2000, any::<bool>()).prop_map(|(offset, more)| FragmentField { offset, more }),
    ]
}

fn network() -> impl Strategy<Value = Net> {
    let extension = prop_oneof![
        bytes(30).prop_map(Ext::Routing),
        bytes(30).prop_map(Ext::Destination),
        bytes(30).prop_map(Ext::Authentication),
    ];
    let extensions = (
        option::of(bytes(30).prop_map(Ext::HopByHop)),
        collection::vec(extension.clone(), 0..=3),
        option::of(fragment().prop_map(Ext::Fragment)),
        collection::vec(extension, 0..=3),
    )
        .prop_map(|(first, before, fragment, behind)| {
            let before = first.into_iter().chain(before);
            before.chain(fragment).chain(behind).collect::<Vec<_>>()
        });
    prop_oneof![
        4 => (any::<u32>(), any::<u32>(), fragment(), bytes(40)).prop_map(
            |(src, dst, fragment, options)| Net::V4 { src, dst, fragment, options }
        ),
        4 => (any::<u128>(), any::<u128>(), extensions).prop_map(
            |(src, dst, extensions)| Net::V6 { src, dst, extensions }
        ),
        1 => (0u16..256, any::<[u8; 6]>(), any::<u32>(), any::<u32>()).prop_map(
            |(operation, sender_mac, sender, target)| Net::Arp(Arp {
                operation,
                sender_mac,
                sender: sender.into(),
                target_mac: [0; 6],
                target: target.into(),
            })
        ),
        1 => prop_oneof![Just(0x88b5), 0u16..0x0600].prop_map(Net::Other),
    ]
}

fn transport() -> impl Strategy<Value = Transport> {
    // ESP, no next header, SCTP, GRE: numbers that no parser here looks behind.
    const OTHERS: &[u8] = &[protocol::ESP, protocol::NO_NEXT_HEADER, 132, 47];
    prop_oneof![
        3 => (any::<(u16, u16)>(), any::<u8>(), bytes(40)).prop_map(
            |(ports, flags, options)| Transport::Tcp { ports, flags, options }
        ),
        3 => any::<(u16, u16)>().prop_map(|ports| Transport::Udp { ports }),
        2 => any::<(u8, u8)>().prop_map(|(kind, code)| Transport::Icmp { kind, code }),
        1 => proptest::sample::select(OTHERS).prop_map(Transport::Raw),
    ]
}
