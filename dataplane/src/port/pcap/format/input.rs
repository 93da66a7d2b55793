//! The bytes of a capture, decompressed and counted, and numbers in either byte order.

use std::io::{self, BufReader, Chain, Cursor, Read};

use super::{Part, ReadError, Stream};

/// A compression that is seen through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952, also several members one after the other.
    Gzip,
    /// RFC 8878, also several frames one after the other.
    Zstd,
}

impl Compression {
    /// The name of the program that makes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }

    fn of(magic: &[u8]) -> Option<Self> {
        match magic {
            [0x1f, 0x8b, ..] => Some(Compression::Gzip),
            // A frame, or a skippable frame (RFC 8878, 3.1.2), with which parallel compressors begin.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Some(Compression::Zstd)
            }
            _ => None,
        }
    }
}

/// The bytes that were looked at, and what follows them.
type Whole<R> = Chain<Cursor<Vec<u8>>, R>;

enum Decoder<R: Read> {
    Plain(Whole<R>),
    Gzip(Box<flate2::read::MultiGzDecoder<Whole<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Whole<R>>>>),
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Plain(plain) => plain.read(into),
            Decoder::Gzip(gzip) => gzip.read(into),
            Decoder::Zstd(zstd) => zstd.read(into),
        }
    }
}

/// Read at a time from the stream, in bytes.
const BUFFER: usize = 64 * 1024;

/// A stream of uncompressed bytes that knows how far it has come.
pub(super) struct Input<R: Read> {
    reader: BufReader<Decoder<R>>,
    offset: u64,
    stream: Stream,
}

impl<R: Read> Input<R> {
    pub(super) fn new(mut raw: R) -> Result<Self, ReadError> {
        let failed = |source| ReadError::Io {
            offset: 0,
            stream: Stream(None),
            source,
        };
        let mut magic = Vec::with_capacity(4);
        raw.by_ref()
            .take(4)
            .read_to_end(&mut magic)
            .map_err(failed)?;
        let compression = Compression::of(&magic);
        let whole = Cursor::new(magic).chain(raw);
        let decoder = match compression {
            None => Decoder::Plain(whole),
            Some(Compression::Gzip) => {
                Decoder::Gzip(Box::new(flate2::read::MultiGzDecoder::new(whole)))
            }
            Some(Compression::Zstd) => Decoder::Zstd(Box::new(
                zstd::stream::read::Decoder::new(whole).map_err(failed)?,
            )),
        };
        Ok(Self {
            reader: BufReader::with_capacity(BUFFER, decoder),
            offset: 0,
            stream: Stream(compression),
        })
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn stream(&self) -> Stream {
        self.stream
    }

    /// Reads until `into` is full or the stream ends; answers how much there was.
    #[inline]
    pub(super) fn fill(&mut self, into: &mut [u8]) -> Result<usize, ReadError> {
        let mut filled = 0;
        while filled < into.len() {
            match self.reader.read(&mut into[filled..]) {
                Ok(0) => break,
                Ok(n) => {
                    filled += n;
                    self.offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed(e)),
            }
        }
        Ok(filled)
    }

    /// Fills `into`; the stream must not end before. `part`, which begins at `start`, is what is being
    /// read.
    #[inline]
    pub(super) fn exact(
        &mut self,
        into: &mut [u8],
        part: Part,
        start: u64,
    ) -> Result<(), ReadError> {
        if self.fill(into)? == into.len() {
            Ok(())
        } else {
            Err(self.truncated(part, start))
        }
    }

    /// Reads `count` bytes and forgets them.
    pub(super) fn skip(&mut self, count: u64, part: Part, start: u64) -> Result<(), ReadError> {
        let mut left = count;
        let mut waste = [0; 4096];
        while left > 0 {
            let chunk = left.min(waste.len() as u64) as usize;
            self.exact(&mut waste[..chunk], part, start)?;
            left -= chunk as u64;
        }
        Ok(())
    }

    #[cold]
    pub(super) fn truncated(&self, part: Part, start: u64) -> ReadError {
        ReadError::Truncated {
            part,
            start,
            end: self.offset,
            stream: self.stream,
        }
    }

    #[cold]
    fn failed(&self, source: io::Error) -> ReadError {
        let offset = self.offset;
        match self.stream.0 {
            // What has no errno was said by the decompressor, not by the kernel.
            Some(compression) if source.raw_os_error().is_none() => {
                if source.kind() == io::ErrorKind::UnexpectedEof {
                    ReadError::CompressedTruncated {
                        compression,
                        offset,
                    }
                } else {
                    ReadError::Compressed {
                        compression,
                        offset,
                        source,
                    }
                }
            }
            _ => ReadError::Io {
                offset,
                stream: self.stream,
                source,
            },
        }
    }
}

/// The byte order of whoever wrote the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    /// # Panics
    ///
    /// When fewer than two bytes stand at `at` (a fault of the caller, whose buffers are of fixed size).
    #[inline]
    pub(super) fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let bytes = [bytes[at], bytes[at + 1]];
        match self {
            Order::Little => u16::from_le_bytes(bytes),
            Order::Big => u16::from_be_bytes(bytes),
        }
    }

    /// As [`Self::u16`], for four bytes.
    #[inline]
    pub(super) fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let bytes = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        match self {
            Order::Little => u32::from_le_bytes(bytes),
            Order::Big => u32::from_be_bytes(bytes),
        }
    }
}
