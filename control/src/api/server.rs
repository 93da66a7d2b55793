//! The daemon's side of the control socket: one thread that accepts, and a short-lived thread for
//! each connection. What a caller can hold is bounded in number, bytes and time, so that a slow or
//! hostile one costs the others nothing.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};
use serde::Serialize;

use super::{
    protocol::{
        self, Applied, MAX_LINE, PolicyText, PortInfo, Refusal, Reply, Request, Stopping, Version,
    },
    socket::{ControlSocket, SocketError},
};
use crate::stats::Stats;

/// Connections at a time. One more takes the place of the one that has kept us waiting longest.
pub const MAX_CONNECTIONS: usize = 64;
/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_secs(60);
/// How long one line may take from its first byte to its last, in either direction.
const LINE: Duration = Duration::from_secs(30);
/// What all connections together may hold of unfinished requests, in bytes.
const BUDGET: usize = 4 * MAX_LINE;
/// What a connection may hold without asking the budget.
const SMALL: usize = 64 << 10;
/// How long the end of the server waits for answers that are on their way.
const LINGER: Duration = Duration::from_millis(50);

/// What the daemon does when it is asked. Calls come from several threads at once; each takes as long
/// as it needs, and only its own caller waits.
pub trait Service: Send + Sync + 'static {
    /// All counters, in one consistent reading.
    fn stats(&self) -> Result<Stats, Refusal>;

    /// What the ports are, in the order of their names.
    fn ports(&self) -> Result<Vec<PortInfo>, Refusal>;

    /// The rules of a policy as TOML that [`Service::policy_replace`] takes.
    fn policy_show(&self, name: &str) -> Result<PolicyText, Refusal>;

    /// Puts the allowlist of `rules`, TOML that holds `allow = [ … ]`, in the place of a policy's own.
    /// Returns once every worker judges by it.
    fn policy_replace(&self, name: &str, rules: &str) -> Result<Applied, Refusal>;

    /// Adds a rule, a TOML inline table. Returns once every worker judges by it.
    fn policy_allow(&self, name: &str, rule: &str) -> Result<Applied, Refusal>;

    /// Takes a rule out, a TOML inline table. Returns once every worker judges by what is left.
    fn policy_remove(&self, name: &str, rule: &str) -> Result<Applied, Refusal>;

    /// Begins to end the daemon, and returns at once.
    fn stop(&self);
}

/// Why the control socket is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The socket could not be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The kernel gave no thread or no descriptor.
    #[error("cannot serve the control socket: {0}; raise the limits of processes and open files")]
    Thread(#[from] io::Error),
}

/// A served control socket. When it is dropped, nobody is accepted any more, answers that are on their
/// way get 50 ms, and the socket's file is removed.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    end: Arc<EventFd>,
    path: PathBuf,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `path`, for its owner and `group`, and answers with `service`.
    pub fn start(
        path: &Path,
        group: Option<&str>,
        service: Arc<dyn Service>,
    ) -> Result<Self, ServerError> {
        let socket = ControlSocket::listen(path, group)?;
        let end = Arc::new(
            EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                .map_err(io::Error::from)?,
        );
        let shared = Arc::new(Shared {
            service,
            connections: Mutex::default(),
            ended: Condvar::new(),
            held: AtomicUsize::new(0),
        });
        let accepting = thread::Builder::new().name("control".into()).spawn({
            let (shared, end) = (Arc::clone(&shared), Arc::clone(&end));
            move || accept(&socket, &end, &shared)
        })?;
        Ok(Self {
            shared,
            end,
            path: path.to_owned(),
            accepting: Some(accepting),
        })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An eventfd that was written once can be written again.
        let _ = self.end.write(1);
        if let Some(accepting) = self.accepting.take() {
            // It ends with the socket's file removed; had it panicked, that is done as well.
            let _ = accepting.join();
        }
        let mut connections = self.shared.lock();
        connections.each(Shutdown::Read);
        let deadline = Instant::now() + LINGER;
        while !connections.live.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            connections = self.shared.wait(connections, left);
        }
        connections.each(Shutdown::Both);
    }
}

