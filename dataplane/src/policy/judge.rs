//! The verdict on a batch of frames: a pure function of their headers and a snapshot. It allocates
//! nothing, and no header can make it panic. Profile `network`:
//!
//! - a frame that is not well formed, or a later fragment, is dropped for that; a first or an atomic
//!   fragment is judged like any frame;
//! - ARP and neighbour discovery (ICMPv6 133 to 136, RFC 4861) pass or not as the policy's `arp` says,
//!   before any rule. A redirect (137) is not needed to find a neighbour and moves traffic elsewhere:
//!   it is judged by the rules, as its IPv4 counterpart (ICMP 5) is;
//! - what no rule can speak of is dropped: other EtherTypes, 802.3, other IP protocols;
//! - everything else passes if any rule allows it. VLAN tags make no difference.

use super::Reason;
use super::clause::{Space, Tuple};
use super::exact::{Key, key4, key6};
use super::ranges::Address;
use super::rule::Protocol;
use super::set::NOTHING;
use super::snapshot::{Mode, Snapshot, Tables};
use crate::packet::{Fault, Fragment, Headers, Network, protocol};

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to its pipeline's sinks.
    Forward,
    /// It does not.
    Drop(Reason),
}

/// Frames whose lookups overlap. Longer batches are judged in pieces.
const STAGE: usize = 64;

/// Judges frames: `verdicts[i]` is the verdict on `headers[i]`. Where the slices differ in length, the
/// shorter one counts.
pub fn judge(headers: &[Headers], snapshot: &Snapshot, verdicts: &mut [Verdict]) {
    let frames = headers.len().min(verdicts.len());
    let (headers, verdicts) = (&headers[..frames], &mut verdicts[..frames]);
    match snapshot.spec().mode {
        Mode::Direct => verdicts.fill(Verdict::Forward),
        Mode::Filtered => {
            for (headers, verdicts) in headers.chunks(STAGE).zip(verdicts.chunks_mut(STAGE)) {
                filter(headers, snapshot, verdicts);
            }
        }
    }
}

/// The frames of a batch that no rule has allowed so far, of one family, with what rules look at.
struct Undecided<A> {
    frames: [u8; STAGE],
    tuples: [Tuple<A>; STAGE],
    count: usize,
}

impl<A: Address> Undecided<A> {
    #[inline(always)]
    fn new() -> Self {
        Self {
            frames: [0; STAGE],
            tuples: [Tuple::blank(); STAGE],
            count: 0,
        }
    }

    #[inline(always)]
    fn push(&mut self, frame: usize, tuple: Tuple<A>) {
        if let (Some(frames), Some(tuples)) = (
            self.frames.get_mut(self.count),
            self.tuples.get_mut(self.count),
        ) {
            *frames = frame as u8;
            *tuples = tuple;
            self.count += 1;
        }
    }

    #[inline(always)]
    fn tuples(&self) -> &[Tuple<A>] {
        &self.tuples[..self.count.min(STAGE)]
    }

    /// Forwards the frames that `allows` answers for, given their place and tuple; keeps the rest.
    #[inline(always)]
    fn allow(
        &mut self,
        verdicts: &mut [Verdict],
        mut allows: impl FnMut(usize, &Tuple<A>) -> bool,
    ) {
        let mut kept = 0;
        for place in 0..self.count.min(STAGE) {
            let frame = self.frames[place];
            if allows(place, &self.tuples[place]) {
                if let Some(verdict) = verdicts.get_mut(usize::from(frame)) {
                    *verdict = Verdict::Forward;
                }
            } else {
                if kept != place {
                    self.frames[kept] = frame;
                    self.tuples[kept] = self.tuples[place];
                }
                kept += 1;
            }
        }
        self.count = kept;
    }
}

/// Judges at most [`STAGE`] frames by the rules.
fn filter(headers: &[Headers], snapshot: &Snapshot, verdicts: &mut [Verdict]) {
    let mut v4 = Undecided::<u32>::new();
    let mut later = [0; STAGE];
    let mut v6 = 0;
    let arp = snapshot.spec().arp;
    for (frame, (headers, verdict)) in headers.iter().zip(verdicts.iter_mut()).enumerate() {
        *verdict = match look(headers, arp) {
            Some(verdict) => verdict,
            None if headers.network == Network::V4 => match Tuple::of(headers) {
                Some(tuple) => {
                    v4.push(frame, tuple);
                    Verdict::Drop(Reason::NotAllowed)
                }
                None => Verdict::Drop(Reason::UnknownProtocol),
            },
            None => {
                if let Some(place) = later.get_mut(v6) {
                    *place = frame as u8;
                    v6 += 1;
                }
                Verdict::Drop(Reason::NotAllowed)
            }
        };
    }
    if v4.count > 0 {
        rules(&mut v4, snapshot, &snapshot.v4, key4, verdicts);
    }
    if v6 > 0 {
        filter_v6(&later[..v6], headers, snapshot, verdicts);
    }
}

