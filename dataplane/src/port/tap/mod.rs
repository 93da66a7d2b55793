//! A TAP queue, as source and sink, from and into slots; or a TUN queue, which differs in that IP packets
//! go through it instead of Ethernet frames.
//!
//! A frame written to the descriptor is *received* by the interface: the kernel runs its receive path
//! within the write (drivers/net/tun.c, `tun_get_user`), so that a write completes at once and costs
//! what that path costs. A queue that is only a sink is written through io_uring or by write(2), whichever
//! costs less here; one that is also a source through io_uring. Reads are parked there: the kernel fills them
//! as the host sends. Where io_uring would have threads of its own read and write, one overtaking the other, it has one
//! read at a time, and no write that can be made by write(2).

pub mod device;
mod packet;
#[cfg(test)]
mod tests;
mod train;

use std::{
    collections::VecDeque,
    fmt,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

pub use self::packet::{DESTINATION_ADDRESS, SOURCE_ADDRESS};
use super::{Io, Place, Port, PortFailure, SHORTEST, Wait};
use crate::{
    frame::{Frame, Staged},
    policy::Reason,
    worker::ring::{Completion, Gathered, Header, Op, Target, direct},
};
use train::Train;

/// Reads that wait in the kernel; 64 do 30 % better than read(2), and stay in order.
const PARKED: usize = 64;

/// A frame in several slots is written without one.
const NO_HEADER: Header<'static> = Header {
    bytes: &[],
    instead_of: 0,
};

/// What goes through a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layer {
    /// Ethernet frames, through a TAP device.
    #[default]
    Ethernet,
    /// IP packets, through a TUN device. A frame that is written leaves its Ethernet header, VLAN tags and
    /// padding behind; one that is read gets a header from [`SOURCE_ADDRESS`] to [`DESTINATION_ADDRESS`].
    Ip,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layer::Ethernet => "TAP",
            Layer::Ip => "TUN",
        })
    }
}

/// What a TAP port is told when it is made.
#[derive(Clone, Copy, Debug)]
pub struct TapOptions {
    /// What goes through its device.
    pub layer: Layer,
    /// The longest that goes through, in bytes: a frame with Ethernet header and tags, or an IP packet.
    pub longest: usize,
    /// Whether the worker receives from it.
    pub source: bool,
    /// Whether io_uring would hand each read and write of a source to one of several threads, because the queue has no
    /// way to answer that it would wait (see [`device::is_nowait`]).
    pub threads: bool,
    /// Whether TCP segments that stand one behind the other are written as one, as a card hands them on that
    /// has merged them. The device must have been [made](device::make) for that.
    pub gso: bool,
}

/// One queue of a TAP or TUN device.
#[derive(Debug)]
// Control boxes the ports of all workers one after another: by its alignment (x86 fetches lines in pairs) none
// shares a cache line with a port of another worker.
#[repr(align(128))]
pub struct TapPort {
    name: String,
    queue: OwnedFd,
    /// The queue as the ring knows it.
    file: Target,
    /// The queue's descriptor does not block: its writes can do without the ring.
    not_blocking: bool,
    /// They do, because it costs less here, or because the ring would not keep their order.
    direct: bool,
    /// The ring does not keep the order of what it has at the same time.
    serial: bool,
    /// Reads that wait in the kernel at a time.
    reads: usize,
    options: TapOptions,
    place: Place,
    /// Shares that wait for the next flush.
    staged: VecDeque<Staged>,
    /// Shares in the kernel.
    writing: usize,
    /// Reads in the kernel.
    parked: usize,
    /// What finished reads brought, oldest first.
    arrived: Vec<Frame>,
    failure: Option<PortFailure>,
    complained: bool,
    /// The last write found the link down.
    down: bool,
    dead: bool,
}

