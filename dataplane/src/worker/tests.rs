//! The loop over a played kernel: laws, order of ends, commands.

use std::{sync::Mutex, time::Duration};

use nix::sys::eventfd::EventFd;

use super::{
    mailbox::{Command, Message},
    ring::Ring,
    spec::{OwnRegion, PipelineSpec, WorkerSpec},
    wake::Waker,
    *,
};
use crate::{
    frame::{HugePages, Staged},
    policy::Reason,
    policy::{Mode, OnViolation, PolicySpec, Profile, Publisher, Snapshot},
    port::{Place, Port, PortFailure, PortIndex, Wait},
};

/// A source that brings `left` frames, or a sink that writes what it gets with the next flush, unless it is
/// stuck.
struct Scripted {
    place: Place,
    left: u64,
    keeps: std::collections::VecDeque<Staged>,
    written: Arc<Mutex<Vec<Vec<u8>>>>,
    stuck: bool,
    /// How many frames it keeps before it drops one; `None` is any number.
    room: Option<usize>,
    /// How long it may take when the worker stops.
    drain: u64,
}

impl Port for Scripted {
    fn attach(&mut self, _io: &mut Io, place: Place) -> Result<(), PortFailure> {
        self.place = place;
        Ok(())
    }
    fn receive(&mut self, io: &mut Io, batch: &mut Vec<Frame>, budget: usize) {
        let region = io.own_region.expect("a region");
        for _ in 0..self.left.min(budget as u64) {
            let Some(mut frame) = io.pool.alloc(region) else {
                return;
            };
            self.left -= 1;
            assert!(io.pool.fill(&mut frame, &[self.left as u8; 60]));
            io.count(self.place.index).rx.receive(60);
            batch.push(frame);
        }
    }
    fn wait(&mut self, _io: &mut Io) -> Wait {
        if self.left == 0 {
            Wait::Done
        } else {
            Wait::Ready
        }
    }
    fn stage(&mut self, io: &mut Io, frames: &mut Vec<Staged>) {
        io.count(self.place.index).tx.offered += frames.len() as u64;
        for staged in frames.drain(..) {
            if self.room(io) == 0 {
                io.refuse(self.place.index, staged, Reason::SinkFull);
            } else {
                self.keeps.push_back(staged);
            }
        }
    }
    fn room(&self, _io: &Io) -> usize {
        self.room.map_or(usize::MAX, |room| room - self.keeps.len())
    }
    fn drain(&mut self, _io: &mut Io) -> u64 {
        // What held it up ends with the rest.
        self.stuck &= self.drain == 0;
        self.drain
    }
    fn flush(&mut self, io: &mut Io) {
        while !self.stuck
            && let Some(staged) = self.keeps.pop_front()
        {
            let bytes = io.pool.staged_bytes(&staged).to_vec();
            io.count(self.place.index).tx.written(bytes.len());
            self.written.lock().expect("one thread").push(bytes);
            io.pool.release(staged);
        }
    }
    fn in_flight(&self) -> usize {
        self.keeps.len()
    }
    fn close(&mut self, io: &mut Io, reason: Reason) {
        for staged in self.keeps.drain(..) {
            io.refuse(self.place.index, staged, reason);
        }
    }
}

struct Bench {
    worker: Worker,
    mailbox: Arc<Mailbox>,
    written: [Arc<Mutex<Vec<Vec<u8>>>>; 2],
}

/// One source of `frames`, two sinks, and a policy if there are rules.
fn bench(frames: u64, policy: Option<&mut Publisher>, stuck: bool) -> Bench {
    bench_with(frames, policy, stuck, |_| {}, false)
}

/// The same, with the first sink changed and a source that waits for its sinks or does not.
fn bench_with(
    frames: u64,
    policy: Option<&mut Publisher>,
    stuck: bool,
    change: impl Fn(&mut Scripted),
    patient: bool,
) -> Bench {
    let waker = Arc::new(Waker::new().expect("an eventfd"));
    let notice = Arc::new(EventFd::new().expect("an eventfd"));
    let mailbox = Arc::new(Mailbox::new(Arc::clone(&waker), notice));
    let written = [Arc::default(), Arc::default()];
    let port = |left, written: &Arc<Mutex<Vec<Vec<u8>>>>, stuck| {
        Box::new(Scripted {
            place: Place::default(),
            left,
            keeps: Default::default(),
            written: Arc::clone(written),
            stuck,
            room: None,
            drain: 0,
        })
    };
    let mut first = port(0, &written[0], stuck);
    change(&mut first);
    let spec = WorkerSpec {
        core: 0,
        batch: 16,
        idle: Idle::Adaptive,
        own: Some(OwnRegion {
            slots: 128,
            slot_size: 256,
            headroom: 64,
            hugepages: HugePages::Off,
            shrink: false,
        }),
        arena: None,
        sink_cap: 64,
        ports: vec![
            Some(port(frames, &written[0], false)),
            Some(first),
            Some(port(0, &written[1], false)),
        ],
        pipelines: vec![PipelineSpec {
            sources: vec![SourceSpec {
                port: PortIndex(0),
                finish_checksums: false,
                patient,
            }],
            policy: policy.map(Publisher::reader),
            sinks: vec![PortIndex(1), PortIndex(2)],
        }],
    };
    let (worker, _) =
        Worker::with_ring(spec, Arc::clone(&mailbox), waker, Ring::fake(), &|| Ok(()))
            .expect("starts");
    Bench {
        worker,
        mailbox,
        written,
    }
}

