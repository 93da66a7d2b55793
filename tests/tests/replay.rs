//! Capture file -> TAP: what a listener on the device hears is what the file holds.

use std::{fs, path::Path, process::ExitCode, time::Duration};

use control::stats::Stats;
use tests::{
    Daemon, Need, Netns, Theme,
    capture::{self, ETHERNET, Endian, Format, Listening, Packing},
    daemon, frames, needs, wait_until,
};

const LISTEN: &[Need] = &[Need::Root, Need::Tool("tcpdump")];

/// How long a replay may take.
const LIMIT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let mut theme = Theme::new();
    for format in [Format::Micro, Format::Nano, Format::Pcapng] {
        for endian in [Endian::Little, Endian::Big] {
            theme.test(format!("{format:?}_{endian:?}"), LISTEN, move || {
                every_packing(format, endian);
            });
        }
    }
    for (name, pace, loops) in PACES {
        theme.test(format!("pace_{name}"), LISTEN, || paced(pace, *loops));
    }
    theme.test(
        "frames_that_no_tap_takes_are_counted",
        LISTEN,
        too_short_and_too_long,
    );
    theme.test("device_in_a_namespace", LISTEN, device_in_a_namespace);
    theme.test("nothing_listens", &[Need::Root], nothing_listens);
    real_captures(&mut theme);
    theme.run()
}

/// A configuration that plays a file into lc0.
fn config(file: &Path, source: &str) -> String {
    format!(
        r#"
[ports.sample]
kind = "pcap"
path = "{}"
{source}
[ports.lc0]
kind = "tap"
mtu = 9000
wait_for_consumer = "20s"
[[pipelines]]
from = ["sample"]
to = ["lc0"]
"#,
        file.display()
    )
}

/// Plays a file with a listener on lc0; answers with what it heard and the daemon's summary.
fn play(ns: &Netns, file: &Path, source: &str) -> (Vec<Vec<u8>>, daemon::Ended) {
    let daemon = Daemon::start(ns, &config(file, source));
    assert!(ns.has_link("lc0"), "{}", daemon.stderr());
    let listening = Listening::start(ns, "lc0");
    let ended = daemon.wait(LIMIT);
    (listening.after_the_device(), ended)
}

fn assert_all_written(stats: &Stats, frames: &[Vec<u8>]) {
    let lc0 = daemon::port(stats, "lc0");
    let sample = daemon::port(stats, "sample");
    let bytes: usize = frames.iter().map(Vec::len).sum();
    for (count, what) in [(sample.rx.frames, "read"), (lc0.tx.frames, "written")] {
        assert_eq!(count, frames.len() as u64, "frames {what}");
    }
    for (count, what) in [(sample.rx.bytes, "read"), (lc0.tx.bytes, "written")] {
        assert_eq!(count, bytes as u64, "bytes {what}");
    }
}

fn every_packing(format: Format, endian: Endian) {
    let ns = Netns::new();
    let sent = frames::mixed(500, 9014);
    let bytes = capture::encode(&capture::records(&sent, 1_000), format, endian, ETHERNET);
    for (packing, suffix) in [
        (Packing::Plain, ""),
        (Packing::Gzip, ".gz"),
        (Packing::Zstd, ".zst"),
    ] {
        let folder = daemon::folder();
        let file = folder.path().join(format!("sample{suffix}"));
        fs::write(&file, capture::pack(bytes.clone(), packing)).expect("our own folder");
        let (heard, ended) = play(&ns, &file, "pace = \"top\"");
        capture::assert_same(&heard, &sent);
        assert_all_written(&ended.explained(), &sent);
    }
}

/// Name, settings, loops.
const PACES: &[(&str, &str, usize)] = &[
    ("original", "pace = \"original\"", 1),
    ("original_x10", "pace = \"original\"\nspeed = 10.0", 1),
    ("pps", "pace = { pps = 2000 }", 1),
    ("mbps", "pace = { mbps = 100 }", 1),
    ("top_loops", "pace = \"top\"\nloops = 7", 7),
    ("pps_loops", "pace = { pps = 5000 }\nloops = 3", 3),
];

fn paced(source: &str, loops: usize) {
    let ns = Netns::new();
    let folder = daemon::folder();
    let file = folder.path().join("sample.pcap");
    let once = frames::mixed(300, 1514);
    capture::write(&file, &once);
    let sent: Vec<_> = (0..loops).flat_map(|_| once.clone()).collect();
    let (heard, ended) = play(&ns, &file, source);
    capture::assert_same(&heard, &sent);
    assert_all_written(&ended.explained(), &sent);
}

