//! Rule sets: what may pass once the address is known. A set holds, for each port space, the merged
//! ranges of the rules that ask for nothing else, and beside them the rules with further conditions,
//! which are looked at one by one. The sets of nested prefixes contain their ancestors' ranges, so
//! that one look is enough; equal sets are stored once.

use std::collections::HashMap;

use ipnet::IpNet;

use super::clause::{Clause, Space, Tuple};
use super::ranges::Address;
use super::rule::{PortRange, Protocol};

/// Where a set begins in [`Sets::words`].
pub(super) type SetId = u32;

/// The set that allows nothing.
pub(super) const NOTHING: SetId = 0;

/// A set's words: those named here, then the ranges of each space in turn (first port in the low half,
/// last in the high half), or for a space that is a bitmap, the bitmap's number.
mod word {
    /// The set to look at as well: an ancestor whose contents are not repeated here.
    pub(super) const ALSO: usize = 0;
    /// The first of the set's conditions.
    pub(super) const CONDITIONS: usize = 1;
    /// How many conditions.
    pub(super) const CONDITION_COUNT: usize = 2;
    /// Where each space's words end, behind `HEADER`: 16 bits each; then one bit for each that is a bitmap.
    pub(super) const ENDS: usize = 3;
    pub(super) const HEADER: usize = 6;
}

/// From this many ranges on, a space is a bitmap of 8 KiB.
const BITMAP_FROM: usize = 129;
/// Up to this many ranges, reading them all beats a search.
const SCAN_TO: usize = 16;
/// An ancestor with more ranges than this in all is referred to, not repeated in every descendant:
/// memory stays linear in the rules.
const REPEAT_TO: usize = 32;

type Bitmap = [u64; 1 << 10];

/// All rule sets of a snapshot.
pub(super) struct Sets {
    words: Vec<u32>,
    bitmaps: Vec<Bitmap>,
    conditions: Vec<Condition>,
    condition_ports: Vec<PortRange>,
}

impl Sets {
    /// Where a set's first word is, for a prefetch.
    #[inline(always)]
    pub(super) fn prefetch(&self, set: SetId) {
        if let Some(word) = self.words.get(set as usize) {
            super::prefetch::prefetch(word);
        }
    }

    /// Whether the set, or one that it refers to, allows the frame.
    #[inline]
    pub(super) fn allows<A: Address>(&self, mut set: SetId, tuple: &Tuple<A>) -> bool {
        while set != NOTHING {
            let Some((header, words)) = self
                .words
                .get(set as usize..)
                .and_then(|words| words.split_first_chunk::<{ word::HEADER }>())
            else {
                return false;
            };
            if self.ports(header, words, Space::to(tuple.protocol), tuple.dst_port) {
                return true;
            }
            if tuple.reply
                && let Some(space) = Space::from(tuple.protocol)
                && self.ports(header, words, space, tuple.src_port)
            {
                return true;
            }
            if header[word::CONDITION_COUNT] > 0 && self.conditions_allow(header, tuple) {
                return true;
            }
            set = header[word::ALSO];
        }
        false
    }

    #[inline(always)]
    fn ports(&self, header: &[u32; word::HEADER], words: &[u32], space: Space, port: u16) -> bool {
        let space = space as usize;
        let end_of = |space: usize| (header[word::ENDS + space / 2] >> (16 * (space % 2))) & 0xffff;
        let begin = if space == 0 { 0 } else { end_of(space - 1) };
        let Some(words) = words.get(begin as usize..end_of(space) as usize) else {
            return false;
        };
        if words.is_empty() {
            return false;
        }
        if (end_of(Space::COUNT) >> space) & 1 == 1 {
            return words
                .first()
                .and_then(|&number| self.bitmaps.get(number as usize))
                .is_some_and(|bits| bits[usize::from(port >> 6)] >> (port & 63) & 1 == 1);
        }
        if words.len() <= SCAN_TO {
            return words
                .iter()
                .fold(false, |hit, &range| hit | unpack(range).contains(port));
        }
        let behind = words.partition_point(|&range| unpack(range).first <= port);
        behind > 0 && unpack(words[behind - 1]).contains(port)
    }

