//! A policy compiled: immutable, shared by all workers, asked a batch at a time.
//!
//! Each clause of a rule is in one table. An exact endpoint (one address, few ports) is in a hash table;
//! any other with an address is in the ranges of its destination or of its source; one without an
//! address is in the set that holds for every address. A table without rules costs a frame nothing.

use std::collections::HashMap;

use ipnet::IpNet;

use super::clause::{Clause, Space, clauses};
use super::exact::{Exact, Key, Key6, key4, key6};
use super::ranges::{Address, Cutter, Ranges};
use super::rule::{PortRange, Rule, RuleError};
use super::set::{Built, SetBuilder, SetId, Sets, bounds};

/// How a policy decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Everything is forwarded, unseen.
    Direct,
    /// What a rule allows is forwarded; frames are judged one by one, without state.
    #[default]
    Filtered,
}

/// How strictly a frame itself is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Well formed as far as the rules look.
    #[default]
    Network,
}

/// What happens to whoever sent a frame that is not allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnViolation {
    /// Nothing beyond losing the frame.
    #[default]
    Drop,
}

/// A policy as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySpec {
    /// How it decides.
    pub mode: Mode,
    /// How strictly frames are looked at.
    pub profile: Profile,
    /// What a violation leads to.
    pub on_violation: OnViolation,
    /// Whether ARP and neighbour discovery pass.
    pub arp: bool,
    /// What is allowed: a union, order-free. Empty: nothing.
    pub rules: Vec<Rule>,
}

/// Filtered by no rules: ARP and neighbour discovery pass, nothing else.
impl Default for PolicySpec {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            profile: Profile::default(),
            on_violation: OnViolation::default(),
            arp: true,
            rules: Vec::new(),
        }
    }
}

/// Why a policy could not be compiled.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A rule contradicts itself.
    #[error("rule {} of the policy, {rule}: {source}", .index + 1)]
    Rule {
        /// Its place among the policy's rules, from 0.
        index: usize,
        /// The rule.
        rule: Box<Rule>,
        /// What is wrong.
        source: RuleError,
    },
    /// More than tables can number.
    #[error(
        "the policy needs {words} words of rule sets, the limit is 4294967295; merge rules, or split the policy over pipelines"
    )]
    TooLarge {
        /// How many.
        words: usize,
    },
}

/// A clause with at most this many ports of one host is that many keys of the hash table.
const EXACT_PORTS: usize = 16;

/// Up to this many exact clauses of a family stand in its ranges instead, where these are looked at in any
/// case: a few more of them cost nothing, another table 5 ns.
const FEW: usize = 32;

/// With more clauses than this under one prefix, the other address of a clause leads to it if that
/// one is rarer: conditions are looked at one by one.
const CROWDED: u32 = 16;

/// The tables of one IP family.
pub(super) struct Tables<K, const N: usize, A, const B: usize> {
    pub(super) exact: Exact<K, N>,
    /// Whether `exact` has endpoints that frames go to, and endpoints that replies come from.
    pub(super) exact_to: bool,
    pub(super) exact_from: bool,
    pub(super) to: Ranges<A, B>,
    pub(super) from: Ranges<A, B>,
}

pub(super) type Tables4 = Tables<u64, 8, u32, 16>;
pub(super) type Tables6 = Tables<Key6, 4, u128, 8>;

/// A compiled policy.
pub struct Snapshot {
    generation: u64,
    spec: PolicySpec,
    pub(super) v4: Tables4,
    pub(super) v6: Tables6,
    /// What every address may.
    pub(super) anywhere: SetId,
    pub(super) sets: Sets,
}

impl Snapshot {
    /// Compiles a policy.
    ///
    /// # Errors
    ///
    /// The first rule that [`Rule::check`] refuses, or a policy beyond what tables can number.
    pub fn compile(spec: &PolicySpec, generation: u64) -> Result<Self, CompileError> {
        for (index, rule) in spec.rules.iter().enumerate() {
            rule.check().map_err(|source| CompileError::Rule {
                index,
                rule: Box::new(rule.clone()),
                source,
            })?;
        }
        let sorted = Sorted::new(&spec.rules);
        let mut sets = SetBuilder::new();
        let anywhere = sets.build(sorted.anywhere.iter(), |_| true, None).id;
        let v4 = Tables {
            exact_to: sorted.v4.exact_to,
            exact_from: sorted.v4.exact_from,
            exact: Exact::new(&sorted.v4.exact),
            to: ranges(sorted.v4.to, &mut sets, |address| address as u32),
            from: ranges(sorted.v4.from, &mut sets, |address| address as u32),
        };
        let v6 = Tables {
            exact_to: sorted.v6.exact_to,
            exact_from: sorted.v6.exact_from,
            exact: Exact::new(&sorted.v6.exact),
            to: ranges(sorted.v6.to, &mut sets, |address| address),
            from: ranges(sorted.v6.from, &mut sets, |address| address),
        };
        let sets = sets.finish();
        if sets.words() > SetId::MAX as usize {
            return Err(CompileError::TooLarge {
                words: sets.words(),
            });
        }
        Ok(Self {
            generation,
            spec: spec.clone(),
            v4,
            v6,
            anywhere,
            sets,
        })
    }

