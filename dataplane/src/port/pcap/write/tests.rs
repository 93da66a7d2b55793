//! Recordings over an output that tests fill, break and hold up: what is in it afterwards, and the law of
//! the counters after every step.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proptest::prelude::*;

use super::{
    super::format::{
        CaptureReader,
        write::{beginning, packet, packet_len},
    },
    block::{BLOCK_BYTES, BLOCKS, Block, Outcome, Shared},
    compress::END,
    recording::{IDLE, OLDEST, PACK, Recording},
    *,
};
use crate::{
    frame::{HugePages, Region},
    policy::Reason,
    port::{Io, Place, Port, PortIndex, Wait},
    worker::{ring::Ring, wake::Waker},
};

const LIMIT: Duration = Duration::from_secs(10);

/// What an output has, and what is wrong with it.
#[derive(Default)]
struct Reel {
    files: Vec<Vec<u8>>,
    finished: usize,
    /// No more bytes than these fit, of all files together.
    room: Option<usize>,
    /// What every call fails with.
    error: Option<i32>,
    /// Nobody reads.
    held: bool,
}

#[derive(Clone, Default)]
struct Tape(Arc<Mutex<Reel>>);

impl Tape {
    fn reel(&self) -> MutexGuard<'_, Reel> {
        self.0.lock().expect("no test panics with it")
    }

    fn output(&self) -> Box<dyn Output> {
        Box::new(self.clone())
    }

    /// The frames of every file, each of which must be a whole capture, with their times. One that is being written,
    /// or was when the disk was full, may lack the end of its zstd frame.
    fn frames(&self) -> Vec<Vec<(u64, Vec<u8>)>> {
        let decode = |file: &Vec<u8>| {
            let compressed = file.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
            let open = compressed && !file.ends_with(&END);
            let end = if open { &END[..] } else { &[] };
            decode(&[file, end].concat())
        };
        self.reel().files.iter().map(decode).collect()
    }

    /// How many zstd frames each file consists of.
    fn zstd_frames(&self) -> Vec<usize> {
        let count = |file: &Vec<u8>| {
            let (mut at, mut count) = (0, 0);
            while at < file.len() {
                at += zstd::zstd_safe::find_frame_compressed_size(&file[at..]).expect("a frame");
                count += 1;
            }
            count
        };
        self.reel().files.iter().map(count).collect()
    }
}

fn decode(file: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut reader = CaptureReader::new(file).expect("a capture");
    let mut frames = Vec::new();
    while let Some(record) = reader.next_record().expect("a whole file") {
        frames.push((record.timestamp.expect("a time"), record.data.to_vec()));
    }
    frames
}

impl Output for Tape {
    fn next(&mut self) -> io::Result<()> {
        let mut reel = self.reel();
        assert_eq!(reel.finished, reel.files.len(), "one file at a time");
        match reel.error {
            Some(error) => Err(io::Error::from_raw_os_error(error)),
            None => {
                reel.files.push(Vec::new());
                Ok(())
            }
        }
    }

