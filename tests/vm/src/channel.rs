//! A socket at which QEMU is met: one of the guest's serial ports, or QEMU's monitor.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    error::{At, Error},
    process::Qemu,
    stop,
};

/// A socket of the file system that waits for QEMU.
pub(crate) struct Channel {
    name: &'static str,
    path: PathBuf,
    listener: UnixListener,
}

impl Channel {
    /// Makes one in a folder.
    pub(crate) fn listen(folder: &Path, name: &'static str) -> Result<Self, Error> {
        let path = folder.join(name);
        let listener = UnixListener::bind(&path).at(&path)?;
        listener.set_nonblocking(true).at(&path)?;
        Ok(Self {
            name,
            path,
            listener,
        })
    }

    /// What the guest knows it by.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for QEMU, which connects to all of them when it starts.
    pub(crate) fn accept(self, qemu: &mut Qemu, limit: Duration) -> io::Result<UnixStream> {
        let end = Instant::now() + limit;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    let _ = fs::remove_file(&self.path);
                    return Ok(stream);
                }
                Err(e)
                    if e.kind() == io::ErrorKind::WouldBlock
                        && Instant::now() < end
                        && !qemu.has_ended()
                        && !stop::wanted() =>
                {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(e) => return Err(e),
            }
        }
    }
}

/// Copies what comes to a writer as it comes, in a thread of its own, up to the end.
pub(crate) fn copy(mut from: UnixStream, mut to: impl Write + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        // A reader of ours that has gone does not stop the guest.
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let _ = to.write_all(&buffer[..n]).and_then(|()| to.flush());
        }
    })
}
