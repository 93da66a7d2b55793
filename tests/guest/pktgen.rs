//! `scripts/pktgen` with the kernel's own pktgen: it sends what it is told, finds the rate at which nothing is lost, and
//! leaves nothing behind. Its speeds mean nothing here.

use std::{fs, path::Path, process::ExitCode, time::Duration};

use tests::{
    Need, Theme, daemon,
    guest::{Lane, card},
};

const NEEDS: &[Need] = &[Need::Root, Need::Card(card::NIC0), Need::Tool("jq")];

const LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let mut theme = Theme::new();
    theme.test("sizes_and_a_mix", NEEDS, sizes);
    theme.test("search_with_the_counters_of_a_port", NEEDS, search);
    theme.run()
}

/// Runs the script at the lane's sender; answers with what it printed.
fn script(lane: &Lane, arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/pktgen");
    let output = lane
        .outside
        .tool("env")
        .arg(format!("DPCTL={}", daemon::binary("dpctl").display()))
        .arg(script)
        .args([
            "--interface",
            lane.sender.name,
            "--to",
            lane.nic.address,
            "--core",
            "1",
        ])
        .args(arguments)
        .limit(LIMIT)
        .output();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{said}");
    said
}

/// The first column of the table at the end.
fn rows(said: &str) -> Vec<&str> {
    let table = said.lines().skip_while(|line| !line.starts_with("size "));
    table
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .collect()
}

fn sizes() {
    let lane = Lane::new(card::NIC0, card::GEN0);
    let daemon = lane.start("", None);
    let was_loaded = fs::exists("/sys/module/pktgen").unwrap_or(false);
    let said = script(
        &lane,
        &[
            "--sizes",
            "64,1518,imix",
            "--seconds",
            "1",
            "--rate",
            "500",
            "--flows",
            "16",
        ],
    );
    assert_eq!(rows(&said), ["64", "1518", "imix"], "{said}");
    let stats = daemon.stats_when(LIMIT, |stats| tests::bench::in_flight(stats) == 0);
    let up = daemon::port(&stats, "up");
    // A second of each at 500 a second; the line loses none.
    assert!((900..3_000).contains(&up.rx.frames), "{stats:#?}");
    assert!(up.rx.bytes > up.rx.frames * 60, "{stats:#?}");
    daemon.stop().explained();
    assert_eq!(
        fs::exists("/sys/module/pktgen").unwrap_or(false),
        was_loaded,
        "the module is as it was"
    );
}

fn search() {
    let lane = Lane::new(card::NIC0, card::GEN0);
    let daemon = lane.start("", None);
    let socket = daemon.folder().join("control.sock");
    let said = script(
        &lane,
        &[
            "--sizes",
            "64",
            "--seconds",
            "1",
            "--rate",
            "500",
            "--port",
            "up",
            "--socket",
            &socket.display().to_string(),
        ],
    );
    assert_eq!(rows(&said), ["64"], "{said}");
    assert!(said.contains("; 0 lost (0.0000 %)"), "{said}");
    daemon.stop().explained();
}