impl TapPort {
    /// A port over an attached queue. The descriptor of a source must be blocking (no O_NONBLOCK), so
    /// that io_uring parks reads instead of answering EAGAIN.
    pub fn new(name: impl Into<String>, queue: OwnedFd, options: TapOptions) -> Self {
        let mut not_blocking = false;
        if !options.source {
            // Before Linux 6.4 a tun file has no FMODE_NOWAIT: io_uring would hand each write to one of
            // several threads, and frames would overtake one another. O_NONBLOCK keeps them here
            // (io_uring/rw.c, io_file_supports_nowait). Refused, they are only in disorder there.
            not_blocking =
                fcntl(&queue, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK)).is_ok();
        }
        Self {
            name: name.into(),
            file: Target::Plain(queue.as_raw_fd()),
            queue,
            not_blocking,
            direct: false,
            serial: options.source && options.threads,
            reads: if options.threads { 1 } else { PARKED },
            options,
            place: Place::default(),
            staged: VecDeque::new(),
            writing: 0,
            parked: 0,
            arrived: Vec::with_capacity(2 * PARKED),
            failure: None,
            complained: false,
            down: false,
            dead: false,
        }
    }

    fn park(&mut self, io: &mut Io) {
        let Some(region) = io.own_region else { return };
        while !self.dead && self.parked + self.arrived.len() < self.reads {
            let Some(empty) = io.pool.alloc(region) else {
                return;
            };
            if let Err(empty) = io.read(self.file, self.place, empty) {
                io.pool.free(empty);
                return;
            }
            self.parked += 1;
        }
    }

    /// Whether what comes next would overtake what the ring has.
    #[inline]
    fn must_wait(&self) -> bool {
        self.serial && self.writing > 0
    }

    /// Whether the kernel takes a share; of a TUN device's only the packet is left.
    #[inline]
    fn fit_out(&self, io: &Io, staged: &mut Staged) -> Result<(), Reason> {
        match self.options.layer {
            Layer::Ethernet if staged.len() < SHORTEST => return Err(Reason::TooShort),
            Layer::Ethernet => {}
            Layer::Ip => packet::leave_packet(&io.pool, staged)?,
        }
        if staged.len() > self.options.longest {
            return Err(Reason::TooLong);
        }
        Ok(())
    }

    /// Whether what was read becomes a frame; a TUN device's packet gets a header for it.
    #[inline]
    fn fit_in(&self, io: &mut Io, frame: &mut Frame) -> Result<(), Reason> {
        if frame.len() > self.options.longest {
            return Err(Reason::TooLong);
        }
        match self.options.layer {
            Layer::Ethernet if frame.len() < SHORTEST => Err(Reason::TooShort),
            Layer::Ethernet => Ok(()),
            Layer::Ip => packet::put_header(&mut io.pool, frame),
        }
    }

    fn read_done(&mut self, io: &mut Io, done: Completion) {
        self.parked -= 1;
        let slot = done.tag.slot;
        if done.result > 0 {
            let headroom = io.pool.region(slot.region).headroom();
            if let Some(mut frame) = io.pool.receive(slot, headroom, done.result as usize) {
                if self.options.gso {
                    // It says nothing: without TUNSETOFFLOAD the host cuts and sums all that it sends.
                    frame.cut_front(train::VIRTIO.min(frame.len()));
                }
                self.arrived.push(frame);
            }
            return;
        }
        io.pool.reclaim(slot);
        match -done.result {
            libc::EAGAIN | libc::EINTR | libc::ECANCELED => {}
            errno => self.die(io, errno, "read from"),
        }
    }

    fn write_done(&mut self, io: &mut Io, done: Completion) {
        io.pool.complete(done.tag.slot);
        self.written(io, done.result, Gathered::one(done.result));
    }

    /// A write of so many frames by the ring has come back.
    fn written(&mut self, io: &mut Io, result: i32, what: Gathered) {
        self.writing -= what.frames as usize;
        self.count(io, result, what);
    }

    /// Counts what came of a write of so many frames, which the kernel takes or refuses as a whole.
    #[inline]
    fn count(&mut self, io: &mut Io, result: i32, what: Gathered) {
        let tx = &mut io.count(self.place.index).tx;
        if result >= 0 {
            tx.frames += what.frames;
            tx.bytes += what.bytes;
            tx.trains += u64::from(what.frames > 1);
            self.down = false;
            return;
        }
        match -result {
            // IFF_UP is not set; the device is still there.
            libc::EIO => {
                tx.dropped.add(Reason::LinkDown, what.frames);
                self.link_down(io);
            }
            errno @ (libc::EBADFD | libc::EBADF | libc::ENODEV) => {
                tx.dropped.add(Reason::LinkDown, what.frames);
                self.die(io, errno, "write to");
            }
            errno => {
                tx.dropped.add(Reason::WriteError, what.frames);
                self.complain(io, errno);
            }
        }
    }

    /// Writes what is staged, with a virtio header before each write and TCP trains coupled.
    fn flush_trains(&mut self, io: &mut Io) {
        while !self.staged.is_empty() && !self.must_wait() {
            // A frame in several slots goes alone: a train is made of bytes that stand together.
            let whole = self.staged.iter().take_while(|share| !share.is_chain());
            let train = Train::of(whole.map(|share| io.pool.staged_bytes(share)));
            let (header, n) = match &train {
                Some(train) => {
                    let header = Header {
                        bytes: train.header(),
                        instead_of: train.instead_of,
                    };
                    (header, train.frames)
                }
                None => {
                    let header = Header {
                        bytes: &train::ALONE,
                        instead_of: 0,
                    };
                    (header, 1)
                }
            };
            if !io.write_parts(self.file, self.place, header, &mut self.staged, n) {
                // The ring has no room: the rest keeps its order and waits for the next turn.
                return;
            }
            self.writing += n;
        }
    }

    /// Remembers that the link is down, once until something can be written again.
    #[cold]
    fn link_down(&mut self, io: &mut Io) {
        if !std::mem::replace(&mut self.down, true) {
            io.trouble = true;
            self.failure = Some(PortFailure::first(format!(
                "{0} is down: its frames are counted as link_down; ip link set {0} up",
                self.name
            )));
        }
    }

    /// Remembers the first write that the kernel refused; the others are counted.
    #[cold]
    fn complain(&mut self, io: &mut Io, errno: i32) {
        if !std::mem::replace(&mut self.complained, true) {
            io.trouble = true;
            self.failure = Some(PortFailure::first(format!(
                "a write to {} failed: {}; it and further ones are counted as write_error",
                self.name,
                std::io::Error::from_raw_os_error(errno)
            )));
        }
    }

    #[cold]
    fn die(&mut self, io: &mut Io, errno: i32, what: &str) {
        if !self.dead {
            io.trouble = true;
            self.dead = true;
            self.failure = Some(PortFailure::fatal(format!(
                "cannot {what} {}: {}: the device was removed by someone else; restart to have it again",
                self.name,
                std::io::Error::from_raw_os_error(errno)
            )));
        }
    }
}