    #[inline(never)]
    fn conditions_allow<A: Address>(&self, header: &[u32; word::HEADER], tuple: &Tuple<A>) -> bool {
        let begin = header[word::CONDITIONS] as usize;
        let end = begin + header[word::CONDITION_COUNT] as usize;
        self.conditions.get(begin..end).is_some_and(|all| {
            all.iter()
                .any(|one| one.allows(tuple, &self.condition_ports))
        })
    }

    /// How many words there are; a [`SetId`] must be able to name each.
    pub(super) fn words(&self) -> usize {
        self.words.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.words)
            + size_of_val(&*self.bitmaps)
            + size_of_val(&*self.conditions)
            + size_of_val(&*self.condition_ports)
    }
}

#[inline(always)]
fn unpack(range: u32) -> PortRange {
    PortRange {
        first: range as u16,
        last: (range >> 16) as u16,
    }
}

fn pack(range: PortRange) -> u32 {
    u32::from(range.last) << 16 | u32::from(range.first)
}

/// A clause with everything that it asks for.
struct Condition {
    from: Network,
    to: Network,
    from_ports: Span,
    to_ports: Span,
    protocol: Protocol,
    reply: bool,
}

impl Condition {
    #[inline(always)]
    fn allows<A: Address>(&self, tuple: &Tuple<A>, ports: &[PortRange]) -> bool {
        self.protocol == tuple.protocol
            && (tuple.reply || !self.reply)
            && self.from.holds(tuple.src)
            && self.to.holds(tuple.dst)
            && self.from_ports.holds(ports, tuple.src_port)
            && self.to_ports.holds(ports, tuple.dst_port)
    }
}

/// A network in the form that is quick to test.
enum Network {
    Any,
    Prefix { first: u128, mask: u128, v6: bool },
}

impl Network {
    fn new(network: Option<IpNet>) -> Self {
        network.map_or(Self::Any, |network| {
            let (first, last, v6) = bounds(network);
            Self::Prefix {
                first,
                mask: !(first ^ last),
                v6,
            }
        })
    }

    #[inline(always)]
    fn holds<A: Address>(&self, address: A) -> bool {
        match *self {
            Self::Any => true,
            Self::Prefix { first, mask, v6 } => v6 == A::V6 && address.into() & mask == first,
        }
    }
}

/// The first and the last address of a network, as [`Headers`](crate::packet::Headers) number them,
/// and whether it is of IPv6.
pub(super) fn bounds(network: IpNet) -> (u128, u128, bool) {
    match network {
        IpNet::V4(network) => (
            u128::from(network.network().to_bits()),
            u128::from(network.broadcast().to_bits()),
            false,
        ),
        IpNet::V6(network) => (
            network.network().to_bits(),
            network.broadcast().to_bits(),
            true,
        ),
    }
}

/// Merged port ranges in [`Sets::condition_ports`]; empty is any port.
struct Span {
    begin: u32,
    count: u32,
}

impl Span {
    fn holds(&self, ports: &[PortRange], port: u16) -> bool {
        let ranges = ports
            .get(self.begin as usize..)
            .and_then(|ports| ports.get(..self.count as usize));
        let Some(ranges) = ranges else {
            return false;
        };
        let behind = ranges.partition_point(|range| range.first <= port);
        ranges.is_empty() || behind > 0 && ranges[behind - 1].contains(port)
    }
}

/// Sorts ranges and merges those that overlap or touch.
fn merge(ranges: &mut Vec<PortRange>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let merges = u32::from(next.first) <= u32::from(kept.last) + 1;
        if merges {
            kept.last = kept.last.max(next.last);
        }
        merges
    });
}

/// A set as its descendants need to know it.
pub(super) struct Built {
    pub(super) id: SetId,
    /// Its ranges, as far as they are its own words.
    spaces: [Vec<PortRange>; Space::COUNT],
    /// What a descendant that repeats the ranges must still look at.
    rest: SetId,
}

impl Built {
    fn ranges(&self) -> usize {
        self.spaces.iter().map(Vec::len).sum()
    }
}

/// Builds the sets of a snapshot.
pub(super) struct SetBuilder {
    sets: Sets,
    known: HashMap<Box<[u32]>, SetId>,
    known_bitmaps: HashMap<Box<[PortRange]>, u32>,
}

