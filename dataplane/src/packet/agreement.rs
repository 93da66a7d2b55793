//! `parse` agrees with etherparse on every input. etherparse is asked layer by layer, its answer is put
//! into the words of [`Headers`], and the whole of it must be equal. Where `parse` is deliberately
//! different there is a [`Difference`]; no other exists, and a table shows that each one is met.

use etherparse::err::{Layer, LenError, packet::SliceError, tcp};
use etherparse::{
    ArpHardwareId, EtherType, Icmpv4Slice, Icmpv6Slice, IpNumber, Ipv4ExtensionsSlice,
    Ipv4HeaderSlice, Ipv6ExtensionSlice, Ipv6ExtensionsSlice, Ipv6HeaderSlice, LaxLinkExtSlice,
    LaxSlicedPacket, LenSource, LinkSlice, NetSlice, SlicedPacket, TcpSlice, TransportSlice,
    UdpSlice, ether_type, ip_number,
};

use super::parse::is_extension;
use super::{Fault, Fragment, Headers, MAX_EXTENSIONS, MAX_FRAME, MAX_VLAN_TAGS, Network};

mod tests;

/// Every place where `parse` says something else than etherparse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// Frames beyond 65,535 bytes: not read, for offsets are 16 bits wide.
    FrameTooLong,
    /// etherparse stops at three tags, `parse` at four: etherparse is asked again behind the third.
    FourthTag,
    /// A fifth tag is a fault.
    FifthTag,
    /// etherparse looks behind MACsec without encryption; here it is an EtherType like any other.
    Macsec,
    /// ARP for other than Ethernet and IPv4 is a fault.
    ArpForOthers,
    /// An ARP operation above 255 is a fault.
    ArpOperation,
    /// etherparse reads an authentication header in a later fragment, where there is payload.
    BehindLaterFragmentV4,
    /// The same for extension headers of IPv6.
    BehindLaterFragmentV6,
    /// Payload length 0 with hop-by-hop options announces a jumbogram: a fault.
    Jumbogram,
    /// Payload length 0 without them: etherparse takes padding for payload.
    EmptyPayload,
    /// A ninth extension header is a fault.
    NinthExtension,
    /// A second fragment header is a fault.
    SecondFragmentHeader,
    /// ICMP in IPv6 and ICMPv6 in IPv4 are faults.
    ForeignIcmp,
    /// etherparse wants exactly 20 bytes of an ICMP timestamp; here 8 do, as for every message.
    IcmpTimestamp,
    /// etherparse looks into IGMP; here it is a protocol like any other.
    Igmp,
    /// UDP length 0 (RFC 2675) belongs to jumbograms: a fault.
    UdpLengthZero,
}

impl Difference {
    const ALL: [Self; 16] = [
        Self::FrameTooLong,
        Self::FourthTag,
        Self::FifthTag,
        Self::Macsec,
        Self::ArpForOthers,
        Self::ArpOperation,
        Self::BehindLaterFragmentV4,
        Self::BehindLaterFragmentV6,
        Self::Jumbogram,
        Self::EmptyPayload,
        Self::NinthExtension,
        Self::SecondFragmentHeader,
        Self::ForeignIcmp,
        Self::IcmpTimestamp,
        Self::Igmp,
        Self::UdpLengthZero,
    ];
}

/// etherparse's view of a frame, with the differences that it took to put it into our words.
struct Reference {
    headers: Headers,
    differences: Vec<Difference>,
}

fn reference(frame: &[u8]) -> Reference {
    let mut reference = Reference {
        headers: Headers::default(),
        differences: Vec::new(),
    };
    reference.headers.fault = reference.link(frame).err();
    reference
}

impl Reference {
    fn differ(&mut self, difference: Difference) {
        self.differences.push(difference);
    }

