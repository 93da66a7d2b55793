//! What becomes of blocks: files of pcapng, rotated by size, time and count, each complete, and compressed
//! where that is wanted. No thread and no queue: the recorder brings both.
//!
//! Compressed, a file is one zstd frame (RFC 8878), since Wireshark 4.0 reads no second one. It is flushed
//! after [`PACK`] bytes, [`OLDEST`], or [`IDLE`] without another block, so that what is there at any moment can be
//! read.

use std::{
    io,
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use super::{
    super::format::write::first_packet,
    block::{Block, Outcome},
    compress::{Compressor, END, ZstdFrame},
};
use crate::{policy::Reason, port::PortFailure};

/// Uncompressed bytes between two flushes, about.
pub(super) const PACK: usize = 1 << 20;

/// How long the first packet may wait for others to be compressed with.
pub(super) const OLDEST: Duration = Duration::from_secs(1);

/// How long packets that are to be compressed wait for another block.
pub(super) const IDLE: Duration = Duration::from_millis(100);

/// How long all must go well after a failure before that is reported: a disk that is nearly full takes
/// small blocks between large ones that it refuses.
const WELL: Duration = Duration::from_secs(1);

/// Where a recording goes. Its methods are called by one thread, which may wait in them.
pub trait Output: Send {
    /// Opens the next file, empty.
    ///
    /// # Errors
    ///
    /// Nothing is open then, and it is asked again when there is something to write.
    fn next(&mut self) -> io::Result<()>;

    /// Appends all of these bytes to the file. `stop` becomes readable when waiting is no use any more.
    ///
    /// # Errors
    ///
    /// None of them are in the file then, where it can be helped. [`io::ErrorKind::BrokenPipe`] says that
    /// nothing can ever be written again.
    fn append(&mut self, bytes: &[u8], stop: BorrowedFd<'_>) -> io::Result<()>;

    /// The file is complete.
    fn finish(&mut self);

    /// The name of the file, or of the last one, for messages.
    fn name(&self) -> String;
}

/// When a new file is begun. A file has at least one frame, whatever its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of a file.
    pub size: Option<u64>,
    /// The longest time between the beginning of a file and its end.
    pub time: Option<Duration>,
    /// The most frames of a file.
    pub frames: Option<u64>,
}

/// How far the open file has come.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// Bytes that the output has.
    bytes: u64,
    /// Those of packets that wait to be compressed included.
    frames: u64,
    opened: Instant,
}

/// Some whole packets at the beginning of others.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    bytes: usize,
    frames: u64,
    /// Bytes of the frames themselves.
    payload: u64,
}

/// Packets of a held block that wait to be compressed.
#[derive(Clone, Copy, Debug)]
struct Piece {
    block: usize,
    run: Run,
}

/// Packets that wait to be compressed.
struct Pack {
    gathered: Vec<u8>,
    pieces: Vec<Piece>,
    /// When the first packet came, and the last.
    first: Instant,
    last: Instant,
}

/// A failure that goes on.
#[derive(Clone, Copy, Debug)]
struct Failing {
    last: Instant,
    lost: u64,
}

/// The files, and blocks that are not done yet.
pub(super) struct Recording {
    output: Box<dyn Output>,
    /// What every file begins with.
    beginning: Vec<u8>,
    limits: Limits,
    file: Option<Progress>,
    compressor: Option<Compressor>,
    /// There is one with the compressor.
    pack: Option<Pack>,
    held: Vec<Block>,
    failing: Option<Failing>,
    news: Vec<PortFailure>,
}

impl Recording {
    /// Opens the first file and begins it. The error says what cannot be done, in one line.
    pub(super) fn begin(
        output: Box<dyn Output>,
        beginning: Vec<u8>,
        limits: Limits,
        compress: bool,
        stop: BorrowedFd<'_>,
        now: Instant,
    ) -> Result<Self, String> {
        let compressor = compress.then(|| Compressor::new(2 * PACK)).transpose();
        let compressor = compressor.map_err(|e| format!("nothing to compress with: {e}"))?;
        let pack = compress.then(|| Pack {
            gathered: Vec::with_capacity(2 * PACK),
            pieces: Vec::new(),
            first: now,
            last: now,
        });
        let mut recording = Self {
            output,
            beginning,
            limits,
            file: None,
            compressor,
            pack,
            held: Vec::new(),
            failing: None,
            news: Vec::new(),
        };
        // At once, so that there is a readable file from the start.
        let begun = recording
            .open(now)
            .and_then(|()| recording.begin_file(stop));
        begun.map_err(|e| format!("{} cannot be written: {e}", recording.output.name()))?;
        Ok(recording)
    }

    /// Takes a block. What came of it is known once [`done`](Self::done) hands it out.
    pub(super) fn record(&mut self, mut block: Block, now: Instant, stop: BorrowedFd<'_>) {
        let bytes = std::mem::take(&mut block.bytes);
        let number = self.held.len();
        self.held.push(block);
        let mut rest = &bytes[..];
        while let Some((next, _)) = first_packet(rest) {
            self.rotate(next, now, stop);
            if self.file.is_none()
                && let Err(error) = self.open(now)
            {
                // The rest of the block is lost; the next one tries again.
                self.lose(number, run_of(rest, |_| true), &error, now);
                break;
            }
            let run = self.fitting(rest);
            let (packets, others) = rest.split_at(run.bytes);
            self.put(Piece { block: number, run }, packets, now, stop);
            rest = others;
        }
        self.held[number].bytes = bytes;
    }

