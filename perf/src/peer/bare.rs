//! The best bare loop from AF_XDP to a TAP: no parse, no policy, no counters, nothing that could go wrong
//! handled. What the product has on top of it is what the product costs.

use std::{
    ffi::CString,
    num::NonZeroU32,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use control::{
    kernel::xdp::{Delivery, Unclaimed, XdpChoice, XdpMode, XdpOptions, XdpProgram},
    link::{NetNs, netns::on_core_in_netns, tap::Tap},
};
use xsk_rs::{
    FillQueue, FrameDesc, RxQueue, Socket, Umem,
    config::{FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig},
};

use super::{
    listener::{Audience, Heard},
    tap::passive_tap,
    writer::{BATCH, Way, Writer},
};
use crate::{
    error::BenchError,
    generator::{Generator, Traffic},
    lab::{Cores, Interrupt, SOURCE, UPLINK},
    measure::{Measured, Stopwatch},
    probe::{Distribution, Probe},
    session::HugePages,
};

/// As many slots as the product takes by default, of the same size, and rings as it has them.
pub(super) const SLOTS: u32 = 8192;
const SLOT_SIZE: u32 = 2048;
pub(super) const RING: u32 = 4096;

/// What the loop does of what makes it fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// What memory frames are received into.
    pub(crate) hugepages: HugePages,
    /// Ask for the next batch from memory while the kernel takes the one before.
    pub(crate) prefetch: bool,
    /// How it writes.
    pub(crate) way: Way,
}

impl Options {
    /// All of it.
    pub(crate) fn best(hugepages: HugePages) -> Self {
        Self {
            hugepages,
            prefetch: true,
            way: Way::BEST,
        }
    }
}

/// Forwards `count` frames of the traffic.
pub(crate) fn measure(
    cores: Cores,
    traffic: &Traffic,
    count: u64,
    options: Options,
    audience: Audience,
    interrupt: &Interrupt,
) -> Result<(Measured, Heard), BenchError> {
    on_core_in_netns(cores.worker, &NetNs::own(), || {
        let tap = passive_tap("bare")?;
        let listeners = audience.listen(&tap.name, tap.ifindex)?;
        let mut queue = Queue::open(&tap, options)?;
        let generator = Generator::start(&NetNs::own(), SOURCE, traffic.clone())?;
        let over = || generator.is_finished();
        let measured = queue.forward(count, over, interrupt)?;
        generator.stop()?;
        Ok((measured, listeners.finish()?))
    })?
}

/// Forwards stamped traffic of a limited rate and number for at most `time`, with a probe on the TAP.
pub(crate) fn probe(
    cores: Cores,
    traffic: &Traffic,
    time: Duration,
    options: Options,
    interrupt: &Interrupt,
) -> Result<(Measured, Distribution), BenchError> {
    on_core_in_netns(cores.worker, &NetNs::own(), || {
        let tap = passive_tap("bare0")?;
        let probe = Probe::attach(&tap.name)?;
        let mut queue = Queue::open(&tap, options)?;
        let generator = Generator::start(&NetNs::own(), SOURCE, traffic.clone())?;
        let end = Instant::now() + time;
        let count = traffic.count.unwrap_or(u64::MAX);
        let measured = queue.forward(count, || Instant::now() > end, interrupt)?;
        generator.stop()?;
        Ok((measured, probe.read()?))
    })?
}

/// One queue and what writes its frames.
pub(super) struct Queue<'tap> {
    writer: Writer<'tap>,
    prefetch: bool,
    rx: RxQueue,
    fill: FillQueue,
    base: *const u8,
    // The ring's memory and descriptors, and what leads frames to the socket.
    _umem: Umem,
    _program: XdpProgram,
}

impl<'tap> Queue<'tap> {
    pub(super) fn open(tap: &'tap Tap, options: Options) -> Result<Self, BenchError> {
        let bare = |error: &dyn std::error::Error| {
            let mut text = error.to_string();
            if let Some(cause) = error.source() {
                text = format!("{text}: {cause}");
            }
            BenchError::peer("bare loop", text)
        };
        let claimed = XdpOptions {
            mode: XdpChoice::Only(XdpMode::Native),
            queues: 1,
            unclaimed: Unclaimed::Drop,
        };
        let mut program =
            XdpProgram::attach(&NetNs::own(), UPLINK, &claimed).map_err(|e| bare(&e))?;
        program.claim(0).map_err(|e| bare(&e))?;

        let (umem, mut fresh) = umem(options.hugepages).map_err(|e| bare(&*e))?;
        let socket = SocketConfig::builder()
            .rx_queue_size(QueueSize::new(RING).map_err(|e| bare(&e))?)
            .tx_queue_size(QueueSize::new(RING).map_err(|e| bare(&e))?)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .build();
        let interface = Interface::new(CString::new(UPLINK).map_err(|e| bare(&e))?);
        // SAFETY: the UMEM is new and has no other socket.
        let (_tx, rx, rings) =
            unsafe { Socket::new(socket, &umem, &interface, 0) }.map_err(|e| bare(&e))?;
        let (mut fill, _completion) =
            rings.ok_or_else(|| BenchError::peer("bare loop", "the socket came without rings"))?;
        // SAFETY: only the address is taken.
        let first = unsafe { umem.data_mut(&mut fresh[0]) }
            .contents_mut()
            .as_mut_ptr();
        let base = first.wrapping_sub(fresh[0].addr());
        // SAFETY: the descriptors are the UMEM's own and nobody else uses them.
        unsafe { fill.produce(&fresh) };
        program
            .set(0, rx.fd(), Delivery::Any)
            .map_err(|e| bare(&e))?;

        let bytes = (SLOTS * SLOT_SIZE) as usize;
        // SAFETY: the UMEM is dropped after the writer, by the order of the fields.
        let writer = unsafe { Writer::new(tap.fds[0].as_fd(), base, bytes, options.way) }
            .map_err(BenchError::bare("bare loop"))?;
        Ok(Self {
            writer,
            prefetch: options.prefetch,
            rx,
            fill,
            base,
            _umem: umem,
            _program: program,
        })
    }

