//! What lies between an Ethernet frame and its IP packet, for devices of layer 3: a sink leaves it out,
//! a source puts an Ethernet header of its own before the packet.

use std::ops::Range;

use crate::{
    frame::{Frame, Pool, Staged},
    packet::{ethertype, protocol},
    policy::Reason,
};

/// Bytes of the header that a source puts before a packet.
pub(super) const HEADER: usize = 14;

/// Where frames from a device of layer 3 come from: locally administered, "dp" and 1.
pub const SOURCE_ADDRESS: [u8; 6] = [0x02, 0, b'd', b'p', 0, 1];

/// Where frames from a device of layer 3 go to: locally administered, "dp" and 2. An Ethernet host that is
/// to take them has this address.
pub const DESTINATION_ADDRESS: [u8; 6] = [0x02, 0, b'd', b'p', 0, 2];

/// Leaves of a share only its IP packet: neither Ethernet header and VLAN tags, nor padding.
///
/// # Errors
///
/// [`Reason::NotIp`], and nothing changes, when there is none, or less of it than its header.
#[inline]
pub(super) fn leave_packet(pool: &Pool, staged: &mut Staged) -> Result<(), Reason> {
    let head = pool.staged_bytes(staged);
    let packet = find(head, staged.len() - head.len()).ok_or(Reason::NotIp)?;
    staged.truncate(packet.end);
    staged.cut_front(packet.start);
    Ok(())
}

/// Puts an Ethernet header before a packet.
///
/// # Errors
///
/// [`Reason::NotIp`] when its version is neither 4 nor 6, [`Reason::TooLong`] when the slot has no room
/// before it. Nothing changes then.
#[inline]
pub(super) fn put_header(pool: &mut Pool, frame: &mut Frame) -> Result<(), Reason> {
    let kind = match pool.bytes(frame).first().map(|byte| byte >> 4) {
        Some(4) => ethertype::IPV4,
        Some(6) => ethertype::IPV6,
        _ => return Err(Reason::NotIp),
    };
    if !pool.grow_front(frame, HEADER) {
        return Err(Reason::TooLong);
    }
    let header = &mut pool.bytes_mut(frame)[..HEADER];
    header[..6].copy_from_slice(&DESTINATION_ADDRESS);
    header[6..12].copy_from_slice(&SOURCE_ADDRESS);
    header[12..].copy_from_slice(&kind.to_be_bytes());
    Ok(())
}

/// Where the IP packet of a frame stands: behind any number of VLAN tags, its whole header there, of the
/// version that the EtherType says. The kernel refuses another version (drivers/net/tun.c, `tun_get_user`).
/// `behind` more bytes of the frame are elsewhere.
fn find(frame: &[u8], behind: usize) -> Option<Range<usize>> {
    let mut at = 12;
    loop {
        let kind = u16::from_be_bytes(*frame.get(at..)?.first_chunk()?);
        at += 2;
        let length = match kind {
            ethertype::VLAN | ethertype::QINQ | ethertype::QINQ_OLD => {
                at += 2;
                continue;
            }
            ethertype::IPV4 => ipv4_length(&frame[at..], behind)?,
            ethertype::IPV6 => ipv6_length(&frame[at..], behind)?,
            _ => return None,
        };
        return Some(at..at + length);
    }
}

/// Bytes of an IPv4 packet (RFC 791, section 3.1) without what pads it. A total length that cannot be, such
/// as the 0 of a segment that a card was to cut, stands for all that is there.
fn ipv4_length(packet: &[u8], behind: usize) -> Option<usize> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    (header[0] >> 4 == 4).then(|| match total {
        0..20 => packet.len() + behind,
        _ => total.min(packet.len() + behind),
    })
}

