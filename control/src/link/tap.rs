//! TAP devices: made in a namespace, one descriptor a queue, gone with the last descriptor.
//!
//! Frames written to a descriptor are *received* by the device (drivers/net/tun.c). A passive device is
//! for listeners: no address, no ARP, no IPv6, and where privilege allows an ingress drop, so that the host
//! neither answers nor routes what it carries.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use super::{
    NAME_MAX,
    netlink::{Netlink, NetlinkError},
    netns::{NetNs, NetNsError, in_netns},
};
use crate::kernel::passive::{PassiveError, PassiveIngress};

/// Where TAP devices are made.
const CLONE_DEVICE: &str = "/dev/net/tun";
/// MAX_TAP_QUEUES (drivers/net/tun.c).
const QUEUES_MAX: usize = 256;

mod request {
    nix::ioctl_write_int!(tunsetiff, b'T', 202);
}

/// Why there is no TAP device.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The kernel would not take the name, or would make another of it.
    #[error(
        "TAP name {name:?}: a name has 1 to {NAME_MAX} bytes without '/', ':', '%' or white space; correct `name`"
    )]
    Name {
        /// As the configuration has it.
        name: String,
    },
    /// Not a number of queues.
    #[error("TAP {name}: {queues} queues; 1 to {QUEUES_MAX} are possible")]
    Queues {
        /// The device.
        name: String,
        /// As asked for.
        queues: usize,
    },
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
    /// /dev/net/tun cannot be opened.
    #[error(
        "{ns}: cannot open {CLONE_DEVICE} for {name}: {error}; {}",
        open_remedy(error)
    )]
    Open {
        /// The namespace.
        ns: NetNs,
        /// The device.
        name: String,
        /// From open(2).
        error: io::Error,
    },
    /// TUNSETIFF refused.
    #[error(
        "{ns}: cannot make TAP {name} (queue {queue}): {error}; {}",
        create_remedy(error)
    )]
    Create {
        /// The namespace.
        ns: NetNs,
        /// The device.
        name: String,
        /// Which of its queues.
        queue: usize,
        /// From ioctl(2).
        error: io::Error,
    },
    /// Made, but gone before it could be set up.
    #[error(
        "{ns}: TAP {name} was removed or renamed while it was set up; look for what manages interfaces there (NetworkManager, systemd-networkd, udev)"
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
    #[error("TAP {name}: {error}")]
    Netlink {
        /// The device.
        name: String,
        /// The refusal.
        error: NetlinkError,
    },
}

fn open_remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "load the driver (modprobe tun), or give the container the device (--device /dev/net/tun)"
        }
        _ => {
            "it is usually open to everybody: chmod 0666 /dev/net/tun, or check the device rules of the container"
        }
    }
}

fn create_remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => {
            "this needs CAP_NET_ADMIN in that namespace: run as root, or in a user namespace (unshare -Urn)"
        }
        Some(libc::EBUSY) => {
            "somebody has made an interface of that name just now: choose another `name`"
        }
        Some(libc::EINVAL) => {
            "the name belongs to an interface of another kind, or to a TAP without several queues: choose another `name`"
        }
        Some(libc::E2BIG) => "the device has all the queues that the kernel allows: use fewer",
        _ => "see dmesg",
    }
}

/// What to make.
#[derive(Clone, Debug)]
pub struct TapOptions {
    /// The exact name.
    pub name: String,
    /// Bytes behind the Ethernet header; `None` leaves the kernel's 1,500.
    pub mtu: Option<u32>,
    /// How many descriptors.
    pub queues: usize,
    /// For listeners alone: the host neither speaks nor listens there.
    pub passive: bool,
}

impl TapOptions {
    /// One queue, the kernel's MTU, and part of the host's network.
    pub fn active(name: &str) -> Self {
        Self {
            name: name.into(),
            mtu: None,
            queues: 1,
            passive: false,
        }
    }
}

