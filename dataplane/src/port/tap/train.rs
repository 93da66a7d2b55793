//! TCP trains: segments of one flow that stand one behind the other become one write, which the kernel takes as
//! one segment that a card has merged (virtio_net_hdr, include/uapi/linux/virtio_net.h). What may be merged
//! follows the kernel's own rules for that (GRO: net/ipv4/tcp_offload.c, `tcp_gro_receive`; net/ipv4/af_inet.c,
//! `inet_gro_receive`; net/ipv6/ip6_offload.c): cut again, a train gives the segments that it was made of.

use crate::{
    packet::{
        checksum::{fold, internet, pseudo_v4, pseudo_v6, transport},
        ethertype, protocol, tcp_flags,
    },
    worker::ring::SHARES,
};

/// Bytes of a virtio_net_hdr without the fields that buffers of several descriptors need; what the device is told
/// with TUNSETVNETHDRSZ.
pub(super) const VIRTIO: usize = 10;

/// The header of a frame that is no train: nothing is left to do for it.
pub(super) const ALONE: [u8; VIRTIO] = [0; VIRTIO];

/// VIRTIO_NET_HDR_F_NEEDS_CSUM: the checksum field holds the pseudo header's sum.
const NEEDS_CHECKSUM: u8 = 1;
/// VIRTIO_NET_HDR_GSO_TCPV4.
const GSO_TCP_V4: u8 = 1;
/// VIRTIO_NET_HDR_GSO_TCPV6.
const GSO_TCP_V6: u8 = 4;

/// Bytes of an Ethernet header; a frame with VLAN tags goes alone.
const ETHERNET: usize = 14;
/// Bytes of an IPv4 header without options; one with them goes alone.
const IPV4: usize = 20;
/// Bytes of an IPv6 header; a packet with extension headers goes alone.
const IPV6: usize = 40;
/// Where in a TCP header its checksum stands.
const TCP_CHECKSUM: usize = 16;
/// What the length fields of IP can say.
const LONGEST: usize = u16::MAX as usize;

/// Bytes of all headers of a train at most.
const HEADERS: usize = VIRTIO + ETHERNET + IPV6 + 60;

/// Don't fragment, among the bits of the fragment field.
const DONT_FRAGMENT: u16 = 0x4000;

/// ECN-Echo (RFC 3168): the sender's answer to a congestion mark; it stays on all segments of a train.
const ECE: u8 = 0x40;

/// A train, as it is to be written.
#[derive(Debug)]
pub(super) struct Train {
    /// Of how many frames, two at least.
    pub(super) frames: usize,
    /// How many bytes at the front of each of them its header stands for.
    pub(super) instead_of: usize,
    header: [u8; HEADERS],
}

impl Train {
    /// What stands before the payloads of all its segments.
    pub(super) fn header(&self) -> &[u8] {
        &self.header[..VIRTIO + self.instead_of]
    }

    /// The longest train that the first of these frames begin; `None` when the first goes alone.
    #[inline]
    pub(super) fn of<'a>(mut frames: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let head = frames.next()?;
        let first = Segment::of(head)?;
        if first.ends() {
            return None;
        }
        let size = first.payload(head);
        let (mut count, mut payload, mut flags) = (1, size, first.flags);
        for frame in frames.take(SHARES - 1) {
            let Some(next) = Segment::of(frame) else {
                break;
            };
            let more = next.payload(frame);
            if more > size
                || first.headers - ETHERNET + payload + more > LONGEST
                || !first.goes_on(head, next, frame, count, payload)
            {
                break;
            }
            // The kernel will not look at their checksums any more: those of all must be right.
            if (count == 1 && !first.is_intact(head)) || !next.is_intact(frame) {
                break;
            }
            count += 1;
            payload += more;
            flags |= next.flags;
            if more < size || next.ends() {
                break;
            }
        }
        (count > 1).then(|| Self {
            frames: count,
            instead_of: first.headers,
            header: first.header(head, size, payload, flags),
        })
    }
}

/// A TCP segment with payload that may be part of a train.
#[derive(Clone, Copy, Debug)]
struct Segment {
    /// Over IPv6, else over IPv4.
    v6: bool,
    /// Where the TCP header begins.
    tcp: usize,
    /// Bytes of all headers.
    headers: usize,
    flags: u8,
}