impl Port for TapPort {
    fn attach(&mut self, io: &mut Io, place: Place) -> Result<(), PortFailure> {
        self.place = place;
        if self.options.source {
            let headroom = match self.options.layer {
                Layer::Ethernet => 0,
                Layer::Ip => packet::HEADER,
            };
            io.region_for(&self.name, headroom)?;
        }
        if self.options.gso {
            io.ring.prepare_gathers();
        }
        self.file = io.ring.show(self.queue.as_fd(), place);
        self.direct = self.serial || self.not_blocking && io.ring.calls_are_cheaper();
        self.staged.reserve(io.sink_cap);
        if self.options.source {
            self.park(io);
        }
        Ok(())
    }

    fn receive(&mut self, io: &mut Io, batch: &mut Vec<Frame>, budget: usize) {
        if self.arrived.is_empty() {
            if self.parked == 0 && self.options.source {
                // There was no free slot when the last read came back.
                self.park(io);
            }
            return;
        }
        let n = budget.min(self.arrived.len());
        // Out of `self`, which is asked about each of them.
        let mut arrived = std::mem::take(&mut self.arrived);
        for mut frame in arrived.drain(..n) {
            io.count(self.place.index).rx.receive(frame.len());
            match self.fit_in(io, &mut frame) {
                Ok(()) => batch.push(frame),
                Err(reason) => {
                    io.count(self.place.index).rx.dropped.add(reason, 1);
                    io.pool.free(frame);
                }
            }
        }
        self.arrived = arrived;
        self.park(io);
    }

