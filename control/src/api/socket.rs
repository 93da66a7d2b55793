//! The control socket's place in the file system: where it is by default, how it comes to be there
//! with the right owner and mode, and how it goes away again.

use std::{
    env, fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, Flock, FlockArg, OFlag},
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen,
        socket, sockopt::PeerCredentials,
    },
    unistd::{AccessFlags, Group, access, fchownat, geteuid, getuid},
};

#[cfg(test)]
mod tests;

/// Where the system's daemon listens.
pub const SYSTEM_SOCKET: &str = "/run/dataplane/control.sock";

/// Connections that wait to be accepted. Each is accepted at once, so few ever wait.
const BACKLOG: i32 = 64;

/// Why the control socket cannot be there.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// An ordinary user without a runtime directory.
    #[error(
        "XDG_RUNTIME_DIR is not set and /run/user/{uid} does not exist; name a place for it with \
         --socket PATH"
    )]
    NoDefault {
        /// The user.
        uid: u32,
    },
    /// Another daemon listens there.
    #[error(
        "another dataplane is running (pid {pid}) and listens on {path}; stop it with dpctl stop, or \
         give this one another socket: --socket PATH"
    )]
    Taken {
        /// The socket.
        path: PathBuf,
        /// The other's process number, or `unknown`.
        pid: String,
    },
    /// Something else has the name.
    #[error("{path} exists and is no socket; remove it or choose another: --socket PATH")]
    NotASocket {
        /// What is in the way.
        path: PathBuf,
    },
    /// What was just made has another file in its place.
    #[error(
        "{path} was replaced while it was made; put the [control] socket into a directory that \
         nobody else may write to"
    )]
    Replaced {
        /// The socket.
        path: PathBuf,
    },
    /// A group that the machine does not know.
    #[error(
        "[control] socket_group: there is no group {group:?} on this machine; make it with groupadd \
         {group} or take the line out"
    )]
    NoSuchGroup {
        /// The group's name.
        group: String,
    },
    /// The socket could not be given to its group.
    #[error(
        "[control] socket_group: cannot give {path} to group {group:?}: {source}; run as root, or \
         name a group that you belong to"
    )]
    ChangeGroup {
        /// The socket.
        path: PathBuf,
        /// The group's name.
        group: String,
        /// The kernel's answer.
        source: Errno,
    },
    /// A path that does not fit into a socket's address.
    #[error(
        "[control] socket: {path} is longer than the 107 bytes that a Unix socket's path may have; \
         choose a shorter one"
    )]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// The file system or the kernel refused.
    #[error(
        "[control] socket: cannot {what} {path}: {source}; check its directory, or choose another"
    )]
    Refused {
        /// What was tried.
        what: &'static str,
        /// With which path.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
}

/// Where a daemon of this user listens: [`SYSTEM_SOCKET`] for root of a machine or of a container
/// with a `/run` of its own, else `dataplane.sock` in the user's runtime directory. Root of a bare
/// user namespace is the ordinary user outside.
pub fn default_path() -> Result<PathBuf, SocketError> {
    if getuid().is_root() && owns_run() {
        return Ok(SYSTEM_SOCKET.into());
    }
    let uid = outer_uid();
    match env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_absolute()) {
        Some(dir) => Ok(Path::new(&dir).join("dataplane.sock")),
        None => {
            // Not /tmp: there, anybody could wait under the name that a user's dpctl will trust.
            let dir = PathBuf::from(format!("/run/user/{uid}"));
            if dir.is_dir() {
                Ok(dir.join("dataplane.sock"))
            } else {
                Err(SocketError::NoDefault { uid })
            }
        }
    }
}

/// Where a client looks when it is not told: the user's own daemon, then the system's.
pub fn candidates() -> Vec<PathBuf> {
    let system = PathBuf::from(SYSTEM_SOCKET);
    match default_path() {
        Ok(own) if own != system => vec![own, system],
        _ => vec![system],
    }
}

/// Whether this user may put the system's socket in its place.
fn owns_run() -> bool {
    let writable = |path: &Path| access(path, AccessFlags::W_OK).is_ok();
    directory(Path::new(SYSTEM_SOCKET))
        .ancestors()
        .take(2)
        .any(writable)
}

/// The user as the machine knows it, also within a user namespace of its own.
fn outer_uid() -> u32 {
    let uid = getuid().as_raw();
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map_uid(&map, uid).unwrap_or(uid)
}

/// Looks a user up in a `uid_map`: lines of first inner, first outer, count (user_namespaces(7)).
fn map_uid(map: &str, uid: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut fields = line.split_whitespace().map(|n| n.parse::<u32>().ok());
        let (inner, outer, count) = (fields.next()??, fields.next()??, fields.next()??);
        let offset = uid.checked_sub(inner)?;
        (offset < count).then(|| outer.checked_add(offset))?
    })
}

/// A listening control socket. Its file goes with it, unless another has taken its place.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    file: (u64, u64),
}

