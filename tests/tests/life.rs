//! How a run ends and what it survives: signals, links that go and come, devices that are removed by
//! others, and SIGKILL.

use std::{
    fs,
    process::ExitCode,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tests::{
    Bench, Daemon, Need, Netns, Theme,
    bench::in_flight,
    capture::{self, Listening},
    daemon, frames,
    send::{Load, Sender},
    wait_until,
};

const ROOT: &[Need] = &[Need::Root];

/// How long the daemon may take to see what happened, on a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut theme = Theme::new();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        theme.test(format!("{signal}_under_load"), ROOT, move || {
            ends_under_load(|daemon| daemon.signal(signal));
        });
    }
    theme.test("dpctl_stop_under_load", ROOT, || {
        ends_under_load(|daemon| assert_eq!(daemon.dpctl_ok(&["stop"]), "stopped\n"));
    });
    theme.test("link_down_and_up", ROOT, || link_down_and_up(true));
    theme.test("carrier_lost_and_back", ROOT, || link_down_and_up(false));
    theme.test("interface_down_at_the_start", ROOT, down_at_the_start);
    theme.test(
        "interface_removed_and_made_anew",
        ROOT,
        removed_and_made_anew,
    );
    theme.test("sink_goes_down_under_load", ROOT, sink_goes_down);
    theme.test("ends_of_a_line_come_and_go", ROOT, ends_of_a_line);
    theme.test(
        "a_signal_hides_no_failure",
        &[Need::Root, Need::Tool("tcpdump")],
        a_signal_hides_no_failure,
    );
    theme.test("tap_removed_by_another", ROOT, tap_removed);
    theme.test("sigkill_twenty_times_under_load", ROOT, sigkill);
    theme.run()
}

/// A load that never ends, from the far end.
fn load(bench: &Bench) -> Load {
    Load::start(bench.sender(), frames::mixed(100, 1514))
}

/// A running daemon under load; with `count` frames received.
fn loaded(daemon: &Daemon, count: u64) {
    daemon.stats_when(LIMIT, |stats| daemon::port(stats, "up").rx.frames > count);
}

fn ends_under_load(end: impl FnOnce(&Daemon)) {
    let bench = Bench::new();
    let policy = "allow = [{ proto = \"udp\", ports = \"53\" }]";
    let daemon = bench.start("", Some(policy));
    let load = load(&bench);
    loaded(&daemon, 5_000);
    let asked = Instant::now();
    end(&daemon);
    let ended = daemon.wait(LIMIT);
    let took = asked.elapsed();
    // The load goes on all the while: nothing waits for a pause.
    drop(load);
    let stats = ended.explained();
    assert!(daemon::port(&stats, "lc0").tx.frames > 0);
    // The promise is a tenth of a second; a machine that does other things gets more.
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(
        !bench
            .inside
            .ip(&["-d", "link", "show", "up0"])
            .contains("xdp")
    );
    let gone = wait_until(Duration::from_secs(1), || !bench.inside.has_link("lc0"));
    assert!(gone, "lc0 is left");
}

/// Two interfaces feed lc0.
const TWO: &str = r#"
[ports.up]
kind = "af_xdp"
interface = "up0"
[ports.other]
kind = "af_xdp"
interface = "up1"
[ports.lc0]
kind = "tap"
[[pipelines]]
from = ["up", "other"]
to = ["lc0"]
"#;

fn is_up(daemon: &Daemon, port: &str, up: bool) {
    daemon.stats_when(LIMIT, |stats| daemon::port(stats, port).up == up);
}

/// Sends 100 frames and waits until `port` has received that many more and lc0 has written them.
fn arrives(daemon: &Daemon, sender: &Sender, port: &str) {
    let counts = |stats: &control::stats::Stats| {
        let of = |name| daemon::port(stats, name);
        (of(port).rx.forwarded, of("lc0").tx.frames)
    };
    let before = counts(&daemon.stats());
    sender.send(&frames::mixed(100, 1514));
    let stats = daemon.stats_when(LIMIT, |stats| {
        counts(stats) == (before.0 + 100, before.1 + 100)
    });
    daemon::assert_explained(&stats);
}

fn lines_with(daemon: &Daemon, words: &str) -> usize {
    let said = daemon.stderr();
    said.lines().filter(|line| line.contains(words)).count()
}

