//! The generator against the kernel, in a network namespace of its own; needs root.

use std::{thread, time::Duration};

use control::{
    kernel::xdp::{Unclaimed, XdpChoice, XdpMode, XdpOptions, XdpProgram},
    link::NetNs,
};
use perf::{
    generator::{Generator, Traffic, frame},
    lab::{self, LabError, SOURCE, UPLINK},
};

/// Runs a test in a namespace with the pair of interfaces and a program on [`UPLINK`] that counts and
/// drops; says so and does nothing without root.
fn in_lab(test: impl FnOnce(XdpProgram) + Send) {
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
            unclaimed: Unclaimed::Drop,
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
        frame: frame::udp(64),
        count,
        rate,
        core: cores[0].id,
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
