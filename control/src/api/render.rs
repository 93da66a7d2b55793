//! Answers as tables for a terminal: plain text, a line a thing, widths of their own, whether or not
//! anybody looks. Escape sequences in what others named (a process, a file) do not come through.

use std::{collections::BTreeMap, fmt::Write as _};

pub use super::table::clean;
use super::{
    protocol::PortInfo,
    table::Table,
    units::{bytes, count, nanoseconds, uptime},
};
use crate::stats::{self, PortStats, Stats, check_laws};

/// How many columns a table of texts takes; numbers take what they need.
const COLUMNS: usize = 100;

/// All counters on one screen. With an earlier reading, rates over the time between the two.
pub fn stats(now: &Stats, before: Option<&Stats>) -> String {
    // A daemon that started again in between counts from zero: that is no rate.
    let before = before.filter(|before| before.uptime_s < now.uptime_s);
    let mut screen = format!(
        "dataplane up {}, policy generation {}\n",
        uptime(now.uptime_s),
        now.generation
    );
    let tables = [
        ports_table(now, before),
        pipelines_table(now, before),
        drops_table(now, before),
        beside_table(now),
        workers_table(now),
    ];
    for table in tables.iter().filter(|table| table.rows.len() > 1) {
        screen.push('\n');
        screen.push_str(&table.print());
    }
    if let Err(broken) = check_laws(now) {
        let _ = write!(
            screen,
            "\nwarning: the counters do not explain every frame: {}\n",
            clean(&broken)
        );
    }
    screen
}

fn ports_table(now: &Stats, before: Option<&Stats>) -> Table {
    let rates = before.is_some();
    let mut table = Table::new(if rates {
        "PORT KIND MODE STATE >RX >RX/S >RX_BIT/S >DROPPED >TX >TX/S >TX_BIT/S >DROPPED"
    } else {
        "PORT KIND MODE STATE >RX >BYTES >FORWARDED >DROPPED >TX >BYTES >DROPPED"
    });
    for (name, port) in &now.ports {
        let mut row = vec![
            name.clone(),
            port.kind.clone(),
            or_dash(&port.mode),
            if port.up { "up" } else { "DOWN" }.to_owned(),
        ];
        let (rx_dropped, tx_dropped) = (total(&port.rx.dropped), total(&port.tx.dropped));
        if let Some(before) = before {
            let rate = |of: fn(&PortStats) -> u64| {
                let was = before.ports.get(name).map_or(0, of);
                rate(of(port), was, now, before)
            };
            row.extend([
                count(port.rx.frames),
                count(rate(|port| port.rx.frames)),
                count(rate(|port| port.rx.bytes).saturating_mul(8)),
                count(rx_dropped),
                count(port.tx.frames),
                count(rate(|port| port.tx.frames)),
                count(rate(|port| port.tx.bytes).saturating_mul(8)),
                count(tx_dropped),
            ]);
        } else {
            row.extend([
                count(port.rx.frames),
                bytes(port.rx.bytes),
                count(port.rx.forwarded),
                count(rx_dropped),
                count(port.tx.frames),
                bytes(port.tx.bytes),
                count(tx_dropped),
            ]);
        }
        table.rows.push(row);
    }
    table
}

fn pipelines_table(now: &Stats, before: Option<&Stats>) -> Table {
    let mut table = Table::new(if before.is_some() {
        "PIPELINE POLICY >RECEIVED >PER_S >FORWARDED >PER_S >DROPPED >IN_FLIGHT"
    } else {
        "PIPELINE POLICY >RECEIVED >JUDGED >FORWARDED >DROPPED >IN_FLIGHT"
    });
    for (i, line) in now.pipelines.iter().enumerate() {
        let mut row = vec![
            line.name(),
            or_dash(line.policy.as_deref().unwrap_or_default()),
            count(line.received),
        ];
        if let Some(before) = before {
            let was = before.pipelines.get(i).cloned().unwrap_or_default();
            row.extend([
                count(rate(line.received, was.received, now, before)),
                count(line.forwarded),
                count(rate(line.forwarded, was.forwarded, now, before)),
            ]);
        } else {
            row.extend([count(line.judged), count(line.forwarded)]);
        }
        row.extend([count(total(&line.dropped)), count(line.in_flight)]);
        table.rows.push(row);
    }
    table
}

