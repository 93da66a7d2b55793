//! Packet sockets on an interface, one for each worker. The interface may go down and up, which the sockets
//! outlive, or away and come back; then they are made anew.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
};

use dataplane::port::{
    Port,
    af_packet::{AfPacketOptions, AfPacketPort, Sharing, SocketOptions, filter, let_in, open},
};
use nix::sys::stat::fstat;

use super::{ANY, AfPacket, Direction, check};
use crate::{
    api::protocol::PortInfo,
    config::{Plan, PlannedPort},
    daemon::StartError,
    link::{
        monitor::{Change, LinkEvent},
        netlink::Netlink,
        netns::{NetNs, on_core_in_netns},
    },
    ports::{Claim, Device, Seat, Turn, frames::HEADERS},
};

pub(super) struct PacketDevice {
    port: String,
    config: AfPacket,
    ns: NetNs,
    /// How many workers have a socket.
    sockets: usize,
    /// The group that their sockets share frames in, once the first is open.
    group: Option<u16>,
    /// The sockets of a group that is not complete: they take nothing yet.
    incomplete: Vec<OwnedFd>,
    mtu: u32,
    /// The names of the devices in this namespace that the daemon makes: their frames come from here.
    made: Vec<String>,
    /// The interface, while it is there.
    ifindex: Option<u32>,
    up: bool,
    notes: Vec<String>,
}

impl PacketDevice {
    pub(super) fn make(
        port: &PlannedPort,
        config: &AfPacket,
        plan: &Plan,
    ) -> Result<Self, StartError> {
        let fail = |error: &dyn std::fmt::Display| StartError::machine(&port.name, error);
        let ns = NetNs::open_or_own(config.netns.as_ref().map(|ns| ns.value.as_str()))
            .map_err(|e| fail(&e))?;
        let made = made_in(&ns, plan).map_err(|e| fail(&e))?;
        let mut device = Self {
            port: port.name.clone(),
            config: config.clone(),
            ns,
            sockets: port.queues.len(),
            group: None,
            incomplete: Vec::new(),
            mtu: config.mtu(port.link.as_ref()),
            made,
            ifindex: None,
            up: true,
            notes: Vec::new(),
        };
        device.revive()?;
        Ok(device)
    }

    fn fail(&self, error: &dyn std::fmt::Display) -> StartError {
        StartError::machine(&self.port, error)
    }

    fn netlink(&self) -> Result<Netlink, StartError> {
        Netlink::open(&self.ns).map_err(|e| self.fail(&e))
    }

    /// The indexes of the devices that the daemon has made in this namespace. All are made before the first
    /// socket is opened.
    fn own(&self) -> Result<Vec<u32>, StartError> {
        let mut netlink = self.netlink()?;
        let mut own = Vec::new();
        for name in &self.made {
            let link = netlink.link_by_name(name).map_err(|e| self.fail(&e))?;
            own.extend(link.map(|link| link.ifindex));
        }
        Ok(own)
    }
}

/// The names of the devices that a plan makes in `ns`, however it names that.
fn made_in(ns: &NetNs, plan: &Plan) -> io::Result<Vec<String>> {
    let here = identity(ns)?;
    let mut made = Vec::new();
    for port in &plan.ports {
        for claim in port.kind.claims(port) {
            let Claim::Device { device, made: true } = claim else {
                continue;
            };
            let there = port.kind.netns().map(|netns| netns.value.as_str());
            // One that cannot be opened fails the port that is in it.
            if let Ok(there) = NetNs::open_or_own(there)
                && identity(&there)? == here
            {
                made.push(device.value.clone());
            }
        }
    }
    Ok(made)
}

/// What tells a namespace from all others.
fn identity(ns: &NetNs) -> io::Result<(u64, u64)> {
    match ns.fd() {
        Some(fd) => fstat(fd)
            .map(|stat| (stat.st_dev, stat.st_ino))
            .map_err(io::Error::from),
        None => fs::metadata("/proc/thread-self/ns/net").map(|stat| (stat.dev(), stat.ino())),
    }
}

