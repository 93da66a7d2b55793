//! A link as the kernel describes it (RTM_NEWLINK), reduced to what is asked for here.

use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};

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
    /// What its frames begin with: an `ARPHRD_*` (include/uapi/linux/if_arp.h), 1 for Ethernet.
    pub hardware: u16,
    /// IFF_UP: somebody wants it up.
    pub admin_up: bool,
    /// IFF_UP and IFF_RUNNING: it can carry frames.
    pub up: bool,
    /// IFF_LOWER_UP: it has a carrier at this moment. [`Self::up`] learns of one that is lost a little later
    /// (net/core/link_watch.c).
    pub carrier: bool,
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

    pub(in crate::link) fn from_message(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            ifindex: message.header.index,
            name: String::new(),
            hardware: u16::from(message.header.link_layer_type),
            admin_up: flags.contains(LinkFlags::Up),
            up: flags.contains(LinkFlags::Up | LinkFlags::Running),
            carrier: flags.contains(LinkFlags::LowerUp),
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
                        LinkInfo::Kind(kind) => Some(InfoKind::to_string(kind)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_stands_under_its_hook() {
        use LinkXdp::{Attached, DrvProgId, HwProgId, ProgId, SkbProgId};
        let on = |hook, program| XdpAttachment { hook, program };
        for (case, attributes, expected) in [
            ("none", vec![Attached(XdpAttached::None)], vec![]),
            (
                "native",
                vec![Attached(XdpAttached::Driver), ProgId(7), DrvProgId(7)],
                vec![on(XdpHook::Native, 7)],
            ),
            (
                "several",
                vec![Attached(XdpAttached::Multiple), SkbProgId(7), HwProgId(8)],
                vec![on(XdpHook::Skb, 7), on(XdpHook::Offloaded, 8)],
            ),
            (
                "old kernel",
                vec![Attached(XdpAttached::SocketBuffer), ProgId(7)],
                vec![on(XdpHook::Skb, 7)],
            ),
            ("number zero", vec![DrvProgId(0)], vec![]),
        ] {
            assert_eq!(attachments(&attributes), expected, "{case}");
        }
    }

    #[test]
    fn running_alone_is_not_up() {
        for (flags, admin_up, up) in [
            (LinkFlags::empty(), false, false),
            (LinkFlags::Up, true, false),
            (LinkFlags::Running, false, false),
            (LinkFlags::Up | LinkFlags::Running, true, true),
        ] {
            let mut message = LinkMessage::default();
            message.header.flags = flags;
            let link = Link::from_message(&message);
            assert_eq!((link.admin_up, link.up), (admin_up, up), "{flags:?}");
        }
    }
}
