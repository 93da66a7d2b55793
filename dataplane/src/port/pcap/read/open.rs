//! Opens a capture: looks at its header before anything starts, and keeps what it takes to read it.

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};

use super::{
    format::{CaptureReader, Compression, Format, ReadError},
    pace::{Pace, PaceError, Pacer},
};

/// How a capture is to be sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// How fast.
    pub pace: Pace,
    /// How often; 0 is for ever. An empty capture is read once.
    pub loops: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pace: Pace::Original { speed: 1.0 },
            loops: 1,
        }
    }
}

/// Why a capture cannot be a port.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is no capture that can be carried.
    #[error("{path}: {source}")]
    Read {
        /// Which file.
        path: String,
        /// What is wrong with it.
        source: ReadError,
    },
    /// Several passes of something that can be read once.
    #[error("{path} is a pipe, which cannot be read {times}; set loops = 1 or give a file")]
    NotSeekable {
        /// Which file.
        path: String,
        /// How often it was to be read.
        times: String,
    },
    /// A pace that cannot be kept.
    #[error("{path}: {source}")]
    Pace {
        /// Which file.
        path: String,
        /// What is wrong with it.
        source: PaceError,
    },
    /// The kernel refused.
    #[error("{path} cannot be read: {source}; give a capture file, a pipe or `-`")]
    Io {
        /// Which file.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A capture whose header is good, ready to be read from its beginning.
#[derive(Debug)]
pub struct OpenedCapture {
    pub(super) path: String,
    pub(super) file: File,
    /// Where the capture begins in the file. `None` when the file cannot be read again.
    pub(super) origin: Option<u64>,
    /// What was already taken out of a pipe.
    pub(super) head: Vec<u8>,
    pub(super) loops: u32,
    pub(super) pacer: Pacer,
    /// The processors of the thread that opened it: the reader's, so that it does not inherit the one
    /// processor that its worker is pinned to.
    pub(super) processors: Option<CpuSet>,
    format: Option<(Format, Option<Compression>)>,
}

impl OpenedCapture {
    /// The file's name for people; `-` is standard input.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The format and compression, unless a pipe has not said yet.
    pub fn format(&self) -> Option<(Format, Option<Compression>)> {
        self.format
    }
}

/// How long a pipe may take to give its header before it is left to the reader to look at it.
const PATIENCE: Duration = Duration::from_millis(500);

/// Looks at a capture's header. `path` is for messages. `file` may be anything that can be read; it is
/// read from where it stands. A regular file whose first frame is not Ethernet is refused here; a pipe is
/// not waited for longer than half a second, and what is wrong with it may show only when it is read.
pub fn open(path: &Path, mut file: File, options: Options) -> Result<OpenedCapture, OpenError> {
    let path = if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        PathBuf::from(path).display().to_string()
    };
    let pacer = Pacer::new(options.pace).map_err(|source| OpenError::Pace {
        path: path.clone(),
        source,
    })?;
    let unreadable = |source| OpenError::Io {
        path: path.clone(),
        source,
    };
    let kind = file.metadata().map_err(unreadable)?.file_type();
    if kind.is_dir() {
        return Err(unreadable(io::ErrorKind::IsADirectory.into()));
    }
    let wrong = |source| OpenError::Read {
        path: path.clone(),
        source,
    };
    let mut head = Vec::new();
    let (origin, format) = if kind.is_file() {
        let origin = file.stream_position().map_err(unreadable)?;
        let mut reader = CaptureReader::new(&file).map_err(wrong)?;
        let format = (reader.format(), reader.compression());
        // Everything else is told in its place, behind the frames before it.
        if let Err(error @ ReadError::NotEthernet { .. }) = reader.next_record() {
            return Err(wrong(error));
        }
        file.seek(io::SeekFrom::Start(origin)).map_err(unreadable)?;
        (Some(origin), Some(format))
    } else {
        if options.loops != 1 {
            return Err(OpenError::NotSeekable {
                path,
                times: match options.loops {
                    0 => "for ever".to_owned(),
                    loops => format!("{loops} times"),
                },
            });
        }
        let mut taking = Taking {
            file: &file,
            taken: &mut head,
            until: Instant::now() + PATIENCE,
            late: false,
        };
        let header = CaptureReader::new(&mut taking).map(|r| (r.format(), r.compression()));
        let format = match header {
            Ok(format) => Some(format),
            Err(_) if taking.late => None,
            Err(error) => return Err(wrong(error)),
        };
        (None, format)
    };
    Ok(OpenedCapture {
        path,
        file,
        origin,
        head,
        loops: options.loops,
        pacer,
        processors: sched_getaffinity(Pid::from_raw(0)).ok(),
        format,
    })
}

/// Reads a pipe up to a point in time, and keeps what it gave.
struct Taking<'a> {
    file: &'a File,
    taken: &'a mut Vec<u8>,
    until: Instant,
    late: bool,
}

impl Read for Taking<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            let limit = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            match poll(&mut fds, limit) {
                Ok(0) => {
                    self.late = true;
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
            }
            match self.file.read(into) {
                Ok(n) => {
                    self.taken.extend_from_slice(&into[..n]);
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }
}
