//! The daemon's side of the control socket: what it can be asked, one thread that accepts, and a
//! short-lived thread for each connection. What a caller can hold is bounded in number, bytes and time, so that a slow or
//! hostile one costs the others nothing.

use std::{
    collections::HashMap,
    io,
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};
use serde::Serialize;

use super::{
    connection::Connection,
    protocol::{self, Applied, PolicyText, PortInfo, Refusal, Reply, Request, Stopping, Version},
    socket::ControlSocket,
};
use crate::stats::Stats;

/// Connections at a time. One more takes the place of the one that has kept us waiting longest.
pub const MAX_CONNECTIONS: usize = 64;
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
#[error("cannot serve the control socket: {0}; raise the limits of processes and open files")]
pub struct ServerError(#[from] io::Error);

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
    /// Accepts from `socket` and answers with `service`. Its threads have the privilege that the
    /// caller has at this moment: listen before [`lock_down`](crate::privilege::lock_down), start
    /// after it.
    pub fn start(socket: ControlSocket, service: Arc<dyn Service>) -> Result<Self, ServerError> {
        let path = socket.path().to_owned();
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
            path,
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
pub(super) struct Shared {
    pub(super) service: Arc<dyn Service>,
    connections: Mutex<Connections>,
    /// A connection has ended.
    pub(super) ended: Condvar,
    /// Bytes of the budget that are in use.
    pub(super) held: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[derive(Default)]
pub(super) struct Connections {
    next: u64,
    pub(super) live: HashMap<u64, Live>,
}

/// A connection that has a thread.
pub(super) struct Live {
    stream: Arc<UnixStream>,
    /// Since when we wait for the caller; `None` while the caller waits for us.
    pub(super) waiting: Option<Instant>,
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
    pub(super) fn lock(&self) -> MutexGuard<'_, Connections> {
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

/// A reply as its line.
pub(super) fn encode<T: Serialize>(reply: &Reply<T>) -> Vec<u8> {
    let mut line = serde_json::to_vec(reply).unwrap_or_else(|e| {
        let message = format!("the answer cannot be written as JSON: {e}");
        serde_json::json!({ "error": { "message": message } })
            .to_string()
            .into_bytes()
    });
    line.push(b'\n');
    line
}