    /// Takes what has arrived, and asks for its bytes from memory.
    #[inline]
    pub(super) fn receive(&mut self, batch: &mut [FrameDesc; BATCH]) -> usize {
        // SAFETY: the descriptors are of this socket's UMEM.
        let n = unsafe { self.rx.consume(batch) };
        if !self.prefetch {
            return n;
        }
        for frame in &batch[..n] {
            for line in (0..frame.lengths().data()).step_by(64) {
                prefetch(self.base.wrapping_add(frame.addr() + line));
            }
        }
        n
    }

    /// Gives slots back to the kernel, to receive into.
    pub(super) fn give_back(&mut self, batch: &[FrameDesc]) {
        // SAFETY: the caller took them from the receive ring and is done with them; no other socket has them.
        unsafe { self.fill.produce(batch) };
    }

    /// Until `count` frames are written, or it is `over` while there are none.
    fn forward(
        &mut self,
        count: u64,
        over: impl Fn() -> bool,
        interrupt: &Interrupt,
    ) -> Result<Measured, BenchError> {
        let mut batch = [FrameDesc::default(); BATCH];
        let mut ahead = [FrameDesc::default(); BATCH];
        let mut written = 0;
        let mut stopwatch: Option<Stopwatch> = None;
        let mut idle = false;
        // The next batch is asked for from memory while the kernel still takes this one.
        let mut next = 0;
        while written < count {
            std::mem::swap(&mut batch, &mut ahead);
            let n = next;
            next = self.receive(&mut ahead);
            if n == 0 && next == 0 {
                // Waiting for a generator that another program keeps from its core is not this loop's cost.
                if let Some(stopwatch) = stopwatch.as_mut().filter(|_| !idle) {
                    stopwatch.pause();
                }
                idle = true;
                std::hint::spin_loop();
                if interrupt.is_set() || over() {
                    break;
                }
                continue;
            }
            match &mut stopwatch {
                // Set-up of the generator is over with the first frame.
                None => stopwatch = Some(Stopwatch::start()),
                Some(stopwatch) if idle => stopwatch.resume(),
                Some(_) => {}
            }
            idle = false;
            if n == 0 {
                continue;
            }
            for frame in &batch[..n] {
                let bytes = self.base.wrapping_add(frame.addr());
                // SAFETY: the kernel's descriptors are within the UMEM, and their frames are ours until
                // they go back to the fill ring.
                unsafe { self.writer.push(bytes, frame.lengths().data() as u32) }
                    .map_err(BenchError::bare("bare loop"))?;
            }
            written += self
                .writer
                .finish()
                .map_err(BenchError::bare("bare loop"))? as u64;
            self.give_back(&batch[..n]);
        }
        interrupt.check()?;
        Ok(match stopwatch {
            Some(stopwatch) => stopwatch.stop(written),
            None => Measured::default(),
        })
    }
}

pub(super) fn umem(
    hugepages: HugePages,
) -> Result<(Umem, Vec<FrameDesc>), Box<dyn std::error::Error + Send + Sync>> {
    let config = UmemConfig::builder()
        .frame_size(FrameSize::new(SLOT_SIZE)?)
        .fill_queue_size(QueueSize::new(SLOTS)?)
        .comp_queue_size(QueueSize::new(RING)?)
        .build()?;
    let count = NonZeroU32::new(SLOTS).ok_or("no slots")?;
    if hugepages != HugePages::Off {
        match Umem::new(config, count, true) {
            Ok(made) => return Ok(made),
            Err(e) if hugepages == HugePages::Require => return Err(e.into()),
            Err(_) => {}
        }
    }
    Ok(Umem::new(config, count, false)?)
}

#[inline]
pub(super) fn prefetch(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint without an effect on memory; SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