fn drops_table(now: &Stats, before: Option<&Stats>) -> Table {
    let mut table = Table::new(if before.is_some() {
        "DROPPED_AT REASON >FRAMES >PER_S"
    } else {
        "DROPPED_AT REASON >FRAMES"
    });
    for (name, port) in &now.ports {
        let was = before.and_then(|before| before.ports.get(name));
        let sides = [
            ("rx", &port.rx.dropped, was.map(|was| &was.rx.dropped)),
            ("tx", &port.tx.dropped, was.map(|was| &was.tx.dropped)),
        ];
        for (side, dropped, was) in sides {
            for (reason, &n) in dropped.iter().filter(|&(_, &n)| n > 0) {
                let mut row = vec![format!("{name} {side}"), reason.clone(), count(n)];
                if let Some(before) = before {
                    let was = was.and_then(|was| was.get(reason)).copied();
                    row.push(count(rate(n, was.unwrap_or(0), now, before)));
                }
                table.rows.push(row);
            }
        }
    }
    table
}

fn beside_table(now: &Stats) -> Table {
    let mut table = Table::new("PORT ALSO_COUNTED >NUMBER");
    for (name, port) in &now.ports {
        let ours = [
            ("checksums_finished", port.checksums_finished),
            ("tx kicks", port.tx.kicks),
            ("tx copied", port.tx.copied),
            ("tx trains", port.tx.trains),
        ];
        let kernel = port.kernel.iter().map(|(what, &n)| (what.as_str(), n));
        let ours = ours.into_iter().map(|(what, n)| (what.to_owned(), n));
        let kernel = kernel.map(|(what, n)| (format!("kernel {what}"), n));
        for (what, n) in ours.chain(kernel).filter(|&(_, n)| n > 0) {
            table.rows.push(vec![name.clone(), what, count(n)]);
        }
    }
    table
}

fn workers_table(now: &Stats) -> Table {
    let mut table = Table::new("CORE >BUSY >SLOTS_FREE >OF >P50 >P90 >P99 >P99.9 >MAX >FRAMES");
    for worker in &now.workers {
        let residence = &worker.residence_ns;
        table.rows.push(vec![
            worker.core.to_string(),
            format!("{:.0} %", worker.busy * 100.0),
            worker.slots_free.to_string(),
            worker.slots_total.to_string(),
            nanoseconds(residence.p50),
            nanoseconds(residence.p90),
            nanoseconds(residence.p99),
            nanoseconds(residence.p999),
            nanoseconds(residence.max),
            count(residence.count),
        ]);
    }
    table
}

/// What the ports are, and who listens on them.
pub fn ports(ports: &[PortInfo]) -> String {
    let mut table =
        Table::new("PORT KIND INTERFACE NETNS MODE STATE >MTU CORE:QUEUE BACKING LISTENERS");
    for port in ports {
        let dash = |text: &Option<String>| or_dash(text.as_deref().unwrap_or_default());
        table.rows.push(vec![
            port.name.clone(),
            port.kind.clone(),
            dash(&port.interface),
            dash(&port.netns),
            dash(&port.mode),
            if port.up { "up" } else { "DOWN" }.to_owned(),
            or_dash(&port.mtu.map(|mtu| mtu.to_string()).unwrap_or_default()),
            or_dash(&cores(port)),
            dash(&port.backing),
            or_dash(&listeners(port)),
        ]);
    }
    table.print_within(COLUMNS)
}

/// `2:0 3:1` when cores poll queues, else `2 3`.
fn cores(port: &PortInfo) -> String {
    let cores = port.cores.iter().enumerate().map(|(i, core)| {
        let queue = port.queues.get(i);
        queue.map_or_else(|| core.to_string(), |queue| format!("{core}:{queue}"))
    });
    cores.collect::<Vec<_>>().join(" ")
}

fn listeners(port: &PortInfo) -> String {
    if port.listeners.is_empty() && !port.listening.is_empty() {
        return format!("{} sockets, not yours to see", port.listening.len());
    }
    let listeners = port
        .listeners
        .iter()
        .map(|listener| format!("{} ({})", listener.name, listener.pid));
    listeners.collect::<Vec<_>>().join(", ")
}

