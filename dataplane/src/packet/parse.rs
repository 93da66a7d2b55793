//! Bytes to headers. Total (every input of every length has an answer), allocation-free and bounded;
//! it reads what a verdict needs and verifies lengths, not checksums. Follows RFC 791, 8200, 9293,
//! 768, 792, 4443, 826 and 4302; the places that differ from etherparse are in `agreement.rs`.
//!
//! One rule decides between two faults. A header that does not fit into what contains it, be it with
//! its fixed part or with the length that it states itself, is [`Fault::Truncated`]; a length that
//! speaks of more than the header and does not fit (IPv4 total length, IPv6 payload length, UDP
//! length) is [`Fault::Length`]. What contains a network header is the frame; what contains anything
//! behind it is the network layer's own length, so that padding is never read as a header.

use super::headers::{Fault, Fragment, Headers, Network, ethertype, protocol};

/// The longest frame that is parsed, in bytes: offsets in [`Headers`] are 16 bits wide.
pub const MAX_FRAME: usize = u16::MAX as usize;

/// How many VLAN tags are walked; a fifth is [`Fault::TooDeep`].
pub const MAX_VLAN_TAGS: u8 = 4;

/// How many IPv6 extension headers are walked; a ninth is [`Fault::TooDeep`].
pub const MAX_EXTENSIONS: u8 = 8;

/// Reads the headers of an Ethernet frame (without its frame check sequence).
///
/// Never fails and never panics: what is wrong with the frame is in [`Headers::fault`]. A frame longer
/// than [`MAX_FRAME`] is [`Fault::Length`], and nothing of it is read.
#[inline]
pub fn parse(frame: &[u8]) -> Headers {
    let mut headers = Headers::default();
    headers.fault = link(frame, Whole, &mut headers).err();
    headers
}

/// The same for a frame of which only the first bytes are at hand, and `behind` more elsewhere: lengths are those of
/// the whole. A header that is not in the first bytes is [`Fault::Truncated`].
pub fn parse_head(head: &[u8], behind: usize) -> Headers {
    let mut headers = Headers::default();
    headers.fault = link(head, Head(behind), &mut headers).err();
    headers
}

/// How much of a frame is behind the bytes at hand. Of a whole frame, the usual one, nothing, which the compiler
/// knows.
trait Behind: Copy {
    /// Bytes that are not at hand.
    fn bytes(self) -> usize;
}

#[derive(Clone, Copy)]
struct Whole;

impl Behind for Whole {
    #[inline(always)]
    fn bytes(self) -> usize {
        0
    }
}

#[derive(Clone, Copy)]
struct Head(usize);

impl Behind for Head {
    #[inline(always)]
    fn bytes(self) -> usize {
        self.0
    }
}

/// What stands between `from` and `to` in a packet whose first bytes are at hand, as far as it is at hand, and how
/// much of it is not. `None` when the packet ends before, or `to` is before `from`.
#[inline(always)]
fn inside<B: Behind>(packet: &[u8], behind: B, from: usize, to: usize) -> Option<(&[u8], usize)> {
    let missing = to.saturating_sub(packet.len());
    if missing > behind.bytes() {
        return None;
    }
    Some((packet.get(from..to - missing)?, missing))
}

/// The 16-bit field at `at`. Inlined over an array and a constant: no check is left.
#[inline(always)]
fn field<const N: usize>(header: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([header[at], header[at + 1]])
}

/// The IPv4 address at `at`, in the low 32 bits.
#[inline(always)]
fn address_v4<const N: usize>(header: &[u8; N], at: usize) -> u128 {
    let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
    u128::from(u32::from_be_bytes(bytes))
}

/// The IPv6 address at `at`.
#[inline(always)]
fn address_v6(header: &[u8; 40], at: usize) -> u128 {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&header[at..at + 16]);
    u128::from_be_bytes(bytes)
}

