//! Capture files made in memory, for tests: every format, byte order, resolution and compression.

use std::io::{Seek, Write};

/// How a capture is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Micro,
    Nano,
    /// Enhanced packet blocks, in nanoseconds.
    Enhanced,
    /// Obsolete packet blocks, in microseconds.
    Obsolete,
    /// Simple packet blocks: no time.
    Simple,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

pub(super) const KINDS: [Kind; 5] = [
    Kind::Micro,
    Kind::Nano,
    Kind::Enhanced,
    Kind::Obsolete,
    Kind::Simple,
];
pub(super) const PACKINGS: [Packing; 3] = [Packing::Plain, Packing::Gzip, Packing::Zstd];

/// Builds a capture byte by byte.
#[derive(Clone, Debug)]
pub(super) struct Builder {
    pub(super) bytes: Vec<u8>,
    big: bool,
}

impl Builder {
    pub(super) fn new(big: bool) -> Self {
        Self {
            bytes: Vec::new(),
            big,
        }
    }

    pub(super) fn u16(mut self, value: u16) -> Self {
        let bytes = if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        };
        self.bytes.extend(bytes);
        self
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        let bytes = if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        };
        self.bytes.extend(bytes);
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        let bytes = if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        };
        self.bytes.extend(bytes);
        self
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    pub(super) fn classic(self, magic: u32, link: u32) -> Self {
        self.u32(magic)
            .u16(2)
            .u16(4)
            .u32(0)
            .u32(0)
            .u32(65_535)
            .u32(link)
    }

    pub(super) fn record(
        self,
        seconds: u32,
        fraction: u32,
        captured: u32,
        original: u32,
        data: &[u8],
    ) -> Self {
        self.u32(seconds)
            .u32(fraction)
            .u32(captured)
            .u32(original)
            .raw(data)
    }

    pub(super) fn block(self, kind: u32, body: impl FnOnce(Self) -> Self) -> Self {
        let inner = body(Self::new(self.big));
        let mut padded = inner.bytes;
        padded.resize(padded.len().next_multiple_of(4), 0);
        let length = padded.len() as u32 + 12;
        self.u32(kind).u32(length).raw(&padded).u32(length)
    }

    pub(super) fn section(self) -> Self {
        self.block(0x0a0d_0d0a, |b| {
            b.u32(0x1a2b_3c4d).u16(1).u16(0).u64(u64::MAX)
        })
    }

    pub(super) fn option(self, code: u16, value: &[u8]) -> Self {
        let padding = value.len().next_multiple_of(4) - value.len();
        self.u16(code)
            .u16(value.len() as u16)
            .raw(value)
            .raw(&[0; 3][..padding])
    }

    pub(super) fn interface(
        self,
        link: u16,
        snaplen: u32,
        options: impl FnOnce(Self) -> Self,
    ) -> Self {
        self.block(1, |b| options(b.u16(link).u16(0).u32(snaplen)))
    }

    pub(super) fn enhanced(self, interface: u32, units: u64, original: u32, data: &[u8]) -> Self {
        self.block(6, |b| {
            b.u32(interface)
                .u32((units >> 32) as u32)
                .u32(units as u32)
                .u32(data.len() as u32)
                .u32(original)
                .raw(data)
        })
    }
}

/// A whole capture of `frames`, each with its time in nanoseconds.
pub(super) fn capture(kind: Kind, big: bool, frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let b = Builder::new(big);
    let mut b = match kind {
        Kind::Micro => b.classic(0xa1b2_c3d4, 1),
        Kind::Nano => b.classic(0xa1b2_3c4d, 1),
        Kind::Enhanced => b
            .section()
            .interface(1, 0, |b| b.option(9, &[9]).option(0, &[])),
        Kind::Obsolete | Kind::Simple => b.section().interface(1, 0, |b| b),
    };
    for (time, data) in frames {
        let (seconds, rest) = ((time / 1_000_000_000) as u32, (time % 1_000_000_000) as u32);
        let length = data.len() as u32;
        b = match kind {
            Kind::Micro => b.record(seconds, rest / 1000, length, length, data),
            Kind::Nano => b.record(seconds, rest, length, length, data),
            Kind::Enhanced => b.enhanced(0, *time, length, data),
            Kind::Obsolete => b.block(2, |b| {
                let units = time / 1000;
                b.u16(0)
                    .u16(0)
                    .u32((units >> 32) as u32)
                    .u32(units as u32)
                    .u32(length)
                    .u32(length)
                    .raw(data)
            }),
            Kind::Simple => b.block(3, |b| b.u32(length).raw(data)),
        };
    }
    b.bytes
}

/// What a reader makes of a time that a kind of capture holds.
pub(super) fn resolved(kind: Kind, time: u64) -> Option<u64> {
    match kind {
        Kind::Micro | Kind::Obsolete => Some(time / 1000 * 1000),
        Kind::Nano | Kind::Enhanced => Some(time),
        Kind::Simple => None,
    }
}

pub(super) fn pack(packing: Packing, bytes: &[u8]) -> Vec<u8> {
    match packing {
        Packing::Plain => bytes.to_vec(),
        Packing::Gzip => {
            let level = flate2::Compression::fast();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).expect("into memory");
            encoder.finish().expect("into memory")
        }
        Packing::Zstd => zstd::encode_all(bytes, 1).expect("into memory"),
    }
}

/// An unnamed file with these bytes, at its beginning.
pub(super) fn file(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes).expect("a file");
    file.rewind().expect("a seekable file");
    file
}

/// `count` frames of some length, all different, one every `step` nanoseconds.
pub(super) fn frames(count: usize, step: u64) -> Vec<(u64, Vec<u8>)> {
    (0..count)
        .map(|i| {
            let length = 14 + i * 7 % 90;
            let bytes = (0..length).map(|at| (at ^ i) as u8).collect();
            (1_700_000_000_000_000_000 + i as u64 * step, bytes)
        })
        .collect()
}
