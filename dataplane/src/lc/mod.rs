//! A device that tools listen on, for programs that have frames of their own to show: [`Lc`] makes it, writes
//! to it and takes it away.
//!
//! It is what the daemon's `lc0` is, without the daemon: the same slots, ring and port, driven by the calling
//! thread instead of a worker. Every tool that listens gets its own copy of every frame.

mod link;
#[cfg(test)]
mod tests;

use std::{fmt, io, marker::PhantomData, os::fd::OwnedFd, sync::Arc};

use crate::{
    frame::{HugePages, Region, RegionError, RegionId, Staged},
    policy::Reason,
    port::{
        Io, Place, Port, SHORTEST,
        tap::{
            Layer, TapOptions, TapPort,
            device::{self, DeviceError},
        },
    },
    worker::{
        counters::TxCounters,
        ring::{Completion, Op, Ring, RingError},
        wake::Waker,
    },
};

/// An Ethernet header and two VLAN tags: what a frame has beside its MTU.
const HEADERS: usize = 14 + 8;

/// Frames that are handed to the kernel together.
const BATCH: usize = 64;

/// Bytes of frame memory, as far as that makes a sensible number of slots: half of what an ordinary user
/// may often lock.
const MEMORY: usize = 4 << 20;

/// A TAP device of this program's own, for tools to listen on. Dropped, it is gone.
///
/// It has no address, no ARP and no IPv6, so that the host, whose network stack sees the frames too, answers none
/// of them. A frame is *received* by the interface: tools see it as if it came from a wire, at the time
/// at which the kernel takes it. What nobody listens for is gone.
///
/// Frames are gathered and handed to the kernel by 64; [`flush`](Self::flush) hands over the rest. The thread that made it is
/// the one that may use it: the kernel binds the ring to it.
///
/// Making a device takes CAP_NET_ADMIN in the network namespace of the calling thread, which is where it
/// is made.
pub struct Lc {
    name: String,
    longest: usize,
    port: TapPort,
    io: Io,
    region: RegionId,
    /// Frames that wait to be handed over.
    gathered: Vec<Staged>,
    completions: Vec<Completion>,
    /// How the counters stood when losses were told last.
    told: TxCounters,
    /// What ended it, in words.
    end: Option<String>,
    notes: Vec<String>,
    _of_one_thread: PhantomData<*const ()>,
}

/// What is to be made: see [`Lc::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    name: String,
    mtu: u32,
}

impl Builder {
    /// The device's MTU in bytes, 68 to 65,521; 1,500 unless told. Frames may be 22 bytes longer: an Ethernet
    /// header and two VLAN tags. Tools size their buffers by it.
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// Makes the device.
    ///
    /// # Errors
    ///
    /// When the name is none or in use, the kernel refuses, or there is no memory. Nothing is left behind then.
    pub fn create(self) -> Result<Lc, LcError> {
        let Self { name, mtu } = self;
        let longest = mtu as usize + HEADERS;
        let mut fds = device::make(&name, Layer::Ethernet, 1)?;
        let refused = |what, error| LcError::SetUp {
            name: name.clone(),
            what,
            error,
        };
        link::set_mtu(&name, mtu).map_err(|e| refused(format!("give it an MTU of {mtu}"), e))?;
        let mut notes = Vec::new();
        if let Err(error) = device::disable_ipv6(&name) {
            notes.push(format!(
                "{name}: IPv6 stays on, so the host will send router solicitations there \
                 (net.ipv6.conf.{name}.disable_ipv6: {error})"
            ));
        }
        // Without ARP from the first moment that it is up.
        link::set_up(&name).map_err(|e| refused("take it up".into(), e))?;

        let mut lc = Lc::over(&name, longest, fds.remove(0), Ring::new()?)?;
        lc.notes = notes;
        Ok(lc)
    }
}

