//! Watches the links of a namespace: what comes, goes, is renamed, or changes between up and down.
//!
//! The kernel's multicasts are compared with what was known, so that a caller hears of changes alone. When
//! the socket overflowed (ENOBUFS) the links are listed anew and compared: an event can be late or merged
//! with another, but none is lost.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use super::{
    netlink::{Link, Netlink, NetlinkError, messages},
    netns::{NetNs, in_netns},
};

/// RTNLGRP_LINK (include/uapi/linux/rtnetlink.h).
const GROUP_LINK: u32 = 1;
/// Room for a burst of some thousand messages; the kernel caps it at net.core.rmem_max.
const RECEIVE_BUFFER: u32 = 4 << 20;
const DATAGRAM: usize = 64 * 1024;

/// What happened to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was made, or moved into the namespace.
    New,
    /// Its name, its MTU, or whether it can carry frames, is another one.
    Changed,
    /// It was removed, or moved out of the namespace.
    Gone,
}

/// A change of one link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkEvent {
    /// What happened.
    pub change: Change,
    /// Which link.
    pub ifindex: u32,
    /// Its name now, or when it went.
    pub name: String,
    /// IFF_UP and IFF_RUNNING: it can carry frames. `false` when it is gone.
    pub up: bool,
    /// Its MTU in bytes now, or when it went.
    pub mtu: u32,
}

/// What is known of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    name: String,
    up: bool,
    mtu: u32,
}

impl Seen {
    fn event(self, ifindex: u32, change: Change) -> LinkEvent {
        LinkEvent {
            change,
            ifindex,
            name: self.name,
            up: self.up && change != Change::Gone,
            mtu: self.mtu,
        }
    }
}

/// What is known of the links, by index.
#[derive(Debug, Default)]
struct Known(HashMap<u32, Seen>);

impl Known {
    fn seen(&mut self, link: &Link) -> Option<LinkEvent> {
        let now = Seen {
            name: link.name.clone(),
            up: link.up,
            mtu: link.mtu,
        };
        let change = match self.0.get(&link.ifindex) {
            None => Change::New,
            Some(known) if *known != now => Change::Changed,
            Some(_) => return None,
        };
        self.0.insert(link.ifindex, now.clone());
        Some(now.event(link.ifindex, change))
    }

    fn gone(&mut self, ifindex: u32) -> Option<LinkEvent> {
        Some(self.0.remove(&ifindex)?.event(ifindex, Change::Gone))
    }

    /// Takes a complete list: what is not on it is gone.
    fn all(&mut self, links: &[Link], events: &mut Vec<LinkEvent>) {
        let mut missing: Vec<u32> = self
            .0
            .keys()
            .copied()
            .filter(|&known| links.iter().all(|link| link.ifindex != known))
            .collect();
        missing.sort_unstable();
        events.extend(missing.into_iter().filter_map(|ifindex| self.gone(ifindex)));
        events.extend(links.iter().filter_map(|link| self.seen(link)));
    }

    /// Takes one multicast.
    fn message(&mut self, message: &RouteNetlinkMessage) -> Option<LinkEvent> {
        match message {
            // Bridges and wireless cards send messages of their own families about a link: that it left the
            // bridge comes as a DELLINK, too.
            RouteNetlinkMessage::NewLink(m) | RouteNetlinkMessage::DelLink(m)
                if m.header.interface_family != AddressFamily::Unspec =>
            {
                None
            }
            RouteNetlinkMessage::NewLink(message) => self.seen(&Link::from_message(message)),
            RouteNetlinkMessage::DelLink(message) => self.gone(message.header.index),
            _ => None,
        }
    }
}

/// The changes of all links of one namespace, from the moment it is opened. Readable (poll(2)) when there
/// may be some.
#[derive(Debug)]
pub struct LinkMonitor {
    socket: Socket,
    netlink: Netlink,
    known: Known,
}

