//! Privilege: what is asked for, explained when it is missing, and given up when it is no longer
//! needed (capabilities(7)). What a port kind needs is for its opener to say; nothing here knows kinds.
//!
//! Capabilities belong to a thread. A worker calls [`lock_down`] with nothing to keep, in its own thread
//! before it runs; the control thread keeps what live changes and returning interfaces need; threads
//! started afterwards inherit from the thread that starts them.

use std::{env, fmt, fs, io};

pub use caps::Capability;
use caps::{CapSet, CapsHashSet, errors::CapsError};
use nix::unistd::{Gid, Uid, geteuid, setfsgid, setfsuid};

/// The inode of the user namespace that the kernel starts with (PROC_USER_INIT_INO in
/// include/linux/proc_ns.h).
const INITIAL_USER_NAMESPACE: &str = "user:[4026531837]";

/// Something that cannot be opened for want of privilege.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingPrivilege {
    /// What needs it, such as `af_xdp port uplink`.
    pub what: String,
    /// All that it needs.
    pub needed: Vec<Capability>,
    /// What is not there.
    pub missing: Vec<Capability>,
    /// Whether this is root of a user namespace, where some capabilities mean nothing.
    pub user_namespace: bool,
}

impl std::error::Error for MissingPrivilege {}

impl fmt::Display for MissingPrivilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needed = list(&self.needed);
        write!(f, "{} needs {needed}", self.what)?;
        if self.missing.len() < self.needed.len() {
            write!(f, ", and {} is missing", list(&self.missing))?;
        }
        if self.user_namespace {
            return write!(
                f,
                "; a user namespace cannot give that: run with sudo outside of it"
            );
        }
        write!(
            f,
            "; run with sudo, or give them to the program: sudo setcap {}+ep {}",
            needed.replace(", ", ",").to_lowercase(),
            std::env::current_exe().map_or_else(
                |_| "/path/to/dataplane".to_owned(),
                |path| path.display().to_string()
            ),
        )
    }
}

fn list(capabilities: &[Capability]) -> String {
    let names: Vec<_> = capabilities.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// Why a thread could not give up its privilege.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot give up privilege ({step}): {source}; is this Linux 5.8 or newer, with /proc mounted?"
)]
pub struct LockDownError {
    step: &'static str,
    source: io::Error,
}

/// Which of these the calling thread lacks, in the order given. In a user namespace those that the
/// kernel asks of the initial one alone are always lacking.
pub fn missing(needed: &[Capability]) -> Vec<Capability> {
    let effective = effective();
    let initial = in_initial_user_namespace();
    needed
        .iter()
        .copied()
        .filter(|&capability| {
            !effective.contains(&capability) || (!initial && is_of_initial_namespace(capability))
        })
        .collect()
}

/// Checks that the calling thread may do what `what` needs.
pub fn require(what: impl Into<String>, needed: &[Capability]) -> Result<(), MissingPrivilege> {
    let missing = missing(needed);
    if missing.is_empty() {
        return Ok(());
    }
    Err(MissingPrivilege {
        what: what.into(),
        needed: needed.to_vec(),
        user_namespace: !in_initial_user_namespace()
            && missing.iter().any(|&c| is_of_initial_namespace(c)),
        missing,
    })
}

/// Gives up all privilege of the calling thread but `keep`, for good:
///
/// - no program that it executes gains any (PR_SET_NO_NEW_PRIVS);
/// - the bounding set, where the thread may change it, holds no more than `keep`;
/// - effective and permitted are what it has of `keep`;
/// - inheritable and ambient are empty, so that a program that it executes as an ordinary user gets none.
///
/// A thread that has none, as an ordinary user's, loses none. Calling it again with the same or less is
/// no error; what is gone does not come back.
pub fn lock_down(keep: &[Capability]) -> Result<(), LockDownError> {
    let step = |step| {
        move |source: CapsError| LockDownError {
            step,
            source: io::Error::other(source),
        }
    };
    nix::sys::prctl::set_no_new_privs().map_err(|source| LockDownError {
        step: "PR_SET_NO_NEW_PRIVS",
        source: source.into(),
    })?;
    let keep: CapsHashSet = keep.iter().copied().collect();

    // The bounding set first: to change it takes a capability that is about to go.
    if effective().contains(&Capability::CAP_SETPCAP) {
        let bounding =
            caps::read(None, CapSet::Bounding).map_err(step("reading the bounding set"))?;
        for &capability in bounding.difference(&keep) {
            caps::drop(None, CapSet::Bounding, capability).map_err(step("the bounding set"))?;
        }
    }
    let nothing = CapsHashSet::new();
    caps::clear(None, CapSet::Ambient).map_err(step("the ambient set"))?;
    caps::set(None, CapSet::Inheritable, &nothing).map_err(step("the inheritable set"))?;
    let permitted =
        caps::read(None, CapSet::Permitted).map_err(step("reading the permitted set"))?;
    let keep: CapsHashSet = keep.intersection(&permitted).copied().collect();
    // Effective before permitted: it may at no moment hold more.
    caps::set(None, CapSet::Effective, &keep).map_err(step("the effective set"))?;
    caps::set(None, CapSet::Permitted, &keep).map_err(step("the permitted set"))?;
    Ok(())
}

