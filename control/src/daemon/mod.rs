//! The daemon: composes ports, policies and workers from a plan, runs until it is told to stop or has
//! nothing left to do, and takes everything down again.
//!
//! Everything is opened before a privilege is given up, and every privilege that running needs no
//! more is given up before the first frame is taken.

mod consumers;
mod error;
mod links;
mod policies;
mod service;
mod startup;
mod summary;

use std::{
    collections::BTreeSet,
    fs,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use dataplane::{
    engine::{Engine, Event},
    frame::Arena,
    policy::Reason,
    port::PortIndex,
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

use self::policies::Policies;
pub use self::{
    error::{StartError, exit},
    startup::Options,
    summary::Summary,
};
use crate::{
    api::server::Server,
    config::Plan,
    link::{monitor::LinkMonitor, netns::NetNs},
    log,
    ports::{Device, Seat},
    stats::Stats,
};

/// How long a device outlives the end of all sources while somebody listens on it: a listener that has a
/// frame in its ring loses it with the device. libpcap hands over a ring block after at most a second.
const LINGER: Duration = Duration::from_secs(2);

/// One configured port: its device, and where its queues are.
struct Live {
    name: String,
    device: Box<dyn Device>,
    units: Vec<Place>,
    /// When to try again to open it.
    retry: Option<Instant>,
    /// How many tries have failed.
    tries: u32,
    /// Whether it can do no more.
    failed: bool,
    source: bool,
    sink: bool,
}

/// One queue of a port on one worker.
#[derive(Clone, Copy)]
struct Place {
    worker: usize,
    core: usize,
    index: PortIndex,
    queue: u32,
    /// Its part of the worker's memory for queues.
    part: usize,
}

impl Place {
    /// Where it is opened, with this memory of its worker.
    fn seat<'a>(&self, arena: Option<&'a Arena>) -> Seat<'a> {
        Seat {
            queue: self.queue,
            core: self.core,
            memory: arena.map(|arena| (arena, self.part)),
        }
    }
}

/// What the main loop and the control socket's threads share.
struct Shared {
    plan: Plan,
    /// By worker: the memory of its queues, if it has any.
    arenas: Vec<Option<Arena>>,
    engine: Mutex<Engine>,
    ports: Mutex<Vec<Live>>,
    policies: Policies,
    began: Instant,
    stop: EventFd,
}

impl Shared {
    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a unit is opened.
    fn seat(&self, place: &Place) -> Seat<'_> {
        place.seat(self.arenas[place.worker].as_ref())
    }

    fn ports(&self) -> MutexGuard<'_, Vec<Live>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct End {
    /// See [`exit`].
    pub code: u8,
    /// The last counters.
    pub stats: Stats,
}

/// A started daemon that has not received a frame yet.
pub struct Daemon {
    shared: Arc<Shared>,
    server: Option<Server>,
    monitors: Vec<(NetNs, LinkMonitor)>,
    signals: SignalFd,
    quiet: bool,
    /// Set for the threads that wait for listeners.
    ending: Arc<AtomicBool>,
    /// All sources have ended: until when listeners are waited for, and the exit code.
    leaving: Option<(Instant, u8)>,
    finished: BTreeSet<usize>,
    /// All sources have ended by themselves.
    ended: bool,
}

/// Whether there are frames that the disk of a recording did not take.
fn is_incomplete(stats: &Stats) -> bool {
    let lost = [Reason::DiskFull, Reason::WriteError].map(Reason::name);
    let recordings = stats.ports.values().filter(|port| port.kind == "pcap");
    let mut dropped = recordings.flat_map(|port| &port.tx.dropped);
    dropped.any(|(reason, &n)| n > 0 && lost.contains(&reason.as_str()))
}

