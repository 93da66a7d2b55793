//! Reads capture files: classic pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng),
//! plain, gzip or zstd, told apart by their first bytes, never by a file name.
//!
//! The formats are read by code of our own, in order and once, because every error has to name the byte
//! at which the file is broken, which the parsers to be had as crates do not know. A test compares what
//! is read with `pcap-parser`. Memory is bounded: whatever lengths a file claims, a reader holds one
//! frame of [`MAX_FRAME`] bytes, a read buffer, the interfaces of one section, and what the
//! decompressor needs (zstd refuses windows above 128 MiB).

mod classic;
mod error;
mod input;
mod pcapng;
pub(crate) mod write;

use std::io::Read;

use classic::Classic;
pub use error::{LinkType, Part, Problem, ReadError, Stream};
pub use input::Compression;
use input::{Input, Order};
use pcapng::Pcapng;

/// The longest frame that a record may have, in bytes; a longer one is taken for a corrupt length.
/// The same bound as libpcap's `MAXIMUM_SNAPLEN`. A record longer than the snapshot length that its file
/// states, but within this bound, is read whole: such files exist, and nothing in them is broken.
pub const MAX_FRAME: usize = 256 * 1024;

/// One captured frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Nanoseconds since 1970, between 0 and `u64::MAX` (the year 2554) whatever the file says. Simple
    /// packet blocks have none.
    pub timestamp: Option<u64>,
    /// The frame as far as it was captured, from its first Ethernet byte.
    pub data: &'a [u8],
    /// How long the frame was before a snapshot length cut it, in bytes.
    pub original: u32,
}

/// Which of the formats a capture is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Classic pcap with timestamps in microseconds.
    PcapMicroseconds,
    /// Classic pcap with timestamps in nanoseconds.
    PcapNanoseconds,
    /// pcapng.
    Pcapng,
}

/// What stands in a record before its bytes.
struct Header {
    timestamp: Option<u64>,
    captured: usize,
    original: u32,
}

enum Parser {
    Classic(Classic),
    Pcapng(Pcapng),
}

/// Reads the records of a capture one after the other.
pub struct CaptureReader<R: Read> {
    input: Input<R>,
    parser: Parser,
    frame: Box<[u8]>,
    records: u64,
    ended: bool,
}

impl<R: Read> CaptureReader<R> {
    /// Reads the file's header. Fails when there is none, or when it says that nothing of the file can
    /// be read (a foreign link type, an unknown version).
    pub fn new(stream: R) -> Result<Self, ReadError> {
        Self::with_buffer(stream, vec![0; MAX_FRAME].into())
    }

    /// The same, with the buffer of a reader that has come to its end.
    ///
    /// # Panics
    ///
    /// When the buffer is not [`MAX_FRAME`] bytes long.
    pub(crate) fn with_buffer(stream: R, frame: Box<[u8]>) -> Result<Self, ReadError> {
        assert!(frame.len() == MAX_FRAME);
        let mut input = Input::new(stream)?;
        let mut magic = [0; 4];
        let found = input.fill(&mut magic)?;
        if found == 0 {
            return Err(ReadError::Empty {
                stream: input.stream(),
            });
        }
        let parser = if found == 4 && magic == pcapng::SECTION_HEADER {
            Parser::Pcapng(Pcapng::begin(&mut input)?)
        } else {
            Parser::Classic(Classic::begin(&mut input, &magic[..found])?)
        };
        Ok(Self {
            input,
            parser,
            frame,
            records: 0,
            ended: false,
        })
    }

    /// The next record, or `None` at the end. Ends after the first error: everything before it has been
    /// handed out, and behind it there is no telling where a record begins.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        let number = self.records + 1;
        let next = match &mut self.parser {
            Parser::Classic(classic) => classic.next(&mut self.input, &mut self.frame, number),
            Parser::Pcapng(pcapng) => pcapng.next(&mut self.input, &mut self.frame, number),
        };
        match next {
            Ok(Some(header)) => {
                self.records = number;
                Ok(Some(Record {
                    timestamp: header.timestamp,
                    data: &self.frame[..header.captured],
                    original: header.original,
                }))
            }
            Ok(None) => {
                self.ended = true;
                Ok(None)
            }
            Err(error) => {
                self.ended = true;
                Err(error)
            }
        }
    }

    /// How many records have been handed out.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How far the stream has been read, in bytes, after decompression.
    pub fn offset(&self) -> u64 {
        self.input.offset()
    }

    /// The format.
    pub fn format(&self) -> Format {
        match &self.parser {
            Parser::Classic(classic) => classic.format(),
            Parser::Pcapng(_) => Format::Pcapng,
        }
    }

    /// The compression, if any.
    pub(crate) fn compression(&self) -> Option<Compression> {
        self.input.stream().0
    }

    pub(crate) fn into_buffer(self) -> Box<[u8]> {
        self.frame
    }
}

#[cfg(test)]
mod tests;
