//! Each port against the machine: is the interface there, up, free and able; is the TAP's name free; is
//! the capture file there. Finds the queues of AF_XDP ports on the way.

use std::{collections::HashMap, io};

use super::{
    error::{hint, nearest},
    machine::{FileFact, Link, LookError, Machine},
    model::{AfXdp, Pcap, PortKind, Queues, Tap, XdpMode},
    plan::{PlannedPort, Problems},
    reader::At,
};

/// Drivers that are known to have no zero-copy AF_XDP. Whether another has it, only binding tells.
const NO_ZERO_COPY: &[&str] = &[
    "veth", "tun", "loopback", "bridge", "dummy", "macvlan", "ipvlan", "vxlan", "ifb",
];

/// What AF_XDP leaves free in a slot before a frame: XDP_PACKET_HEADROOM (include/uapi/linux/bpf.h).
const HEADROOM: u32 = 256;

/// An Ethernet header and one VLAN tag.
const HEADER: u32 = 14 + 4;

/// Checks every port, and fills in what was found of it.
pub(crate) fn ports(ports: &mut [PlannedPort], machine: &dyn Machine, problems: &mut Problems) {
    let mut namespaces = Namespaces {
        machine,
        seen: HashMap::new(),
    };
    for port in ports.iter_mut() {
        let context = format!("ports.{}", port.name);
        match &port.kind {
            PortKind::AfXdp(xdp) => {
                let (queues, link) = af_xdp(xdp, &context, &mut namespaces, problems);
                (port.queues, port.link) = (queues, link);
            }
            PortKind::Tap(config) => tap(config, &context, &mut namespaces, problems),
            PortKind::Pcap(config) => pcap(config, &context, machine, problems),
        }
    }
}

/// What was seen of a namespace.
enum Seen {
    Links(Vec<Link>),
    Missing,
    Unknown,
}

/// Looks into each namespace once.
struct Namespaces<'a> {
    machine: &'a dyn Machine,
    seen: HashMap<Option<String>, Seen>,
}

impl Namespaces<'_> {
    /// The links of a port's namespace; `None`, with the reason told, when they cannot be seen.
    fn links(
        &mut self,
        netns: Option<&At<String>>,
        context: &str,
        problems: &mut Problems,
    ) -> Option<&[Link]> {
        let key = netns.map(|netns| netns.value.clone());
        let machine = self.machine;
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
                    context.to_owned(),
                    format!("network namespace {:?} does not exist; {remedy}", **netns),
                );
                None
            }
            (Seen::Missing | Seen::Unknown, _) => None,
        }
    }
}

/// What to put before a shell command so that it runs where the port is.
fn within(netns: Option<&At<String>>) -> String {
    match netns {
        None => String::new(),
        Some(path) if path.starts_with('/') => format!("nsenter --net={} ", **path),
        Some(name) => format!("ip netns exec {} ", **name),
    }
}

fn af_xdp(
    xdp: &AfXdp,
    context: &str,
    namespaces: &mut Namespaces<'_>,
    problems: &mut Problems,
) -> (Vec<u32>, Option<Link>) {
    let name = xdp.interface.as_str();
    let netns = xdp.netns.as_ref();
    let Some(links) = namespaces.links(netns, context, problems) else {
        let queues = match &xdp.queues {
            Queues::All => {
                problems.note(format!(
                    "{context}: the queues of {name} are not known; queue 0 stands for all"
                ));
                vec![0]
            }
            Queues::These(queues) => sorted(queues),
        };
        return (queues, None);
    };
    let Some(link) = links.iter().find(|link| link.name == name).cloned() else {
        let near = hint(
            name,
            links.iter().map(|link| link.name.as_str()),
            "interface",
        );
        let place = match netns {
            Some(netns) => format!(" in namespace {:?}", **netns),
            None => String::new(),
        };
        problems.machine(
            xdp.interface.at,
            context.to_owned(),
            format!("interface {name:?} does not exist{place}{near}"),
        );
        return (Vec::new(), None);
    };
    // The commands of the remedies, where the interface is.
    let ip = format!("{}ip", within(netns));
    let mut refuse =
        |message: String| problems.machine(xdp.interface.at, context.to_owned(), message);
    if !link.up {
        refuse(format!("{name} is down; run: {ip} link set {name} up"));
    }
    if !xdp.force && (!link.addresses.is_empty() || link.default_route) {
        let what = match (link.addresses.first(), link.default_route) {
            (Some(address), true) => format!("the address {address} and the default route"),
            (Some(address), false) => format!("the address {address}"),
            (None, _) => "the default route".to_owned(),
        };
        refuse(format!(
            "{name} has {what}, and the host would no longer get its frames; set force = true to take it all the same (kind = \"af_packet\", which leaves the host its traffic, is not built yet)"
        ));
    }
    if let Some(id) = link.xdp {
        let program = namespaces.machine.program(id);
        refuse(format!(
            "{name} runs an XDP program already: {program}; stop its owner, or take it off: {ip} link set dev {name} xdp off"
        ));
    }
    if *xdp.mode == XdpMode::ZeroCopy && NO_ZERO_COPY.contains(&link.driver.as_str()) {
        problems.machine(
            xdp.mode.at,
            context.to_owned(),
            format!(
                "{name} has the driver {:?}, which has no zero-copy AF_XDP; set mode = \"auto\" or \"copy\"",
                link.driver
            ),
        );
    }
    let queues = match &xdp.queues {
        Queues::All => (0..link.queues.max(1)).collect(),
        Queues::These(queues) => {
            for queue in queues.iter().filter(|queue| ***queue >= link.queues) {
                let has = match link.queues {
                    0 | 1 => "queue 0 only".to_owned(),
                    n => format!("queues 0-{}", n - 1),
                };
                problems.machine(
                    queue.at,
                    context.to_owned(),
                    format!(
                        "{name} has {has}, no queue {}; where the driver has more, they come with: {}",
                        **queue,
                        more_queues(xdp, Some(&link), **queue as usize + 1)
                    ),
                );
            }
            sorted(queues)
        }
    };
    (queues, Some(link))
}

