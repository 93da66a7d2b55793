//! After start-up a worker allocates nothing: not in its loop, not when it is judged by a policy, not
//! when a report is asked for. Counted by the allocator of this test, on the worker's own thread.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fs::File,
    io::{self, Seek, Write},
    net::UdpSocket,
    os::fd::BorrowedFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dataplane::{
    engine::{Engine, usable_cores},
    frame::{Frame, HugePages, Staged},
    packet::build::{FrameBuilder, Ipv4},
    policy::{PolicySpec, Publisher, Reason, Rule, Snapshot},
    port::{
        Io, Place, Port, PortFailure, PortIndex, Wait,
        pcap::{
            read::{self, PcapSource},
            write::{Limits, Output, Recorder, Settings},
        },
        vxlan::{VxlanOptions, VxlanPort},
    },
    worker::spec::{Idle, OwnRegion, PipelineSpec, SourceSpec, WorkerSpec},
};

thread_local! {
    /// Set by the source once the worker has warmed up.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if WATCHED.with(Cell::get) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Brings frames that a policy allows and frames that it denies, by turns.
struct Source {
    place: Place,
    frames: [Vec<u8>; 2],
    turns: Arc<AtomicU64>,
}

impl Port for Source {
    fn attach(&mut self, _io: &mut Io, place: Place) -> Result<(), PortFailure> {
        self.place = place;
        Ok(())
    }
    fn receive(&mut self, io: &mut Io, batch: &mut Vec<Frame>, budget: usize) {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        WATCHED.with(|watched| watched.set(turn >= 100));
        let region = io.own_region.expect("a region");
        for i in 0..budget {
            let Some(mut frame) = io.pool.alloc(region) else {
                return;
            };
            let bytes = &self.frames[i % 2];
            assert!(io.pool.fill(&mut frame, bytes));
            io.count(self.place.index).rx.receive(bytes.len());
            batch.push(frame);
        }
    }
    fn wait(&mut self, _io: &mut Io) -> Wait {
        Wait::Ready
    }
    fn stage(&mut self, _io: &mut Io, _frames: &mut Vec<Staged>) {}
    fn close(&mut self, _io: &mut Io, _reason: Reason) {
        WATCHED.with(|watched| watched.set(false));
    }
}

struct Sink(Place);

impl Port for Sink {
    fn attach(&mut self, _io: &mut Io, place: Place) -> Result<(), PortFailure> {
        self.0 = place;
        Ok(())
    }
    fn stage(&mut self, io: &mut Io, frames: &mut Vec<Staged>) {
        for staged in frames.drain(..) {
            let tx = &mut io.count(self.0.index).tx;
            tx.offered += 1;
            tx.written(staged.len());
            io.pool.release(staged);
        }
    }
    fn close(&mut self, _io: &mut Io, _reason: Reason) {}
}

/// A network of one host: what is sent into it is received from it.
fn loopback() -> VxlanPort {
    let source = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let to = source.local_addr().expect("bound");
    let sink = || {
        let sink = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        sink.connect(to).expect("lo");
        sink.into()
    };
    let options = VxlanOptions {
        vni: 42,
        max_frame: 1522,
        peer: None,
    };
    VxlanPort::new(
        options,
        Some(source.into()),
        (0..4).map(|_| sink()).collect(),
    )
}

/// A capture of these frames (draft-ietf-opsawg-pcap), played for ever as fast as it is taken.
fn capture(frames: &[Vec<u8>]) -> PcapSource {
    let mut file = tempfile::tempfile().expect("a file");
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 65_535, 1] {
        bytes.extend(u32::to_le_bytes(word));
    }
    for frame in frames {
        let length = frame.len() as u32;
        for word in [1, 0, length, length] {
            bytes.extend(u32::to_le_bytes(word));
        }
        bytes.extend(frame);
    }
    file.write_all(&bytes).expect("room");
    file.rewind().expect("a regular file");
    let options = read::Options {
        pace: read::Pace::Top,
        loops: 0,
    };
    let capture = read::open(Path::new("test.pcap"), file, options);
    PcapSource::new(capture.expect("a capture"))
}

