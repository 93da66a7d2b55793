//! UDP sockets of ports: opened in a network namespace with everything set, and what the kernel knows of
//! the way to a peer.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    getsockopt_impl,
    libc::{self, c_int},
    setsockopt_impl, sockopt_impl,
    sys::socket::{
        AddressFamily, SetSockOpt, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt,
        setsockopt, socket,
        sockopt::{
            IpMtu, Ipv4RecvErr, Ipv4Tos, Ipv4Ttl, Ipv6RecvErr, Ipv6TClass, Ipv6Ttl, Ipv6V6Only,
            RcvBuf, RcvBufForce, ReusePort, SndBuf, SndBufForce,
        },
    },
};

sockopt_impl!(
    /// The MTU of the path of a connected IPv6 socket.
    Ipv6Mtu,
    GetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU,
    c_int
);
sockopt_impl!(
    /// Whether IPv4 datagrams may be fragmented (ip(7)).
    IpMtuDiscover,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_MTU_DISCOVER,
    c_int
);
sockopt_impl!(
    /// Whether IPv6 datagrams may be fragmented (ipv6(7)).
    Ipv6MtuDiscover,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU_DISCOVER,
    c_int
);
sockopt_impl!(
    /// UDP over IPv4 without a checksum (`SO_NO_CHECK`).
    NoChecksum,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_NO_CHECK,
    c_int
);

/// How datagrams of a sending socket look outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Differentiated services code point: 6 bits.
    pub dscp: u8,
    /// Whether routers and this host may not fragment them.
    pub dont_fragment: bool,
}

/// Which step of opening a socket failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The socket itself and its options.
    Open,
    /// Its own address.
    Bind,
    /// The route to its peer.
    Connect,
}

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{step:?}: {errno}")]
pub struct UdpError {
    /// Which step failed.
    pub step: Step,
    /// The kernel's answer.
    pub errno: Errno,
}

trait During<T> {
    fn during(self, step: Step) -> Result<T, UdpError>;
}

impl<T> During<T> for nix::Result<T> {
    fn during(self, step: Step) -> Result<T, UdpError> {
        self.map_err(|errno| UdpError { step, errno })
    }
}

/// A socket that is connected to `to`, from a port of the kernel's choosing, in the calling thread's
/// namespace. It receives next to nothing.
///
/// UDP over IPv4 carries no checksum, as RFC 7348, section 5, wants it; over IPv6 it must
/// (RFC 8200, section 8.1).
///
/// It is told what becomes of what it sends (IP_RECVERR): without that the kernel answers to a datagram which
/// the host's own queue has dropped as if it were sent (net/ipv4/udp.c, `udp_send_skb`). Errors are kept for
/// nobody beyond the first few, for which the smallest receive buffer has room.
///
/// # Errors
///
/// With the step that the kernel refused.
pub fn sender(
    local: Option<IpAddr>,
    to: SocketAddr,
    outer: Outer,
    buffer: usize,
) -> Result<OwnedFd, UdpError> {
    let fd = open(to.ip()).during(Step::Open)?;
    let dscp = c_int::from(outer.dscp) << 2;
    let ttl = c_int::from(outer.ttl);
    match to {
        SocketAddr::V4(_) => setsockopt(&fd, NoChecksum, &1)
            .and_then(|()| setsockopt(&fd, Ipv4RecvErr, &true))
            .and_then(|()| setsockopt(&fd, Ipv4Ttl, &ttl))
            .and_then(|()| setsockopt(&fd, Ipv4Tos, &dscp))
            .and_then(|()| {
                let discover = match outer.dont_fragment {
                    true => libc::IP_PMTUDISC_DO,
                    false => libc::IP_PMTUDISC_DONT,
                };
                setsockopt(&fd, IpMtuDiscover, &discover)
            }),
        SocketAddr::V6(_) => setsockopt(&fd, Ipv6Ttl, &ttl)
            .and_then(|()| setsockopt(&fd, Ipv6RecvErr, &true))
            .and_then(|()| setsockopt(&fd, Ipv6TClass, &dscp))
            .and_then(|()| {
                let discover = match outer.dont_fragment {
                    true => libc::IPV6_PMTUDISC_DO,
                    false => libc::IPV6_PMTUDISC_DONT,
                };
                setsockopt(&fd, Ipv6MtuDiscover, &discover)
            }),
    }
    .during(Step::Open)?;
    grow(&fd, SndBufForce, SndBuf, buffer);
    // What arrives there is for nobody: the kernel makes this its smallest.
    let _ = setsockopt(&fd, RcvBuf, &0);
    let local = local.unwrap_or(unspecified(to.ip()));
    bind(
        fd.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(local, 0)),
    )
    .during(Step::Bind)?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to)).during(Step::Connect)?;
    Ok(fd)
}

