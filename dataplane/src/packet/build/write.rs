//! Writes a described frame: lengths first, then the headers from the outside in, then the checksum.

use super::super::checksum::{fold, internet, pseudo_v4, pseudo_v6, write_checksum};
use super::super::headers::{ethertype, protocol};
use super::{
    Arp, BuildError, Checksum, Extension, FrameBuilder, Ipv4, Ipv6, NetworkLayer, TransportLayer,
};

/// Fills a slice from its start. Its length was computed beforehand by [`FrameBuilder::length`].
struct Writer<'b> {
    frame: &'b mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.frame[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// `bytes`, then zeros up to `length`.
    fn padded(&mut self, bytes: &[u8], length: usize) {
        self.bytes(bytes);
        let padding = length - bytes.len();
        self.frame[self.at..self.at + padding].fill(0);
        self.at += padding;
    }
}

fn limit(part: &'static str, length: usize, limit: usize) -> Result<usize, BuildError> {
    if length > limit {
        return Err(BuildError::TooLong {
            part,
            length,
            limit,
        });
    }
    Ok(length)
}

impl FrameBuilder<'_> {
    /// How long the frame will be, in bytes; or which part of it is too long.
    pub fn length(&self) -> Result<usize, BuildError> {
        let link = 14 + 4 * self.tags.len();
        let network = match &self.network {
            NetworkLayer::V4(ip) => {
                let options = limit("the IPv4 options", ip.options.len(), 40)?;
                let header = 20 + options.next_multiple_of(4);
                limit("the IPv4 packet", header + self.segment()?, 0xffff)?
            }
            NetworkLayer::V6(ip) => {
                let mut length = 0;
                for extension in ip.extensions {
                    length += match extension {
                        Extension::Authentication(icv) => {
                            limit("the integrity check value", icv.len(), 1016)?;
                            extension.wire_length()
                        }
                        _ => limit("an IPv6 extension header", extension.wire_length(), 2048)?,
                    };
                }
                40 + limit("the IPv6 payload", length + self.segment()?, 0xffff)?
            }
            NetworkLayer::Arp(_) => 28 + self.payload.len(),
            NetworkLayer::Other(_) => self.payload.len(),
        };
        Ok((link + network).max(self.minimum))
    }

    /// The length of transport header and payload.
    fn segment(&self) -> Result<usize, BuildError> {
        let header = match &self.transport {
            TransportLayer::Tcp(tcp) => {
                20 + limit("the TCP options", tcp.options.len(), 40)?.next_multiple_of(4)
            }
            TransportLayer::Udp(_) | TransportLayer::Icmp(_) => 8,
            TransportLayer::Raw(_) => 0,
        };
        Ok(header + self.payload.len())
    }

    /// Writes the frame to the start of `buffer` and returns its length in bytes. What `buffer` held
    /// there does not matter; behind the frame it is left alone, and entirely when this fails.
    pub fn write_to(&self, buffer: &mut [u8]) -> Result<usize, BuildError> {
        let needed = self.length()?;
        let have = buffer.len();
        let Some(frame) = buffer.get_mut(..needed) else {
            return Err(BuildError::BufferTooSmall { needed, have });
        };
        let mut to = Writer { frame, at: 0 };
        to.bytes(&self.dst);
        to.bytes(&self.src);
        for tag in self.tags {
            to.u16(tag.ethertype);
            to.u16(tag.control);
        }
        match &self.network {
            NetworkLayer::V4(ip) => {
                to.u16(ethertype::IPV4);
                self.ipv4_header(&mut to, ip, self.segment()?);
            }
            NetworkLayer::V6(ip) => {
                to.u16(ethertype::IPV6);
                self.ipv6_headers(&mut to, ip, self.segment()?);
            }
            NetworkLayer::Arp(packet) => {
                to.u16(ethertype::ARP);
                arp_packet(&mut to, packet);
                to.bytes(self.payload);
            }
            NetworkLayer::Other(ethertype) => {
                to.u16(*ethertype);
                to.bytes(self.payload);
            }
        }
        to.padded(&[], needed - to.at);
        Ok(needed)
    }

    /// The protocol number of the transport layer.
    fn protocol(&self) -> u8 {
        match (&self.transport, &self.network) {
            (TransportLayer::Tcp(_), _) => protocol::TCP,
            (TransportLayer::Udp(_), _) => protocol::UDP,
            (TransportLayer::Icmp(_), NetworkLayer::V6(_)) => protocol::ICMPV6,
            (TransportLayer::Icmp(_), _) => protocol::ICMP,
            (TransportLayer::Raw(protocol), _) => *protocol,
        }
    }

    fn ipv4_header(&self, to: &mut Writer<'_>, ip: &Ipv4<'_>, segment: usize) {
        let start = to.at;
        let header = 20 + ip.options.len().next_multiple_of(4);
        to.bytes(&[0x40 | (header / 4) as u8, 0]);
        to.u16((header + segment) as u16);
        to.u16(ip.identification);
        let flags = u16::from(ip.dont_fragment) << 14 | u16::from(ip.fragment.more) << 13;
        to.u16(flags | (ip.fragment.offset & 0x1fff));
        to.bytes(&[ip.ttl, self.protocol(), 0, 0]);
        to.bytes(&ip.src.octets());
        to.bytes(&ip.dst.octets());
        to.padded(ip.options, header - 20);
        let sum = internet(&to.frame[start..to.at]);
        to.frame[start + 10..start + 12].copy_from_slice(&sum.to_be_bytes());
        let pseudo = pseudo_v4(
            ip.src.to_bits(),
            ip.dst.to_bits(),
            self.protocol(),
            segment as u16,
        );
        self.segment_bytes(to, segment, pseudo);
    }

    fn ipv6_headers(&self, to: &mut Writer<'_>, ip: &Ipv6<'_>, segment: usize) {
        let extensions: usize = ip.extensions.iter().map(Extension::wire_length).sum();
        // Each header announces the one behind it, the last one the transport layer.
        let mut following = ip.extensions.iter().map(Extension::protocol);
        let mut next = || following.next().unwrap_or(self.protocol());
        to.u32(0x6000_0000);
        to.u16((extensions + segment) as u16);
        to.bytes(&[next(), ip.hop_limit]);
        to.bytes(&ip.src.octets());
        to.bytes(&ip.dst.octets());
        for extension in ip.extensions {
            let length = extension.wire_length();
            match extension {
                Extension::HopByHop(data)
                | Extension::Routing(data)
                | Extension::DestinationOptions(data) => {
                    to.bytes(&[next(), (length / 8 - 1) as u8]);
                    to.padded(data, length - 2);
                }
                Extension::Fragment(field, identification) => {
                    to.bytes(&[next(), 0]);
                    to.u16(field.offset << 3 | u16::from(field.more));
                    to.u32(*identification);
                }
                Extension::Authentication(icv) => {
                    to.bytes(&[next(), (length / 4 - 2) as u8]);
                    // Reserved, security parameters index, sequence number.
                    to.padded(&[], 10);
                    to.padded(icv, length - 12);
                }
            }
        }
        let pseudo = pseudo_v6(
            ip.src.to_bits(),
            ip.dst.to_bits(),
            self.protocol(),
            segment as u32,
        );
        self.segment_bytes(to, segment, pseudo);
    }

    /// Transport header and payload; `length` is theirs, `pseudo` the sum of the pseudo header.
    fn segment_bytes(&self, to: &mut Writer<'_>, length: usize, pseudo: u64) {
        let start = to.at;
        let field_at = match &self.transport {
            TransportLayer::Tcp(tcp) => {
                let options = tcp.options.len().next_multiple_of(4);
                to.u16(tcp.src_port);
                to.u16(tcp.dst_port);
                to.u32(tcp.sequence);
                to.u32(tcp.acknowledgment);
                to.bytes(&[(((20 + options) / 4) << 4) as u8, tcp.flags]);
                to.u16(tcp.window);
                // Checksum and urgent pointer.
                to.u32(0);
                to.padded(tcp.options, options);
                16
            }
            TransportLayer::Udp(udp) => {
                to.u16(udp.src_port);
                to.u16(udp.dst_port);
                to.u16(length as u16);
                to.u16(0);
                6
            }
            TransportLayer::Icmp(icmp) => {
                to.bytes(&[icmp.kind, icmp.code, 0, 0]);
                to.bytes(&icmp.rest);
                2
            }
            TransportLayer::Raw(_) => return to.bytes(self.payload),
        };
        to.bytes(self.payload);
        let segment = &mut to.frame[start..start + length];
        let icmp = matches!(self.transport, TransportLayer::Icmp(_));
        let v4 = matches!(self.network, NetworkLayer::V4(_));
        match self.checksum {
            // ICMP over IPv4 has no pseudo header (RFC 792), and no one leaves ICMP to hardware.
            _ if icmp && v4 => write_checksum(segment, field_at, 0, protocol::ICMP),
            _ if icmp => write_checksum(segment, field_at, pseudo, protocol::ICMPV6),
            Checksum::Complete => write_checksum(segment, field_at, pseudo, self.protocol()),
            Checksum::Partial => {
                segment[field_at..field_at + 2].copy_from_slice(&fold(pseudo).to_be_bytes());
            }
            Checksum::Zero => {}
        }
    }
}

/// RFC 826.
fn arp_packet(to: &mut Writer<'_>, packet: &Arp) {
    to.bytes(&[0, 1, 8, 0, 6, 4]);
    to.u16(packet.operation);
    to.bytes(&packet.sender_mac);
    to.bytes(&packet.sender.octets());
    to.bytes(&packet.target_mac);
    to.bytes(&packet.target.octets());
}
