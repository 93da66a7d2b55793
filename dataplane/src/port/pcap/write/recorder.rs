//! The thread that writes: it takes the workers' blocks in the order in which they were handed on.

use std::{
    io,
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    super::format::write::beginning, Limits, Output, PcapSink, block::Shared, recording::Recording,
};

/// What a recorder is told when it is started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many workers write to it.
    pub workers: usize,
    /// The name of the program, which stands in every file.
    pub program: String,
    /// The names of the interfaces that frames are filed under.
    pub interfaces: Vec<String>,
    /// When a new file is begun.
    pub limits: Limits,
    /// Whether files are compressed with zstd.
    pub compress: bool,
    /// How long the output may take for what is in flight when a worker stops.
    pub patience: Duration,
}

/// One thread that writes what the sinks of all workers take. Dropped, it ends once it has completed the
/// file; an output that hangs is left behind.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    patience: Duration,
    ended: mpsc::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Starts the thread, in which `open` makes the output; opens the first file and begins it.
    ///
    /// # Errors
    ///
    /// What `open` says, or why there is no thread or no first file.
    pub fn start(
        settings: Settings,
        open: impl FnOnce() -> Result<Box<dyn Output>, String> + Send + 'static,
    ) -> Result<Self, String> {
        let refused = |e: io::Error| format!("no thread to write with: {e}");
        let shared = Arc::new(Shared::new(settings.workers).map_err(refused)?);
        let (ready, readiness) = mpsc::sync_channel(1);
        let (end, ended) = mpsc::sync_channel(1);
        let theirs = Arc::clone(&shared);
        let patience = settings.patience;
        let work = move || {
            let begun = open().and_then(|output| begin(&settings, output, &theirs));
            match begun {
                Ok(recording) => {
                    let _ = ready.send(Ok(()));
                    let outcome = catch_unwind(AssertUnwindSafe(|| run(recording, &theirs)));
                    if outcome.is_err() {
                        theirs.abandoned.store(true, Ordering::Release);
                        theirs.give_up(
                            "its writer panicked; this is a defect of dataplane: please report it"
                                .to_owned(),
                        );
                    }
                }
                Err(message) => drop(ready.send(Err(message))),
            }
            let _ = end.send(());
        };
        let thread = thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(work)
            .map_err(refused)?;
        let recorder = Self {
            shared,
            patience,
            ended,
            thread: Some(thread),
        };
        match readiness.recv() {
            Ok(Ok(())) => Ok(recorder),
            Ok(Err(message)) => Err(message),
            Err(_) => Err("its writer panicked before it began".to_owned()),
        }
    }

    /// The sink of one worker. `worker` counts from 0 among those that write; `interfaces` says, for each of the
    /// worker's ports, which interface its frames are filed under.
    ///
    /// # Panics
    ///
    /// When there are not so many workers.
    pub fn sink(&self, worker: usize, interfaces: Vec<u32>) -> PcapSink {
        assert!(worker < self.shared.lanes.len());
        let patience = u64::try_from(self.patience.as_nanos()).unwrap_or(u64::MAX);
        PcapSink::new(Arc::clone(&self.shared), worker, interfaces, patience)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // The counter of an eventfd is full only after 2^64 - 2 writes.
        let _ = self.shared.stopped.write(1);
        self.shared.bed.wake();
        let in_time = self.ended.recv_timeout(self.patience).is_ok();
        if let Some(thread) = self.thread.take_if(|_| in_time) {
            // A panic was caught and reported.
            let _ = thread.join();
        }
    }
}

fn begin(
    settings: &Settings,
    output: Box<dyn Output>,
    shared: &Shared,
) -> Result<Recording, String> {
    Recording::begin(
        output,
        beginning(&settings.program, &settings.interfaces),
        settings.limits,
        settings.compress,
        shared.stopped.as_fd(),
        Instant::now(),
    )
}

fn run(mut recording: Recording, shared: &Shared) {
    let stop = shared.stopped.as_fd();
    loop {
        while let Some(block) = shared.take() {
            recording.record(block, Instant::now(), stop);
            give_back(&mut recording, shared);
        }
        if shared.is_stopped() {
            break;
        }
        recording.rest(shared.is_draining(), Instant::now(), stop);
        give_back(&mut recording, shared);
        let limit = recording.due();
        let limit = limit.map(|due| due.saturating_duration_since(Instant::now()));
        shared.bed.sleep_unless(limit, || {
            shared.has_work()
                || shared.is_stopped()
                || (shared.is_draining() && recording.is_gathering())
        });
    }
    if recording.held().all(|lane| shared.is_closed(lane)) {
        // Their workers have counted them as lost.
        recording.forget();
    }
    recording.close(Instant::now(), stop);
    give_back(&mut recording, shared);
}

/// Reports what there is to report, then gives blocks back: a worker that sees the block sees the report.
fn give_back(recording: &mut Recording, shared: &Shared) {
    for news in recording.news() {
        match news.fatal {
            true => shared.give_up(news.message),
            false => shared.tell(news),
        }
    }
    for block in recording.done() {
        shared.give_back(block);
    }
}
