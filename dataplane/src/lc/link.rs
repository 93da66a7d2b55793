//! What an interface is told when it is made: its MTU, and to be up without ARP (netdevice(7)). Without
//! netlink, which is the control plane's.

// The requests take the address of a structure.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

mod request {
    nix::ioctl_read_bad!(get_flags, libc::SIOCGIFFLAGS, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_flags, libc::SIOCSIFFLAGS, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_mtu, libc::SIOCSIFMTU, libc::ifreq);
}

/// Gives an interface of the calling thread's namespace an MTU, in bytes.
pub(super) fn set_mtu(name: &str, mtu: u32) -> io::Result<()> {
    let mut ifreq = named(name);
    ifreq.ifr_ifru.ifru_mtu = i32::try_from(mtu).map_err(|_| libc_error(libc::EINVAL))?;
    // SAFETY: SIOCSIFMTU reads one `struct ifreq`, of which the name and the MTU are filled in.
    unsafe { request::set_mtu(any_socket()?.as_raw_fd(), &raw const ifreq) }?;
    Ok(())
}

/// Takes an interface up, without ARP.
pub(super) fn set_up(name: &str) -> io::Result<()> {
    let socket = any_socket()?;
    let mut ifreq = named(name);
    // SAFETY: SIOCGIFFLAGS reads the name of one `struct ifreq` and writes the flags there.
    unsafe { request::get_flags(socket.as_raw_fd(), &raw mut ifreq) }?;
    // SAFETY: all of the union is plain integers, and the flags have just been written.
    let flags = unsafe { ifreq.ifr_ifru.ifru_flags };
    ifreq.ifr_ifru.ifru_flags = flags | (libc::IFF_UP | libc::IFF_NOARP) as i16;
    // SAFETY: SIOCSIFFLAGS reads one `struct ifreq`, of which the name and the flags are filled in.
    unsafe { request::set_flags(socket.as_raw_fd(), &raw const ifreq) }?;
    Ok(())
}

/// Any socket does: it names the namespace.
fn any_socket() -> io::Result<OwnedFd> {
    let kind = SockType::Datagram;
    Ok(socket(
        AddressFamily::Unix,
        kind,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?)
}

fn named(name: &str) -> libc::ifreq {
    let mut ifreq = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 },
    };
    // The last byte stays zero: names that are longer were refused before.
    let room = libc::IFNAMSIZ - 1;
    for (to, from) in ifreq.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    ifreq
}

fn libc_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
