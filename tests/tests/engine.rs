//! The engine when a worker panics: it says so, with what the panic said; the other workers go on and
//! answer, and stopping does not hang.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dataplane::{
    engine::{Engine, Event},
    frame::{Frame, Staged},
    policy::Reason,
    port::{Io, Place, Port, PortFailure, PortIndex, Wait},
    worker::spec::{Idle, PipelineSpec, SourceSpec, WorkerSpec},
};
use tests::{Need, Theme, wait_until};

const LIMIT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut theme = Theme::new();
    const IO_URING: &[Need] = &[Need::IoUring];
    theme.test("a_worker_that_panics", IO_URING, || a_worker_panics(100));
    theme.test("a_worker_that_panics_at_once", IO_URING, || {
        a_worker_panics(0)
    });
    theme.test(
        "a_port_that_panics_when_it_is_attached",
        IO_URING,
        at_the_start,
    );
    theme.run()
}

/// A source without frames, which counts how often it is asked, and panics when it is told to.
struct Asked {
    asked: Arc<AtomicU64>,
    panics_at: Option<u64>,
}

impl Port for Asked {
    fn attach(&mut self, _io: &mut Io, _place: Place) -> Result<(), PortFailure> {
        assert!(self.panics_at != Some(u64::MAX), "attached on purpose");
        Ok(())
    }

    fn receive(&mut self, _io: &mut Io, _batch: &mut Vec<Frame>, _budget: usize) {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        assert!(
            self.panics_at.is_none_or(|at| asked < at),
            "a panic on purpose"
        );
    }

    fn wait(&mut self, _io: &mut Io) -> Wait {
        Wait::Ready
    }

    fn stage(&mut self, _io: &mut Io, frames: &mut Vec<Staged>) {
        assert!(frames.is_empty(), "no source has any");
    }

    fn close(&mut self, _io: &mut Io, _reason: Reason) {}
}

fn worker(panics_at: Option<u64>) -> (WorkerSpec, Arc<AtomicU64>) {
    let asked = Arc::new(AtomicU64::new(0));
    let port = Asked {
        asked: Arc::clone(&asked),
        panics_at,
    };
    let spec = WorkerSpec {
        core: 0,
        batch: 64,
        idle: Idle::Adaptive,
        own: None,
        arena: None,
        sink_cap: 64,
        ports: vec![Some(Box::new(port))],
        pipelines: vec![PipelineSpec {
            sources: vec![SourceSpec {
                port: PortIndex(0),
                finish_checksums: false,
                patient: false,
            }],
            policy: None,
            sinks: Vec::new(),
        }],
    };
    (spec, asked)
}

fn a_worker_panics(at: u64) {
    let (sound, asked) = worker(None);
    let (panicking, _) = worker(Some(at));
    let mut engine = Engine::start(vec![sound, panicking], || Ok(())).expect("io_uring");
    engine.go();
    let mut said = None;
    wait_until(LIMIT, || {
        for event in engine.events() {
            match event {
                Event::Panicked { worker, message } => said = Some((worker, message)),
                other => panic!("{other:?}"),
            }
        }
        said.is_some()
    });
    let (worker, message) = said.expect("the engine says that a worker panicked");
    assert_eq!(worker, 1);
    assert!(message.contains("a panic on purpose"), "{message}");

    let now = asked.load(Ordering::Relaxed);
    let goes_on = wait_until(LIMIT, || asked.load(Ordering::Relaxed) > now + 1_000);
    assert!(goes_on, "the other worker stands still");
    assert_eq!(engine.reports().len(), 2);
    assert_eq!(engine.stop().len(), 2);
    assert!(engine.events().is_empty(), "it was said once");
}

fn at_the_start() {
    let (panicking, _) = worker(Some(u64::MAX));
    let Err(error) = Engine::start(vec![panicking], || Ok(())) else {
        panic!("it started");
    };
    let error = error.to_string();
    assert!(error.contains("attached on purpose"), "{error}");
}