    /// There is nothing to record at the moment: ends what has waited long enough. `hurry`: whatever waits.
    pub(super) fn rest(&mut self, hurry: bool, now: Instant, stop: BorrowedFd<'_>) {
        if self.pack_due().is_some_and(|due| hurry || now >= due) {
            self.end_pack(now, stop);
        }
        if self.file_due().is_some_and(|due| now >= due) {
            self.close(now, stop);
        }
    }

    /// When [`rest`](Self::rest) has something to end.
    pub(super) fn due(&self) -> Option<Instant> {
        self.pack_due().into_iter().chain(self.file_due()).min()
    }

    /// Whether blocks wait for others to be compressed with.
    pub(super) fn is_gathering(&self) -> bool {
        !self.held.is_empty()
    }

    /// The blocks whose outcome is known.
    pub(super) fn done(&mut self) -> impl Iterator<Item = Block> {
        let mut done = self.held.len();
        if let Some(pack) = &mut self.pack
            && let Some(&Piece { block, .. }) = pack.pieces.first()
        {
            // Packets wait in the order of their blocks.
            done = block;
            for piece in &mut pack.pieces {
                piece.block -= done;
            }
        }
        self.held.drain(..done)
    }

    /// What is to be reported.
    pub(super) fn news(&mut self) -> impl Iterator<Item = PortFailure> {
        self.news.drain(..)
    }

    /// Whose blocks are held: their [`lane`](Block::lane)s.
    pub(super) fn held(&self) -> impl Iterator<Item = usize> {
        self.held.iter().map(|block| block.lane)
    }

    /// Nobody waits for the blocks that are held: they are not written.
    pub(super) fn forget(&mut self) {
        self.held.clear();
        if let Some(pack) = &mut self.pack {
            pack.pieces.clear();
            pack.gathered.clear();
        }
    }

    /// Completes the file.
    pub(super) fn close(&mut self, now: Instant, stop: BorrowedFd<'_>) {
        self.end_pack(now, stop);
        if self.file.take().is_some() {
            let frame = self.compressor.as_ref().map(|c| c.frame);
            if frame.is_some_and(|frame| frame != ZstdFrame::Unwritten) {
                // Without it a file has all its packets nevertheless, as one that is being written.
                let _ = self.output.append(&END, stop);
            }
            self.output.finish();
        }
    }

    fn pack_due(&self) -> Option<Instant> {
        let pack = self.pack.as_ref()?;
        let due = (pack.first + OLDEST).min(pack.last + IDLE);
        (!pack.pieces.is_empty()).then_some(due)
    }

    fn file_due(&self) -> Option<Instant> {
        let file = self.file.as_ref()?;
        let due = file.opened.checked_add(self.limits.time?)?;
        (file.frames > 0).then_some(due)
    }

    /// Completes the file if the next packet, of so many bytes, is not to be in it.
    fn rotate(&mut self, next: usize, now: Instant, stop: BorrowedFd<'_>) {
        let Some(file) = self.file.filter(|file| file.frames > 0) else {
            return;
        };
        let has_all = self.limits.frames.is_some_and(|most| file.frames >= most);
        if has_all || self.file_due().is_some_and(|due| now >= due) {
            self.close(now, stop);
        } else if !self.has_room(next) {
            // What it takes compressed is known once it is.
            self.end_pack(now, stop);
            if !self.has_room(next) && self.file.is_some_and(|file| file.frames > 0) {
                self.close(now, stop);
            }
        }
    }

    /// Whether so many more bytes of packets surely fit into the file.
    fn has_room(&self, more: usize) -> bool {
        let (Some(limit), Some(file)) = (self.limits.size, &self.file) else {
            return true;
        };
        let (begins, more) = match &self.pack {
            None => (self.beginning.len(), more),
            Some(pack) => (
                Compressor::bound(self.beginning.len()),
                Compressor::bound(pack.gathered.len() + more),
            ),
        };
        file.bytes.max(begins as u64) + more as u64 <= limit
    }

    /// The packets that go into the file and are compressed together, at least one.
    fn fitting(&self, packets: &[u8]) -> Run {
        let frames = self.file.map_or(0, |file| file.frames);
        let most = self.limits.frames.unwrap_or(u64::MAX);
        let gathered = self.pack.as_ref().map(|pack| pack.gathered.len());
        run_of(packets, |run| {
            run.frames == 1
                || (frames + run.frames <= most
                    && self.has_room(run.bytes)
                    && gathered.is_none_or(|gathered| gathered + run.bytes <= PACK))
        })
    }

    fn open(&mut self, now: Instant) -> io::Result<()> {
        self.output.next()?;
        if let Some(compressor) = &mut self.compressor {
            compressor.frame = ZstdFrame::Unwritten;
        }
        self.file = Some(Progress {
            bytes: 0,
            frames: 0,
            opened: now,
        });
        Ok(())
    }

