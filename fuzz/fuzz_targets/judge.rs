//! Whole frames on their way: a TAP or TUN port receives them from a played kernel, they are parsed, judged,
//! staged on a TAP (some with TCP trains) and a TUN sink or freed, and the kernel answers the writes as the input says. The pool's
//! law is asserted after every step, the counters' laws at the end, when every slot must be free.
//!
//! Input: one byte for the kernel's moods, then frames: two bytes of length (little-endian), the bytes.
#![no_main]

use std::{os::fd::OwnedFd, sync::Arc};

use dataplane::{
    frame::{Frame, HugePages, Region, Staged},
    packet::{Fragment, Headers, finish_partial, parse},
    policy::{PolicySpec, PortRange, Protocol, Reason, Rule, Snapshot, Verdict, judge},
    port::{
        Io, Place, Port, PortIndex,
        tap::{Layer, TapOptions, TapPort},
    },
    worker::{
        ring::{Op, Ring},
        wake::Waker,
    },
};
use libfuzzer_sys::fuzz_target;

const SLOTS: u32 = 160;
const SLOT: usize = 2048;
const BATCH: usize = 16;

/// What the played kernel does with writes to one of the sinks: it takes them, or EIO, EINVAL, ENODEV.
const ANSWERS: [i32; 4] = [0, -5, -22, -19];
/// What it answers to a cancelled read.
const ECANCELED: i32 = -125;

struct Bench {
    io: Io,
    ports: Vec<TapPort>,
    snapshot: Snapshot,
    frames: u64,
    answer: i32,
}

fn policy() -> Snapshot {
    let network = |text: &str| Some(text.parse().expect("a network"));
    let rule = |protocol, to, ports: &[(u16, u16)]| Rule {
        protocol: Some(protocol),
        to: network(to),
        to_ports: ports
            .iter()
            .map(|&(first, last)| PortRange { first, last })
            .collect(),
        replies: true,
        ..Rule::default()
    };
    let rules = vec![
        rule(Protocol::Tcp, "10.0.0.0/8", &[(80, 80), (8000, 8100)]),
        rule(Protocol::Tcp, "2001:db8::/32", &[(443, 443)]),
        rule(Protocol::Udp, "10.0.0.53/32", &[(53, 53)]),
        rule(Protocol::Icmp, "10.0.0.0/8", &[]),
    ];
    let spec = PolicySpec {
        rules,
        ..PolicySpec::default()
    };
    Snapshot::compile(&spec, 1).expect("the policy compiles")
}

impl Bench {
    fn new(mood: u8) -> Self {
        let ports = 3;
        let waker = Arc::new(Waker::new().expect("an eventfd"));
        let mut io = Io::new(Ring::fake(), waker, ports, 24);
        let region = Region::map(SLOTS, SLOT, 64, HugePages::Off).expect("memory");
        io.own_region = io.pool.add(region);
        if mood & 4 != 0 {
            // The submission queue is full at some point.
            io.ring.kernel().room = Some(usize::from(mood >> 3) * 4);
        }
        let ports = (0..ports as u16).map(|index| {
            let queue = OwnedFd::from(std::fs::File::open("/dev/null").expect("/dev/null"));
            let options = TapOptions {
                layer: match index {
                    0 if mood & 0x40 == 0 => Layer::Ethernet,
                    1 => Layer::Ethernet,
                    _ => Layer::Ip,
                },
                longest: if index == 2 { 600 } else { 1518 },
                source: index == 0,
                threads: false,
                gso: index == 1 && mood & 0x20 != 0,
            };
            let mut port = TapPort::new(format!("tap{index}"), queue, options);
            let place = Place {
                index: PortIndex(index),
                generation: 0,
            };
            port.attach(&mut io, place).expect("attaches");
            port
        });
        let ports = ports.collect();
        let bench = Self {
            io,
            ports,
            snapshot: policy(),
            frames: 0,
            answer: ANSWERS[usize::from(mood & 3)],
        };
        bench.law();
        bench
    }

    fn law(&self) {
        self.io.pool.audit().expect("the pool's law");
    }

    /// The kernel fills a parked read. `false` when there is none.
    fn arrive(&mut self, frame: &[u8]) -> bool {
        let kernel = self.io.ring.kernel();
        let Some(read) = kernel.pending.iter().position(|p| p.tag.op == Op::Read) else {
            return false;
        };
        // A read of nothing would be the end of the device.
        kernel.answer_read(read, if frame.is_empty() { &[0] } else { frame });
        self.frames += 1;
        true
    }

    /// The kernel answers every write; all completions are delivered.
    fn answer(&mut self) {
        let kernel = self.io.ring.kernel();
        kernel.consume();
        let is_write = |op| matches!(op, Op::Write | Op::Gather);
        while let Some(write) = kernel.pending.iter().position(|p| is_write(p.tag.op)) {
            let pending = &kernel.pending[write];
            let length = match pending.tag.op {
                Op::Write => pending.written().len() as i32,
                _ => pending
                    .gathered()
                    .iter()
                    .map(|part| part.len() as i32)
                    .sum(),
            };
            let refused = self.answer != 0 && pending.tag.port == PortIndex(1);
            kernel.answer(write, if refused { self.answer } else { length });
        }
        self.reap();
    }

