//! TAP and TUN devices: made in a namespace, one descriptor a queue, gone with the last descriptor.
//!
//! Frames written to a descriptor are *received* by the device (drivers/net/tun.c). A passive device is
//! for listeners: no address, no ARP, no IPv6, and where privilege allows an ingress drop, so that the host
//! neither answers nor routes what it carries.

use std::os::fd::{AsFd, OwnedFd};

use dataplane::port::tap::{
    Layer,
    device::{self, DeviceError, Shape},
};

use super::{
    ethtool::Ethtool,
    netlink::{Netlink, NetlinkError},
    netns::{NetNs, NetNsError, in_netns},
};
use crate::kernel::{
    passive::{PassiveError, PassiveIngress},
    steering,
};

/// Features that a device for listeners is better without. libpcap lays out its ring for frames of 64 KiB where
/// one of them is on (iface_get_offload in pcap-linux.c): room for 32 frames instead of more than a thousand.
const MERGING: [&str; 2] = ["tx-generic-segmentation", "rx-gro"];

/// Why there is no TAP device.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The name is in use. A device of somebody else is never adopted.
    #[error("{ns}: there is an interface {name} already ({}); choose another `name`, or remove it: {}ip link del {name}", kind.as_deref().unwrap_or("hardware"), ns.shell_prefix())]
    Exists {
        /// The namespace.
        ns: NetNs,
        /// The name.
        name: String,
        /// What kind of interface it is; `None` for hardware.
        kind: Option<String>,
    },
    /// It cannot be made.
    #[error("{ns}: {error}")]
    Device {
        /// The namespace.
        ns: NetNs,
        /// What is wrong, or who refused.
        error: DeviceError,
    },
    /// Made, but gone before it could be set up.
    #[error(
        "{ns}: {name} was removed or renamed while it was set up; look for what manages interfaces there (NetworkManager, systemd-networkd, udev)"
    )]
    Gone {
        /// The namespace.
        ns: NetNs,
        /// The device.
        name: String,
    },
    /// The namespace cannot be entered.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// It cannot be set up.
    #[error("{name}: {error}")]
    Netlink {
        /// The device.
        name: String,
        /// The refusal.
        error: NetlinkError,
    },
}

/// What to make.
#[derive(Clone, Debug)]
pub struct TapOptions {
    /// The exact name.
    pub name: String,
    /// What goes through it.
    pub layer: Layer,
    /// Bytes behind the Ethernet header; `None` leaves the kernel's 1,500.
    pub mtu: Option<u32>,
    /// Whether writes and reads have a virtio header before them, so that trains can be written.
    pub gso: bool,
    /// How many descriptors.
    pub queues: usize,
    /// For listeners alone: the host neither speaks nor listens there.
    pub passive: bool,
}

impl TapOptions {
    /// One queue for Ethernet frames, the kernel's MTU, and part of the host's network.
    pub fn active(name: &str) -> Self {
        Self {
            name: name.into(),
            layer: Layer::Ethernet,
            gso: false,
            mtu: None,
            queues: 1,
            passive: false,
        }
    }
}

/// A TAP or TUN device that is up. Removed, some 50 ms later, when its last descriptor is closed.
#[derive(Debug)]
pub struct Tap {
    /// The name it has.
    pub name: String,
    /// Its index in its namespace.
    pub ifindex: u32,
    /// One a queue, blocking (a read parked in io_uring would otherwise come back with EAGAIN).
    pub fds: Vec<OwnedFd>,
    /// What could not be had, one line each, for the log.
    pub notes: Vec<String>,
    /// The ingress drop, where privilege allows it; to be kept as long as the device.
    pub passive: Option<PassiveIngress>,
}

impl Tap {
    /// Makes a device in `ns`, sets it up and takes it up.
    ///
    /// # Errors
    ///
    /// When the name is in use or none, and when the kernel refuses. Nothing is left behind then.
    pub fn create(ns: &NetNs, options: &TapOptions) -> Result<Self, TapError> {
        let name = options.name.as_str();
        let device_error = |error| TapError::Device {
            ns: ns.clone(),
            error,
        };
        // Before the kernel is asked about the name.
        device::check_name(name).map_err(device_error)?;
        let netlink_error = |error| TapError::Netlink {
            name: name.into(),
            error,
        };
        let mut netlink = Netlink::open(ns).map_err(netlink_error)?;
        if let Some(link) = netlink.link_by_name(name).map_err(netlink_error)? {
            return Err(TapError::Exists {
                ns: ns.clone(),
                name: name.into(),
                kind: link.kind,
            });
        }
        let shape = Shape {
            layer: options.layer,
            gso: options.gso,
        };
        let make = || device::make(name, shape, options.queues);
        let fds = in_netns(ns, make)?.map_err(device_error)?;
        let link = netlink
            .link_by_name(name)
            .map_err(netlink_error)?
            .ok_or_else(|| TapError::Gone {
                ns: ns.clone(),
                name: name.into(),
            })?;
        let mut tap = Self {
            name: name.into(),
            ifindex: link.ifindex,
            fds,
            notes: Vec::new(),
            passive: None,
        };
        if let Some(mtu) = options.mtu {
            netlink.set_mtu(link.ifindex, mtu).map_err(netlink_error)?;
        }
        if options.passive {
            // Before it is up: there is no moment at which the host could answer.
            tap.make_passive(ns, &mut netlink, options.gso)?;
        }
        netlink.set_up(link.ifindex, true).map_err(netlink_error)?;
        Ok(tap)
    }

