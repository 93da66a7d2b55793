//! The best bare loop from AF_XDP to AF_XDP, both ways: one UMEM for both interfaces, so that no frame is
//! copied in user space; no policy, no counters, nothing that could go wrong handled.

use std::{
    ffi::CString,
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use control::{
    kernel::xdp::{Delivery, Unclaimed, XdpChoice, XdpMode, XdpOptions, XdpProgram},
    link::{NetNs, netns::on_core_in_netns},
};
use dataplane::packet::{finish_partial, parse};
use nix::sys::socket::{MsgFlags, send};
use xsk_rs::{
    CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem,
    config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig},
};

use super::{
    bare::{RING, SLOTS, prefetch, umem},
    writer::BATCH,
};
use crate::{
    error::BenchError,
    lab::{Cores, Interrupt, OUT, UPLINK},
    measure::{Measured, Stopwatch},
    session::HugePages,
};

const NAME: &str = "bare loop";

/// From include/uapi/linux/if_xdp.h (Linux 6.18): how many frames a kick takes in copy mode.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Forwards between [`UPLINK`] and [`OUT`] on the worker's core while `work` runs. With `checksums`, finishes
/// those that the senders left to their devices.
pub(crate) fn measure<T>(
    cores: Cores,
    hugepages: HugePages,
    checksums: bool,
    interrupt: &Interrupt,
    work: impl FnOnce() -> Result<T, BenchError>,
) -> Result<(Measured, T), BenchError> {
    let (ready, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let forwarder = scope.spawn(|| {
            on_core_in_netns(cores.worker, &NetNs::own(), || {
                let mut between = Between::open(hugepages)?;
                ready.store(true, Ordering::Release);
                Ok::<_, BenchError>(between.forward(checksums, &stop))
            })
        });
        while !ready.load(Ordering::Acquire) && !forwarder.is_finished() && !interrupt.is_set() {
            thread::sleep(Duration::from_millis(1));
        }
        // A forwarder that failed says why.
        let done = ready.load(Ordering::Acquire).then(work);
        stop.store(true, Ordering::Release);
        let measured = forwarder
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let measured = measured??;
        interrupt.check()?;
        match done {
            Some(done) => Ok((measured, done?)),
            None => Err(BenchError::peer(NAME, "it did not start")),
        }
    })
}

fn bare(error: &dyn std::error::Error) -> BenchError {
    let text = match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    BenchError::peer(NAME, text)
}

/// One interface.
struct Side {
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    _program: XdpProgram,
}

/// Both, and the memory of both.
struct Between {
    sides: [Side; 2],
    base: *mut u8,
    _umem: Umem,
}

impl Between {
    fn open(hugepages: HugePages) -> Result<Self, BenchError> {
        let (umem, mut fresh) = umem(hugepages).map_err(|e| bare(&*e))?;
        // SAFETY: only the address is taken.
        let first = unsafe { umem.data_mut(&mut fresh[0]) }
            .contents_mut()
            .as_mut_ptr();
        let base = first.wrapping_sub(fresh[0].addr());
        let (left, right) = fresh.split_at(SLOTS as usize / 2);
        Ok(Self {
            sides: [
                Side::open(&umem, UPLINK, left)?,
                Side::open(&umem, OUT, right)?,
            ],
            base,
            _umem: umem,
        })
    }