/// What the threads have in common.
struct Shared {
    service: Arc<dyn Service>,
    connections: Mutex<Connections>,
    /// A connection has ended.
    ended: Condvar,
    /// Bytes of the budget that are in use.
    held: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Connections {
    next: u64,
    live: HashMap<u64, Live>,
}

/// A connection that has a thread.
struct Live {
    stream: Arc<UnixStream>,
    /// Since when we wait for the caller; `None` while the caller waits for us.
    waiting: Option<Instant>,
}

impl Connections {
    fn each(&self, how: Shutdown) {
        for live in self.live.values() {
            // Fails only when the caller was faster.
            let _ = live.stream.shutdown(how);
        }
    }

    /// Cuts off the connection that has kept us waiting longest. Answers whether there was one.
    fn evict(&self) -> bool {
        let slowest = self
            .live
            .values()
            .filter_map(|live| Some((live.waiting?, live)))
            .min_by_key(|&(since, _)| since);
        if let Some((_, live)) = slowest {
            let _ = live.stream.shutdown(Shutdown::Both);
        }
        slowest.is_some()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Connections> {
        // Nothing under this lock panics half-way.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        guard: MutexGuard<'a, Connections>,
        limit: Duration,
    ) -> MutexGuard<'a, Connections> {
        self.ended
            .wait_timeout(guard, limit)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Finds room for one more connection.
    fn admit(self: &Arc<Self>, stream: UnixStream) -> Option<Connection> {
        let mut connections = self.lock();
        if connections.live.len() >= MAX_CONNECTIONS && connections.evict() {
            connections = self.wait(connections, Duration::from_secs(1));
        }
        if connections.live.len() >= MAX_CONNECTIONS {
            return None;
        }
        let stream = Arc::new(stream);
        let number = connections.next;
        connections.next += 1;
        let live = Live {
            stream: Arc::clone(&stream),
            waiting: Some(Instant::now()),
        };
        connections.live.insert(number, live);
        Some(Connection {
            shared: Arc::clone(self),
            stream,
            number,
            charged: 0,
        })
    }
}

/// Accepts until told to end, then removes the socket's file by dropping it.
fn accept(socket: &ControlSocket, end: &EventFd, shared: &Arc<Shared>) {
    loop {
        let mut fds = [
            PollFd::new(socket.listener().as_fd(), PollFlags::POLLIN),
            PollFd::new(end.as_fd(), PollFlags::POLLIN),
        ];
        // An interrupted poll leaves no events, and accept then finds nobody.
        let _ = poll(&mut fds, PollTimeout::NONE);
        if fds[1].any().unwrap_or(false) {
            return;
        }
        match socket.listener().accept() {
            Ok((stream, _)) => serve(stream, shared),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            // No descriptors are left, or the caller has gone: it would come again at once.
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Gives an accepted connection its thread.
fn serve(stream: UnixStream, shared: &Arc<Shared>) {
    let Some(mut connection) = shared.admit(stream) else {
        // All are being answered; the caller sees the end of the stream and may come again.
        return;
    };
    // Without a thread, the connection is dropped and with it closed.
    let _ = thread::Builder::new()
        .name("control-conn".into())
        .stack_size(512 << 10)
        .spawn(move || {
            // Every end is the same end: there is nobody but the caller to tell.
            let _ = connection.run();
        });
}

/// One connection, in its thread. Its place is free again when it is dropped.
struct Connection {
    shared: Arc<Shared>,
    stream: Arc<UnixStream>,
    number: u64,
    /// What it holds of the budget.
    charged: usize,
}

impl Connection {
    /// Answers line by line until the caller goes, is too slow or sends too much.
    fn run(&mut self) -> io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let line = match self.read_line(&mut buffer) {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::FileTooLarge => {
                    let refusal = Reply::<()>::Error(Refusal::new(&e));
                    return self.write_line(&encode(&refusal));
                }
                Err(e) => return Err(e),
            };
            self.waiting(None);
            let reply = answer(&*self.shared.service, &buffer[..line]);
            self.waiting(Some(Instant::now()));
            self.write_line(&reply)?;
            buffer.drain(..=line);
            if buffer.capacity() > SMALL && buffer.len() <= SMALL {
                buffer.shrink_to(SMALL);
                self.charge(0)?;
            }
        }
    }

    /// Reads until `buffer` holds a line; answers with its length without the newline, or `None` when
    /// the caller ended. What follows the line stays in the buffer.
    fn read_line(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let mut chunk = vec![0; SMALL];
        let mut searched = 0;
        let mut deadline = Instant::now() + if buffer.is_empty() { IDLE } else { LINE };
        loop {
            if let Some(at) = buffer[searched..].iter().position(|&b| b == b'\n') {
                return Ok(Some(searched + at));
            }
            if buffer.len() >= MAX_LINE {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("the request is longer than {MAX_LINE} bytes; send fewer rules"),
                ));
            }
            searched = buffer.len();
            self.stream.set_read_timeout(Some(left(deadline)?))?;
            let room = chunk.len().min(MAX_LINE - buffer.len());
            let n = match (&*self.stream).read(&mut chunk[..room]) {
                Ok(0) => return Ok(None),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if buffer.is_empty() {
                deadline = Instant::now() + LINE;
            }
            self.charge(buffer.len() + n)?;
            buffer.extend_from_slice(&chunk[..n]);
        }
    }

    fn write_line(&self, mut line: &[u8]) -> io::Result<()> {
        let deadline = Instant::now() + LINE;
        while !line.is_empty() {
            self.stream.set_write_timeout(Some(left(deadline)?))?;
            match (&*self.stream).write(line) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => line = &line[n..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Says since when this connection waits for its caller.
    fn waiting(&self, since: Option<Instant>) {
        if let Some(live) = self.shared.lock().live.get_mut(&self.number) {
            live.waiting = since;
        }
    }

    /// Takes from the budget what a buffer of `bytes` needs beyond a small one, or gives it back.
    fn charge(&mut self, bytes: usize) -> io::Result<()> {
        // A growing vector doubles.
        let need = if bytes <= SMALL {
            0
        } else {
            bytes.next_power_of_two()
        };
        let held = &self.shared.held;
        if need > self.charged {
            let more = need - self.charged;
            if held.fetch_add(more, Ordering::Relaxed) + more > BUDGET {
                held.fetch_sub(more, Ordering::Relaxed);
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    "too many large requests at once; try again in a moment",
                ));
            }
        } else {
            held.fetch_sub(self.charged - need, Ordering::Relaxed);
        }
        self.charged = need;
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.held.fetch_sub(self.charged, Ordering::Relaxed);
        self.shared.lock().live.remove(&self.number);
        // The stream's last owner closes it; shut down, the caller sees the end now.
        let _ = self.stream.shutdown(Shutdown::Both);
        self.shared.ended.notify_all();
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// Answers one request line with one reply line, its newline included. Total: bytes of any kind get an
/// answer.
pub fn answer(service: &dyn Service, line: &[u8]) -> Vec<u8> {
    let request = match serde_json::from_slice::<Request>(line) {
        Ok(request) => request,
        Err(e) => {
            return encode(&Reply::<()>::Error(Refusal::new(format_args!(
                "not a request: {e}; send one JSON object in a line, such as {{\"op\":\"stats\"}}"
            ))));
        }
    };
    match request {
        Request::Stats {} => reply(service.stats()),
        Request::Ports {} => reply(service.ports()),
        Request::PolicyShow { name } => reply(service.policy_show(&name)),
        Request::PolicyReplace { name, rules } => reply(service.policy_replace(&name, &rules)),
        Request::PolicyAllow { name, rule } => reply(service.policy_allow(&name, &rule)),
        Request::PolicyRemove { name, rule } => reply(service.policy_remove(&name, &rule)),
        Request::Stop {} => {
            service.stop();
            reply(Ok(Stopping { pid: process::id() }))
        }
        Request::Version {} => reply(Ok(Version {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: protocol::VERSION,
            pid: process::id(),
        })),
    }
}

fn reply<T: Serialize>(result: Result<T, Refusal>) -> Vec<u8> {
    encode(&match result {
        Ok(value) => Reply::Ok(value),
        Err(refusal) => Reply::Error(refusal),
    })
}

fn encode<T: Serialize>(reply: &Reply<T>) -> Vec<u8> {
    let mut line = serde_json::to_vec(reply).unwrap_or_else(|e| {
        let message = format!("the answer cannot be written as JSON: {e}");
        serde_json::json!({ "error": { "message": message } })
            .to_string()
            .into_bytes()
    });
    line.push(b'\n');
    line
}