impl Device for PacketDevice {
    fn open(
        &mut self,
        &Seat { queue, core, .. }: &Seat<'_>,
    ) -> Result<Option<Box<dyn Port>>, StartError> {
        if self.config.interface().is_some() && self.ifindex.is_none() {
            return Ok(None);
        }
        let own = match self.ifindex {
            Some(_) => Vec::new(),
            None => self.own()?,
        };
        let max_frame = self.mtu + HEADERS;
        let takes = filter::ethernet(&own, max_frame);
        let options = SocketOptions {
            interface: &self.config.interface,
            ifindex: self.ifindex,
            ring: self.config.buffer.0 as usize,
            incoming_only: self.config.direction == Direction::In,
            // Once is enough, whoever reads the frames.
            promiscuous: *self.config.promiscuous && queue == 0,
            sharing: match self.group {
                _ if self.sockets < 2 => Sharing::Alone,
                None => Sharing::First,
                Some(group) => Sharing::Join(group),
            },
            filter: match self.sockets {
                0 | 1 => &takes,
                _ => &filter::nothing(),
            },
        };
        let (socket, ring) = on_core_in_netns(core, &self.ns, || open(&options))
            .map_err(|e| self.fail(&e))?
            .map_err(|e| self.fail(&e))?;
        self.group = socket.group();
        if self.group.is_some() {
            let shared = socket.as_fd().try_clone_to_owned();
            self.incomplete.push(shared.map_err(|e| self.fail(&e))?);
        }
        if self.incomplete.len() == self.sockets {
            for socket in std::mem::take(&mut self.incomplete) {
                let_in(socket.as_fd(), &takes).map_err(|e| self.fail(&e))?;
            }
        }
        let interface = self.config.interface().unwrap_or("INTERFACE");
        Ok(Some(Box::new(AfPacketPort::new(
            socket,
            ring,
            AfPacketOptions {
                interface: match self.config.interface() {
                    Some(name) => name.to_owned(),
                    None => format!("interface {ANY:?}"),
                },
                max_frame: max_frame as usize,
                remedy: format!(
                    "{}ethtool -K {interface} gro off gso off tso off, or take them: mtu = 65521 with fewer slots",
                    self.ns.shell_prefix()
                ),
            },
        ))))
    }

    fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    fn mode(&self) -> String {
        if !self.up {
            return "down".to_owned();
        }
        let mut mode = "tpacket_v3".to_owned();
        if *self.config.promiscuous {
            mode += " promiscuous";
        }
        if let Some(group) = self.group {
            mode += &format!(" fanout {group}");
        }
        mode
    }

    fn watched(&self) -> Option<(&NetNs, &str)> {
        self.config.interface().map(|name| (&self.ns, name))
    }

    fn link_changed(&mut self, event: &LinkEvent) -> Turn {
        let name = self.config.interface.as_str();
        if self.ifindex.is_none() {
            return match event.name == name && event.up {
                true => Turn::Up,
                false => Turn::None,
            };
        }
        if self.ifindex != Some(event.ifindex) {
            return Turn::None;
        }
        if event.change == Change::Gone {
            self.ifindex = None;
            self.up = false;
            return Turn::Down;
        }
        // The kernel takes the sockets off an interface that goes down, and puts them back.
        match (self.up, event.up) {
            (true, false) => {
                self.up = false;
                Turn::Warn(format!(
                    "{} is down; nothing comes from it until it is up again",
                    event.name
                ))
            }
            (false, true) => {
                self.up = true;
                Turn::Tell(format!("{} is up again", event.name))
            }
            _ => Turn::None,
        }
    }

    fn revive(&mut self) -> Result<(), StartError> {
        let Some(name) = self.config.interface().map(str::to_owned) else {
            return Ok(());
        };
        self.notes.clear();
        self.group = None;
        self.incomplete.clear();
        let link = self.netlink()?.link_by_name(&name);
        let Some(link) = link.map_err(|e| self.fail(&e))? else {
            return Err(self.fail(&format!("there is no interface {name} in {}", self.ns)));
        };
        if let Some(fault) = check::no_ethernet(&name, link.hardware) {
            return Err(self.fail(&fault));
        }
        self.ifindex = Some(link.ifindex);
        self.up = link.up;
        if !link.up {
            self.notes.push(format!(
                "{name} has no carrier; nothing comes from it until it has one"
            ));
        }
        Ok(())
    }

    fn describe(&self, info: &mut PortInfo) {
        info.interface = Some(self.config.interface.value.clone());
        info.netns = self.ns.name().map(str::to_owned);
        info.mtu = Some(self.mtu);
    }
}