    fn looks(&self) -> bool {
        true
    }

    fn wait(&mut self, io: &mut Io) -> Wait {
        if !self.arrived.is_empty() {
            Wait::Ready
        } else if self.dead {
            Wait::Done
        } else {
            if self.options.source {
                self.park(io);
            }
            Wait::Event
        }
    }

    fn stage(&mut self, io: &mut Io, frames: &mut Vec<Staged>) {
        let index = self.place.index;
        io.count(index).tx.offered += frames.len() as u64;
        for mut staged in frames.drain(..) {
            if self.dead {
                io.refuse(index, staged, Reason::LinkDown);
            } else if let Err(reason) = self.fit_out(io, &mut staged) {
                io.refuse(index, staged, reason);
            } else if self.staged.len() + self.writing >= io.sink_cap {
                io.refuse(index, staged, Reason::SinkFull);
            } else {
                self.staged.push_back(staged);
            }
        }
    }

    fn room(&self, io: &Io) -> usize {
        match self.dead {
            true => usize::MAX,
            false => io.sink_cap.saturating_sub(self.in_flight()),
        }
    }

    fn flush(&mut self, io: &mut Io) {
        if self.options.gso {
            return self.flush_trains(io);
        }
        while !self.must_wait()
            && let Some(staged) = self.staged.pop_front()
        {
            if staged.is_chain() {
                self.staged.push_front(staged);
                if !io.write_parts(self.file, self.place, NO_HEADER, &mut self.staged, 1) {
                    return;
                }
                self.writing += 1;
                continue;
            }
            // What the ring has of this port must not be overtaken: a frame of many parts goes that way.
            if self.direct && self.writing == 0 {
                let result = direct::write(self.queue.as_fd(), io.pool.staged_bytes(&staged));
                io.pool.release(staged);
                self.count(io, result, Gathered::one(result));
                continue;
            }
            if let Err(staged) = io.write(self.file, self.place, staged) {
                // The ring has no room: the rest keeps its order and waits for the next turn.
                self.staged.push_front(staged);
                return;
            }
            self.writing += 1;
        }
    }

    fn complete(&mut self, io: &mut Io, completion: Completion) {
        match completion.tag.op {
            Op::Read => self.read_done(io, completion),
            Op::Write => self.write_done(io, completion),
            Op::Gather => {
                let what = io.settle(completion.tag);
                self.written(io, completion.result, what);
            }
            Op::Poll | Op::Cancel | Op::Wake => {}
        }
    }

    fn in_flight(&self) -> usize {
        self.staged.len() + self.writing
    }

    fn close(&mut self, io: &mut Io, reason: Reason) {
        let index = self.place.index;
        for staged in self.staged.drain(..) {
            io.refuse(index, staged, reason);
        }
        // Their completions still come and free the slots; they are counted here.
        io.count(index).tx.dropped.add(reason, self.writing as u64);
        self.writing = 0;
        for frame in self.arrived.drain(..) {
            let rx = &mut io.counters[index.0 as usize].rx;
            rx.receive(frame.len());
            rx.dropped.add(reason, 1);
            io.pool.free(frame);
        }
        if self.parked > 0 {
            io.ring.cancel(self.queue.as_fd(), self.place);
            // The queue is closed when this port is dropped: the ring must have seen the
            // cancellation by then.
            let _ = io.ring.submit();
            self.parked = 0;
        }
        // Or the ring would keep the device alive.
        io.ring.forget(self.file);
        self.file = Target::Plain(self.queue.as_raw_fd());
        self.dead = true;
    }

    fn failure(&mut self) -> Option<PortFailure> {
        self.failure.take()
    }
}
