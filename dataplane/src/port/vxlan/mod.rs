//! VXLAN (RFC 7348), as source and sink: Ethernet frames in UDP datagrams, over sockets of the host.
//!
//! As a sink it sends each frame straight from its slot, behind a header that is the same for all, through
//! io_uring on connected sockets; which of them, and with it the outer source port, follows from the
//! frame's flow. As a source it receives a batch at a time into slots. The outer headers are the
//! kernel's; ECN is not carried over (RFC 6040).

mod flow;
pub mod header;
mod socket;
#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    collections::VecDeque,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use self::{
    flow::FlowHash,
    socket::{Batch, Datagram},
};
use super::{Io, Place, Port, PortFailure, SHORTEST, Wait};
use crate::{
    frame::{Frame, Staged},
    policy::Reason,
    worker::{
        counters::KernelCounters,
        ring::{Completion, Op, Target},
    },
};

/// Datagrams that one system call receives.
const BATCH: usize = 64;

/// Datagrams that are counted, at most, when the port is closed: what comes in meanwhile must not keep the
/// worker there.
const LAST: usize = 1 << 16;

/// How often the kernel is asked what it has lost, at least, in nanoseconds: its number has 32 bits, and must not
/// run over in between, however long nobody else asks.
const ASK: u64 = 10_000_000_000;

/// What a VXLAN port is told when it is made.
#[derive(Clone, Copy, Debug)]
pub struct VxlanOptions {
    /// The network, of [`VNI_BITS`](header::VNI_BITS) bits.
    pub vni: u32,
    /// The longest frame, Ethernet header and tags included, in bytes.
    pub max_frame: usize,
    /// The only address that datagrams are taken from, if there is but one.
    pub peer: Option<IpAddr>,
}

/// What a worker receives from and sends to a VXLAN network.
#[derive(Debug)]
// Control boxes the ports of all workers one after another: by its alignment (x86 fetches lines in pairs) none
// shares a cache line with a port of another worker.
#[repr(align(128))]
pub struct VxlanPort {
    options: VxlanOptions,
    header: [u8; header::LEN],
    place: Place,
    source: Option<Receiver>,
    sink: Sender,
    failure: Option<PortFailure>,
    /// Which troubles were told.
    told: [bool; 5],
    closed: bool,
}

/// The receiving half.
#[derive(Debug)]
struct Receiver {
    socket: OwnedFd,
    batch: Batch,
    /// Slots for the next datagrams.
    empties: Vec<Frame>,
    /// A poll is in the kernel: nothing has come since it was armed.
    polling: bool,
    /// A poll was answered, or the last look found as much as it could take: there is more to receive.
    ready: bool,
    /// What the kernel has lost, as it was when it was asked last: its own number, which wraps, and ours.
    lost: Cell<(u32, u64)>,
    /// When that was, by the worker's clock; not every time.
    asked: u64,
}

/// The sending half.
#[derive(Debug)]
struct Sender {
    /// Connected; one for each outer source port.
    sockets: Vec<OwnedFd>,
    flows: FlowHash,
    /// Shares that wait for the next flush, and their socket.
    staged: VecDeque<(Staged, u16)>,
    /// Shares in the kernel.
    sending: usize,
    /// The last send found no way to the peer.
    down: bool,
}

/// What goes wrong more than once, and is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Longer than the way to the peer takes.
    PathMtu,
    /// No way to the peer.
    Down,
    /// Somebody on the way says that the peer does not answer. Between two such words the kernel takes frames as
    /// if it did, so that this would be told again and again.
    Unreachable,
    /// Any other refusal.
    Refused,
    /// Longer than the port takes.
    Long,
}

