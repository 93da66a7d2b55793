//! bpf(2) with BPF_PROG_TEST_RUN and live frames (include/uapi/linux/bpf.h, net/bpf/test_run.c): aya's
//! test_run has neither the flag nor the batch size.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// enum bpf_cmd.
const BPF_PROG_TEST_RUN: libc::c_long = 10;
/// Frames leave for real, instead of coming back to the caller.
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
/// NAPI_POLL_WEIGHT: frames are redirected and flushed in such batches.
const BATCH: u32 = 64;

/// The `test` member of union bpf_attr, up to what is used. The kernel takes the rest as zero.
#[derive(Default)]
#[repr(C)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// Runs an XDP program over `repeat` copies of a frame and does with each what it says. Comes back when
/// all are done, or with EINTR when a signal came.
pub(super) fn live_frames(program: BorrowedFd<'_>, frame: &[u8], repeat: u32) -> io::Result<()> {
    let mut attr = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat,
        flags: BPF_F_TEST_XDP_LIVE_FRAMES,
        batch_size: BATCH,
        ..TestRun::default()
    };
    // SAFETY: the attributes are `size_of::<TestRun>()` bytes in the layout of union bpf_attr and live
    // over the call; `data_in` points to `data_size_in` readable bytes; the kernel writes `retval` and
    // `duration` within the attributes and nothing else, since no output buffer is given.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_TEST_RUN,
            &raw mut attr,
            size_of::<TestRun>(),
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