impl LinkMonitor {
    /// Opens the monitor in `ns`. The links that are there already cause no event; [`LinkMonitor::is_up`]
    /// knows them.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered, or the kernel cannot be asked.
    pub fn open(ns: &NetNs) -> Result<Self, NetlinkError> {
        let socket = in_netns(ns, || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            // A wish: a smaller buffer overflows sooner, and that is handled.
            let _ = socket.set_rx_buf_sz(RECEIVE_BUFFER);
            socket.set_non_blocking(true)?;
            socket.add_membership(GROUP_LINK)?;
            Ok(socket)
        })?
        .map_err(|error| NetlinkError::Open {
            ns: ns.clone(),
            error,
        })?;
        // Only now that changes are heard of is it asked what there is.
        let mut monitor = Self {
            socket,
            netlink: Netlink::open(ns)?,
            known: Known::default(),
        };
        monitor.resync(&mut Vec::new())?;
        Ok(monitor)
    }

    /// Whether the link was there and could carry frames when last heard of.
    pub fn is_up(&self, ifindex: u32) -> bool {
        self.known.0.get(&ifindex).is_some_and(|known| known.up)
    }

    /// All links as they were when last heard of, each as a change: for whoever looked at one of them
    /// before the monitor was opened.
    pub fn links(&self) -> Vec<LinkEvent> {
        let links = self.known.0.iter();
        let links = links.map(|(&ifindex, known)| known.clone().event(ifindex, Change::Changed));
        links.collect()
    }

    /// The changes since the last call, in their order. Does not wait.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be asked; the next call tries again.
    pub fn read_events(&mut self) -> Result<Vec<LinkEvent>, NetlinkError> {
        let mut events = Vec::new();
        let mut buffer = vec![0; DATAGRAM];
        loop {
            match self.socket.recv(&mut &mut buffer[..], 0) {
                Ok(length) => {
                    if !self.datagram(&buffer[..length], &mut events) {
                        self.resync(&mut events)?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(events),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.drain(&mut buffer);
                    self.resync(&mut events)?;
                }
                Err(error) => {
                    return Err(NetlinkError::Request {
                        ns: self.netlink.ns().clone(),
                        what: "watch the interfaces".into(),
                        error,
                        message: None,
                    });
                }
            }
        }
    }

    /// `false` when a message was not understood: it may have been about anything.
    fn datagram(&mut self, datagram: &[u8], events: &mut Vec<LinkEvent>) -> bool {
        for message in messages(datagram) {
            let Ok((_, bytes)) = message else {
                return false;
            };
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else {
                return false;
            };
            if let NetlinkPayload::InnerMessage(message) = message.payload {
                events.extend(self.known.message(&message));
            }
        }
        true
    }

    /// Throws away what is queued: it is older than the list that is asked for next. To the last message,
    /// because until the queue is empty the kernel drops more without another ENOBUFS (net/netlink/af_netlink.c,
    /// NETLINK_S_CONGESTED).
    fn drain(&self, buffer: &mut [u8]) {
        loop {
            match self.socket.recv(&mut &mut buffer[..], 0) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(_) => return,
            }
        }
    }

    fn resync(&mut self, events: &mut Vec<LinkEvent>) -> Result<(), NetlinkError> {
        let links = self.netlink.links()?;
        self.known.all(&links, events);
        Ok(())
    }
}

impl AsFd for LinkMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for LinkMonitor {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

    use super::*;
    use crate::link::{
        netns::tests::in_new_netns,
        tap::{Tap, TapOptions},
    };

