//! `kind = "af_xdp"`: frames of an existing interface. Its queues are dealt out to the workers, each
//! with frame memory of its own. Here are the settings; `check` sets them against the machine,
//! `device` takes the interface.

mod check;
mod device;
mod steering;

use caps::Capability;
use serde::{Serialize, Serializer};

use super::{
    Around, Checksums, Claim, Device, Found, Kind, Placement, Privileges,
    interface::{interface_name, netns_name},
};
use crate::{
    config::{At, CoreList, Plan, PlannedPort, Reader, Site, Value, choice},
    daemon::StartError,
};

/// A link of the daemon's choosing, an XDP program and a socket on it. CAP_PERFMON is the verifier's:
/// without it a program may not subtract packet pointers, by which ours knows a frame in pieces.
const PRIVILEGES: &[Capability] = &[
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
];

/// The settings of a port.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AfXdp {
    /// The interface.
    pub interface: At<String>,
    /// Its network namespace; `None` is the daemon's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<At<String>>,
    /// Which of its queues.
    pub queues: Queues,
    /// How the kernel hands over frames.
    pub mode: At<XdpMode>,
    /// What is done about checksums that the sender left to the hardware.
    pub checksums: Checksums,
    /// What is done about offloads that hide or merge frames.
    pub offloads: Offloads,
    /// Have the interface take frames that are for others, too; only of a source. `None`: if that can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promiscuous: Option<bool>,
    /// Take the interface, or send there, although the host uses it.
    pub force: bool,
    /// Queue `i` is polled by `cores[i % cores.len()]`; `None` spreads queues over all workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<At<Vec<usize>>>,
}

/// Which queues of an interface a port has.
#[derive(Clone, Debug, PartialEq)]
pub enum Queues {
    /// All that are active.
    All,
    /// These.
    These(Vec<At<u32>>),
}

impl Serialize for Queues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Queues::All => serializer.serialize_str("all"),
            Queues::These(queues) => queues.serialize(serializer),
        }
    }
}

choice! {
    /// How the kernel hands over the frames of an AF_XDP port.
    XdpMode {
        /// The best that the interface grants.
        #[default]
        Auto = "auto",
        /// Zero-copy, or the start fails.
        ZeroCopy = "zero-copy",
        /// In the driver, with a copy.
        Copy = "copy",
        /// Generic: any interface, slowest.
        Skb = "skb",
    }
}

choice! {
    /// What is done about offloads that hide VLAN tags or merge frames.
    Offloads {
        /// They are turned off, and restored at a clean end.
        #[default]
        Fix = "fix",
        /// They are named and left alone.
        Keep = "keep",
        /// The start fails unless all are off.
        Require = "require",
    }
}

impl AfXdp {
    /// Reads the keys of the kind.
    pub(super) fn read(table: &mut Reader<'_, '_>, _port: &At<String>) -> Option<Self> {
        let interface = table.need("interface", "\"eth0\"", |v| interface_name(&v));
        let netns = table.take_at("netns", |v| netns_name(&v));
        let queues = table.take("queues", queues).unwrap_or(Queues::All);
        let mode = table.take_at("mode", |v| v.choice(XdpMode::ALL, &[]));
        let checksums = table.take("checksums", |v| v.choice(Checksums::ALL, &[]));
        let offloads = table.take("offloads", |v| v.choice(Offloads::ALL, &[]));
        let promiscuous = table.take("promiscuous", |v| v.boolean());
        let force = table.take("force", |v| v.boolean());
        // Whatever else a port may come to claim has no name yet.
        table.take("claim", |v| {
            let wanted = v.string()?;
            v.choice(&[("all", ())], &[wanted])
        });
        table.not_built("offload", "verdicts are made by the workers; leave it out");
        let cores = table.take_at("cores", core_numbers);
        Some(Self {
            interface: interface?,
            netns,
            queues,
            mode: mode.unwrap_or_default(),
            checksums: checksums.unwrap_or_default(),
            offloads: offloads.unwrap_or_default(),
            promiscuous,
            force: force.unwrap_or(false),
            cores,
        })
    }
}

impl Kind for AfXdp {
    fn placement(&self) -> Placement<'_> {
        Placement::Queues {
            interface: &self.interface,
            cores: self.cores.as_ref(),
        }
    }

    fn privileges(&self) -> Privileges {
        Privileges {
            start: PRIVILEGES,
            // The interface may go away and come back.
            reopen: PRIVILEGES,
        }
    }

    fn claims(&self, _port: &PlannedPort) -> Vec<Claim<'_>> {
        vec![Claim::Device {
            device: &self.interface,
            made: false,
        }]
    }

    fn netns(&self) -> Option<&At<String>> {
        self.netns.as_ref()
    }

    fn unfinished_checksums(&self) -> bool {
        self.checksums == Checksums::Auto
    }

    fn inspect(&self, port: &PlannedPort, site: &mut Site<'_>) -> Found {
        check::inspect(self, port, site)
    }

    fn cautions(&self, port: &PlannedPort, around: &Around<'_>) -> Vec<String> {
        let fit = check::frames_fit(self, port, around.slot_size);
        let copies = check::copies(self, port, around.slot_size);
        let steering = steering::cautions(self, port, around.cores);
        fit.into_iter().chain(copies).chain(steering).collect()
    }

    fn describe(&self, port: &PlannedPort) -> String {
        let netns = match &self.netns {
            Some(netns) => format!(" in namespace {}", **netns),
            None => String::new(),
        };
        let numbers = port.queues.iter().map(|&queue| queue as usize).collect();
        let link = match &port.link {
            Some(link) => {
                let driver = match link.driver.as_str() {
                    "" => String::new(),
                    driver => format!("{driver}, "),
                };
                let spread = steering::describe(link).filter(|_| port.source);
                let spread = spread.map(|how| format!("; {how}")).unwrap_or_default();
                format!("{driver}mtu {}{spread}", link.mtu)
            }
            None => "not inspected".to_owned(),
        };
        format!(
            "af_xdp on {}{netns}, {} {}, mode {}, checksums {}, offloads {}{} ({link})",
            *self.interface,
            if port.queues.len() == 1 {
                "queue"
            } else {
                "queues"
            },
            CoreList(numbers),
            *self.mode,
            self.checksums,
            self.offloads,
            match port.source && self.promiscuous == Some(false) {
                true => ", only frames for its own address",
                false => "",
            },
        )
    }

    fn make(&self, port: &PlannedPort, plan: &Plan) -> Result<Box<dyn Device>, StartError> {
        Ok(Box::new(device::XdpDevice::make(port, self, plan)?))
    }
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