    /// The number of this snapshot among those of its policy.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn renumber(&mut self, generation: u64) {
        self.generation = generation;
    }

    /// The policy that was compiled.
    #[inline]
    pub fn spec(&self) -> &PolicySpec {
        &self.spec
    }

    /// The rules that were compiled, as they were given.
    pub fn rules(&self) -> &[Rule] {
        &self.spec.rules
    }

    /// Bytes that the tables take, without the rules as they were given.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.v4.memory_bytes() + self.v6.memory_bytes() + self.sets.memory_bytes()
    }
}

impl<K: Key, const N: usize, A: Address, const B: usize> Tables<K, N, A, B> {
    fn memory_bytes(&self) -> usize {
        self.exact.memory_bytes() + self.to.memory_bytes() + self.from.memory_bytes()
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("generation", &self.generation)
            .field("rules", &self.spec.rules.len())
            .field("bytes", &self.memory_bytes())
            .finish_non_exhaustive()
    }
}

/// The clauses of one IP family, by table.
struct Family<'a, K> {
    /// Clauses for the hash table, as long as they are few.
    few: Vec<Exactly<'a>>,
    /// All of them, once they are many.
    exact: Vec<K>,
    exact_to: bool,
    exact_from: bool,
    to: Vec<Placed<'a>>,
    from: Vec<Placed<'a>>,
}

/// A clause of one host with a few ports.
struct Exactly<'a> {
    host: u128,
    space: Space,
    ports: &'a [PortRange],
    clause: Clause<'a>,
}

impl<'a> Exactly<'a> {
    /// The clause, if it is one; and whether its host is of IPv6.
    fn of(clause: &Clause<'a>) -> Option<(Self, bool)> {
        let (space, ports) = clause.space()?;
        let host = match (space, clause.from, clause.to) {
            (Space::TcpTo | Space::UdpTo, None, Some(host))
            | (Space::TcpReply | Space::UdpFrom, Some(host), None) => host,
            _ => return None,
        };
        let count: usize = ports
            .iter()
            .map(|range| usize::from(range.last - range.first) + 1)
            .sum();
        if host.prefix_len() < host.max_prefix_len() || !(1..=EXACT_PORTS).contains(&count) {
            return None;
        }
        let (host, _, v6) = bounds(host);
        let exactly = Self {
            host,
            space,
            ports,
            clause: *clause,
        };
        Some((exactly, v6))
    }

    /// Whether frames go to the host, or replies come from it.
    fn goes_to(&self) -> bool {
        matches!(self.space, Space::TcpTo | Space::UdpTo)
    }
}

impl<'a, K> Family<'a, K> {
    fn new() -> Self {
        Self {
            few: Vec::new(),
            exact: Vec::new(),
            exact_to: false,
            exact_from: false,
            to: Vec::new(),
            from: Vec::new(),
        }
    }

    fn add(&mut self, exactly: Exactly<'a>, key: impl Fn(u128, u16, Space) -> K) {
        if self.exact.is_empty() && self.few.len() < FEW {
            self.few.push(exactly);
            return;
        }
        for few in std::mem::take(&mut self.few) {
            self.hash(&few, &key);
        }
        self.hash(&exactly, &key);
    }

    /// Decides where the few stand. Told once, when all clauses are known.
    fn settle(&mut self, key: impl Fn(u128, u16, Space) -> K) {
        for few in std::mem::take(&mut self.few) {
            let ranges = if few.goes_to() {
                &mut self.to
            } else {
                &mut self.from
            };
            if ranges.is_empty() {
                self.hash(&few, &key);
            } else {
                ranges.push(Placed {
                    first: few.host,
                    last: few.host,
                    clause: few.clause,
                });
            }
        }
    }

    fn hash(&mut self, exactly: &Exactly<'_>, key: impl Fn(u128, u16, Space) -> K) {
        let ports = exactly.ports.iter();
        let ports = ports.flat_map(|&PortRange { first, last }| first..=last);
        self.exact
            .extend(ports.map(|port| key(exactly.host, port, exactly.space)));
        self.exact_to |= exactly.goes_to();
        self.exact_from |= !exactly.goes_to();
    }
}

