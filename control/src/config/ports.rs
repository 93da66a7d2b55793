//! `[ports.NAME]`: one function a kind. What a value means to the machine is the plan's to ask.

use std::path::PathBuf;

use super::{
    model::{AfXdp, Checksums, Offloads, Pace, Pcap, Port, PortKind, Queues, Tap, XdpMode},
    reader::{At, Reader},
    value::Value,
};

#[derive(Clone, Copy)]
enum Kind {
    AfXdp,
    Tap,
    Pcap,
}

const KINDS: &[(&str, Kind)] = &[
    ("af_xdp", Kind::AfXdp),
    ("tap", Kind::Tap),
    ("pcap", Kind::Pcap),
];

/// Kinds that the design names and this build does not have.
const LATER_KINDS: &[&str] = &["veth", "af_packet", "vxlan", "vm", "nat"];

/// The kernel's IFNAMSIZ without its final zero (include/uapi/linux/if.h).
const LONGEST_INTERFACE: usize = 15;

/// The largest MTU that a TAP takes: 65,535 less an Ethernet header (drivers/net/tun.c).
const LARGEST_TAP_MTU: u64 = 65_521;

/// Reads one port. `name` has been checked.
pub(crate) fn read(name: &str, mut table: Reader<'_, '_>) -> Option<Port> {
    let name = At {
        value: name.to_owned(),
        at: table.at(),
    };
    let kind = table.need("kind", "\"af_xdp\"", |v| v.choice(KINDS, LATER_KINDS))?;
    let kind = match *kind {
        Kind::AfXdp => af_xdp(&mut table).map(PortKind::AfXdp),
        Kind::Tap => tap(&mut table, &name).map(PortKind::Tap),
        Kind::Pcap => pcap(&mut table).map(PortKind::Pcap),
    };
    table.finish();
    Some(Port { name, kind: kind? })
}

fn af_xdp(table: &mut Reader<'_, '_>) -> Option<AfXdp> {
    let interface = table.need("interface", "\"eth0\"", |v| interface_name(&v));
    let netns = table.take_at("netns", |v| netns_name(&v));
    let queues = table.take("queues", queues).unwrap_or(Queues::All);
    let mode = table.take_at("mode", |v| v.choice(XdpMode::ALL, &[]));
    let checksums = table.take("checksums", |v| v.choice(Checksums::ALL, &[]));
    let offloads = table.take("offloads", |v| v.choice(Offloads::ALL, &[]));
    let force = table.take("force", |v| v.boolean());
    // Whatever else a port may come to claim has no name yet.
    table.take("claim", |v| {
        let wanted = v.string()?;
        v.choice(&[("all", ())], &[wanted])
    });
    table.not_built("offload", "verdicts are made by the workers; leave it out");
    let cores = table.take_at("cores", core_numbers);
    Some(AfXdp {
        interface: interface?,
        netns,
        queues,
        mode: mode.unwrap_or_default(),
        checksums: checksums.unwrap_or_default(),
        offloads: offloads.unwrap_or_default(),
        force: force.unwrap_or(false),
        cores,
    })
}

fn tap(table: &mut Reader<'_, '_>, port: &At<String>) -> Option<Tap> {
    let device = match table.get("name") {
        Some(value) => value.located(|v| interface_name(&v)),
        None => match interface_fault(port) {
            Some(fault) => {
                table.error(format!(
                    "its device would have the port's name, which {fault}; give it one with name = \"lc0\""
                ));
                None
            }
            None => Some(port.clone()),
        },
    };
    let netns = table.take_at("netns", |v| netns_name(&v));
    let mtu = table.take_at("mtu", |v| {
        v.integer(68..=LARGEST_TAP_MTU).map(|mtu| mtu as u32)
    });
    let wait_for_consumer = table.take("wait_for_consumer", |v| v.duration());
    let passive = table.take_at("passive", |v| v.boolean());
    Some(Tap {
        device: device?,
        netns,
        mtu: mtu.unwrap_or(At {
            value: 1500,
            at: port.at,
        }),
        wait_for_consumer,
        passive,
    })
}