/// The user and group who became root by sudo(8) to start this process.
pub fn sudo_caller() -> Option<(Uid, Gid)> {
    let number = |name| env::var(name).ok()?.parse::<u32>().ok();
    let caller = (number("SUDO_UID")?, number("SUDO_GID")?);
    geteuid()
        .is_root()
        .then(|| (Uid::from_raw(caller.0), Gid::from_raw(caller.1)))
}

/// Gives up all privilege of the calling thread, and makes files from then on as the user who owns the
/// directories that they are for: as this process's own, if `may_write` says that it can without
/// privilege, else as the one who called sudo (setfsuid(2), which is a thread's own affair).
pub fn lock_down_to_write(may_write: impl Fn() -> bool) -> Result<(), LockDownError> {
    if let Some((user, group)) = sudo_caller() {
        lock_down(&[Capability::CAP_SETUID, Capability::CAP_SETGID])?;
        if !may_write() {
            // What is refused leaves the thread as it is, and the file will say so.
            setfsgid(group);
            setfsuid(user);
        }
    }
    lock_down(&[])
}

/// How many bytes the calling process may lock (the soft limit); `None` when nothing limits it.
///
/// io_uring charges registered buffers, and AF_XDP its UMEM, to this limit unless the thread has
/// CAP_IPC_LOCK; io_uring asks for it in the initial user namespace (`capable()` in
/// io_uring/io_uring.c), so root of another has a limit like anyone.
pub fn locked_memory_limit() -> Option<u64> {
    if missing(&[Capability::CAP_IPC_LOCK]).is_empty() {
        return None;
    }
    // From /proc rather than getrlimit(2), which would take an unsafe block.
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    parse_locked_memory(&limits)
}

