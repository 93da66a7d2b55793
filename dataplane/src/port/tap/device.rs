//! TAP and TUN devices: made through /dev/net/tun, a descriptor for each queue, gone with the last one
//! (drivers/net/tun.c, `tun_set_iff`). Nothing more is set up here.

// TUNSETIFF, TUNSETVNETHDRSZ and pwritev2 take addresses.
#![allow(unsafe_code)]

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use super::{Layer, train::VIRTIO};

/// The kernel's limit for the name of an interface, without the terminating zero (IFNAMSIZ - 1,
/// include/uapi/linux/if.h).
pub const NAME_MAX: usize = libc::IFNAMSIZ - 1;
/// MAX_TAP_QUEUES (drivers/net/tun.c).
pub(crate) const QUEUES_MAX: usize = 256;

/// Where devices are made.
const CLONE_DEVICE: &str = "/dev/net/tun";

mod request {
    nix::ioctl_write_int!(tunsetiff, b'T', 202);
    nix::ioctl_write_ptr!(tunsetvnethdrsz, b'T', 216, libc::c_int);
    nix::ioctl_read!(tunsetsteeringebpf, b'T', 224, i32);
}

/// What to make.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// What goes through it.
    pub layer: Layer,
    /// Whether what is written to it and read from it has a virtio header before it, which says what a card has
    /// merged (IFF_VNET_HDR); see [`TapOptions::gso`](super::TapOptions::gso).
    pub gso: bool,
}

impl From<Layer> for Shape {
    fn from(layer: Layer) -> Self {
        Self { layer, gso: false }
    }
}

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The kernel would not take the name, or would make another of it.
    #[error(
        "device name {name:?}: a name has 1 to {NAME_MAX} bytes without '/', ':', '%' or white space; choose another name"
    )]
    Name {
        /// As asked for.
        name: String,
    },
    /// Not a number of queues.
    #[error("{layer} {name}: {queues} queues; 1 to {QUEUES_MAX} are possible")]
    Queues {
        /// What was to be made.
        layer: Layer,
        /// The device.
        name: String,
        /// As asked for.
        queues: usize,
    },
    /// /dev/net/tun cannot be opened.
    #[error(
        "cannot open {CLONE_DEVICE} for {name}: {error}; {}",
        open_remedy(error)
    )]
    Open {
        /// The device.
        name: String,
        /// From open(2).
        error: io::Error,
    },
    /// TUNSETIFF refused.
    #[error(
        "cannot make {layer} {name} (queue {queue}): {error}; {}",
        create_remedy(error)
    )]
    Create {
        /// What was to be made.
        layer: Layer,
        /// The device.
        name: String,
        /// Which of its queues.
        queue: usize,
        /// From ioctl(2).
        error: io::Error,
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
        Some(libc::EBUSY) => "an interface of that name is there already: choose another name",
        Some(libc::EINVAL) => {
            "the name belongs to an interface of another kind, or to one without several queues: choose another name"
        }
        Some(libc::E2BIG) => "the device has all the queues that the kernel allows: use fewer",
        _ => "see dmesg",
    }
}

