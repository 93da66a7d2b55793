//! A small rtnetlink client: links looked up, listed and changed (rtnetlink(7)), one request at a time.
//!
//! A socket belongs to the namespace of the thread that opened it, and can be used from any thread.

use std::{io, os::fd::AsRawFd};

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkExtentMask,
        LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
    },
    nsid::{NsidAttribute, NsidMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::netns::{NetNs, NetNsError, in_netns};

/// Larger than any datagram that the kernel sends: a dump's are at most 32 KiB, one link's far less.
const DATAGRAM: usize = 64 * 1024;

/// Why the kernel could not be asked, or what it answered instead.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket could not be made.
    #[error(
        "{ns}: cannot open a netlink socket: {error}; check that the process may open sockets of AF_NETLINK"
    )]
    Open {
        /// The namespace.
        ns: NetNs,
        /// From socket(2), bind(2) or setsockopt(2).
        error: io::Error,
    },
    /// The namespace cannot be entered.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// The request failed.
    #[error("{ns}: cannot {what}: {error}{}; {}", detail(.message.as_deref()), remedy(error))]
    Request {
        /// The namespace.
        ns: NetNs,
        /// What was asked for, as a verb with its object.
        what: String,
        /// The kernel's answer, or the socket's.
        error: io::Error,
        /// What the kernel said beside the number (extended acknowledgement).
        message: Option<String>,
    },
}

impl NetlinkError {
    /// The error number, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Open { error, .. } | Self::Request { error, .. } => error.raw_os_error(),
            Self::NetNs(_) => None,
        }
    }
}

fn detail(message: Option<&str>) -> String {
    message.map_or(String::new(), |message| format!(" ({message})"))
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => "this needs CAP_NET_ADMIN in that namespace: run as root",
        Some(libc::ENODEV) => "the interface is gone: check ip link",
        Some(libc::EINVAL | libc::ERANGE) => {
            "the interface does not take this value: see ip -details link"
        }
        _ => "see ip -details link",
    }
}

/// How a program on the XDP hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpHook {
    /// In the driver (native).
    Native,
    /// On socket buffers (generic).
    Skb,
    /// On the card.
    Offloaded,
}

/// A program on the XDP hook of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpAttachment {
    /// How it runs.
    pub hook: XdpHook,
    /// The kernel's number of the program.
    pub program: u32,
}

/// The other end of a link (IFLA_LINK): a veth's peer, the device below a vlan or macvlan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lower {
    /// Its index, in its own namespace.
    pub ifindex: u32,
    /// That namespace's number as seen from the link's (IFLA_LINK_NETNSID); `None` when it is the same.
    pub nsid: Option<i32>,
}

/// A link, as the kernel described it at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Unique in its namespace, and never used again while that lives, unless somebody asks for it.
    pub ifindex: u32,
    /// Unique in its namespace; may change.
    pub name: String,
    /// IFF_UP: somebody wants it up.
    pub admin_up: bool,
    /// IFF_UP and IFF_RUNNING: it can carry frames.
    pub up: bool,
    /// IFF_NOARP.
    pub noarp: bool,
    /// Bytes behind the Ethernet header.
    pub mtu: u32,
    /// `veth`, `tun`, `bridge`, …; `None` for hardware.
    pub kind: Option<String>,
    /// The hardware address; empty where there is none.
    pub address: Vec<u8>,
    /// Receive queues that it has been made with; fewer may be in use.
    pub rx_queues: u32,
    /// The other end, where there is one.
    pub lower: Option<Lower>,
    /// Programs on its XDP hook.
    pub xdp: Vec<XdpAttachment>,
}

impl Link {
    /// Whether it is the end of a veth pair.
    pub fn is_veth(&self) -> bool {
        self.kind.as_deref() == Some("veth")
    }

    pub(super) fn from_message(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            ifindex: message.header.index,
            name: String::new(),
            admin_up: flags.contains(LinkFlags::Up),
            up: flags.contains(LinkFlags::Up | LinkFlags::Running),
            noarp: flags.contains(LinkFlags::Noarp),
            mtu: 0,
            kind: None,
            address: Vec::new(),
            rx_queues: 1,
            lower: None,
            xdp: Vec::new(),
        };
        let (mut lower, mut nsid) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(address) => link.address.clone_from(address),
                LinkAttribute::NumRxQueues(queues) => link.rx_queues = *queues,
                LinkAttribute::Link(ifindex) => lower = Some(*ifindex),
                LinkAttribute::LinkNetNsId(id) => nsid = Some(*id),
                LinkAttribute::Xdp(xdp) => link.xdp = attachments(xdp),
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind_name(kind)),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link.lower = lower
            .filter(|&ifindex| ifindex != 0)
            .map(|ifindex| Lower { ifindex, nsid });
        link
    }
}