impl Lc {
    /// Writes to a device that is there.
    fn over(name: &str, longest: usize, queue: OwnedFd, ring: Ring) -> Result<Self, LcError> {
        let waker = Waker::new().map_err(|error| LcError::SetUp {
            name: name.into(),
            what: "open an eventfd for it".into(),
            error,
        })?;
        let slots = (MEMORY / longest).clamp(BATCH, 2048) as u32;
        let mut io = Io::new(ring, Arc::new(waker), 1, slots as usize);
        let memory = Region::map(slots, longest, 0, HugePages::Off)?;
        let region = io.pool.add(memory).expect("the first region fits");
        io.ring.register(region, io.pool.region(region))?;
        let options = TapOptions {
            layer: Layer::Ethernet,
            longest,
            source: false,
            threads: false,
            gso: false,
        };
        let mut port = TapPort::new(name, queue, options);
        port.attach(&mut io, Place::default())
            .map_err(|failure| LcError::Gone(failure.message))?;
        Ok(Self {
            name: name.into(),
            longest,
            port,
            io,
            region,
            gathered: Vec::with_capacity(BATCH),
            completions: Vec::with_capacity(2 * BATCH),
            told: TxCounters::default(),
            end: None,
            notes: Vec::new(),
            _of_one_thread: PhantomData,
        })
    }

    /// Makes a device with an MTU of 1,500.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::create`].
    pub fn create(name: &str) -> Result<Self, LcError> {
        Self::builder(name).create()
    }

    /// A device of this name, of which more is to be said. The name has at most 15 bytes.
    pub fn builder(name: &str) -> Builder {
        Builder {
            name: name.into(),
            mtu: 1500,
        }
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What could not be had, one line each; of no harm to the frames.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Takes a copy of an Ethernet frame, without its check sequence, and hands it to the kernel with those
    /// that come next. Waits where the kernel is behind; drops nothing for want of room.
    ///
    /// # Errors
    ///
    /// When it is shorter than an Ethernet header or longer than the device takes: then it is not counted
    /// either. When frames were lost since the last error, or the device is gone: this one was taken all the
    /// same, and is among those that are lost or will be written.
    pub fn write(&mut self, frame: &[u8]) -> Result<(), LcError> {
        if !(SHORTEST..=self.longest).contains(&frame.len()) {
            return Err(LcError::Length {
                name: self.name.clone(),
                length: frame.len(),
                longest: self.longest,
            });
        }
        let mut handed = false;
        let mut empty = loop {
            match self.io.pool.alloc(self.region) {
                Some(empty) => break empty,
                None => self.hand_over(true)?,
            }
            handed = true;
        };
        let fits = self.io.pool.fill(&mut empty, frame);
        debug_assert!(fits, "slots are as long as the longest frame");
        self.gathered.push(self.io.pool.stage(empty));
        if self.gathered.len() == BATCH {
            self.hand_over(false)?;
            handed = true;
        }
        match handed {
            true => self.tell(),
            false => Ok(()),
        }
    }

    /// Hands all frames to the kernel, and waits until it has taken them: listeners have them then.
    ///
    /// # Errors
    ///
    /// When some were lost since the last error, or the device is gone. It waits for the others all the same.
    pub fn flush(&mut self) -> Result<(), LcError> {
        self.hand_over(false)?;
        while self.port.in_flight() > 0 {
            self.hand_over(true)?;
        }
        self.tell()
    }

    /// What became of the frames: offered, written and their bytes, lost and why. Those that wait to be
    /// handed over are not offered yet.
    pub fn counters(&self) -> &TxCounters {
        &self.io.counters[0].tx
    }

    /// Hands over what is gathered, waits for an answer if told to, and takes the answers.
    fn hand_over(&mut self, wait: bool) -> Result<(), LcError> {
        self.port.stage(&mut self.io, &mut self.gathered);
        self.port.flush(&mut self.io);
        let refused = |name: &str, error| LcError::SetUp {
            name: name.to_owned(),
            what: "hand it frames".into(),
            error,
        };
        self.io.ring.submit().map_err(|e| refused(&self.name, e))?;
        if !self.reap() && wait && self.port.in_flight() > 0 {
            self.io
                .ring
                .sleep(None)
                .map_err(|e| refused(&self.name, e))?;
            self.reap();
        }
        Ok(())
    }

    /// Takes the kernel's answers. Tells whether there were any.
    fn reap(&mut self) -> bool {
        let mut any = false;
        loop {
            self.completions.clear();
            if self.io.ring.reap(&mut self.completions) == 0 {
                return any;
            }
            any = true;
            for &completion in &self.completions {
                if completion.tag.op == Op::Write {
                    self.port.complete(&mut self.io, completion);
                }
            }
        }
    }

    /// Says, once, what was lost since it was asked before.
    fn tell(&mut self) -> Result<(), LcError> {
        if let Some(failure) = self.port.failure()
            && failure.fatal
        {
            self.end = Some(failure.message);
        }
        let now = *self.counters();
        let lost = now.dropped.total() - self.told.dropped.total();
        if lost == 0 {
            return Ok(());
        }
        let reason = Reason::ALL
            .iter()
            .copied()
            .find(|&reason| now.dropped.get(reason) > self.told.dropped.get(reason));
        self.told = now;
        match &self.end {
            Some(end) => Err(LcError::Gone(end.clone())),
            None => Err(LcError::Lost {
                name: self.name.clone(),
                frames: lost,
                reason: reason.unwrap_or(Reason::WriteError),
            }),
        }
    }
}

impl Drop for Lc {
    fn drop(&mut self) {
        let _ = self.flush();
        // The ring lets go of the device, or the device would stay until the ring is taken down.
        self.port.close(&mut self.io, Reason::Shutdown);
    }
}

impl fmt::Debug for Lc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lc")
            .field("name", &self.name)
            .field("counters", self.counters())
            .finish_non_exhaustive()
    }
}

