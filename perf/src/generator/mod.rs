//! A traffic source on one core: copies of one frame into an interface, up to some 11 million a second; or
//! frames that differ in length and flow, and that carry the time at which they left.
//!
//! The kernel makes the copies (BPF_PROG_TEST_RUN with live frames, net/bpf/test_run.c) and runs
//! `perf/bpf/generator.c` over each, which sends it or holds it back. The interface must take redirected
//! frames: for a veth its *peer* needs an XDP program or GRO, else all are lost without a trace.

pub mod frame;
mod program;
mod test_run;
mod vary;

use std::{
    io,
    os::unix::thread::JoinHandleExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use control::link::{
    NetNs,
    netlink::{Netlink, NetlinkError},
    netns::NetNsError,
};
use nix::{
    sched::{CloneFlags, CpuSet, sched_setaffinity, setns},
    sys::{pthread::pthread_kill, signal::Signal},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

use program::Program;
pub use program::Progress;
pub use vary::{IMIX, MAX_FLOWS, Vary};

/// What interrupts a run: its default is to be ignored, and hardly anybody uses it.
const INTERRUPT: Signal = Signal::SIGURG;

/// How often a generator that is to end is told so.
const NUDGE: Duration = Duration::from_millis(1);

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// The frame, from its Ethernet header on; 14 to some 3,400 bytes.
    pub frame: Vec<u8>,
    /// How many; `None` is until stopped.
    pub count: Option<u64>,
    /// Frames a second, against an absolute clock; `None` is as fast as the kernel can.
    pub rate: Option<u64>,
    /// The core that makes them, and that the receiving end's kernel part runs on.
    pub core: usize,
    /// In what they differ.
    pub vary: Vary,
}

impl Traffic {
    /// As many copies of a frame as a core can make, until stopped.
    pub fn of(frame: Vec<u8>, core: usize) -> Self {
        Self {
            frame,
            count: None,
            rate: None,
            core,
            vary: Vary::default(),
        }
    }

    /// The simple [`IMIX`], as much of it as a core can make, until stopped.
    pub fn imix(core: usize) -> Self {
        let longest = IMIX.iter().copied().max().unwrap_or_default();
        let mut traffic = Self::of(frame::udp(longest.into()), core);
        traffic.vary.sizes = IMIX.to_vec();
        traffic
    }

    /// Bytes of the first `frames` frames.
    pub fn bytes(&self, frames: u64) -> u64 {
        self.vary.bytes(frames, self.frame.len())
    }
}

/// Why nothing is sent.
#[derive(Debug, thiserror::Error)]
pub enum GeneratorError {
    /// The interface is not there.
    #[error("{ns}: no interface {interface}; see ip link")]
    NoInterface {
        /// The namespace.
        ns: NetNs,
        /// Its name.
        interface: String,
    },
    /// The interface could not be asked for.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The namespace or the core cannot be had.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// The program could not be loaded.
    #[error(
        "cannot load the generator's program: {0}; it needs CAP_BPF and CAP_NET_ADMIN: run as root"
    )]
    Load(#[from] aya::EbpfError),
    /// The kernel would not run it.
    #[error(
        "cannot run the generator on {interface} with a frame of {length} bytes: {error}; live frames need Linux \
         5.18 or newer, CAP_BPF and CAP_NET_ADMIN, and 14 to 3,400 bytes"
    )]
    Run {
        /// Where to.
        interface: String,
        /// The frame's length.
        length: usize,
        /// From bpf(2).
        error: io::Error,
    },
    /// Frames cannot differ in that way.
    #[error("cannot send {0}")]
    Vary(String),
    /// No thread or no signal handler.
    #[error("cannot start a thread for the generator: {0}; check ulimit -u")]
    Thread(#[source] io::Error),
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames handed to the interface. It may have dropped some: a veth holds 256.
    pub frames: u64,
    /// From the first of them to the end, set-up and tear-down left out.
    pub elapsed: Duration,
}

/// A generator at work. Dropped, it stops.
#[derive(Debug)]
pub struct Generator {
    thread: Option<JoinHandle<Result<Sent, GeneratorError>>>,
    program: Arc<Program>,
    stop: Arc<AtomicBool>,
}