/// Sockets that share a port, among which the kernel spreads flows (SO_REUSEPORT), in the calling thread's
/// namespace. `at` is the address that they receive at; `None` is all of both families. Answers with how many
/// bytes each can hold as well.
///
/// # Errors
///
/// With the step that the kernel refused.
pub fn listeners(
    at: Option<IpAddr>,
    port: u16,
    count: usize,
    buffer: usize,
) -> Result<(Vec<OwnedFd>, usize), UdpError> {
    let mut address = at.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
    let mut all = Vec::with_capacity(count);
    let mut granted = usize::MAX;
    for n in 0..count {
        let fd = match open(address) {
            // A kernel without IPv6.
            Err(Errno::EAFNOSUPPORT) if at.is_none() => {
                address = Ipv4Addr::UNSPECIFIED.into();
                open(address)
            }
            opened => opened,
        }
        .during(Step::Open)?;
        if address.is_ipv6() {
            setsockopt(&fd, Ipv6V6Only, &at.is_some()).during(Step::Open)?;
        }
        // The first is bound alone and shares only afterwards: so it does not join what another program
        // has, and would get half of it.
        if n > 0 {
            setsockopt(&fd, ReusePort, &true).during(Step::Open)?;
        }
        grow(&fd, RcvBufForce, RcvBuf, buffer);
        granted = granted.min(getsockopt(&fd, RcvBuf).during(Step::Open)?);
        bind(
            fd.as_raw_fd(),
            &SockaddrStorage::from(SocketAddr::new(address, port)),
        )
        .during(Step::Bind)?;
        if n == 0 && count > 1 {
            setsockopt(&fd, ReusePort, &true).during(Step::Open)?;
        }
        all.push(fd);
    }
    Ok((all, granted))
}

/// The way to an address, as far as this host knows it: in the calling thread's namespace, from `local` where it
/// is given. Answers with its MTU, in bytes of an IP packet, and the address that the host has on it. Sends
/// nothing.
///
/// # Errors
///
/// The kernel's: ENETUNREACH without a route, EADDRNOTAVAIL when `local` is no address of this host.
pub fn path(local: Option<IpAddr>, to: SocketAddr) -> io::Result<(u32, IpAddr)> {
    let connected = |from: IpAddr| {
        let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
        socket.connect(to)?;
        Ok::<_, io::Error>(socket)
    };
    let socket = connected(local.unwrap_or(unspecified(to.ip())))?;
    let mtu = match to {
        SocketAddr::V4(_) => getsockopt(&socket, IpMtu),
        SocketAddr::V6(_) => getsockopt(&socket, Ipv6Mtu),
    }?;
    // An address that was chosen may be on another interface than the one that leads there.
    let source = match local {
        Some(_) => connected(unspecified(to.ip()))?.local_addr()?,
        None => socket.local_addr()?,
    };
    Ok((mtu.unsigned_abs(), source.ip()))
}

fn open(address: IpAddr) -> nix::Result<OwnedFd> {
    let family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(family, SockType::Datagram, flags, None)
}

/// Sets a buffer's size beyond the system's limit where that is allowed, else as far as it goes.
fn grow<F, S>(fd: &OwnedFd, force: F, set: S, bytes: usize)
where
    F: SetSockOpt<Val = usize>,
    S: SetSockOpt<Val = usize>,
{
    let fd: BorrowedFd<'_> = fd.as_fd();
    if setsockopt(&fd, force, &bytes).is_err() {
        // A smaller one does as well.
        let _ = setsockopt(&fd, set, &bytes);
    }
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