impl SetBuilder {
    pub(super) fn new() -> Self {
        Self {
            sets: Sets {
                // The first is the one that allows nothing; its words are never read.
                words: vec![0; word::HEADER],
                bitmaps: Vec::new(),
                conditions: Vec::new(),
                condition_ports: Vec::new(),
            },
            known: HashMap::new(),
            known_bitmaps: HashMap::new(),
        }
    }

    /// Builds the set of `clauses`, whose addresses led here where `indexed` says so, and of
    /// everything that the set `around` allows.
    pub(super) fn build<'a>(
        &mut self,
        clauses: impl Iterator<Item = &'a Clause<'a>>,
        indexed: impl Fn(&Clause<'_>) -> bool,
        around: Option<&Built>,
    ) -> Built {
        let mut spaces: [Vec<PortRange>; Space::COUNT] = Default::default();
        let conditions = self.sets.conditions.len();
        for clause in clauses {
            match clause.space() {
                Some((space, ports)) if indexed(clause) => {
                    let ranges = &mut spaces[space as usize];
                    match ports {
                        [] => ranges.push(PortRange {
                            first: 0,
                            last: u16::MAX,
                        }),
                        ports => ranges.extend_from_slice(ports),
                    }
                }
                _ => self.condition(clause),
            }
        }
        let also = match around {
            Some(around) if around.ranges() <= REPEAT_TO => {
                for (mine, theirs) in spaces.iter_mut().zip(&around.spaces) {
                    mine.extend_from_slice(theirs);
                }
                around.rest
            }
            Some(around) => around.id,
            None => NOTHING,
        };
        spaces.iter_mut().for_each(merge);
        let id = self.store(&spaces, conditions, also);
        let own_conditions = self.sets.conditions.len() > conditions;
        Built {
            id,
            spaces,
            rest: if own_conditions { id } else { also },
        }
    }

    /// The finished sets.
    pub(super) fn finish(self) -> Sets {
        self.sets
    }

    /// Stores a set, or finds the equal one that is stored.
    fn store(
        &mut self,
        spaces: &[Vec<PortRange>; Space::COUNT],
        conditions: usize,
        also: SetId,
    ) -> SetId {
        let condition_count = self.sets.conditions.len() - conditions;
        let mut words = vec![0; word::HEADER];
        words[word::ALSO] = also;
        if condition_count > 0 {
            words[word::CONDITIONS] = conditions as u32;
            words[word::CONDITION_COUNT] = condition_count as u32;
        }
        for (space, ranges) in spaces.iter().enumerate() {
            if ranges.len() >= BITMAP_FROM {
                words.push(self.bitmap(ranges));
                words[word::ENDS + Space::COUNT / 2] |= 1 << (16 + space);
            } else {
                words.extend(ranges.iter().copied().map(pack));
            }
            let end = (words.len() - word::HEADER) as u32;
            words[word::ENDS + space / 2] |= end << (16 * (space % 2));
        }
        if words.len() == word::HEADER && condition_count == 0 {
            return also;
        }
        if let Some(&id) = self.known.get(&*words) {
            return id;
        }
        let id = self.sets.words.len() as SetId;
        self.sets.words.extend_from_slice(&words);
        self.known.insert(words.into_boxed_slice(), id);
        id
    }

    fn bitmap(&mut self, ranges: &[PortRange]) -> u32 {
        if let Some(&number) = self.known_bitmaps.get(ranges) {
            return number;
        }
        let mut bits = [0; 1 << 10];
        for range in ranges {
            for port in range.first..=range.last {
                bits[usize::from(port >> 6)] |= 1 << (port & 63);
            }
        }
        let number = self.sets.bitmaps.len() as u32;
        self.sets.bitmaps.push(bits);
        self.known_bitmaps.insert(ranges.into(), number);
        number
    }

    fn condition(&mut self, clause: &Clause<'_>) {
        let condition = Condition {
            from: Network::new(clause.from),
            to: Network::new(clause.to),
            from_ports: self.span(clause.from_ports),
            to_ports: self.span(clause.to_ports),
            protocol: clause.protocol,
            reply: clause.reply,
        };
        self.sets.conditions.push(condition);
    }

    fn span(&mut self, ports: &[PortRange]) -> Span {
        let mut ports = ports.to_vec();
        merge(&mut ports);
        let begin = self.sets.condition_ports.len() as u32;
        self.sets.condition_ports.extend_from_slice(&ports);
        Span {
            begin,
            count: ports.len() as u32,
        }
    }
}