fn deny_all() -> Publisher {
    let spec = PolicySpec {
        mode: Mode::Filtered,
        profile: Profile::Network,
        on_violation: OnViolation::Drop,
        arp: false,
        rules: Vec::new(),
    };
    Publisher::new(Snapshot::compile(&spec, 1).expect("compiles"))
}

impl Bench {
    fn turns(&mut self, n: usize) {
        for _ in 0..n {
            self.worker.turn();
            self.worker.io.pool.audit().expect("the pool's law");
            assert_eq!(
                self.worker.io.pool.total().held,
                0,
                "between turns nothing is held"
            );
        }
    }
}

#[test]
fn every_sink_gets_every_frame() {
    let mut b = bench(100, None, false);
    b.turns(1);
    assert_eq!(
        b.worker.io.counters[0].rx.frames, 0,
        "nothing before it is told to go"
    );
    assert!(b.mailbox.send(Command::Go).is_ok());
    assert!(!b.worker.obey());
    b.turns(10);
    let expected: Vec<_> = (0..100u8).rev().map(|i| vec![i; 60]).collect();
    for sink in &b.written {
        assert_eq!(*sink.lock().expect("one thread"), expected);
    }
    let pipeline = b.worker.pipelines[0].counters;
    assert_eq!(
        (pipeline.received, pipeline.unjudged, pipeline.forwarded),
        (100, 100, 100)
    );
    assert_eq!(b.worker.io.counters[0].rx.in_flight(), 0);
    assert!(b.worker.residence.is_empty() || b.worker.residence.max() > 0);
}

#[test]
fn a_worker_that_is_held_sleeps_over_what_its_sources_have() {
    let mut b = bench(10, None, false);
    assert_eq!(b.worker.arm(), Some(None), "until something wakes it");
    assert!(b.mailbox.send(Command::Go).is_ok());
    assert_eq!(b.worker.arm(), None, "a command waits");
    b.worker.obey();
    assert_eq!(b.worker.arm(), None, "the source has frames");
}

#[test]
fn a_finite_source_ends_the_worker_once() {
    let mut b = bench(10, None, false);
    assert!(b.mailbox.send(Command::Go).is_ok());
    b.worker.obey();
    b.turns(3);
    assert!(b.worker.arm().is_some(), "it may sleep");
    b.worker.arm();
    let finished = std::iter::from_fn(|| b.mailbox.receive())
        .filter(|m| matches!(m, Message::Finished))
        .count();
    assert_eq!(finished, 1);
}

#[test]
fn a_stuck_sink_holds_up_no_other_and_no_end() {
    let mut b = bench(200, None, true);
    assert!(b.mailbox.send(Command::Go).is_ok());
    b.worker.obey();
    b.turns(30);
    // The scripted sink has no cap: it takes slots until none is left, and the source waits.
    assert_eq!(b.written[1].lock().expect("one thread").len(), 128);
    b.worker.arm();
    assert!(
        b.mailbox.receive().is_none(),
        "not finished while frames are on their way"
    );
    let report = b.worker.stop();
    assert_eq!(report.ports[1].tx.dropped.get(Reason::Shutdown), 128);
    assert_eq!(report.ports[1].tx.in_flight(), 0);
    assert_eq!(report.pool.free, report.pool.total);
}

#[test]
fn a_patient_source_waits_for_room_where_another_loses_frames() {
    // (patient, dropped by the sink with room for 20, received)
    for (patient, lost, received) in [(true, 0, 20), (false, 100 - 20, 100)] {
        let small = |sink: &mut Scripted| sink.room = Some(20);
        let mut b = bench_with(100, None, true, small, patient);
        assert!(b.mailbox.send(Command::Go).is_ok());
        b.worker.obey();
        b.turns(20);
        let [source, sink, _] = &b.worker.io.counters[..] else {
            panic!("three ports");
        };
        assert_eq!(source.rx.frames, received, "patient: {patient}");
        assert_eq!(sink.tx.dropped.get(Reason::SinkFull), lost);
        // Held back, it keeps nobody awake; what is on its way ends nothing.
        assert_eq!(b.worker.arm(), Some(None));
        assert!(b.mailbox.receive().is_none());
    }
}

