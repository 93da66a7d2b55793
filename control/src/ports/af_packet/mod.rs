//! `kind = "af_packet"`: copies of the frames of an interface that keeps its traffic, or of all of a
//! namespace. Here are the settings; `check` sets them against the machine, `device` opens the sockets.

mod check;
mod device;

use caps::Capability;
use serde::Serialize;

use super::{
    Checksums, Claim, Device, Found, Kind, LargestFrame, Placement, Privileges, Role,
    interface::{interface_name, netns_name},
};
use crate::{
    config::{At, Link, Plan, PlannedPort, Reader, Site, Size, choice},
    daemon::StartError,
};

/// A packet socket.
const PRIVILEGES: &[Capability] = &[Capability::CAP_NET_RAW];

/// What stands for all interfaces.
const ANY: &str = "any";

/// The MTU of Ethernet, in bytes.
const ETHERNET_MTU: u32 = 1500;

/// The MTU of the loopback interface, which is the largest there is (drivers/net/loopback.c).
const LARGEST_MTU: u64 = 65_536;

/// The settings of a port.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AfPacket {
    /// The interface, or `any`.
    pub interface: At<String>,
    /// Its network namespace; `None` is the daemon's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<At<String>>,
    /// Whether the interface is to take frames that are for others.
    pub promiscuous: At<bool>,
    /// Which frames.
    pub direction: Direction,
    /// What is done about checksums that the host left to the hardware.
    pub checksums: Checksums,
    /// The longest frame, without its Ethernet header, in bytes; `None` is what the interface has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<At<u32>>,
    /// How much the kernel keeps for a worker that is busy: memory for frames that wait, for each worker.
    pub buffer: Size,
}

choice! {
    /// Which frames of an interface.
    Direction {
        /// Those that the host receives, and those that it sends.
        #[default]
        Both = "both",
        /// Those that it receives.
        In = "in",
    }
}

/// What the kernel keeps for a worker unless `buffer` says otherwise: some 60 ms of a million short frames a
/// second, or 13 ms of 10 Gbit/s.
const BUFFER: Size = Size(16 << 20);

impl AfPacket {
    /// Reads the keys of the kind.
    pub(super) fn read(table: &mut Reader<'_, '_>, port: &At<String>) -> Option<Self> {
        let interface = table.need("interface", "\"eth0\"", |v| interface_name(&v));
        let netns = table.take_at("netns", |v| netns_name(&v));
        let promiscuous = table.take_at("promiscuous", |v| v.boolean());
        let direction = table.take("direction", |v| v.choice(Direction::ALL, &[]));
        let checksums = table.take("checksums", |v| v.choice(Checksums::ALL, &[]));
        let mtu = table.take_at("mtu", |v| v.integer(68..=LARGEST_MTU).map(|mtu| mtu as u32));
        let buffer = table.take("buffer", |v| v.size(256 << 10..=1 << 30, "16MiB"));
        Some(Self {
            interface: interface?,
            netns,
            promiscuous: promiscuous.unwrap_or(At {
                value: false,
                at: port.at,
            }),
            direction: direction.unwrap_or_default(),
            checksums: checksums.unwrap_or_default(),
            mtu,
            buffer: buffer.unwrap_or(BUFFER),
        })
    }

    /// The interface's name; `None` is all of them.
    fn interface(&self) -> Option<&str> {
        Some(self.interface.as_str()).filter(|name| *name != ANY)
    }

    /// The longest frame without its Ethernet header, in bytes.
    fn mtu(&self, link: Option<&Link>) -> u32 {
        match (&self.mtu, link) {
            (Some(mtu), _) => mtu.value,
            (None, Some(link)) => link.mtu.clamp(ETHERNET_MTU, LARGEST_MTU as u32),
            (None, None) => ETHERNET_MTU,
        }
    }
}

impl Kind for AfPacket {
    fn placement(&self) -> Placement<'_> {
        Placement::Spread
    }

    fn privileges(&self) -> Privileges {
        Privileges {
            start: PRIVILEGES,
            // An interface may go away and come back; all of them do not.
            reopen: match self.interface() {
                Some(_) => PRIVILEGES,
                None => &[],
            },
        }
    }

    fn refuses(&self, role: Role, _name: &str) -> Option<String> {
        (role == Role::Sink).then(|| {
            "is a source only; to send on an interface, make it a port of kind \"af_xdp\""
                .to_owned()
        })
    }

    fn claims(&self, _port: &PlannedPort) -> Vec<Claim<'_>> {
        vec![Claim::Copies {
            device: self.interface().map(|_| &self.interface),
            sent: self.direction == Direction::Both,
        }]
    }

    fn netns(&self) -> Option<&At<String>> {
        self.netns.as_ref()
    }

    fn largest_frame(&self, port: &PlannedPort) -> Option<LargestFrame> {
        let mtu = self.mtu(port.link.as_ref());
        let at = self.mtu.as_ref().map_or(self.interface.at, |mtu| mtu.at);
        Some(LargestFrame::of_mtu(mtu, at))
    }

    fn unfinished_checksums(&self) -> bool {
        self.checksums == Checksums::Auto
    }

    fn inspect(&self, _port: &PlannedPort, site: &mut Site<'_>) -> Found {
        check::inspect(self, site)
    }

    fn describe(&self, port: &PlannedPort) -> String {
        let mut text = match self.interface() {
            Some(name) => format!("af_packet on {name}"),
            None => "af_packet on all interfaces".to_owned(),
        };
        if let Some(netns) = &self.netns {
            text += &format!(" in namespace {}", **netns);
        }
        text += match self.direction {
            Direction::Both => ", both directions",
            Direction::In => ", incoming only",
        };
        if *self.promiscuous {
            text += ", promiscuous";
        }
        text += &format!(
            ", mtu {}, checksums {}, buffer {}",
            self.mtu(port.link.as_ref()),
            self.checksums,
            self.buffer
        );
        if port.queues.len() > 1 {
            text += &format!(" for each of {} workers, by flow", port.queues.len());
        }
        if let Some(link) = port.link.as_ref().filter(|link| !link.driver.is_empty()) {
            text += &format!(" ({})", link.driver);
        }
        text
    }

    fn make(&self, port: &PlannedPort, plan: &Plan) -> Result<Box<dyn Device>, StartError> {
        Ok(Box::new(device::PacketDevice::make(port, self, plan)?))
    }
}
