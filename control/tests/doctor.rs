//! What a killed `dataplane` leaves changed, and what `dpctl doctor` says and does about it. Each test runs
//! once more in namespaces of its own, with an empty /run: what others leave behind is not seen there.

use std::{
    env, fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use control::link::{NetNs, ethtool::Ethtool, netlink::Netlink};
use serde_json::Value;

const RECORDS: &str = "/run/dataplane/changed";
const SOCKET: &str = "/run/dataplane/control.sock";
const NETNS: &str = "dpo-blue";
const TAP: &str = "lc0";
/// On a veth, and on its peer.
const FEATURES: [(&str, &str); 2] = [("dpo0", "rx-vlan-hw-parse"), ("dpo1", "tx-vlan-hw-insert")];

/// Runs the test that calls it in another process, in a mount and a network namespace of its own.
fn isolated(name: &str, test: impl FnOnce()) {
    const INSIDE: &str = "DOCTOR_TEST_INSIDE";
    if env::var_os(INSIDE).is_some() {
        sh("mount -t tmpfs -o mode=755 tmpfs /run");
        return test();
    }
    let may = Command::new("unshare")
        .args(["--mount", "--net", "true"])
        .stderr(Stdio::null())
        .status();
    if !may.is_ok_and(|status| status.success()) {
        println!("skipped: cannot make namespaces with unshare; run as root");
        return;
    }
    let status = Command::new("unshare")
        .args(["--mount", "--net", "--"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{name}: {status}");
}

fn sh(script: &str) {
    let status = Command::new("sh").args(["-ec", script]).status().unwrap();
    assert!(status.success(), "{script}: {status}");
}

/// Exit code, output, errors.
fn doctor(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_dpctl"))
        .arg("doctor")
        .args(arguments)
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn nothing() -> (Option<i32>, String, String) {
    (
        Some(0),
        "nothing was left behind\n".to_owned(),
        String::new(),
    )
}

/// A `dataplane` on the veth, killed when it is dropped.
struct Running(Child);

impl Running {
    /// Starts one and waits until it answers and has said all that it says at the start.
    fn start(directory: &Path) -> Self {
        let config = directory.join("dp.toml");
        let text = format!(
            "[ports.uplink]\nkind = \"af_xdp\"\ninterface = \"dpo0\"\nnetns = \"{NETNS}\"\n\
             [ports.{TAP}]\nkind = \"tap\"\n\
             [[pipelines]]\nfrom = [\"uplink\"]\nto = [\"{TAP}\"]\n"
        );
        fs::write(&config, text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_dataplane"))
            .arg("--config")
            .arg(&config)
            .stderr(fs::File::create(directory.join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut running = Self(child);
        let begin = Instant::now();
        let log = || fs::read_to_string(directory.join("log")).unwrap();
        // The last line of the start.
        while !log().contains("control socket")
            || !Command::new(env!("CARGO_BIN_EXE_dpctl"))
                .arg("ports")
                .output()
                .unwrap()
                .status
                .success()
        {
            let ended = running.0.try_wait().unwrap();
            assert!(ended.is_none(), "{}", log());
            assert!(begin.elapsed() < Duration::from_secs(20), "{}", log());
            thread::sleep(Duration::from_millis(20));
        }
        running
    }

    /// Kills it, and waits until the kernel has let go of all that it held: io_uring ends its requests in
    /// a kernel worker some time after the process is gone, and until then they hold the TAP's file. A
    /// start in between is refused because of the TAP that is still there.
    fn kill(mut self) -> u32 {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        let begin = Instant::now();
        let own = NetNs::open_or_own(None).unwrap();
        let mut netlink = Netlink::open(&own).unwrap();
        while netlink.link_by_name(TAP).unwrap().is_some() {
            assert!(begin.elapsed() < Duration::from_secs(20), "{TAP} stays");
            thread::sleep(Duration::from_millis(5));
        }
        self.0.id()
    }

    fn stop(mut self) {
        sh(&format!("kill -TERM {}", self.0.id()));
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn make_veth() {
    sh(&format!(
        "ip netns add {NETNS}; ip -n {NETNS} link add dpo0 type veth peer name dpo1; \
         ip -n {NETNS} link set dpo0 up; ip -n {NETNS} link set dpo1 up"
    ));
}

fn are_on() -> [bool; 2] {
    let ns = NetNs::open(NETNS).unwrap();
    let ethtool = Ethtool::open(&ns).unwrap();
    FEATURES.map(|(interface, feature)| ethtool.features(interface).unwrap()[feature].active)
}

fn records() -> usize {
    fs::read_dir(RECORDS).map_or(0, Iterator::count)
}

#[test]
fn without_anything_left_there_is_nothing_to_say() {
    isolated("without_anything_left_there_is_nothing_to_say", || {
        assert_eq!(doctor(&[]), nothing());
        assert_eq!(doctor(&["--fix"]), nothing());
        let (code, out, err) = doctor(&["--json"]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        let report: Value = serde_json::from_str(&out).unwrap();
        let empty = serde_json::json!({ "offloads": [], "sockets": [], "unreadable": [] });
        assert_eq!(report, empty);
        assert!(!Path::new("/run/dataplane").exists());
    });
}

#[test]
fn a_clean_end_leaves_nothing() {
    isolated("a_clean_end_leaves_nothing", || {
        let directory = tempfile::tempdir().unwrap();
        make_veth();
        assert_eq!(are_on(), [true, true]);
        let running = Running::start(directory.path());
        assert_eq!((are_on(), records()), ([false, false], 2));
        // What a running one has changed is no finding.
        assert_eq!(doctor(&[]), nothing());
        assert_eq!(records(), 2);
        // Its privileges are gone by then, but the files are its own.
        running.stop();
        assert_eq!(are_on(), [true, true]);
        assert_eq!(doctor(&[]), nothing());
        assert!(!Path::new("/run/dataplane").exists());
    });
}

#[test]
fn what_a_killed_run_leaves_is_named_and_put_back() {
    isolated("what_a_killed_run_leaves_is_named_and_put_back", || {
        let directory = tempfile::tempdir().unwrap();
        make_veth();
        let pid = Running::start(directory.path()).kill();
        assert_eq!(are_on(), [false, false]);

        let (code, out, err) = doctor(&[]);
        assert_eq!(code, Some(1), "{out}{err}");
        let mut commands = Vec::new();
        for (interface, feature) in FEATURES {
            let place = format!("{interface} in network namespace {NETNS}");
            let found = format!("{place}: left off by the killed process {pid}: {feature}");
            assert!(out.contains(&found), "{out}");
            let command = out.lines().find(|line| {
                line.trim_start()
                    .starts_with(&format!("ip netns exec {NETNS} ethtool -K {interface} "))
            });
            commands.push(command.unwrap().trim());
        }
        assert!(out.contains(&format!("    rm {SOCKET}\n")), "{out}");
        assert!(err.starts_with("dpctl: 3 things left behind"), "{err}");
        assert!(err.contains("sudo dpctl doctor --fix"), "{err}");
        assert_eq!(err.lines().count(), 1);

        // The command is what it takes.
        sh(commands[0]);
        assert_eq!(are_on(), [true, false]);
        let (code, out, _) = doctor(&["--json"]);
        assert_eq!(code, Some(1));
        let report: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(report["offloads"].as_array().unwrap().len(), 1, "{out}");
        assert_eq!(report["offloads"][0]["interface"], "dpo1");
        assert_eq!(report["offloads"][0]["netns"], NETNS);
        assert_eq!(report["offloads"][0]["mended"], false);
        assert_eq!(report["offloads"][0]["command"], commands[1]);
        assert_eq!(report["sockets"][0]["path"], SOCKET);
        assert_eq!(records(), 1);

        let (code, out, err) = doctor(&["--fix"]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        assert!(out.contains("dpo1 in network namespace"), "{out}");
        assert!(out.contains("turned on again: tx-vlan"), "{out}");
        assert!(
            out.contains(&format!("{SOCKET}: removed")) && !Path::new(SOCKET).exists(),
            "{out}"
        );
        assert_eq!((are_on(), records()), ([true, true], 0));
        assert_eq!(doctor(&[]), nothing());
    });
}

#[test]
fn the_next_run_takes_over_and_puts_back() {
    isolated("the_next_run_takes_over_and_puts_back", || {
        let directory = tempfile::tempdir().unwrap();
        make_veth();
        Running::start(directory.path()).kill();
        let next = Running::start(directory.path());
        let log = fs::read_to_string(directory.path().join("log")).unwrap();
        for (interface, feature) in FEATURES {
            let line = log.lines().find(|line| {
                line.contains(&format!("{interface}: left off by a run that was killed"))
            });
            assert!(line.is_some_and(|line| line.contains(feature)), "{log}");
        }
        assert_eq!((are_on(), records()), ([false, false], 2));
        assert_eq!(doctor(&[]), nothing());
        // And the one after a second kill.
        next.kill();
        Running::start(directory.path()).stop();
        assert_eq!((are_on(), records()), ([true, true], 0));
        assert_eq!(doctor(&[]), nothing());
    });
}

#[test]
fn an_interface_that_is_gone_needs_no_mending() {
    isolated("an_interface_that_is_gone_needs_no_mending", || {
        let directory = tempfile::tempdir().unwrap();
        make_veth();
        for gone in [
            format!("ip -n {NETNS} link del dpo0"),
            format!("ip netns del {NETNS}"),
        ] {
            Running::start(directory.path()).kill();
            assert_eq!(records(), 2);
            // A new one of the same name is another.
            sh(&gone);
            if gone.contains("netns del") {
                // The kernel takes it down some time after its last name has gone.
                make_veth();
            } else {
                sh(&format!(
                    "ip -n {NETNS} link add dpo0 type veth peer name dpo1; \
                     ip -n {NETNS} link set dpo0 up; ip -n {NETNS} link set dpo1 up"
                ));
            }
            fs::remove_file(SOCKET).unwrap();
            assert_eq!(doctor(&[]), nothing(), "{gone}");
            assert_eq!(records(), 0);
        }
    });
}

#[test]
fn without_root_it_is_said_that_root_is_needed() {
    isolated("without_root_it_is_said_that_root_is_needed", || {
        let directory = tempfile::tempdir().unwrap();
        make_veth();
        Running::start(directory.path()).kill();
        let as_nobody = |arguments: &[&str]| {
            let output = Command::new("setpriv")
                .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
                .arg(env!("CARGO_BIN_EXE_dpctl"))
                .arg("doctor")
                .args(arguments)
                .output()
                .unwrap();
            let out = String::from_utf8(output.stdout).unwrap();
            (
                output.status.code(),
                out,
                String::from_utf8(output.stderr).unwrap(),
            )
        };
        let (code, out, err) = as_nobody(&[]);
        if code == Some(126) || code == Some(127) {
            println!(
                "skipped: another user may not run {}: {err}",
                env!("CARGO_BIN_EXE_dpctl")
            );
            return;
        }
        assert_eq!(code, Some(1), "{err}");
        assert!(out.contains("run as root"), "{out}");
        assert!(
            out.contains(&format!("ip netns exec {NETNS} ethtool -K dpo0")),
            "{out}"
        );
        let (code, _, err) = as_nobody(&["--fix"]);
        assert_eq!(code, Some(1));
        assert!(err.contains("--fix needs root"), "{err}");
        assert_eq!((are_on(), records()), ([false, false], 2));
    });
}

#[test]
fn what_is_no_record_is_named_and_kept() {
    isolated("what_is_no_record_is_named_and_kept", || {
        fs::create_dir_all(RECORDS).unwrap();
        let path = format!("{RECORDS}/1-2-3-0.json");
        fs::write(&path, "{\"pid\":\x1b1").unwrap();
        for arguments in [&[][..], &["--fix"]] {
            let (code, out, err) = doctor(arguments);
            assert_eq!(code, Some(1));
            assert!(out.starts_with(&format!("{path}: not a record")), "{out}");
            assert!(out.contains(&format!("rm {path}")), "{out}");
            assert!(err.starts_with("dpctl: 1 thing"), "{err}");
        }
        assert!(Path::new(&path).exists());
    });
}