#[test]
fn a_patient_source_goes_on_when_there_is_room_and_ends() {
    let small = |sink: &mut Scripted| sink.room = Some(1);
    let mut b = bench_with(100, None, false, small, true);
    assert!(b.mailbox.send(Command::Go).is_ok());
    b.worker.obey();
    b.turns(100);
    for sink in &b.written {
        assert_eq!(sink.lock().expect("one thread").len(), 100);
    }
    b.worker.arm();
    assert!(matches!(b.mailbox.receive(), Some(Message::Finished)));
}

#[test]
fn a_sink_has_the_time_that_it_asks_for_to_write_what_it_has() {
    // (nanoseconds, written, dropped)
    for (drain, written, dropped) in [(0, 0, 10), (1_000_000_000, 10, 0), (u64::MAX, 10, 0)] {
        let slow = |sink: &mut Scripted| sink.drain = drain;
        let mut b = bench_with(10, None, true, slow, false);
        assert!(b.mailbox.send(Command::Go).is_ok());
        b.worker.obey();
        b.turns(2);
        let report = b.worker.stop();
        let tx = &report.ports[1].tx;
        assert_eq!(
            (tx.frames, tx.dropped.get(Reason::Shutdown)),
            (written, dropped)
        );
        assert_eq!(report.pool.free, report.pool.total);
    }
}

#[test]
fn a_denied_frame_costs_no_slot_and_is_counted_twice_over() {
    let mut policy = deny_all();
    let mut b = bench(50, Some(&mut policy), false);
    assert!(b.mailbox.send(Command::Go).is_ok());
    b.worker.obey();
    b.turns(10);
    let pipeline = b.worker.pipelines[0].counters;
    assert_eq!(
        (
            pipeline.judged,
            pipeline.forwarded,
            pipeline.dropped.total()
        ),
        (50, 0, 50)
    );
    let rx = b.worker.io.counters[0].rx;
    assert_eq!((rx.frames, rx.forwarded, rx.dropped.total()), (50, 0, 50));
}

#[test]
fn a_port_that_is_away_is_counted_as_link_down_until_it_returns() {
    let mut b = bench(64, None, false);
    assert!(
        b.mailbox
            .send(Command::Close {
                port: PortIndex(1),
                reason: Reason::LinkDown
            })
            .is_ok()
    );
    assert!(b.mailbox.send(Command::Go).is_ok());
    b.worker.obey();
    let Some(Message::Retired(port)) = b.mailbox.receive() else {
        panic!("the closed port comes back");
    };
    b.turns(2);
    assert_eq!(b.worker.io.counters[1].tx.dropped.get(Reason::LinkDown), 32);
    assert!(
        b.mailbox
            .send(Command::Open {
                index: PortIndex(1),
                port
            })
            .is_ok()
    );
    b.worker.obey();
    b.turns(2);
    assert_eq!(b.written[0].lock().expect("one thread").len(), 32);
    assert_eq!(b.written[1].lock().expect("one thread").len(), 64);
}

#[test]
fn a_sleeping_worker_acknowledges_a_new_generation() {
    let mut policy = deny_all();
    let mut b = bench(0, Some(&mut policy), false);
    let spec = policy.current().spec().clone();
    let generation = policy.publish(Snapshot::compile(&spec, 2).expect("compiles"));
    assert!(!policy.wait_acknowledged(generation, Duration::from_millis(1)));
    b.worker.arm();
    assert!(policy.wait_acknowledged(generation, Duration::from_millis(1)));
}

#[test]
fn a_report_is_a_copy_of_everything() {
    let mut b = bench(20, None, false);
    assert!(b.mailbox.send(Command::Go).is_ok());
    b.worker.obey();
    b.turns(4);
    assert!(
        b.mailbox
            .send(Command::Report(Box::new(Report::blank(3, 1))))
            .is_ok()
    );
    b.worker.obey();
    let Some(Message::Report(report)) = b.mailbox.receive() else {
        panic!("a report");
    };
    assert_eq!(report.ports[0].rx.frames, 20);
    assert_eq!(report.pipelines[0].received, 20);
    assert_eq!(report.up, [true; 3]);
    assert_eq!(report.pool.free, report.pool.total);
    assert_eq!(report.residence.len(), b.worker.residence.len());
}