    /// Writes what every file begins with, unless it is there.
    fn begin_file(&mut self, stop: BorrowedFd<'_>) -> io::Result<()> {
        if self.file.is_none_or(|file| file.bytes > 0) {
            return Ok(());
        }
        let beginning = std::mem::take(&mut self.beginning);
        let outcome = self.write(&beginning, stop);
        self.beginning = beginning;
        outcome
    }

    fn append(&mut self, packets: &[u8], stop: BorrowedFd<'_>) -> io::Result<()> {
        self.begin_file(stop)?;
        self.write(packets, stop)
    }

    fn write(&mut self, bytes: &[u8], stop: BorrowedFd<'_>) -> io::Result<()> {
        let length = match &mut self.compressor {
            None => {
                self.output.append(bytes, stop)?;
                bytes.len()
            }
            Some(compressor) => {
                let packed = compressor.compress(bytes)?;
                let (length, outcome) = (packed.len(), self.output.append(packed, stop));
                compressor.settle(outcome.is_ok());
                outcome?;
                length
            }
        };
        if let Some(file) = &mut self.file {
            file.bytes += length as u64;
        }
        Ok(())
    }

    fn put(&mut self, piece: Piece, packets: &[u8], now: Instant, stop: BorrowedFd<'_>) {
        if let Some(file) = &mut self.file {
            file.frames += piece.run.frames;
        }
        let Some(pack) = &mut self.pack else {
            let outcome = self.append(packets, stop);
            self.settle(piece, &outcome, now);
            return;
        };
        if pack.pieces.is_empty() {
            pack.first = now;
        }
        pack.last = now;
        pack.gathered.extend_from_slice(packets);
        pack.pieces.push(piece);
        if pack.gathered.len() >= PACK || now >= pack.first + OLDEST {
            self.end_pack(now, stop);
        }
    }

    /// Compresses what is gathered, and writes it.
    fn end_pack(&mut self, now: Instant, stop: BorrowedFd<'_>) {
        let Some(mut pack) = self.pack.take_if(|pack| !pack.pieces.is_empty()) else {
            return;
        };
        let outcome = self.append(&pack.gathered, stop);
        for piece in pack.pieces.drain(..) {
            self.settle(piece, &outcome, now);
        }
        pack.gathered.clear();
        self.pack = Some(pack);
    }

    fn settle(&mut self, piece: Piece, outcome: &io::Result<()>, now: Instant) {
        match outcome {
            Ok(()) => {
                let outcome = &mut self.held[piece.block].outcome;
                outcome.written += piece.run.frames;
                outcome.written_bytes += piece.run.payload;
                self.recover(now);
            }
            Err(error) => {
                if let Some(file) = &mut self.file {
                    file.frames -= piece.run.frames;
                }
                self.lose(piece.block, piece.run, error, now);
            }
        }
    }

    /// Counts packets that could not be written, and reports the first of them.
    fn lose(&mut self, block: usize, run: Run, error: &io::Error, now: Instant) {
        let outcome: &mut Outcome = &mut self.held[block].outcome;
        let reason = if is_full(error) {
            outcome.disk_full += run.frames;
            Reason::DiskFull
        } else {
            outcome.write_error += run.frames;
            Reason::WriteError
        };
        // The end is told whatever was told before.
        if self.failing.is_none() || error.kind() == io::ErrorKind::BrokenPipe {
            self.news.push(report(&self.output.name(), error, reason));
        }
        let failing = self.failing.get_or_insert(Failing { last: now, lost: 0 });
        failing.last = now;
        failing.lost += run.frames;
    }

    fn recover(&mut self, now: Instant) {
        let well = |failing: &mut Failing| now >= failing.last + WELL;
        if let Some(Failing { lost, .. }) = self.failing.take_if(well) {
            self.news.push(PortFailure::first(format!(
                "{} is written again; {lost} frames are missing",
                self.output.name()
            )));
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn report(name: &str, error: &io::Error, reason: Reason) -> PortFailure {
    match (reason, error.kind()) {
        (_, io::ErrorKind::BrokenPipe) => PortFailure::fatal(format!(
            "the reader of {name} has left; what it had not read is lost, further frames are counted as write_error"
        )),
        (Reason::DiskFull, _) => PortFailure::first(format!(
            "{name} cannot be written: {error}; until there is room its frames are counted as disk_full"
        )),
        _ => PortFailure::first(format!(
            "{name} cannot be written: {error}; until it can, its frames are counted as write_error"
        )),
    }
}

/// The packets at the beginning of `packets` for as long as `fits` says so of all up to there.
fn run_of(packets: &[u8], mut fits: impl FnMut(&Run) -> bool) -> Run {
    let mut run = Run::default();
    while let Some((bytes, payload)) = first_packet(&packets[run.bytes..]) {
        let longer = Run {
            bytes: run.bytes + bytes,
            frames: run.frames + 1,
            payload: run.payload + payload as u64,
        };
        if !fits(&longer) {
            break;
        }
        run = longer;
    }
    run
}