impl Generator {
    /// Starts sending into an interface of `ns`. The first frame leaves some 20 ms later.
    ///
    /// # Errors
    ///
    /// Without privilege or interface. What the kernel refuses later, [`wait`](Self::wait) tells.
    pub fn start(ns: &NetNs, interface: &str, traffic: Traffic) -> Result<Self, GeneratorError> {
        let link = Netlink::open(ns)?.link_by_name(interface)?.ok_or_else(|| {
            GeneratorError::NoInterface {
                ns: ns.clone(),
                interface: interface.into(),
            }
        })?;
        traffic.vary.check(&traffic.frame)?;
        let program = Arc::new(Program::load(link.ifindex, &traffic)?);
        let stop = Arc::new(AtomicBool::new(false));
        // The handler only has to be there: the signal ends the system call.
        signal_hook::flag::register(INTERRUPT as i32, Arc::new(AtomicBool::new(false)))
            .map_err(GeneratorError::Thread)?;
        let run = Run {
            ns: ns.clone(),
            interface: interface.into(),
            program: Arc::clone(&program),
            traffic,
            stop: Arc::clone(&stop),
        };
        let thread = thread::Builder::new()
            .name("generator".into())
            .spawn(move || run.all())
            .map_err(GeneratorError::Thread)?;
        Ok(Self {
            thread: Some(thread),
            program,
            stop,
        })
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.program.progress()
    }

    /// Whether all is sent, or sending has failed.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until all is sent.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub fn wait(mut self) -> Result<Sent, GeneratorError> {
        let count = self.program.limit();
        while !self.is_finished() && count.is_none_or(|n| self.progress().sent < n) {
            thread::sleep(NUDGE);
        }
        self.end()
    }

    /// Stops now.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub fn stop(mut self) -> Result<Sent, GeneratorError> {
        self.end()
    }

    fn end(&mut self) -> Result<Sent, GeneratorError> {
        let Some(thread) = self.thread.take() else {
            return Ok(Sent::default());
        };
        self.stop.store(true, Ordering::Release);
        // Again and again: a signal between two system calls interrupts neither.
        while !thread.is_finished() {
            let _ = pthread_kill(thread.as_pthread_t(), INTERRUPT);
            thread::sleep(NUDGE);
        }
        match thread.join() {
            Ok(sent) => sent,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// What the generator's thread works with.
struct Run {
    ns: NetNs,
    interface: String,
    program: Arc<Program>,
    traffic: Traffic,
    stop: Arc<AtomicBool>,
}

impl Run {
    /// In the namespace, because the kernel looks the interface up where the thread is; and in this very
    /// thread, because it is the one that is interrupted.
    fn all(&self) -> Result<Sent, GeneratorError> {
        self.settle()?;
        self.runs()
    }

    fn settle(&self) -> Result<(), GeneratorError> {
        let core = self.traffic.core;
        let failed = |errno: nix::Error| NetNsError::Core {
            core,
            ns: self.ns.clone(),
            error: errno.into(),
        };
        let mut cores = CpuSet::new();
        cores.set(core).map_err(failed)?;
        sched_setaffinity(Pid::from_raw(0), &cores).map_err(failed)?;
        if let Some(fd) = self.ns.fd() {
            setns(fd, CloneFlags::CLONE_NEWNET).map_err(|errno| NetNsError::Enter {
                ns: self.ns.clone(),
                error: errno.into(),
            })?;
        }
        Ok(())
    }

    fn runs(&self) -> Result<Sent, GeneratorError> {
        let mut ended = None;
        while !self.stop.load(Ordering::Acquire) {
            let sent = self.program.progress().sent;
            let left = self.traffic.count.map(|count| count.saturating_sub(sent));
            if left == Some(0) {
                break;
            }
            // Held-back frames are repetitions as well: with a rate, their number is not known.
            let repeat = match left {
                Some(left) if self.traffic.rate.is_none() => {
                    u32::try_from(left).unwrap_or(u32::MAX)
                }
                _ => u32::MAX,
            };
            let began = Instant::now();
            match test_run::live_frames(self.program.fd(), &self.traffic.frame, repeat) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(GeneratorError::Run {
                        interface: self.interface.clone(),
                        length: self.traffic.frame.len(),
                        error,
                    });
                }
            }
            ended = Some(began.elapsed());
        }
        let progress = self.program.progress();
        let end = match progress.last {
            0 => now(),
            last => Duration::from_nanos(last),
        };
        Ok(Sent {
            frames: progress.sent,
            elapsed: match (progress.began, ended) {
                (0, _) | (_, None) => Duration::ZERO,
                (began, Some(_)) => end.saturating_sub(Duration::from_nanos(began)),
            },
        })
    }
}

/// CLOCK_MONOTONIC, the clock of `bpf_ktime_get_ns`.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}