    fn make_passive(
        &mut self,
        ns: &NetNs,
        netlink: &mut Netlink,
        gso: bool,
    ) -> Result<(), TapError> {
        netlink
            .set_noarp(self.ifindex, true)
            .map_err(|error| TapError::Netlink {
                name: self.name.clone(),
                error,
            })?;
        // Either of the two keeps IPv6 silent: without an address the kernel sends nothing. The file needs a
        // writable /proc/sys, which containers often lack.
        let by_netlink = netlink.set_no_ipv6_addresses(self.ifindex);
        let by_file = in_netns(ns, || device::disable_ipv6(&self.name))?;
        if let (Err(netlink), Err(file)) = (&by_netlink, &by_file)
            && netlink.errno() != Some(libc::EAFNOSUPPORT)
        {
            self.notes.push(format!(
                "{ns}: {}: IPv6 stays on, so the host will send router solicitations there ({netlink}; \
                 net.ipv6.conf.{}.disable_ipv6: {file})",
                self.name, self.name
            ));
        }
        let ethtool = Ethtool::open(ns);
        // With trains there are frames of 64 KiB, which a smaller ring would have cut.
        if !gso
            && let Err(error) = ethtool.and_then(|ethtool| ethtool.set(&self.name, &MERGING, false))
        {
            self.notes.push(format!(
                "{}: GSO and GRO stay on, so tcpdump --immediate-mode has room for few frames ({error})",
                self.name
            ));
        }
        if self.fds.len() > 1 {
            // Refused, each write costs a little more. The kernel knows best who may: nobody need be told.
            let _ = steering::forget_flows(self.fds[0].as_fd());
        }
        match PassiveIngress::attach(ns, &self.name) {
            Ok(passive) => self.passive = Some(passive),
            Err(PassiveError::NetNs(error)) => return Err(error.into()),
            Err(error) => self.notes.push(format!(
                "{}: no ingress drop, so the host's stack sees its frames too; without an address it answers none of \
                 them ({error})",
                self.name
            )),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::netns::tests::in_new_netns;

    #[test]
    fn a_passive_device_is_up_silent_and_goes_with_its_descriptors() {
        for layer in [Layer::Ethernet, Layer::Ip] {
            passive(layer);
        }
    }

    fn passive(layer: Layer) {
        in_new_netns(|| {
            let ns = NetNs::own();
            let options = TapOptions {
                name: "lc0".into(),
                layer,
                gso: false,
                mtu: Some(9000),
                queues: 2,
                passive: true,
            };
            let tap = Tap::create(&ns, &options).unwrap();
            let mut netlink = Netlink::open(&ns).unwrap();
            let link = netlink.link_by_name("lc0").unwrap().unwrap();
            assert_eq!((link.ifindex, link.mtu), (tap.ifindex, 9000));
            assert!(link.up && link.noarp);
            assert_eq!(link.kind.as_deref(), Some("tun"));
            assert_eq!(tap.fds.len(), 2);
            let features = Ethtool::open(&ns).unwrap().features("lc0").unwrap();
            for name in MERGING {
                assert!(!features[name].active, "{name}");
            }
            // Either the drop is there, or a note says why not.
            assert_eq!(
                tap.passive.is_none(),
                tap.notes.len() == 1,
                "{:?}",
                tap.notes
            );
            let error = Tap::create(&ns, &options).unwrap_err();
            assert!(
                matches!(&error, TapError::Exists { kind: Some(kind), .. } if kind == "tun"),
                "{error}"
            );
            drop(tap);
            assert_eq!(netlink.link_by_name("lc0").unwrap(), None);
        });
    }

    #[test]
    fn a_device_that_cannot_be_set_up_is_not_left_behind() {
        in_new_netns(|| {
            let ns = NetNs::own();
            let options = TapOptions {
                mtu: Some(1 << 24),
                ..TapOptions::active("lc0")
            };
            let error = Tap::create(&ns, &options).unwrap_err();
            assert!(error.to_string().contains("16777216"), "{error}");
            let mut netlink = Netlink::open(&ns).unwrap();
            assert_eq!(netlink.link_by_name("lc0").unwrap(), None);
        });
    }

    #[test]
    fn an_interface_that_exists_is_never_adopted() {
        let options = TapOptions {
            passive: true,
            ..TapOptions::active("lo")
        };
        let error = Tap::create(&NetNs::own(), &options).unwrap_err();
        assert!(matches!(error, TapError::Exists { .. }), "{error}");
    }
}
