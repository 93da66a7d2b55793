//! The kernel's own way to feed a listener: a filter at the ingress of the interface (clsact, u32) that copies
//! what matches into a veth (mirred), whose far end is listened on.
//!
//! All of it runs where the frames arrive, which is the core of the generator. What it takes there is the
//! time of that core for a frame, less the time for a frame that is dropped at arrival.

use std::{process::Command, time::Duration};

use control::{
    kernel::{
        passive::PassiveIngress,
        xdp::{Unclaimed, XdpChoice, XdpMode, XdpOptions, XdpProgram},
    },
    link::NetNs,
};

use super::raw_socket::pass;
use crate::{
    error::BenchError,
    generator::{Traffic, frame},
    interface::Counters,
    lab::{self, Interrupt, UPLINK},
    load::send,
    measure::Measured,
};

const PEER: &str = "kernel clone";
/// What is copied into, and what is listened on.
const NEAR: &str = "near0";
const FAR: &str = "far0";

/// What the kernel's clone needs and is not there, with the way to it.
pub(crate) fn missing() -> Option<&'static str> {
    match Command::new("tc").arg("-V").output() {
        Ok(_) => None,
        Err(_) => Some(
            "tc is not installed, so the kernel's clone was left out: apt-get install iproute2",
        ),
    }
}

/// Has the kernel clone the traffic for `time`, and drop it for a fifth of it.
pub(crate) fn measure(
    traffic: &Traffic,
    time: Duration,
    interrupt: &Interrupt,
) -> Result<Measured, BenchError> {
    let options = XdpOptions {
        mode: XdpChoice::Only(XdpMode::Native),
        queues: 1,
        unclaimed: Unclaimed::Drop,
    };
    let drop_all = XdpProgram::attach(&NetNs::own(), UPLINK, &options)
        .map_err(|e| BenchError::peer(PEER, e))?;
    let run = |time| send(&NetNs::own(), traffic.clone(), time, interrupt);
    let alone = run(time / 5)?;
    drop(drop_all);

    let _program = pass(PEER)?;
    let _setup = Setup::make()?;
    let before = received()?;
    let sent = run(time)?;
    let frames = received()? - before;
    let of_generator = alone.elapsed.as_secs_f64() / alone.frames.max(1) as f64;
    let all = sent.elapsed.as_secs_f64();
    Ok(Measured {
        frames,
        cpu: Duration::from_secs_f64((all - of_generator * sent.frames as f64).max(0.0)),
        elapsed: sent.elapsed,
    })
}

/// The pair and the filter; both go with it.
struct Setup {
    _passive: PassiveIngress,
}

impl Setup {
    fn make() -> Result<Self, BenchError> {
        lab::ip(&["link", "add", NEAR, "type", "veth", "peer", "name", FAR])?;
        for end in [NEAR, FAR] {
            lab::ip(&["link", "set", end, "arp", "off", "up"])?;
        }
        // As the TAP of the others: the host's stack does not get what listeners get.
        let passive =
            PassiveIngress::attach(&NetNs::own(), FAR).map_err(|e| BenchError::peer(PEER, e))?;
        let setup = Self { _passive: passive };
        tc(&["qdisc", "add", "dev", UPLINK, "clsact"])?;
        let to = frame::TO.to_string();
        let port = frame::TO_PORT.to_string();
        tc(&[
            "filter", "add", "dev", UPLINK, "ingress", "protocol", "ip", "prio", "1", "u32",
            "match", "ip", "protocol", "17", "0xff", "match", "ip", "dst", &to, "match", "ip",
            "dport", &port, "0xffff", "action", "mirred", "egress", "mirror", "dev", NEAR,
        ])?;
        Ok(setup)
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        let _ = tc(&["qdisc", "del", "dev", UPLINK, "clsact"]);
        let _ = lab::ip(&["link", "del", NEAR]);
    }
}

fn tc(arguments: &[&str]) -> Result<(), BenchError> {
    let command = || format!("tc {}", arguments.join(" "));
    let output = Command::new("tc")
        .args(arguments)
        .output()
        .map_err(|e| BenchError::peer(PEER, format!("{}: {e}", command())))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let message = format!(
        "{}: {}; it needs a kernel with clsact, u32 and mirred",
        command(),
        said.trim()
    );
    Err(BenchError::peer(PEER, message))
}

/// Frames that the far end has received.
fn received() -> Result<u64, BenchError> {
    Ok(Counters::of(FAR)?.received)
}
