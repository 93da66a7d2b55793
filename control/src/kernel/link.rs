//! The commands of bpf(2) that aya does not give us: BPF_LINK_CREATE for the XDP hook and BPF_LINK_DETACH, and
//! BPF_OBJ_GET for pins of any kind (kernel/bpf/syscall.c, `link_create`, `link_detach` and `bpf_obj_get`).
//!
//! aya's own `Xdp::attach` goes over to netlink without a word when this call fails with EINVAL. What
//! netlink attaches stays after the process, so the call is made here, where it is this or nothing.

use std::{
    ffi::CStr,
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// BPF_OBJ_GET, and BPF_F_RDONLY for it.
const OBJ_GET: libc::c_long = 7;
const RDONLY: u32 = 1 << 3;
/// BPF_LINK_CREATE, BPF_XDP, XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE (include/uapi/linux/bpf.h, if_link.h).
const LINK_CREATE: libc::c_long = 28;
const ATTACH_XDP: u32 = 37;
const SKB_MODE: u32 = 1 << 1;
const DRV_MODE: u32 = 1 << 2;
/// BPF_LINK_DETACH.
const LINK_DETACH: libc::c_long = 34;

/// The head of `union bpf_attr` as this command reads it; the kernel takes what is missing as zero.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// A program on the XDP hook of an interface. Taken off when this is dropped, and when the process ends.
pub(super) struct XdpLink(OwnedFd);

impl AsFd for XdpLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for XdpLink {
    fn drop(&mut self) {
        // Closing alone leaves it attached for as long as somebody else has it open, as whoever lists the links
        // of the machine has for a moment. Where this is refused, closing has to do.
        let attributes = LinkDetach {
            link_fd: self.0.as_raw_fd() as u32,
        };
        // SAFETY: bpf(2) reads as many bytes as it is told from a live value of that size, and keeps no
        // reference to it.
        unsafe {
            libc::syscall(
                libc::SYS_bpf,
                LINK_DETACH,
                &raw const attributes,
                mem::size_of::<LinkDetach>(),
            );
        }
    }
}

#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

/// Attaches a program to the XDP hook of an interface of the calling thread's namespace, on socket buffers
/// (`skb`) or in the driver.
///
/// # Errors
///
/// EPERM, ENODEV, EBUSY and EEXIST (another program is there), EOPNOTSUPP (no native XDP), EINVAL (also:
/// Linux before 5.9) and what the driver says.
pub(super) fn attach_xdp(program: BorrowedFd<'_>, ifindex: u32, skb: bool) -> io::Result<XdpLink> {
    let attributes = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: ifindex,
        attach_type: ATTACH_XDP,
        flags: if skb { SKB_MODE } else { DRV_MODE },
    };
    // SAFETY: bpf(2) reads as many bytes as it is told from a live value of that size, and keeps no
    // reference to it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            LINK_CREATE,
            &raw const attributes,
            mem::size_of::<LinkCreate>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(XdpLink(unsafe { OwnedFd::from_raw_fd(result as i32) }))
}

#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens whatever is pinned at a path: a program, a map or a link.
///
/// # Errors
///
/// EPERM, EACCES, and EINVAL where the path is not on a bpffs.
pub(super) fn open_pin(path: &CStr) -> io::Result<OwnedFd> {
    open_pin_with(path, 0).or_else(|_| open_pin_with(path, RDONLY))
}

fn open_pin_with(path: &CStr, file_flags: u32) -> io::Result<OwnedFd> {
    let attributes = ObjGet {
        pathname: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags,
    };
    // SAFETY: bpf(2) reads as many bytes as it is told from a live value of that size, and the path in it
    // ends with a zero and outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            OBJ_GET,
            &raw const attributes,
            mem::size_of::<ObjGet>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}
