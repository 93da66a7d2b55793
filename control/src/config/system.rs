//! The real machine: sysfs, rtnetlink and ethtool, read-only and without privilege, except that looking
//! into another network namespace (setns(2)) needs CAP_SYS_ADMIN.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::FileTypeExt,
    path::Path,
    thread,
};

use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteType},
};
use nix::sched::sched_getaffinity;

use super::{
    cores::CoreList,
    machine::{FileFact, Link, LookError, Machine, Peer, Way},
};
use crate::{
    kernel::foreign::ForeignProgram,
    link::{
        ethtool::{Ethtool, EthtoolError},
        netlink::{self, Netlink, NetlinkError},
        netns::{NetNs, NetNsError, in_netns},
        steering::Steering,
        udp,
    },
};

/// Where ip-netns(8) keeps namespaces by name.
const NETNS: &str = "/run/netns";

/// The machine that this process runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemMachine;

impl SystemMachine {
    /// The machine, asked anew at every question.
    pub const fn new() -> Self {
        Self
    }
}

impl Machine for SystemMachine {
    fn cores(&self) -> Vec<usize> {
        let online = fs::read_to_string("/sys/devices/system/cpu/online");
        match online.ok().and_then(|text| text.trim().parse().ok()) {
            Some(CoreList(cores)) => cores,
            None => (0..thread::available_parallelism().map_or(1, usize::from)).collect(),
        }
    }

    fn default_core(&self) -> usize {
        let cores = self.cores();
        let allowed = sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap_or_default();
        let mut descending = cores.iter().rev();
        descending
            .find(|&&core| allowed.is_set(core).unwrap_or(false))
            .or(cores.last())
            .copied()
            .unwrap_or(0)
    }

    fn node(&self, core: usize) -> Option<usize> {
        // A machine of one node has nothing to tell.
        let nodes = fs::read_to_string("/sys/devices/system/node/online").ok()?;
        if nodes.trim() == "0" {
            return None;
        }
        let entries = fs::read_dir(format!("/sys/devices/system/cpu/cpu{core}")).ok()?;
        entries.flatten().find_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.strip_prefix("node")?.parse().ok()
        })
    }

    fn links(&self, netns: Option<&str>) -> Result<Vec<Link>, LookError> {
        let ns = NetNs::open_or_own(netns)?;
        let mut netlink = Netlink::open(&ns)?;
        let ethtool = Ethtool::open(&ns)?;
        let found = netlink.links()?;
        let mut links: Vec<_> = found.iter().map(|found| link(found, &ethtool)).collect();
        addresses(&mut netlink, &mut links)?;
        default_routes(&mut netlink, &mut links)?;
        Ok(links)
    }

    fn namespaces(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(NETNS) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    fn namespace_id(&self, from: Option<&str>, of: Option<&str>) -> Option<i32> {
        let from = NetNs::open_or_own(from).ok()?;
        let of = NetNs::open(of.unwrap_or("/proc/self/ns/net")).ok()?;
        Netlink::open(&from).ok()?.nsid_of(&of).ok()?
    }

    fn program(&self, id: u32) -> ForeignProgram {
        ForeignProgram::describe(id)
    }

    fn way(
        &self,
        netns: Option<&str>,
        local: Option<IpAddr>,
        to: SocketAddr,
    ) -> Result<Way, LookError> {
        let ns = NetNs::open_or_own(netns)?;
        let (mtu, source) = in_netns(&ns, || udp::path(local, to))??;
        Ok(Way { mtu, source })
    }

    fn file(&self, path: &Path) -> io::Result<FileFact> {
        let metadata = fs::metadata(path)?;
        if metadata.is_dir() {
            return Ok(FileFact::Directory);
        }
        if metadata.file_type().is_fifo() {
            // Opening it would wait for its other end.
            return Ok(FileFact::Pipe);
        }
        if !metadata.is_file() {
            return Ok(FileFact::Other);
        }
        File::open(path)?;
        Ok(FileFact::Regular(metadata.len()))
    }
}

impl From<NetNsError> for LookError {
    fn from(error: NetNsError) -> Self {
        match &error {
            NetNsError::Missing { .. } => LookError::NoNamespace,
            NetNsError::Open { error: io, .. } | NetNsError::Enter { error: io, .. }
                if io.kind() == io::ErrorKind::PermissionDenied =>
            {
                LookError::Privilege
            }
            _ => LookError::Other(io::Error::other(error)),
        }
    }
}

impl From<NetlinkError> for LookError {
    fn from(error: NetlinkError) -> Self {
        match error {
            NetlinkError::NetNs(error) => error.into(),
            error => LookError::Other(io::Error::other(error)),
        }
    }
}

