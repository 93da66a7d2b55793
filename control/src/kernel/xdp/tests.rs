//! The program against the kernel, on TAP devices in namespaces of their own.

use std::os::fd::FromRawFd;

use aya::util::KernelVersion;

use super::*;
use crate::{
    kernel::tests::in_new_netns_with_bpf,
    link::tap::{Tap, TapOptions},
};

/// Made by one thread, kept by another.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<XdpProgram>();
    is_send::<Tap>();
};

#[test]
fn a_missing_interface_is_named_before_any_privilege_is_asked_for() {
    let options = XdpOptions {
        mode: XdpChoice::Auto,
        queues: 1,
        unclaimed: Unclaimed::Pass,
    };
    let error = XdpProgram::attach(&NetNs::own(), "no-such-if", &options).unwrap_err();
    assert!(matches!(error, XdpError::NoInterface { .. }), "{error}");
}

#[test]
fn a_claimed_queue_leads_to_its_socket_or_nowhere() {
    in_new_netns_with_bpf(|| {
        let ns = NetNs::own();
        let tap = Tap::create(&ns, &TapOptions::active("xdp0")).unwrap();
        let options = XdpOptions {
            mode: XdpChoice::Auto,
            queues: 1,
            unclaimed: Unclaimed::Pass,
        };
        let mut program = XdpProgram::attach(&ns, "xdp0", &options).unwrap();
        assert_eq!(program.mode(), XdpMode::Native);
        assert_eq!(program.fallback(), None);
        let frame = [0xff; 60];
        nix::unistd::write(&tap.fds[0], &frame).unwrap();
        program.claim(0).unwrap();
        nix::unistd::write(&tap.fds[0], &frame).unwrap();
        nix::unistd::write(&tap.fds[0], &frame).unwrap();
        let expected = QueueCounters {
            no_socket: 2,
            unclaimed_passed: 1,
            ..QueueCounters::default()
        };
        assert_eq!(program.counters(0).unwrap(), expected);
        assert_eq!(program.other_counters().unwrap(), QueueCounters::default());

        for error in [
            program.claim(1).unwrap_err(),
            program.counters(1).unwrap_err(),
        ] {
            assert!(
                matches!(error, XdpError::NoQueue { queue: 1, .. }),
                "{error}"
            );
        }
        let error = program
            .set(0, &std::io::stdin(), Delivery::Any)
            .unwrap_err();
        assert!(
            error.to_string().contains("not an AF_XDP socket"),
            "{error}"
        );
        program.unset(0).unwrap();
    });
}

/// A socket bound to queue 0 of an interface, without chunks: what reaches it is counted and dropped.
fn bound_socket(ifindex: u32) -> OwnedFd {
    const CHUNK: usize = 4096;
    let descriptors: i32 = 8;
    let option = |socket: &OwnedFd, name: i32, value: *const libc::c_void, size: usize| {
        // SAFETY: the callers pass a live value and its size; the kernel copies it.
        let result = unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_XDP, name, value, size as u32)
        };
        assert_eq!(result, 0, "option {name}: {}", io::Error::last_os_error());
    };
    // SAFETY: plain system calls on values that live here. The mapping is never unmapped, so it outlives
    // the socket whose memory it is.
    unsafe {
        let socket = libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        assert!(socket >= 0, "{}", io::Error::last_os_error());
        let socket = OwnedFd::from_raw_fd(socket);
        let memory = libc::mmap(
            std::ptr::null_mut(),
            CHUNK,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(memory, libc::MAP_FAILED);
        let umem = libc::xdp_umem_reg {
            addr: memory as u64,
            len: CHUNK as u64,
            chunk_size: CHUNK as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        option(
            &socket,
            libc::XDP_UMEM_REG,
            (&raw const umem).cast(),
            size_of_val(&umem),
        );
        for ring in [
            libc::XDP_UMEM_FILL_RING,
            libc::XDP_UMEM_COMPLETION_RING,
            libc::XDP_RX_RING,
        ] {
            option(
                &socket,
                ring,
                (&raw const descriptors).cast(),
                size_of::<i32>(),
            );
        }
        let mut address: libc::sockaddr_xdp = std::mem::zeroed();
        address.sxdp_family = libc::AF_XDP as u16;
        address.sxdp_flags = libc::XDP_COPY;
        address.sxdp_ifindex = ifindex;
        // The queue of a socket that was closed just now is free a moment later.
        for attempt in 0..500 {
            let result = libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as u32,
            );
            if result == 0 {
                break;
            }
            let error = io::Error::last_os_error();
            assert!(
                error.raw_os_error() == Some(libc::EBUSY) && attempt < 499,
                "{error}"
            );
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        socket
    }
}

/// What became of frames at the socket.
fn statistics(socket: &OwnedFd) -> libc::xdp_statistics {
    // SAFETY: the structure is made of numbers, and the kernel writes no more than `size` bytes to it.
    unsafe {
        let mut statistics: libc::xdp_statistics = std::mem::zeroed();
        let mut size = size_of_val(&statistics) as u32;
        let result = libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut size,
        );
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        statistics
    }
}

/// How many frames came to the socket and found no chunk.
fn came_to(socket: &OwnedFd) -> u64 {
    statistics(socket).rx_fill_ring_empty_descs
}