/// Ethernet and VLAN tags (IEEE 802.3, 802.1Q, 802.1ad; 0x9100 is what older switches write for the
/// outer tag).
#[inline(always)]
fn link<B: Behind>(frame: &[u8], behind: B, headers: &mut Headers) -> Result<(), Fault> {
    if frame.len() + behind.bytes() > MAX_FRAME {
        return Err(Fault::Length);
    }
    let (ethernet, mut rest) = frame.split_first_chunk::<14>().ok_or(Fault::Truncated)?;
    let mut kind = field(ethernet, 12);
    while let ethertype::VLAN | ethertype::QINQ | ethertype::QINQ_OLD = kind {
        if headers.vlan_tags == MAX_VLAN_TAGS {
            return Err(Fault::TooDeep);
        }
        let (tag, after) = rest.split_first_chunk::<4>().ok_or(Fault::Truncated)?;
        if headers.vlan_tags == 0 {
            headers.vlan_id = field(tag, 0) & 0x0fff;
        }
        headers.vlan_tags += 1;
        kind = field(tag, 2);
        rest = after;
    }
    headers.ethertype = kind;
    headers.network_offset = (frame.len() - rest.len()) as u16;
    match kind {
        ethertype::IPV4 => ipv4(rest, behind, headers),
        ethertype::IPV6 => ipv6(rest, behind, headers),
        ethertype::ARP => arp(rest, headers),
        // Also 802.3: an EtherType below 0x0600 is a length, and LLC follows.
        _ => {
            headers.end = (frame.len() + behind.bytes()) as u16;
            Ok(())
        }
    }
}

/// RFC 791, section 3.1; with an authentication header (RFC 4302), if there is one.
#[inline(always)]
fn ipv4<B: Behind>(packet: &[u8], behind: B, headers: &mut Headers) -> Result<(), Fault> {
    headers.network = Network::V4;
    let header = packet.first_chunk::<20>().ok_or(Fault::Truncated)?;
    let header_length = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header_length < header.len() {
        return Err(Fault::Header);
    }
    if packet.len() < header_length {
        return Err(Fault::Truncated);
    }
    // One check for both lies: a total length inside the header, and one beyond the frame.
    let total = usize::from(field(header, 2));
    let (mut payload, missing) =
        inside(packet, behind, header_length, total).ok_or(Fault::Length)?;

    headers.src = address_v4(header, 12);
    headers.dst = address_v4(header, 16);
    headers.end = headers.network_offset + total as u16;
    let fragment = field(header, 6);
    let (offset, more) = (fragment & 0x1fff, fragment & 0x2000 != 0);
    let mut next = header[9];
    if offset != 0 {
        headers.fragment = Fragment::Later;
        headers.protocol = next;
        return Ok(());
    }
    if more {
        headers.fragment = Fragment::First;
    }
    if next == protocol::AUTHENTICATION {
        (next, payload) = authentication(payload)?;
    }
    transport(next, payload, missing, headers)
}

/// RFC 8200, sections 3 and 4. Out of line, to keep the way of IPv4 short.
#[inline(never)]
fn ipv6<B: Behind>(packet: &[u8], behind: B, headers: &mut Headers) -> Result<(), Fault> {
    headers.network = Network::V6;
    let (header, rest) = packet.split_first_chunk::<40>().ok_or(Fault::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Fault::Header);
    }
    let length = usize::from(field(header, 4));
    let mut next = header[6];
    // A jumbogram (RFC 2675) is longer than any frame here. Without hop-by-hop options a length of
    // zero is what it says: what follows is padding.
    if length == 0 && next == protocol::HOP_BY_HOP {
        return Err(Fault::Length);
    }
    let (mut payload, missing) = inside(rest, behind, 0, length).ok_or(Fault::Length)?;

    headers.src = address_v6(header, 8);
    headers.dst = address_v6(header, 24);
    headers.end = headers.network_offset + (header.len() + length) as u16;

    let mut walked = 0;
    while is_extension(next) {
        if walked == MAX_EXTENSIONS {
            return Err(Fault::TooDeep);
        }
        (next, payload) = match next {
            // Only directly behind the IPv6 header (RFC 8200, section 4.1).
            protocol::HOP_BY_HOP if walked > 0 => return Err(Fault::Header),
            protocol::FRAGMENT => {
                let (header, behind) = payload.split_first_chunk::<8>().ok_or(Fault::Truncated)?;
                // A fragment of a fragment: no sender does that.
                if headers.fragment != Fragment::None {
                    return Err(Fault::Header);
                }
                let word = field(header, 2);
                headers.fragment = match (word >> 3, word & 1) {
                    (0, 0) => Fragment::Atomic,
                    (0, _) => Fragment::First,
                    _ => Fragment::Later,
                };
                if headers.fragment == Fragment::Later {
                    // Behind it stand bytes from the middle of the datagram, not headers.
                    headers.protocol = header[0];
                    return Ok(());
                }
                (header[0], behind)
            }
            protocol::AUTHENTICATION => authentication(payload)?,
            _ => {
                let header = payload.first_chunk::<8>().ok_or(Fault::Truncated)?;
                let length = (usize::from(header[1]) + 1) * 8;
                (header[0], payload.get(length..).ok_or(Fault::Truncated)?)
            }
        };
        walked += 1;
    }
    transport(next, payload, missing, headers)
}

