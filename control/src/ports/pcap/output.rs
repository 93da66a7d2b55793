//! Where a recording's bytes go: files, or a stream such as standard output.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Seek, SeekFrom, Write},
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use dataplane::port::pcap::write::Output;
use jiff::Zoned;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::names::Names;

/// Files, one after the other.
pub(super) struct Files {
    names: Names,
    /// The most files of this run that stay.
    keep: Option<usize>,
    /// Those that are there, oldest first.
    kept: VecDeque<PathBuf>,
    open: Option<Appended>,
    /// The name of a file that could not be opened, for the next try.
    upcoming: Option<PathBuf>,
}

impl Files {
    pub(super) fn new(names: Names, keep: Option<usize>) -> Self {
        Self {
            names,
            keep,
            kept: VecDeque::new(),
            open: None,
            upcoming: None,
        }
    }
}

impl Output for Files {
    fn next(&mut self) -> io::Result<()> {
        self.finish();
        // First, so that there is room on a disk that is full.
        while self.keep.is_some_and(|most| self.kept.len() >= most) {
            let Some(oldest) = self.kept.pop_front() else {
                break;
            };
            // Refused, or moved away by somebody: it is not ours to keep any more.
            let _ = fs::remove_file(&oldest);
            self.names.forget(&oldest);
        }
        let names = &mut self.names;
        let path = self.upcoming.take();
        let path = path.unwrap_or_else(|| names.next(&Zoned::now()));
        match create(&path, names.folders_vary()) {
            Ok(file) => {
                self.open = Some(Appended { file, length: 0 });
                self.kept.push_back(path);
                Ok(())
            }
            Err(error) => {
                self.upcoming = Some(path);
                Err(error)
            }
        }
    }

    fn append(&mut self, bytes: &[u8], _stop: BorrowedFd<'_>) -> io::Result<()> {
        match &mut self.open {
            Some(file) => file.append(bytes),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn finish(&mut self) {
        self.open = None;
    }

    fn name(&self) -> String {
        let name = self.upcoming.as_ref().or(self.kept.back());
        name.map_or_else(|| "the first file".to_owned(), |n| n.display().to_string())
    }
}

/// Makes a file, and before it its folder where that is one of many: the next day begins while we run.
fn create(path: &Path, with_folder: bool) -> io::Result<File> {
    match (empty(path), path.parent()) {
        (Err(error), Some(folder)) if with_folder && error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder)?;
            empty(path)
        }
        (made, _) => made,
    }
}

/// Opens a file and empties it, unless another run is writing it: of two that write one file, neither is whole.
fn empty(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    match file.try_lock() {
        // A file system that has no locks is no reason to refuse it.
        Ok(()) | Err(TryLockError::Error(_)) => {}
        Err(TryLockError::WouldBlock) => {
            let why = "another dataplane records there; name another file";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
        }
    }
    file.set_len(0)?;
    Ok(file)
}

/// A regular file, and where its last whole block ends.
struct Appended {
    file: File,
    length: u64,
}

impl Appended {
    /// What could be written of bytes that do not fit is taken back: a reader finds whole blocks.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(bytes);
        match written {
            Ok(()) => self.length += bytes.len() as u64,
            Err(_) => {
                // First, so that what comes next stands here even if the rest stays behind it.
                self.file.seek(SeekFrom::Start(self.length))?;
                self.file.set_len(self.length)?;
            }
        }
        written
    }
}

/// Bytes of a stream that are written at a time: a pipe that is ready takes as many without waiting
/// (pipe(7), PIPE_BUF).
const AT_ONCE: usize = 4_096;

/// A pipe or the like. It cannot be rotated; what could be written of a block before its reader left stays.
pub(super) struct Stream {
    name: String,
    file: File,
    /// For a regular file, as standard output may be one.
    regular: Option<Appended>,
}

impl Stream {
    pub(super) fn new(name: impl Into<String>, file: File) -> io::Result<Self> {
        let regular = match file.metadata()? {
            metadata if metadata.is_file() => {
                let mut file = file.try_clone()?;
                // Behind what is there: `>>`.
                let length = file.stream_position()?.max(match is_appending(&file) {
                    true => metadata.len(),
                    false => 0,
                });
                Some(Appended { file, length })
            }
            _ => None,
        };
        Ok(Self {
            name: name.into(),
            file,
            regular,
        })
    }
}

fn is_appending(file: &File) -> bool {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(file, FcntlArg::F_GETFL)
        .is_ok_and(|flags| OFlag::from_bits_retain(flags).contains(OFlag::O_APPEND))
}

impl Output for Stream {
    fn next(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn append(&mut self, bytes: &[u8], stop: BorrowedFd<'_>) -> io::Result<()> {
        if let Some(file) = &mut self.regular {
            return file.append(bytes);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut fds = [
                PollFd::new(self.file.as_fd(), PollFlags::POLLOUT),
                PollFd::new(stop, PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let [ready, stopped] = fds.map(|fd| fd.any().unwrap_or(false));
            if !ready {
                if stopped {
                    // Whoever reads it has not read for as long as it may take.
                    return Err(io::ErrorKind::Interrupted.into());
                }
                continue;
            }
            match self.file.write(&rest[..rest.len().min(AT_ONCE)]) {
                Ok(written) => rest = &rest[written..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn finish(&mut self) {}

    fn name(&self) -> String {
        self.name.clone()
    }
}