fn kind_name(kind: &InfoKind) -> String {
    kind.to_string()
}

/// The programs that an IFLA_XDP names. One program stands in PROG_ID and in the attribute of its hook;
/// several (`Multiple`) in those of their hooks alone.
fn attachments(xdp: &[LinkXdp]) -> Vec<XdpAttachment> {
    let mut found: Vec<XdpAttachment> = xdp
        .iter()
        .filter_map(|attribute| {
            let (hook, program) = match attribute {
                LinkXdp::DrvProgId(id) => (XdpHook::Native, *id),
                LinkXdp::SkbProgId(id) => (XdpHook::Skb, *id),
                LinkXdp::HwProgId(id) => (XdpHook::Offloaded, *id),
                _ => return None,
            };
            Some(XdpAttachment { hook, program })
        })
        .collect();
    if found.is_empty() {
        // Kernels before 4.19 name the mode and the program, but no hook.
        let hook = xdp.iter().find_map(|attribute| match attribute {
            LinkXdp::Attached(XdpAttached::Driver) => Some(XdpHook::Native),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(XdpHook::Skb),
            LinkXdp::Attached(XdpAttached::Hardware) => Some(XdpHook::Offloaded),
            _ => None,
        });
        let program = xdp.iter().find_map(|attribute| match attribute {
            LinkXdp::ProgId(id) => Some(*id),
            _ => None,
        });
        if let (Some(hook), Some(program)) = (hook, program) {
            found.push(XdpAttachment { hook, program });
        }
    }
    found.retain(|attachment| attachment.program != 0);
    found
}

