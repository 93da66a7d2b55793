//! Keeps a TAP of several queues from remembering which queue each flow was written to: a hash and a lookup for
//! every frame, 120 ns of 640 on the machine of docs/benchmarks/notes.md, for an answer that nobody asks of a
//! device which the host does not send on.
//!
//! The program is `dataplane/bpf/steer.c`.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use aya::{
    EbpfError, EbpfLoader,
    programs::{ProgramError, SocketFilter},
};
use dataplane::port::tap::device;

use super::objects;

/// Why flows are still remembered.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// The kernel does not take the program.
    #[error("cannot load the program that chooses a TAP's queue: {0}; it needs CAP_BPF")]
    Load(#[from] EbpfError),
    /// It is not the program that was compiled, or has no descriptor.
    #[error("cannot load the program that chooses a TAP's queue: {0}; it needs CAP_BPF")]
    Program(#[from] ProgramError),
    /// TUNSETSTEERINGEBPF refused.
    #[error("cannot have a program choose a TAP's queue: {0}; it needs Linux 4.16 or newer")]
    Set(#[from] io::Error),
}

/// Has the device of this queue choose queues by what a sender's socket says, and remember nothing.
///
/// # Errors
///
/// Without CAP_BPF of the machine.
pub fn forget_flows(queue: BorrowedFd<'_>) -> Result<(), SteeringError> {
    // It knows no kernel structure: nothing is gained by parsing the kernel's BTF.
    let mut ebpf = EbpfLoader::new().btf(None).load(objects::steer())?;
    let program: &mut SocketFilter = ebpf
        .program_mut("steer")
        .ok_or(ProgramError::NotLoaded)?
        .try_into()?;
    program.load()?;
    // The device keeps the program when the loader is gone.
    device::steer(queue, program.fd()?.as_fd())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, process::Command};

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;
    use crate::{
        kernel::tests::in_new_netns_with_bpf,
        link::{
            NetNs,
            tap::{Tap, TapOptions},
        },
    };

    /// Frames of 32 flows that the host sends, by the queue that they come to.
    fn sent(tap: &Tap) -> Vec<usize> {
        for _ in 0..32 {
            let socket = UdpSocket::bind("10.77.0.1:0").expect("a socket");
            socket.send_to(&[1], "10.77.0.2:9").expect("a frame");
        }
        let count = |queue: &std::os::fd::OwnedFd| {
            let mut frame = [0; 2048];
            let mut frames = 0;
            while nix::unistd::read(queue, &mut frame).is_ok() {
                frames += 1;
            }
            frames
        };
        tap.fds.iter().map(count).collect()
    }

    #[test]
    fn flows_are_spread_over_queues_until_the_device_is_told_to_forget_them() {
        in_new_netns_with_bpf(|| {
            let options = TapOptions {
                queues: 2,
                ..TapOptions::active("steer0")
            };
            let tap = Tap::create(&NetNs::own(), &options).expect("a device");
            for queue in &tap.fds {
                fcntl(queue, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK)).expect("fcntl");
            }
            for arguments in [
                "addr add 10.77.0.1/24 dev steer0",
                "link set steer0 arp off",
            ] {
                let status = Command::new("ip").args(arguments.split(' ')).status();
                assert!(status.expect("iproute2").success(), "ip {arguments}");
            }
            let spread = sent(&tap);
            assert!(spread.iter().all(|&n| n > 0), "{spread:?}");
            forget_flows(tap.fds[0].as_fd()).expect("a program");
            let first = sent(&tap);
            // The host may have said something else of its own.
            assert!(first[0] >= 32 && first[1] == 0, "{first:?}");
        });
    }
}
