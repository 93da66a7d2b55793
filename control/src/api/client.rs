//! The caller's side of the control socket.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::de::DeserializeOwned;

use super::protocol::{MAX_LINE, Refusal, Reply, Request};

/// How long a daemon may take over one step of an answer; compiling a million rules is the longest.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no dataplane listens on {path}: {source}; start one, or name its socket with --socket PATH"
    )]
    NoDaemon {
        /// The socket that was tried.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Somebody listens, but not for this user.
    #[error(
        "no permission to speak to the dataplane on {path}; run with sudo, or join the group that \
         [control] socket_group names"
    )]
    Denied {
        /// The socket that was tried.
        path: PathBuf,
    },
    /// The daemon said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The daemon went away or kept silent in the middle.
    #[error("the dataplane on {path} gave no answer: {source}; see whether it still runs")]
    Lost {
        /// The socket.
        path: PathBuf,
        /// What happened to it.
        source: io::Error,
    },
    /// What came back is no answer.
    #[error(
        "what listens on {path} does not answer as a dataplane does: {source}; is dpctl of the same release?"
    )]
    NotADataplane {
        /// The socket.
        path: PathBuf,
        /// What is wrong with the answer.
        source: serde_json::Error,
    },
}

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Client {
    /// Connects to the first of `paths` on which somebody listens. When there is none, the error is of
    /// the first that exists, else of the first.
    pub fn connect(paths: &[PathBuf]) -> Result<Self, ClientError> {
        let mut first: Option<ClientError> = None;
        for path in paths {
            match UnixStream::connect(path) {
                Ok(stream) => return Self::new(stream, path),
                Err(source) => {
                    let missing = source.kind() == io::ErrorKind::NotFound;
                    if first.is_none() || (!missing && first.as_ref().is_some_and(is_missing)) {
                        first = Some(unreachable(path, source));
                    }
                }
            }
        }
        Err(first.unwrap_or_else(|| unreachable(Path::new(""), io::ErrorKind::NotFound.into())))
    }

    fn new(stream: UnixStream, path: &Path) -> Result<Self, ClientError> {
        stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .map_err(|source| unreachable(path, source))?;
        Ok(Self {
            stream: BufReader::new(stream),
            path: path.to_owned(),
        })
    }

    /// The socket that it is connected to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks, and waits for the answer.
    pub fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ClientError> {
        let lost = |path: &Path, source: io::Error| ClientError::Lost {
            path: path.to_owned(),
            source: match source.kind() {
                // As the kernel calls a timeout; nobody would understand it.
                io::ErrorKind::WouldBlock => io::Error::other(format!(
                    "nothing came within {} s, it may still be starting or be stuck",
                    PATIENCE.as_secs()
                )),
                _ => source,
            },
        };
        let mut line =
            serde_json::to_vec(request).map_err(|e| lost(&self.path, io::Error::other(e)))?;
        line.push(b'\n');
        // A daemon that refuses an overlong line hangs up before all of it was written; its reason
        // is there to be read nevertheless.
        let written = self.stream.get_mut().write_all(&line);

        line.clear();
        let read = self
            .stream
            .by_ref()
            .take(MAX_LINE as u64 * 2)
            .read_until(b'\n', &mut line);
        if line.last() != Some(&b'\n') {
            let source = match (written, read) {
                (Err(e), _) | (_, Err(e)) => e,
                _ => io::ErrorKind::UnexpectedEof.into(),
            };
            return Err(lost(&self.path, source));
        }
        match serde_json::from_slice(&line) {
            Ok(Reply::Ok(value)) => Ok(value),
            Ok(Reply::Error(refusal)) => Err(refusal.into()),
            Err(source) => Err(ClientError::NotADataplane {
                path: self.path.clone(),
                source,
            }),
        }
    }

    /// The process that listens, as this one sees it; `None` when it is in another PID namespace.
    pub fn peer(&self) -> Option<u32> {
        let peer = getsockopt(&self.stream.get_ref().as_fd(), PeerCredentials).ok()?;
        u32::try_from(peer.pid()).ok().filter(|&pid| pid > 0)
    }

    /// Waits until the daemon has closed the connection and its process has ended. Answers whether it
    /// has within `limit`.
    pub fn wait_for_end(mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let peer = self.peer();
        let left = limit.max(Duration::from_millis(1));
        if self.stream.get_ref().set_read_timeout(Some(left)).is_err() {
            return false;
        }
        // Whatever it still says is not for us; an error is an end as well, unless it is a timeout.
        let mut rest = [0; 256];
        loop {
            match self.stream.read(&mut rest) {
                Ok(0) => break,
                Ok(_) if Instant::now() < deadline => {}
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => break,
                _ => return false,
            }
        }
        let Some(pid) = peer else { return true };
        while runs(pid) {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

fn is_missing(error: &ClientError) -> bool {
    matches!(error, ClientError::NoDaemon { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn unreachable(path: &Path, source: io::Error) -> ClientError {
    let path = path.to_owned();
    if source.kind() == io::ErrorKind::PermissionDenied {
        ClientError::Denied { path }
    } else {
        ClientError::NoDaemon { path, source }
    }
}

/// Whether a process runs; one that has ended and was not waited for does not.
fn runs(pid: u32) -> bool {
    // proc(5): the state follows the name, which may itself hold parentheses.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    match stat.rsplit_once(')') {
        Some((_, rest)) => !rest.trim_start().starts_with(['Z', 'X']),
        None => false,
    }
}
