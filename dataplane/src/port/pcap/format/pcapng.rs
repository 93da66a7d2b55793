//! pcapng: sections of blocks (draft-ietf-opsawg-pcapng). Section headers, interface descriptions,
//! enhanced, simple and obsolete packet blocks are read; every other block is skipped.
//!
//! Interfaces may differ in link type. One that is not Ethernet is an error only when a packet of it
//! comes: a file whose other interface stayed silent is a good file.

use std::io::Read;

use super::{Header, Input, LinkType, MAX_FRAME, Order, Part, Problem, ReadError};

/// The type of a section header block, the same in both byte orders.
pub(super) const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

const INTERFACE_DESCRIPTION: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

const END_OF_OPTIONS: u16 = 0;
const IF_TSRESOL: u16 = 9;
const IF_TSOFFSET: u16 = 14;

/// The longest block, in bytes: libpcap's bound (`INITIAL_MAX_BLOCKSIZE` in `sf-pcapng.c`).
const MAX_BLOCK: u32 = 16 * 1024 * 1024;
/// Type, length, and the length again at the end.
const FRAME_OF_BLOCK: u32 = 12;
/// Interfaces that are kept for a section.
const MAX_INTERFACES: usize = 65_536;

#[derive(Clone, Copy, Debug)]
struct Interface {
    link: LinkType,
    /// Packets of it are cut at this, in bytes; 0 is never.
    snaplen: u32,
    resolution: Resolution,
    /// Added to its timestamps, in seconds.
    offset: i64,
}

/// How long a unit of a timestamp lasts (`if_tsresol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolution {
    /// 10 to the minus this.
    Decimal(u8),
    /// 2 to the minus this.
    Binary(u8),
}

impl Resolution {
    fn of(option: u8) -> Self {
        if option & 0x80 == 0 {
            Resolution::Decimal(option)
        } else {
            Resolution::Binary(option & 0x7f)
        }
    }

    fn nanoseconds(self, units: u64) -> u128 {
        let units = u128::from(units);
        match self {
            Resolution::Decimal(n @ 0..=9) => units * 10u128.pow(u32::from(9 - n)),
            // Beyond 10^20 no unit count of 64 bits makes a nanosecond.
            Resolution::Decimal(n) => 10u128
                .checked_pow(u32::from(n - 9))
                .map_or(0, |divisor| units / divisor),
            Resolution::Binary(n) => (units * 1_000_000_000) >> n,
        }
    }
}

impl Interface {
    fn timestamp(&self, high: u32, low: u32) -> u64 {
        let units = u64::from(high) << 32 | u64::from(low);
        // At most 2^64 * 10^9 + 2^63 * 10^9 < 2^95.
        let nanoseconds =
            self.resolution.nanoseconds(units) as i128 + i128::from(self.offset) * 1_000_000_000;
        nanoseconds.clamp(0, i128::from(u64::MAX)) as u64
    }
}

pub(super) struct Pcapng {
    order: Order,
    interfaces: Vec<Interface>,
}

/// A block whose first 8 bytes have been read.
struct Block {
    part: Part,
    start: u64,
    length: u32,
    /// What has not been read of its body.
    left: u32,
}

impl Block {
    fn new<R: Read>(
        input: &Input<R>,
        part: Part,
        start: u64,
        length: u32,
    ) -> Result<Self, ReadError> {
        let block = Self {
            part,
            start,
            length,
            left: length.saturating_sub(FRAME_OF_BLOCK),
        };
        if (FRAME_OF_BLOCK..=MAX_BLOCK).contains(&length) && length.is_multiple_of(4) {
            Ok(block)
        } else {
            Err(block.corrupt(input, Problem::BlockLength { claimed: length }))
        }
    }

    #[cold]
    fn corrupt<R: Read>(&self, input: &Input<R>, problem: Problem) -> ReadError {
        ReadError::Corrupt {
            part: self.part,
            offset: self.start,
            stream: input.stream(),
            problem,
        }
    }

    /// Takes `needed` bytes off the body's account.
    #[inline]
    fn spend<R: Read>(&mut self, input: &Input<R>, needed: u32) -> Result<(), ReadError> {
        match self.left.checked_sub(needed) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(self.corrupt(
                input,
                Problem::Contents {
                    left: self.left,
                    needed,
                },
            )),
        }
    }

    #[inline]
    fn read<R: Read>(&mut self, input: &mut Input<R>, into: &mut [u8]) -> Result<(), ReadError> {
        self.spend(input, into.len() as u32)?;
        input.exact(into, self.part, self.start)
    }

    fn skip<R: Read>(&mut self, input: &mut Input<R>, count: u32) -> Result<(), ReadError> {
        self.spend(input, count)?;
        input.skip(u64::from(count), self.part, self.start)
    }

    /// Skips what is left and compares the length at the end with the one at the beginning.
    #[inline]
    fn finish<R: Read>(mut self, input: &mut Input<R>, order: Order) -> Result<(), ReadError> {
        self.skip(input, self.left)?;
        let mut last = [0; 4];
        input.exact(&mut last, self.part, self.start)?;
        let last = order.u32(&last, 0);
        if last == self.length {
            Ok(())
        } else {
            let first = self.length;
            Err(self.corrupt(input, Problem::Trailer { first, last }))
        }
    }
}