/// Frames shorter than an Ethernet header, and longer than lc0's MTU of 1,500 with two VLAN tags.
fn too_short_and_too_long() {
    let ns = Netns::new();
    let folder = daemon::folder();
    let file = folder.path().join("sample.pcap");
    let lengths = [60, 0, 1, 13, 14, 1514, 1522, 1523, 9000, 65_535, 61];
    let all: Vec<Vec<u8>> = lengths.iter().map(|&n| vec![n as u8; n]).collect();
    capture::write(&file, &all);
    let text = config(&file, "pace = \"top\"").replace("mtu = 9000", "mtu = 1500");
    let daemon = Daemon::start(&ns, &text);
    let listening = Listening::start(&ns, "lc0");
    let stats = daemon.wait(LIMIT).explained();
    let heard = listening.after_the_device();
    let fits = |frame: &&Vec<u8>| (14..=1522).contains(&frame.len());
    let sent: Vec<_> = all.iter().filter(fits).cloned().collect();
    capture::assert_same(&heard, &sent);
    let (sample, lc0) = (daemon::port(&stats, "sample"), daemon::port(&stats, "lc0"));
    assert_eq!(sample.rx.frames, all.len() as u64);
    assert_eq!(lc0.tx.frames, sent.len() as u64);
    let dropped = |reason: &str| {
        let of = |dropped: &control::stats::Dropped| dropped.get(reason).copied().unwrap_or(0);
        of(&sample.rx.dropped) + of(&lc0.tx.dropped)
    };
    assert_eq!(dropped("too_short"), 3, "{stats:#?}");
    assert_eq!(dropped("too_long"), 3, "{stats:#?}");
}

/// The daemon runs in the test's own namespace and makes the device in another.
fn device_in_a_namespace() {
    let ns = Netns::new();
    let folder = daemon::folder();
    let file = folder.path().join("sample.pcap");
    let sent = frames::mixed(100, 1514);
    capture::write(&file, &sent);
    let name = "kind = \"tap\"";
    let there = format!("{name}\nnetns = \"{}\"\nname = \"listen0\"", ns.name());
    let daemon = Daemon::spawn_here(&config(&file, "pace = \"top\"").replace(name, &there)).ready();
    let listening = Listening::start(&ns, "listen0");
    let ended = daemon.wait(LIMIT);
    let stats = ended.explained();
    capture::assert_same(&listening.after_the_device(), &sent);
    assert_all_written(&stats, &sent);
}

/// When nothing listens in time, that is said and the run goes on.
fn nothing_listens() {
    let ns = Netns::new();
    let folder = daemon::folder();
    let file = folder.path().join("sample.pcap");
    let sent = frames::mixed(100, 1514);
    capture::write(&file, &sent);
    let text = config(&file, "pace = \"top\"").replace("20s", "300ms");
    let ended = Daemon::spawn(&ns, &text).wait(LIMIT);
    assert!(
        ended.stderr.contains("nothing listened within"),
        "{}",
        ended.stderr
    );
    assert_all_written(&ended.explained(), &sent);
}

/// A trial for each capture of the folder, or one that says that there is no folder.
fn real_captures(theme: &mut Theme) {
    const NEEDS: &[Need] = &[Need::Root, Need::Tool("tcpdump"), Need::Captures];
    let folder = needs::captures().and_then(|f| fs::read_dir(f).map_err(|e| e.to_string()));
    let Ok(folder) = folder else {
        theme.test("captures", NEEDS, || unreachable!("there is no folder"));
        return;
    };
    let mut files: Vec<_> = folder.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files {
        if file.extension().is_some_and(|e| e == "pcap") {
            let name = file.file_stem().expect("a name").to_string_lossy();
            theme.test(format!("capture_{name}"), NEEDS, {
                let file = file.clone();
                move || real(&file)
            });
        }
    }
}

fn real(file: &Path) {
    let decoded = capture::decode(&fs::read(file).expect("readable"));
    let (records, damage) = match decoded {
        Ok((ETHERNET, records)) => (records, None),
        Ok((link_type, _)) => return refused(file, link_type),
        Err((damage, records)) => (records, Some(damage)),
    };
    let ns = Netns::new();
    let (heard, ended) = play(&ns, file, "pace = \"top\"");
    // What a TAP cannot take is not heard, and counted with its reason.
    let (sent, short): (Vec<_>, Vec<_>) = records
        .into_iter()
        .map(|record| record.frame)
        .partition(|frame| frame.len() >= 14);
    assert!(sent.iter().all(|frame| frame.len() <= 9014), "a long frame");
    capture::assert_same(&heard, &sent);
    let stats = match damage {
        None => ended.explained(),
        Some(_) => {
            assert_eq!(ended.code, Some(1), "{}", ended.stderr);
            let stats = ended.stats.expect("a summary");
            daemon::assert_explained(&stats);
            stats
        }
    };
    let sample = daemon::port(&stats, "sample");
    let lc0 = daemon::port(&stats, "lc0");
    assert_eq!(sample.rx.frames, (sent.len() + short.len()) as u64);
    assert_eq!(lc0.tx.frames, sent.len() as u64);
    let dropped =
        control::stats::total(&sample.rx.dropped) + control::stats::total(&lc0.tx.dropped);
    assert_eq!(dropped, short.len() as u128, "{stats:#?}");
}

/// A capture that does not hold Ethernet frames.
fn refused(file: &Path, link_type: u32) {
    let ns = Netns::new();
    let ended = Daemon::spawn(&ns, &config(file, "")).wait(LIMIT);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    let name = file.file_name().expect("a name").to_string_lossy();
    for fragment in [&*name, "Ethernet", &link_type.to_string()] {
        assert!(
            ended.stderr.contains(fragment),
            "{fragment}: {}",
            ended.stderr
        );
    }
    // The kernel takes some time to remove a TAP whose descriptor was closed.
    let gone = wait_until(Duration::from_secs(1), || !ns.has_link("lc0"));
    assert!(gone, "lc0 is left");
}