    fn link(&mut self, frame: &[u8]) -> Result<(), Fault> {
        if frame.len() > MAX_FRAME {
            self.differ(Difference::FrameTooLong);
            return Err(Fault::Length);
        }
        let mut sliced = LaxSlicedPacket::from_ethernet(frame).map_err(|error| length(&error))?;
        let Some(LinkSlice::Ethernet2(ethernet)) = &sliced.link else {
            panic!("from_ethernet without Ethernet");
        };
        let (mut kind, mut rest) = (ethernet.ether_type(), ethernet.payload_slice());
        'tags: loop {
            for extension in &sliced.link_exts {
                let LaxLinkExtSlice::Vlan(tag) = extension else {
                    self.differ(Difference::Macsec);
                    break 'tags;
                };
                if self.headers.vlan_tags == 0 {
                    self.headers.vlan_id = tag.vlan_identifier().value();
                }
                self.headers.vlan_tags += 1;
                (kind, rest) = (tag.ether_type(), tag.payload_slice());
                if self.headers.vlan_tags == MAX_VLAN_TAGS {
                    break;
                }
            }
            if !is_tag(kind) {
                break;
            }
            if self.headers.vlan_tags == MAX_VLAN_TAGS {
                self.differ(Difference::FifthTag);
                return Err(Fault::TooDeep);
            }
            if sliced.link_exts.len() < LaxSlicedPacket::LINK_EXTS_CAP {
                return Err(Fault::Truncated);
            }
            self.differ(Difference::FourthTag);
            sliced = LaxSlicedPacket::from_ether_type(kind, rest);
        }
        self.headers.ethertype = kind.0;
        self.headers.network_offset = (frame.len() - rest.len()) as u16;
        match kind {
            ether_type::IPV4 => self.ipv4(rest),
            ether_type::IPV6 => self.ipv6(rest),
            ether_type::ARP => self.arp(rest),
            _ => {
                self.headers.end = frame.len() as u16;
                Ok(())
            }
        }
    }

    fn ipv4(&mut self, packet: &[u8]) -> Result<(), Fault> {
        self.headers.network = Network::V4;
        let strict = SlicedPacket::from_ether_type(ether_type::IPV4, packet);
        if let Err(error) = &strict
            && is_of(error, &[Layer::Ipv4Header, Layer::Ipv4Packet])
        {
            return Err(fault(error));
        }
        let header = Ipv4HeaderSlice::from_slice(packet).expect("sliced without an error of IPv4");
        self.headers.src = u128::from(header.source_addr().to_bits());
        self.headers.dst = u128::from(header.destination_addr().to_bits());
        self.headers.end = self.headers.network_offset + header.total_len();
        let offset = header.fragments_offset().value();
        self.headers.fragment = fragment(offset, header.more_fragments(), Fragment::None);
        if self.headers.fragment == Fragment::Later {
            if header.protocol() == ip_number::AUTH {
                self.differ(Difference::BehindLaterFragmentV4);
            }
            self.headers.protocol = header.protocol().0;
            return Ok(());
        }
        let payload = &packet[header.slice().len()..usize::from(header.total_len())];
        match Ipv4ExtensionsSlice::from_slice_lax(header.protocol(), payload) {
            (_, _, _, Some(_)) => Err(fault(&strict.expect_err("its extension has one"))),
            (_, next, payload, None) => self.transport(next, payload, strict),
        }
    }

    fn ipv6(&mut self, mut packet: &[u8]) -> Result<(), Fault> {
        self.headers.network = Network::V6;
        if let Ok(header) = Ipv6HeaderSlice::from_slice(packet)
            && header.payload_length() == 0
        {
            if header.next_header() == ip_number::IPV6_HOP_BY_HOP {
                self.differ(Difference::Jumbogram);
                return Err(Fault::Length);
            }
            if packet.len() > header.slice().len() {
                self.differ(Difference::EmptyPayload);
                packet = header.slice();
            }
        }
        let strict = SlicedPacket::from_ether_type(ether_type::IPV6, packet);
        if let Err(error) = &strict
            && is_of(error, &[Layer::Ipv6Header, Layer::Ipv6Packet])
        {
            return Err(fault(error));
        }
        let header = Ipv6HeaderSlice::from_slice(packet).expect("sliced without an error of IPv6");
        self.headers.src = header.source_addr().to_bits();
        self.headers.dst = header.destination_addr().to_bits();
        let length = header.slice().len() + usize::from(header.payload_length());
        self.headers.end = self.headers.network_offset + length as u16;

        let payload = &packet[header.slice().len()..length];
        let (extensions, next, payload, error) =
            Ipv6ExtensionsSlice::from_slice_lax(header.next_header(), payload);
        let (mut walked, mut left) = (0, extensions.slice().len());
        let mut extensions = extensions.into_iter();
        // Never asked for more than was sliced: behind an error, etherparse 0.21.0's iterator reads past
        // the end of its slice, unchecked.
        while left > 0 {
            let extension = extensions.next().expect("bytes are left");
            left -= match &extension {
                Ipv6ExtensionSlice::HopByHop(header)
                | Ipv6ExtensionSlice::Routing(header)
                | Ipv6ExtensionSlice::DestinationOptions(header) => header.slice().len(),
                Ipv6ExtensionSlice::Fragment(header) => header.slice().len(),
                Ipv6ExtensionSlice::Authentication(header) => header.slice().len(),
            };
            if walked == MAX_EXTENSIONS {
                self.differ(Difference::NinthExtension);
                return Err(Fault::TooDeep);
            }
            walked += 1;
            let Ipv6ExtensionSlice::Fragment(header) = extension else {
                continue;
            };
            if self.headers.fragment != Fragment::None {
                self.differ(Difference::SecondFragmentHeader);
                return Err(Fault::Header);
            }
            let offset = header.fragment_offset().value();
            self.headers.fragment = fragment(offset, header.more_fragments(), Fragment::Atomic);
            if self.headers.fragment == Fragment::Later {
                if is_extension(header.next_header().0) {
                    self.differ(Difference::BehindLaterFragmentV6);
                }
                self.headers.protocol = header.next_header().0;
                return Ok(());
            }
        }
        if error.is_none() {
            return self.transport(next, payload, strict);
        }
        if walked == MAX_EXTENSIONS {
            self.differ(Difference::NinthExtension);
            return Err(Fault::TooDeep);
        }
        Err(fault(&strict.expect_err("its extensions have one")))
    }

    fn transport(
        &mut self,
        next: IpNumber,
        payload: &[u8],
        strict: Result<SlicedPacket<'_>, SliceError>,
    ) -> Result<(), Fault> {
        let headers = &mut self.headers;
        headers.protocol = next.0;
        headers.transport_offset = headers.end - payload.len() as u16;
        let own_icmp = match headers.network {
            Network::V4 => ip_number::ICMP,
            _ => ip_number::IPV6_ICMP,
        };
        if [ip_number::ICMP, ip_number::IPV6_ICMP].contains(&next) && next != own_icmp {
            self.differ(Difference::ForeignIcmp);
            return Err(Fault::Header);
        }
        let sliced = match headers.fragment {
            // etherparse leaves these to whoever defragments: asked for the header alone.
            Fragment::First => first_fragment(next, payload),
            _ => strict.map(|packet| packet.transport),
        };
        match sliced {
            Ok(Some(TransportSlice::Tcp(header))) => {
                headers.src_port = header.source_port();
                headers.dst_port = header.destination_port();
                // FIN to CWR, as etherparse names them.
                let flags = [
                    header.fin(),
                    header.syn(),
                    header.rst(),
                    header.psh(),
                    header.ack(),
                    header.urg(),
                    header.ece(),
                    header.cwr(),
                ];
                headers.tcp_flags = (0..8).map(|bit| u8::from(flags[bit]) << bit).sum();
            }
            Ok(Some(TransportSlice::Udp(header))) => {
                if header.length() < 8 {
                    if header.length() == 0 {
                        self.differ(Difference::UdpLengthZero);
                    }
                    return Err(Fault::Length);
                }
                headers.src_port = header.source_port();
                headers.dst_port = header.destination_port();
            }
            Ok(Some(TransportSlice::Icmpv4(header))) => {
                (headers.icmp_type, headers.icmp_code) = (header.type_u8(), header.code_u8());
            }
            Ok(Some(TransportSlice::Icmpv6(header))) => {
                (headers.icmp_type, headers.icmp_code) = (header.type_u8(), header.code_u8());
            }
            Ok(Some(TransportSlice::Igmp(_))) => self.differ(Difference::Igmp),
            Ok(None) => {}
            Err(error) if is_of(&error, &[Layer::Igmp]) => self.differ(Difference::Igmp),
            Err(error)
                if is_of(
                    &error,
                    &[Layer::Icmpv4Timestamp, Layer::Icmpv4TimestampReply],
                ) =>
            {
                (headers.icmp_type, headers.icmp_code) = (payload[0], payload[1]);
                self.differ(Difference::IcmpTimestamp);
            }
            Err(error) => return Err(fault(&error)),
        }
        Ok(())
    }

    fn arp(&mut self, packet: &[u8]) -> Result<(), Fault> {
        self.headers.network = Network::Arp;
        if packet.len() < 28 {
            // For addresses shorter than Ethernet's and IPv4's etherparse is content with less.
            return Err(Fault::Truncated);
        }
        let sliced = SlicedPacket::from_ether_type(ether_type::ARP, packet);
        let Ok(Some(NetSlice::Arp(arp))) = sliced.map(|packet| packet.net) else {
            self.differ(Difference::ArpForOthers);
            return Err(Fault::Header);
        };
        if arp.hw_addr_type() != ArpHardwareId::ETHERNET
            || arp.proto_addr_type() != ether_type::IPV4
            || arp.hw_addr_size() != 6
            || arp.proto_addr_size() != 4
        {
            self.differ(Difference::ArpForOthers);
            return Err(Fault::Header);
        }
        let Ok(operation) = u8::try_from(arp.operation().0) else {
            self.differ(Difference::ArpOperation);
            return Err(Fault::Header);
        };
        let address = |bytes: &[u8]| {
            let bytes: [u8; 4] = bytes.try_into().expect("the size was checked");
            u128::from(u32::from_be_bytes(bytes))
        };
        self.headers.icmp_type = operation;
        self.headers.src = address(arp.sender_protocol_addr());
        self.headers.dst = address(arp.target_protocol_addr());
        self.headers.end = self.headers.network_offset + 28;
        Ok(())
    }
}