    fn append(&mut self, bytes: &[u8], stop: BorrowedFd<'_>) -> io::Result<()> {
        while self.reel().held {
            let mut fds = [PollFd::new(stop, PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(1u8)).expect("an eventfd") > 0 {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        let mut reel = self.reel();
        if let Some(error) = reel.error {
            return Err(io::Error::from_raw_os_error(error));
        }
        let used: usize = reel.files.iter().map(Vec::len).sum();
        if reel.room.is_some_and(|room| used + bytes.len() > room) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let file = reel.files.last_mut().expect("an open file");
        file.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(&mut self) {
        self.reel().finished += 1;
    }

    fn name(&self) -> String {
        "tape".to_owned()
    }
}

type Frame = (u64, Vec<u8>);

/// Frames of many lengths, at times of their own.
fn frames(from: u64, count: u64) -> Vec<Frame> {
    (from..from + count)
        .map(|n| {
            let length = 14 + (n * 37 % 1500) as usize;
            (1_000_000 + n, vec![n as u8; length])
        })
        .collect()
}

/// A recording, and an eventfd that says stop.
struct Bench {
    tape: Tape,
    recording: Recording,
    shared: Shared,
    now: Instant,
}

impl Bench {
    fn new(limits: Limits, compress: bool) -> Self {
        let shared = Shared::new(1).expect("an eventfd");
        let tape = Tape::default();
        let now = Instant::now();
        let head = beginning("test", &["a".to_owned()]);
        let stop = shared.stopped.as_fd();
        let recording = Recording::begin(tape.output(), head, limits, compress, stop, now);
        Self {
            recording: recording.expect("a first file"),
            tape,
            shared,
            now,
        }
    }

    /// Records a block of these frames, and answers with what is known of it and others by then.
    fn record(&mut self, frames: &[Frame]) -> Outcome {
        let mut block = Block::new(0);
        for (time, frame) in frames {
            packet(
                &mut block.bytes,
                0,
                *time,
                frame.len(),
                std::iter::once(&frame[..]),
            );
            block.frames += 1;
        }
        let stop = self.shared.stopped.as_fd();
        self.recording.record(block, self.now, stop);
        self.done()
    }

    fn done(&mut self) -> Outcome {
        let mut sum = Outcome::default();
        for block in self.recording.done() {
            assert_eq!(block.outcome.total(), block.frames, "each has one fate");
            sum.written += block.outcome.written;
            sum.written_bytes += block.outcome.written_bytes;
            sum.disk_full += block.outcome.disk_full;
            sum.write_error += block.outcome.write_error;
        }
        sum
    }

    fn rest(&mut self, later: Duration) -> Outcome {
        self.now += later;
        let stop = self.shared.stopped.as_fd();
        self.recording.rest(false, self.now, stop);
        self.done()
    }

    fn close(&mut self) -> Outcome {
        let stop = self.shared.stopped.as_fd();
        self.recording.close(self.now, stop);
        let reel = self.tape.reel();
        assert_eq!(reel.finished, reel.files.len());
        drop(reel);
        self.done()
    }

    fn news(&mut self) -> Vec<(String, bool)> {
        let news = self.recording.news();
        news.map(|news| (news.message, news.fatal)).collect()
    }
}

fn written(frames: &[Frame]) -> Outcome {
    Outcome {
        written: frames.len() as u64,
        written_bytes: frames.iter().map(|(_, bytes)| bytes.len() as u64).sum(),
        ..Outcome::default()
    }
}

#[test]
fn a_file_can_be_read_from_its_first_moment() {
    for compress in [false, true] {
        let bench = Bench::new(Limits::default(), compress);
        assert_eq!(bench.tape.frames(), [vec![]]);
    }
}

#[test]
fn a_file_has_so_many_frames_and_no_more() {
    for compress in [false, true] {
        let limits = Limits {
            frames: Some(100),
            ..Limits::default()
        };
        let mut bench = Bench::new(limits, compress);
        let all = frames(0, 250);
        let mut outcome = Outcome::default();
        for block in all.chunks(70) {
            outcome.written += bench.record(block).written;
        }
        outcome.written += bench.close().written;
        assert_eq!(outcome.written, 250);
        let files = bench.tape.frames();
        assert_eq!(
            files.iter().map(Vec::len).collect::<Vec<_>>(),
            [100, 100, 50]
        );
        assert_eq!(files.concat(), all);
    }
}

#[test]
fn time_ends_a_file_that_has_frames() {
    let limits = Limits {
        time: Some(Duration::from_secs(60)),
        ..Limits::default()
    };
    for compress in [false, true] {
        let mut bench = Bench::new(limits, compress);
        bench.rest(Duration::from_secs(100));
        assert_eq!(bench.tape.reel().finished, 0, "an empty file stays open");
        let all = frames(0, 30);
        bench.record(&all[..10]);
        // Too late for the file of before: it ends although nothing comes.
        bench.rest(Duration::from_secs(60));
        let count = bench.tape.reel().files.len();
        assert_eq!((count, bench.tape.reel().finished), (1, 1));
        bench.now += Duration::from_secs(500);
        bench.record(&all[10..20]);
        bench.now += Duration::from_secs(60);
        bench.record(&all[20..]);
        bench.close();
        assert_eq!(
            bench.tape.frames().iter().map(Vec::len).collect::<Vec<_>>(),
            [10, 10, 10]
        );
        assert_eq!(bench.tape.frames().concat(), all);
    }
}

#[test]
fn a_frame_longer_than_a_file_has_one_of_its_own() {
    let limits = Limits {
        size: Some(4_096),
        ..Limits::default()
    };
    let mut bench = Bench::new(limits, false);
    let all = vec![(1, vec![1; 100]), (2, vec![2; 9_000]), (3, vec![3; 100])];
    assert_eq!(bench.record(&all), written(&all));
    let files = bench.tape.frames();
    assert_eq!(files.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(files.concat(), all);
}

/// A prefix at rest is a capture: what is out can be read whatever follows. Wireshark 4.0 reads the first
/// zstd frame of a file alone, so there is no other.
#[test]
fn a_zstd_frame_is_flushed_by_size_by_age_and_when_nothing_comes() {
    let mut bench = Bench::new(Limits::default(), true);
    let all = frames(0, 5_000);
    // Idle.
    assert_eq!(bench.record(&all[..10]), Outcome::default());
    assert_eq!(bench.tape.frames(), [vec![]]);
    assert_eq!(bench.recording.due(), Some(bench.now + IDLE));
    assert_eq!(bench.rest(IDLE), written(&all[..10]));
    assert_eq!(bench.tape.frames(), [all[..10].to_vec()]);
    assert_eq!(bench.recording.due(), None);
    // Old, although there is always more.
    let (mut next, began) = (10, bench.now);
    loop {
        let outcome = bench.record(&all[next..next + 1]);
        next += 1;
        if outcome != Outcome::default() {
            assert_eq!(outcome, written(&all[10..next]));
            break;
        }
        bench.now += IDLE / 2;
    }
    assert_eq!(bench.now, began + OLDEST);
    assert_eq!(bench.tape.frames(), [all[..next].to_vec()]);
    // Large: blocks are done although another waits already.
    let mut done = 0;
    let mut blocks = all[next..].chunks(300);
    while done == 0 {
        done = bench
            .record(blocks.next().expect("more than a pack"))
            .written;
    }
    assert!(bench.recording.is_gathering(), "the rest of the last block");
    let size: usize = all[next..next + done as usize]
        .iter()
        .map(|(_, f)| packet_len(f.len()))
        .sum();
    assert!(size <= PACK, "{size}");
    let held = bench.recording.held().count();
    assert_eq!(held, 1, "but those before are given back");
    bench.close();
    let whole = bench.tape.frames().concat();
    assert_eq!(whole, all[..whole.len()]);
    assert_eq!(bench.tape.zstd_frames(), [1]);
}

#[test]
fn a_full_disk_is_reported_once_and_again_when_there_is_room() {
    for compress in [false, true] {
        let mut bench = Bench::new(Limits::default(), compress);
        let all = frames(0, 40);
        let later = IDLE * 2;
        let go = |bench: &mut Bench, part: &[Frame]| {
            let now = bench.record(part);
            let rest = bench.rest(later);
            if compress { rest } else { now }
        };
        assert_eq!(go(&mut bench, &all[..10]), written(&all[..10]));
        bench.tape.reel().room = Some(0);
        for part in all[10..30].chunks(10) {
            let outcome = go(&mut bench, part);
            assert_eq!((outcome.written, outcome.disk_full), (0, 10));
        }
        let news = bench.news();
        assert_eq!(news.len(), 1, "{news:?}");
        let (message, fatal) = &news[0];
        assert!(
            message.contains("tape cannot be written: No space left"),
            "{message}"
        );
        assert!(
            message.contains("counted as disk_full") && !fatal,
            "{message}"
        );
        bench.tape.reel().room = None;
        bench.now += Duration::from_secs(1);
        assert_eq!(go(&mut bench, &all[30..]), written(&all[30..]));
        let news = bench.news();
        assert_eq!(
            news,
            [(
                "tape is written again; 20 frames are missing".to_owned(),
                false
            )]
        );
        bench.close();
        assert_eq!(bench.tape.frames(), [[&all[..10], &all[30..]].concat()]);
        if compress {
            // What was refused tore the first.
            assert_eq!(bench.tape.zstd_frames(), [2]);
        }
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_tried_again_with_each_block() {
    let limits = Limits {
        frames: Some(10),
        ..Limits::default()
    };
    let mut bench = Bench::new(limits, false);
    let all = frames(0, 40);
    bench.record(&all[..10]);
    bench.tape.reel().error = Some(libc::EACCES);
    let outcome = bench.record(&all[10..30]);
    assert_eq!((outcome.written, outcome.write_error), (0, 20));
    assert!(bench.news()[0].0.contains("Permission denied"));
    bench.tape.reel().error = None;
    assert_eq!(bench.record(&all[30..]), written(&all[30..]));
    assert_eq!(bench.tape.frames(), [&all[..10], &all[30..]]);
}

/// The beginning of a file is written with the first packets that find room.
#[test]
fn a_file_begun_on_a_full_disk_is_whole_when_there_is_room() {
    for compress in [false, true] {
        let limits = Limits {
            frames: Some(10),
            ..Limits::default()
        };
        let mut bench = Bench::new(limits, compress);
        let all = frames(0, 30);
        bench.record(&all[..10]);
        bench.rest(IDLE);
        bench.tape.reel().room = Some(0);
        bench.record(&all[10..20]);
        assert_eq!(bench.rest(IDLE).total(), if compress { 10 } else { 0 });
        bench.tape.reel().room = None;
        bench.record(&all[20..]);
        bench.close();
        assert_eq!(bench.tape.frames(), [&all[..10], &all[20..]]);
    }
}

#[test]
fn a_reader_that_leaves_ends_the_recording() {
    let mut bench = Bench::new(Limits::default(), false);
    bench.tape.reel().error = Some(libc::EPIPE);
    let outcome = bench.record(&frames(0, 10));
    assert_eq!(outcome.write_error, 10);
    let news = bench.news();
    assert!(
        news[0].1 && news[0].0.contains("the reader of tape has left"),
        "{news:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nothing_is_lost_between_files_and_no_limit_is_passed(
        blocks in prop::collection::vec(prop::collection::vec(0usize..3_000, 1..40), 1..20),
        size in prop::option::of(4_096u64..60_000),
        most in prop::option::of(1u64..50),
        compress: bool,
    ) {
        let limits = Limits { size, frames: most, time: None };
        let mut bench = Bench::new(limits, compress);
        let mut all = Vec::new();
        let mut total = 0;
        for block in blocks {
            let block: Vec<Frame> = block
                .into_iter()
                .zip(all.len() as u64..)
                // Not to be compressed well.
                .map(|(n, at)| (at, (0..n as u64).map(|i| (i * i * (at + 7) / 3) as u8).collect()))
                .collect();
            total += bench.record(&block).written;
            all.extend(block);
        }
        total += bench.close().written;
        prop_assert_eq!(total, all.len() as u64);
        let files = bench.tape.frames();
        for (file, bytes) in files.iter().zip(&bench.tape.reel().files) {
            prop_assert!(!file.is_empty());
            prop_assert!(most.is_none_or(|most| file.len() as u64 <= most));
            prop_assert!(size.is_none_or(|size| bytes.len() as u64 <= size || file.len() == 1));
        }
        prop_assert_eq!(files.concat(), all);
    }
}

fn io(slots: u32) -> Io {
    let waker = Arc::new(Waker::new().expect("an eventfd"));
    let mut io = Io::new(Ring::fake(), waker, 3, 64);
    let region = Region::map(slots, 2048, 0, HugePages::Off).expect("memory");
    io.own_region = io.pool.add(region);
    io
}

fn recorder(tape: &Tape, workers: usize, patience: Duration) -> Recorder {
    let settings = Settings {
        workers,
        program: "test".to_owned(),
        interfaces: vec!["a".to_owned(), "b".to_owned()],
        limits: Limits::default(),
        compress: false,
        patience,
    };
    let output = tape.output();
    Recorder::start(settings, move || Ok(output)).expect("a thread")
}

/// The sink that is port 2 of its worker; port 0 is interface 0, port 1 interface 1.
fn sink(io: &mut Io, recorder: &Recorder, worker: usize) -> PcapSink {
    attached(io, recorder.sink(worker, vec![0, 1, 0]))
}

fn attached(io: &mut Io, mut sink: PcapSink) -> PcapSink {
    let place = Place {
        index: PortIndex(2),
        generation: 0,
    };
    sink.attach(io, place).expect("a sink");
    sink
}

fn offer(io: &mut Io, sink: &mut PcapSink, from: u16, frames: &[Frame]) {
    let region = io.own_region.expect("a region");
    io.from = PortIndex(from);
    for batch in frames.chunks(16) {
        let mut staged = Vec::new();
        for (time, bytes) in batch {
            let mut frame = io.pool.alloc(region).expect("staging frees slots");
            assert!(io.pool.fill(&mut frame, bytes));
            frame.set_time(*time);
            staged.push(io.pool.stage(frame));
        }
        sink.stage(io, &mut staged);
        assert!(staged.is_empty());
        law(io, sink);
    }
}

/// What was offered is written, dropped or in flight; and every slot is free again.
fn law(io: &Io, sink: &PcapSink) {
    io.pool.audit().expect("the law of the pool");
    assert_eq!(io.pool.total().free, io.pool.total().total);
    assert_eq!(io.counters[2].tx.in_flight(), sink.in_flight() as u64);
}

/// Flushes until everything is written. Fails after ten seconds.
fn settle(io: &mut Io, sink: &mut PcapSink) {
    let limit = Instant::now() + LIMIT;
    while sink.in_flight() > 0 {
        sink.flush(io);
        law(io, sink);
        assert!(Instant::now() < limit, "stuck");
        thread::yield_now();
    }
}

#[test]
fn frames_reach_the_output_with_their_times_and_interfaces() {
    let tape = Tape::default();
    let recorder = recorder(&tape, 1, LIMIT);
    let mut io = io(64);
    let mut sink = sink(&mut io, &recorder, 0);
    let all = frames(0, 2_000);
    for (n, part) in all.chunks(500).enumerate() {
        offer(&mut io, &mut sink, (n % 2) as u16, part);
        sink.flush(&mut io);
    }
    settle(&mut io, &mut sink);
    let tx = io.counters[2].tx;
    assert_eq!(
        (tx.offered, tx.frames, tx.dropped.total()),
        (2_000, 2_000, 0)
    );
    assert_eq!(tx.bytes, written(&all).written_bytes);
    sink.close(&mut io, Reason::Shutdown);
    drop(recorder);
    assert_eq!(tape.frames(), std::slice::from_ref(&all));
    assert_eq!(tape.reel().finished, 1);
    let file = tape.reel().files[0].clone();
    let packets = file.len() - all.iter().map(|(_, f)| packet_len(f.len())).sum::<usize>();
    let (mut at, mut interfaces) = (packets, Vec::new());
    while at < file.len() {
        let (length, _) = super::super::format::write::first_packet(&file[at..]).expect("a packet");
        interfaces.push(file[at + 8]);
        at += length;
    }
    let expected: Vec<u8> = (0..2_000).map(|n| (n / 500 % 2) as u8).collect();
    assert_eq!(interfaces, expected);
}

#[test]
fn a_frame_without_a_time_gets_that_of_its_receipt() {
    let tape = Tape::default();
    let recorder = recorder(&tape, 1, LIMIT);
    let mut io = io(8);
    let mut sink = sink(&mut io, &recorder, 0);
    let before = std::time::SystemTime::now();
    offer(&mut io, &mut sink, 0, &[(0, vec![0; 60])]);
    let after = std::time::SystemTime::now();
    settle(&mut io, &mut sink);
    let nanoseconds = |time: std::time::SystemTime| {
        let since = time.duration_since(std::time::UNIX_EPOCH);
        since.expect("after 1970").as_nanos() as u64
    };
    let time = tape.frames()[0][0].0;
    assert!((nanoseconds(before)..=nanoseconds(after)).contains(&time));
}

#[test]
fn an_output_that_waits_fills_the_blocks_and_then_frames_are_dropped() {
    let tape = Tape::default();
    let recorder = recorder(&tape, 1, LIMIT);
    tape.reel().held = true;
    let mut io = io(64);
    let mut sink = sink(&mut io, &recorder, 0);
    let surely = sink.room(&io);
    assert_eq!(surely, BLOCKS * (BLOCK_BYTES / packet_len(2048)));
    let longest = vec![(7, vec![1; 2048])];
    for taken in 0..surely {
        assert_eq!(sink.room(&io), surely - taken);
        offer(&mut io, &mut sink, 0, &longest);
    }
    assert_eq!(
        io.counters[2].tx.dropped.total(),
        0,
        "there was room for all"
    );
    assert_eq!(sink.room(&io), 0);
    offer(&mut io, &mut sink, 0, &longest);
    let tx = io.counters[2].tx;
    assert_eq!((tx.dropped.get(Reason::SinkFull), tx.frames), (1, 0));
    assert_eq!(sink.wait(&mut io), Wait::Event);
    tape.reel().held = false;
    // A block comes back, and the worker is to look again at a source that it holds back.
    let limit = Instant::now() + LIMIT;
    while sink.wait(&mut io) != Wait::Ready {
        assert!(Instant::now() < limit);
        thread::yield_now();
    }
    assert!(sink.room(&io) > 0);
    settle(&mut io, &mut sink);
    assert_eq!(io.counters[2].tx.frames, tx.offered - 1);
}

#[test]
fn nothing_is_lost_at_the_end_but_what_the_output_does_not_take() {
    for held in [false, true] {
        let tape = Tape::default();
        let patience = Duration::from_millis(50);
        let recorder = recorder(&tape, 1, patience);
        tape.reel().held = held;
        let mut io = io(64);
        let mut sink = sink(&mut io, &recorder, 0);
        let all = frames(0, 100);
        offer(&mut io, &mut sink, 0, &all);
        assert_eq!(sink.drain(&mut io), patience.as_nanos() as u64);
        if !held {
            settle(&mut io, &mut sink);
        }
        sink.close(&mut io, Reason::Shutdown);
        law(&io, &sink);
        drop(recorder);
        let lost = if held { 100 } else { 0 };
        let tx = io.counters[2].tx;
        assert_eq!(tx.dropped.get(Reason::Shutdown), lost);
        assert_eq!(tx.frames, 100 - lost);
        assert_eq!(
            tape.frames()[0].len() as u64,
            100 - lost,
            "counters and file agree"
        );
    }
}

#[test]
fn failures_reach_the_worker_and_the_end_of_an_output_the_sink() {
    let tape = Tape::default();
    let recorder = recorder(&tape, 1, LIMIT);
    let mut io = io(64);
    let mut sink = sink(&mut io, &recorder, 0);
    for (error, reason, fatal) in [
        (libc::ENOSPC, Reason::DiskFull, false),
        (libc::EIO, Reason::WriteError, false),
        (libc::EPIPE, Reason::WriteError, true),
    ] {
        tape.reel().error = Some(error);
        let before = io.counters[2].tx.dropped.get(reason);
        offer(&mut io, &mut sink, 0, &frames(0, 10));
        settle(&mut io, &mut sink);
        assert_eq!(io.counters[2].tx.dropped.get(reason), before + 10);
        // Another failure that follows at once is the same trouble.
        if error != libc::EIO {
            assert!(std::mem::take(&mut io.trouble));
            let failure = sink.failure().expect("a report");
            assert_eq!(failure.fatal, fatal, "{failure}");
        }
        assert!(sink.failure().is_none(), "once");
    }
    assert_eq!(sink.room(&io), usize::MAX, "it holds nobody up");
    offer(&mut io, &mut sink, 0, &frames(0, 10));
    assert_eq!(io.counters[2].tx.dropped.get(Reason::WriteError), 30);
    assert_eq!(sink.in_flight(), 0);
}

#[test]
fn two_workers_write_one_recording() {
    let tape = Tape::default();
    let recorder = recorder(&tape, 2, LIMIT);
    let halves = [frames(0, 3_000), frames(10_000, 3_000)];
    thread::scope(|scope| {
        for (worker, half) in halves.iter().enumerate() {
            let sink = recorder.sink(worker, Vec::new());
            scope.spawn(move || {
                let mut io = io(64);
                let mut sink = attached(&mut io, sink);
                for part in half.chunks(50) {
                    offer(&mut io, &mut sink, 0, part);
                    sink.flush(&mut io);
                }
                settle(&mut io, &mut sink);
                assert_eq!(io.counters[2].tx.frames, 3_000);
                sink.close(&mut io, Reason::Shutdown);
            });
        }
    });
    drop(recorder);
    let all = tape.frames().concat();
    for half in halves {
        let first = half[0].0;
        let mine = all
            .iter()
            .filter(|(at, _)| (first..first + 3_000).contains(at));
        assert!(mine.eq(&half), "the order of each worker");
    }
    assert_eq!(all.len(), 6_000);
}

#[test]
fn an_output_that_cannot_be_opened_is_told_at_the_start() {
    let settings = Settings {
        workers: 1,
        program: String::new(),
        interfaces: Vec::new(),
        limits: Limits::default(),
        compress: false,
        patience: LIMIT,
    };
    let error = Recorder::start(settings.clone(), || Err("no".to_owned())).expect_err("no");
    assert_eq!(error, "no");
    let tape = Tape::default();
    tape.reel().error = Some(libc::EROFS);
    let output = tape.output();
    let error = Recorder::start(settings, move || Ok(output)).expect_err("read-only");
    assert!(
        error.starts_with("tape cannot be written: Read-only file system"),
        "{error}"
    );
}

#[test]
fn an_output_that_panics_ends_the_sink_and_not_the_worker() {
    struct Broken(bool);
    impl Output for Broken {
        fn next(&mut self) -> io::Result<()> {
            Ok(())
        }
        fn append(&mut self, _bytes: &[u8], _stop: BorrowedFd<'_>) -> io::Result<()> {
            assert!(!std::mem::replace(&mut self.0, true), "broken");
            Ok(())
        }
        fn finish(&mut self) {}
        fn name(&self) -> String {
            String::new()
        }
    }
    let settings = Settings {
        workers: 1,
        program: String::new(),
        interfaces: Vec::new(),
        limits: Limits::default(),
        compress: false,
        patience: Duration::from_millis(50),
    };
    let recorder = Recorder::start(settings, || Ok(Box::new(Broken(false)))).expect("a thread");
    let mut io = io(64);
    let mut sink = sink(&mut io, &recorder, 0);
    offer(&mut io, &mut sink, 0, &frames(0, 10));
    sink.flush(&mut io);
    // More, which may still reach a block.
    offer(&mut io, &mut sink, 0, &frames(10, 10));
    // Whoever waits until everything is written or counted does not wait for ever.
    settle(&mut io, &mut sink);
    sink.flush(&mut io);
    assert_eq!(sink.room(&io), usize::MAX, "it holds nobody up");
    assert!(sink.failure().expect("a report").fatal);
    offer(&mut io, &mut sink, 0, &frames(20, 10));
    sink.close(&mut io, Reason::Shutdown);
    let dropped = io.counters[2].tx.dropped;
    assert_eq!((dropped.get(Reason::WriteError), dropped.total()), (30, 30));
}