/// A connection to the kernel's routing family, in one namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    ns: NetNs,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in `ns`.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered or sockets of this family may not be made.
    pub fn open(ns: &NetNs) -> Result<Self, NetlinkError> {
        let socket = in_netns(ns, || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Both are wishes: an old kernel answers with the number alone.
            let _ = socket.set_cap_ack(true);
            let _ = socket.set_ext_ack(true);
            Ok(socket)
        })?
        .map_err(|error| NetlinkError::Open {
            ns: ns.clone(),
            error,
        })?;
        Ok(Self {
            socket,
            ns: ns.clone(),
            sequence: 0,
        })
    }

    /// The namespace that it speaks of.
    pub fn ns(&self) -> &NetNs {
        &self.ns
    }

    /// The link of that name, if there is one.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be asked.
    pub fn link_by_name(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        self.link(message, format!("look up interface {name:?}"))
    }

    /// The link of that index, if there is one.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be asked.
    pub fn link_by_index(&mut self, ifindex: u32) -> Result<Option<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        self.link(message, format!("look up interface number {ifindex}"))
    }

    fn link(
        &mut self,
        mut message: LinkMessage,
        what: String,
    ) -> Result<Option<Link>, NetlinkError> {
        message
            .attributes
            .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match self.request(RouteNetlinkMessage::GetLink(message), 0) {
            Ok(replies) => Ok(replies.iter().find_map(new_link)),
            // EINVAL, ERANGE: no name of an interface; so there is none.
            Err(Failure { error, .. })
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENODEV | libc::EINVAL | libc::ERANGE)
                ) =>
            {
                Ok(None)
            }
            Err(failure) => Err(failure.during(&self.ns, what)),
        }
    }

    /// All links of the namespace.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be asked.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let replies = self
            .request(RouteNetlinkMessage::GetLink(message), NLM_F_DUMP)
            .map_err(|failure| failure.during(&self.ns, "list the interfaces".into()))?;
        Ok(replies.iter().filter_map(new_link).collect())
    }

    /// Takes the link up or down.
    ///
    /// # Errors
    ///
    /// Without CAP_NET_ADMIN, or when the driver refuses.
    pub fn set_up(&mut self, ifindex: u32, up: bool) -> Result<(), NetlinkError> {
        let flags = if up {
            LinkFlags::Up
        } else {
            LinkFlags::empty()
        };
        let what = if up { "up" } else { "down" };
        self.set_flags(
            ifindex,
            LinkFlags::Up,
            flags,
            &format!("take interface number {ifindex} {what}"),
        )
    }

    /// Makes the link neither ask nor answer ARP (IFF_NOARP), or the opposite.
    ///
    /// # Errors
    ///
    /// Without CAP_NET_ADMIN.
    pub fn set_noarp(&mut self, ifindex: u32, noarp: bool) -> Result<(), NetlinkError> {
        let flags = if noarp {
            LinkFlags::Noarp
        } else {
            LinkFlags::empty()
        };
        self.set_flags(
            ifindex,
            LinkFlags::Noarp,
            flags,
            &format!("switch ARP of interface number {ifindex}"),
        )
    }

    fn set_flags(
        &mut self,
        ifindex: u32,
        mask: LinkFlags,
        flags: LinkFlags,
        what: &str,
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.header.flags = flags;
        message.header.change_mask = mask;
        self.set(message, what)
    }

    /// Sets the MTU: bytes behind the Ethernet header.
    ///
    /// # Errors
    ///
    /// Without CAP_NET_ADMIN, or when the driver does not take the value.
    pub fn set_mtu(&mut self, ifindex: u32, mtu: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.set(
            message,
            &format!("set the MTU of interface number {ifindex} to {mtu}"),
        )
    }

    /// Lets the kernel give the link no IPv6 address of its own (`addrgenmode none`).
    ///
    /// # Errors
    ///
    /// Without CAP_NET_ADMIN; EAFNOSUPPORT where IPv6 is switched off altogether.
    pub fn set_no_ipv6_addresses(&mut self, ifindex: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message
            .attributes
            .push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
                vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)],
            )]));
        self.set(
            message,
            &format!("switch off IPv6 addresses of interface number {ifindex}"),
        )
    }

    /// Renames and the like: RTM_SETLINK as it is, `what` for the message of a refusal.
    fn set(&mut self, message: LinkMessage, what: &str) -> Result<(), NetlinkError> {
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK)
            .map(drop)
            .map_err(|failure| failure.during(&self.ns, what.into()))
    }

    /// The number by which this socket's namespace knows `other`; `None` when it has no number for it.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be asked.
    pub fn nsid_of(&mut self, other: &NetNs) -> Result<Option<i32>, NetlinkError> {
        let Some(fd) = other.fd() else {
            return Ok(None);
        };
        let mut message = NsidMessage::default();
        message.header.family = AddressFamily::Unspec;
        message
            .attributes
            .push(NsidAttribute::Fd(fd.as_raw_fd() as u32));
        let replies = self
            .request(RouteNetlinkMessage::GetNsId(message), 0)
            .map_err(|failure| {
                failure.during(&self.ns, format!("ask for the number of {other}"))
            })?;
        Ok(replies.iter().find_map(|reply| match reply {
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
    }

    /// Sends one request and takes its answers: one message, an acknowledgement, or a dump to its end.
    fn request(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut replies = Vec::new();
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let length = self.socket.recv(&mut &mut buffer[..], 0)?;
            for message in messages(&buffer[..length]) {
                let (header, bytes) = message?;
                if header.sequence_number() != self.sequence {
                    continue; // of an earlier request that was given up
                }
                let message = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
                    Ok(message) => message,
                    // One link among many with an attribute that is not understood: the others count.
                    Err(_) if flags & NLM_F_DUMP == NLM_F_DUMP => continue,
                    Err(error) => return Err(Failure::malformed(&error.to_string())),
                };
                match message.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(Failure {
                            message: extended_message(message.header.flags, &error),
                            error: error.to_io(),
                        });
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(replies),
                    NetlinkPayload::InnerMessage(reply) => {
                        replies.push(reply);
                        if flags & (NLM_F_DUMP | NLM_F_ACK) == 0 {
                            return Ok(replies);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

fn new_link(reply: &RouteNetlinkMessage) -> Option<Link> {
    match reply {
        RouteNetlinkMessage::NewLink(message) => Some(Link::from_message(message)),
        _ => None,
    }
}

/// An answer that is none.
struct Failure {
    error: io::Error,
    message: Option<String>,
}

impl Failure {
    fn malformed(why: &str) -> Self {
        Self {
            error: io::Error::new(io::ErrorKind::InvalidData, why.to_owned()),
            message: None,
        }
    }

    fn during(self, ns: &NetNs, what: String) -> NetlinkError {
        NetlinkError::Request {
            ns: ns.clone(),
            what,
            error: self.error,
            message: self.message,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self {
            error,
            message: None,
        }
    }
}

/// One netlink message: its header's fields and all of its bytes.
type RawMessage<'a> = (NetlinkBuffer<&'a [u8]>, &'a [u8]);

/// The messages of one datagram, each aligned to four bytes. Ends at the first that is cut short.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = io::Result<RawMessage<'_>>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let whole = rest;
        rest = &[];
        let Ok(header) = NetlinkBuffer::new_checked(whole) else {
            return Some(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a netlink message is cut short",
            )));
        };
        let length = header.length() as usize;
        rest = whole.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Ok((header, &whole[..length])))
    })
}

/// NLM_F_ACK_TLVS: attributes follow the acknowledgement (include/uapi/linux/netlink.h).
const ACK_TLVS: u16 = 0x200;
/// The header of the request that an acknowledgement repeats (NLM_F_CAPPED: no more than that).
const REQUEST_HEADER: usize = 16;
/// NLMSGERR_ATTR_MSG: a text for people.
const ATTR_MSG: u16 = 1;

/// The kernel's words beside the error number, if it had any.
fn extended_message(flags: u16, error: &ErrorMessage) -> Option<String> {
    if flags & ACK_TLVS == 0 {
        return None;
    }
    let mut rest = error.header.get(REQUEST_HEADER..)?;
    while let [l0, l1, k0, k1, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(4..length)?;
        if u16::from_ne_bytes([k0, k1]) == ATTR_MSG {
            let text = value.split(|&byte| byte == 0).next()?;
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroI32;

    use super::*;

    #[test]
    fn this_namespace_has_a_loopback_and_no_interface_of_an_impossible_name() {
        let mut netlink = Netlink::open(&NetNs::own()).unwrap();
        let lo = netlink.link_by_name("lo").unwrap().unwrap();
        assert_eq!(netlink.link_by_index(lo.ifindex).unwrap(), Some(lo.clone()));
        assert!(netlink.links().unwrap().contains(&lo));
        for name in ["", "no-such-if", "a-name-that-is-too-long-for-one"] {
            assert_eq!(netlink.link_by_name(name).unwrap(), None, "{name:?}");
        }
        assert_eq!(netlink.link_by_index(0x7fff_fffe).unwrap(), None);
    }

    #[test]
    fn a_refusal_names_the_operation_and_the_errno() {
        let mut netlink = Netlink::open(&NetNs::own()).unwrap();
        let error = netlink.set_up(0x7fff_fffe, true).unwrap_err();
        let message = error.to_string();
        assert!(
            matches!(error.errno(), Some(libc::ENODEV | libc::EPERM)),
            "{message}"
        );
        assert!(
            message.contains("take interface number 2147483646 up"),
            "{message}"
        );
    }

    #[test]
    fn datagrams_are_split_where_their_lengths_say() {
        let message = |length: u32, bytes: usize| {
            let mut message = vec![0; bytes];
            message[..4].copy_from_slice(&length.to_ne_bytes());
            message
        };
        for (case, datagram, good, cut_short) in [
            ("empty", vec![], 0, false),
            ("one", message(16, 16), 1, false),
            (
                "two, the first padded",
                [message(18, 20), message(16, 16)].concat(),
                2,
                false,
            ),
            (
                "second cut short",
                [message(16, 16), message(32, 16)].concat(),
                1,
                true,
            ),
            ("length below a header", message(4, 16), 0, true),
            ("half a header", vec![16, 0, 0, 0, 0], 0, true),
        ] {
            let found: Vec<_> = messages(&datagram).collect();
            assert_eq!(found.iter().filter(|m| m.is_ok()).count(), good, "{case}");
            assert_eq!(found.iter().any(|m| m.is_err()), cut_short, "{case}");
        }
    }

    #[test]
    fn the_kernels_words_are_found_behind_the_requests_header() {
        let mut header = vec![0; REQUEST_HEADER];
        header.extend([8, 0, 2, 0, 1, 0, 0, 0]); // NLMSGERR_ATTR_OFFS
        header.extend([11, 0, 1, 0]);
        header.extend(b"no way\0\0");
        let mut error = ErrorMessage::default();
        error.code = NonZeroI32::new(-libc::EINVAL);
        error.header = header;
        assert_eq!(
            extended_message(ACK_TLVS, &error).as_deref(),
            Some("no way")
        );
        assert_eq!(extended_message(0, &error), None);
        for cut in 0..error.header.len() {
            let mut short = error.clone();
            short.header.truncate(cut);
            let found = extended_message(ACK_TLVS, &short);
            assert!(found.is_none_or(|text| text == "no way"), "cut at {cut}");
        }
    }
}