/// Takes SIGTERM, SIGINT and SIGHUP out of the way of every thread that is started after: they are
/// read in the main loop. SIGHUP stays ignored where it is, as under nohup. Call it first of all.
pub fn hold_signals() -> Result<SignalFd, StartError> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        set.add(signal);
    }
    if !is_ignored(Signal::SIGHUP) {
        set.add(Signal::SIGHUP);
    }
    set.thread_block()
        .and_then(|()| SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
        .map_err(|e| StartError::refused(&format!("cannot hold signals: {e}")))
}

/// Whether a signal was ignored when we were started: `SigIgn`, a mask in hexadecimal (proc_pid_status(5)).
pub fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
}

impl Daemon {
    fn say(&self, line: &str) {
        if !self.quiet {
            log::line(line);
        }
    }

    fn complain(line: &str) {
        log::line(line);
    }

    /// Runs until a signal, `dpctl stop`, or the end of all sources; then stops the workers, removes
    /// what was made, and answers with the last counters.
    pub fn run(mut self) -> End {
        let (ready, consumers) = mpsc::channel();
        let wake =
            EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map(Arc::new);
        match &wake {
            Ok(wake) => self.wait_for_consumers(&ready, wake),
            Err(e) => drop(ready.send(Err(format!(
                "no eventfd: {e}; sources do not wait for listeners"
            )))),
        }
        drop(ready);
        self.catch_up();
        let mut code = None;
        let mut held = true;
        while code.is_none() {
            if held {
                match consumers.try_recv() {
                    Ok(Ok(line)) => self.say(&line),
                    Ok(Err(warning)) => Self::complain(&warning),
                    Err(mpsc::TryRecvError::Disconnected) => {
                        held = false;
                        self.shared.engine().go();
                    }
                    Err(mpsc::TryRecvError::Empty) => {}
                }
            }
            if let Some((until, leaving)) = self.leaving
                && (Instant::now() >= until || !self.listened())
            {
                code = Some(leaving);
                break;
            }
            let timeout = self.next_wakeup();
            code = self.wait(
                wake.as_deref().ok(),
                if held {
                    Some(Duration::from_millis(20))
                } else {
                    timeout
                },
            );
            if code.is_none() {
                code = self.engine_events();
            }
            if code.is_none() {
                self.link_events();
                self.retry();
            }
        }
        self.end(code.unwrap_or(exit::DONE))
    }