fn pcap(table: &mut Reader<'_, '_>) -> Option<Pcap> {
    let path = table.need("path", "\"sample.pcapng\"", |v| match v.string()? {
        "" => {
            v.error("is empty; name a capture file");
            None
        }
        "-" => {
            v.error("\"-\" (standard input) is not built yet; name a capture file");
            None
        }
        path if path.contains('\0') => {
            v.error("contains a zero byte, which no file name can");
            None
        }
        path => Some(PathBuf::from(path)),
    });
    let pace = table.take("pace", pace).unwrap_or(Pace::Original);
    let speed = table.take("speed", |v| {
        if pace != Pace::Original {
            v.error("goes with pace = \"original\" only");
            return None;
        }
        v.number(0.001..=1e6)
    });
    let loops = table.take("loops", |v| v.integer(0..=u64::from(u32::MAX)));
    Some(Pcap {
        path: path?,
        pace,
        speed: speed.unwrap_or(1.0),
        loops: loops.unwrap_or(1),
    })
}

fn pace(value: Value<'_, '_>) -> Option<Pace> {
    let forms = "\"original\", \"top\", { pps = 1000 } or { mbps = 10 }";
    if value.is_string() {
        return value.choice(&[("original", Pace::Original), ("top", Pace::Top)], &[]);
    }
    let mut table = value.table(format!("{}.pace", value.context()), forms)?;
    let pps = table.take("pps", |v| v.number(0.001..=1e9));
    let mbps = table.take("mbps", |v| v.number(0.001..=1e6));
    let given = (table.get("pps").is_some(), table.get("mbps").is_some());
    if given.0 == given.1 {
        table.error(format!("must be {forms}"));
    }
    table.finish();
    pps.map(Pace::Pps).or(mbps.map(Pace::Mbps))
}

fn queues(value: Value<'_, '_>) -> Option<Queues> {
    let forms = "\"all\" or a list of queues such as [0, 1]";
    if value.is_string() {
        return value.choice(&[("all", ())], &[]).map(|()| Queues::All);
    }
    let mut queues: Vec<At<u32>> = Vec::new();
    let elements = value.elements(forms)?;
    if elements.is_empty() {
        value.error(format!("is empty; write {forms}"));
        return None;
    }
    for element in elements {
        let queue = element.clone().located(|v| v.integer(0..=65_535))?;
        let queue = At {
            value: queue.value as u32,
            at: queue.at,
        };
        if queues.contains(&queue) {
            element.error(format!("has queue {} twice", *queue));
            return None;
        }
        queues.push(queue);
    }
    Some(Queues::These(queues))
}

fn core_numbers(value: Value<'_, '_>) -> Option<Vec<usize>> {
    let forms = "a list of cores such as [2, 3]: queue i is polled by the i-th, round and round";
    let elements = value.elements(forms)?;
    if elements.is_empty() {
        value.error(format!("is empty; write {forms}"));
        return None;
    }
    elements
        .into_iter()
        .map(|element| element.integer(0..=8191).map(|core| core as usize))
        .collect()
}

fn interface_name(value: &Value<'_, '_>) -> Option<String> {
    let name = value.string()?;
    if let Some(fault) = interface_fault(name) {
        value.error(format!("{name:?} {fault}"));
        return None;
    }
    Some(name.to_owned())
}

/// What the kernel has against a name for an interface (dev_valid_name in net/core/dev.c).
fn interface_fault(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("is empty; name an interface".to_owned());
    }
    if name.len() > LONGEST_INTERFACE {
        return Some(format!(
            "is {} bytes long; the kernel allows an interface {LONGEST_INTERFACE}",
            name.len()
        ));
    }
    if name == "." || name == ".." {
        return Some("is no name for an interface".to_owned());
    }
    name.chars()
        .find(|c| matches!(c, '/' | ':' | '\0' | '%') || c.is_whitespace())
        .map(|c| format!("contains {c:?}, which an interface's name may not"))
}

/// A name below `/run/netns`, or the absolute path of a namespace, such as `/proc/PID/ns/net`.
fn netns_name(value: &Value<'_, '_>) -> Option<String> {
    let name = value.string()?;
    // One namespace, one spelling: two ports are compared by it.
    let name = ["/run/netns/", "/var/run/netns/"]
        .iter()
        .find_map(|folder| name.strip_prefix(folder))
        .unwrap_or(name);
    let path = name.starts_with('/');
    let bad = name.is_empty() || name == "." || name == ".." || name.contains('\0');
    if bad || (name.contains('/') && !path) || name.len() > 255 {
        value.error(format!(
            "must be the name of a network namespace, as `ip netns` lists it, or an absolute path, not {name:?}"
        ));
        return None;
    }
    Some(name.to_owned())
}
