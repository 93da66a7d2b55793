//! The set of workers as the control plane sees it: starts and wakes them, brings ports and takes
//! them, collects what they count, and stops them.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::{
    policy::Reason,
    port::{Port, PortFailure, PortIndex},
    worker::{
        Started, Worker, WorkerError,
        mailbox::{Command, Mailbox, Message},
        report::Report,
        spec::WorkerSpec,
        wake::Waker,
    },
};

/// How long a worker may take to answer before it counts as stuck: far more than a batch.
const ANSWER: Duration = Duration::from_secs(1);

/// What the control plane has to know of a worker.
#[derive(Debug)]
pub enum Event {
    /// A port could not be opened, or can do no more.
    Failed {
        /// Which worker.
        worker: usize,
        /// Which of its ports.
        port: PortIndex,
        /// Why.
        failure: PortFailure,
    },
    /// All sources of a worker have ended and everything they brought is written or counted.
    Finished {
        /// Which worker.
        worker: usize,
    },
    /// A worker's thread panicked. It answers no more.
    Panicked {
        /// Which worker.
        worker: usize,
        /// What the panic said.
        message: String,
    },
}

struct Handle {
    core: usize,
    ports: usize,
    pipelines: usize,
    mailbox: Arc<Mailbox>,
    dead: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Report, String>>>,
    started: Started,
    /// The last report that came, for a worker that answers no more.
    last: Report,
    /// Whether a report was asked for that has not come.
    awaited: bool,
}

/// All workers.
pub struct Engine {
    workers: Vec<Handle>,
    notice: Arc<EventFd>,
    events: Vec<Event>,
    /// Closed ports, dropped where nobody waits for it.
    retired: Vec<Box<dyn Port>>,
}

impl Engine {
    /// Starts a thread for each worker and waits until all are ready; none receives before
    /// [`Engine::go`].
    ///
    /// `settle` runs in each worker's thread once its ring is there and its memory registered, and before a port
    /// starts a thread of its own: the place to give privileges up. A ring that a privileged thread made counts
    /// no locked memory, not even what is registered later.
    pub fn start(
        specs: Vec<WorkerSpec>,
        settle: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Result<Self, WorkerError> {
        let settle = Arc::new(settle);
        let mut engine = Self {
            workers: Vec::with_capacity(specs.len()),
            notice: Arc::new(
                EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(
                    |e| WorkerError {
                        core: 0,
                        message: format!("no eventfd: {e}"),
                    },
                )?,
            ),
            events: Vec::new(),
            retired: Vec::new(),
        };
        for spec in specs {
            // On an error the workers that run are stopped when `engine` is dropped.
            let handle = engine.spawn(spec, Arc::clone(&settle))?;
            engine.workers.push(handle);
        }
        Ok(engine)
    }

    fn spawn(
        &self,
        spec: WorkerSpec,
        settle: Arc<impl Fn() -> Result<(), String> + Send + Sync + 'static>,
    ) -> Result<Handle, WorkerError> {
        let core = spec.core;
        let fail = move |message: String| WorkerError { core, message };
        let (ports, pipelines) = (spec.ports.len(), spec.pipelines.len());
        let waker = Arc::new(Waker::new().map_err(|e| fail(format!("no eventfd: {e}")))?);
        let mailbox = Arc::new(Mailbox::new(Arc::clone(&waker), Arc::clone(&self.notice)));
        let dead = Arc::new(AtomicBool::new(false));
        let (ready, readiness) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name(format!("worker-{core}"))
            .spawn({
                let (mailbox, dead) = (Arc::clone(&mailbox), Arc::clone(&dead));
                let notice = Arc::clone(&self.notice);
                move || {
                    let outcome = catch_unwind(AssertUnwindSafe(|| {
                        let (worker, started) = match Worker::start(spec, mailbox, waker, &*settle)
                        {
                            Ok(made) => made,
                            Err(e) => {
                                let _ = ready.send(Err(e));
                                return Err(String::new());
                            }
                        };
                        let _ = ready.send(Ok(started));
                        Ok(worker.run())
                    }));
                    let result = outcome.unwrap_or_else(|panic| {
                        Err(panic
                            .downcast_ref::<&str>()
                            .map(|s| (*s).to_owned())
                            .or_else(|| panic.downcast_ref::<String>().cloned())
                            .unwrap_or_else(|| "a panic without a message".to_owned()))
                    });
                    dead.store(true, Ordering::Release);
                    let _ = nix::unistd::write(notice.as_fd(), &1u64.to_ne_bytes());
                    result
                }
            })
            .map_err(|e| fail(format!("no thread: {e}")))?;
        let started = match readiness.recv() {
            Ok(Ok(started)) => started,
            Ok(Err(e)) => {
                let _ = thread.join();
                return Err(e);
            }
            // The sender is gone: it panicked.
            Err(_) => {
                let message = match thread.join() {
                    Ok(Err(message)) => message,
                    _ => "the worker ended before it began".to_owned(),
                };
                return Err(fail(message));
            }
        };
        Ok(Handle {
            core,
            ports,
            pipelines,
            mailbox,
            dead,
            thread: Some(thread),
            started,
            last: Report::blank(ports, pipelines),
            awaited: false,
        })
    }

    /// Lets all workers receive.
    pub fn go(&self) {
        for worker in &self.workers {
            worker.send(Command::Go);
        }
    }

    /// How many workers.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// A worker's core.
    pub fn core(&self, worker: usize) -> usize {
        self.workers[worker].core
    }

    /// What a worker has got for its own region.
    pub fn started(&self, worker: usize) -> Started {
        self.workers[worker].started
    }

    /// What wakes each worker, for whoever publishes something to them.
    pub fn wakers(&self) -> Vec<Arc<Waker>> {
        self.workers.iter().map(|w| w.mailbox.waker()).collect()
    }

    /// Takes in what workers have sent, and drops what they gave back: sockets are closed then.
    pub fn flush_messages(&mut self) {
        self.drain();
        self.drop_retired();
    }

    /// Ends a port on one worker; its frames on the way are counted as dropped for `reason`.
    pub fn close_port(&self, worker: usize, port: PortIndex, reason: Reason) {
        self.workers[worker].send(Command::Close { port, reason });
    }

    /// Puts a port where one was closed.
    pub fn open_port(&self, worker: usize, index: PortIndex, port: Box<dyn Port>) {
        self.workers[worker].send(Command::Open { index, port });
    }

    /// Becomes readable when [`Engine::events`] has something to say.
    pub fn notice(&self) -> BorrowedFd<'_> {
        self.notice.as_fd()
    }