/// A clause under the prefix that leads to it.
struct Placed<'a> {
    first: u128,
    last: u128,
    clause: Clause<'a>,
}

/// All clauses, by table.
struct Sorted<'a> {
    anywhere: Vec<Clause<'a>>,
    v4: Family<'a, u64>,
    v6: Family<'a, Key6>,
}

impl<'a> Sorted<'a> {
    fn new(rules: &'a [Rule]) -> Self {
        let mut sorted = Self {
            anywhere: Vec::new(),
            v4: Family::new(),
            v6: Family::new(),
        };
        let crowds = Crowds::new(rules);
        for clause in rules.iter().flat_map(clauses) {
            match Exactly::of(&clause) {
                Some((exactly, true)) => {
                    sorted.v6.add(exactly, key6);
                    continue;
                }
                Some((exactly, false)) => {
                    sorted.v4.add(exactly, endpoint4);
                    continue;
                }
                None => {}
            }
            let (under, by_destination) = match (clause.from, clause.to) {
                (None, None) => {
                    sorted.anywhere.push(clause);
                    continue;
                }
                (None, Some(to)) => (to, true),
                (Some(from), None) => (from, false),
                (Some(from), Some(to)) => crowds.choose(from, to),
            };
            let (first, last, v6) = bounds(under);
            let placed = Placed {
                first,
                last,
                clause,
            };
            match (v6, by_destination) {
                (false, true) => sorted.v4.to.push(placed),
                (false, false) => sorted.v4.from.push(placed),
                (true, true) => sorted.v6.to.push(placed),
                (true, false) => sorted.v6.from.push(placed),
            }
        }
        sorted.v4.settle(endpoint4);
        sorted.v6.settle(key6);
        sorted
    }
}

/// The key of an IPv4 endpoint whose address is in the low 32 bits.
fn endpoint4(address: u128, port: u16, space: Space) -> u64 {
    key4(address as u32, port, space)
}

/// How many clauses with two addresses share each network, as source and as destination.
struct Crowds {
    from: HashMap<IpNet, u32>,
    to: HashMap<IpNet, u32>,
}

impl Crowds {
    fn new(rules: &[Rule]) -> Self {
        let mut crowds = Self {
            from: HashMap::new(),
            to: HashMap::new(),
        };
        for clause in rules
            .iter()
            .filter(|rule| rule.from.is_some() && rule.to.is_some())
            .flat_map(clauses)
        {
            if let (Some(from), Some(to)) = (clause.from, clause.to) {
                *crowds.from.entry(from).or_default() += 1;
                *crowds.to.entry(to).or_default() += 1;
            }
        }
        crowds
    }

    /// Which address leads to a clause with both, and whether that is the destination: the longer
    /// prefix, unless it is crowded and the other is less so.
    fn choose(&self, from: IpNet, to: IpNet) -> (IpNet, bool) {
        let from_shared = self.from.get(&from).copied().unwrap_or(0);
        let to_shared = self.to.get(&to).copied().unwrap_or(0);
        let longer_to = to.prefix_len() >= from.prefix_len();
        let (longer, shorter) = if longer_to {
            (to_shared, from_shared)
        } else {
            (from_shared, to_shared)
        };
        if longer_to == (longer <= CROWDED || longer <= shorter) {
            (to, true)
        } else {
            (from, false)
        }
    }
}

/// Builds the ranges of clauses and the sets that they lead to.
fn ranges<A: Address, const B: usize>(
    mut placed: Vec<Placed<'_>>,
    sets: &mut SetBuilder,
    address: impl Fn(u128) -> A,
) -> Ranges<A, B> {
    // By first address, the longer prefix last: every prefix comes behind those around it.
    placed.sort_by_key(|placed| (placed.first, std::cmp::Reverse(placed.last)));
    let mut cutter = Cutter::<A, Built>::new();
    for same in placed.chunk_by(|a, b| (a.first, a.last) == (b.first, b.last)) {
        let Some(prefix) = same.first() else {
            continue;
        };
        let (first, last) = (address(prefix.first), address(prefix.last));
        let around = cutter.enclosing(first);
        let clauses = same.iter().map(|placed| &placed.clause);
        let one_address = |clause: &Clause<'_>| clause.from.is_none() || clause.to.is_none();
        let built = sets.build(clauses, one_address, around);
        cutter.open(first, last, built.id, built);
    }
    Ranges::new(&cutter.finish())
}
