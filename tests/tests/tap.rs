//! TAP -> policy -> TAP: what the host sends into a device of ours is received in order, judged, and
//! heard on lc0 byte for byte.

use std::{process::ExitCode, time::Duration};

use tests::{
    Need, Netns, Theme,
    bench::in_flight,
    capture::{self, Listening},
    daemon::{self, Daemon},
    frames,
    send::Sender,
};

const LISTEN: &[Need] = &[Need::Root, Need::Tool("tcpdump")];

/// How long frames may take through a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut theme = Theme::new();
    theme.test("what_the_host_sends_is_judged", LISTEN, judged);
    theme.run()
}

fn judged() {
    let ns = Netns::new();
    let daemon = Daemon::start(
        &ns,
        r#"
        [ports.in0]
        kind = "tap"
        [ports.lc0]
        kind = "tap"
        [policies.p]
        arp = false
        allow = [{ proto = "udp", to = "10.0.0.2", ports = "53" }]
        [[pipelines]]
        from = ["in0"]
        policy = "p"
        to = ["lc0"]
        "#,
    );
    let listening = Listening::start(&ns, "lc0");
    let allowed = frames::mixed(200, 1514);
    let denied: Vec<_> = (0..100).map(|n| frames::udp(n, 5353, 200)).collect();
    let sender = Sender::open(&ns, "in0");
    for (two, one) in allowed.chunks(2).zip(&denied) {
        sender.send(two);
        sender.send(std::slice::from_ref(one));
    }
    // The host's own IPv6 speaks there as well, and is denied.
    let stats = daemon.stats_when(LIMIT, |stats| {
        let pipeline = &stats.pipelines[0];
        pipeline.received >= 300 && pipeline.forwarded == 200 && in_flight(stats) == 0
    });
    daemon::assert_explained(&stats);
    assert!(stats.pipelines[0].dropped.values().sum::<u64>() >= 100);
    assert_eq!(daemon::port(&stats, "lc0").tx.frames, 200);
    listening.wait_for(200, LIMIT);
    daemon.stop().explained();
    capture::assert_same(&listening.after_the_device(), &allowed);
}