impl VxlanPort {
    /// A port over opened sockets: `source`, not connected, is received from; `sinks`, at most 65,536, are
    /// connected to the peer and sent to. A port that is no source or no sink has none of them.
    pub fn new(options: VxlanOptions, source: Option<OwnedFd>, sinks: Vec<OwnedFd>) -> Self {
        Self {
            header: header::encode(options.vni),
            options,
            place: Place::default(),
            source: source.map(|socket| Receiver {
                socket,
                batch: Batch::new(BATCH),
                empties: Vec::with_capacity(BATCH),
                polling: false,
                ready: false,
                lost: Cell::new((0, 0)),
                asked: 0,
            }),
            sink: Sender {
                sockets: sinks,
                flows: FlowHash::random(),
                staged: VecDeque::new(),
                sending: 0,
                down: false,
            },
            failure: None,
            told: [false; 5],
            closed: false,
        }
    }

    /// Why a datagram is not handed on, if it is not.
    #[inline]
    fn judge(&self, datagram: &Datagram) -> Option<Reason> {
        if self.options.peer.is_some_and(|peer| peer != datagram.from) {
            return Some(Reason::WrongPeer);
        }
        if datagram.len < header::LEN {
            return Some(Reason::VxlanHeader);
        }
        match header::decode(datagram.header) {
            Err(reason) => Some(reason),
            Ok(vni) if vni != self.options.vni => Some(Reason::WrongVni),
            Ok(_) if datagram.truncated || datagram.frame > self.options.max_frame => {
                Some(Reason::TooLong)
            }
            Ok(_) if datagram.frame < SHORTEST => Some(Reason::TooShort),
            Ok(_) => None,
        }
    }

    fn sent(&mut self, io: &mut Io, done: Completion) {
        self.sink.sending -= 1;
        io.pool.complete(done.tag.slot);
        let tx = &mut io.count(self.place.index).tx;
        if done.result >= 0 {
            tx.written((done.result as usize).saturating_sub(header::LEN));
            self.sink.down = false;
            return;
        }
        let errno = -done.result;
        let (reason, trouble) = match errno {
            libc::EMSGSIZE => (Reason::TooLong, Some(Trouble::PathMtu)),
            libc::EAGAIN | libc::ENOBUFS => (Reason::SinkFull, None),
            // EINVAL: the address that the socket is connected from is no address of this host any more
            // (net/ipv4/route.c, `ip_route_output_key_hash_rcu`).
            libc::ENETUNREACH | libc::ENETDOWN | libc::EINVAL => {
                (Reason::LinkDown, Some(Trouble::Down))
            }
            libc::EHOSTUNREACH => (Reason::LinkDown, Some(Trouble::Unreachable)),
            _ => (Reason::WriteError, Some(Trouble::Refused)),
        };
        tx.drop(reason);
        if let Some(trouble) = trouble {
            self.tell(io, trouble, errno);
        }
    }

    /// Remembers the first of a trouble; the others are counted. A link that is down is told each time that
    /// it goes down.
    #[cold]
    fn tell(&mut self, io: &mut Io, trouble: Trouble, errno: i32) {
        if self.failure.is_some() {
            // One at a time: what is not told now is told the next time.
            return;
        }
        let again = match trouble {
            Trouble::Down => std::mem::replace(&mut self.sink.down, true),
            _ => std::mem::replace(&mut self.told[trouble as usize], true),
        };
        if again {
            return;
        }
        let max_frame = self.options.max_frame;
        let error = std::io::Error::from_raw_os_error(errno);
        let message = match trouble {
            Trouble::PathMtu => format!(
                "a frame is too long for the way to the peer, with its outer headers ({error}); it and further ones are counted as too_long; set dont_fragment = false, or make the MTU of the way larger or that of the frames smaller"
            ),
            Trouble::Down => format!(
                "there is no way to the peer: {error}; its frames are counted as link_down until there is one again (ip address, ip route)"
            ),
            Trouble::Unreachable => format!(
                "the peer does not answer: {error}; a frame is counted as link_down each time that this is said, and those in between are lost on the way; is it up, and reached that way? (ip neighbour, ip route get)"
            ),
            Trouble::Refused => format!(
                "a datagram could not be sent: {error}; it and further ones are counted as write_error; {}",
                match errno {
                    libc::ECONNREFUSED =>
                        "nothing listens there: start the far end, or correct remote and port",
                    libc::EPERM => "a packet filter of this host forbids it (nft list ruleset)",
                    _ => "look at the route to the peer (ip route get)",
                }
            ),
            Trouble::Long => format!(
                "a datagram holds a frame of more than {max_frame} bytes, counted as too_long like further ones; set a larger mtu, or turn segmentation offload off where it is sent (ethtool -K DEVICE tso off gso off)"
            ),
        };
        io.trouble = true;
        self.failure = Some(PortFailure::first(message));
    }
}

