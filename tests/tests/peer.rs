//! AF_XDP sockets of another implementation, xsk-rs over libxdp, at both ends of a line through the dataplane:
//! what one side puts on its rings comes out of the other's, byte for byte and in order.

use std::{
    ffi::CString,
    io::Write,
    num::NonZeroU32,
    process::ExitCode,
    time::{Duration, Instant},
};

use control::{
    kernel::xdp::{Delivery, Unclaimed, XdpChoice, XdpMode, XdpOptions, XdpProgram},
    link::netns::{NetNs, in_netns},
};
use tests::{Daemon, Need, Netns, Theme, bench::in_flight, daemon, frames};
use xsk_rs::{
    CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem,
    config::{Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig},
};

/// How long frames may take through a busy machine.
const LIMIT: Duration = Duration::from_secs(10);
/// Slots of a peer, half of them to receive into.
const SLOTS: u32 = 2048;
/// What is sent before the other side has it: it fits everywhere.
const BURST: usize = 128;

fn main() -> ExitCode {
    let mut theme = Theme::new();
    theme.test("frames_both_ways", &[Need::Root], frames_both_ways);
    theme.run()
}

/// A socket on an interface that nothing else has, with its program.
struct Peer {
    tx: TxQueue,
    rx: RxQueue,
    fill: FillQueue,
    completion: CompQueue,
    free: Vec<FrameDesc>,
    umem: Umem,
    _program: XdpProgram,
}

impl Peer {
    fn open(ns: &Netns, interface: &str) -> Self {
        let ns = NetNs::open(ns.name()).expect("our own namespace");
        let options = XdpOptions {
            mode: XdpChoice::Only(XdpMode::Native),
            queues: 1,
            unclaimed: Unclaimed::Drop,
        };
        let mut program = XdpProgram::attach(&ns, interface, &options).expect("a program");
        program.claim(0).expect("the queue is ours");
        let slots = NonZeroU32::new(SLOTS).expect("some");
        let ring = QueueSize::new(SLOTS).expect("a power of two");
        let config = UmemConfig::builder()
            .fill_queue_size(ring)
            .comp_queue_size(ring)
            .build()
            .expect("sizes");
        let socket = SocketConfig::builder()
            .rx_queue_size(ring)
            .tx_queue_size(ring)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .build();
        let name = Interface::new(CString::new(interface).expect("a name"));
        // The UMEM as well: the first socket bound over it is the one that it was made with.
        let made = in_netns(&ns, || {
            let (umem, free) = Umem::new(config, slots, false).expect("a UMEM");
            // SAFETY: the UMEM is new and has no other socket.
            let made = unsafe { Socket::new(socket, &umem, &name, 0) };
            (umem, free, made.expect("a socket"))
        });
        let (umem, mut free, (tx, rx, rings)) = made.expect("our own namespace");
        let (mut fill, completion) = rings.expect("the first socket has them");
        let received = free.split_off(free.len() / 2);
        // SAFETY: the descriptors are the UMEM's own, and nobody else uses them.
        assert_eq!(unsafe { fill.produce(&received) }, received.len());
        program.set(0, rx.fd(), Delivery::Any).expect("a map");
        Self {
            tx,
            rx,
            fill,
            completion,
            free,
            umem,
            _program: program,
        }
    }

    fn send(&mut self, frames: &[Vec<u8>]) {
        let mut descs = self.free.split_off(self.free.len() - frames.len());
        for (desc, frame) in descs.iter_mut().zip(frames) {
            // SAFETY: the descriptor is the UMEM's own, and nobody else uses its slot.
            let mut data = unsafe { self.umem.data_mut(desc) };
            data.cursor().write_all(frame).expect("room for a frame");
        }
        // SAFETY: the descriptors are the UMEM's own, and are not touched until they are completed.
        assert_eq!(unsafe { self.tx.produce(&descs) }, descs.len());
        let deadline = Instant::now() + LIMIT;
        let mut completed = vec![FrameDesc::default(); descs.len()];
        let mut left = descs.len();
        while left > 0 {
            self.tx.wakeup().expect("the interface is up");
            // SAFETY: the ring is of this UMEM's socket.
            let n = unsafe { self.completion.consume(&mut completed) };
            self.free.extend(&completed[..n]);
            left -= n;
            assert!(Instant::now() < deadline, "{left} frames are not sent");
        }
    }

    /// Waits for so many frames.
    fn receive(&mut self, count: usize) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + LIMIT;
        let mut received = Vec::with_capacity(count);
        let mut descs = vec![FrameDesc::default(); BURST];
        while received.len() < count && Instant::now() < deadline {
            // SAFETY: the ring is of this UMEM's socket.
            let n = unsafe { self.rx.poll_and_consume(&mut descs, 100) }.expect("a socket");
            for desc in &descs[..n] {
                // SAFETY: the kernel has filled the slot and given it back.
                received.push(unsafe { self.umem.data(desc) }.contents().to_vec());
            }
            // SAFETY: the descriptors came from the receive ring, and their frames are copied.
            assert_eq!(unsafe { self.fill.produce(&descs[..n]) }, n);
        }
        received
    }
}

fn frames_both_ways() {
    let (inside, left, right) = (Netns::new(), Netns::new(), Netns::new());
    inside.veth("a0", &left, "out0");
    inside.veth("b0", &right, "out0");
    let daemon = Daemon::start(
        &inside,
        r#"
[ports.a]
kind = "af_xdp"
interface = "a0"
[ports.b]
kind = "af_xdp"
interface = "b0"
[[pipelines]]
from = ["a"]
to = ["b"]
[[pipelines]]
from = ["b"]
to = ["a"]
"#,
    );
    let (mut left, mut right) = (Peer::open(&left, "out0"), Peer::open(&right, "out0"));
    // More each way than any ring has entries: they all come round.
    let sent = frames::mixed(20_000, 1514);
    for (n, burst) in sent.chunks(BURST).enumerate() {
        let (from, to) = match n % 2 {
            0 => (&mut left, &mut right),
            _ => (&mut right, &mut left),
        };
        from.send(burst);
        let received = to.receive(burst.len());
        assert_eq!(received.len(), burst.len(), "{:#?}", daemon.stats());
        assert!(received == burst, "burst {n} differs");
    }
    daemon.stats_when(LIMIT, |stats| in_flight(stats) == 0);
    let stats = daemon.stop().explained();
    let received: u64 = ["a", "b"]
        .iter()
        .map(|name| daemon::port(&stats, name).rx.frames)
        .sum();
    assert_eq!(received, sent.len() as u64);
    for name in ["a", "b"] {
        assert_eq!(daemon::port(&stats, name).tx.copied, 0, "{name} copied");
    }
}
