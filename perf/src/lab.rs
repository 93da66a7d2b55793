//! Where a benchmark runs: network namespaces without names, that end with the process however it ends;
//! veth pairs in them; two cores, one for the generator and one for what is measured.

use std::{
    fs, io,
    os::fd::AsRawFd,
    process::{self, Command},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use control::{
    daemon::is_ignored,
    link::{
        NetNs,
        netns::{NetNsError, in_netns},
    },
};
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::Signal,
    unistd::geteuid,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Where the generator sends into.
pub const SOURCE: &str = "gen0";
/// Where that arrives: the interface that is taken by AF_XDP.
pub const UPLINK: &str = "up0";
/// Where frames leave that go on from [`UPLINK`], in a [`Line`].
pub const OUT: &str = "out0";
/// Where that arrives.
pub const SINK: &str = "sink0";

/// Why a benchmark cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Not root.
    #[error(
        "making interfaces and loading BPF programs, in a network namespace of its own, takes root: run it with sudo"
    )]
    NotRoot,
    /// Too few cores, or not those that were asked for.
    #[error(
        "cores {generator} and {worker} are asked for, and this process may use {available:?}: {remedy}"
    )]
    Cores {
        /// The generator's.
        generator: usize,
        /// The worker's.
        worker: usize,
        /// What there is.
        available: Vec<usize>,
        /// What to do.
        remedy: &'static str,
    },
    /// unshare(2) refused.
    #[error("cannot make a network namespace: {0}; run as root with CAP_SYS_ADMIN")]
    NetNs(#[source] io::Error),
    /// A program is missing or refused.
    #[error("{program} {command}: {error}; {remedy}")]
    Command {
        /// Which.
        program: &'static str,
        /// Its arguments.
        command: String,
        /// What it said.
        error: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A namespace cannot be entered.
    #[error(transparent)]
    Enter(#[from] NetNsError),
    /// Signals cannot be caught.
    #[error("cannot watch for Ctrl-C: {0}")]
    Signals(#[source] io::Error),
    /// Ctrl-C, SIGTERM or SIGHUP.
    #[error("interrupted")]
    Interrupted,
}

/// Which core does what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Makes traffic and runs the kernel's side of its arrival.
    pub generator: usize,
    /// Runs what is measured, alone.
    pub worker: usize,
}

impl Cores {
    /// The cores asked for, else the first two that there are.
    ///
    /// # Errors
    ///
    /// When these are not two cores that this process may use.
    pub fn choose(generator: Option<usize>, worker: Option<usize>) -> Result<Self, LabError> {
        let available: Vec<usize> = core_affinity::get_core_ids()
            .unwrap_or_default()
            .iter()
            .map(|core| core.id)
            .collect();
        let other_than = |taken: Option<usize>| {
            available
                .iter()
                .copied()
                .find(|core| Some(*core) != taken)
                .unwrap_or_default()
        };
        let generator = generator.unwrap_or_else(|| other_than(worker));
        let worker = worker.unwrap_or_else(|| other_than(Some(generator)));
        let remedy = if available.len() < 2 {
            "a generator and a worker on one core would measure each other; two are needed"
        } else if generator == worker {
            "choose two different ones"
        } else if !available.contains(&generator) || !available.contains(&worker) {
            "choose others with --generator-core and --worker-core"
        } else {
            return Ok(Self { generator, worker });
        };
        Err(LabError::Cores {
            generator,
            worker,
            available,
            remedy,
        })
    }
}

/// Set once the user wants an end.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches Ctrl-C, SIGTERM and the end of the terminal (unless that is ignored, as under nohup) from here on.
    ///
    /// # Errors
    ///
    /// When the handlers cannot be installed.
    pub fn watch() -> Result<Self, LabError> {
        let interrupt = Self::default();
        let hangup = (!is_ignored(Signal::SIGHUP)).then_some(SIGHUP);
        for signal in [SIGINT, SIGTERM].into_iter().chain(hangup) {
            signal_hook::flag::register(signal, Arc::clone(&interrupt.0))
                .map_err(LabError::Signals)?;
        }
        Ok(interrupt)
    }

    /// Whether it is time to end.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// # Errors
    ///
    /// [`LabError::Interrupted`], when it is time to end.
    pub fn check(&self) -> Result<(), LabError> {
        if self.is_set() {
            Err(LabError::Interrupted)
        } else {
            Ok(())
        }
    }
}

/// Fails for everybody but root, before anything is made.
///
/// # Errors
///
/// [`LabError::NotRoot`].
pub fn require_root() -> Result<(), LabError> {
    if geteuid().is_root() {
        Ok(())
    } else {
        Err(LabError::NotRoot)
    }
}

/// Takes the calling thread, and all that it starts, into a new network namespace with the pair
/// [`SOURCE`] - [`UPLINK`], both up. Nothing has to be cleaned up: the namespace ends with its last
/// process, and a veth with its namespace.
///
/// # Errors
///
/// Without privilege, or where the kernel has no veth.
pub fn enter() -> Result<(), LabError> {
    new_namespace()?;
    pair()
}

/// The pair anew: whatever was changed about it, or taken from it, is forgotten.
pub(crate) fn renew() -> Result<(), LabError> {
    // Its other end goes with it. It may have gone with a namespace that it was moved into.
    let _ = ip(&["link", "del", SOURCE]);
    pair()
}

fn pair() -> Result<(), LabError> {
    ip(&[
        "link", "add", SOURCE, "type", "veth", "peer", "name", UPLINK,
    ])?;
    for end in [SOURCE, UPLINK] {
        ip(&["link", "set", end, "arp", "off", "up"])?;
    }
    Ok(())
}

/// The near end of the pair that [`idle_pair`] makes.
pub(crate) fn idle(number: u16) -> String {
    format!("idle{number}")
}

/// A pair more in the namespace of the calling thread, both ends up, on which nothing comes.
pub(crate) fn idle_pair(number: u16) -> Result<(), LabError> {
    let (near, far) = (idle(number), format!("far{number}"));
    ip(&["link", "add", &near, "type", "veth", "peer", "name", &far])?;
    for end in [&near, &far] {
        ip(&["link", "set", end, "arp", "off", "up"])?;
    }
    Ok(())
}

/// Two hosts and what is between them: `client: SOURCE - UPLINK | OUT - SINK: server`.
#[derive(Debug)]
pub struct Line {
    /// Has [`SOURCE`].
    pub client: NetNs,
    /// Has [`SINK`].
    pub server: NetNs,
}

impl Line {
    /// Takes the calling thread, and all that it starts, into a new network namespace between two others,
    /// which have the addresses given (`10.0.0.1/24`). All four interfaces are up. Nothing has to be cleaned
    /// up.
    ///
    /// # Errors
    ///
    /// Without privilege, or where the kernel has no veth.
    pub fn enter(client: &str, server: &str) -> Result<Self, LabError> {
        new_namespace()?;
        let host = |end: &str, near: &str, address: &str| -> Result<NetNs, LabError> {
            let ns = aside()?;
            let fd = ns.fd().map(|fd| fd.as_raw_fd()).unwrap_or_default();
            // iproute2 takes any path.
            let path = format!("/proc/{}/fd/{fd}", process::id());
            ip(&[
                "link", "add", near, "type", "veth", "peer", "name", end, "netns", &path,
            ])?;
            ip(&["link", "set", near, "up"])?;
            in_netns(&ns, || {
                ip(&["address", "add", address, "dev", end])?;
                ip(&["link", "set", end, "up"])
            })??;
            Ok(ns)
        };
        Ok(Self {
            client: host(SOURCE, UPLINK, client)?,
            server: host(SINK, OUT, server)?,
        })
    }
}

/// Makes a network namespace beside that of the calling thread, which stays where it is.
fn aside() -> Result<NetNs, LabError> {
    thread::scope(|scope| {
        let made = scope.spawn(|| {
            new_namespace()?;
            Ok(NetNs::open("/proc/thread-self/ns/net")?)
        });
        made.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Takes the calling thread into a new namespace that keeps quiet.
fn new_namespace() -> Result<(), LabError> {
    require_root()?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| LabError::NetNs(errno.into()))?;
    without_ipv6();
    Ok(())
}

/// Frames that have arrived at an interface of a namespace.
///
/// # Errors
///
/// When there is no such interface.
pub fn arrived(ns: &NetNs, interface: &str) -> Result<u64, LabError> {
    // By thread: /proc/net would be that of the process's first.
    let table =
        in_netns(ns, || fs::read_to_string("/proc/thread-self/net/dev"))?.unwrap_or_default();
    let counters = table.lines().find_map(|line| {
        let (name, counters) = line.split_once(':')?;
        (name.trim() == interface).then_some(counters)
    });
    counters
        .and_then(|counters| counters.split_whitespace().nth(1)?.parse().ok())
        .ok_or_else(|| LabError::Command {
            program: "ip",
            command: format!("link show {interface}"),
            error: "no such interface".into(),
            remedy: "see ip link",
        })
}

/// No IPv6 in the calling thread's namespace: router solicitations would be counted among the frames.
pub(crate) fn without_ipv6() {
    // A kernel without IPv6 has no such file.
    for which in ["all", "default"] {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1");
    }
}

/// ip(8) in the namespace of the calling thread.
pub(crate) fn ip(arguments: &[&str]) -> Result<(), LabError> {
    run("ip", "it needs iproute2 and a kernel with veth", arguments)
}

/// ethtool(8).
pub(crate) fn ethtool(arguments: &[&str]) -> Result<(), LabError> {
    run("ethtool", "apt-get install ethtool", arguments)
}

fn run(program: &'static str, remedy: &'static str, arguments: &[&str]) -> Result<(), LabError> {
    let failed = |error: String| LabError::Command {
        program,
        command: arguments.join(" "),
        error,
        remedy,
    };
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ))
    }
}
