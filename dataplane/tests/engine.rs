//! The engine with real rings and threads: ports come and go, a panic is told, reports are consistent,
//! a snapshot is exchanged under load. Needs io_uring, no privilege.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dataplane::{
    engine::{Engine, Event, usable_cores},
    frame::{Frame, HugePages, Staged},
    packet::build::{FrameBuilder, Ipv4},
    policy::{Mode, OnViolation, PolicySpec, Profile, Publisher, Reason, Rule, Snapshot},
    port::{Io, Place, Port, PortFailure, PortIndex, Wait},
    worker::spec::{Idle, OwnRegion, PipelineSpec, SourceSpec, WorkerSpec},
};

/// Brings the same frame for ever, and panics when told to.
struct Endless {
    place: Place,
    bytes: Vec<u8>,
    fuse: Arc<AtomicU64>,
}

impl Port for Endless {
    fn attach(&mut self, _io: &mut Io, place: Place) -> Result<(), PortFailure> {
        self.place = place;
        Ok(())
    }
    fn receive(&mut self, io: &mut Io, batch: &mut Vec<Frame>, budget: usize) {
        assert!(self.fuse.load(Ordering::Relaxed) == 0, "the fuse has burnt");
        let region = io.own_region.expect("a region");
        for _ in 0..budget {
            let Some(mut frame) = io.pool.alloc(region) else {
                return;
            };
            assert!(io.pool.fill(&mut frame, &self.bytes));
            io.count(self.place.index).rx.receive(self.bytes.len());
            batch.push(frame);
        }
    }
    fn wait(&mut self, _io: &mut Io) -> Wait {
        Wait::Ready
    }
    fn stage(&mut self, _io: &mut Io, _frames: &mut Vec<Staged>) {}
    fn close(&mut self, _io: &mut Io, _reason: Reason) {}
}

/// Writes everything at once.
struct Hole {
    place: Place,
}

impl Port for Hole {
    fn attach(&mut self, _io: &mut Io, place: Place) -> Result<(), PortFailure> {
        self.place = place;
        Ok(())
    }
    fn stage(&mut self, io: &mut Io, frames: &mut Vec<Staged>) {
        let index = self.place.index;
        for staged in frames.drain(..) {
            io.count(index).tx.offered += 1;
            io.count(index).tx.written(staged.len());
            io.pool.release(staged);
        }
    }
    fn close(&mut self, _io: &mut Io, _reason: Reason) {}
}

fn hole() -> Box<dyn Port> {
    Box::new(Hole {
        place: Place::default(),
    })
}

fn policy(rules: Vec<Rule>) -> PolicySpec {
    PolicySpec {
        mode: Mode::Filtered,
        profile: Profile::Network,
        on_violation: OnViolation::Drop,
        arp: true,
        rules,
    }
}

fn spec(core: usize, fuse: &Arc<AtomicU64>, publisher: Option<&mut Publisher>) -> WorkerSpec {
    let bytes = FrameBuilder::new()
        .ipv4(Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()))
        .udp(1000, 53)
        .payload(&[0; 22])
        .to_vec();
    WorkerSpec {
        core,
        batch: 64,
        idle: Idle::Adaptive,
        own: Some(OwnRegion {
            slots: 1024,
            slot_size: 2048,
            headroom: 64,
            hugepages: HugePages::Off,
            shrink: true,
        }),
        arena: None,
        sink_cap: 256,
        ports: vec![
            Some(Box::new(Endless {
                place: Place::default(),
                bytes: bytes.expect("a frame"),
                fuse: Arc::clone(fuse),
            })),
            Some(hole()),
        ],
        pipelines: vec![PipelineSpec {
            sources: vec![SourceSpec {
                port: PortIndex(0),
                finish_checksums: false,
                patient: false,
            }],
            policy: publisher.map(Publisher::reader),
            sinks: vec![PortIndex(1)],
        }],
    }
}

fn start(specs: Vec<WorkerSpec>) -> Engine {
    let engine = Engine::start(specs, || Ok(())).expect("io_uring and cores to run on");
    engine.go();
    engine
}

/// Looks until `found` has something, for at most ten seconds.
fn eventually<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < deadline, "nothing within ten seconds");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn cores() -> Vec<usize> {
    usable_cores().expect("cores")
}

#[test]
fn a_panic_is_told_and_the_other_worker_runs_on() {
    let (quiet, fuse) = (Arc::default(), Arc::default());
    let cores = cores();
    let second = cores.get(1).unwrap_or(&cores[0]);
    let mut engine = start(vec![
        spec(cores[0], &quiet, None),
        spec(*second, &fuse, None),
    ]);
    fuse.store(1, Ordering::Relaxed);
    let (worker, message) = eventually(|| {
        engine.events().into_iter().find_map(|event| match event {
            Event::Panicked { worker, message } => Some((worker, message)),
            _ => None,
        })
    });
    assert_eq!((worker, message.as_str()), (1, "the fuse has burnt"));
    let before = engine.reports()[0].ports[0].rx.frames;
    eventually(|| (engine.reports()[0].ports[0].rx.frames > before).then_some(()));
    let last = engine.stop();
    assert_eq!(last[0].ports[0].rx.in_flight(), 0);
}