/// What a first fragment shows of its transport layer.
fn first_fragment(
    next: IpNumber,
    payload: &[u8],
) -> Result<Option<TransportSlice<'_>>, SliceError> {
    let sliced = match next {
        ip_number::TCP => {
            TransportSlice::Tcp(TcpSlice::from_slice(payload).map_err(|error| match error {
                tcp::HeaderSliceError::Len(error) => SliceError::Len(error),
                tcp::HeaderSliceError::Content(error) => SliceError::Tcp(error),
            })?)
        }
        // Lax: the length is that of the datagram.
        ip_number::UDP => {
            TransportSlice::Udp(UdpSlice::from_slice_lax(payload).map_err(SliceError::Len)?)
        }
        ip_number::ICMP => {
            TransportSlice::Icmpv4(Icmpv4Slice::from_slice(payload).map_err(SliceError::Len)?)
        }
        ip_number::IPV6_ICMP => {
            TransportSlice::Icmpv6(Icmpv6Slice::from_slice(payload).map_err(SliceError::Len)?)
        }
        _ => return Ok(None),
    };
    Ok(Some(sliced))
}

fn is_tag(kind: EtherType) -> bool {
    [
        ether_type::VLAN_TAGGED_FRAME,
        ether_type::PROVIDER_BRIDGING,
        ether_type::VLAN_DOUBLE_TAGGED_FRAME,
    ]
    .contains(&kind)
}

fn fragment(offset: u16, more: bool, whole: Fragment) -> Fragment {
    match (offset, more) {
        (0, false) => whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    }
}

/// Whether `error` is of one of `layers`; errors in a field's value are of the layer of the header.
fn is_of(error: &SliceError, layers: &[Layer]) -> bool {
    let layer = match error {
        SliceError::Len(error) => error.layer,
        SliceError::Ipv4(_) => Layer::Ipv4Header,
        SliceError::Ipv6(_) => Layer::Ipv6Header,
        _ => return false,
    };
    layers.contains(&layer)
}

/// etherparse's errors in our words: a value, a header that does not fit, or a length that lies.
fn fault(error: &SliceError) -> Fault {
    match error {
        SliceError::Len(error) => length(error),
        _ => Fault::Header,
    }
}

fn length(error: &LenError) -> Fault {
    match (error.layer, error.len_source) {
        (Layer::Ipv4Packet | Layer::Ipv6Packet | Layer::UdpPayload, _)
        | (Layer::UdpHeader, LenSource::UdpHeaderLen) => Fault::Length,
        _ => Fault::Truncated,
    }
}