    /// Sleeps until something happens. Answers with an exit code when it is time to end.
    fn wait(&mut self, wake: Option<&EventFd>, timeout: Option<Duration>) -> Option<u8> {
        let notice = self.shared.engine().notice().try_clone_to_owned().ok();
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.signals.as_fd(), self.shared.stop.as_fd()];
        fds.extend(notice.as_ref().map(AsFd::as_fd));
        fds.extend(wake.map(AsFd::as_fd));
        fds.extend(self.monitors.iter().map(|(_, monitor)| monitor.as_fd()));
        let mut polled: Vec<PollFd<'_>> = fds
            .into_iter()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let timeout = timeout.map_or(PollTimeout::NONE, |t| {
            PollTimeout::try_from(t.as_millis().min(60_000) as i32 + 1).unwrap_or(PollTimeout::NONE)
        });
        // An interrupted poll is followed by another look at everything.
        let _ = poll(&mut polled, timeout);
        let stopped = polled[1].any().unwrap_or(false);
        drop(polled);
        if let Some(wake) = wake {
            let _ = wake.read();
        }
        if let Ok(Some(signal)) = self.signals.read_signal() {
            let name = Signal::try_from(signal.ssi_signo as i32).map_or("a signal", Signal::as_str);
            self.say(&format!("{name}: stopping"));
        } else if stopped {
            self.say("dpctl stop: stopping");
        } else {
            return None;
        }
        // Sources that have failed before have done so whatever ends the run.
        Some(self.leaving.map_or(exit::DONE, |(_, code)| code))
    }

    /// What workers have to say. Answers with an exit code when there is nothing left to run for.
    fn engine_events(&mut self) -> Option<u8> {
        let events = self.shared.engine().events();
        let mut code = None;
        for event in events {
            match event {
                Event::Failed {
                    worker,
                    port,
                    failure,
                } => {
                    let mut ports = self.shared.ports();
                    if let Some(live) = ports.iter_mut().find(|l| {
                        l.units
                            .iter()
                            .any(|p| p.worker == worker && p.index == port)
                    }) {
                        Self::complain(&format!("port {}: {failure}", live.name));
                        if failure.fatal && live.device.watched().is_some() {
                            // Its interface is there and may take it the next time.
                            live.retry = Some(Instant::now() + links::RETRY);
                        } else if failure.fatal {
                            live.failed = true;
                            code = code.or(self.nothing_left(&ports));
                        }
                    }
                }
                Event::Finished { worker } => {
                    self.finished.insert(worker);
                }
                Event::Panicked { worker, message } => {
                    let core = self.shared.engine().core(worker);
                    let names: Vec<_> = self
                        .shared
                        .ports()
                        .iter()
                        .filter(|l| l.units.iter().any(|p| p.worker == worker))
                        .map(|l| l.name.clone())
                        .collect();
                    Self::complain(&format!(
                        "the worker on core {core} panicked: {message}; its ports were {}; this is a defect of dataplane: please report it",
                        names.join(", ")
                    ));
                    return Some(exit::FAILED);
                }
            }
        }
        if self.finished.len() == self.shared.engine().workers() {
            self.ended = true;
            let failed = self.shared.ports().iter().any(|l| l.failed);
            let leaving = if failed { exit::FAILED } else { exit::DONE };
            self.finished.clear();
            if self.listened() {
                self.say(&format!(
                    "all sources have ended; devices stay {LINGER:?} for those who listen, or until they stop"
                ));
                self.leaving = Some((Instant::now() + LINGER, leaving));
            } else {
                self.say("all sources have ended");
                return Some(leaving);
            }
        }
        code
    }

    /// All sources or all sinks can do no more, and none will come back.
    fn nothing_left(&self, ports: &[Live]) -> Option<u8> {
        let sources = ports.iter().filter(|l| l.source).all(|l| l.failed);
        let sinks = ports.iter().filter(|l| l.sink).all(|l| l.failed);
        // A file that ends early is a source that failed; what it brought is still being written, and
        // the workers say when that is done.
        if sinks || (sources && !self.shared.plan.finite) {
            Self::complain(
                "all sources or all sinks can do no more, as said above: nothing is left to run for",
            );
            return Some(exit::FAILED);
        }
        None
    }

    fn next_wakeup(&self) -> Option<Duration> {
        let retry = self.shared.ports().iter().filter_map(|l| l.retry).min();
        let retry = retry.map(|at| at.saturating_duration_since(Instant::now()));
        // Listeners that leave give no notice.
        let leaving = self.leaving.map(|_| Duration::from_millis(20));
        retry.into_iter().chain(leaving).min()
    }

    fn end(mut self, code: u8) -> End {
        self.ending.store(true, Ordering::Relaxed);
        // The workers write what they have while the last who ask are answered.
        self.shared.engine().begin_stop();
        self.server = None;
        let reports = self.shared.engine().stop();
        let stats = service::stats(&self.shared, &reports);
        // Who plays a file into another, and removes the first when that went well, must not lose it.
        let incomplete = self.ended && is_incomplete(&stats);
        let code = match code {
            exit::DONE if incomplete => {
                Self::complain(
                    "a recording lacks frames that could not be written, as said above; play it again where there is room",
                );
                exit::FAILED
            }
            code => code,
        };
        // What is still unsaid, such as a panic while stopping.
        let late = self.shared.engine().events();
        let code = late.iter().fold(code, |code, event| match event {
            Event::Panicked { message, .. } => {
                Self::complain(&format!("a worker panicked while it stopped: {message}"));
                exit::FAILED
            }
            _ => code,
        });
        // The kernel takes its time over each interface; they need not wait for one another.
        thread::scope(|scope| {
            for live in self.shared.ports().drain(..) {
                scope.spawn(move || drop(live));
            }
        });
        End { code, stats }
    }
}
