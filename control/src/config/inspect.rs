//! Each port against the machine, as its kind sees it; and what only shows between two ports.

use std::collections::HashMap;

use super::{
    error::{Position, nearest},
    machine::{Link, LookError, Machine},
    plan::{PlannedPipeline, PlannedPort, Problems},
    reader::At,
};
use crate::ports::{Around, Claim, Feeder};

/// Checks every port, and fills in what was found of it.
pub(crate) fn ports(ports: &mut [PlannedPort], machine: &dyn Machine, problems: &mut Problems) {
    let mut site = Site {
        machine,
        problems,
        seen: HashMap::new(),
        context: String::new(),
    };
    for port in ports.iter_mut() {
        let claims = port.kind.claims(port);
        let told = |claim: &Claim<'_>| matches!(claim, Claim::Copies { device: Some(device), .. } if site.problems.is_told_of(device.at));
        if claims.iter().any(told) {
            // A device that another port makes: that it is not there yet is nothing to tell as well.
            continue;
        }
        site.context = format!("ports.{}", port.name);
        let found = port.kind.inspect(port, &mut site);
        (port.queues, port.link) = (found.queues, found.link);
        (port.path_mtu, port.leaves_by) = (found.path_mtu, found.leaves_by);
    }
}

/// Says what the user should know of a port although it stops nothing.
pub(crate) fn cautions(
    ports: &[PlannedPort],
    pipelines: &[PlannedPipeline],
    slot_size: u32,
    cores: &[usize],
    problems: &mut Problems,
) {
    for (i, port) in ports.iter().enumerate() {
        let feeding = pipelines.iter().filter(|pipeline| pipeline.to.contains(&i));
        let feeders = feeding.flat_map(|pipeline| {
            pipeline.from.iter().map(|&from| Feeder {
                port: &ports[from],
                policy: pipeline.policy.as_ref(),
            })
        });
        let around = Around {
            slot_size,
            cores,
            feeders: feeders.collect(),
        };
        for caution in port.kind.cautions(port, &around) {
            problems.note(caution);
        }
    }
}

/// Where a port is to be: what the machine offers there, and who is told when it will not do.
pub struct Site<'a> {
    machine: &'a dyn Machine,
    problems: &'a mut Problems,
    seen: HashMap<Option<String>, Seen>,
    /// The port's table, for errors.
    context: String,
}

/// What was seen of a namespace.
enum Seen {
    Links(Vec<Link>),
    Missing,
    Unknown,
}

impl Site<'_> {
    /// The machine itself, for what is in no namespace.
    pub fn machine(&self) -> &dyn Machine {
        self.machine
    }

    /// The port's table, such as `ports.uplink`.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The configuration is wrong: a setting names what can never do.
    pub fn wrong(&mut self, at: Position, message: String) {
        self.problems.config(at, self.context.clone(), message);
    }

    /// The machine refuses what a setting asks for.
    pub fn refuse(&mut self, at: Position, message: String) {
        self.problems.machine(at, self.context.clone(), message);
    }

    /// The user should know, although it stops nothing.
    pub fn note(&mut self, note: String) {
        self.problems.note(note);
    }

    /// Forgets what was seen of the links of a namespace: the next look is a new one.
    pub fn look_again(&mut self, netns: Option<&At<String>>) {
        self.seen.remove(&netns.map(|netns| netns.value.clone()));
    }

    /// The links of a namespace, each of which is looked into once; `None`, with the reason told, when they cannot be seen.
    pub fn links(&mut self, netns: Option<&At<String>>) -> Option<&[Link]> {
        let key = netns.map(|netns| netns.value.clone());
        let (machine, problems) = (self.machine, &mut *self.problems);
        let seen =
            self.seen
                .entry(key)
                .or_insert_with_key(|key| match machine.links(key.as_deref()) {
                    Ok(links) => Seen::Links(links),
                    Err(LookError::NoNamespace) => Seen::Missing,
                    Err(error) => {
                        let place = match key {
                            Some(netns) => format!("namespace {netns:?}"),
                            None => "this machine".to_owned(),
                        };
                        problems.note(format!(
                            "the interfaces of {place} were not inspected: {error}"
                        ));
                        Seen::Unknown
                    }
                });
        match (seen, netns) {
            (Seen::Links(links), _) => Some(links),
            (Seen::Missing, Some(netns)) => {
                let known = machine.namespaces();
                let near = nearest(netns, known.iter().map(String::as_str));
                let remedy = match (netns.starts_with('/'), near) {
                    (true, _) => "name one that does".to_owned(),
                    (false, None) => format!("make it: ip netns add {}", **netns),
                    (false, Some(near)) => {
                        format!(
                            "did you mean {near:?}? Else make it: ip netns add {}",
                            **netns
                        )
                    }
                };
                problems.machine(
                    netns.at,
                    self.context.clone(),
                    format!("network namespace {:?} does not exist; {remedy}", **netns),
                );
                None
            }
            (Seen::Missing | Seen::Unknown, _) => None,
        }
    }
}

/// A pipeline between the two ends of one veth pair: what goes out at one end comes in at the other.
pub(crate) fn veth_loops(
    ports: &[PlannedPort],
    pipelines: &[PlannedPipeline],
    machine: &dyn Machine,
    problems: &mut Problems,
) {
    for (i, pipeline) in pipelines.iter().enumerate() {
        for &from in &pipeline.from {
            for (&to, &at) in pipeline.to.iter().zip(&pipeline.to_at) {
                if ends_of_one_pair(&ports[from], &ports[to], machine) {
                    problems.config(
                        at,
                        format!("pipelines[{i}]"),
                        format!(
                            "ports {:?} and {:?} are the two ends of one veth pair: what is written to one comes back from the other, round and round; connect two pairs",
                            ports[from].name, ports[to].name
                        ),
                    );
                }
            }
        }
    }
}

fn ends_of_one_pair(a: &PlannedPort, b: &PlannedPort, machine: &dyn Machine) -> bool {
    let points_at = |a: &PlannedPort, b: &PlannedPort| {
        let (
            Some(Link {
                peer: Some(peer), ..
            }),
            Some(other),
        ) = (&a.link, &b.link)
        else {
            return false;
        };
        let netns = |port: &PlannedPort| port.kind.netns().map(|netns| netns.value.clone());
        let (here, there) = (netns(a), netns(b));
        let same_place = match peer.netns {
            None => here == there,
            Some(id) => {
                here != there && machine.namespace_id(here.as_deref(), there.as_deref()) == Some(id)
            }
        };
        peer.index == other.index && same_place
    };
    points_at(a, b) || points_at(b, a)
}