/// Where a recording goes that nobody wants.
struct Nowhere(File);

impl Output for Nowhere {
    fn next(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn append(&mut self, bytes: &[u8], _stop: BorrowedFd<'_>) -> io::Result<()> {
        self.0.write_all(bytes)
    }
    fn finish(&mut self) {}
    fn name(&self) -> String {
        "nowhere".into()
    }
}

fn recorder() -> Recorder {
    let settings = Settings {
        workers: 1,
        program: "test".into(),
        interfaces: vec!["a".into()],
        limits: Limits::default(),
        compress: false,
        patience: Duration::from_secs(10),
    };
    Recorder::start(settings, || {
        let null = File::options().write(true).open("/dev/null");
        Ok(Box::new(Nowhere(null.map_err(|e| e.to_string())?)))
    })
    .expect("a thread")
}

#[test]
fn a_worker_allocates_nothing_after_it_has_started() {
    let frame = |port| {
        FrameBuilder::new()
            .ipv4(Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()))
            .udp(1000, port)
            .payload(&[0; 22])
            .to_vec()
            .expect("a frame")
    };
    let rule = Rule {
        to_ports: vec![dataplane::policy::PortRange {
            first: 53,
            last: 53,
        }],
        ..Rule::default()
    };
    let policy = PolicySpec {
        rules: vec![rule],
        ..PolicySpec::default()
    };
    let mut publisher = Publisher::new(Snapshot::compile(&policy, 1).expect("compiles"));
    let turns = Arc::new(AtomicU64::new(0));
    let recorder = recorder();
    let spec = WorkerSpec {
        core: usable_cores().expect("cores")[0],
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
            Some(Box::new(Source {
                place: Place::default(),
                frames: [frame(53), frame(54)],
                turns: Arc::clone(&turns),
            })),
            Some(Box::new(Sink(Place::default()))),
            Some(Box::new(Sink(Place::default()))),
            Some(Box::new(loopback())),
            Some(Box::new(capture(&[frame(53), frame(54)]))),
            Some(Box::new(recorder.sink(0, vec![0; 6]))),
        ],
        pipelines: vec![
            PipelineSpec {
                sources: vec![SourceSpec {
                    port: PortIndex(0),
                    finish_checksums: true,
                    patient: false,
                }],
                policy: Some(publisher.reader()),
                sinks: vec![PortIndex(1), PortIndex(2), PortIndex(3)],
            },
            PipelineSpec {
                sources: vec![SourceSpec {
                    port: PortIndex(3),
                    finish_checksums: true,
                    patient: false,
                }],
                policy: None,
                sinks: vec![PortIndex(1), PortIndex(5)],
            },
            PipelineSpec {
                sources: vec![SourceSpec {
                    port: PortIndex(4),
                    finish_checksums: true,
                    patient: true,
                }],
                policy: Some(publisher.reader()),
                sinks: vec![PortIndex(5)],
            },
        ],
    };
    let mut engine = Engine::start(vec![spec], || Ok(())).expect("io_uring");
    engine.go();
    let deadline = Instant::now() + Duration::from_secs(20);
    while turns.load(Ordering::Relaxed) < 20_000 {
        assert!(Instant::now() < deadline, "the worker does not run");
        // Reports are filled on the worker's thread, into memory of whoever asks.
        engine.reports();
    }
    let report = engine.stop().remove(0);
    assert!(report.pipelines[0].forwarded > 0 && report.pipelines[0].dropped.total() > 0);
    assert!(report.pipelines[1].forwarded > 0, "through the network");
    assert!(report.pipelines[2].forwarded > 0, "from the capture");
    assert!(report.ports[5].tx.frames > 0, "recorded");
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), 0);
}