    /// What happened since the last call. Drops here what workers have given back.
    pub fn events(&mut self) -> Vec<Event> {
        let _ = self.notice.read();
        self.drain();
        self.drop_retired();
        std::mem::take(&mut self.events)
    }

    /// Drops closed ports, all at once: the kernel takes some 15 ms over an AF_XDP socket.
    fn drop_retired(&mut self) {
        if self.retired.is_empty() {
            return;
        }
        thread::scope(|scope| {
            for port in self.retired.drain(..) {
                scope.spawn(move || drop(port));
            }
        });
        // Slots that the sockets might have read, and regions that wait for them, are free now.
        for worker in &self.workers {
            worker.mailbox.waker().wake();
        }
    }

    fn drain(&mut self) {
        let mut ended = Vec::new();
        for (number, worker) in self.workers.iter_mut().enumerate() {
            while let Some(message) = worker.mailbox.receive() {
                match message {
                    Message::Report(report) => {
                        worker.last = *report;
                        worker.awaited = false;
                    }
                    Message::Retired(port) => self.retired.push(port),
                    Message::Region(region) => drop(region),
                    Message::Failed { port, failure } => self.events.push(Event::Failed {
                        worker: number,
                        port,
                        failure,
                    }),
                    Message::Finished => self.events.push(Event::Finished { worker: number }),
                }
            }
            if worker.dead.load(Ordering::Acquire)
                && let Some(thread) = worker.thread.take()
            {
                worker.awaited = false;
                ended.push((number, thread));
            }
        }
        for (number, thread) in ended {
            self.join(number, thread);
        }
    }

    /// Asks every worker for a report and waits for all: each is a consistent copy, made at the end
    /// of a batch. A worker that has ended or is stuck answers with its last.
    pub fn reports(&mut self) -> Vec<Report> {
        for worker in &mut self.workers {
            if worker.thread.is_some() && !worker.awaited {
                let blank = Box::new(Report::blank(worker.ports, worker.pipelines));
                worker.awaited = worker.send(Command::Report(blank));
            }
        }
        let deadline = Instant::now() + ANSWER;
        loop {
            self.drain();
            if !self.workers.iter().any(|w| w.awaited) || Instant::now() > deadline {
                break;
            }
            thread::sleep(Duration::from_micros(20));
        }
        self.workers.iter().map(|w| w.last.clone()).collect()
    }

    /// Tells all workers to stop, without waiting for them.
    pub fn begin_stop(&self) {
        for worker in &self.workers {
            worker.send(Command::Stop);
        }
    }

    /// Takes what a worker's thread leaves: its last report, or its panic.
    fn join(&mut self, number: usize, thread: JoinHandle<Result<Report, String>>) {
        let message = match thread.join() {
            Ok(Ok(report)) => {
                self.workers[number].last = report;
                return;
            }
            Ok(Err(message)) => message,
            Err(_) => "a panic while it unwound".to_owned(),
        };
        self.events.push(Event::Panicked {
            worker: number,
            message,
        });
    }

    /// Stops all workers, each after it has written or counted everything it holds, and answers with
    /// their last reports.
    pub fn stop(&mut self) -> Vec<Report> {
        self.begin_stop();
        for number in 0..self.workers.len() {
            if let Some(thread) = self.workers[number].thread.take() {
                self.join(number, thread);
            }
        }
        self.drain();
        self.drop_retired();
        self.workers.iter().map(|w| w.last.clone()).collect()
    }
}

impl Handle {
    /// Sends a command; a worker that ended, or does not look at 64 of them, gets none.
    fn send(&self, command: Command) -> bool {
        !self.dead.load(Ordering::Acquire) && self.mailbox.send(command).is_ok()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The cores that this process may use, lowest first.
pub fn usable_cores() -> io::Result<Vec<usize>> {
    let mut cores: Vec<usize> = core_affinity::get_core_ids()
        .ok_or_else(|| io::Error::other("sched_getaffinity failed"))?
        .into_iter()
        .map(|core| core.id)
        .collect();
    cores.sort_unstable();
    Ok(cores)
}
