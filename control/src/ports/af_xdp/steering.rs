//! Which queues frames arrive on, and whether that suits the port: what `--check` says of an interface with
//! several queues.

use std::collections::BTreeSet;

use super::AfXdp;
use crate::{
    config::{CoreList, Link, PlannedPort},
    link::steering::{Hashed, Steering},
    ports::interface::{more_queues, within},
};

/// How flows are spread over the queues, for the plan; nothing where there is one queue.
pub(super) fn describe(link: &Link) -> Option<String> {
    if link.queues < 2 {
        return None;
    }
    let steering = &link.steering;
    let mut text = match link.driver.as_str() {
        "veth" => "its peer's transmit queue decides the queue".to_owned(),
        _ if steering.table.is_empty() => {
            "its driver does not tell how flows are spread".to_owned()
        }
        _ => format!("RSS over queues {}", listed(&used(steering))),
    };
    if !steering.table.is_empty() {
        for (protocol, hashed) in [("TCP", steering.tcp), ("UDP", steering.udp)] {
            match hashed {
                Some(Hashed::Addresses) => text += &format!(", {protocol} by addresses"),
                Some(Hashed::AddressesAndPorts) => {
                    text += &format!(", {protocol} by addresses and ports");
                }
                Some(Hashed::Other) | None => {}
            }
        }
    }
    match steering.rules {
        0 => {}
        1 => text += ", and one ntuple rule",
        n => text += &format!(", and {n} ntuple rules"),
    }
    Some(text)
}

/// What does not suit a port that is polled on these cores, each with the command that mends it.
pub(super) fn cautions(xdp: &AfXdp, port: &PlannedPort, cores: &[usize]) -> Vec<String> {
    let Some(link) = port.link.as_ref().filter(|_| port.source) else {
        return Vec::new();
    };
    let mut cautions = Vec::new();
    let (name, netns) = (&*xdp.interface, xdp.netns.as_ref());
    let steering = &link.steering;
    let taken: BTreeSet<u32> = port.queues.iter().copied().collect();
    let spread = used(steering);

    // Queues that frames may come on and nobody polls. A rule may name any.
    let past: BTreeSet<u32> = (0..link.queues)
        .filter(|queue| !taken.contains(queue))
        .filter(|queue| spread.is_empty() || steering.rules > 0 || spread.contains(queue))
        .collect();
    if !past.is_empty() {
        let mend = match steering.table.is_empty() {
            false => format!("run: {}", table_for(xdp, link, &taken)),
            // Without a table, fewer queues: the first ones stay.
            true if taken.iter().copied().eq(0..taken.len() as u32) => {
                format!("run: {}", more_queues(name, netns, Some(link), taken.len()))
            }
            true => "name its first queues, and run ethtool -L".to_owned(),
        };
        cautions.push(format!(
            "port {:?}: frames that {name} receives on {} {} pass it by, on to the host; set queues = \"all\", or {mend}",
            port.name,
            queues(&past),
            listed(&past),
        ));
    }

    // Queues that are polled and that no frame comes on.
    let idle: BTreeSet<u32> = taken.difference(&spread).copied().collect();
    if !spread.is_empty() && !idle.is_empty() && steering.rules == 0 {
        cautions.push(format!(
            "port {:?}: RSS of {name} sends nothing to {} {}; run: {}",
            port.name,
            queues(&idle),
            listed(&idle),
            table_for(xdp, link, &taken),
        ));
    }

    let polled_on: BTreeSet<usize> = match &xdp.cores {
        Some(cores) => cores.iter().copied().collect(),
        None => cores.iter().copied().collect(),
    };
    if !polled_on.is_empty() && polled_on.len() < taken.len() {
        cautions.push(format!(
            "port {:?}: {} queues of {name} on {} {}, each with memory of its own; give it more cores (--cores), or run: {}",
            port.name,
            taken.len(),
            polled_on.len(),
            if polled_on.len() == 1 { "core" } else { "cores" },
            more_queues(name, netns, Some(link), polled_on.len()),
        ));
    }
    cautions
}

/// The queues in the indirection table.
fn used(steering: &Steering) -> BTreeSet<u32> {
    steering.table.iter().copied().collect()
}

/// The command that spreads flows evenly over these queues and no others.
fn table_for(xdp: &AfXdp, link: &Link, taken: &BTreeSet<u32>) -> String {
    let (ethtool, name) = (
        format!("{}ethtool", within(xdp.netns.as_ref())),
        &*xdp.interface,
    );
    if taken.iter().copied().eq(0..taken.len() as u32) {
        return format!("{ethtool} -X {name} equal {}", taken.len());
    }
    let weights: Vec<&str> = (0..link.queues)
        .map(|queue| if taken.contains(&queue) { "1" } else { "0" })
        .collect();
    format!("{ethtool} -X {name} weight {}", weights.join(" "))
}

fn queues(these: &BTreeSet<u32>) -> &'static str {
    if these.len() == 1 { "queue" } else { "queues" }
}

fn listed(queues: &BTreeSet<u32>) -> CoreList {
    CoreList(queues.iter().map(|&queue| queue as usize).collect())
}
