//! A policy that is replaced in the shipped product while frames pass through it.

use std::{
    fmt::Write,
    thread,
    time::{Duration, Instant},
};

use control::{
    api::protocol::{Applied, Request},
    link::NetNs,
    stats::Stats,
};

use super::rules::{self, Kind};
use crate::{
    configuration,
    error::BenchError,
    generator::{Generator, Traffic, frame},
    lab::SOURCE,
    product::Product,
    session::Session,
};

/// How long frames pass before and after the change.
const AROUND: Duration = Duration::from_millis(100);

/// What a change took and cost.
pub(super) struct Swap {
    /// From the rules, read, until every worker judges by them.
    pub(super) rebuild_and_swap: Duration,
    /// Of that, from publishing them.
    pub(super) swap: Duration,
    /// From the request until its answer, reading the text included.
    pub(super) request: Duration,
    /// Frames that were sent and did not come out.
    pub(super) lost: u64,
    /// Frames that came out.
    pub(super) written: u64,
}

/// The text that a policy is replaced by: the rules, and one for the frames that pass.
pub(super) fn text(count: usize) -> String {
    let mut text = String::from("allow=[\n");
    for rule in rules::rules(Kind::Exact, count.saturating_sub(1)) {
        let (Some(to), Some(ports)) = (rule.to, rule.to_ports.first()) else {
            continue;
        };
        let _ = writeln!(
            text,
            r#"{{proto="tcp",to="{}",ports="{}"}},"#,
            to.addr(),
            ports.first
        );
    }
    let (from, to, port) = (frame::FROM, frame::TO, frame::TO_PORT);
    let _ = write!(
        text,
        "{{proto=\"udp\",from=\"{from}\",to=\"{to}\",ports=\"{port}\"}},\n]\n"
    );
    text
}

/// Starts the product with ten rules, sends frames through it at `rate`, and has it replace these by `text`.
pub(super) fn measure(session: &Session<'_>, text: &str, rate: u64) -> Result<Swap, BenchError> {
    let cores = session.cores;
    let interrupt = &session.interrupt;
    let product = Product::start(&dp_toml(session), interrupt)?;
    let written = |stats: &Stats| stats.ports.get("lc0").map_or(0, |lc0| lc0.tx.frames);
    let (_, before) = product.at_rest(cores.worker, interrupt)?;
    let traffic = Traffic {
        rate: Some(rate),
        ..Traffic::of(frame::udp(64), cores.generator)
    };
    let generator = Generator::start(&NetNs::own(), SOURCE, traffic)?;
    while generator.progress().sent == 0 && !generator.is_finished() {
        interrupt.check()?;
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(AROUND);
    let began = Instant::now();
    let applied: Applied = product.call(&Request::PolicyReplace {
        name: "bench".into(),
        rules: text.into(),
    })?;
    let request = began.elapsed();
    thread::sleep(AROUND);
    let sent = generator.stop()?;
    let (_, after) = product.at_rest(cores.worker, interrupt)?;
    product.stop()?;
    let written = written(&after) - written(&before);
    let swap = Duration::from_micros(applied.acknowledged_us);
    Ok(Swap {
        rebuild_and_swap: Duration::from_micros(applied.rebuilt_us) + swap,
        swap,
        request,
        lost: sent.frames.saturating_sub(written),
        written,
    })
}

fn dp_toml(session: &Session<'_>) -> String {
    let rules = configuration::ten_rules();
    configuration::uplink_to_lc0(session.cores.worker, session.hugepages, None, &rules)
}
