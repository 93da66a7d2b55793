//! `kind = "tap"`: a TAP or TUN device that the daemon makes, with a descriptor for each worker that reads or
//! writes it. Here are the settings; `device` makes it.

mod device;

use std::{thread, time::Duration};

use caps::Capability;
use dataplane::port::tap::Layer;
use serde::{Serialize, Serializer};

use super::{
    Claim, Device, Found, Kind, LargestFrame, Placement, Privileges, Role,
    interface::{LOOKS, PAUSE, interface_fault, interface_name, netns_name, within},
};
use crate::{
    config::{At, Plan, PlannedPort, Reader, Site, choice, time_text},
    daemon::StartError,
};

/// The largest MTU that a TAP takes: 65,535 less an Ethernet header (drivers/net/tun.c).
const LARGEST_MTU: u64 = 65_521;

/// What stands before a frame on a device that takes trains: a virtio_net_hdr (include/uapi/linux/virtio_net.h).
const VIRTIO: u32 = 10;

choice! {
    /// What sort of device it is.
    DeviceType {
        /// Layer 2: Ethernet frames go through it.
        #[default]
        Tap = "tap",
        /// Layer 3: IP packets go through it.
        Tun = "tun",
    }
}

/// The settings of a port.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tap {
    /// The device's name.
    #[serde(rename = "name")]
    pub device: At<String>,
    /// What sort of device it is.
    #[serde(rename = "type")]
    pub device_type: DeviceType,
    /// The network namespace that it is made in; `None` is the daemon's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<At<String>>,
    /// The device's MTU in bytes, without the Ethernet header, which a TUN device does not have.
    pub mtu: At<u32>,
    /// How long sources are held back until something listens.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    pub wait_for_consumer: Option<Duration>,
    /// Whether the host is kept from answering what it hears; `None` is yes, unless a pipeline has the
    /// port as a source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passive: Option<At<bool>>,
    /// Whether TCP segments of one flow that stand one behind the other are written as one; `None` is no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gso: Option<At<bool>>,
}

impl Tap {
    /// Reads the keys of the kind.
    pub(super) fn read(table: &mut Reader<'_, '_>, port: &At<String>) -> Option<Self> {
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
        let device_type = table.take("type", |v| v.choice(DeviceType::ALL, &[]));
        let netns = table.take_at("netns", |v| netns_name(&v));
        let mtu = table.take_at("mtu", |v| v.integer(68..=LARGEST_MTU).map(|mtu| mtu as u32));
        let wait_for_consumer = table.take("wait_for_consumer", |v| v.duration());
        let passive = table.take_at("passive", |v| v.boolean());
        let is_tun = device_type == Some(DeviceType::Tun);
        let gso = table.take_at("gso", |v| match v.boolean()? {
            true if is_tun => {
                v.error("is for devices of layer 2: TCP trains are not written to a TUN; leave it out, or type");
                None
            }
            gso => Some(gso),
        });
        Some(Self {
            device: device?,
            device_type: device_type.unwrap_or_default(),
            netns,
            mtu: mtu.unwrap_or(At {
                value: 1500,
                at: port.at,
            }),
            wait_for_consumer,
            passive,
            gso,
        })
    }

    /// Whether trains are written.
    fn gso(&self) -> bool {
        self.gso.as_deref() == Some(&true)
    }

    /// What goes through the device.
    fn layer(&self) -> Layer {
        match self.device_type {
            DeviceType::Tap => Layer::Ethernet,
            DeviceType::Tun => Layer::Ip,
        }
    }
}

impl Kind for Tap {
    fn placement(&self) -> Placement<'_> {
        Placement::Descriptors
    }

    fn privileges(&self) -> Privileges {
        Privileges {
            start: &[Capability::CAP_NET_ADMIN],
            reopen: &[],
        }
    }

    fn refuses(&self, role: Role, name: &str) -> Option<String> {
        let passive = self.passive.as_deref() == Some(&true);
        (role == Role::Source && passive).then(|| {
            format!("is a sink only, because it is passive; set passive = false in [ports.{name}]")
        })
    }

    fn claims(&self, _port: &PlannedPort) -> Vec<Claim<'_>> {
        vec![Claim::Device {
            device: &self.device,
            made: true,
        }]
    }

    fn netns(&self) -> Option<&At<String>> {
        self.netns.as_ref()
    }

    fn largest_frame(&self, port: &PlannedPort) -> Option<LargestFrame> {
        let mut frame = LargestFrame::of_mtu(*self.mtu, self.mtu.at);
        if self.gso() && port.source {
            // It stands before what is read, too.
            frame.bytes += VIRTIO;
        }
        Some(frame)
    }

    fn passive(&self, source: bool) -> bool {
        self.passive
            .as_ref()
            .map_or(!source, |passive| passive.value)
    }

    fn inspect(&self, port: &PlannedPort, site: &mut Site<'_>) -> Found {
        if let Some(gso) = self.gso.as_ref().filter(|gso| gso.value && !port.sink) {
            let message = "gso is for a sink: TCP trains are written, never read, and no pipeline goes to this port; leave it out";
            site.wrong(gso.at, message.to_owned());
        }
        let name = self.device.as_str();
        let netns = self.netns.as_ref();
        let mut looks = 0;
        let taken = loop {
            let links = site.links(netns).unwrap_or_default();
            let Some(taken) = links.iter().find(|link| link.name == name) else {
                return Found::default();
            };
            // One that goes at this moment is still listed, and has no driver any more.
            let may_go = matches!(taken.driver.as_str(), "tun" | "");
            if !may_go || looks == LOOKS {
                break taken.clone();
            }
            // A run that was killed leaves its device for some 50 ms, while the kernel takes its ring down.
            looks += 1;
            thread::sleep(PAUSE);
            site.look_again(netns);
        };
        let ip = format!("{}ip", within(netns));
        let place = match netns {
            Some(netns) => format!(" in namespace {:?}", **netns),
            None => String::new(),
        };
        let what = match taken.driver.as_str() {
            // What another run holds goes with it; only a persistent one stays.
            "tun" => format!(
                "a TAP or TUN device {name:?}{place} already, perhaps another dataplane's; choose a name of its own (name = \"…\"), or if nobody needs it: {ip} link delete {name}"
            ),
            "" => {
                format!(
                    "an interface {name:?}{place} already; choose a name of its own (name = \"…\")"
                )
            }
            driver => format!(
                "an interface {name:?}{place} already (driver {driver:?}); choose a name of its own (name = \"…\")"
            ),
        };
        let message = format!("there is {what}");
        site.refuse(self.device.at, message);
        Found::default()
    }

    fn describe(&self, port: &PlannedPort) -> String {
        let mut text = format!("{} {}", self.device_type, *self.device);
        if let Some(netns) = &self.netns {
            text += &format!(" in namespace {}", **netns);
        }
        text += &format!(", to be made, mtu {}", *self.mtu);
        if port.queues.len() > 1 {
            text += &format!(", {} queues", port.queues.len());
        }
        if port.passive() {
            text += ", passive";
        }
        if self.gso() {
            text += ", TCP trains";
        }
        if let Some(time) = self.wait_for_consumer {
            text += &format!(", waits {time:?} for a listener");
        }
        text
    }

    fn make(&self, port: &PlannedPort, _plan: &Plan) -> Result<Box<dyn Device>, StartError> {
        Ok(Box::new(device::TapDevice::make(port, self)?))
    }
}

fn text<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(time_text).serialize(serializer)
}