/// The IPv6 extension headers that are walked. ESP and "no next header" end the walk, as do the
/// experimental ones, whose shape is not known here.
#[inline(always)]
pub(super) const fn is_extension(next: u8) -> bool {
    matches!(
        next,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
    )
}

/// RFC 4302, section 2: the next header, and what stands behind this one.
fn authentication(payload: &[u8]) -> Result<(u8, &[u8]), Fault> {
    let header = payload.first_chunk::<12>().ok_or(Fault::Truncated)?;
    // In 4-byte words, less two: 1 is the fixed part alone.
    if header[1] == 0 {
        return Err(Fault::Header);
    }
    let length = (usize::from(header[1]) + 2) * 4;
    Ok((header[0], payload.get(length..).ok_or(Fault::Truncated)?))
}

/// The transport header at the start of `payload`, which ends where the network layer says; `missing` bytes of it
/// are not at hand.
#[inline(always)]
fn transport(next: u8, payload: &[u8], missing: usize, headers: &mut Headers) -> Result<(), Fault> {
    headers.protocol = next;
    headers.transport_offset = headers.end - (payload.len() + missing) as u16;
    match next {
        // RFC 9293, section 3.1.
        protocol::TCP => {
            let header = payload.first_chunk::<20>().ok_or(Fault::Truncated)?;
            let length = usize::from(header[12] >> 4) * 4;
            if length < header.len() {
                return Err(Fault::Header);
            }
            if payload.len() < length {
                return Err(Fault::Truncated);
            }
            headers.src_port = field(header, 0);
            headers.dst_port = field(header, 2);
            headers.tcp_flags = header[13];
        }
        // RFC 768. Bytes behind the UDP length but inside the IP payload are allowed (RFC 9868); the
        // length of a first fragment is that of the whole datagram.
        protocol::UDP => {
            let header = payload.first_chunk::<8>().ok_or(Fault::Truncated)?;
            let length = usize::from(field(header, 4));
            let whole = headers.fragment != Fragment::First;
            if length < header.len() || (whole && length > payload.len() + missing) {
                return Err(Fault::Length);
            }
            headers.src_port = field(header, 0);
            headers.dst_port = field(header, 2);
        }
        // RFC 792 and RFC 4443: every message that they define has 8 bytes, and Linux drops shorter ones.
        protocol::ICMP | protocol::ICMPV6 => {
            // Each in its own family only; the other's would be judged by the wrong table of types.
            if (next == protocol::ICMP) != (headers.network == Network::V4) {
                return Err(Fault::Header);
            }
            let header = payload.first_chunk::<8>().ok_or(Fault::Truncated)?;
            headers.icmp_type = header[0];
            headers.icmp_code = header[1];
        }
        _ => {}
    }
    Ok(())
}

/// RFC 826, for Ethernet and IPv4. Every operation that IANA lists fits into a byte; a larger one is
/// refused, so that its low byte cannot pose as a request.
#[inline(never)]
fn arp(packet: &[u8], headers: &mut Headers) -> Result<(), Fault> {
    headers.network = Network::Arp;
    let header = packet.first_chunk::<28>().ok_or(Fault::Truncated)?;
    // Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4, operation 0x00..
    if header[..7] != [0, 1, 8, 0, 6, 4, 0] {
        return Err(Fault::Header);
    }
    headers.icmp_type = header[7];
    headers.src = address_v4(header, 14);
    headers.dst = address_v4(header, 24);
    headers.end = headers.network_offset + header.len() as u16;
    Ok(())
}

#[cfg(test)]
mod tests;
