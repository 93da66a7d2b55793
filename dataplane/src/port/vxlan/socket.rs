//! Datagrams straight into slots, a batch with one system call (recvmmsg(2)), and what the kernel lost
//! before. The only unsafe code of the kind.

// The kernel writes into slots and into the arrays of a batch.
#![allow(unsafe_code)]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use super::header;
use crate::frame::{Frame, Pool};

/// One datagram of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram {
    /// Its first bytes; of one that is shorter the rest is zero.
    pub(super) header: [u8; header::LEN],
    /// Bytes behind the header, which are in the slot.
    pub(super) frame: usize,
    /// Bytes of all that the kernel delivered.
    pub(super) len: usize,
    /// Whether it was longer than the slot has room.
    pub(super) truncated: bool,
    /// Who sent it; an IPv4 address also where it came through an IPv6 socket.
    pub(super) from: IpAddr,
}

/// What recvmmsg(2) is told, made once.
pub(super) struct Batch {
    messages: Box<[libc::mmsghdr]>,
    parts: Box<[[libc::iovec; 2]]>,
    headers: Box<[[u8; header::LEN]]>,
    names: Box<[libc::sockaddr_storage]>,
}

// SAFETY: the pointers in it point to what it owns, or to slots that only the thread that is in `receive`
// uses: they are written anew by each call.
unsafe impl Send for Batch {}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch({})", self.messages.len())
    }
}

impl Batch {
    /// For at most `count` datagrams at a time.
    pub(super) fn new(count: usize) -> Self {
        // SAFETY: zeroes are valid for a message without parts, for no part and for no address.
        let (message, part, name) = unsafe { std::mem::zeroed() };
        Self {
            messages: vec![message; count].into(),
            parts: vec![[part; 2]; count].into(),
            headers: vec![[0; header::LEN]; count].into(),
            names: vec![name; count].into(),
        }
    }

    /// Receives what is there without waiting, at most one datagram for each of `empties`: what is behind
    /// its first [`header::LEN`] bytes goes to where the empty frame begins. Answers how many came; see
    /// [`datagram`](Self::datagram).
    pub(super) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        pool: &mut Pool,
        empties: &[Frame],
    ) -> io::Result<usize> {
        let count = empties.len().min(self.messages.len());
        for (i, empty) in empties[..count].iter().enumerate() {
            let (to, room) = pool.room(empty);
            self.address(i, to, room);
        }
        // SAFETY: the slots are those of empty frames, which the caller holds: nothing else reads or writes
        // them.
        unsafe { self.call(socket, count, libc::MSG_DONTWAIT) }
    }

    /// Takes off the socket what is there without waiting, at most as many datagrams as the batch has room for.
    /// Answers how many came. Nothing is kept of them but the header and the length.
    pub(super) fn discard(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let count = self.messages.len();
        for i in 0..count {
            self.address(i, std::ptr::null_mut(), 0);
        }
        // SAFETY: there is room for no byte behind the headers. MSG_TRUNC: the length is that of the whole
        // datagram all the same.
        unsafe { self.call(socket, count, libc::MSG_DONTWAIT | libc::MSG_TRUNC) }
    }

    /// Says where the `i`-th datagram goes: behind its header, `room` bytes from `to` on.
    #[inline]
    fn address(&mut self, i: usize, to: *mut u8, room: usize) {
        self.headers[i] = [0; header::LEN];
        self.parts[i] = [
            libc::iovec {
                iov_base: self.headers[i].as_mut_ptr().cast(),
                iov_len: header::LEN,
            },
            libc::iovec {
                iov_base: to.cast(),
                iov_len: room,
            },
        ];
        let message = &mut self.messages[i].msg_hdr;
        message.msg_name = (&raw mut self.names[i]).cast();
        message.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
        message.msg_iov = self.parts[i].as_mut_ptr();
        message.msg_iovlen = 2;
    }

    /// Receives into the first `count` messages.
    ///
    /// # Safety
    ///
    /// `count` is at most the batch's. Each of them was addressed since the last call, to bytes that nothing
    /// else reads or writes until this one returns.
    #[inline]
    unsafe fn call(
        &mut self,
        socket: BorrowedFd<'_>,
        count: usize,
        flags: libc::c_int,
    ) -> io::Result<usize> {
        debug_assert!(count <= self.messages.len());
        // SAFETY: each of the `count` messages points to its own name, header and parts, which are this
        // batch's, and to bytes of which the caller says that they may be written. The kernel is done with all
        // of them when the call returns.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                count as u32,
                flags,
                std::ptr::null_mut(),
            )
        };
        match received {
            ..0 => Err(io::Error::last_os_error()),
            n => Ok(n as usize),
        }
    }

    /// The `i`-th datagram of the last batch.
    pub(super) fn datagram(&self, i: usize) -> Datagram {
        let message = &self.messages[i];
        let len = message.msg_len as usize;
        Datagram {
            header: self.headers[i],
            frame: len.saturating_sub(header::LEN),
            len,
            truncated: message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            from: address(&self.names[i]),
        }
    }
}

/// The address in a socket address; unspecified when it has none.
fn address(name: &libc::sockaddr_storage) -> IpAddr {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: a sockaddr_storage is as large as every address and as aligned; the family says
            // which one it is.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes()).into()
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            Ipv6Addr::from(name.sin6_addr.s6_addr).to_canonical()
        }
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// Datagrams that a socket lost because nobody read it in time, since it was made (`SK_MEMINFO_DROPS` of
/// SO_MEMINFO, net/core/sock.c). The kernel's counter has 32 bits.
pub(super) fn drops(socket: BorrowedFd<'_>) -> u32 {
    const SK_MEMINFO_DROPS: usize = 8;
    let mut info = [0u32; SK_MEMINFO_DROPS + 1];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which the array has.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &mut len,
        )
    };
    match result {
        0 => info[SK_MEMINFO_DROPS],
        _ => 0,
    }
}
