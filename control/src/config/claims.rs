//! What two ports want of the machine that only one can have: a device, a file, a UDP port.

use std::path::PathBuf;

use super::{
    error::Position,
    plan::{PlannedPort, Problems},
    reader::At,
};
use crate::ports::{Claim, Listens};

/// Tells of every port whose claims do not go with another's.
pub(crate) fn check(ports: &[PlannedPort], problems: &mut Problems) {
    for (i, port) in ports.iter().enumerate() {
        for mine in port.kind.claims(port) {
            for (j, other) in ports.iter().enumerate().filter(|&(j, _)| j != i) {
                let theirs = other.kind.claims(other);
                let mut conflicts = theirs.iter().filter_map(|theirs| {
                    // Of two that want the same, the later is told.
                    conflict((port, &mine), (other, theirs), j < i)
                });
                match conflicts.next() {
                    None => {}
                    Some(Conflict::Note(note)) => problems.note(note),
                    Some(Conflict::Error(at, message)) => {
                        problems.config(at, format!("ports.{}", port.name), message);
                        break;
                    }
                }
            }
        }
    }
}

enum Conflict {
    Error(Position, String),
    Note(String),
}

type Claimed<'a> = (&'a PlannedPort, &'a Claim<'a>);

fn conflict((port, mine): Claimed, (other, theirs): Claimed, later: bool) -> Option<Conflict> {
    let same_place = || port.kind.netns() == other.kind.netns();
    match (mine, theirs) {
        (
            Claim::Device { device, made },
            Claim::Device {
                device: taken,
                made: other_makes,
            },
        ) if later && device == taken && same_place() => {
            let remedy = match (made, other_makes) {
                (false, false) => "an interface belongs to one port; name its queues there",
                (true, true) => "give one of them another name",
                _ => {
                    "a device that one port makes is no interface for another; write to it directly"
                }
            };
            let message = format!(
                "{:?} is the device of port {:?} (line {}) already; {remedy}",
                ***device, other.name, other.at.line
            );
            Some(Conflict::Error(device.at, message))
        }
        (
            Claim::Copies {
                device: Some(device),
                ..
            },
            Claim::Device {
                device: taken,
                made,
            },
        ) if *device == *taken && same_place() => copies(port, device, other, *made),
        (Claim::Stream(path), Claim::Stream(taken)) if later && path == taken => {
            streams(port, path, other)
        }
        (Claim::Listens(address), Claim::Listens(taken))
            if later && address.overlaps(taken) && same_place() =>
        {
            Some(listens(address, other))
        }
        _ => None,
    }
}

fn copies(
    port: &PlannedPort,
    device: &At<String>,
    other: &PlannedPort,
    made: bool,
) -> Option<Conflict> {
    if made {
        let message = format!(
            "{:?} is the device that port {:?} (line {}) makes, so that its frames would come back round and round; name an interface, or {:?} itself in a pipeline",
            **device, other.name, other.at.line, other.name
        );
        return Some(Conflict::Error(device.at, message));
    }
    other.source.then(|| {
        Conflict::Note(format!(
            "port {:?} gets no copy of the frames of {:?} that port {:?} takes: XDP takes them first",
            port.name, **device, other.name
        ))
    })
}

fn streams(port: &PlannedPort, path: &At<PathBuf>, other: &PlannedPort) -> Option<Conflict> {
    let standard = path.as_os_str() == "-";
    let (what, remedy) = match (standard, port.sink, other.sink) {
        // A file is read by as many as like to; input and output are two streams.
        (false, false, false) | (true, true, false) | (true, false, true) => return None,
        (true, false, false) => ("standard input is read", "use one port for both"),
        (true, true, true) => ("standard output is written", "use one port for both"),
        (false, true, true) => ("the file is written", "use one port for both"),
        (false, true, false) => ("the file is read", "record to another file"),
        (false, false, true) => ("the file is written", "record to another file"),
    };
    let message = format!(
        "path {:?}: {what} by port {:?} (line {}) already; {remedy}",
        path.display(),
        other.name,
        other.at.line
    );
    Some(Conflict::Error(path.at, message))
}

fn listens(address: &Listens, other: &PlannedPort) -> Conflict {
    let message = format!(
        "UDP port {} is that of port {:?} (line {}) already, and a datagram is received once; give each an address of its own (local = \"…\"), or another port",
        address.port, other.name, other.at.line
    );
    Conflict::Error(address.at, message)
}
