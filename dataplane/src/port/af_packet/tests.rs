//! The ring and the port over memory in which the tests play the kernel: no root, every order of events.

// Writes blocks as the kernel does.
#![allow(unsafe_code)]

use std::{
    os::fd::AsFd,
    ptr::NonNull,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use proptest::prelude::*;

use super::*;
use crate::{
    frame::{HugePages, Region},
    port::PortIndex,
    worker::{ring::Ring as Uring, wake::Waker},
};

/// Bytes of a block here, and how many there are.
const SMALL: usize = 4096;
const BLOCKS: u32 = 3;

/// A frame that the kernel puts into a block.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    bytes: Vec<u8>,
    /// Its length on the wire, where it was cut.
    len: Option<usize>,
    tag: Option<(u16, u16)>,
    time: u64,
}

impl Sent {
    fn new(length: usize, number: u64) -> Self {
        Self {
            bytes: (0..length).map(|at| (at as u64 + number) as u8).collect(),
            len: None,
            tag: None,
            time: 1_700_000_000_000_000_000 + number,
        }
    }
}

/// The memory of a ring; the kernel's side of it.
#[derive(Clone)]
struct Kernel {
    memory: Arc<Memory>,
    next: u32,
}

struct Memory {
    base: NonNull<u64>,
}

// SAFETY: plain memory, freed when the last owner goes.
unsafe impl Send for Memory {}
// SAFETY: the status word of a block says who may touch it.
unsafe impl Sync for Memory {}

const LAYOUT: std::alloc::Layout =
    match std::alloc::Layout::from_size_align(SMALL * BLOCKS as usize, 8) {
        Ok(layout) => layout,
        Err(_) => panic!("a size and an alignment"),
    };

impl Memory {
    fn new() -> Self {
        // SAFETY: the layout is not empty.
        let base = unsafe { std::alloc::alloc_zeroed(LAYOUT) };
        Self {
            base: NonNull::new(base.cast()).expect("memory"),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { std::alloc::dealloc(self.base.as_ptr().cast(), LAYOUT) };
    }
}

impl Kernel {
    fn new() -> (Self, Ring) {
        let memory = Arc::new(Memory::new());
        let owner = Box::new(Arc::clone(&memory));
        // SAFETY: the memory has that size and lives as long as one of its owners; `fill` touches no block whose
        // status gives it to the reader.
        let ring = unsafe { Ring::over(memory.base.cast(), SMALL, BLOCKS, owner) };
        (Self { memory, next: 0 }, ring)
    }

    fn status(&self) -> &AtomicU32 {
        let at = self.next as usize * SMALL + 8;
        // SAFETY: within the memory, aligned, and only ever used as an atomic.
        unsafe { AtomicU32::from_ptr(self.memory.base.as_ptr().cast::<u8>().add(at).cast()) }
    }