/// Judges frames of IPv6, given their places. Out of line: their tuples are large, and many batches have none.
#[inline(never)]
fn filter_v6(frames: &[u8], headers: &[Headers], snapshot: &Snapshot, verdicts: &mut [Verdict]) {
    let mut undecided = Undecided::<u128>::new();
    for frame in frames.iter().map(|&frame| usize::from(frame)) {
        match Tuple::of(&headers[frame]) {
            Some(tuple) => undecided.push(frame, tuple),
            None => verdicts[frame] = Verdict::Drop(Reason::UnknownProtocol),
        }
    }
    rules(&mut undecided, snapshot, &snapshot.v6, key6, verdicts);
}

/// What the frame itself decides; `None` leaves it to the rules.
#[inline(always)]
fn look(headers: &Headers, arp: bool) -> Option<Verdict> {
    if let Some(fault) = headers.fault {
        return Some(Verdict::Drop(match fault {
            Fault::Truncated => Reason::Truncated,
            Fault::Length => Reason::BadLength,
            Fault::Header => Reason::BadHeader,
            Fault::TooDeep => Reason::TooDeep,
        }));
    }
    let neighbour = match headers.network {
        Network::Other => return Some(Verdict::Drop(Reason::UnknownEthertype)),
        Network::Arp => true,
        Network::V4 | Network::V6 if headers.fragment == Fragment::Later => {
            return Some(Verdict::Drop(Reason::Fragment));
        }
        Network::V6 => {
            headers.protocol == protocol::ICMPV6 && matches!(headers.icmp_type, 133..=136)
        }
        Network::V4 => false,
    };
    neighbour.then_some(if arp {
        Verdict::Forward
    } else {
        Verdict::Drop(Reason::Arp)
    })
}

/// Looks frames of one family up in its tables, cheapest first, each for all that are left.
#[inline(always)]
fn rules<K: Key, const N: usize, A: Address, const B: usize>(
    undecided: &mut Undecided<A>,
    snapshot: &Snapshot,
    tables: &Tables<K, N, A, B>,
    key: impl Fn(A, u16, Space) -> K,
    verdicts: &mut [Verdict],
) {
    if snapshot.anywhere != NOTHING {
        undecided.allow(verdicts, |_, tuple| {
            snapshot.sets.allows(snapshot.anywhere, tuple)
        });
    }
    if tables.exact_to {
        exact(undecided, tables, verdicts, |tuple| {
            (tuple.protocol != Protocol::Icmp)
                .then(|| key(tuple.dst, tuple.dst_port, Space::to(tuple.protocol)))
        });
    }
    if tables.exact_from {
        exact(undecided, tables, verdicts, |tuple| {
            Space::from(tuple.protocol)
                .filter(|_| tuple.reply)
                .map(|space| key(tuple.src, tuple.src_port, space))
        });
    }
    for (ranges, by_destination) in [(&tables.to, true), (&tables.from, false)] {
        if ranges.is_empty() {
            continue;
        }
        let mut addresses = [A::default(); STAGE];
        let mut sets = [NOTHING; STAGE];
        let tuples = undecided.tuples();
        let (addresses, sets) = (&mut addresses[..tuples.len()], &mut sets[..tuples.len()]);
        for (to, tuple) in addresses.iter_mut().zip(tuples) {
            *to = if by_destination { tuple.dst } else { tuple.src };
        }
        ranges.lookup(addresses, sets);
        for &set in sets.iter() {
            snapshot.sets.prefetch(set);
        }
        undecided.allow(verdicts, |place, tuple| {
            sets.get(place)
                .is_some_and(|&set| snapshot.sets.allows(set, tuple))
        });
    }
}

/// Looks frames up in the hash table; frames without a key are not in it.
#[inline(always)]
fn exact<K: Key, const N: usize, A: Address, const B: usize>(
    undecided: &mut Undecided<A>,
    tables: &Tables<K, N, A, B>,
    verdicts: &mut [Verdict],
    key: impl Fn(&Tuple<A>) -> Option<K>,
) {
    let mut keys = [K::EMPTY; STAGE];
    let mut places = [0; STAGE];
    for ((slot, place), tuple) in keys.iter_mut().zip(&mut places).zip(undecided.tuples()) {
        if let Some(key) = key(tuple) {
            *slot = key;
            *place = tables.exact.place(key);
            tables.exact.prefetch(*place);
        }
    }
    undecided.allow(verdicts, |at, _| {
        keys[at] != K::EMPTY && tables.exact.contains(places[at], keys[at])
    });
}