impl Pcapng {
    /// Reads the first section's header behind its block type.
    pub(super) fn begin<R: Read>(input: &mut Input<R>) -> Result<Self, ReadError> {
        let mut pcapng = Self {
            order: Order::Little,
            interfaces: Vec::new(),
        };
        let mut length = [0; 4];
        input.exact(&mut length, Part::Header, 0)?;
        pcapng.section(input, 0, length)?;
        Ok(pcapng)
    }

    /// Reads a section header behind its length, whose byte order it tells.
    fn section<R: Read>(
        &mut self,
        input: &mut Input<R>,
        start: u64,
        length: [u8; 4],
    ) -> Result<(), ReadError> {
        let mut magic = [0; 4];
        input.exact(&mut magic, Part::Header, start)?;
        self.order = match magic {
            [0x4d, 0x3c, 0x2b, 0x1a] => Order::Little,
            [0x1a, 0x2b, 0x3c, 0x4d] => Order::Big,
            found => {
                return Err(ReadError::Corrupt {
                    part: Part::Header,
                    offset: start,
                    stream: input.stream(),
                    problem: Problem::ByteOrder { found },
                });
            }
        };
        self.interfaces.clear();
        let mut block = Block::new(input, Part::Header, start, self.order.u32(&length, 0))?;
        block.spend(input, 4)?;
        // The section's length is no help: it is optional, and blocks are walked one by one anyway.
        let mut body = [0; 12];
        block.read(input, &mut body)?;
        let (major, minor) = (self.order.u16(&body, 0), self.order.u16(&body, 2));
        // 1.2 was written by some and means 1.0 (draft-ietf-opsawg-pcapng, 4.1).
        if major != 1 || !matches!(minor, 0 | 2) {
            return Err(ReadError::Version {
                format: "pcapng",
                major,
                minor,
                offset: start + 12,
                stream: input.stream(),
            });
        }
        block.finish(input, self.order)
    }

    /// Reads the next packet's bytes into `frame`.
    pub(super) fn next<R: Read>(
        &mut self,
        input: &mut Input<R>,
        frame: &mut [u8],
        number: u64,
    ) -> Result<Option<Header>, ReadError> {
        loop {
            let start = input.offset();
            let mut head = [0; 8];
            match input.fill(&mut head)? {
                0 => return Ok(None),
                8 => {}
                _ => return Err(input.truncated(Part::BlockHeader, start)),
            }
            if head[..4] == SECTION_HEADER {
                self.section(input, start, [head[4], head[5], head[6], head[7]])?;
                continue;
            }
            let kind = self.order.u32(&head, 0);
            let part = match kind {
                PACKET | SIMPLE_PACKET | ENHANCED_PACKET => Part::Record(number),
                other => Part::Block(other),
            };
            let block = Block::new(input, part, start, self.order.u32(&head, 4))?;
            match kind {
                INTERFACE_DESCRIPTION => self.interface(input, block)?,
                PACKET | ENHANCED_PACKET => {
                    return self.packet(input, block, frame, kind).map(Some);
                }
                SIMPLE_PACKET => return self.simple_packet(input, block, frame).map(Some),
                _ => block.finish(input, self.order)?,
            }
        }
    }

    /// Section 4.2 of the draft; of the options (3.5), what bears on timestamps.
    fn interface<R: Read>(
        &mut self,
        input: &mut Input<R>,
        mut block: Block,
    ) -> Result<(), ReadError> {
        let mut body = [0; 8];
        block.read(input, &mut body)?;
        let mut interface = Interface {
            link: LinkType(u32::from(self.order.u16(&body, 0))),
            snaplen: self.order.u32(&body, 4),
            resolution: Resolution::Decimal(6),
            offset: 0,
        };
        // The end of options may be left out where the block ends.
        while block.left > 0 {
            let mut option = [0; 4];
            block.read(input, &mut option)?;
            let code = self.order.u16(&option, 0);
            let length = self.order.u16(&option, 2);
            match (code, length) {
                (END_OF_OPTIONS, _) => break,
                (IF_TSRESOL, 1) => {
                    let mut value = [0; 4];
                    block.read(input, &mut value)?;
                    interface.resolution = Resolution::of(value[0]);
                }
                (IF_TSOFFSET, 8) => {
                    let mut value = [0; 8];
                    block.read(input, &mut value)?;
                    interface.offset = match self.order {
                        Order::Little => i64::from_le_bytes(value),
                        Order::Big => i64::from_be_bytes(value),
                    };
                }
                (IF_TSRESOL | IF_TSOFFSET, _) => {
                    return Err(block.corrupt(input, Problem::OptionLength { code, length }));
                }
                _ => block.skip(input, u32::from(length).next_multiple_of(4))?,
            }
        }
        if self.interfaces.len() == MAX_INTERFACES {
            let limit = MAX_INTERFACES;
            return Err(block.corrupt(input, Problem::Interfaces { limit }));
        }
        block.finish(input, self.order)?;
        self.interfaces.push(interface);
        Ok(())
    }

