//! The policies in force, and how one is exchanged: compiled beside the workers, published, and
//! answered for once every worker judges by it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dataplane::{
    policy::{PolicySpec, Publisher, Reader, Rule, Snapshot},
    worker::wake::Waker,
};

use super::StartError;
use crate::{
    api::protocol::{Applied, PolicyText, Refusal},
    config::{self, ConfigError, parse_policy, parse_rule},
};

/// How long workers may take to acknowledge before the answer says that they have not: thousands of
/// batches.
const ACKNOWLEDGE: Duration = Duration::from_secs(2);

pub(super) struct Policies {
    live: Mutex<BTreeMap<String, Publisher>>,
    /// Counts every change of any policy.
    generation: AtomicU64,
    wakers: Mutex<Vec<Arc<Waker>>>,
}

impl Policies {
    /// Compiles all policies of a configuration.
    pub(super) fn compile<'a>(
        policies: impl Iterator<Item = &'a config::Policy>,
    ) -> Result<Self, StartError> {
        let mut live = BTreeMap::new();
        for policy in policies {
            if live.contains_key(&policy.name.value) {
                continue;
            }
            let snapshot = Snapshot::compile(&spec(policy), 1).map_err(|e| StartError {
                code: super::exit::CONFIG,
                message: format!("policy {}: {e}", policy.name.value),
            })?;
            live.insert(policy.name.value.clone(), Publisher::new(snapshot));
        }
        Ok(Self {
            live: Mutex::new(live),
            generation: AtomicU64::new(1),
            wakers: Mutex::default(),
        })
    }

    /// A reader of a policy, for one worker.
    pub(super) fn reader(&self, name: &str) -> Option<Reader> {
        self.live().get_mut(name).map(Publisher::reader)
    }

    /// Who is to be woken when something is published.
    pub(super) fn set_wakers(&self, wakers: Vec<Arc<Waker>>) {
        *self.wakers.lock().unwrap_or_else(PoisonError::into_inner) = wakers;
    }

    /// The generation of the last change.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn show(&self, name: &str) -> Result<PolicyText, Refusal> {
        let live = self.live();
        let snapshot = find(&live, name)?.current();
        let mut rules = String::from("allow = [\n");
        for rule in snapshot.rules() {
            rules += &format!("  {rule},\n");
        }
        rules += "]\n";
        Ok(PolicyText {
            name: name.to_owned(),
            generation: snapshot.generation(),
            rules,
        })
    }

    /// Puts another allowlist in a policy's place; everything else of it stays.
    pub(super) fn replace(&self, name: &str, text: &str) -> Result<Applied, Refusal> {
        only_rules(name, text)?;
        let policy = parse_policy(text, "rules", name).map_err(|e| refusal(&e))?;
        self.change(name, |_| Ok(policy.rules()))
    }

    pub(super) fn allow(&self, name: &str, text: &str) -> Result<Applied, Refusal> {
        let rule = parse_rule(text).map_err(|e| refusal(&e))?;
        self.change(name, |rules| {
            if rules.contains(&rule) {
                return Err(Refusal::new(format!(
                    "policy {name} has this rule already: {rule}"
                )));
            }
            let mut rules = rules.to_vec();
            rules.push(rule);
            Ok(rules)
        })
    }

    pub(super) fn remove(&self, name: &str, text: &str) -> Result<Applied, Refusal> {
        let rule = parse_rule(text).map_err(|e| refusal(&e))?;
        self.change(name, |rules| {
            let kept: Vec<Rule> = rules.iter().filter(|r| **r != rule).cloned().collect();
            if kept.len() == rules.len() {
                return Err(Refusal::new(format!(
                    "policy {name} has no rule {rule}; dpctl policy show {name} lists them"
                )));
            }
            Ok(kept)
        })
    }

    /// One change at a time: the lock is held from reading the old rules until all workers have the
    /// new ones, so that no two changes are lost in each other.
    fn change(
        &self,
        name: &str,
        rules: impl FnOnce(&[Rule]) -> Result<Vec<Rule>, Refusal>,
    ) -> Result<Applied, Refusal> {
        let mut live = self.live();
        let old = find(&live, name)?.current();
        let spec = PolicySpec {
            rules: rules(old.rules())?,
            ..old.spec().clone()
        };
        let generation = self.generation() + 1;
        let began = Instant::now();
        let snapshot = Snapshot::compile(&spec, generation).map_err(Refusal::new)?;
        let rebuilt_us = began.elapsed().as_micros() as u64;
        let Some(publisher) = live.get_mut(name) else {
            return Err(Refusal::new(format!("there is no policy {name}")));
        };
        let published = Instant::now();
        let generation = publisher.publish(snapshot);
        self.generation.store(generation, Ordering::Release);
        for waker in self
            .wakers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            waker.wake();
        }
        let all = publisher.wait_acknowledged(generation, ACKNOWLEDGE);
        let acknowledged_us = published.elapsed().as_micros() as u64;
        drop(old);
        publisher.collect();
        if !all {
            return Err(Refusal::new(format!(
                "generation {generation} of policy {name} is in force, but a worker has not acknowledged it within {} s; dpctl stats shows which is stuck",
                ACKNOWLEDGE.as_secs()
            )));
        }
        Ok(Applied {
            generation,
            rebuilt_us,
            acknowledged_us,
        })
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<String, Publisher>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find<'a>(live: &'a BTreeMap<String, Publisher>, name: &str) -> Result<&'a Publisher, Refusal> {
    live.get(name).ok_or_else(|| {
        let known: Vec<_> = live.keys().map(String::as_str).collect();
        Refusal::new(match known.as_slice() {
            [] => format!("there is no policy {name}: no pipeline has one"),
            known => format!("there is no policy {name}; there are: {}", known.join(", ")),
        })
    })
}

/// What a running policy can be given is another allowlist. Anything else in the text would have to be
/// ignored, or would change what nobody asked to change.
fn only_rules(name: &str, text: &str) -> Result<(), Refusal> {
    // A syntax error is told, with its place, by whoever reads the rules.
    let Ok(table) = text.parse::<toml::Table>() else {
        return Ok(());
    };
    if let Some(key) = table.keys().find(|key| *key != "allow") {
        return Err(Refusal::new(format!(
            "only allow can be replaced while the dataplane runs, and the text has {key}: leave it out, or change policies.{name} in the configuration and restart"
        )));
    }
    if table.contains_key("allow") {
        return Ok(());
    }
    Err(Refusal::new(
        "the text has no allow = [ … ]; write allow = [] to block everything",
    ))
}

fn refusal(errors: &[ConfigError]) -> Refusal {
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    Refusal::new(lines.join("; "))
}

fn spec(policy: &config::Policy) -> PolicySpec {
    use dataplane::policy::{Mode, OnViolation, Profile};
    PolicySpec {
        mode: match policy.mode {
            config::Mode::Direct => Mode::Direct,
            config::Mode::Filtered => Mode::Filtered,
        },
        profile: match policy.profile {
            config::Profile::Network => Profile::Network,
        },
        on_violation: match policy.on_violation {
            config::OnViolation::Drop => OnViolation::Drop,
        },
        arp: policy.arp,
        rules: policy.rules(),
    }
}
