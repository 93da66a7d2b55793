//! The sockets of a VXLAN port: for each worker one that receives, and as many that send as there are outer
//! source ports.

use std::{net::IpAddr, os::fd::OwnedFd};

use dataplane::port::{
    Port,
    vxlan::{VxlanOptions, VxlanPort},
};
use nix::errno::Errno;

use super::{
    super::{frames::HEADERS, interface::within},
    Vxlan as Settings,
};
use crate::{
    api::protocol::PortInfo,
    config::PlannedPort,
    daemon::StartError,
    link::{
        netns::{NetNs, in_netns},
        udp::{self, Step, UdpError},
    },
    ports::{Device, Seat},
};

/// Bytes that a receiving socket may hold: some ten thousand small datagrams, which the kernel books with
/// 768 bytes each.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Bytes on their way to the link, of each sending socket.
const SEND_BUFFER: usize = 2 << 20;

/// What one worker gets.
type Sockets = (Option<OwnedFd>, Vec<OwnedFd>);

pub(super) struct VxlanDevice {
    ns: NetNs,
    settings: Settings,
    options: VxlanOptions,
    /// By number; a worker takes its own.
    sockets: Vec<Option<Sockets>>,
    notes: Vec<String>,
}

impl VxlanDevice {
    pub(super) fn make(port: &PlannedPort, settings: &Settings) -> Result<Self, StartError> {
        let fail = |error: &dyn std::fmt::Display| StartError::machine(&port.name, error);
        let ns = NetNs::open_or_own(settings.netns.as_ref().map(|ns| ns.as_str()))
            .map_err(|e| fail(&e))?;
        let workers = port.queues.len();
        let (mut sources, mut sinks, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        if port.source {
            let open = || {
                udp::listeners(
                    settings.listens_at(),
                    *settings.port,
                    workers,
                    RECEIVE_BUFFER,
                )
            };
            let opened = in_netns(&ns, open).map_err(|e| fail(&e))?;
            let (sockets, granted) = opened.map_err(|e| fail(&refusal(settings, &e)))?;
            sources = sockets;
            // The kernel shows twice of what it was asked for.
            if granted < RECEIVE_BUFFER {
                notes.push(format!(
                    "port {}: its socket holds {} KiB only, so that a burst may be lost (kernel_full); sysctl -w net.core.rmem_max={RECEIVE_BUFFER}",
                    port.name,
                    granted / 2048
                ));
            }
        }
        if let (true, Some(to)) = (port.sink, settings.peer()) {
            let local = settings.local.as_ref().map(|local| **local);
            let open = || {
                let one = |_| udp::sender(local, to, settings.outer(), SEND_BUFFER);
                let of_worker = |_| {
                    (0..settings.source_ports)
                        .map(one)
                        .collect::<Result<Vec<_>, _>>()
                };
                (0..workers).map(of_worker).collect::<Result<Vec<_>, _>>()
            };
            let opened = in_netns(&ns, open).map_err(|e| fail(&e))?;
            sinks = opened.map_err(|e| fail(&refusal(settings, &e)))?;
        }
        let mut sources = sources.into_iter();
        let mut sinks = sinks.into_iter();
        Ok(Self {
            ns,
            options: VxlanOptions {
                vni: *settings.vni,
                max_frame: (*settings.mtu + HEADERS) as usize,
                peer: settings.remote.as_ref().map(|remote| **remote),
            },
            settings: settings.clone(),
            sockets: (0..workers)
                .map(|_| Some((sources.next(), sinks.next().unwrap_or_default())))
                .collect(),
            notes,
        })
    }
}

impl Device for VxlanDevice {
    fn open(
        &mut self,
        &Seat { queue, .. }: &Seat<'_>,
    ) -> Result<Option<Box<dyn Port>>, StartError> {
        let sockets = self.sockets.get_mut(queue as usize).and_then(Option::take);
        Ok(sockets.map(|(source, sinks)| {
            Box::new(VxlanPort::new(self.options, source, sinks)) as Box<dyn Port>
        }))
    }

    fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    fn describe(&self, info: &mut PortInfo) {
        let far: Option<IpAddr> = self.settings.remote.as_ref().map(|remote| **remote);
        info.interface = Some(match far {
            Some(remote) => format!("{remote} vni {}", *self.settings.vni),
            None => format!("vni {}", *self.settings.vni),
        });
        info.netns = self.ns.name().map(str::to_owned);
        info.mtu = Some(*self.settings.mtu);
    }
}

/// What the kernel refused, and what to do.
fn refusal(settings: &Settings, error: &UdpError) -> String {
    let within = within(settings.netns.as_ref());
    let UdpError { step, errno } = error;
    let (port, why) = (*settings.port, errno.desc());
    let remote = settings
        .remote
        .as_ref()
        .map_or_else(String::new, |r| r.to_string());
    match (step, errno, &settings.local) {
        (Step::Bind, Errno::EADDRINUSE, _) => format!(
            "UDP port {port} is taken: another program, or a vxlan device of the kernel, receives there (look: {within}ss -ulnp 'sport = {port}'; {within}ip -d link show type vxlan); end it, or set another port"
        ),
        (Step::Bind, Errno::EADDRNOTAVAIL, Some(local)) => format!(
            "local {} is no address of this host; name one that is ({within}ip address), or leave it out",
            **local
        ),
        (Step::Bind, Errno::EACCES | Errno::EPERM, _) => format!(
            "UDP port {port} is for privileged programs: run as root, with CAP_NET_BIND_SERVICE, or set a port above 1023"
        ),
        (Step::Open, Errno::EMFILE | Errno::ENFILE, _) => format!(
            "cannot open a socket: {why}; set a smaller source_ports, or raise the limit of open files (ulimit -n)"
        ),
        (Step::Connect, Errno::EACCES, _) => {
            format!(
                "remote {remote} is a broadcast address of one of this host's networks; name one host"
            )
        }
        (Step::Connect, _, _) => format!(
            "there is no way to remote {remote}: {why}; give this host a route to it ({within}ip route get {remote})"
        ),
        (step, errno, _) => format!(
            "cannot {} a UDP socket: {errno} ({why}); look at the system's limits",
            match step {
                Step::Open => "open",
                _ => "bind",
            }
        ),
    }
}
