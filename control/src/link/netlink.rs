//! A small rtnetlink client: links looked up, listed and changed (rtnetlink(7)), one request at a time.
//!
//! A socket belongs to the namespace of the thread that opened it, and can be used from any thread.

use std::{io, os::fd::AsRawFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkExtentMask, LinkFlags,
        LinkMessage,
    },
    nsid::{NsidAttribute, NsidMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::netns::{NetNs, NetNsError, in_netns};

mod description;
mod wire;

pub use description::{Link, Lower, XdpAttachment, XdpHook};
use wire::extended_message;
pub(super) use wire::messages;

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

    /// RTM_SETLINK, acknowledged; `what` is for the message of a refusal.
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

    /// All answers to a dump; `what` for the message of a refusal.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be asked.
    pub(crate) fn dump(
        &mut self,
        request: RouteNetlinkMessage,
        what: &str,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.request(request, NLM_F_DUMP)
            .map_err(|failure| failure.during(&self.ns, what.into()))
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

#[cfg(test)]
mod tests {
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
}
