//! Forwarding as it is done without AF_XDP and io_uring: a packet socket with a ring of blocks (TPACKET_V3), and
//! write(2) for each frame.

use std::os::fd::AsFd;

use control::{
    kernel::xdp::{Unclaimed, XdpChoice, XdpMode, XdpOptions, XdpProgram},
    link::{NetNs, netns::on_core_in_netns},
};
use dataplane::port::af_packet::{Next, Sharing, SocketOptions, filter, open};

use super::{
    tap::passive_tap,
    writer::{BATCH, Way, Writer},
};
use crate::{
    error::BenchError,
    generator::{Generator, Traffic},
    lab::{Cores, Interrupt, SOURCE, UPLINK},
    measure::{Measured, Stopwatch},
};

const PEER: &str = "raw socket";

/// Of the socket, as much memory as the other loops have.
const RING: usize = 16 << 20;

/// An XDP program on [`UPLINK`] that lets all pass, without which the generator's frames do not arrive: a veth
/// takes redirected frames only if its other end has a program.
pub(super) fn pass(peer: &'static str) -> Result<XdpProgram, BenchError> {
    let options = XdpOptions {
        mode: XdpChoice::Only(XdpMode::Native),
        queues: 1,
        unclaimed: Unclaimed::Pass,
    };
    XdpProgram::attach(&NetNs::own(), UPLINK, &options).map_err(|e| BenchError::peer(peer, e))
}

/// Forwards `count` frames of the traffic.
pub(crate) fn measure(
    cores: Cores,
    traffic: &Traffic,
    count: u64,
    interrupt: &Interrupt,
) -> Result<Measured, BenchError> {
    on_core_in_netns(cores.worker, &NetNs::own(), || {
        let failed = |e: &dyn std::error::Error| BenchError::peer(PEER, e);
        let program = pass(PEER)?;
        let tap = passive_tap("raw")?;
        let options = SocketOptions {
            interface: UPLINK,
            ifindex: Some(program.ifindex()),
            ring: RING,
            incoming_only: true,
            promiscuous: false,
            sharing: Sharing::Alone,
            filter: &filter::ethernet(&[], u32::MAX),
        };
        let (_socket, mut ring) = open(&options).map_err(|e| failed(&e))?;
        let way = Way::Write { nonblocking: true };
        // SAFETY: without io_uring no memory is registered.
        let mut writer = unsafe { Writer::new(tap.fds[0].as_fd(), std::ptr::null_mut(), 0, way) }
            .map_err(|e| failed(&e))?;
        let generator = Generator::start(&NetNs::own(), SOURCE, traffic.clone())?;
        let mut written = 0;
        let mut stopwatch = None;
        while written < count {
            let mut pushed = 0;
            while pushed < BATCH
                && let Next::Frame(frame) = ring.read()
            {
                // Set-up of the generator is over with the first frame.
                stopwatch.get_or_insert_with(Stopwatch::start).resume();
                // SAFETY: write(2) is done with the bytes when it returns.
                unsafe { writer.push(frame.bytes.as_ptr(), frame.bytes.len() as u32) }
                    .map_err(|e| failed(&e))?;
                pushed += 1;
            }
            if pushed == 0 {
                // Waiting for a generator is not this loop's cost.
                if let Some(stopwatch) = &mut stopwatch {
                    stopwatch.pause();
                }
                std::hint::spin_loop();
                if interrupt.is_set() || generator.is_finished() {
                    break;
                }
            }
            written += writer.finish().map_err(|e| failed(&e))? as u64;
        }
        interrupt.check()?;
        let measured = stopwatch.map_or_else(Measured::default, |watch| watch.stop(written));
        generator.stop()?;
        Ok(measured)
    })?
}