    fn reap(&mut self) {
        let mut completions = Vec::with_capacity(256);
        self.io.ring.reap(&mut completions);
        for completion in completions {
            let port = usize::from(completion.tag.port.0);
            self.ports[port].complete(&mut self.io, completion);
        }
        self.law();
    }

    /// One turn of a worker: receive, parse, judge, finish, stage, flush.
    fn turn(&mut self) {
        self.reap();
        let mut batch: Vec<Frame> = Vec::with_capacity(BATCH);
        self.ports[0].receive(&mut self.io, &mut batch, BATCH);
        self.law();
        self.io.pool.begin_batch(1);
        let headers: Vec<Headers> = batch.iter().map(|f| parse(self.io.pool.bytes(f))).collect();
        let verdicts = self.judge(&headers);
        let mut forward: Vec<Staged> = Vec::with_capacity(BATCH);
        for ((mut frame, headers), verdict) in batch.into_iter().zip(&headers).zip(verdicts) {
            match verdict {
                Verdict::Forward => {
                    finish_partial(self.io.pool.bytes_mut(&mut frame), headers);
                    assert_eq!(parse(self.io.pool.bytes(&frame)), *headers);
                    self.io.counters[0].rx.forwarded += 1;
                    forward.push(self.io.pool.stage(frame));
                }
                Verdict::Drop(reason) => {
                    self.io.counters[0].rx.dropped.add(reason, 1);
                    self.io.pool.free(frame);
                }
            }
        }
        let mut shares = forward.iter().map(|s| self.io.pool.share(s)).collect();
        self.ports[1].stage(&mut self.io, &mut shares);
        self.ports[2].stage(&mut self.io, &mut forward);
        self.law();
        for port in &mut self.ports {
            port.flush(&mut self.io);
        }
        self.law();
    }

    /// The verdicts on a batch: the same as one by one, and never for what cannot be judged.
    fn judge(&self, headers: &[Headers]) -> Vec<Verdict> {
        let untouched = Verdict::Drop(Reason::Shutdown);
        let mut verdicts = vec![untouched; headers.len()];
        judge(headers, &self.snapshot, &mut verdicts);
        for (headers, &verdict) in headers.iter().zip(&verdicts) {
            assert_ne!(verdict, untouched, "a frame was not judged");
            let mut alone = [untouched];
            judge(std::slice::from_ref(headers), &self.snapshot, &mut alone);
            assert_eq!(alone[0], verdict, "the batch makes a difference");
            if verdict == Verdict::Forward {
                assert_eq!(headers.fault, None);
                assert_ne!(headers.fragment, Fragment::Later);
            }
        }
        verdicts
    }

    /// Nothing more comes: everything is counted, and every slot comes back.
    fn end(mut self) {
        self.io.ring.kernel().room = None;
        while self.io.counters[0].rx.frames < self.frames {
            self.turn();
            self.answer();
        }
        for port in &mut self.ports {
            port.flush(&mut self.io);
        }
        self.answer();
        let rx = &self.io.counters[0].rx;
        assert_eq!(rx.frames, rx.forwarded + rx.dropped.total());
        for index in [1, 2] {
            let tx = &self.io.counters[index].tx;
            assert_eq!(tx.offered, rx.forwarded);
            assert_eq!(tx.offered, tx.frames + tx.dropped.total());
        }
        for port in &mut self.ports {
            port.close(&mut self.io, Reason::Shutdown);
        }
        // Reads that were cancelled give their slots back.
        let kernel = self.io.ring.kernel();
        while !kernel.pending.is_empty() {
            kernel.answer(0, ECANCELED);
        }
        let mut completions = Vec::with_capacity(256);
        self.io.ring.reap(&mut completions);
        for completion in completions {
            if completion.tag.op == Op::Read {
                self.io.pool.reclaim(completion.tag.slot);
            }
        }
        self.law();
        let total = self.io.pool.total();
        assert_eq!(total.free, total.total, "a slot is lost: {total:?}");
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&mood, mut rest)) = input.split_first() else {
        return;
    };
    let mut bench = Bench::new(mood);
    let mut waiting = 0;
    while let [low, high, behind @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])) % SLOT;
        let (frame, behind) = behind.split_at(length.min(behind.len()));
        rest = behind;
        if !bench.arrive(frame) {
            bench.turn();
            bench.answer();
            bench.turn();
            if !bench.arrive(frame) {
                break;
            }
        }
        waiting += 1;
        if waiting == BATCH {
            waiting = 0;
            bench.turn();
            // Writes pile up between answers, so that sinks get full.
            if mood & 0x80 == 0 {
                bench.answer();
            }
        }
    }
    bench.end();
});
