//! Network namespaces: opened by name or path, and entered by a short-lived thread, because setns(2)
//! changes the calling thread and a worker or a server must never find itself somewhere else.
//!
//! Nothing here makes or removes a namespace.

use std::{
    fmt,
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    panic,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use nix::{
    sched::{CloneFlags, CpuSet, sched_setaffinity, setns},
    unistd::Pid,
};

/// Where `ip netns add` keeps its namespaces.
pub(crate) const NAMED: &str = "/run/netns";

/// Why a namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// No file of that name.
    #[error("network namespace {name:?}: {} does not exist; make it first: ip netns add {name}", path.display())]
    Missing {
        /// As the configuration has it.
        name: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The name cannot be one.
    #[error(
        "network namespace {name:?} is neither a name below {NAMED} nor an absolute path: correct `netns`"
    )]
    Name {
        /// As the configuration has it.
        name: String,
    },
    /// The file is there, but cannot be opened.
    #[error("network namespace {name:?}: cannot open {}: {error}; run as root or as the user who owns it", path.display())]
    Open {
        /// As the configuration has it.
        name: String,
        /// What was opened.
        path: PathBuf,
        /// From open(2).
        error: io::Error,
    },
    /// setns(2) refused.
    #[error("cannot enter {ns}: {error}; {}", remedy(error))]
    Enter {
        /// The namespace.
        ns: NetNs,
        /// From setns(2).
        error: io::Error,
    },
    /// No thread could be started or pinned.
    #[error(
        "cannot run a thread for work in {ns}: {error}; check the limits on threads (ulimit -u)"
    )]
    Thread {
        /// The namespace.
        ns: NetNs,
        /// From pthread_create(3).
        error: io::Error,
    },
    /// The core that memory was to be allocated on is not available.
    #[error(
        "cannot run on core {core} for work in {ns}: {error}; it is offline or not in this process's set, choose other cores"
    )]
    Core {
        /// The core.
        core: usize,
        /// The namespace.
        ns: NetNs,
        /// From sched_setaffinity(2).
        error: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => {
            "this needs CAP_SYS_ADMIN here and in the user namespace that owns it: run as root"
        }
        Some(libc::EINVAL) => {
            "the file is not a network namespace (any more): make it again with ip netns add"
        }
        _ => "check that it still exists: ip netns list",
    }
}

/// A network namespace, kept open: it stays usable when its name is removed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NetNs(Option<Arc<Named>>);

#[derive(Debug)]
struct Named {
    name: String,
    file: File,
}

impl NetNs {
    /// The namespace that the calling thread is in already: work for it runs where it is called.
    pub const fn own() -> Self {
        Self(None)
    }

    /// Opens `/run/netns/NAME`, or any file when `name` is an absolute path (`/proc/PID/ns/net`).
    ///
    /// # Errors
    ///
    /// When there is no such file or it may not be opened. That it is no namespace shows at the first
    /// [`in_netns`].
    pub fn open(name: &str) -> Result<Self, NetNsError> {
        let path = if name.starts_with('/') {
            PathBuf::from(name)
        } else if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(NetNsError::Name { name: name.into() });
        } else {
            Path::new(NAMED).join(name)
        };
        match File::open(&path) {
            Ok(file) => Ok(Self(Some(Arc::new(Named {
                name: name.into(),
                file,
            })))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(NetNsError::Missing {
                name: name.into(),
                path,
            }),
            Err(error) => Err(NetNsError::Open {
                name: name.into(),
                path,
                error,
            }),
        }
    }

    /// [`NetNs::open`], or [`NetNs::own`] without a name.
    ///
    /// # Errors
    ///
    /// Those of [`NetNs::open`].
    pub fn open_or_own(name: Option<&str>) -> Result<Self, NetNsError> {
        name.map_or(Ok(Self::own()), Self::open)
    }

    /// The name it was opened with; `None` for the own one.
    pub fn name(&self) -> Option<&str> {
        self.0.as_ref().map(|named| named.name.as_str())
    }

    /// The open namespace, for requests that carry it; `None` for the own one.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(|named| named.file.as_fd())
    }

    /// What to put before a shell command so that it runs in this namespace: nothing, or
    /// `ip netns exec NAME `, with a space at its end.
    pub fn shell_prefix(&self) -> String {
        shell_prefix(self.name())
    }
}

/// [`NetNs::shell_prefix`] of a namespace that need not be there, by its name or path.
pub fn shell_prefix(name: Option<&str>) -> String {
    match name {
        None => String::new(),
        Some(path) if path.starts_with('/') => format!("nsenter --net={path} "),
        Some(name) => format!("ip netns exec {name} "),
    }
}