/// `ours`: our end is set down; else the peer's, so that ours loses its carrier.
fn link_down_and_up(ours: bool) {
    let bench = Bench::new();
    bench.inside.veth("up1", &bench.outside, "out1");
    let (ns, end) = if ours {
        (&bench.inside, "up0")
    } else {
        (&bench.outside, "out0")
    };
    let daemon = Daemon::start(&bench.inside, TWO);
    let (first, second) = (bench.sender(), Sender::open(&bench.outside, "out1"));
    arrives(&daemon, &first, "up");
    for round in 1..=3 {
        ns.ip(&["link", "set", end, "down"]);
        is_up(&daemon, "up", false);
        arrives(&daemon, &second, "other");
        ns.ip(&["link", "set", end, "up"]);
        is_up(&daemon, "up", true);
        arrives(&daemon, &first, "up");
        arrives(&daemon, &second, "other");
        assert_eq!(
            lines_with(&daemon, "up0 is down"),
            round,
            "{}",
            daemon.stderr()
        );
        assert_eq!(lines_with(&daemon, "port up is back"), round);
    }
    assert_eq!(lines_with(&daemon, "up1 is down"), 0);
    daemon.stop().explained();
}

/// A port whose interface has no carrier yet is taken up when it has.
fn down_at_the_start() {
    let bench = Bench::new();
    bench.inside.veth("up1", &bench.outside, "out1");
    bench.outside.ip(&["link", "set", "out0", "down"]);
    let mut daemon = Daemon::start(&bench.inside, TWO);
    daemon.wait_for("up0 has no carrier");
    arrives(&daemon, &Sender::open(&bench.outside, "out1"), "other");
    bench.outside.ip(&["link", "set", "out0", "up"]);
    is_up(&daemon, "up", true);
    arrives(&daemon, &bench.sender(), "up");
    daemon.stop().explained();
}

fn removed_and_made_anew() {
    let bench = Bench::new();
    bench.inside.veth("up1", &bench.outside, "out1");
    let daemon = Daemon::start(&bench.inside, TWO);
    let second = Sender::open(&bench.outside, "out1");
    for round in 1..=3 {
        arrives(&daemon, &bench.sender(), "up");
        bench.inside.ip(&["link", "del", "up0"]);
        is_up(&daemon, "up", false);
        arrives(&daemon, &second, "other");
        bench.inside.veth("up0", &bench.outside, "out0");
        is_up(&daemon, "up", true);
        assert_eq!(
            // A veth loses its carrier first.
            lines_with(&daemon, "up0 is down") + lines_with(&daemon, "up0 is gone"),
            round,
            "{}",
            daemon.stderr()
        );
    }
    arrives(&daemon, &bench.sender(), "up");
    arrives(&daemon, &second, "other");
    daemon.stop().explained();
}

/// What cannot leave is counted, and the other sink of the same frames gets all.
fn sink_goes_down() {
    let bench = Bench::new();
    bench.inside.veth("down0", &bench.outside, "end0");
    let daemon = Daemon::start(
        &bench.inside,
        r#"
[ports.up]
kind = "af_xdp"
interface = "up0"
[ports.down]
kind = "af_xdp"
interface = "down0"
[ports.lc0]
kind = "tap"
[[pipelines]]
from = ["up"]
to = ["down", "lc0"]
"#,
    );
    let load = load(&bench);
    loaded(&daemon, 2_000);
    bench.inside.ip(&["link", "set", "down0", "down"]);
    is_up(&daemon, "down", false);
    let link_down = |stats: &control::stats::Stats| {
        let dropped = &daemon::port(stats, "down").tx.dropped;
        dropped.get("link_down").copied().unwrap_or(0)
    };
    let at_first = daemon.stats();
    let later = daemon.stats_when(LIMIT, |stats| {
        link_down(stats) > link_down(&at_first) + 1_000
    });
    daemon::assert_explained(&later);
    let written = |stats: &control::stats::Stats, port| daemon::port(stats, port).tx.frames;
    assert!(written(&later, "lc0") > written(&at_first, "lc0"));
    bench.inside.ip(&["link", "set", "down0", "up"]);
    daemon.stats_when(LIMIT, |stats| {
        written(stats, "down") > written(&later, "down") + 1_000
    });
    load.stop();
    daemon.stats_when(LIMIT, |stats| in_flight(stats) == 0);
    let stats = daemon.stop().explained();
    let (down, up) = (daemon::port(&stats, "down"), daemon::port(&stats, "up"));
    assert_eq!(down.tx.offered, up.rx.forwarded);
}

