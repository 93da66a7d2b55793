//! Headers to bytes: frames with right lengths and checksums, for responders, tests, fuzzers and
//! benchmarks. Builds what it is told, sensible or not; what `parse` makes of it is `parse`'s affair.
//!
//! ```
//! use dataplane::packet::build::{FrameBuilder, Ipv4, Tag};
//!
//! let frame = FrameBuilder::new()
//!     .tags(&[Tag::customer(42)])
//!     .ipv4(Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()))
//!     .udp(5353, 53)
//!     .payload(b"question")
//!     .to_vec()?;
//! let headers = dataplane::packet::parse(&frame);
//! assert_eq!((headers.vlan_id, headers.dst_port), (42, 53));
//! # Ok::<(), dataplane::packet::build::BuildError>(())
//! ```

mod describe;
mod write;

pub use describe::{
    Arp, Checksum, Extension, FragmentField, Icmp, Ipv4, Ipv6, NetworkLayer, Tag, Tcp,
    TransportLayer, Udp,
};

use super::headers::protocol;

/// Why a frame could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The caller's buffer is shorter than the frame.
    #[error("the frame needs {needed} bytes, the buffer has {have}: give it a larger one")]
    BufferTooSmall {
        /// The frame's length, in bytes.
        needed: usize,
        /// The buffer's length, in bytes.
        have: usize,
    },
    /// A part is longer than the length field that speaks of it can say.
    #[error("{part} has {length} bytes and can have {limit} at most: shorten it")]
    TooLong {
        /// Which part of the frame.
        part: &'static str,
        /// Its length, in bytes.
        length: usize,
        /// The longest that the format allows, in bytes.
        limit: usize,
    },
}

/// Describes one frame, layer by layer, and writes it. Borrows all that has a length and allocates
/// nothing but the vector of [`to_vec`](Self::to_vec).
#[derive(Clone, Debug)]
pub struct FrameBuilder<'a> {
    dst: [u8; 6],
    src: [u8; 6],
    tags: &'a [Tag],
    network: NetworkLayer<'a>,
    transport: TransportLayer<'a>,
    payload: &'a [u8],
    checksum: Checksum,
    minimum: usize,
}

impl Default for FrameBuilder<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> FrameBuilder<'a> {
    /// A frame between two locally administered addresses, with an EtherType for local experiments
    /// (0x88b5) and nothing in it.
    pub const fn new() -> Self {
        Self {
            dst: [2, 0, 0, 0, 0, 2],
            src: [2, 0, 0, 0, 0, 1],
            tags: &[],
            network: NetworkLayer::Other(0x88b5),
            transport: TransportLayer::Raw(protocol::NO_NEXT_HEADER),
            payload: &[],
            checksum: Checksum::Complete,
            minimum: 0,
        }
    }

    /// The Ethernet addresses.
    pub const fn ethernet(mut self, src: [u8; 6], dst: [u8; 6]) -> Self {
        self.src = src;
        self.dst = dst;
        self
    }

    /// The VLAN tags, outermost first.
    pub const fn tags(mut self, tags: &'a [Tag]) -> Self {
        self.tags = tags;
        self
    }

    /// An IPv4 header, and behind it the transport layer.
    pub const fn ipv4(mut self, header: Ipv4<'a>) -> Self {
        self.network = NetworkLayer::V4(header);
        self
    }

    /// An IPv6 header with its extension headers, and behind them the transport layer.
    pub const fn ipv6(mut self, header: Ipv6<'a>) -> Self {
        self.network = NetworkLayer::V6(header);
        self
    }

    /// An ARP packet; the transport layer is left out and the payload follows as padding.
    pub const fn arp(mut self, packet: Arp) -> Self {
        self.network = NetworkLayer::Arp(packet);
        self
    }

    /// Any other EtherType, or an 802.3 length: the payload follows directly.
    pub const fn other(mut self, ethertype: u16) -> Self {
        self.network = NetworkLayer::Other(ethertype);
        self
    }

    /// A TCP header.
    pub const fn tcp(mut self, header: Tcp<'a>) -> Self {
        self.transport = TransportLayer::Tcp(header);
        self
    }

    /// A UDP header with the length of the payload.
    pub const fn udp(mut self, src_port: u16, dst_port: u16) -> Self {
        self.transport = TransportLayer::Udp(Udp { src_port, dst_port });
        self
    }

    /// An ICMP header in IPv4, an ICMPv6 header in IPv6.
    pub const fn icmp(mut self, header: Icmp) -> Self {
        self.transport = TransportLayer::Icmp(header);
        self
    }

    /// No transport header of ours: the IP protocol is `protocol`, and the payload follows directly.
    /// Also for later fragments.
    pub const fn raw(mut self, protocol: u8) -> Self {
        self.transport = TransportLayer::Raw(protocol);
        self
    }

    /// What follows the last header.
    pub const fn payload(mut self, payload: &'a [u8]) -> Self {
        self.payload = payload;
        self
    }

    /// What stands in the checksum field of TCP and UDP; [`Checksum::Complete`] unless told.
    pub const fn checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = checksum;
        self
    }

    /// Adds zeros until the frame has `bytes`; 60 is what Ethernet sends at least.
    pub const fn pad_to(mut self, bytes: usize) -> Self {
        self.minimum = bytes;
        self
    }

    /// The frame in a new vector.
    pub fn to_vec(&self) -> Result<Vec<u8>, BuildError> {
        let mut frame = vec![0; self.length()?];
        self.write_to(&mut frame)?;
        Ok(frame)
    }
}

#[cfg(test)]
mod tests;