#[test]
fn a_panic_before_the_stop_is_told_after_it() {
    let fuse = Arc::default();
    let mut engine = start(vec![spec(cores()[0], &fuse, None)]);
    eventually(|| (engine.reports()[0].ports[0].rx.frames > 0).then_some(()));
    fuse.store(1, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(20));
    engine.stop();
    let events = engine.events();
    assert!(
        matches!(&events[..], [Event::Panicked { worker: 0, message }] if message == "the fuse has burnt"),
        "{events:?}"
    );
}

#[test]
fn a_silent_pipeline_acknowledges_beside_a_busy_one() {
    let mut busy = Publisher::new(Snapshot::compile(&policy(vec![]), 1).expect("compiles"));
    let mut silent = Publisher::new(Snapshot::compile(&policy(vec![]), 1).expect("compiles"));
    let mut spec = spec(cores()[0], &Arc::default(), Some(&mut busy));
    spec.pipelines.push(PipelineSpec {
        sources: Vec::new(),
        policy: Some(silent.reader()),
        sinks: vec![PortIndex(1)],
    });
    let mut engine = start(vec![spec]);
    for generation in 2..20 {
        let snapshot = Snapshot::compile(&policy(vec![]), generation).expect("compiles");
        silent.publish(snapshot);
        assert!(silent.wait_acknowledged(generation, Duration::from_secs(5)));
    }
    engine.stop();
}

#[test]
fn every_report_obeys_the_laws_while_frames_run() {
    let mut engine = start(vec![spec(cores()[0], &Arc::default(), None)]);
    for _ in 0..200 {
        let report = engine.reports().remove(0);
        let (rx, tx) = (report.ports[0].rx, report.ports[1].tx);
        assert_eq!(rx.frames, rx.forwarded + rx.dropped.total());
        assert_eq!(
            tx.offered,
            tx.frames + tx.dropped.total() + report.in_flight[1]
        );
        assert_eq!(rx.forwarded, tx.offered, "one consistent copy");
        assert!(report.pool.holds());
        assert_eq!(report.pool.held, 0);
    }
    let last = engine.stop().remove(0);
    assert_eq!(last.pool.free, last.pool.total);
    assert!(last.ports[0].rx.frames > 0);
}

#[test]
fn a_sink_that_leaves_and_returns_loses_only_what_came_between() {
    let mut engine = start(vec![spec(cores()[0], &Arc::default(), None)]);
    let sink = PortIndex(1);
    for _ in 0..20 {
        engine.close_port(0, sink, Reason::LinkDown);
        eventually(|| (!engine.reports()[0].up[1]).then_some(()));
        engine.open_port(0, sink, hole());
        eventually(|| engine.reports()[0].up[1].then_some(()));
    }
    let last = engine.stop().remove(0);
    let tx = last.ports[1].tx;
    assert_eq!(tx.offered, tx.frames + tx.dropped.total());
    assert_eq!(tx.dropped.total(), tx.dropped.get(Reason::LinkDown));
    assert_eq!(last.ports[0].rx.forwarded, tx.offered);
}

#[test]
fn an_exchanged_policy_is_acknowledged_by_a_worker_under_load() {
    let all = Rule::default();
    let mut publisher = Publisher::new(Snapshot::compile(&policy(vec![]), 1).expect("compiles"));
    let mut engine = start(vec![spec(
        cores()[0],
        &Arc::default(),
        Some(&mut publisher),
    )]);
    for generation in 2..50 {
        let rules = if generation % 2 == 0 {
            vec![all.clone()]
        } else {
            vec![]
        };
        let snapshot = Snapshot::compile(&policy(rules), generation).expect("compiles");
        assert_eq!(publisher.publish(snapshot), generation);
        assert!(publisher.wait_acknowledged(generation, Duration::from_secs(5)));
        assert_eq!(publisher.collect(), 0, "nobody holds an old one");
        // From here on every batch is judged by the new one.
        let before = engine.reports().remove(0).pipelines[0];
        let after = eventually(|| {
            let now = engine.reports().remove(0).pipelines[0];
            (now.received > before.received).then_some(now)
        });
        if generation % 2 == 0 {
            assert_eq!(after.dropped, before.dropped, "all are allowed");
        } else {
            assert_eq!(after.forwarded, before.forwarded, "none is allowed");
        }
    }
    engine.stop();
}

#[test]
fn a_core_that_is_not_there_is_refused() {
    let Err(error) = Engine::start(vec![spec(1000, &Arc::default(), None)], || Ok(())) else {
        panic!("core 1000 was to be had");
    };
    assert!(error.to_string().contains("core 1000"), "{error}");
}

#[test]
fn what_settling_refuses_ends_the_start() {
    let refused = Engine::start(vec![spec(cores()[0], &Arc::default(), None)], || {
        Err("no privilege was given up".to_owned())
    });
    let Err(error) = refused else {
        panic!("it started");
    };
    assert!(error.to_string().contains("no privilege was given up"));
}
