//! What a verdict needs to know of a frame, in one cache line. Filled by the parser, read by the policy.

/// The network layer that a frame carries behind its Ethernet header and VLAN tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Network {
    /// Anything that is none of the others: another EtherType, or an 802.3 length with LLC.
    #[default]
    Other,
    /// IPv4 (RFC 791).
    V4,
    /// IPv6 (RFC 8200).
    V6,
    /// ARP for Ethernet and IPv4 (RFC 826).
    Arp,
}

/// Where in a fragmented datagram the frame stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Fragment {
    /// Not a fragment.
    #[default]
    None,
    /// Offset 0 with more to follow: the transport header is here.
    First,
    /// An IPv6 fragment header with offset 0 and nothing to follow (RFC 6946): whole.
    Atomic,
    /// Offset above 0: there is no transport header to look at.
    Later,
}

/// The first thing that is wrong with a frame, in the order in which the parser meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// The frame ends inside a header that its previous header announces.
    Truncated,
    /// Two lengths contradict each other, or one contradicts the frame's.
    Length,
    /// A field has a value that its protocol forbids: a version, a header length.
    Header,
    /// More VLAN tags or IPv6 extension headers than the parser walks.
    TooDeep,
}

/// The headers of one frame.
///
/// Addresses are numbers in host order; IPv4 stands in the low 32 bits. Fields that the frame does
/// not have are zero. When [`fault`](Self::fault) is set, the fields of the faulty header and of those
/// behind it are zero; what the headers before it said of it (`ethertype`, `network`,
/// `network_offset`, `protocol`, `transport_offset`) stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Headers {
    /// Source address; for ARP the sender protocol address.
    pub src: u128,
    /// Destination address; for ARP the target protocol address.
    pub dst: u128,
    /// Source port of TCP and UDP.
    pub src_port: u16,
    /// Destination port of TCP and UDP.
    pub dst_port: u16,
    /// The last EtherType, behind all VLAN tags; for 802.3 the length field.
    pub ethertype: u16,
    /// Offset of the network header from the frame's first byte.
    pub network_offset: u16,
    /// Offset of the first byte behind the IP headers, whatever the protocol; 0 when there is none
    /// (later fragments, ARP, faults before it).
    pub transport_offset: u16,
    /// Offset of the first byte behind the network layer's own length: behind it stands padding. The
    /// frame's length for [`Network::Other`].
    pub end: u16,
    /// The IP protocol behind all extension headers, and behind an authentication header of IPv4.
    pub protocol: u8,
    /// TCP flags, as on the wire (see [`tcp_flags`]).
    pub tcp_flags: u8,
    /// ICMP or ICMPv6 type; for ARP the operation (one above 255 is a fault).
    pub icmp_type: u8,
    /// ICMP or ICMPv6 code.
    pub icmp_code: u8,
    /// How many VLAN tags stand before the EtherType.
    pub vlan_tags: u8,
    /// Which network layer.
    pub network: Network,
    /// Where in a fragmented datagram.
    pub fragment: Fragment,
    /// What is wrong with the frame, if anything.
    pub fault: Option<Fault>,
    /// The outermost tag's VLAN identifier (12 bits), 0 without a tag.
    pub vlan_id: u16,
}

// A batch of them is read line by line.
const _: () = assert!(size_of::<Headers>() == 64);

/// EtherTypes (IEEE 802 numbers).
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// 802.1Q customer tag.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad service tag (QinQ).
    pub const QINQ: u16 = 0x88a8;
    /// The outer tag of QinQ as switches wrote it before 802.1ad.
    pub const QINQ_OLD: u16 = 0x9100;
}

/// IP protocol numbers.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Encapsulating security payload (RFC 4303): what follows is encrypted.
    pub const ESP: u8 = 50;
    /// Authentication header (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6: nothing follows.
    pub const NO_NEXT_HEADER: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// TCP flag bits (RFC 9293, section 3.1).
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers: opens a connection.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment number is valid.
    pub const ACK: u8 = 0x10;
}
