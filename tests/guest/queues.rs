//! Cards with several queues: each worker polls its own, flows spread over them, and nothing is lost or counted twice.

use std::{process::ExitCode, time::Duration};

use control::stats::Stats;
use tests::{
    Daemon, Need, Theme,
    bench::in_flight,
    capture::Listening,
    daemon,
    guest::{Card, Lane, card, fact, newest_has, pktgen::Pktgen},
};

const VIRTIO: &[Need] = &[
    Need::Root,
    Need::Card(card::NIC3),
    Need::Tool("ethtool"),
    Need::Tool("tcpdump"),
];
const IGB: &[Need] = &[
    Need::Root,
    Need::Card(card::IGB0),
    Need::Tool("ethtool"),
    Need::Tool("tcpdump"),
];

const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut theme = Theme::new();
    for queues in [2, 4] {
        theme.test(format!("virtio_{queues}"), VIRTIO, move || {
            spread(card::NIC3, card::GEN3, queues, "auto");
        });
        theme.test(format!("virtio_{queues}_copy"), VIRTIO, move || {
            spread(card::NIC3, card::GEN3, queues, "copy");
        });
    }
    theme.test("igb_4", IGB, || spread(card::IGB0, card::GEN2, 4, "auto"));
    theme.run()
}

/// 64 flows over so many queues, each on a worker of its own: all frames are there, and every worker has its share.
fn spread(nic: Card, sender: Card, queues: u32, mode: &str) {
    let lane = Lane::new(nic, sender);
    let combined = queues.to_string();
    let set = lane
        .inside
        .tool("ethtool")
        .args(["-L", nic.name, "combined", &combined])
        .output();
    let said = String::from_utf8_lossy(&set.stderr).into_owned();
    assert!(
        set.status.success() || said.contains("unmodified"),
        "{said}"
    );
    // By addresses alone, flows that differ in their ports are one.
    lane.inside
        .tool("ethtool")
        .args(["-N", nic.name, "rx-flow-hash", "udp4", "sdfn"])
        .output();
    let cores: Vec<String> = (0..queues).map(|core| core.to_string()).collect();
    let preamble = |socket: &std::path::Path| {
        format!(
            "[engine]\ncores = \"{}\"\nhugepages = \"off\"\n[control]\nsocket = \"{}\"\n",
            cores.join(","),
            socket.display()
        )
    };
    let config = lane.config(&format!("mode = \"{mode}\""), None);
    let daemon = Daemon::spawn_in(&lane.inside, daemon::folder(), &config, preamble).ready();
    let granted = daemon::port(&daemon.stats(), "up").mode.clone();
    assert!(mode == "auto" || granted == mode, "{granted}");
    // Paced: what a real card with several queues has no room for, it drops.
    let sent = Pktgen {
        count: 8_000,
        length: 128,
        flows: 64,
        rate: 2_000,
        ..Pktgen::default()
    };
    let listening = Listening::start(&lane.inside, "lc0");
    sent.send(&lane);
    let all = |stats: &Stats| {
        daemon::port(stats, "up").rx.frames >= u64::from(sent.count) && in_flight(stats) == 0
    };
    let stats = daemon.stats_when(LIMIT, all);
    daemon::assert_explained(&stats);
    listening.wait_for(sent.count as usize, LIMIT);
    // Queues have no common order.
    sent.assert_all(&lane, &listening.finish(), usize::MAX);
    let workers: Vec<u64> = stats
        .workers
        .iter()
        .map(|worker| worker.residence_ns.count)
        .collect();
    assert_eq!(workers.len(), queues as usize);
    let stats = daemon.stop().explained();
    assert_eq!(
        daemon::port(&stats, "up").rx.frames,
        u64::from(sent.count),
        "{stats:#?}"
    );
    assert_eq!(
        daemon::port(&stats, "lc0").tx.frames,
        u64::from(sent.count),
        "{stats:#?}"
    );
    assert_eq!(
        workers.iter().sum::<u64>(),
        u64::from(sent.count),
        "{workers:?}"
    );
    // A queue of 64 flows that has less than a sixteenth of them is as good as none.
    let least = u64::from(sent.count) / u64::from(queues) / 4;
    assert!(
        workers.iter().all(|&frames| frames > least),
        "spread over workers: {workers:?}"
    );
    let driver = if nic == card::IGB0 {
        "igb"
    } else {
        "virtio-net"
    };
    if mode == "auto" {
        // igb copies in slots of this size.
        newest_has(
            driver == "igb" || granted == "zero-copy",
            "zero-copy on several queues",
        );
        fact(
            &format!("{queues} queues of {driver}, a worker each"),
            &format!("yes ({granted})"),
        );
    }
}