/// Bytes of an IPv6 packet (RFC 8200, section 3) without what pads it. Of a jumbogram, which has its length
/// in an option behind a payload length of 0 (RFC 2675), all that is there.
fn ipv6_length(packet: &[u8], behind: usize) -> Option<usize> {
    let header: &[u8; 40] = packet.first_chunk()?;
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    (header[0] >> 4 == 6).then(|| match (payload, header[6]) {
        (0, protocol::HOP_BY_HOP) => packet.len() + behind,
        _ => (40 + payload).min(packet.len() + behind),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::build::{Arp, FrameBuilder, Ipv4};

    /// An IPv4 or IPv6 packet: its header and a payload of `payload` bytes, which its length may not admit.
    fn packet(version: u8, said: usize, payload: usize) -> Vec<u8> {
        let mut packet = vec![0; if version == 4 { 20 } else { 40 }];
        packet[0] = version << 4;
        let at = if version == 4 { 2 } else { 4 };
        packet[at..at + 2].copy_from_slice(&(said as u16).to_be_bytes());
        packet.extend((0..payload).map(|at| at as u8 | 1));
        packet
    }

    fn frame(kinds: &[u16], packet: &[u8]) -> Vec<u8> {
        let mut frame = vec![0xaa; 12];
        for (number, kind) in kinds.iter().enumerate() {
            if number > 0 {
                // The tag's own two bytes, before the next EtherType.
                frame.extend([0, 42]);
            }
            frame.extend(kind.to_be_bytes());
        }
        frame.extend(packet);
        frame
    }

    #[test]
    fn packets_are_found_behind_tags_and_before_padding() {
        use ethertype::{ARP, IPV4, IPV6, QINQ, QINQ_OLD, VLAN};
        let jumbo = |mut packet: Vec<u8>, next: u8| {
            packet[6] = next;
            packet
        };
        type Case<'a> = (&'a str, Vec<u8>, Option<Range<usize>>);
        let cases: &[Case<'_>] = &[
            ("IPv4", frame(&[IPV4], &packet(4, 30, 10)), Some(14..44)),
            ("IPv6", frame(&[IPV6], &packet(6, 10, 10)), Some(14..64)),
            ("padded", frame(&[IPV4], &packet(4, 24, 26)), Some(14..38)),
            (
                "padded IPv6",
                frame(&[IPV6], &packet(6, 4, 9)),
                Some(14..58),
            ),
            (
                "one tag",
                frame(&[VLAN, IPV4], &packet(4, 30, 10)),
                Some(18..48),
            ),
            (
                "four tags",
                frame(&[QINQ, QINQ_OLD, VLAN, VLAN, IPV6], &packet(6, 3, 3)),
                Some(30..73),
            ),
            (
                "cut short",
                frame(&[IPV4], &packet(4, 1500, 10)),
                Some(14..44),
            ),
            (
                "cut short IPv6",
                frame(&[IPV6], &packet(6, 9, 4)),
                Some(14..58),
            ),
            ("length 0", frame(&[IPV4], &packet(4, 0, 10)), Some(14..44)),
            (
                "length 19",
                frame(&[IPV4], &packet(4, 19, 10)),
                Some(14..44),
            ),
            (
                "no payload",
                frame(&[IPV6], &jumbo(packet(6, 0, 6), 59)),
                Some(14..54),
            ),
            (
                "jumbogram",
                frame(&[IPV6], &jumbo(packet(6, 0, 6), 0)),
                Some(14..60),
            ),
            ("another version", frame(&[IPV4], &packet(6, 3, 3)), None),
            ("another version", frame(&[IPV6], &packet(4, 30, 30)), None),
            (
                "half a header",
                frame(&[IPV4], &packet(4, 30, 0)[..19]),
                None,
            ),
            (
                "half a header",
                frame(&[IPV6], &packet(6, 3, 0)[..39]),
                None,
            ),
            ("no packet", frame(&[IPV4], &[]), None),
            ("ARP", frame(&[ARP], &packet(4, 30, 10)), None),
            ("802.3", frame(&[46], &packet(4, 30, 10)), None),
            ("a tag and no more", frame(&[VLAN], &[]), None),
            ("half a tag", frame(&[VLAN], &[0]), None),
            ("no EtherType", vec![0; 13], None),
            ("nothing", vec![], None),
        ];
        for (name, frame, expected) in cases {
            assert_eq!(&find(frame, 0), expected, "{name}");
        }
    }

    #[test]
    fn what_the_builder_builds_is_found() {
        let udp = FrameBuilder::new()
            .ipv4(Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()))
            .udp(1, 2)
            .payload(&[7; 3])
            .pad_to(60)
            .to_vec()
            .expect("short enough");
        assert_eq!(find(&udp, 0), Some(14..14 + 20 + 8 + 3));
        let arp = FrameBuilder::new()
            .arp(Arp {
                operation: 1,
                sender_mac: [2; 6],
                sender: [10, 0, 0, 1].into(),
                target_mac: [0; 6],
                target: [10, 0, 0, 2].into(),
            })
            .to_vec()
            .expect("short enough");
        assert_eq!(find(&arp, 0), None);
    }

    proptest! {
        #[test]
        fn what_is_found_is_within_the_frame_and_what_the_kernel_takes(
            mut frame in prop::collection::vec(any::<u8>(), 0..120),
            kinds in prop::collection::vec(
                prop::sample::select(&[0x0800u16, 0x86dd, 0x8100, 0x88a8, 0x9100, 0x0806][..]), 0..6),
        ) {
            for (number, kind) in kinds.iter().enumerate() {
                if let Some(place) = frame.get_mut(12 + 4 * number..14 + 4 * number) {
                    place.copy_from_slice(&kind.to_be_bytes());
                }
            }
            if let Some(packet) = find(&frame, 0) {
                prop_assert!(packet.end <= frame.len());
                prop_assert!(matches!((frame[packet.start] >> 4, packet.len()), (4, 20..) | (6, 40..)));
            }
        }
    }
}