/// The soft limit of `Max locked memory` in /proc/PID/limits (proc_pid_limits(5)).
fn parse_locked_memory(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Whether this process is in the user namespace that the kernel started with. Where that cannot be
/// seen, without /proc, it is taken for granted.
pub fn in_initial_user_namespace() -> bool {
    fs::read_link("/proc/self/ns/user").map_or(true, |namespace| {
        namespace.as_os_str() == INITIAL_USER_NAMESPACE
    })
}

/// Whether the kernel asks for it in the initial user namespace (`capable()`), wherever a thread is: for
/// loading BPF programs and for locking memory. CAP_NET_ADMIN and CAP_NET_RAW are of the network
/// namespace's owner.
fn is_of_initial_namespace(capability: Capability) -> bool {
    matches!(
        capability,
        Capability::CAP_BPF
            | Capability::CAP_PERFMON
            | Capability::CAP_IPC_LOCK
            | Capability::CAP_SYS_NICE
            | Capability::CAP_SYS_RESOURCE
    )
}

fn effective() -> CapsHashSet {
    // Without an answer there is nothing to count on.
    caps::read(None, CapSet::Effective).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// The calling thread's own view: the value of a field of its status file, in hexadecimal.
    fn status(field: &str) -> u64 {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let value = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .unwrap_or_else(|| panic!("no {field}"));
        u64::from_str_radix(value.trim(), 16).unwrap()
    }

    fn sets() -> [u64; 6] {
        [
            "CapInh",
            "CapPrm",
            "CapEff",
            "CapBnd",
            "CapAmb",
            "NoNewPrivs",
        ]
        .map(status)
    }

    fn bits(capabilities: &[Capability]) -> u64 {
        capabilities.iter().map(|c| c.bitmask()).sum()
    }

    #[test]
    fn a_thread_keeps_what_it_asks_for_and_others_keep_theirs() {
        let before = sets();
        let admin = Capability::CAP_NET_ADMIN;
        if !effective().contains(&admin) || !effective().contains(&Capability::CAP_SETPCAP) {
            println!("skipped: needs CAP_NET_ADMIN and CAP_SETPCAP");
            return;
        }
        let keep = [admin, Capability::CAP_NET_RAW];
        thread::spawn(move || {
            let kept = bits(&keep) & before[1];
            for _ in 0..2 {
                lock_down(&keep).unwrap();
                assert_eq!(sets(), [0, kept, kept, bits(&keep) & before[3], 0, 1]);
            }
            assert_eq!(missing(&[admin]), []);
            assert_eq!(
                missing(&[Capability::CAP_SYS_ADMIN]),
                [Capability::CAP_SYS_ADMIN]
            );
            // A thread that it starts has no more, and less is possible.
            thread::spawn(move || {
                assert_eq!(sets()[2] & !bits(&[admin, Capability::CAP_NET_RAW]), 0);
                lock_down(&[]).unwrap();
                // The bounding set takes CAP_SETPCAP to change; without permitted ones and without
                // new privileges it gives nothing.
                let [inheritable, permitted, effective, _, ambient, no_new] = sets();
                assert_eq!(
                    [inheritable, permitted, effective, ambient, no_new],
                    [0, 0, 0, 0, 1]
                );
                // What is gone does not come back.
                lock_down(&[admin]).unwrap();
                assert_eq!(sets()[2], 0);
                assert!(fs::metadata("/proc/self").is_ok());
            })
            .join()
            .unwrap();
            assert_eq!(sets()[2], kept);
        })
        .join()
        .unwrap();
        assert_eq!(sets(), before);
    }

    #[test]
    fn a_worker_keeps_nothing() {
        // Runs for an ordinary user as well, who has nothing to lose.
        thread::spawn(|| {
            let bounding = status("CapBnd");
            let may_change = effective().contains(&Capability::CAP_SETPCAP);
            lock_down(&[]).unwrap();
            let bounding = if may_change { 0 } else { bounding };
            assert_eq!(sets(), [0, 0, 0, bounding, 0, 1]);
            let needed = [Capability::CAP_NET_RAW, Capability::CAP_BPF];
            assert_eq!(missing(&needed), needed);
            let error = require("af_xdp port uplink", &needed).unwrap_err();
            assert_eq!(error.missing, needed);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_is_missing_is_said_with_the_remedy() {
        use Capability::{CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW};
        assert_eq!(require("a capture file", &[]), Ok(()));
        let mut error = MissingPrivilege {
            what: "af_xdp port uplink".into(),
            needed: vec![CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF],
            missing: vec![CAP_BPF],
            user_namespace: false,
        };
        let program = std::env::current_exe().unwrap();
        assert_eq!(
            error.to_string(),
            format!(
                "af_xdp port uplink needs CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF, and CAP_BPF is missing; \
                 run with sudo, or give them to the program: \
                 sudo setcap cap_net_raw,cap_net_admin,cap_bpf+ep {}",
                program.display()
            )
        );
        error.user_namespace = true;
        error.missing = error.needed.clone();
        assert_eq!(
            error.to_string(),
            "af_xdp port uplink needs CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF; a user namespace cannot give \
             that: run with sudo outside of it"
        );
    }

    #[test]
    fn the_limit_of_locked_memory_is_read() {
        let head =
            "Limit                     Soft Limit           Hard Limit           Units     \n";
        for (line, limit) in [
            (
                "Max locked memory         8388608              8388608              bytes     \n",
                Some(8 << 20),
            ),
            (
                "Max locked memory         0                    unlimited            bytes     \n",
                Some(0),
            ),
            (
                "Max locked memory         unlimited            unlimited            bytes     \n",
                None,
            ),
            ("", None),
        ] {
            assert_eq!(
                parse_locked_memory(&format!("{head}{line}")),
                limit,
                "{line}"
            );
        }
        // Without the capability, the process's own limit counts.
        thread::spawn(|| {
            lock_down(&[]).unwrap();
            let limits = fs::read_to_string("/proc/self/limits").unwrap();
            let unlimited = limits
                .lines()
                .any(|line| line.starts_with("Max locked memory") && line.contains(" unlimited  "));
            let soft_is_finite = locked_memory_limit().is_some();
            assert!(soft_is_finite || unlimited);
        })
        .join()
        .unwrap();
        if missing(&[Capability::CAP_IPC_LOCK]).is_empty() {
            assert_eq!(locked_memory_limit(), None);
        }
    }
}
