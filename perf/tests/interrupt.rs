//! Ctrl-C while benchmarks run, as a terminal sends it: to dpbench and to what it measures alike. Needs root.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use control::daemon::is_ignored;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::{Pid, geteuid},
};

#[test]
fn ctrl_c_ends_all_benchmarks() {
    let dpbench = Path::new(env!("CARGO_BIN_EXE_dpbench"));
    if !geteuid().is_root() || !dpbench.with_file_name("dataplane").exists() {
        eprintln!("skipped: it takes root, and a dataplane beside dpbench (cargo build --bins)");
        return;
    }
    // A signal that the tests themselves ignore, as under nohup, dpbench ignores as well.
    let signals = [Signal::SIGINT, Signal::SIGHUP];
    for signal in signals.into_iter().filter(|signal| !is_ignored(*signal)) {
        let out = tempfile::tempdir().expect("a temporary folder");
        let child = Command::new(dpbench)
            .args(["all", "--short", "forward", "latency", "--out"])
            .arg(out.path())
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("dpbench starts");
        let group = Pid::from_raw(child.id() as i32);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !measures(group) {
            assert!(Instant::now() < deadline, "no dataplane is started");
            thread::sleep(Duration::from_millis(5));
        }
        killpg(group, signal).expect("a group of processes");
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{signal}: {said}");
        assert!(said.contains("interrupted"), "{signal}: {said}");
        assert!(!said.contains("not measured"), "{signal}: {said}");
    }
}

/// Whether a dataplane runs in the group.
fn measures(group: Pid) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    // PID (NAME) STATE PARENT GROUP
    stats.into_iter().any(|stat| {
        let Some((name, rest)) = stat.rsplit_once(") ") else {
            return false;
        };
        name.ends_with("(dataplane") && rest.split(' ').nth(2) == Some(group.to_string().as_str())
    })
}
