//! What wraps frames where they come from: the blocks of a packet socket's ring, which must be read to their
//! end and within their bounds, and VXLAN datagrams. Those that are handed on are sent again, and must go out
//! behind the header of their network as they came. The pool's law is asserted after every step, the counters'
//! laws at the end, when every slot must be free.
//!
//! Input: a byte, then, if it is even, what stands behind the status of a block (`struct tpacket_block_desc`);
//! if it is odd, datagrams: two bytes of length (little-endian), the bytes.
#![no_main]

use std::{os::unix::net::UnixDatagram, sync::Arc};

use dataplane::{
    frame::{Frame, HugePages, Region, Staged},
    policy::Reason,
    port::{
        Io, Place, Port,
        af_packet::{self, Next},
        vxlan::{VxlanOptions, VxlanPort, header},
    },
    worker::{
        ring::{Op, Ring},
        wake::Waker,
    },
};
use libfuzzer_sys::fuzz_target;

const VNI: u32 = 42;
const SLOT: usize = 2048;
const MAX_FRAME: usize = 1522;

fn block(bytes: &[u8]) {
    // What is not there is zero.
    let mut said = [0; 4];
    said.iter_mut()
        .zip(bytes)
        .for_each(|(to, from)| *to = *from);
    let said = u32::from_ne_bytes(said);
    let mut ring = af_packet::Ring::of_block(bytes);
    let mut read = 0;
    // Each step to the next frame is of one byte at least.
    for _ in 0..bytes.len() + 128 {
        match ring.read() {
            Next::Frame(arrived) => {
                assert!(arrived.bytes.len() <= arrived.len);
                // All of them are there to be read.
                std::hint::black_box(arrived.bytes.iter().fold(0, |all, byte| all ^ byte));
                read += 1;
            }
            Next::Broken(n) => read += n,
            Next::Nothing => {
                assert_eq!(read, u64::from(said), "a frame is in no count");
                return;
            }
        }
    }
    panic!("the block has no end");
}

struct Bench {
    io: Io,
    port: VxlanPort,
    far: UnixDatagram,
    datagrams: u64,
}

impl Bench {
    fn new() -> Self {
        let waker = Arc::new(Waker::new().expect("an eventfd"));
        let mut io = Io::new(Ring::fake(), waker, 1, 64);
        let region = Region::map(128, SLOT, 64, HugePages::Off).expect("memory");
        io.own_region = io.pool.add(region);
        let (near, far) = UnixDatagram::pair().expect("a pair of sockets");
        let sinks = (0..3).map(|_| UnixDatagram::unbound().expect("a socket").into());
        let options = VxlanOptions {
            vni: VNI,
            max_frame: MAX_FRAME,
            peer: None,
        };
        let mut port = VxlanPort::new(options, Some(near.into()), sinks.collect());
        port.attach(&mut io, Place::default()).expect("attaches");
        Self {
            io,
            port,
            far,
            datagrams: 0,
        }
    }

    fn law(&self) {
        self.io.pool.audit().expect("the pool's law");
    }

    /// A datagram comes, and what is in it goes out again.
    fn pass(&mut self, datagram: &[u8]) {
        self.far.send(datagram).expect("it is read at once");
        self.datagrams += 1;
        let mut batch: Vec<Frame> = Vec::with_capacity(4);
        self.port.receive(&mut self.io, &mut batch, 4);
        self.law();
        assert_eq!(self.io.counters[0].rx.frames, self.datagrams);
        let mut forward: Vec<Staged> = Vec::with_capacity(4);
        for frame in batch {
            assert_eq!(self.io.pool.bytes(&frame), &datagram[8..]);
            forward.push(self.io.pool.stage(frame));
        }
        let forwarded = forward.len();
        self.io.counters[0].rx.forwarded += forwarded as u64;
        self.port.stage(&mut self.io, &mut forward);
        self.port.flush(&mut self.io);
        let kernel = self.io.ring.kernel();
        kernel.consume();
        for _ in 0..forwarded {
            let write = kernel.pending.iter().position(|p| p.tag.op == Op::Write);
            let write = write.expect("what is handed on can be sent");
            let (_, head, frame) = kernel.pending[write].sent();
            assert_eq!(header::decode(head), Ok(VNI));
            assert_eq!(frame, &datagram[8..]);
            kernel.answer(write, datagram.len() as i32);
        }
        let mut completions = Vec::with_capacity(16);
        self.io.ring.reap(&mut completions);
        for completion in completions {
            self.port.complete(&mut self.io, completion);
        }
        self.law();
    }

    fn end(mut self) {
        self.port.close(&mut self.io, Reason::Shutdown);
        let (rx, tx) = (&self.io.counters[0].rx, &self.io.counters[0].tx);
        assert_eq!(rx.frames, rx.forwarded + rx.dropped.total());
        assert_eq!((tx.offered, tx.frames), (rx.forwarded, rx.forwarded));
        self.law();
        let total = self.io.pool.total();
        assert_eq!(total.free, total.total, "a slot is lost: {total:?}");
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&kind, mut rest)) = input.split_first() else {
        return;
    };
    if kind & 1 == 0 {
        block(rest);
        return;
    }
    let mut bench = Bench::new();
    while let [low, high, behind @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        let (datagram, behind) = behind.split_at(length.min(behind.len()));
        rest = behind;
        bench.pass(datagram);
    }
    bench.end();
});
