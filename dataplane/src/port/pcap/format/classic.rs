//! Classic pcap: a header of 24 bytes, then records of 16 bytes and their data
//! (draft-ietf-opsawg-pcap; libpcap's `sf-pcap.c`).

use std::io::Read;

use super::{Format, Header, Input, LinkType, MAX_FRAME, Order, Part, Problem, ReadError, Stream};

/// The version that everything since 1998 writes. Before it, lengths could be swapped.
const VERSION: (u16, u16) = (2, 4);

pub(super) struct Classic {
    order: Order,
    /// Nanoseconds in a unit of the timestamp's fraction.
    unit: u64,
}

impl Classic {
    /// Reads the rest of the header behind the magic number, of which up to four bytes were there.
    pub(super) fn begin<R: Read>(input: &mut Input<R>, magic: &[u8]) -> Result<Self, ReadError> {
        let (order, unit) = match magic {
            [0xd4, 0xc3, 0xb2, 0xa1] => (Order::Little, 1000),
            [0xa1, 0xb2, 0xc3, 0xd4] => (Order::Big, 1000),
            [0x4d, 0x3c, 0xb2, 0xa1] => (Order::Little, 1),
            [0xa1, 0xb2, 0x3c, 0x4d] => (Order::Big, 1),
            _ => return Err(foreign(input.stream(), magic)),
        };
        let mut rest = [0; 20];
        input.exact(&mut rest, Part::Header, 0)?;
        let version = (order.u16(&rest, 0), order.u16(&rest, 2));
        if version != VERSION {
            return Err(ReadError::Version {
                format: "pcap",
                major: version.0,
                minor: version.1,
                offset: 4,
                stream: input.stream(),
            });
        }
        // The upper bits tell the length of a frame check sequence; what was captured is delivered
        // with it.
        let link = LinkType(order.u32(&rest, 16) & 0x03ff_ffff);
        if link != LinkType::ETHERNET {
            return Err(ReadError::NotEthernet {
                link,
                part: Part::Header,
                offset: 0,
                stream: input.stream(),
            });
        }
        Ok(Self { order, unit })
    }

    pub(super) fn format(&self) -> Format {
        if self.unit == 1 {
            Format::PcapNanoseconds
        } else {
            Format::PcapMicroseconds
        }
    }

    /// Reads the next record's bytes into `frame`.
    #[inline]
    pub(super) fn next<R: Read>(
        &mut self,
        input: &mut Input<R>,
        frame: &mut [u8],
        number: u64,
    ) -> Result<Option<Header>, ReadError> {
        let start = input.offset();
        let part = Part::Record(number);
        let mut head = [0; 16];
        match input.fill(&mut head)? {
            0 => return Ok(None),
            16 => {}
            _ => return Err(input.truncated(part, start)),
        }
        let captured = self.order.u32(&head, 8);
        if captured as usize > MAX_FRAME {
            return Err(ReadError::Corrupt {
                part,
                offset: start,
                stream: input.stream(),
                problem: Problem::RecordLength { claimed: captured },
            });
        }
        input.exact(&mut frame[..captured as usize], part, start)?;
        // Both factors are below 2^32 and the unit at most 1000: no overflow.
        let timestamp = u64::from(self.order.u32(&head, 0)) * 1_000_000_000
            + u64::from(self.order.u32(&head, 4)) * self.unit;
        Ok(Some(Header {
            timestamp: Some(timestamp),
            captured: captured as usize,
            original: self.order.u32(&head, 12),
        }))
    }
}

/// Names what the first bytes belong to, where that is known.
#[cold]
fn foreign(stream: Stream, magic: &[u8]) -> ReadError {
    const REWRITE: &str = "rewrite it: editcap -F pcapng FILE NEW";
    const UNPACK: &str = "unpack it first";
    let (name, remedy) = match magic {
        [0x34, 0xcd, 0xb2, 0xa1] | [0xa1, 0xb2, 0xcd, 0x34] => {
            ("the modified pcap of Kuznetzov's libpcap", REWRITE)
        }
        [0xcd, 0x34, 0xb2, 0xa1] | [0xa1, 0xb2, 0x34, 0xcd] => {
            ("the modified pcap of Mesquita's libpcap", REWRITE)
        }
        [0x4d, 0x3c, 0x2b, 0xa1] | [0xa1, 0x2b, 0x3c, 0x4d] => ("Navtel's pcap", REWRITE),
        [0xab | 0xac, 0x01, 0x00, 0x1c] | [0x1c, 0x00, 0x01, 0xab | 0xac] => {
            ("Ixia's pcap", REWRITE)
        }
        b"snoo" => ("a snoop capture", REWRITE),
        b"GMBU" => ("a Network Monitor capture", REWRITE),
        [0xfd, b'7', b'z', b'X'] => ("an xz file", UNPACK),
        [b'B', b'Z', b'h', _] => ("a bzip2 file", UNPACK),
        [0x04, 0x22, 0x4d, 0x18] => ("an lz4 file", UNPACK),
        [b'P', b'K', 3, 4] => ("a zip archive", UNPACK),
        [0x1f, 0x8b, ..] => ("a gzip file within a compressed file", UNPACK),
        [0x28, 0xb5, 0x2f, 0xfd] => ("a zstd file within a compressed file", UNPACK),
        _ => {
            return ReadError::Foreign {
                stream,
                found: magic.to_vec(),
            };
        }
    };
    ReadError::Unsupported {
        stream,
        name,
        remedy,
    }
}