impl Receiver {
    /// Datagrams that the kernel has lost because it had no room for them.
    fn lost(&self) -> u64 {
        let (last, lost) = self.lost.get();
        let now = socket::drops(self.socket.as_fd());
        let lost = lost + u64::from(now.wrapping_sub(last));
        self.lost.set((now, lost));
        lost
    }

    /// Takes slots for the next datagrams.
    fn provide(&mut self, io: &mut Io) {
        let Some(region) = io.own_region else { return };
        while self.empties.len() < BATCH {
            let Some(empty) = io.pool.alloc(region) else {
                return;
            };
            self.empties.push(empty);
        }
    }
}

impl Port for VxlanPort {
    fn attach(&mut self, io: &mut Io, place: Place) -> Result<(), PortFailure> {
        self.place = place;
        if self.source.is_some() {
            io.region_for("VXLAN", 0)?;
        }
        if !self.sink.sockets.is_empty() {
            let ready = io.ring.prepare_sends();
            ready.map_err(|e| PortFailure::fatal(e.to_string()))?;
            self.sink.staged.reserve(io.sink_cap);
        }
        Ok(())
    }

    fn receive(&mut self, io: &mut Io, batch: &mut Vec<Frame>, budget: usize) {
        let Some(mut source) = self.source.take() else {
            return;
        };
        if !source.polling {
            self.receive_from(&mut source, io, batch, budget);
        }
        self.source = Some(source);
    }

    fn wait(&mut self, io: &mut Io) -> Wait {
        let Some(source) = &mut self.source else {
            return Wait::Event;
        };
        if source.ready {
            source.provide(io);
            // Without a slot it waits until the kernel gives some back, which is an event too.
            return match source.empties.is_empty() {
                true => Wait::Event,
                false => Wait::Ready,
            };
        }
        if !source.polling {
            // What has come already completes it at once.
            source.polling = io.ring.poll(source.socket.as_fd(), Op::Poll, self.place);
        }
        match source.polling {
            true => Wait::Event,
            false => Wait::Ready,
        }
    }

    fn stage(&mut self, io: &mut Io, frames: &mut Vec<Staged>) {
        let index = self.place.index;
        io.count(index).tx.offered += frames.len() as u64;
        for staged in frames.drain(..) {
            if self.closed || self.sink.sockets.is_empty() {
                io.refuse(index, staged, Reason::LinkDown);
            } else if staged.len() > self.options.max_frame {
                io.refuse(index, staged, Reason::TooLong);
            } else if staged.len() < SHORTEST {
                io.refuse(index, staged, Reason::TooShort);
            } else if self.in_flight() >= io.sink_cap {
                io.refuse(index, staged, Reason::SinkFull);
            } else {
                let ways = self.sink.sockets.len();
                let way = self.sink.flows.way(io.pool.staged_bytes(&staged), ways);
                self.sink.staged.push_back((staged, way as u16));
            }
        }
    }

    fn room(&self, io: &Io) -> usize {
        match self.closed {
            true => usize::MAX,
            false => io.sink_cap.saturating_sub(self.in_flight()),
        }
    }

    fn flush(&mut self, io: &mut Io) {
        let sink = &mut self.sink;
        while let Some((staged, way)) = sink.staged.pop_front() {
            let socket = Target::Plain(sink.sockets[usize::from(way)].as_raw_fd());
            if let Err(staged) = io.send(socket, self.place, self.header, staged) {
                // The ring has no room: the rest keeps its order and waits for the next turn.
                sink.staged.push_front((staged, way));
                return;
            }
            sink.sending += 1;
        }
    }