    /// Enhanced (4.3) and obsolete (appendix A) packet blocks differ only in how they write the
    /// interface.
    fn packet<R: Read>(
        &self,
        input: &mut Input<R>,
        mut block: Block,
        frame: &mut [u8],
        kind: u32,
    ) -> Result<Header, ReadError> {
        let mut body = [0; 20];
        block.read(input, &mut body)?;
        let id = if kind == PACKET {
            u32::from(self.order.u16(&body, 0))
        } else {
            self.order.u32(&body, 0)
        };
        let interface = self.ethernet(input, &block, id)?;
        let captured = self.order.u32(&body, 12);
        self.data(input, block, frame, captured)?;
        Ok(Header {
            timestamp: Some(
                interface.timestamp(self.order.u32(&body, 4), self.order.u32(&body, 8)),
            ),
            captured: captured as usize,
            original: self.order.u32(&body, 16),
        })
    }

    /// Section 4.4: of the first interface, without a time, cut at that interface's snapshot length.
    fn simple_packet<R: Read>(
        &self,
        input: &mut Input<R>,
        mut block: Block,
        frame: &mut [u8],
    ) -> Result<Header, ReadError> {
        let mut body = [0; 4];
        block.read(input, &mut body)?;
        let interface = self.ethernet(input, &block, 0)?;
        let original = self.order.u32(&body, 0);
        let captured = match interface.snaplen {
            0 => original,
            snaplen => original.min(snaplen),
        };
        self.data(input, block, frame, captured)?;
        Ok(Header {
            timestamp: None,
            captured: captured as usize,
            original,
        })
    }

    fn ethernet<R: Read>(
        &self,
        input: &Input<R>,
        block: &Block,
        id: u32,
    ) -> Result<Interface, ReadError> {
        let Some(&interface) = self.interfaces.get(id as usize) else {
            let known = self.interfaces.len();
            return Err(block.corrupt(input, Problem::Interface { id, known }));
        };
        if interface.link != LinkType::ETHERNET {
            return Err(ReadError::NotEthernet {
                link: interface.link,
                part: block.part,
                offset: block.start,
                stream: input.stream(),
            });
        }
        Ok(interface)
    }

    /// Reads a packet's bytes and the rest of its block.
    #[inline]
    fn data<R: Read>(
        &self,
        input: &mut Input<R>,
        mut block: Block,
        frame: &mut [u8],
        captured: u32,
    ) -> Result<(), ReadError> {
        if captured as usize > MAX_FRAME {
            return Err(block.corrupt(input, Problem::RecordLength { claimed: captured }));
        }
        block.read(input, &mut frame[..captured as usize])?;
        block.skip(input, captured.next_multiple_of(4) - captured)?;
        block.finish(input, self.order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_of_every_resolution() {
        let second = 1_000_000_000u128;
        let cases = [
            (6, 1_500_000, 3 * second / 2),
            (9, 1_500_000_000, 3 * second / 2),
            (0, 3, 3 * second),
            (3, 1_500, 3 * second / 2),
            (12, 1_500_000_000_999, 3 * second / 2),
            (29, u64::MAX, 0),
            (127, u64::MAX, 0),
            (0x80, 3, 3 * second),
            (0x80 | 20, 3 << 19, 3 * second / 2),
            (0x80 | 127, u64::MAX, 0),
            (0, u64::MAX, u128::from(u64::MAX) * second),
        ];
        for (option, units, expected) in cases {
            assert_eq!(
                Resolution::of(option).nanoseconds(units),
                expected,
                "{option} {units}"
            );
        }
    }

    #[test]
    fn timestamps_stay_within_their_type() {
        let interface = |offset| Interface {
            link: LinkType::ETHERNET,
            snaplen: 0,
            resolution: Resolution::Decimal(0),
            offset,
        };
        assert_eq!(interface(i64::MIN).timestamp(0, 5), 0);
        assert_eq!(interface(-3).timestamp(0, 5), 2_000_000_000);
        assert_eq!(interface(i64::MAX).timestamp(u32::MAX, u32::MAX), u64::MAX);
    }
}