/// Two interfaces that forward to each other share one memory: each goes and returns without the other, under
/// load, and no frame is ever copied for it.
fn ends_of_a_line() {
    let bench = Bench::new();
    bench.inside.veth("up1", &bench.outside, "out1");
    let daemon = Daemon::start(
        &bench.inside,
        r#"
[ports.up]
kind = "af_xdp"
interface = "up0"
[ports.other]
kind = "af_xdp"
interface = "up1"
[[pipelines]]
from = ["up"]
to = ["other"]
[[pipelines]]
from = ["other"]
to = ["up"]
"#,
    );
    let there = load(&bench);
    let back = Load::start(
        Sender::open(&bench.outside, "out1"),
        frames::mixed(100, 1514),
    );
    let passes = || {
        let before = daemon.stats();
        daemon.stats_when(LIMIT, |stats| {
            ["up", "other"].iter().all(|name| {
                let written = |stats| daemon::port(stats, name).tx.frames;
                written(stats) > written(&before) + 1_000
            })
        });
    };
    passes();
    for (port, link) in [
        ("up", "up0"),
        ("other", "up1"),
        ("other", "up1"),
        ("up", "up0"),
    ] {
        bench.inside.ip(&["link", "set", link, "down"]);
        is_up(&daemon, port, false);
        bench.inside.ip(&["link", "set", link, "up"]);
        is_up(&daemon, port, true);
        passes();
    }
    // Both at once: the memory of each waits for what the other's socket still holds of it.
    for state in ["down", "up"] {
        for link in ["up0", "up1"] {
            bench.inside.ip(&["link", "set", link, state]);
        }
        for port in ["up", "other"] {
            is_up(&daemon, port, state == "up");
        }
    }
    passes();
    // Removed and made anew.
    back.stop();
    bench.inside.ip(&["link", "del", "up1"]);
    is_up(&daemon, "other", false);
    bench.inside.veth("up1", &bench.outside, "out1");
    is_up(&daemon, "other", true);
    let back = Load::start(
        Sender::open(&bench.outside, "out1"),
        frames::mixed(100, 1514),
    );
    passes();
    there.stop();
    back.stop();
    daemon.stats_when(LIMIT, |stats| in_flight(stats) == 0);
    let stats = daemon.stop().explained();
    for port in ["up", "other"] {
        assert_eq!(daemon::port(&stats, port).tx.copied, 0, "{port} copied");
    }
}

/// A capture that is broken, and a signal while its devices stay for those who listen.
fn a_signal_hides_no_failure() {
    let ns = Netns::new();
    let folder = daemon::folder();
    let file = folder.path().join("broken.pcap");
    capture::write(&file, &frames::mixed(10, 600));
    let whole = fs::read(&file).expect("written");
    fs::write(&file, &whole[..whole.len() - 1]).expect("our own folder");
    let mut daemon = Daemon::start(
        &ns,
        &format!(
            r#"
[ports.sample]
kind = "pcap"
path = "{}"
[ports.lc0]
kind = "tap"
wait_for_consumer = "20s"
[[pipelines]]
from = ["sample"]
to = ["lc0"]
"#,
            file.display()
        ),
    );
    let listening = Listening::start(&ns, "lc0");
    daemon.wait_for("all sources have ended; devices stay");
    let ended = daemon.stop();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    drop(listening);
}

fn tap_removed() {
    let bench = Bench::new();
    let daemon = bench.start("", None);
    let load = load(&bench);
    loaded(&daemon, 1_000);
    bench.inside.ip(&["link", "del", "lc0"]);
    let ended = daemon.wait(LIMIT);
    drop(load);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let named = ended.stderr.lines().any(|line| line.contains("port lc0: "));
    assert!(named, "{}", ended.stderr);
    daemon::assert_explained(&ended.stats.expect("a summary"));
}

fn sigkill() {
    let bench = Bench::new();
    let load = load(&bench);
    for round in 0..20 {
        let mut daemon = bench.start("", None);
        // The lc0 of the round before is gone at once or the start says so.
        daemon.wait_for("port up: copy");
        loaded(&daemon, 500);
        daemon.signal(Signal::SIGKILL);
        assert_eq!(daemon.wait(LIMIT).code, None);
        let gone = wait_until(Duration::from_secs(1), || {
            let link = bench.inside.ip(&["-d", "link", "show", "up0"]);
            !link.contains("xdp") && !bench.inside.has_link("lc0")
        });
        assert!(gone, "round {round}: {}", bench.inside.ip(&["-d", "link"]));
    }
    assert!(load.stop() > 10_000);
    let daemon = bench.start("", None);
    let sent = 100;
    bench.sender().send(&frames::mixed(sent, 1514));
    daemon.stats_when(LIMIT, |stats| {
        daemon::port(stats, "lc0").tx.frames == u64::from(sent)
    });
    daemon.stop().explained();
}