/// The command that gives an interface `count` queues. A veth counts directions apart.
pub(crate) fn more_queues(xdp: &AfXdp, link: Option<&Link>, count: usize) -> String {
    let within = within(xdp.netns.as_ref());
    let channels = match link {
        Some(link) if link.driver == "veth" => format!("rx {count} tx {count}"),
        _ => format!("combined {count}"),
    };
    format!("{within}ethtool -L {} {channels}", *xdp.interface)
}

fn sorted(queues: &[At<u32>]) -> Vec<u32> {
    let mut queues: Vec<u32> = queues.iter().map(|queue| queue.value).collect();
    queues.sort_unstable();
    queues
}

/// Says which AF_XDP ports may get frames that no slot holds.
pub(crate) fn frames_fit(ports: &[PlannedPort], slot_size: u32, problems: &mut Problems) {
    let room = slot_size - HEADROOM;
    for port in ports {
        if let (PortKind::AfXdp(xdp), Some(link)) = (&port.kind, &port.link)
            && link.mtu + HEADER > room
            && port.source
        {
            let remedy = match slot_size {
                2048 if link.mtu + HEADER <= 4096 - HEADROOM => "; set slot_size = 4096",
                _ => "; set the interface's mtu lower",
            };
            problems.note(format!(
                "port {:?}: {} has mtu {}, but a slot of {slot_size} bytes holds frames of {room}; longer ones are lost and counted{remedy}",
                port.name, *xdp.interface, link.mtu
            ));
        }
    }
}

/// A pipeline between the two ends of one veth pair: what goes out at one end comes in at the other.
pub(crate) fn veth_loops(
    ports: &[PlannedPort],
    pipelines: &[super::PlannedPipeline],
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

fn tap(tap: &Tap, context: &str, namespaces: &mut Namespaces<'_>, problems: &mut Problems) {
    let name = tap.device.as_str();
    let netns = tap.netns.as_ref();
    let Some(links) = namespaces.links(netns, context, problems) else {
        return;
    };
    let Some(taken) = links.iter().find(|link| link.name == name) else {
        return;
    };
    let ip = format!("{}ip", within(netns));
    let place = match netns {
        Some(netns) => format!(" in namespace {:?}", **netns),
        None => String::new(),
    };
    let what = match taken.driver.as_str() {
        // What another run holds goes with it; only a persistent one stays.
        "tun" => format!(
            "a TAP device {name:?}{place} already, perhaps another dataplane's; choose a name of its own (name = \"…\"), or if nobody needs it: {ip} link delete {name}"
        ),
        "" => {
            format!("an interface {name:?}{place} already; choose a name of its own (name = \"…\")")
        }
        driver => format!(
            "an interface {name:?}{place} already (driver {driver:?}); choose a name of its own (name = \"…\")"
        ),
    };
    problems.machine(
        tap.device.at,
        context.to_owned(),
        format!("there is {what}"),
    );
}

fn pcap(pcap: &Pcap, context: &str, machine: &dyn Machine, problems: &mut Problems) {
    let path = pcap.path.display();
    let at = pcap.path.at;
    match machine.file(&pcap.path) {
        Ok(FileFact::Regular(0)) => problems.config(
            at,
            context.to_owned(),
            format!("capture file {path} is empty; name one that holds frames"),
        ),
        Ok(FileFact::Directory) => problems.config(
            at,
            context.to_owned(),
            format!("{path} is a directory; name a capture file"),
        ),
        Ok(FileFact::Regular(_) | FileFact::Other) => {}
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => problems.config(
                at,
                context.to_owned(),
                format!(
                    "capture file {path} does not exist; a relative path begins at the working directory"
                ),
            ),
            io::ErrorKind::PermissionDenied => problems.machine(
                at,
                context.to_owned(),
                format!("capture file {path} may not be read; give it to this user, or run as another"),
            ),
            _ => problems.machine(
                at,
                context.to_owned(),
                format!("capture file {path} cannot be read: {error}"),
            ),
        },
    }
}