/// Why there is no device, or why a frame is not on it. Each says in one line what to do.
#[derive(Debug, thiserror::Error)]
pub enum LcError {
    /// It cannot be made.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// It was made, and cannot be set up or written to.
    #[error("{name}: cannot {what}: {error}; {}", remedy(error))]
    SetUp {
        /// The device.
        name: String,
        /// What was tried.
        what: String,
        /// From ioctl(2), eventfd(2) or io_uring_enter(2).
        error: io::Error,
    },
    /// There is no memory for frames.
    #[error(transparent)]
    Memory(#[from] RegionError),
    /// There is no io_uring, or it does not take the memory.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// No device takes such a frame.
    #[error(
        "{name}: a frame of {length} bytes; it takes {SHORTEST} to {longest}: give it whole Ethernet frames, or a larger MTU"
    )]
    Length {
        /// The device.
        name: String,
        /// Of the frame, in bytes.
        length: usize,
        /// What the device takes, in bytes.
        longest: usize,
    },
    /// The kernel did not take some frames. Later ones may get through.
    #[error("{name}: {frames} frames were not written ({}); {}", reason.name(), lost_remedy(*reason, name))]
    Lost {
        /// The device.
        name: String,
        /// How many, since this was told before.
        frames: u64,
        /// Why the first of them was not.
        reason: Reason,
    },
    /// The device is gone; no frame gets through any more.
    #[error("{0}")]
    Gone(String),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => "this needs CAP_NET_ADMIN in that namespace: run as root",
        Some(libc::EINVAL) => "an MTU is 68 to 65521",
        Some(libc::ENODEV) => "somebody has removed or renamed it: make it anew",
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit on open files (ulimit -n)",
        _ => "see dmesg",
    }
}

fn lost_remedy(reason: Reason, name: &str) -> String {
    match reason {
        Reason::LinkDown => format!("take it up: ip link set {name} up"),
        _ => "see dmesg".into(),
    }
}