    /// Hands over a block that holds these bytes behind its status. `false` when the reader has it still.
    fn fill(&mut self, bytes: &[u8]) -> bool {
        if self.status().load(Ordering::Acquire) != libc::TP_STATUS_KERNEL {
            return false;
        }
        assert!(bytes.len() <= SMALL - 12);
        let at = self.next as usize * SMALL + 12;
        // SAFETY: within the memory, and the block is the kernel's.
        unsafe {
            let to = self.memory.base.as_ptr().cast::<u8>().add(at);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        let tell = libc::TP_STATUS_USER | libc::TP_STATUS_BLK_TMO;
        self.status().store(tell, Ordering::Release);
        self.next = (self.next + 1) % BLOCKS;
        true
    }

    /// Hands over a block with frames, laid out as prb_fill_curr_block does.
    fn send(&mut self, frames: &[Sent]) -> bool {
        self.fill(&block(frames))
    }
}

/// What a block of frames holds behind its status.
fn block(frames: &[Sent]) -> Vec<u8> {
    let mut block = vec![0_u8; 48 - 12];
    block[..4].copy_from_slice(&(frames.len() as u32).to_ne_bytes());
    block[4..8].copy_from_slice(&48_u32.to_ne_bytes());
    for (i, frame) in frames.iter().enumerate() {
        // A header, a sockaddr_ll, and what aligns the IP header.
        let mac = 82;
        let step = (mac + frame.bytes.len()).next_multiple_of(8);
        let mut status = libc::TP_STATUS_USER;
        let (kind, control) = frame.tag.unwrap_or((0, 0));
        if frame.tag.is_some() {
            status |= libc::TP_STATUS_VLAN_VALID;
        }
        if kind != 0 {
            status |= libc::TP_STATUS_VLAN_TPID_VALID;
        }
        let mut header = Vec::with_capacity(step);
        let last = i + 1 == frames.len();
        for word in [
            if last { 0 } else { step as u32 },
            (frame.time / 1_000_000_000) as u32,
            (frame.time % 1_000_000_000) as u32,
            frame.bytes.len() as u32,
            frame.len.unwrap_or(frame.bytes.len()) as u32,
            status,
        ] {
            header.extend(word.to_ne_bytes());
        }
        header.extend((mac as u16).to_ne_bytes());
        header.extend([0; 6]);
        header.extend(u32::from(control).to_ne_bytes());
        header.extend(kind.to_ne_bytes());
        header.resize(mac, 0);
        header.extend(&frame.bytes);
        header.resize(step, 0);
        block.extend(header);
    }
    block
}

/// What the reader gets of a frame.
fn read(ring: &mut Ring) -> Option<Sent> {
    match ring.read() {
        Next::Frame(arrived) => Some(Sent {
            bytes: arrived.bytes.to_vec(),
            len: (arrived.len != arrived.bytes.len()).then_some(arrived.len),
            tag: arrived.tag,
            time: arrived.time,
        }),
        Next::Nothing => None,
        Next::Broken(n) => panic!("{n} frames are broken"),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send(Vec<(usize, Option<(u16, u16)>)>),
    Read(usize),
    Release,
}

proptest! {
    #[test]
    fn every_frame_comes_once_in_order(steps in prop::collection::vec(prop_oneof![
        prop::collection::vec((0_usize..600, prop::option::of((1_u16.., any::<u16>()))), 0..5)
            .prop_map(Step::Send),
        (1_usize..9).prop_map(Step::Read),
        Just(Step::Release),
    ], 0..120)) {
        let (mut kernel, mut ring) = Kernel::new();
        let mut expected = std::collections::VecDeque::new();
        let mut number = 0;
        for step in steps {
            match step {
                Step::Send(frames) => {
                    let frames: Vec<Sent> = frames
                        .into_iter()
                        .map(|(length, tag)| {
                            number += 1;
                            Sent { tag, ..Sent::new(length, number) }
                        })
                        .collect();
                    if kernel.send(&frames) {
                        expected.extend(frames);
                    }
                }
                Step::Read(n) => for _ in 0..n {
                    let got = read(&mut ring);
                    prop_assert_eq!(&got, &expected.pop_front());
                    if got.is_none() {
                        break;
                    }
                },
                Step::Release => ring.release(),
            }
            prop_assert!(ring.readable() || expected.is_empty());
        }
    }

    /// Whatever a block holds, it is read to an end, within its bounds.
    #[test]
    fn a_block_of_anything_is_read_to_its_end(
        bytes in prop::collection::vec(any::<u8>(), 0..SMALL - 12),
        frames in prop_oneof![any::<u32>(), 0_u32..40],
        first in prop_oneof![any::<u32>(), 0_u32..SMALL as u32],
        small in any::<bool>(),
    ) {
        let (mut kernel, mut ring) = Kernel::new();
        let mut bytes = bytes;
        if small {
            // Numbers that lead somewhere, instead of far out.
            for word in bytes.chunks_exact_mut(4) {
                word[1] &= 1;
                word[2] = 0;
                word[3] = 0;
            }
        }
        bytes.resize(SMALL - 12, 0);
        bytes[..4].copy_from_slice(&frames.to_ne_bytes());
        bytes[4..8].copy_from_slice(&first.to_ne_bytes());
        prop_assert!(kernel.fill(&bytes));
        let mut said = 0_u64;
        for _ in 0..=SMALL {
            match ring.read() {
                Next::Frame(arrived) => {
                    prop_assert!(arrived.bytes.len() <= SMALL && arrived.len >= arrived.bytes.len());
                    said += 1;
                }
                Next::Broken(n) => said += n,
                Next::Nothing => {
                    prop_assert_eq!(said, u64::from(frames));
                    prop_assert!(kernel.fill(&[]) && kernel.fill(&[]) && kernel.fill(&[]), "given back");
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "no end");
    }
}

#[test]
fn a_block_is_given_back_when_its_last_frame_was_read() {
    let (mut kernel, mut ring) = Kernel::new();
    for number in 0..BLOCKS {
        assert!(kernel.send(&[Sent::new(60, u64::from(number)), Sent::new(60, 9)]));
    }
    assert!(!kernel.send(&[]), "all are the reader's");
    assert_eq!(read(&mut ring), Some(Sent::new(60, 0)));
    ring.release();
    assert!(!kernel.send(&[]), "one frame of it is left");
    assert_eq!(read(&mut ring), Some(Sent::new(60, 9)));
    ring.release();
    assert!(kernel.send(&[Sent::new(60, 7)]));
    assert_eq!(ring.rounds(), 0);
    for _ in 0..2 * (BLOCKS - 1) {
        assert!(read(&mut ring).is_some());
    }
    assert_eq!(read(&mut ring), Some(Sent::new(60, 7)));
    assert_eq!(ring.rounds(), 1);
    assert_eq!(read(&mut ring), None);
}

/// What the played kernel knows of the socket.
#[derive(Default)]
struct State {
    statistics: Statistics,
    ended: bool,
    cleared: usize,
}

struct FakeSocket {
    state: Arc<Mutex<State>>,
    fd: nix::sys::eventfd::EventFd,
}

impl Socket for FakeSocket {
    fn end(&self) {
        self.state.lock().expect("one thread").ended = true;
    }
    fn statistics(&self) -> Statistics {
        self.state.lock().expect("one thread").statistics
    }
    fn clear_error(&self) {
        self.state.lock().expect("one thread").cleared += 1;
    }
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

struct Bench {
    io: Io,
    kernel: Kernel,
    port: AfPacketPort,
    state: Arc<Mutex<State>>,
}

const INDEX: PortIndex = PortIndex(0);
const SLOTS: u32 = 8;
/// The longest frame of the port here.
const LONGEST: usize = 300;

fn bench() -> Bench {
    let waker = Arc::new(Waker::new().expect("an eventfd"));
    let mut io = Io::new(Uring::fake(), waker, 1, 4);
    let own = Region::map(SLOTS, 512, 64, HugePages::Off).expect("memory");
    io.own_region = io.pool.add(own);
    let (kernel, ring) = Kernel::new();
    let state = Arc::new(Mutex::new(State::default()));
    let socket = FakeSocket {
        state: Arc::clone(&state),
        fd: nix::sys::eventfd::EventFd::new().expect("an eventfd"),
    };
    let options = AfPacketOptions {
        interface: "eth0".into(),
        max_frame: LONGEST,
        remedy: "do something".into(),
    };
    let mut port = AfPacketPort::with_socket(Box::new(socket), ring, options);
    let place = Place {
        index: INDEX,
        generation: 0,
    };
    port.attach(&mut io, place).expect("attaches");
    Bench {
        io,
        kernel,
        port,
        state,
    }
}

impl Bench {
    fn send(&mut self, frames: &[Sent]) {
        assert!(self.kernel.send(frames), "a free block");
        self.state.lock().expect("one thread").statistics.frames += frames.len() as u64;
    }

    fn receive(&mut self) -> Vec<(Vec<u8>, Option<u64>)> {
        let mut batch = Vec::new();
        self.port.receive(&mut self.io, &mut batch, 64);
        batch
            .drain(..)
            .map(|frame| {
                let got = (self.io.pool.bytes(&frame).to_vec(), frame.time());
                self.io.pool.free(frame);
                got
            })
            .collect()
    }

    fn dropped(&self, reason: Reason) -> u64 {
        self.io.counters[0].rx.dropped.get(reason)
    }
}

#[test]
fn frames_come_with_their_time_and_their_tag() {
    let plain = Sent::new(100, 1);
    let tagged = |kind, control| Sent {
        tag: Some((kind, control)),
        ..Sent::new(100, 2)
    };
    let with = |tag: [u8; 4]| {
        let bytes = Sent::new(100, 2).bytes;
        [&bytes[..12], &tag, &bytes[12..]].concat()
    };
    let cases = [
        ("no tag", plain.clone(), plain.bytes.clone()),
        (
            "802.1Q",
            tagged(0x8100, 0x602a),
            with([0x81, 0, 0x60, 0x2a]),
        ),
        ("802.1ad", tagged(0x88a8, 5), with([0x88, 0xa8, 0, 5])),
        ("priority alone", tagged(0x8100, 0), with([0x81, 0, 0, 0])),
        (
            "a kernel that tells no type",
            tagged(0, 42),
            with([0x81, 0, 0, 42]),
        ),
    ];
    for (case, sent, expected) in cases {
        let mut b = bench();
        b.send(std::slice::from_ref(&sent));
        assert_eq!(b.receive(), [(expected.clone(), Some(sent.time))], "{case}");
        let rx = b.io.counters[0].rx;
        assert_eq!((rx.frames, rx.bytes), (1, expected.len() as u64), "{case}");
        b.io.pool.audit().expect("the pool's law");
    }
}

#[test]
fn what_does_not_fit_is_counted_and_the_first_is_told() {
    let cut = Sent {
        len: Some(4000),
        ..Sent::new(LONGEST, 1)
    };
    let tagged = Sent {
        tag: Some((0x8100, 1)),
        ..Sent::new(LONGEST - 3, 1)
    };
    for (sent, reason) in [
        (Sent::new(0, 1), Some(Reason::TooShort)),
        (Sent::new(13, 1), Some(Reason::TooShort)),
        (Sent::new(14, 1), None),
        (Sent::new(LONGEST, 1), None),
        (Sent::new(LONGEST + 1, 1), Some(Reason::TooLong)),
        (cut, Some(Reason::TooLong)),
        (tagged, Some(Reason::TooLong)),
    ] {
        let mut b = bench();
        b.send(&[sent.clone(), sent.clone()]);
        let got = b.receive();
        let rx = b.io.counters[0].rx;
        assert_eq!(rx.frames, 2, "{sent:?}");
        match reason {
            None => assert_eq!((got.len(), rx.dropped.total()), (2, 0), "{sent:?}"),
            Some(reason) => assert_eq!((got.len(), rx.dropped.get(reason)), (0, 2), "{sent:?}"),
        }
        let told = b.port.failure().map(|failure| failure.to_string());
        match reason {
            Some(Reason::TooLong) => {
                let told = told.expect("the first is told");
                assert!(
                    told.contains("eth0") && told.contains("do something"),
                    "{told}"
                );
                b.send(std::slice::from_ref(&sent));
                assert_eq!(b.receive().len(), 0);
                assert!(b.port.failure().is_none(), "and no other");
            }
            _ => assert_eq!(told, None, "{sent:?}"),
        }
        b.io.pool.audit().expect("the pool's law");
    }
}

#[test]
fn without_a_free_slot_frames_wait_in_the_ring() {
    let mut b = bench();
    let sent: Vec<_> = (0..SLOTS as u64 + 3).map(|n| Sent::new(60, n)).collect();
    b.send(&sent);
    let mut batch = Vec::new();
    b.port.receive(&mut b.io, &mut batch, 64);
    assert_eq!(batch.len(), SLOTS as usize);
    assert_eq!(
        b.port.wait(&mut b.io),
        Wait::Event,
        "a slot becomes free by a completion"
    );
    for frame in batch.drain(..) {
        b.io.pool.free(frame);
    }
    assert_eq!(b.port.wait(&mut b.io), Wait::Ready);
    assert_eq!(b.receive().len(), 3);
    assert_eq!(b.port.wait(&mut b.io), Wait::Event);
    assert_eq!(b.io.counters[0].rx.frames, sent.len() as u64);
}

#[test]
fn an_error_of_the_socket_is_taken_away_or_it_would_wake_for_ever() {
    let mut b = bench();
    for (result, cleared) in [(i32::from(libc::POLLIN), 0), (i32::from(libc::POLLERR), 1)] {
        assert_eq!(b.port.wait(&mut b.io), Wait::Event);
        let tag = b.io.ring.kernel().pending.pop().expect("a poll").tag;
        assert_eq!(tag.op, Op::Poll);
        b.port.complete(&mut b.io, Completion { tag, result });
        assert_eq!(b.state.lock().expect("one thread").cleared, cleared);
    }
}

#[test]
fn a_closed_port_has_counted_every_frame_that_the_kernel_did() {
    let mut b = bench();
    b.send(&[Sent::new(60, 1), Sent::new(60, 2)]);
    assert_eq!(b.receive().len(), 2);
    b.send(&[Sent::new(60, 3), Sent::new(60, 4)]);
    {
        let mut state = b.state.lock().expect("one thread");
        state.statistics.dropped = 5;
        state.statistics.frames += 5;
    }
    let told = b.port.kernel().expect("counts").rx_dropped;
    assert_eq!(told, 5, "these are in the report");
    {
        // Two more were dropped since, and three are in a block that was not handed over.
        let mut state = b.state.lock().expect("one thread");
        state.statistics.dropped += 2;
        state.statistics.frames += 2 + 3;
    }
    b.port.close(&mut b.io, Reason::Shutdown);
    b.port.close(&mut b.io, Reason::Shutdown);
    assert_eq!(b.dropped(Reason::Shutdown), 2 + 3);
    assert_eq!(b.dropped(Reason::KernelFull), 2);
    let all = b.state.lock().expect("one thread").statistics.frames;
    assert_eq!(b.io.counters[0].rx.frames + told, all);
    let state = b.state.lock().expect("one thread");
    assert!(state.ended, "nothing more is let in");
    b.io.pool.audit().expect("the pool's law");
}
