//! Two questions to a driver that need no privilege: its name and its active queues
//! (include/uapi/linux/ethtool.h; net/ethtool/ioctl.c lists what is unprivileged).

use std::{ffi::CStr, io, os::fd::AsRawFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    fw_version: [u8; 32],
    bus_info: [u8; 32],
    erom_version: [u8; 32],
    reserved2: [u8; 12],
    n_priv_flags: u32,
    n_stats: u32,
    testinfo_len: u32,
    eedump_len: u32,
    regdump_len: u32,
}

/// `struct ethtool_channels`.
#[derive(Default)]
#[repr(C)]
struct Channels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

/// The name of an interface's driver; `None` where it has none.
pub(crate) fn driver(interface: &str) -> Option<String> {
    let mut info = DriverInfo {
        cmd: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        version: [0; 32],
        fw_version: [0; 32],
        bus_info: [0; 32],
        erom_version: [0; 32],
        reserved2: [0; 12],
        n_priv_flags: 0,
        n_stats: 0,
        testinfo_len: 0,
        eedump_len: 0,
        regdump_len: 0,
    };
    // SAFETY: the kernel writes a `struct ethtool_drvinfo` for this command, which `info` is.
    unsafe { ask(interface, (&raw mut info).cast()) }.ok()?;
    let name = CStr::from_bytes_until_nul(&info.driver).ok()?;
    Some(name.to_string_lossy().into_owned())
}

/// The active receive queues of an interface; `None` where its driver does not count them.
pub(crate) fn queues(interface: &str) -> Option<u32> {
    let mut channels = Channels {
        cmd: ETHTOOL_GCHANNELS,
        ..Channels::default()
    };
    // SAFETY: the kernel writes a `struct ethtool_channels` for this command, which `channels` is.
    unsafe { ask(interface, (&raw mut channels).cast()) }.ok()?;
    Some(channels.rx_count.saturating_add(channels.combined_count))
}

/// One SIOCETHTOOL in the calling thread's network namespace.
///
/// # Safety
///
/// `data` must point to the structure that its command, the first field, stands for.
unsafe fn ask(interface: &str, data: *mut libc::c_char) -> io::Result<()> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    if interface.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut name = [0 as libc::c_char; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: data },
    };
    // SAFETY: the request is a whole `struct ifreq`, and `data` is what the caller promises.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_size() {
        assert_eq!(size_of::<DriverInfo>(), 196);
        assert_eq!(size_of::<Channels>(), 36);
    }

    #[test]
    fn an_interface_that_is_not_there_has_neither() {
        assert_eq!(driver("no-such-link-0"), None);
        assert_eq!(queues("no-such-link-0"), None);
        assert_eq!(queues("a-name-that-no-interface-can-have"), None);
    }
}