/// A TAP device that is up. Removed, some 50 ms later, when its last descriptor is closed.
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
        check_name(name)?;
        if !(1..=QUEUES_MAX).contains(&options.queues) {
            return Err(TapError::Queues {
                name: name.into(),
                queues: options.queues,
            });
        }
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
        let fds = in_netns(ns, || open_queues(ns, name, options.queues))??;
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
            tap.make_passive(ns, &mut netlink)?;
        }
        netlink.set_up(link.ifindex, true).map_err(netlink_error)?;
        Ok(tap)
    }

    fn make_passive(&mut self, ns: &NetNs, netlink: &mut Netlink) -> Result<(), TapError> {
        netlink
            .set_noarp(self.ifindex, true)
            .map_err(|error| TapError::Netlink {
                name: self.name.clone(),
                error,
            })?;
        // Either of the two keeps IPv6 silent: without an address the kernel sends nothing. The file needs a
        // writable /proc/sys, which containers often lack.
        let by_netlink = netlink.set_no_ipv6_addresses(self.ifindex);
        let by_file = in_netns(ns, || disable_ipv6(&self.name))?;
        if let (Err(netlink), Err(file)) = (&by_netlink, &by_file)
            && netlink.errno() != Some(libc::EAFNOSUPPORT)
        {
            self.notes.push(format!(
                "{ns}: {}: IPv6 stays on, so the host will send router solicitations there ({netlink}; \
                 net.ipv6.conf.{}.disable_ipv6: {file})",
                self.name, self.name
            ));
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

/// The kernel's rules (net/core/dev.c, `dev_valid_name`) and `%`, which it would replace by a number.
fn check_name(name: &str) -> Result<(), TapError> {
    let valid = (1..=NAME_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && !name
            .contains(|c: char| c == '/' || c == ':' || c == '%' || c == '\0' || c.is_whitespace());
    if valid {
        Ok(())
    } else {
        Err(TapError::Name { name: name.into() })
    }
}

/// `/proc/sys/net` shows the namespace of the thread that reads it.
fn disable_ipv6(name: &str) -> io::Result<()> {
    // No such file: the kernel has no IPv6, or the name contains a dot that is not a separator here.
    match fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn open_queues(ns: &NetNs, name: &str, queues: usize) -> Result<Vec<OwnedFd>, TapError> {
    (0..queues)
        .map(|queue| {
            // The device is made in the namespace in which this is opened.
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(CLONE_DEVICE)
                .map_err(|error| TapError::Open {
                    ns: ns.clone(),
                    name: name.into(),
                    error,
                })?;
            // The first must not exist yet, the others join it.
            attach_queue(&file, name, queue == 0).map_err(|error| TapError::Create {
                ns: ns.clone(),
                name: name.into(),
                queue,
                error,
            })?;
            Ok(file.into())
        })
        .collect()
}

/// TUNSETIFF: makes the device, or adds a queue to it. `exclusive`: EBUSY when the name is in use.
fn attach_queue(file: &File, name: &str, exclusive: bool) -> io::Result<()> {
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_MULTI_QUEUE;
    if exclusive {
        flags |= libc::IFF_TUN_EXCL;
    }
    let mut ifreq = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            // IFF_TUN_EXCL is the sign bit of the kernel's short.
            ifru_flags: flags as u16 as i16,
        },
    };
    for (to, from) in ifreq.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which lives here and has that layout; the
    // request is declared with an int, as the kernel does, and takes the address in its place.
    unsafe { request::tunsetiff(file.as_raw_fd(), (&raw mut ifreq) as u64) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::netns::tests::in_new_netns;

    #[test]
    fn names_that_the_kernel_would_refuse_or_change_are_refused() {
        for (name, valid) in [
            ("lc0", true),
            ("a", true),
            ("fifteen-bytes-x", true),
            ("sixteen-bytes-xx", false),
            ("", false),
            (".", false),
            ("..", false),
            ("lc%d", false),
            ("a/b", false),
            ("a:b", false),
            ("a b", false),
            ("a\n", false),
        ] {
            assert_eq!(check_name(name).is_ok(), valid, "{name:?}");
        }
    }

    #[test]
    fn a_passive_device_is_up_silent_and_goes_with_its_descriptors() {
        in_new_netns(|| {
            let ns = NetNs::own();
            let options = TapOptions {
                name: "lc0".into(),
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
            name: "lo".into(),
            mtu: None,
            queues: 1,
            passive: true,
        };
        let error = Tap::create(&NetNs::own(), &options).unwrap_err();
        assert!(matches!(error, TapError::Exists { .. }), "{error}");
    }

    #[test]
    fn queues_are_counted_before_anything_is_made() {
        for queues in [0, QUEUES_MAX + 1] {
            let options = TapOptions {
                name: "dpk-queues".into(),
                mtu: None,
                queues,
                passive: true,
            };
            let error = Tap::create(&NetNs::own(), &options).unwrap_err();
            assert!(matches!(error, TapError::Queues { .. }), "{error}");
        }
    }
}