impl ControlSocket {
    /// Listens on `path`, which belongs to the caller and to `group` with mode 0660.
    ///
    /// The directory is made (0755) if it is missing. A socket on which nobody listens any more is
    /// replaced. A name that somebody listens on is refused with that one's process number.
    pub fn listen(path: &Path, group: Option<&str>) -> Result<Self, SocketError> {
        let gid = match group {
            None => None,
            Some(name) => match Group::from_name(name) {
                Ok(Some(group)) => Some(group.gid),
                _ => {
                    return Err(SocketError::NoSuchGroup {
                        group: name.to_owned(),
                    });
                }
            },
        };
        let address = UnixAddr::new(path).map_err(|_| SocketError::TooLong {
            path: path.to_owned(),
        })?;
        let refused = |what| {
            move |source: Errno| SocketError::Refused {
                what,
                path: path.to_owned(),
                source: source.into(),
            }
        };
        crate::directory::make(directory(path))
            .map_err(io_refused("make the directory", directory(path)))?;
        // Two that start at once must not each take the other's fresh socket for a stale one.
        let _starting = lock_directory(path)?;
        remove_stale(path, &address)?;

        let socket = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )
        .map_err(refused("make"))?;
        bind(socket.as_raw_fd(), &address).map_err(refused("bind"))?;
        let (file, metadata) = made(path)?;
        let listening = Self {
            listener: UnixListener::from(socket),
            path: path.to_owned(),
            file: (metadata.dev(), metadata.ino()),
        };
        // Nobody can connect before `listen`, so there is no moment with the wrong owner or mode.
        if let (Some(gid), Some(group)) = (gid, group) {
            let changed = fchownat(&file, "", None, Some(gid), AtFlags::AT_EMPTY_PATH);
            changed.map_err(|source| SocketError::ChangeGroup {
                path: path.to_owned(),
                group: group.to_owned(),
                source,
            })?;
        }
        // A descriptor of this kind has no fchmod(2), but a name that leads to the same file (open(2), O_PATH).
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::set_permissions(name, fs::Permissions::from_mode(0o660))
            .map_err(io_refused("set the mode of", path))?;
        let backlog = Backlog::new(BACKLOG).map_err(refused("listen on"))?;
        listen(&listening.listener, backlog).map_err(refused("listen on"))?;
        Ok(listening)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket to accept from; it does not block.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file);
        if ours {
            // It may be gone already; there is nobody left to tell.
            let _ = fs::remove_file(&self.path);
        }
        crate::directory::leave(directory(&self.path));
    }
}

fn io_refused<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> SocketError + 'a {
    move |source| SocketError::Refused {
        what,
        path: path.to_owned(),
        source,
    }
}

/// Opens the socket's file that was just made, so that its group and mode are changed and no other's:
/// whoever may write to the directory can put a symbolic link to any file in its place.
fn made(path: &Path) -> Result<(fs::File, fs::Metadata), SocketError> {
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_PATH | OFlag::O_NOFOLLOW).bits())
        .open(path)
        .map_err(io_refused("look at", path))?;
    let metadata = file.metadata().map_err(io_refused("look at", path))?;
    let ours = metadata.file_type().is_socket()
        && metadata.uid() == geteuid().as_raw()
        && metadata.nlink() == 1;
    if ours {
        Ok((file, metadata))
    } else {
        Err(SocketError::Replaced {
            path: path.to_owned(),
        })
    }
}

/// Whether there is a socket on which nobody listens: what a daemon that was killed leaves.
pub fn is_stale(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Removes a socket on which nobody listens. That it is gone already is no error.
///
/// # Errors
///
/// When somebody listens, when it is no socket, and when it may not be removed.
pub fn remove_if_stale(path: &Path) -> Result<(), SocketError> {
    let address = UnixAddr::new(path).map_err(|_| SocketError::TooLong {
        path: path.to_owned(),
    })?;
    // Not while one starts and has bound it, but does not listen yet.
    let _starting = lock_directory(path)?;
    remove_stale(path, &address)
}

/// The directory of a socket; a bare file name is in the working directory.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Locks the socket's directory against others that start. One that keeps the lock for long is no
/// dataplane, and is not waited for: the lock only orders those that play along.
fn lock_directory(path: &Path) -> Result<Option<Flock<OwnedFd>>, SocketError> {
    let directory = directory(path);
    let mut file: OwnedFd = fs::File::open(directory)
        .map_err(io_refused("open the directory", directory))?
        .into();
    for _ in 0..50 {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((back, _)) => file = back,
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(None)
}

/// Removes a socket that nobody listens on; refuses anything else that has its name.
fn remove_stale(path: &Path, address: &UnixAddr) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io_refused("look at", path)(source)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    let probe = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )
    .map_err(|source| io_refused("probe", path)(source.into()))?;
    let taken = |pid: String| {
        Err(SocketError::Taken {
            path: path.to_owned(),
            pid,
        })
    };
    match connect(probe.as_raw_fd(), address) {
        Ok(()) => match getsockopt(&probe, PeerCredentials) {
            Ok(peer) => taken(peer.pid().to_string()),
            Err(_) => taken("unknown".to_owned()),
        },
        // It listens, with more callers waiting than it accepts.
        Err(Errno::EAGAIN) => taken("unknown".to_owned()),
        Err(Errno::ENOENT) => Ok(()),
        Err(Errno::ECONNREFUSED) => {
            fs::remove_file(path).map_err(io_refused("remove the stale socket", path))
        }
        // Another kind of socket: EPROTOTYPE. No right to it: EACCES.
        Err(source) => Err(io_refused("replace", path)(source.into())),
    }
}