    fn message(ifindex: u32, name: &str, flags: LinkFlags) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.header.flags = flags;
        message.attributes.push(LinkAttribute::IfName(name.into()));
        message.attributes.push(LinkAttribute::Mtu(1500));
        message
    }

    fn event(change: Change, ifindex: u32, name: &str, up: bool) -> LinkEvent {
        LinkEvent {
            change,
            ifindex,
            name: name.into(),
            up,
            mtu: 1500,
        }
    }

    #[test]
    fn only_what_is_another_than_before_is_an_event() {
        use RouteNetlinkMessage::{DelLink, NewLink};
        let running = LinkFlags::Up | LinkFlags::Running;
        let mut of_bridge = message(7, "a", running);
        of_bridge.header.interface_family = AddressFamily::Bridge;
        let mut wider = message(7, "b", running);
        wider.attributes.push(LinkAttribute::Mtu(9000));
        let mut known = Known::default();
        for (case, input, expected) in [
            (
                "made",
                NewLink(message(7, "a", LinkFlags::empty())),
                Some(event(Change::New, 7, "a", false)),
            ),
            (
                "again the same",
                NewLink(message(7, "a", LinkFlags::empty())),
                None,
            ),
            (
                "up without carrier",
                NewLink(message(7, "a", LinkFlags::Up)),
                None,
            ),
            (
                "carrier",
                NewLink(message(7, "a", running)),
                Some(event(Change::Changed, 7, "a", true)),
            ),
            (
                "renamed",
                NewLink(message(7, "b", running)),
                Some(event(Change::Changed, 7, "b", true)),
            ),
            ("left a bridge", DelLink(of_bridge), None),
            (
                "another MTU",
                NewLink(wider),
                Some(LinkEvent {
                    mtu: 9000,
                    ..event(Change::Changed, 7, "b", true)
                }),
            ),
            (
                "carrier lost",
                NewLink(message(7, "b", LinkFlags::Up)),
                Some(event(Change::Changed, 7, "b", false)),
            ),
            (
                "removed",
                DelLink(message(7, "b", LinkFlags::empty())),
                Some(event(Change::Gone, 7, "b", false)),
            ),
            (
                "removed, unknown",
                DelLink(message(7, "b", LinkFlags::empty())),
                None,
            ),
        ] {
            assert_eq!(known.message(&input), expected, "{case}");
        }
    }

    #[test]
    fn a_complete_list_says_what_was_missed() {
        let link = |ifindex, name: &str, up| {
            let flags = if up {
                LinkFlags::Up | LinkFlags::Running
            } else {
                LinkFlags::empty()
            };
            Link::from_message(&message(ifindex, name, flags))
        };
        let mut known = Known::default();
        let mut events = Vec::new();
        known.all(
            &[link(1, "lo", true), link(2, "a", true), link(3, "b", true)],
            &mut events,
        );
        assert_eq!(events.len(), 3);
        events.clear();
        known.all(
            &[link(1, "lo", true), link(3, "b", false), link(4, "a", true)],
            &mut events,
        );
        assert_eq!(
            events,
            [
                event(Change::Gone, 2, "a", false),
                event(Change::Changed, 3, "b", false),
                event(Change::New, 4, "a", true),
            ]
        );
    }

    #[test]
    fn what_an_overflow_has_lost_is_asked_for() {
        in_new_netns(|| {
            let ns = NetNs::own();
            let mut monitor = LinkMonitor::open(&ns).unwrap();
            monitor.socket.set_rx_buf_sz(4096_u32).unwrap();
            let tap = Tap::create(&ns, &TapOptions::active("mon0")).unwrap();
            let mut netlink = Netlink::open(&ns).unwrap();
            for _ in 0..50 {
                netlink.set_up(tap.ifindex, false).unwrap();
                netlink.set_up(tap.ifindex, true).unwrap();
            }
            let events = monitor.read_events().unwrap();
            assert!(events.len() < 100, "nothing was lost: {}", events.len());
            assert!(
                events
                    .last()
                    .is_some_and(|event| event.name == "mon0" && event.up),
                "{events:?}"
            );
            assert!(monitor.is_up(tap.ifindex));
            drop(tap);
            let events = monitor.read_events().unwrap();
            assert_eq!(events.last().map(|event| event.change), Some(Change::Gone));
        });
    }

    #[test]
    fn nothing_has_happened_to_the_loopback() {
        let mut monitor = LinkMonitor::open(&NetNs::own()).unwrap();
        let events = monitor.read_events().unwrap();
        assert!(events.iter().all(|event| event.name != "lo"), "{events:?}");
    }
}
