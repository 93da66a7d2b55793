//! `dpbench generate`: traffic from one core, without measuring anything.

use std::{
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use control::link::NetNs;
use perf::{
    generator::{Generator, MAX_FLOWS, Traffic, frame},
    lab::{self, Interrupt},
};

use super::Failure;

/// What to send, where and how long.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("amount").required(true))]
pub(crate) struct Generate {
    /// Where frames leave. The peer of a veth needs an XDP program or GRO, or it takes none
    #[arg(long, value_name = "IF")]
    interface: String,
    /// The interface's network namespace [default: this one]
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// Bytes of a frame, without the check sequence
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = size)]
    size: usize,
    /// Lengths in turn instead: 7 of 60 bytes, 4 of 590 and 1 of 1,514, on a wire 64, 594 and 1,518
    #[arg(long, conflicts_with = "size")]
    imix: bool,
    /// Flows in turn, from 10.9.0.0/16 and 4,096 ports of each address [default: 1, from 10.9.0.1:40000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_FLOWS)))]
    flows: Option<u32>,
    /// How many frames
    #[arg(long, value_name = "N", group = "amount", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// How long, in seconds
    #[arg(long, value_name = "S", group = "amount", value_parser = seconds)]
    seconds: Option<Duration>,
    /// Frames a second [default: as many as the kernel can]
    #[arg(long, value_name = "PPS", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// The core that makes them
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    core: usize,
}

fn size(text: &str) -> Result<usize, String> {
    frame::size(text, 60..=3400)
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .filter(|s| *s > 0.0)
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .ok_or_else(|| "must be a positive number of seconds".into())
}

impl Generate {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        lab::require_root()?;
        let refused = |error: &dyn std::fmt::Display| Failure(3, error.to_string());
        let ns = NetNs::open_or_own(self.netns.as_deref()).map_err(|e| refused(&e))?;
        let interrupt = Interrupt::watch()?;
        let mut traffic = if self.imix {
            Traffic::imix(self.core)
        } else {
            Traffic::of(frame::udp(self.size), self.core)
        };
        traffic.count = self.count;
        traffic.rate = self.rate;
        traffic.vary.flows = self.flows.unwrap_or(0);
        let described = traffic.clone();
        let generator = Generator::start(&ns, &self.interface, traffic).map_err(|e| refused(&e))?;
        let deadline = self.seconds.map(|time| Instant::now() + time);
        while !interrupt.is_set()
            && !generator.is_finished()
            && deadline.is_none_or(|end| Instant::now() < end)
            && self.count.is_none_or(|n| generator.progress().sent < n)
        {
            thread::sleep(Duration::from_millis(2));
        }
        let sent = generator.stop().map_err(|e| refused(&e))?;
        let seconds = sent.elapsed.as_secs_f64().max(1e-9);
        let bytes = described.bytes(sent.frames) as f64;
        println!(
            "{} frames of {} bytes in {seconds:.3} s: {:.3} Mframes/s, {:.3} Gbit/s",
            sent.frames,
            if self.imix {
                "60, 590 and 1514".into()
            } else {
                self.size.to_string()
            },
            sent.frames as f64 / seconds / 1e6,
            bytes * 8.0 / seconds / 1e9
        );
        // What was sent by then is told all the same.
        Ok(interrupt.check()?)
    }
}
