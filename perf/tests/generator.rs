//! The generator against the kernel, in a network namespace of its own; needs root.

use std::{
    collections::BTreeSet,
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::Duration,
};

use control::{
    kernel::xdp::{Unclaimed, XdpChoice, XdpMode, XdpOptions, XdpProgram},
    link::NetNs,
};
use etherparse::SlicedPacket;
use nix::{
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
            sockopt::{RcvBufForce, ReceiveTimeout},
        },
        time::TimeVal,
    },
    time::{ClockId, clock_gettime},
};
use perf::{
    generator::{Generator, IMIX, Traffic, Vary, frame},
    lab::{self, LabError, SOURCE, UPLINK},
};

/// Runs a test in a namespace with the pair of interfaces and a program on [`UPLINK`] that counts and
/// drops; says so and does nothing without root.
fn in_lab(test: impl FnOnce(XdpProgram) + Send) {
    in_lab_with(Unclaimed::Drop, test);
}

/// The same, with what the program does with frames.
fn in_lab_with(unclaimed: Unclaimed, test: impl FnOnce(XdpProgram) + Send) {
    let there = || {
        match lab::enter() {
            Ok(()) => {}
            Err(error @ LabError::NotRoot) => {
                eprintln!("skipped: {error}");
                return;
            }
            Err(error) => panic!("{error}"),
        }
        let options = XdpOptions {
            mode: XdpChoice::Only(XdpMode::Native),
            queues: 1,
            unclaimed,
        };
        test(XdpProgram::attach(&NetNs::own(), UPLINK, &options).expect("a program"));
    };
    // A thread of its own: the namespace ends with it.
    if let Err(panic) = thread::scope(|scope| scope.spawn(there).join()) {
        std::panic::resume_unwind(panic);
    }
}

fn traffic(count: Option<u64>, rate: Option<u64>) -> Traffic {
    let cores = core_affinity::get_core_ids().expect("the cores of this process");
    Traffic {
        count,
        rate,
        ..Traffic::of(frame::udp(64), cores[0].id)
    }
}

#[test]
fn each_frame_of_a_limited_generator_arrives_and_not_too_soon() {
    in_lab(|program| {
        let (count, rate) = (100_000, 200_000);
        let sent = Generator::start(&NetNs::own(), SOURCE, traffic(Some(count), Some(rate)))
            .and_then(Generator::wait)
            .expect("frames");
        assert_eq!(sent.frames, count);
        assert_eq!(
            program.counters(0).expect("counters").unclaimed_dropped,
            count
        );
        let least = Duration::from_secs_f64((count - 1) as f64 / rate as f64);
        assert!(sent.elapsed >= least, "{sent:?}");
    });
}

#[test]
fn an_endless_generator_ends_when_it_is_told() {
    in_lab(|program| {
        let generator =
            Generator::start(&NetNs::own(), SOURCE, traffic(None, None)).expect("a generator");
        while generator.progress().sent < 1000 {
            assert!(!generator.is_finished(), "{:?}", generator.stop());
            thread::yield_now();
        }
        let sent = generator.stop().expect("frames");
        let arrived = program.counters(0).expect("counters").unclaimed_dropped;
        assert!(sent.frames >= 1000 && arrived > 0 && arrived <= sent.frames);
    });
}

#[test]
fn what_the_kernel_refuses_is_told() {
    in_lab(|_program| {
        let differing = Traffic {
            frame: vec![0; 60],
            vary: Vary {
                flows: 2,
                ..Vary::default()
            },
            ..traffic(None, None)
        };
        let error = Generator::start(&NetNs::own(), SOURCE, differing).unwrap_err();
        assert!(error.to_string().contains("UDP over IPv4"), "{error}");
        let error = Generator::start(&NetNs::own(), "none0", traffic(None, None)).unwrap_err();
        assert!(error.to_string().contains("none0"), "{error}");
        let too_long = Traffic {
            frame: vec![0; 8000],
            ..traffic(Some(1), None)
        };
        let error = Generator::start(&NetNs::own(), SOURCE, too_long)
            .and_then(Generator::wait)
            .unwrap_err();
        assert!(error.to_string().contains("8000 bytes"), "{error}");
    });
}

/// A packet socket that sees everything that arrives in this namespace.
fn listen() -> OwnedFd {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::empty(),
        SockProtocol::EthAll,
    )
    .expect("a packet socket");
    setsockopt(&socket, RcvBufForce, &(16 << 20)).expect("room for all frames");
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(5, 0)).expect("a time limit");
    socket
}

/// A flow, and the time at which a frame of it left.
type Seen = (([u8; 4], u16), u64);

/// Checks lengths and checksums of a frame.
fn look_at(frame: &[u8]) -> Seen {
    let packet = SlicedPacket::from_ethernet(frame).expect("a whole frame");
    let Some(etherparse::NetSlice::Ipv4(ip)) = &packet.net else {
        panic!("not IPv4: {packet:?}");
    };
    let header = ip.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    assert_eq!(usize::from(header.total_len), frame.len() - 14);
    let Some(etherparse::TransportSlice::Udp(udp)) = &packet.transport else {
        panic!("not UDP: {packet:?}");
    };
    assert_eq!(usize::from(udp.length()), frame.len() - 34);
    assert_eq!(udp.checksum(), 0);
    assert_eq!(udp.destination_port(), frame::TO_PORT);
    let stamp = frame[frame::STAMP..frame::STAMP + 8].try_into();
    (
        (header.source, udp.source_port()),
        u64::from_le_bytes(stamp.expect("eight bytes")),
    )
}

#[test]
fn frames_that_differ_are_right_every_one() {
    let cases = [
        Vary {
            sizes: IMIX.to_vec(),
            ..Vary::default()
        },
        Vary {
            flows: 10_000,
            ..Vary::default()
        },
        Vary {
            stamped: true,
            ..Vary::default()
        },
        Vary {
            sizes: vec![60, 1514, 61],
            flows: 7,
            stamped: true,
        },
    ];
    // More than the pages of a run, so that they come around.
    let count = 20_000;
    for vary in cases {
        in_lab_with(Unclaimed::Pass, |_program| {
            let socket = listen();
            let traffic = Traffic {
                frame: frame::udp(1514),
                vary: vary.clone(),
                ..traffic(Some(count), Some(50_000))
            };
            let before = clock();
            // Frames are taken as they come: a page comes around once its frame is gone.
            let generator = Generator::start(&NetNs::own(), SOURCE, traffic).expect("a generator");
            let mut flows = BTreeSet::new();
            let mut last = before;
            let mut bytes = [0; 2048];
            for at in 0..count {
                let length = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty())
                    .unwrap_or_else(|e| panic!("{vary:?}: frame {at}: {e}"));
                assert_eq!(length, vary.size(at, 1514), "{vary:?}: frame {at}");
                let (flow, stamp) = look_at(&bytes[..length]);
                flows.insert(flow);
                if vary.stamped {
                    assert!((last..=clock()).contains(&stamp), "{vary:?}: frame {at}");
                    last = stamp;
                }
            }
            assert_eq!(generator.wait().expect("frames").frames, count);
            let expected: BTreeSet<_> = (0..vary.flows.max(1))
                .map(frame::flow)
                .map(|(address, port)| (address.octets(), port))
                .collect();
            assert_eq!(flows, expected, "{vary:?}");
        });
    }
}

/// The clock of the time stamps.
fn clock() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
    Duration::from(now).as_nanos() as u64
}
