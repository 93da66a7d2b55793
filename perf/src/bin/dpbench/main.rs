//! `dpbench`: measures the dataplane beside what the machine can do, and makes traffic.

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cli::{
    Failure,
    all::{All, Page},
    bench::Bench,
    compare::Compare,
    generate::Generate,
};
use perf::{
    drop::Drop, forward::Forward, inline::Inline, latency::Latency, policy::Policy, replay::Replay,
    scale::Scale, vxlan::Vxlan,
};

/// Measures the dataplane beside what the machine can do and what others do, and makes traffic.
#[derive(Debug, Parser)]
#[command(
    name = "dpbench",
    version,
    after_help = "\
Examples:
  sudo dpbench forward                                     the full table, about a minute
  sudo dpbench forward --sizes 64 --json forward.json      one size, figures for machines as well
  sudo dpbench all --out docs/benchmarks                   everything, and one page with plots
  dpbench compare before.json forward.json                 which ratios became worse
  sudo dpbench generate --interface gen0 --count 1000000   a million frames, as fast as the kernel can

Build it and what it measures with optimisation: cargo build --release --bins. It works in network namespaces
of its own, which end with it.

Exit codes: 0 done, 1 something failed or became worse, 2 wrong usage, 3 the machine refuses, 130 interrupted."
)]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// AF_XDP -> policy -> TAP, in worker ns per frame, beside a bare loop and the TAP's own cost
    Forward(Bench<Forward>),
    /// AF_XDP -> policy -> AF_XDP between two veths, beside a bare loop and the kernel's bridge with nftables
    Inline(Bench<Inline>),
    /// One verdict, by number and kind of rules, beside sets; and replacing a policy under load
    Policy(Bench<Policy>),
    /// ns/frame over ports on one worker, and memory over slots, ports and rules
    Scale(Bench<Scale>),
    /// Capture file -> TAP at top speed, and how well a pace is kept, beside tcpreplay
    Replay(Bench<Replay>),
    /// Every benchmark in turn: reports, plots and one page of all
    All(All),
    /// The page of all benchmarks and their plots, from the reports that are there
    Page(Page),
    /// Which ratios became worse from one run to another; exit code 1 when any did
    Compare(Compare),
    /// Capture file -> VXLAN over UDP, beside a loop of send(2), and what UDP_SEGMENT gains
    Vxlan(Bench<Vxlan>),
    /// AF_XDP -> policy denies, nothing written, in worker ns per frame, beside a bare receive loop
    Drop(Bench<Drop>),
    /// Arrival to TAP, seen from outside, at 10, 50 and 90 % of the highest rate without loss
    Latency(Bench<Latency>),
    /// Pour frames into an interface, from one core
    Generate(Generate),
}

fn main() -> ExitCode {
    let done = match Command::parse().action {
        Action::Forward(bench) => bench.run(),
        Action::Inline(bench) => bench.run(),
        Action::Policy(bench) => bench.run(),
        Action::Scale(bench) => bench.run(),
        Action::Replay(bench) => bench.run(),
        Action::All(all) => all.run(),
        Action::Page(page) => page.run(),
        Action::Compare(compare) => compare.run(),
        Action::Vxlan(bench) => bench.run(),
        Action::Drop(bench) => bench.run(),
        Action::Latency(bench) => bench.run(),
        Action::Generate(generate) => generate.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, message)) => {
            eprintln!("dpbench: {message}");
            ExitCode::from(code)
        }
    }
}
