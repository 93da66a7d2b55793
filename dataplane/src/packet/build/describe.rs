//! The parts of a frame as one describes them: plain values with public fields.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::headers::{ethertype, protocol};

/// One VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The EtherType that announces it.
    pub ethertype: u16,
    /// Priority (3 bits), drop eligible (1 bit), VLAN identifier (12 bits).
    pub control: u16,
}

impl Tag {
    /// An 802.1Q customer tag.
    pub const fn customer(vlan: u16) -> Self {
        Self {
            ethertype: ethertype::VLAN,
            control: vlan & 0x0fff,
        }
    }

    /// An 802.1ad service tag.
    pub const fn service(vlan: u16) -> Self {
        Self {
            ethertype: ethertype::QINQ,
            control: vlan & 0x0fff,
        }
    }
}

/// What stands behind the EtherType.
#[derive(Clone, Copy, Debug)]
pub enum NetworkLayer<'a> {
    /// IPv4.
    V4(Ipv4<'a>),
    /// IPv6.
    V6(Ipv6<'a>),
    /// ARP.
    Arp(Arp),
    /// The payload, under this EtherType or 802.3 length.
    Other(u16),
}

/// An IPv4 header. Lengths, protocol and checksum are computed.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Time to live.
    pub ttl: u8,
    /// Identification.
    pub identification: u16,
    /// The flag "don't fragment".
    pub dont_fragment: bool,
    /// Offset and the flag "more fragments".
    pub fragment: FragmentField,
    /// Options; zeros (end of list) fill them up to a multiple of 4. At most 40 bytes.
    pub options: &'a [u8],
}

impl Ipv4<'_> {
    /// A whole datagram without options, time to live 64.
    pub const fn new(src: Ipv4Addr, dst: Ipv4Addr) -> Self {
        Self {
            src,
            dst,
            ttl: 64,
            identification: 0,
            dont_fragment: false,
            fragment: FragmentField::WHOLE,
            options: &[],
        }
    }
}

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentField {
    /// Offset in the datagram, in units of 8 bytes (13 bits).
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
}

impl FragmentField {
    /// Not a fragment (in an IPv6 fragment header: an atomic one).
    pub const WHOLE: Self = Self {
        offset: 0,
        more: false,
    };
    /// The first of several.
    pub const FIRST: Self = Self {
        offset: 0,
        more: true,
    };
}

/// An IPv6 header and its extension headers. Lengths and next headers are computed.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a> {
    /// Source.
    pub src: Ipv6Addr,
    /// Destination.
    pub dst: Ipv6Addr,
    /// Hop limit.
    pub hop_limit: u8,
    /// The extension headers, in the order in which they stand.
    pub extensions: &'a [Extension<'a>],
}

impl Ipv6<'_> {
    /// A packet without extension headers, hop limit 64.
    pub const fn new(src: Ipv6Addr, dst: Ipv6Addr) -> Self {
        Self {
            src,
            dst,
            hop_limit: 64,
            extensions: &[],
        }
    }
}

/// An IPv6 extension header. The bytes of the first three are what follows next header and length; zeros
/// (one-byte padding) fill them up to a multiple of 8, less 2. At most 2,046 bytes.
#[derive(Clone, Copy, Debug)]
pub enum Extension<'a> {
    /// Hop-by-hop options.
    HopByHop(&'a [u8]),
    /// A routing header: type, segments left, data.
    Routing(&'a [u8]),
    /// Destination options.
    DestinationOptions(&'a [u8]),
    /// A fragment header with its identification.
    Fragment(FragmentField, u32),
    /// An authentication header: its integrity check value, at most 1,016 bytes, filled up with zeros to a multiple of 4.
    Authentication(&'a [u8]),
}

impl Extension<'_> {
    /// The number by which the header before it announces it.
    pub const fn protocol(&self) -> u8 {
        match self {
            Self::HopByHop(_) => protocol::HOP_BY_HOP,
            Self::Routing(_) => protocol::ROUTING,
            Self::DestinationOptions(_) => protocol::DESTINATION_OPTIONS,
            Self::Fragment(..) => protocol::FRAGMENT,
            Self::Authentication(_) => protocol::AUTHENTICATION,
        }
    }

    /// Its length on the wire, in bytes.
    pub const fn wire_length(&self) -> usize {
        match self {
            Self::HopByHop(data) | Self::Routing(data) | Self::DestinationOptions(data) => {
                (2 + data.len()).next_multiple_of(8)
            }
            Self::Fragment(..) => 8,
            Self::Authentication(icv) => 12 + icv.len().next_multiple_of(4),
        }
    }
}

/// An ARP packet for Ethernet and IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// 1 is a request, 2 a reply.
    pub operation: u16,
    /// Sender's hardware address.
    pub sender_mac: [u8; 6],
    /// Sender's protocol address.
    pub sender: Ipv4Addr,
    /// Target's hardware address; zero in a request.
    pub target_mac: [u8; 6],
    /// Target's protocol address.
    pub target: Ipv4Addr,
}

/// What stands behind the IP headers.
#[derive(Clone, Copy, Debug)]
pub enum TransportLayer<'a> {
    /// TCP.
    Tcp(Tcp<'a>),
    /// UDP.
    Udp(Udp),
    /// ICMP, or ICMPv6 in IPv6.
    Icmp(Icmp),
    /// The payload, under this protocol number.
    Raw(u8),
}

/// A TCP header.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp<'a> {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// Flags (see [`tcp_flags`](crate::packet::tcp_flags)).
    pub flags: u8,
    /// Receive window.
    pub window: u16,
    /// Options; zeros (end of list) fill them up to a multiple of 4. At most 40 bytes.
    pub options: &'a [u8],
}

impl Tcp<'_> {
    /// A segment with these ports and flags, everything else zero but the window.
    pub const fn new(src_port: u16, dst_port: u16, flags: u8) -> Self {
        Self {
            src_port,
            dst_port,
            sequence: 0,
            acknowledgment: 0,
            flags,
            window: 0xffff,
            options: &[],
        }
    }
}

/// A UDP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
}

/// An ICMP or ICMPv6 header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes behind the checksum: of echo the identifier and sequence number.
    pub rest: [u8; 4],
}

/// What stands in the checksum field of TCP and UDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// The checksum, over what the frame holds (of a fragment, too: no datagram is at hand).
    #[default]
    Complete,
    /// The pseudo header's sum, as a sender leaves it to hardware (`CHECKSUM_PARTIAL`).
    Partial,
    /// Zero: for UDP over IPv4 none, for all else wrong.
    Zero,
}