    fn complete(&mut self, io: &mut Io, completion: Completion) {
        match completion.tag.op {
            Op::Write => self.sent(io, completion),
            Op::Poll => {
                if let Some(source) = &mut self.source {
                    (source.polling, source.ready) = (false, true);
                }
            }
            Op::Read | Op::Cancel | Op::Wake | Op::Gather => {}
        }
    }

    fn in_flight(&self) -> usize {
        self.sink.staged.len() + self.sink.sending
    }

    fn kernel(&self) -> Option<KernelCounters> {
        let source = self.source.as_ref()?;
        Some(KernelCounters {
            rx_dropped: source.lost(),
            ..KernelCounters::default()
        })
    }

    fn close(&mut self, io: &mut Io, reason: Reason) {
        let index = self.place.index;
        for (staged, _) in self.sink.staged.drain(..) {
            io.refuse(index, staged, reason);
        }
        // Their completions still come and free the slots; they are counted here.
        let sending = std::mem::take(&mut self.sink.sending);
        io.count(index).tx.dropped.add(reason, sending as u64);
        if let Some(mut source) = self.source.take() {
            self.count_the_rest(&mut source, io, reason);
            if source.polling {
                io.ring.cancel(source.socket.as_fd(), self.place);
            }
            for empty in source.empties.drain(..) {
                io.pool.free(empty);
            }
            // The sockets are closed when this port is dropped: the ring must have seen the
            // cancellation by then,
            self.source = Some(source);
        }
        // and every message, which names its socket by number.
        let _ = io.ring.submit();
        self.closed = true;
    }

    fn failure(&mut self) -> Option<PortFailure> {
        self.failure.take()
    }
}

impl VxlanPort {
    #[inline]
    fn receive_from(
        &mut self,
        source: &mut Receiver,
        io: &mut Io,
        batch: &mut Vec<Frame>,
        budget: usize,
    ) {
        if io.now.saturating_sub(source.asked) >= ASK {
            source.asked = io.now;
            source.lost();
        }
        source.provide(io);
        let n = budget.min(source.empties.len());
        if n == 0 {
            return;
        }
        let socket = source.socket.as_fd();
        // An error is one of ICMP about what the host sent from this port, or a signal: the next call
        // goes on behind it.
        let received = source
            .batch
            .receive(socket, &mut io.pool, &source.empties[..n]);
        let received = received.unwrap_or(0);
        source.ready = received == n;
        for (i, empty) in source.empties.drain(..received).enumerate() {
            let datagram = source.batch.datagram(i);
            let rx = &mut io.counters[self.place.index.0 as usize].rx;
            rx.receive(datagram.frame);
            let Some(reason) = self.judge(&datagram) else {
                let slot = io.pool.lend(empty);
                let headroom = io.pool.region(slot.region).headroom();
                match io.pool.receive(slot, headroom, datagram.frame) {
                    Some(frame) => batch.push(frame),
                    // Cannot be: it was not truncated, so that it is inside.
                    None => io.pool.reclaim(slot),
                }
                continue;
            };
            rx.dropped.add(reason, 1);
            io.pool.free(empty);
            if reason == Reason::TooLong {
                self.tell(io, Trouble::Long, 0);
            }
        }
    }

    /// Counts what the kernel has received and nobody will read.
    #[cold]
    fn count_the_rest(&mut self, source: &mut Receiver, io: &mut Io, reason: Reason) {
        let mut left = LAST;
        while left > 0 {
            // Without slots, of which there may be none.
            let received = source.batch.discard(source.socket.as_fd());
            let Ok(n @ 1..) = received else { return };
            for i in 0..n {
                let rx = &mut io.counters[self.place.index.0 as usize].rx;
                rx.receive(source.batch.datagram(i).frame);
                rx.dropped.add(reason, 1);
            }
            left = left.saturating_sub(n);
        }
    }
}