#[test]
fn frames_go_to_the_socket_and_nowhere_once_it_is_closed() {
    in_new_netns_with_bpf(|| {
        let ns = NetNs::own();
        let tap = Tap::create(&ns, &TapOptions::active("xdp0")).unwrap();
        let send = || nix::unistd::write(&tap.fds[0], &[0xff; 60]).unwrap();
        for mode in [XdpMode::Native, XdpMode::Skb] {
            let options = XdpOptions {
                mode: XdpChoice::Only(mode),
                queues: 1,
                unclaimed: Unclaimed::Pass,
            };
            let mut program = XdpProgram::attach(&ns, "xdp0", &options).unwrap();
            for delivery in [Delivery::Any, Delivery::SingleBuffer] {
                let before = program.counters(0).unwrap().no_socket;
                let socket = bound_socket(tap.ifindex);
                program.set(0, &socket, delivery).unwrap();
                program.claim(0).unwrap();
                send();
                send();
                assert_eq!(came_to(&socket), 2, "{mode} {delivery:?}");
                assert_eq!(program.counters(0).unwrap().no_socket, before);
                drop(socket);
                send();
                let counters = program.counters(0).unwrap();
                assert_eq!(counters.no_socket, before + 1, "{mode} {delivery:?}");
                assert_eq!(counters.unclaimed_passed, 0, "{mode} {delivery:?}");
            }
        }
    });
}

#[test]
fn a_program_that_is_there_is_named_and_ours_leaves_nothing() {
    in_new_netns_with_bpf(|| {
        let ns = NetNs::own();
        let _tap = Tap::create(&ns, &TapOptions::active("xdp0")).unwrap();
        for mode in [XdpMode::Native, XdpMode::Skb] {
            let options = XdpOptions {
                mode: XdpChoice::Only(mode),
                queues: 4,
                unclaimed: Unclaimed::Drop,
            };
            let first = XdpProgram::attach(&ns, "xdp0", &options).unwrap();
            let error = XdpProgram::attach(&ns, "xdp0", &options).unwrap_err();
            let XdpError::Occupied { program, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!(program.name.as_deref(), Some("xsk"));
            assert!(program.by_link);
            let me = std::process::id();
            assert!(program.holders.iter().any(|(pid, _)| *pid == me), "{error}");
            drop(first);
            let mut netlink = Netlink::open(&ns).unwrap();
            assert_eq!(netlink.link_by_name("xdp0").unwrap().unwrap().xdp, []);
        }
    });
}

#[test]
fn the_interface_is_free_although_somebody_still_looks_at_the_link() {
    in_new_netns_with_bpf(|| {
        let ns = NetNs::own();
        let _tap = Tap::create(&ns, &TapOptions::active("xdp0")).unwrap();
        let options = XdpOptions {
            mode: XdpChoice::Auto,
            queues: 1,
            unclaimed: Unclaimed::Pass,
        };
        let program = XdpProgram::attach(&ns, "xdp0", &options).unwrap();
        let looked_at = program._link.as_fd().try_clone_to_owned().unwrap();
        drop(program);
        XdpProgram::attach(&ns, "xdp0", &options).unwrap();
        drop(looked_at);
    });
}

#[test]
fn only_what_the_driver_refuses_is_tried_in_the_other_mode() {
    for (errno, ends) in [
        (libc::EOPNOTSUPP, false),
        (libc::EINVAL, false),
        (libc::ERANGE, false),
        (libc::EPERM, true),
        (libc::EBUSY, true),
        (libc::EEXIST, true),
        (libc::ENODEV, true),
    ] {
        assert_eq!(
            ends_the_search(&io::Error::from_raw_os_error(errno)),
            ends,
            "{errno}"
        );
    }
}

#[test]
fn a_frame_in_several_buffers_is_dropped_once_and_counted() {
    in_new_netns_with_bpf(|| {
        let ns = NetNs::own();
        let options = TapOptions {
            mtu: Some(9000),
            ..TapOptions::active("xdp0")
        };
        let tap = Tap::create(&ns, &options).unwrap();
        let options = XdpOptions {
            mode: XdpChoice::Only(XdpMode::Skb),
            queues: 1,
            unclaimed: Unclaimed::Drop,
        };
        let mut program = XdpProgram::attach(&ns, "xdp0", &options).unwrap();
        let socket = bound_socket(tap.ifindex);
        // Before Linux 6.9 generic XDP makes one buffer of such a frame, and it is the socket that drops it.
        let in_pieces = u64::from(KernelVersion::current().unwrap() >= KernelVersion::new(6, 9, 0));
        for (delivery, by_program, by_socket) in [
            (Delivery::Any, 0, 1),
            (Delivery::SingleBuffer, in_pieces, 2 - in_pieces),
        ] {
            program.set(0, &socket, delivery).unwrap();
            nix::unistd::write(&tap.fds[0], &[0xff; 8000]).unwrap();
            let counters = program.counters(0).unwrap();
            assert_eq!(counters.multi_buffer, by_program, "{delivery:?}");
            assert_eq!(statistics(&socket).rx_dropped, by_socket, "{delivery:?}");
        }
        assert_eq!(came_to(&socket), 0);
    });
}
