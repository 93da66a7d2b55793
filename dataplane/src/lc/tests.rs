//! Frames against a ring whose kernel is played from memory; with a real device, see the integration tests.

use std::fs::File;

use super::*;

fn lc() -> Lc {
    // Any descriptor does: the played kernel never looks at it.
    let queue = OwnedFd::from(File::open("/dev/null").expect("/dev/null"));
    Lc::over("lc0", 1522, queue, Ring::fake()).expect("memory")
}

/// Answers every write with `result`, or with its length.
fn answer(lc: &mut Lc, result: Option<i32>) {
    let kernel = lc.io.ring.kernel();
    while let Some(pending) = kernel.pending.first() {
        let length = pending.written().len() as i32;
        kernel.answer(0, result.unwrap_or(length));
    }
}

#[test]
fn names_are_looked_at_before_anything_is_made() {
    for name in ["", "lc%d", "a name", "sixteen-bytes-xx"] {
        let error = Lc::create(name).expect_err(name);
        assert!(
            matches!(error, LcError::Device(DeviceError::Name { .. })),
            "{error}"
        );
    }
}

#[test]
fn frames_are_gathered_and_kept_in_order() {
    let mut lc = lc();
    for number in 0..BATCH as u8 {
        assert!(lc.io.ring.kernel().pending.is_empty(), "{number}");
        lc.write(&[number; 60]).expect("no error yet");
    }
    let first: Vec<u8> = lc
        .io
        .ring
        .kernel()
        .pending
        .iter()
        .map(|p| p.written()[0])
        .collect();
    assert_eq!(first, (0..BATCH as u8).collect::<Vec<_>>());
    answer(&mut lc, None);
    lc.flush().expect("all are written");
    let counters = lc.counters();
    assert_eq!(
        (counters.offered, counters.frames, counters.bytes),
        (64, 64, 64 * 60)
    );
    lc.io.pool.audit().expect("the pool's law");
}

#[test]
fn what_no_device_takes_is_refused_and_not_counted() {
    let mut lc = lc();
    for length in [0, 13, 1523] {
        let error = lc.write(&vec![0; length]).expect_err("another length");
        assert!(matches!(error, LcError::Length { .. }), "{error}");
    }
    for length in [14, 1522] {
        lc.write(&vec![0; length]).expect("a right length");
    }
    assert_eq!(lc.gathered.len(), 2);
    lc.hand_over(false).expect("handed over");
    answer(&mut lc, None);
    lc.flush().expect("written");
    assert_eq!(lc.counters().offered, 2);
}

/// Whoever goes on after a loss finds every frame in a counter.
#[test]
fn a_loss_before_it_does_not_cost_a_frame() {
    let mut lc = lc();
    let slots = lc.io.pool.count(lc.region).total as usize;
    let write = |lc: &mut Lc, frames: usize| {
        let told = (0..frames).map(|_| lc.write(&[1; 60]));
        told.filter(Result::is_err).count()
    };
    assert_eq!(write(&mut lc, slots), 0);
    // No slot is left: the next frame finds out what became of those before it, and is written itself.
    answer(&mut lc, Some(-libc::EIO));
    assert_eq!(write(&mut lc, 1), 1);
    let counters = *lc.counters();
    assert_eq!(counters.dropped.get(Reason::LinkDown), slots as u64);
    assert_eq!(lc.gathered.len(), 1);
    assert_eq!(write(&mut lc, BATCH - 1), 0);
    answer(&mut lc, None);
    lc.flush().expect("told before");
    assert_eq!(lc.counters().offered, (slots + BATCH) as u64);
    assert_eq!(lc.counters().frames, BATCH as u64);
    lc.io.pool.audit().expect("the pool's law");
}

#[test]
fn losses_are_told_once_and_a_lost_device_for_ever() {
    let mut lc = lc();
    let mut lose = |errno: i32| {
        for _ in 0..BATCH {
            // A device that is gone refuses at once, else only the answer tells.
            let _ = lc.write(&[1; 60]);
        }
        answer(&mut lc, Some(-errno));
        (lc.flush().map_err(|e| e.to_string()), lc.flush().is_ok())
    };
    let (told, then) = lose(libc::EIO);
    let told = told.expect_err("lost");
    for words in ["lc0", "64 frames", "link_down", "ip link set lc0 up"] {
        assert!(told.contains(words), "{told}");
    }
    assert!(then, "told once");
    let (told, _) = lose(libc::EBADFD);
    assert!(told.expect_err("gone").contains("removed"));
    let counters = *lc.counters();
    assert_eq!(counters.offered, 128);
    assert_eq!(counters.dropped.get(Reason::LinkDown), 128);
    for _ in 1..BATCH {
        lc.write(&[1; 60]).expect("gathered");
    }
    let error = lc.write(&[1; 60]).expect_err("gone");
    assert!(matches!(error, LcError::Gone(_)), "{error}");
    lc.io.pool.audit().expect("the pool's law");
}
