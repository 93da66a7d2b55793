//! Datagrams of one size out of a connected UDP socket: one call for each, or one call for a train of them that
//! the kernel (or a card) takes apart (UDP_SEGMENT, Linux 4.18).

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use control::link::{NetNs, netns::on_core_in_netns};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};

use crate::{
    error::BenchError,
    lab::{Cores, Interrupt},
    measure::{Measured, Stopwatch},
};

/// Between two looks at the clock.
const BATCH: u64 = 64;

/// What one UDP datagram holds at most, over IPv4.
const LONGEST: usize = 65_507;

/// How the datagrams are handed to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    /// send(2) for each.
    Each,
    /// send(2) for as many as fit, at most 64 (UDP_MAX_SEGMENTS until Linux 6.8).
    Train,
}

/// Sends `datagram` again and again for a while. Answers with how many were sent.
pub(crate) fn measure(
    cores: Cores,
    to: SocketAddr,
    datagram: &[u8],
    calls: Calls,
    length: Duration,
    interrupt: &Interrupt,
) -> Result<Measured, BenchError> {
    let failed = |error: std::io::Error| {
        BenchError::peer("sendto loop", format!("to {to}: {error} (ip route get)"))
    };
    on_core_in_netns(cores.worker, &NetNs::own(), || {
        let socket = UdpSocket::bind("0.0.0.0:0").map_err(failed)?;
        socket.connect(to).map_err(failed)?;
        let mut bytes = datagram.to_vec();
        let train = match calls {
            Calls::Each => 1,
            Calls::Train => (LONGEST / datagram.len()).min(64),
        };
        if calls == Calls::Train {
            bytes = datagram.repeat(train);
            setsockopt(&socket, UdpGsoSegment, &(datagram.len() as i32))
                .map_err(|errno| failed(errno.into()))?;
        }
        let train = train as u64;
        let mut sent = 0;
        let end = Instant::now() + length;
        let stopwatch = Stopwatch::start();
        while Instant::now() < end {
            for _ in 0..BATCH.div_ceil(train) {
                socket.send(&bytes).map_err(failed)?;
                sent += train;
            }
            interrupt.check()?;
        }
        Ok(stopwatch.stop(sent))
    })?
}