fn field(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Segment {
    #[inline]
    fn of(frame: &[u8]) -> Option<Self> {
        if frame.len() < ETHERNET + IPV4 + 20 {
            return None;
        }
        let ip = &frame[ETHERNET..];
        let (v6, tcp) = match field(frame, 12) {
            // No options, nothing behind the packet, no fragment, its own checksum right.
            ethertype::IPV4
                if ip[0] == 0x45
                    && usize::from(field(ip, 2)) == ip.len()
                    && field(ip, 6) & !DONT_FRAGMENT == 0
                    && ip[9] == protocol::TCP
                    && internet(&ip[..IPV4]) == 0 =>
            {
                (false, ETHERNET + IPV4)
            }
            ethertype::IPV6
                if ip[0] >> 4 == 6
                    && ip.len() >= IPV6 + 20
                    && usize::from(field(ip, 4)) == ip.len() - IPV6
                    && ip[6] == protocol::TCP =>
            {
                (true, ETHERNET + IPV6)
            }
            _ => return None,
        };
        let header = usize::from(frame[tcp + 12] >> 4) * 4;
        let flags = frame[tcp + 13];
        let merged = tcp_flags::ACK | tcp_flags::PSH | tcp_flags::FIN | ECE;
        // The reserved bits are clear, as is the one that RFC 3540 and accurate ECN have used.
        let plain = frame[tcp + 12] & 0xf == 0 && flags & !merged == 0;
        (plain
            && flags & tcp_flags::ACK != 0
            && header >= 20
            // Something is behind it.
            && tcp + header < frame.len())
        .then_some(Self {
            v6,
            tcp,
            headers: tcp + header,
            flags,
        })
    }

    /// Bytes of its payload.
    fn payload(self, frame: &[u8]) -> usize {
        frame.len() - self.headers
    }

    /// Whether nothing is merged behind it: the sender wants it handed on, or has no more.
    fn ends(self) -> bool {
        self.flags & (tcp_flags::PSH | tcp_flags::FIN) != 0
    }

    /// Whether a frame goes on where the train of this one ends: `count` frames and `payload` bytes behind its
    /// beginning. All that its header says besides is the same.
    #[inline]
    fn goes_on(self, head: &[u8], next: Self, frame: &[u8], count: usize, payload: usize) -> bool {
        if (next.v6, next.headers) != (self.v6, self.headers) {
            return false;
        }
        let same = |from: usize, to: usize| head[from..to] == frame[from..to];
        let ip = match self.v6 {
            // Version, traffic class and flow; next header, hop limit and addresses.
            true => same(ETHERNET, 18) && same(20, ETHERNET + IPV6),
            // Type of service; don't fragment; time to live and protocol; addresses.
            false => {
                same(ETHERNET, 16)
                    && same(20, 24)
                    && same(26, ETHERNET + IPV4)
                    && self.numbered(head, frame, count)
            }
        };
        let tcp = self.tcp;
        ip && same(0, ETHERNET)
            // Ports.
            && same(tcp, tcp + 4)
            && number(frame, tcp + 4) == number(head, tcp + 4).wrapping_add(payload as u32)
            // Acknowledgment and header length.
            && same(tcp + 8, tcp + 13)
            && (self.flags ^ next.flags) & !(tcp_flags::PSH | tcp_flags::FIN) == 0
            // Window.
            && same(tcp + 14, tcp + TCP_CHECKSUM)
            // Urgent pointer and options, the times among them.
            && same(tcp + 18, self.headers)
    }

    /// Whether the identification of an IPv4 packet counts on from the first. Cutting counts so. Of one that
    /// must not be fragmented it has no meaning (RFC 6864), and senders that leave it at 0 are merged too.
    fn numbered(self, head: &[u8], frame: &[u8], count: usize) -> bool {
        let (first, this) = (field(head, 18), field(frame, 18));
        this == first.wrapping_add(count as u16)
            || (this == 0 && first == 0 && field(head, 20) & DONT_FRAGMENT != 0)
    }

    /// The sum of its pseudo header, for a TCP header and payload of `length` bytes.
    fn pseudo(self, frame: &[u8], length: usize) -> u64 {
        let ip = &frame[ETHERNET..];
        if self.v6 {
            let address = |at: usize| {
                let bytes = ip[at..at + 16].first_chunk().copied();
                u128::from_be_bytes(bytes.unwrap_or_default())
            };
            pseudo_v6(address(8), address(24), protocol::TCP, length as u32)
        } else {
            let (src, dst) = (number(ip, 12), number(ip, 16));
            pseudo_v4(src, dst, protocol::TCP, length as u16)
        }
    }

    /// Whether its checksum is right.
    #[inline]
    fn is_intact(self, frame: &[u8]) -> bool {
        let segment = &frame[self.tcp..];
        transport(self.pseudo(frame, segment.len()), segment) == 0
    }

    /// The headers of a train that begins with this segment: the first's, of the length of all, with the flags of
    /// the last, and with the pseudo header's sum for a checksum.
    #[inline]
    fn header(self, head: &[u8], size: usize, payload: usize, flags: u8) -> [u8; HEADERS] {
        let mut header = [0; HEADERS];
        let (virtio, frame) = header.split_at_mut(VIRTIO);
        let frame = &mut frame[..self.headers];
        frame.copy_from_slice(&head[..self.headers]);

        // In the machine's own byte order, which a tun device expects unless it is told otherwise.
        virtio[0] = NEEDS_CHECKSUM;
        virtio[1] = if self.v6 { GSO_TCP_V6 } else { GSO_TCP_V4 };
        virtio[2..4].copy_from_slice(&(self.headers as u16).to_ne_bytes());
        virtio[4..6].copy_from_slice(&(size as u16).to_ne_bytes());
        virtio[6..8].copy_from_slice(&(self.tcp as u16).to_ne_bytes());
        virtio[8..10].copy_from_slice(&(TCP_CHECKSUM as u16).to_ne_bytes());

        let length = self.headers - self.tcp + payload;
        let pseudo = fold(self.pseudo(head, length));
        let (ip, tcp) = frame.split_at_mut(self.tcp);
        let ip = &mut ip[ETHERNET..];
        if self.v6 {
            ip[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        } else {
            ip[2..4].copy_from_slice(&((IPV4 + length) as u16).to_be_bytes());
            ip[10..12].fill(0);
            let checksum = internet(ip);
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        tcp[13] = flags;
        tcp[TCP_CHECKSUM..TCP_CHECKSUM + 2].copy_from_slice(&pseudo.to_be_bytes());
        header
    }
}

#[cfg(test)]
mod tests;