    fn forward(&mut self, checksums: bool, stop: &AtomicBool) -> Measured {
        let mut batch = [FrameDesc::default(); BATCH];
        let mut frames = 0;
        let mut stopwatch: Option<Stopwatch> = None;
        let mut idle = false;
        let mut empty = 0;
        while !stop.load(Ordering::Relaxed) {
            let mut moved = 0;
            for from in [0, 1] {
                let (source, sink) = match &mut self.sides {
                    [left, right] if from == 0 => (left, right),
                    [left, right] => (right, left),
                };
                // What the sink has sent goes back to where it was received.
                // SAFETY: the descriptors are of the one UMEM, and the kernel is done with these frames.
                unsafe {
                    let n = sink.completion.consume(&mut batch);
                    if n > 0 {
                        source.fill.produce(&batch[..n]);
                    }
                }
                // SAFETY: as above.
                let n = unsafe { source.rx.consume(&mut batch) };
                if n > 0 {
                    if checksums {
                        finish(self.base, &batch[..n]);
                    }
                    // SAFETY: received frames are ours until they are sent.
                    unsafe { sink.tx.produce(&batch[..n]) };
                }
                if n > 0 || sink.tx.nb_free(RING) < RING {
                    let _ = send(sink.tx.fd().as_raw_fd(), &[], MsgFlags::MSG_DONTWAIT);
                }
                moved += n;
            }
            frames += moved as u64;
            if moved > 0 {
                match &mut stopwatch {
                    // Set-up is over with the first frame.
                    None => stopwatch = Some(Stopwatch::start()),
                    Some(stopwatch) if idle => stopwatch.resume(),
                    Some(_) => {}
                }
                (idle, empty) = (false, 0);
                continue;
            }
            std::hint::spin_loop();
            empty += 1;
            // Waiting is not this loop's cost; short gaps cost less than reading the clock.
            if empty == 64 && !idle {
                if let Some(stopwatch) = &mut stopwatch {
                    stopwatch.pause();
                }
                idle = true;
            }
        }
        stopwatch.map_or_else(Measured::default, |stopwatch| stopwatch.stop(frames))
    }
}

/// Finishes what checksums are not.
fn finish(base: *mut u8, batch: &[FrameDesc]) {
    for frame in batch {
        prefetch(base.wrapping_add(frame.addr()));
    }
    for frame in batch {
        let (at, len) = (base.wrapping_add(frame.addr()), frame.lengths().data());
        // SAFETY: the kernel's descriptors are within the UMEM, and their frames are ours until they are
        // sent; nothing else refers to these bytes.
        let bytes = unsafe { std::slice::from_raw_parts_mut(at, len) };
        let headers = parse(bytes);
        finish_partial(bytes, &headers);
    }
}

impl Side {
    fn open(umem: &Umem, interface: &str, frames: &[FrameDesc]) -> Result<Self, BenchError> {
        let options = XdpOptions {
            mode: XdpChoice::Only(XdpMode::Native),
            queues: 1,
            unclaimed: Unclaimed::Drop,
        };
        let mut program =
            XdpProgram::attach(&NetNs::own(), interface, &options).map_err(|e| bare(&e))?;
        program.claim(0).map_err(|e| bare(&e))?;
        let ring = QueueSize::new(RING).map_err(|e| bare(&e))?;
        let config = SocketConfig::builder()
            .rx_queue_size(ring)
            .tx_queue_size(ring)
            .bind_flags(BindFlags::XDP_USE_NEED_WAKEUP)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .build();
        let name = Interface::new(CString::new(interface).map_err(|e| bare(&e))?);
        // SAFETY: each of the UMEM's frames is given to one of its sockets alone.
        let (tx, rx, rings) =
            unsafe { Socket::new(config, umem, &name, 0) }.map_err(|e| bare(&e))?;
        let (mut fill, completion) =
            rings.ok_or_else(|| BenchError::peer(NAME, "the socket came without rings"))?;
        // SAFETY: the descriptors are the UMEM's own and no other socket has them.
        unsafe { fill.produce(frames) };
        let budget: libc::c_int = BATCH as libc::c_int * 2;
        // SAFETY: `budget` is a readable int. An older kernel refuses, and takes 32 frames a kick.
        unsafe {
            libc::setsockopt(
                tx.fd().as_raw_fd(),
                libc::SOL_XDP,
                XDP_MAX_TX_SKB_BUDGET,
                (&raw const budget).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        program
            .set(0, rx.fd(), Delivery::Any)
            .map_err(|e| bare(&e))?;
        Ok(Self {
            rx,
            tx,
            fill,
            completion,
            _program: program,
        })
    }
}