/// What became of all frames in one line, where tables would be in the way.
pub fn in_a_line(now: &Stats) -> String {
    let (mut received, mut written) = (0, 0);
    let mut dropped = BTreeMap::new();
    for port in now.ports.values() {
        received += port.rx.frames;
        written += port.tx.frames;
        for (reason, n) in port.rx.dropped.iter().chain(&port.tx.dropped) {
            *dropped.entry(reason).or_insert(0) += n;
        }
    }
    let mut text = format!("{received} frames received, {written} written");
    let mut sign = ", dropped: ";
    for (reason, n) in dropped.into_iter().filter(|&(_, n)| n > 0) {
        let _ = write!(text, "{sign}{n} {reason}");
        sign = ", ";
    }
    text
}

fn total(dropped: &stats::Dropped) -> u64 {
    u64::try_from(stats::total(dropped)).unwrap_or(u64::MAX)
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

/// How many a second between two readings; zero when a counter went back.
fn rate(now: u64, was: u64, at: &Stats, before: &Stats) -> u64 {
    let seconds = at.uptime_s - before.uptime_s;
    // Float to integer saturates, and a NaN from a strange clock becomes zero.
    (now.saturating_sub(was) as f64 / seconds).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::protocol::Listener,
        stats::{PipelineStats, Residence, WorkerStats},
    };

    fn reading() -> Stats {
        let mut stats = Stats::new(3723.0, 3);
        let mut uplink = PortStats::new("af_xdp", "copy", true);
        uplink.rx.frames = 1_234_567;
        uplink.rx.bytes = 98_765_432;
        uplink.rx.forwarded = 1_234_555;
        uplink.rx.dropped.insert("not_allowed".into(), 9);
        uplink.rx.dropped.insert("kernel_full".into(), 3);
        uplink.kernel.insert("rx_dropped".into(), 3);
        uplink.kernel.insert("rx_ring_full".into(), 0);
        uplink.checksums_finished = 12;
        let mut lc0 = PortStats::new("tap", "", false);
        lc0.tx.offered = 1_234_555;
        lc0.tx.frames = 1_234_550;
        lc0.tx.bytes = 98_765_000;
        lc0.tx.dropped.insert("sink_full".into(), 5);
        stats.ports.insert("uplink".into(), uplink);
        stats.ports.insert("lc0".into(), lc0);
        let mut line = PipelineStats::new(
            vec!["uplink".into()],
            vec!["lc0".into()],
            Some("web".into()),
        );
        line.received = 1_234_564;
        line.judged = 1_234_564;
        line.forwarded = 1_234_555;
        line.dropped.insert("not_allowed".into(), 9);
        stats.pipelines.push(line);
        stats.workers.push(WorkerStats {
            core: 2,
            busy: 0.374,
            slots_total: 8192,
            slots_free: 8000,
            residence_ns: Residence {
                p50: 900,
                p90: 1_500,
                p99: 12_345,
                p999: 123_456,
                max: 2_000_000_000,
                count: 19_290,
            },
        });
        stats
    }

    #[test]
    fn a_reading_is_one_screen() {
        let expected = "\
dataplane up 1h 02m 03s, policy generation 3

PORT    KIND    MODE  STATE     RX    BYTES  FORWARDED  DROPPED     TX    BYTES  DROPPED
lc0     tap     -     DOWN       0      0 B          0        0  1.23M  98.8 MB        5
uplink  af_xdp  copy  up     1.23M  98.8 MB      1.23M       12      0      0 B        0

PIPELINE       POLICY  RECEIVED  JUDGED  FORWARDED  DROPPED  IN FLIGHT
uplink -> lc0  web        1.23M   1.23M      1.23M        9          0

DROPPED AT  REASON       FRAMES
lc0 tx      sink_full         5
uplink rx   kernel_full       3
uplink rx   not_allowed       9

PORT    ALSO COUNTED        NUMBER
uplink  checksums_finished      12
uplink  kernel rx_dropped        3

CORE  BUSY  SLOTS FREE    OF     P50      P90      P99   P99.9     MAX  FRAMES
2     37 %        8000  8192  900 ns  1.50 µs  12.3 µs  123 µs  2.00 s   19.3k
";
        assert_eq!(stats(&reading(), None), expected);
    }

    #[test]
    fn a_second_reading_gives_rates() {
        let before = reading();
        let mut now = reading();
        now.uptime_s += 2.0;
        let uplink = now.ports.get_mut("uplink").unwrap();
        uplink.rx.frames += 4_000_000;
        uplink.rx.bytes += 256_000_000;
        uplink.rx.forwarded += 3_999_000;
        *uplink.rx.dropped.get_mut("not_allowed").unwrap() += 1000;
        now.pipelines[0].received += 4_000_000;
        now.pipelines[0].judged += 4_000_000;
        now.pipelines[0].forwarded += 3_999_000;
        *now.pipelines[0].dropped.get_mut("not_allowed").unwrap() += 1000;
        let screen = stats(&now, Some(&before));
        let shown: Vec<&str> = screen.lines().skip(2).take(11).collect();
        let expected = "\
PORT    KIND    MODE  STATE     RX   RX/S  RX BIT/S  DROPPED     TX  TX/S  TX BIT/S  DROPPED
lc0     tap     -     DOWN       0      0         0        0  1.23M     0         0        5
uplink  af_xdp  copy  up     5.23M  2.00M     1.02G     1012      0     0         0        0

PIPELINE       POLICY  RECEIVED  PER S  FORWARDED  PER S  DROPPED  IN FLIGHT
uplink -> lc0  web        5.23M  2.00M      5.23M  2.00M     1009          0

DROPPED AT  REASON       FRAMES  PER S
lc0 tx      sink_full         5      0
uplink rx   kernel_full       3      0
uplink rx   not_allowed    1009    500";
        assert_eq!(shown.join("\n").trim_end(), expected);
    }

    #[test]
    fn a_daemon_that_started_again_has_no_rates() {
        let mut now = reading();
        now.uptime_s = 1.0;
        assert_eq!(stats(&now, Some(&reading())), stats(&now, None));
    }

    #[test]
    fn a_broken_law_is_shown() {
        let mut broken = reading();
        broken.ports.get_mut("lc0").unwrap().tx.frames -= 1;
        let screen = stats(&broken, None);
        assert!(screen.ends_with(
            "\nwarning: the counters do not explain every frame: port lc0 tx: 1234555 frames came, \
             1234554 are explained (1234549 went, 5 dropped, 0 in flight)\n"
        ));
    }

    #[test]
    fn nothing_is_a_screen_too() {
        let nothing = stats(&Stats::new(0.0, 0), None);
        assert_eq!(nothing, "dataplane up 0s, policy generation 0\n");
    }

    #[test]
    fn ports_show_cores_and_listeners() {
        let shown = ports(&[
            PortInfo {
                name: "uplink".into(),
                kind: "af_xdp".into(),
                interface: Some("eth0".into()),
                mode: Some("zero-copy".into()),
                cores: vec![2, 3],
                queues: vec![0, 1],
                up: true,
                mtu: Some(1500),
                backing: Some("2 MiB pages".into()),
                ..PortInfo::default()
            },
            PortInfo {
                name: "lc0".into(),
                kind: "tap".into(),
                interface: Some("lc0".into()),
                netns: Some("ids".into()),
                cores: vec![2, 3],
                up: false,
                listeners: vec![
                    Listener {
                        pid: 812,
                        name: "Suricata-Main".into(),
                    },
                    Listener {
                        pid: 900,
                        name: "\u{1b}[2Jevil".into(),
                    },
                ],
                ..PortInfo::default()
            },
        ]);
        let expected = "\
PORT    KIND    INTERFACE  NETNS  MODE       STATE   MTU  CORE:QUEUE  BACKING      LISTENERS
uplink  af_xdp  eth0       -      zero-copy  up     1500  2:0 3:1     2 MiB pages  -
lc0     tap     lc0        ids    -          DOWN      -  2 3         -            Suricata-Main
                                                                                   (812), ?[2Jevil
                                                                                   (900)
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn ports_fit_into_a_terminal() {
        let long = PortInfo {
            name: "host".into(),
            kind: "af_packet".into(),
            interface: Some("/a/path".repeat(30)),
            mode: Some("tpacket_v3 promiscuous fanout 12345".into()),
            cores: (0..16).collect(),
            ..PortInfo::default()
        };
        let shown = ports(&[long]);
        let widest = shown.lines().map(|line| line.chars().count()).max();
        assert_eq!(widest, Some(COLUMNS), "{shown}");
        let texts = shown.split_whitespace().collect::<String>();
        assert!(texts.contains("fanout"), "{shown}");
    }
}