impl From<EthtoolError> for LookError {
    fn from(error: EthtoolError) -> Self {
        match error {
            EthtoolError::NetNs(error) => error.into(),
            error => LookError::Other(io::Error::other(error)),
        }
    }
}

/// What rtnetlink says of a link, and the driver beside it.
fn link(found: &netlink::Link, ethtool: &Ethtool) -> Link {
    let queues = ethtool.queues(&found.name).unwrap_or(1).max(1);
    Link {
        name: found.name.clone(),
        index: found.ifindex,
        hardware: found.hardware,
        up: found.admin_up,
        mtu: found.mtu,
        driver: match found.ifindex {
            // Every namespace's first, and nobody else's (LOOPBACK_IFINDEX, include/net/flow.h).
            1 => "loopback".to_owned(),
            _ => ethtool.driver(&found.name).unwrap_or_default(),
        },
        queues,
        steering: match queues {
            1 => Steering::default(),
            _ => ethtool.steering(&found.name),
        },
        peer: match found.is_veth() {
            true => found.lower.map(|other| Peer {
                index: other.ifindex,
                netns: other.nsid,
            }),
            false => None,
        },
        addresses: Vec::new(),
        default_route: false,
        xdp: found.xdp.first().map(|attachment| attachment.program),
    }
}

fn addresses(netlink: &mut Netlink, links: &mut [Link]) -> Result<(), LookError> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    for answer in netlink.dump(request, "list the addresses")? {
        if let RouteNetlinkMessage::NewAddress(message) = answer
            && let Some(link) = links
                .iter_mut()
                .find(|link| link.index == message.header.index)
            && let Some(address) = address(&message)
        {
            link.addresses.push(address);
        }
    }
    Ok(())
}

fn default_routes(netlink: &mut Netlink, links: &mut [Link]) -> Result<(), LookError> {
    let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
    for answer in netlink.dump(request, "list the routes")? {
        if let RouteNetlinkMessage::NewRoute(message) = answer
            && let Some(index) = default_route(&message)
            && let Some(link) = links.iter_mut().find(|link| link.index == index)
        {
            link.default_route = true;
        }
    }
    Ok(())
}

/// An address that the host answers for; every IPv6 interface has one of the link alone, which does not
/// make it the host's.
fn address(message: &AddressMessage) -> Option<String> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => found = Some(*address),
            AddressAttribute::Address(address) => found = found.or(Some(*address)),
            _ => {}
        }
    }
    match found? {
        IpAddr::V6(address) if address.is_unicast_link_local() => None,
        address => Some(format!("{address}/{}", message.header.prefix_len)),
    }
}

/// The interface by which a default route of the main table leaves.
fn default_route(message: &RouteMessage) -> Option<u32> {
    let header = &message.header;
    if header.destination_prefix_length != 0
        || header.table != RouteHeader::RT_TABLE_MAIN
        || header.kind != RouteType::Unicast
    {
        return None;
    }
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_asked() {
        let machine = SystemMachine;
        let cores = machine.cores();
        assert!(cores.is_sorted() && !cores.is_empty(), "{cores:?}");
        assert!(cores.contains(&machine.default_core()));
        let links = machine.links(None).expect("one's own interfaces");
        let lo = links.iter().find(|link| link.name == "lo").expect("lo");
        assert_eq!(
            (lo.index, lo.driver.as_str(), lo.queues),
            (1, "loopback", 1)
        );
        assert_eq!((lo.peer, lo.xdp), (None, None));
    }

    #[test]
    fn what_is_not_there() {
        let machine = SystemMachine;
        let links = machine.links(Some("no-such-namespace"));
        assert!(matches!(links, Err(LookError::NoNamespace)), "{links:?}");
        assert_eq!(machine.namespace_id(None, Some("no-such-namespace")), None);
        let program = machine.program(u32::MAX).to_string();
        assert!(program.contains("held by no process"), "{program}");
        assert_eq!(machine.node(1 << 20), None);
    }

    #[test]
    fn files() {
        let machine = SystemMachine;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("f");
        fs::write(&file, b"abc").expect("a file");
        assert_eq!(machine.file(&file).ok(), Some(FileFact::Regular(3)));
        assert_eq!(machine.file(folder.path()).ok(), Some(FileFact::Directory));
        assert_eq!(
            machine.file(Path::new("/dev/null")).ok(),
            Some(FileFact::Other)
        );
        let missing = machine.file(&folder.path().join("g"));
        assert_eq!(missing.map_err(|e| e.kind()), Err(io::ErrorKind::NotFound));
    }
}
