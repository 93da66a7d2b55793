//! The real machine: sysfs, rtnetlink and ethtool, read-only and without privilege, except that looking
//! into another network namespace (setns(2)) needs CAP_SYS_ADMIN. setns belongs to a thread, so each such
//! look is a short-lived thread of its own.

use std::{
    fs::{self, File},
    io,
    net::IpAddr,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    thread,
};

use aya::programs::loaded_programs;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp},
    nsid::{NsidAttribute, NsidMessage},
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteType},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sched::{CloneFlags, sched_getaffinity, setns};

use super::{
    cores::CoreList,
    ethtool,
    machine::{FileFact, Link, LookError, Machine, Peer},
};

/// Where ip-netns(8) keeps namespaces by name.
const NETNS: &str = "/run/netns";

/// The machine that this process runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemMachine;

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
        within(netns, links)
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
        let of = File::open(match of {
            Some(name) => netns_path(name),
            None => PathBuf::from("/proc/self/ns/net"),
        })
        .ok()?;
        let fd = of.as_raw_fd() as u32;
        within(from, move || {
            let mut message = NsidMessage::default();
            message.attributes.push(NsidAttribute::Fd(fd));
            let answers = request(RouteNetlinkMessage::GetNsId(message), 0)?;
            Ok(answers.into_iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewNsId(message) => {
                    message
                        .attributes
                        .iter()
                        .find_map(|attribute| match attribute {
                            NsidAttribute::Id(id) if *id >= 0 => Some(*id),
                            _ => None,
                        })
                }
                _ => None,
            }))
        })
        .ok()?
    }

    fn program(&self, id: u32) -> String {
        let name = loaded_programs()
            .flatten()
            .find(|program| program.id() == id)
            .and_then(|program| program.name_as_str().map(str::to_owned))
            .filter(|name| !name.is_empty());
        let mut text = match name {
            Some(name) => format!("{name:?} (id {id})"),
            None => format!("id {id}"),
        };
        let holders = holders(id);
        if !holders.is_empty() {
            text += &format!(", held by {}", super::error::list(&holders));
        }
        text
    }

    fn file(&self, path: &Path) -> io::Result<FileFact> {
        let metadata = fs::metadata(path)?;
        if metadata.is_dir() {
            return Ok(FileFact::Directory);
        }
        if !metadata.is_file() {
            // Opening a FIFO would wait for its writer.
            return Ok(FileFact::Other);
        }
        File::open(path)?;
        Ok(FileFact::Regular(metadata.len()))
    }
}

fn netns_path(name: &str) -> PathBuf {
    Path::new(NETNS).join(name)
}

/// Runs `look` in a network namespace: in the caller's thread for its own, else in one that ends with it.
fn within<T: Send>(
    netns: Option<&str>,
    look: impl FnOnce() -> Result<T, LookError> + Send,
) -> Result<T, LookError> {
    let Some(name) = netns else {
        return look();
    };
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => LookError::Privilege,
        io::ErrorKind::NotFound => LookError::NoNamespace,
        _ => LookError::Other(error),
    };
    let namespace = File::open(netns_path(name)).map_err(refused)?;
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned());
        let handle = thread.spawn_scoped(scope, || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| refused(errno.into()))?;
            look()
        })?;
        handle
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the look into the namespace failed").into()))
    })
}

/// All interfaces of the calling thread's network namespace.
fn links() -> Result<Vec<Link>, LookError> {
    let mut links = Vec::new();
    for answer in request(
        RouteNetlinkMessage::GetLink(LinkMessage::default()),
        NLM_F_DUMP,
    )? {
        if let RouteNetlinkMessage::NewLink(message) = answer {
            links.push(link(&message));
        }
    }
    for answer in request(
        RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        NLM_F_DUMP,
    )? {
        if let RouteNetlinkMessage::NewAddress(message) = answer
            && let Some(link) = links
                .iter_mut()
                .find(|link| link.index == message.header.index)
            && let Some(address) = address(&message)
        {
            link.addresses.push(address);
        }
    }
    for answer in request(
        RouteNetlinkMessage::GetRoute(RouteMessage::default()),
        NLM_F_DUMP,
    )? {
        if let RouteNetlinkMessage::NewRoute(message) = answer
            && let Some(index) = default_route(&message)
            && let Some(link) = links.iter_mut().find(|link| link.index == index)
        {
            link.default_route = true;
        }
    }
    Ok(links)
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    let (mut veth, mut other, mut netns) = (false, None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(index) => other = Some(*index),
            LinkAttribute::LinkNetNsId(id) => netns = Some(*id),
            LinkAttribute::LinkInfo(infos) => {
                veth |= infos.contains(&LinkInfo::Kind(InfoKind::Veth));
            }
            LinkAttribute::Xdp(xdp) => link.xdp = program(xdp),
            _ => {}
        }
    }
    if veth {
        link.peer = other.map(|index| Peer { index, netns });
    }
    link.driver = match message.header.flags.contains(LinkFlags::Loopback) {
        true => "loopback".to_owned(),
        false => ethtool::driver(&link.name).unwrap_or_default(),
    };
    link.queues = ethtool::queues(&link.name).unwrap_or(1).max(1);
    link
}

/// The XDP program of a link; with several modes in use, one of them.
fn program(xdp: &[LinkXdp]) -> Option<u32> {
    xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id)
        | LinkXdp::DrvProgId(id)
        | LinkXdp::SkbProgId(id)
        | LinkXdp::HwProgId(id)
            if *id > 0 =>
        {
            Some(*id)
        }
        _ => None,
    })
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

/// One rtnetlink request and its answers, in the calling thread's network namespace.
fn request(
    message: RouteNetlinkMessage,
    flags: u16,
) -> Result<Vec<RouteNetlinkMessage>, LookError> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = 1;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let packet = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::other(format!("an answer of rtnetlink: {error}")))?;
            let length = (packet.header.length as usize).next_multiple_of(4);
            match packet.payload {
                NetlinkPayload::Done(_) => return Ok(answers),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(error.to_io().into());
                }
                NetlinkPayload::InnerMessage(message) => answers.push(message),
                _ => {}
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        if flags & NLM_F_DUMP == 0 {
            return Ok(answers);
        }
    }
}

/// The processes that hold a BPF program or a link to it, as far as this user may see.
fn holders(id: u32) -> Vec<String> {
    let line = format!("prog_id:\t{id}");
    let mut holders = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let holds = fs::read_dir(process.path().join("fdinfo"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|info| fs::read_to_string(info.path()).ok())
            .any(|info| info.lines().any(|other| other == line));
        if holds {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            holders.push(format!("process {pid} ({})", command.trim()));
        }
    }
    holders
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
        assert_eq!(machine.program(u32::MAX), format!("id {}", u32::MAX));
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
