//! What can be wrong with a capture file. Every message says what, at which byte, and how to mend it.

use std::{fmt, io};

use super::{Compression, MAX_FRAME};

/// The stream that offsets count in: the file's own bytes, or what comes out of the decompressor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(pub Option<Compression>);

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("the file"),
            Some(compression) => write!(f, "the uncompressed stream ({})", compression.name()),
        }
    }
}

/// Which part of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The header of the file, or of a pcapng section.
    Header,
    /// A packet record, counted from 1.
    Record(u64),
    /// The first 8 bytes of a pcapng block.
    BlockHeader,
    /// A pcapng block that is no packet, by its type.
    Block(u32),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Header => f.write_str("the capture header"),
            Part::Record(number) => write!(f, "record {number}"),
            Part::BlockHeader => f.write_str("a block header"),
            Part::Block(kind) => write!(f, "the block of type {kind:#010x}"),
        }
    }
}

/// In which way a part is corrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The captured length is not possible.
    RecordLength {
        /// As claimed, in bytes.
        claimed: u32,
    },
    /// The block's length is not possible.
    BlockLength {
        /// As claimed, in bytes.
        claimed: u32,
    },
    /// The block's two lengths differ.
    Trailer {
        /// At its beginning.
        first: u32,
        /// At its end.
        last: u32,
    },
    /// The block is too short for what it says that it holds.
    Contents {
        /// What it has left, in bytes.
        left: u32,
        /// What would be needed there, in bytes.
        needed: u32,
    },
    /// A packet of an interface that was not described before it.
    Interface {
        /// Which.
        id: u32,
        /// How many were described.
        known: usize,
    },
    /// More interfaces than are kept.
    Interfaces {
        /// How many are.
        limit: usize,
    },
    /// An option of a length that it cannot have.
    OptionLength {
        /// Its code.
        code: u16,
        /// Its length in bytes.
        length: u16,
    },
    /// A section whose byte order magic is none.
    ByteOrder {
        /// What stands there, in the file's order.
        found: [u8; 4],
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::RecordLength { claimed } => {
                write!(f, "claims {claimed} captured bytes (at most {MAX_FRAME})")
            }
            Problem::BlockLength { claimed } => {
                write!(f, "claims an impossible length of {claimed} bytes")
            }
            Problem::Trailer { first, last } => {
                write!(f, "has {first} bytes by its head and {last} by its tail")
            }
            Problem::Contents { left, needed } => {
                write!(f, "needs {needed} bytes where it has {left} left")
            }
            Problem::Interface { id, known } => {
                write!(f, "is of interface {id}, but {known} are described")
            }
            Problem::Interfaces { limit } => write!(f, "is one interface more than {limit}"),
            Problem::OptionLength { code, length } => {
                write!(f, "has option {code} with {length} bytes")
            }
            Problem::ByteOrder { found } => {
                write!(f, "has the byte order magic {found:02x?}, which is none")
            }
        }
    }
}

/// A link-layer type by its number in the registry of draft-ietf-opsawg-pcaplinktype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkType(pub u32);

impl LinkType {
    /// The one that is carried.
    pub(crate) const ETHERNET: Self = Self(1);

