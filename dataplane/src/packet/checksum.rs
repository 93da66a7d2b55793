//! The internet checksum (RFC 1071), the pseudo headers of TCP and UDP, and finishing a checksum that
//! a sender left to hardware which a virtual link does not have.

use super::headers::{Fragment, Headers, Network, protocol};
use super::routes::carries_other_address;

/// Adds `bytes` to a running sum. A last odd byte counts as if a zero followed, so only the last piece
/// of a checksum may have an odd length.
#[inline]
pub(crate) fn add(sum: u64, bytes: &[u8]) -> u64 {
    // Summed in the machine's byte order and swapped once (RFC 1071, section 2(B)). 32-bit words in a
    // 64-bit sum carry for 2^32 words without folding.
    let (words, rest) = bytes.as_chunks::<4>();
    let mut own = 0u64;
    for word in words {
        own += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    own += u64::from(u32::from_ne_bytes(last));
    sum + u64::from(u16::from_be(fold(own)))
}

/// A running sum folded to 16 bits, end-around carries included. It is 0 only for a sum of 0.
#[inline]
pub(crate) fn fold(sum: u64) -> u16 {
    let mut sum = (sum >> 32) + (sum & 0xffff_ffff);
    sum = (sum >> 32) + (sum & 0xffff_ffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// The checksum of `bytes`, whose checksum field is zero. Over bytes whose checksum is in place it is 0.
#[inline]
pub(crate) fn internet(bytes: &[u8]) -> u16 {
    !fold(add(0, bytes))
}

/// The sum of the pseudo header of TCP and UDP over IPv4 (RFC 9293, section 3.1). `length` is that of
/// the transport header and payload, in bytes.
#[inline]
pub(crate) fn pseudo_v4(src: u32, dst: u32, protocol: u8, length: u16) -> u64 {
    u64::from(src) + u64::from(dst) + u64::from(protocol) + u64::from(length)
}

/// The sum of the pseudo header over IPv6 (RFC 8200, section 8.1), also that of ICMPv6.
#[inline]
pub(crate) fn pseudo_v6(src: u128, dst: u128, protocol: u8, length: u32) -> u64 {
    let words = |address: u128| {
        let (high, low) = ((address >> 64) as u64, address as u64);
        (high >> 32) + (high & 0xffff_ffff) + (low >> 32) + (low & 0xffff_ffff)
    };
    words(src) + words(dst) + u64::from(protocol) + u64::from(length)
}

/// The checksum of a transport segment (checksum field zero) under a pseudo header's sum.
#[inline]
pub(crate) fn transport(pseudo: u64, segment: &[u8]) -> u16 {
    !fold(add(pseudo, segment))
}

/// Finishes a partial TCP or UDP checksum, and says whether it wrote one.
///
/// A sender whose interface offers checksum offload (veth, virtio) leaves the sum of the pseudo header in
/// the field, not complemented: Linux's `CHECKSUM_PARTIAL` (`include/linux/skbuff.h`). XDP cannot see
/// that mark, so the field itself is asked: where it equals the pseudo header's sum, the checksum is
/// computed and written. For all other frames only the pseudo header is summed.
///
/// One complete checksum in 65,536 equals that sum by chance. Computing it again gives the value that
/// is there already (or 0 for 0xffff, which verifies alike), so a correct frame stays correct. The
/// price is another: of frames that were *damaged* on their way, one in 65,536 leaves with a checksum
/// that covers the damage. `checksums = "trust"` does not look.
///
/// Left alone: faulty frames, fragments (their checksum covers more than the frame), UDP without a
/// checksum, and frames whose options or extension headers put another address into the pseudo header
/// (source routes, routing headers, a mobile node's home address).
///
/// `headers` must be what [`parse`](super::parse()) says of this very frame; offsets that do not fit
/// `frame` leave it as it is.
#[inline]
pub fn finish_partial(frame: &mut [u8], headers: &Headers) -> bool {
    let field_at = match headers.protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => return false,
    };
    if headers.fault.is_some()
        || !matches!(headers.fragment, Fragment::None | Fragment::Atomic)
        || headers.transport_offset == 0
    {
        return false;
    }
    let range = usize::from(headers.transport_offset)..usize::from(headers.end);
    let Some(mut segment) = frame.get(range.clone()) else {
        return false;
    };
    if headers.protocol == protocol::UDP {
        // RFC 768: the UDP length, behind which IP payload may go on.
        let length = segment
            .get(4..6)
            .map_or(0, |field| u16::from_be_bytes([field[0], field[1]]));
        let Some(datagram) = segment.get(..usize::from(length)) else {
            return false;
        };
        segment = datagram;
    }
    let Some(field) = segment.get(field_at..field_at + 2) else {
        return false;
    };
    let field = u16::from_be_bytes([field[0], field[1]]);
    let length = segment.len();
    let pseudo = match headers.network {
        Network::V4 => pseudo_v4(
            headers.src as u32,
            headers.dst as u32,
            headers.protocol,
            length as u16,
        ),
        Network::V6 => pseudo_v6(headers.src, headers.dst, headers.protocol, length as u32),
        Network::Arp | Network::Other => return false,
    };
    // The sum is never 0 (the protocol is in it), so a UDP checksum of 0, "none", never matches.
    if field != fold(pseudo) || carries_other_address(frame, headers) {
        return false;
    }
    write_checksum(
        &mut frame[range][..length],
        field_at,
        pseudo,
        headers.protocol,
    );
    true
}

/// The same of a frame in several parts, of which `head` is the first and has all headers, and `rest` are the
/// others in their order.
pub fn finish_partial_parts<'a>(
    head: &mut [u8],
    rest: impl Iterator<Item = &'a [u8]>,
    headers: &Headers,
) -> bool {
    let field_at = match headers.protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => return false,
    };
    if headers.fault.is_some()
        || !matches!(headers.fragment, Fragment::None | Fragment::Atomic)
        || headers.transport_offset == 0
    {
        return false;
    }
    let at = usize::from(headers.transport_offset);
    let Some(header) = head.get(at..at + field_at + 2) else {
        return false;
    };
    let mut length = usize::from(headers.end) - at;
    if headers.protocol == protocol::UDP {
        let said = usize::from(u16::from_be_bytes([header[4], header[5]]));
        if said > length || said < field_at + 2 {
            return false;
        }
        length = said;
    }
    let field = u16::from_be_bytes([header[field_at], header[field_at + 1]]);
    let pseudo = match headers.network {
        Network::V4 => pseudo_v4(
            headers.src as u32,
            headers.dst as u32,
            headers.protocol,
            length as u16,
        ),
        Network::V6 => pseudo_v6(headers.src, headers.dst, headers.protocol, length as u32),
        Network::Arp | Network::Other => return false,
    };
    if field != fold(pseudo) || carries_other_address(head, headers) {
        return false;
    }
    head[at + field_at..at + field_at + 2].fill(0);
    let first = &head[at..];
    let first = &first[..first.len().min(length)];
    let mut sum = add(pseudo, first);
    let (mut left, mut odd) = (length - first.len(), first.len() % 2 == 1);
    for bytes in rest {
        let bytes = &bytes[..bytes.len().min(left)];
        // A part that begins at an odd place: its bytes are those of the other halves (RFC 1071, section 2(B)).
        let part = fold(add(0, bytes));
        sum += u64::from(if odd { part.swap_bytes() } else { part });
        left -= bytes.len();
        odd ^= bytes.len() % 2 == 1;
    }
    let checksum = match !fold(sum) {
        0 if headers.protocol == protocol::UDP => 0xffff,
        checksum => checksum,
    };
    // What the frame says is longer than it is was found by the parser.
    debug_assert_eq!(left, 0);
    head[at + field_at..at + field_at + 2].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// Writes the checksum of `segment` into its field at `field_at`. A UDP checksum of 0 is sent as 0xffff
/// (RFC 768).
pub(super) fn write_checksum(segment: &mut [u8], field_at: usize, pseudo: u64, protocol: u8) {
    segment[field_at..field_at + 2].fill(0);
    let checksum = match transport(pseudo, segment) {
        0 if protocol == protocol::UDP => 0xffff,
        checksum => checksum,
    };
    segment[field_at..field_at + 2].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests;