impl fmt::Display for NetNs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            None => f.write_str("this network namespace"),
            Some(name) => write!(f, "network namespace {name:?}"),
        }
    }
}

/// Runs `work` in `ns` and returns what it returns; a panic of it goes on in the caller. Work for the own
/// namespace runs at once, any other on a thread that ends with it.
///
/// # Errors
///
/// When the namespace cannot be entered; `work` was not called then.
pub fn in_netns<R: Send>(ns: &NetNs, work: impl FnOnce() -> R + Send) -> Result<R, NetNsError> {
    match &ns.0 {
        None => Ok(work()),
        Some(_) => on_thread(ns, None, work),
    }
}

/// Runs `work` in `ns` on `core`, so that memory which it is the first to touch comes from that core's
/// node. Always on a thread of its own: the caller's affinity stays what it was.
///
/// # Errors
///
/// When the namespace cannot be entered or the core cannot be had; `work` was not called then.
pub fn on_core_in_netns<R: Send>(
    core: usize,
    ns: &NetNs,
    work: impl FnOnce() -> R + Send,
) -> Result<R, NetNsError> {
    on_thread(ns, Some(core), work)
}

/// Not by core_affinity: its `set_for_current` aborts the process for a core above 1,023.
fn pin_to(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cores)?)
}

fn on_thread<R: Send>(
    ns: &NetNs,
    core: Option<usize>,
    work: impl FnOnce() -> R + Send,
) -> Result<R, NetNsError> {
    let there = || {
        if let Some(core) = core {
            pin_to(core).map_err(|error| NetNsError::Core {
                core,
                ns: ns.clone(),
                error,
            })?;
        }
        if let Some(fd) = ns.fd() {
            setns(fd, CloneFlags::CLONE_NEWNET).map_err(|errno| NetNsError::Enter {
                ns: ns.clone(),
                error: errno.into(),
            })?;
        }
        Ok(work())
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, there)
            .map_err(|error| NetNsError::Thread {
                ns: ns.clone(),
                error,
            })?;
        thread
            .join()
            .unwrap_or_else(|payload| panic::resume_unwind(payload))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Runs a test on a thread in a namespace of its own, which ends with it; says so and does nothing
    /// without the privilege.
    pub(crate) fn in_new_netns(test: impl FnOnce() + Send) {
        let there = || match nix::sched::unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => test(),
            Err(errno) => {
                eprintln!("skipped: cannot make a network namespace: {errno}; run as root")
            }
        };
        let end = thread::scope(|scope| scope.spawn(there).join());
        end.unwrap_or_else(|payload| panic::resume_unwind(payload));
    }

    #[test]
    fn a_name_that_cannot_be_one_is_refused_with_its_reason() {
        for (name, word) in [
            ("", "neither a name"),
            ("a/b", "neither a name"),
            ("..", "neither a name"),
            (
                "no-such-namespace-here",
                "ip netns add no-such-namespace-here",
            ),
            ("/proc/self/ns/no-such", "does not exist"),
        ] {
            let message = NetNs::open(name).unwrap_err().to_string();
            assert!(message.contains(word), "{name:?}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn work_for_the_own_namespace_runs_on_the_calling_thread() {
        let caller = thread::current().id();
        let ran_on = in_netns(&NetNs::own(), || thread::current().id()).unwrap();
        assert_eq!(caller, ran_on);
    }

    #[test]
    fn a_file_that_is_no_namespace_cannot_be_entered() {
        let ns = NetNs::open("/proc/self/status").unwrap();
        let mut called = false;
        let error = in_netns(&ns, || called = true).unwrap_err();
        assert!(!called);
        assert!(matches!(error, NetNsError::Enter { .. }), "{error}");
    }

    #[test]
    fn a_panic_of_the_work_goes_on_in_the_caller() {
        let core = core_affinity::get_core_ids().unwrap()[0].id;
        let panic =
            panic::catch_unwind(|| on_core_in_netns(core, &NetNs::own(), || panic!("of the work")))
                .unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"of the work"));
    }

    #[test]
    fn work_on_a_core_sees_that_core_alone() {
        for core in core_affinity::get_core_ids().unwrap() {
            let seen = on_core_in_netns(core.id, &NetNs::own(), || {
                core_affinity::get_core_ids().unwrap()
            })
            .unwrap();
            assert_eq!(seen, [core]);
        }
        for core in [1023, 4095] {
            let error = on_core_in_netns(core, &NetNs::own(), || ()).unwrap_err();
            assert!(
                error.to_string().contains(&format!("core {core}")),
                "{error}"
            );
        }
    }
}