    /// The registry's name, where it is a common one.
    pub(crate) const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "NULL",
            1 => "ETHERNET",
            6 => "IEEE802_5",
            9 => "PPP",
            10 => "FDDI",
            // 12 and 14 are DLT_RAW of BSDs, written by mistake.
            12 | 14 | 101 => "RAW",
            50 => "PPP_HDLC",
            51 => "PPP_ETHER",
            104 => "C_HDLC",
            105 => "IEEE802_11",
            107 => "FRELAY",
            108 => "LOOP",
            113 => "LINUX_SLL",
            117 => "PFLOG",
            119 => "IEEE802_11_PRISM",
            127 => "IEEE802_11_RADIOTAP",
            143 => "DOCSIS",
            147..=162 => "USER",
            187 => "BLUETOOTH_HCI_H4",
            189 => "USB_LINUX",
            192 => "PPI",
            195 => "IEEE802_15_4_WITHFCS",
            220 => "USB_LINUX_MMAPPED",
            227 => "CAN_SOCKETCAN",
            228 => "IPV4",
            229 => "IPV6",
            239 => "NFLOG",
            249 => "USBPCAP",
            253 => "NETLINK",
            276 => "LINUX_SLL2",
            _ => return None,
        })
    }
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({name})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Why no more can be read. Offsets are in bytes of `stream`, from 0.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not a single byte.
    #[error("{stream} is empty; an empty capture has at least a header (capture it again)")]
    Empty {
        /// What is empty.
        stream: Stream,
    },
    /// The first bytes are of no capture format.
    #[error(
        "not a capture: {stream} begins with {found:02x?} at byte 0; pcap and pcapng are read, plain, .gz or .zst"
    )]
    Foreign {
        /// Where.
        stream: Stream,
        /// Up to four bytes.
        found: Vec<u8>,
    },
    /// A format that is known and not read.
    #[error("byte 0 of {stream} says that this is {name}, which is not read; {remedy}")]
    Unsupported {
        /// Where.
        stream: Stream,
        /// The format's name.
        name: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A version of a format that is not read.
    #[error(
        "version {major}.{minor} of {format} at byte {offset} of {stream} is not read; rewrite it: editcap FILE NEW"
    )]
    Version {
        /// pcap or pcapng.
        format: &'static str,
        /// As found.
        major: u16,
        /// As found.
        minor: u16,
        /// Of the version.
        offset: u64,
        /// Where.
        stream: Stream,
    },
    /// The stream ends within a part.
    #[error(
        "truncated: {part} begins at byte {start}, and {stream} ends at byte {end}, in the middle of it; keep what is before it: editcap FILE NEW"
    )]
    Truncated {
        /// Which part.
        part: Part,
        /// Where it begins.
        start: u64,
        /// Where the stream ends.
        end: u64,
        /// Of what.
        stream: Stream,
    },
    /// A part contradicts itself.
    #[error(
        "corrupt: {part} at byte {offset} of {stream} {problem}; keep what is before it: editcap FILE NEW"
    )]
    Corrupt {
        /// Which part.
        part: Part,
        /// Where it begins.
        offset: u64,
        /// In what.
        stream: Stream,
        /// In which way.
        problem: Problem,
    },
    /// Frames that are not Ethernet.
    #[error(
        "{part} at byte {offset} of {stream} is of link type {link}, and only ETHERNET (1) is carried; capture on an Ethernet interface (not on `any`), or give the packets Ethernet headers: tcprewrite --dlt=enet"
    )]
    NotEthernet {
        /// The type.
        link: LinkType,
        /// Where it is stated, or the first packet of it.
        part: Part,
        /// Where that begins.
        offset: u64,
        /// In what.
        stream: Stream,
    },
    /// The compressed stream ends early.
    #[error(
        "truncated: the {} data ends early, after {offset} bytes of the uncompressed stream; fetch the file again",
        compression.name()
    )]
    CompressedTruncated {
        /// Which compression.
        compression: Compression,
        /// How much came out of it.
        offset: u64,
    },
    /// The compressed stream is corrupt. A decompressor that finds no way on keeps what it had not given
    /// out yet, so that the last frames before the damage, some 64 KiB of them, can be missing.
    #[error(
        "corrupt: the {} data cannot be decompressed after byte {offset} of the uncompressed stream: {source}; fetch the file again",
        compression.name()
    )]
    Compressed {
        /// Which compression.
        compression: Compression,
        /// How much came out of it.
        offset: u64,
        /// The decompressor's word.
        source: io::Error,
    },
    /// The kernel refused a read.
    #[error(
        "cannot read on after byte {offset} of {stream}: {source}; check the disk or the writer of the pipe"
    )]
    Io {
        /// How much was read.
        offset: u64,
        /// Of what.
        stream: Stream,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The reader has a fault.
    #[error("the capture reader panicked; please report this with the file")]
    Panicked,
}

impl ReadError {
    /// The byte at which the stream is broken, where there is one: of the part that is, or, where the
    /// stream itself fails, how far it could be read.
    pub fn offset(&self) -> Option<u64> {
        match self {
            ReadError::Empty { .. } | ReadError::Foreign { .. } | ReadError::Unsupported { .. } => {
                Some(0)
            }
            ReadError::Version { offset, .. }
            | ReadError::Corrupt { offset, .. }
            | ReadError::NotEthernet { offset, .. }
            | ReadError::CompressedTruncated { offset, .. }
            | ReadError::Compressed { offset, .. }
            | ReadError::Io { offset, .. } => Some(*offset),
            ReadError::Truncated { end, .. } => Some(*end),
            ReadError::Panicked => None,
        }
    }
}
