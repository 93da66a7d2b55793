//! A file's zstd frame (RFC 8878): compressed piece by piece, each of which can be read once it is written.

use std::io;

use zstd::zstd_safe::{
    self, CCtx, CParameter, InBuffer, OutBuffer, ResetDirective, zstd_sys::ZSTD_EndDirective,
};

/// zstd's own default.
const LEVEL: i32 = 3;

/// What ends a zstd frame: an empty last block (RFC 8878, 3.1.1.2), without a checksum.
pub(super) const END: [u8; 3] = [1, 0, 0];

/// How the zstd frame of the open file stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZstdFrame {
    /// The file has none of it.
    Unwritten,
    /// The file has all that was compressed.
    Whole,
    /// What was compressed last is not in the file, so that nothing can follow it there but the frame's end.
    Torn,
}

/// What compresses.
pub(super) struct Compressor {
    stream: CCtx<'static>,
    pub(super) frame: ZstdFrame,
    packed: Vec<u8>,
}

impl Compressor {
    /// One for about `most` bytes at a time.
    pub(super) fn new(most: usize) -> io::Result<Self> {
        let mut stream = CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        stream
            .set_parameter(CParameter::CompressionLevel(LEVEL))
            .map_err(zstd_error)?;
        Ok(Self {
            stream,
            frame: ZstdFrame::Unwritten,
            packed: Vec::with_capacity(zstd_safe::compress_bound(most)),
        })
    }

    /// The most bytes that so many become, with the ends of a torn frame and of the file's last.
    pub(super) fn bound(bytes: usize) -> usize {
        zstd_safe::compress_bound(bytes) + 2 * END.len()
    }

    /// Compresses `bytes`, in a new frame where the last is torn or there is none. What comes of writing them is
    /// then to be told to [`settle`](Self::settle).
    pub(super) fn compress(&mut self, bytes: &[u8]) -> io::Result<&[u8]> {
        self.packed.clear();
        if self.frame != ZstdFrame::Whole {
            self.stream
                .reset(ResetDirective::SessionOnly)
                .map_err(zstd_error)?;
        }
        if self.frame == ZstdFrame::Torn {
            self.packed.extend(END);
        }
        let mut input = InBuffer::around(bytes);
        loop {
            let at = self.packed.len();
            let mut output = OutBuffer::around_pos(&mut self.packed, at);
            let flush = ZSTD_EndDirective::ZSTD_e_flush;
            match self.stream.compress_stream2(&mut output, &mut input, flush) {
                Ok(0) => return Ok(&self.packed),
                Ok(left) => self.packed.reserve(left),
                Err(code) => {
                    self.settle(false);
                    return Err(zstd_error(code));
                }
            }
        }
    }

    /// Whether what was compressed last is in the file.
    pub(super) fn settle(&mut self, written: bool) {
        self.frame = match (written, self.frame) {
            (true, _) => ZstdFrame::Whole,
            (false, ZstdFrame::Unwritten) => ZstdFrame::Unwritten,
            (false, _) => ZstdFrame::Torn,
        };
    }
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::other(zstd_safe::get_error_name(code))
}