/// Whether a name can be an interface's: the kernel's rules (net/core/dev.c, `dev_valid_name`) and `%`, which
/// it would replace by a number.
///
/// # Errors
///
/// [`DeviceError::Name`].
pub fn check_name(name: &str) -> Result<(), DeviceError> {
    let valid = (1..=NAME_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && !name
            .contains(|c: char| c == '/' || c == ':' || c == '%' || c == '\0' || c.is_whitespace());
    if valid {
        Ok(())
    } else {
        Err(DeviceError::Name { name: name.into() })
    }
}

/// Makes a device in the calling thread's network namespace and answers with a descriptor for each of its
/// queues, blocking. It is down, and ends with the last of them.
///
/// # Errors
///
/// When the name is none or in use (a device that exists is never joined), and when the kernel refuses.
/// Nothing is left behind then.
pub fn make(
    name: &str,
    shape: impl Into<Shape>,
    queues: usize,
) -> Result<Vec<OwnedFd>, DeviceError> {
    let shape = shape.into();
    let layer = shape.layer;
    check_name(name)?;
    if !(1..=QUEUES_MAX).contains(&queues) {
        return Err(DeviceError::Queues {
            layer,
            name: name.into(),
            queues,
        });
    }
    (0..queues)
        .map(|queue| {
            // The device is made in the namespace in which this is opened.
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(CLONE_DEVICE)
                .map_err(|error| DeviceError::Open {
                    name: name.into(),
                    error,
                })?;
            // The first must not exist yet, the others join it.
            attach(&file, name, shape, queue == 0).map_err(|error| DeviceError::Create {
                layer,
                name: name.into(),
                queue,
                error,
            })?;
            Ok(file.into())
        })
        .collect()
}

/// TUNSETIFF: makes the device, or adds a queue to it. `exclusive`: EBUSY when the name is in use.
fn attach(file: &File, name: &str, shape: Shape, exclusive: bool) -> io::Result<()> {
    let mut flags = libc::IFF_NO_PI | libc::IFF_MULTI_QUEUE;
    flags |= match shape.layer {
        Layer::Ethernet => libc::IFF_TAP,
        Layer::Ip => libc::IFF_TUN,
    };
    if exclusive {
        flags |= libc::IFF_TUN_EXCL;
    }
    if shape.gso {
        flags |= libc::IFF_VNET_HDR;
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
    if shape.gso {
        let size = VIRTIO as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads one int, which lives here.
        unsafe { request::tunsetvnethdrsz(file.as_raw_fd(), &raw const size) }?;
    }
    Ok(())
}

/// Whether reads and writes of a queue that would wait can be told not to (FMODE_NOWAIT, in drivers/net/tun.c since Linux
/// 6.4). Without it io_uring hands each to one of several threads (io_uring/rw.c, `io_file_supports_nowait`). The file itself is
/// asked, with a frame that is too short for anybody.
pub fn is_nowait(queue: BorrowedFd<'_>) -> bool {
    let byte = [0_u8];
    let part = libc::iovec {
        iov_base: byte.as_ptr().cast_mut().cast(),
        iov_len: byte.len(),
    };
    // SAFETY: one part, of one byte that outlives the call; the kernel only reads it. Without a position, as the device
    // has none.
    let written =
        unsafe { libc::pwritev2(queue.as_raw_fd(), &raw const part, 1, -1, libc::RWF_NOWAIT) };
    written >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EOPNOTSUPP)
}

/// Has a loaded BPF program (of type socket filter) choose the queue for each frame that the host sends, on the
/// device that `queue` belongs to. The kernel keeps the program for as long as the device.
///
/// # Errors
///
/// When the kernel refuses (before Linux 4.16 it knows no such request).
pub fn steer(queue: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut program = program.as_raw_fd();
    // SAFETY: TUNSETSTEERINGEBPF reads one int, which lives here.
    unsafe { request::tunsetsteeringebpf(queue.as_raw_fd(), &raw mut program) }?;
    Ok(())
}

/// Has the host neither get nor ask for IPv6 addresses on an interface of the calling thread's namespace.
///
/// # Errors
///
/// When `/proc/sys` is not writable, as in many containers. A kernel without IPv6 is none.
pub fn disable_ipv6(name: &str) -> io::Result<()> {
    // No such file: the kernel has no IPv6, or the name contains a dot that is not a separator here.
    match fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn queues_are_counted_before_anything_is_made() {
        for queues in [0, QUEUES_MAX + 1] {
            let error = make("dpk-queues", Layer::Ethernet, queues).unwrap_err();
            assert!(matches!(error, DeviceError::Queues { .. }), "{error}");
        }
    }
}
