//! `scripts/pktgen`: what it asks of the kernel's pktgen, played by a folder of files, what it refuses, and that
//! it puts everything back. Each command that it writes is appended to its file.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ExitCode, Output},
    time::Duration,
};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tests::{Need, Netns, Theme, Tool, daemon::folder, wait_until};

const ROOT: &[Need] = &[Need::Root];

/// What is sent from in every test.
const IF: &str = "out0";

fn main() -> ExitCode {
    let mut theme = Theme::new();
    theme.test("help", &[], help);
    theme.test("wrong_usage", &[], wrong_usage);
    theme.test("refusals", ROOT, refusals);
    theme.test("what_is_asked_of_the_kernel", ROOT, asked);
    theme.test("a_command_that_is_refused", ROOT, refused_command);
    theme.test("search", &[Need::Root, Need::Tool("jq")], search);
    theme.test(
        "a_port_that_is_not_there",
        &[Need::Root, Need::Tool("jq")],
        no_port,
    );
    theme.test("interrupted", ROOT, interrupted);
    theme.run()
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/pktgen")
}

/// A kernel's pktgen, that sends a million frames in a second whatever it is told, and a namespace with an
/// interface that is down.
struct Kernel {
    proc: TempDir,
    ns: Netns,
    _peer: Netns,
}

impl Kernel {
    fn new() -> Self {
        let kernel = Self {
            proc: folder(),
            ns: Netns::new(),
            _peer: Netns::new(),
        };
        kernel.ns.veth(IF, &kernel._peer, "in0");
        kernel.ns.ip(&["link", "set", IF, "down"]);
        kernel.write("kpktgend_0", "Running: \nStopped: \nResult: NA\n");
        kernel.write("pgctrl", "");
        kernel.write(
            IF,
            "Current:\n     pkts-sofar: 1000000  errors: 0\nResult: OK: 1000000(c1+d1) usec, 1000000 (60byte,0frags)\n",
        );
        kernel
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.proc.path().join(file), text).expect("our own folder");
    }

    /// The commands that a file was told.
    fn told(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.proc.path().join(file)).expect("our own folder");
        text.lines()
            .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
            .map(str::to_owned)
            .collect()
    }

    fn tool(&self, arguments: &[&str]) -> Tool {
        let environment = |name, path: &Path| format!("{name}={}", path.display());
        self.ns
            .tool("env")
            .arg(environment("DATAPLANE_PKTGEN", self.proc.path()))
            .arg(environment("DPCTL", &self.proc.path().join("dpctl")))
            .arg(script())
            .args(["--interface", IF])
            .args(arguments)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.tool(arguments).output()
    }

    fn is_up(&self) -> bool {
        self.ns.ip(&["-o", "link", "show", IF]).contains(",UP")
    }

    /// A dpctl that answers for a dataplane which loses a tenth of what comes at more than 400,000 frames a second:
    /// half of it in its kernel, half on the way there.
    fn with_dataplane(self) -> Self {
        let proc = self.proc.path().display();
        let dpctl = format!(
            r#"#!/bin/sh
awk -v done="$(grep -c stop {proc}/pgctrl)" '
/^ratep/ && n++ < done {{
    frames += $2 <= 400000 ? 1000000 : 950000
    full += $2 <= 400000 ? 0 : 50000
}}
END {{
    printf "{{\"ports\":{{\"uplink\":{{\"rx\":{{\"frames\":%d,\"dropped\":{{\"kernel_full\":%d}}}}}}}}}}\n", frames, full
}}' {proc}/{IF}
"#
        );
        self.write("dpctl", &dpctl);
        let path = self.proc.path().join("dpctl");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our own file");
        self
    }
}

#[track_caller]
fn ended(output: &Output, code: i32, words: &str) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(code), "{printed}{error}");
    assert!(
        error.contains(words),
        "{words:?} is not in:\n{printed}{error}"
    );
    if code > 1 {
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    printed
}

fn help() {
    let output = Tool::new(script()).arg("--help").output();
    let printed = ended(&output, 0, "");
    assert!(printed.starts_with("usage: scripts/pktgen"), "{printed}");
}

fn wrong_usage() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "--interface is missing"),
        (&["--interface"], "--interface needs a value"),
        (&["--interface", "a/b"], "no name of an interface"),
        (
            &["--interface", "0123456789abcdef"],
            "no name of an interface",
        ),
        (&["--fast"], "there is no option --fast"),
        (&["--interface", "x", "--to", "1:2"], "six bytes are needed"),
        (&["--interface", "x", "--sizes", "63"], "63 is neither"),
        (
            &["--interface", "x", "--sizes", "64,1519"],
            "1519 is neither",
        ),
        (&["--interface", "x", "--sizes", ""], "--sizes is empty"),
        (&["--interface", "x", "--flows", "0"], "1 to 1000000"),
        (&["--interface", "x", "--flows", "1000001"], "1 to 1000000"),
        (
            &["--interface", "x", "--rate", "1.5"],
            "whole number of frames",
        ),
        (
            &["--interface", "x", "--core", "one"],
            "a whole number is needed",
        ),
        (&["--interface", "x", "--seconds", "0"], "a number above 0"),
        (
            &["--interface", "x", "--resolution", "100"],
            "less than 100 percent",
        ),
        (
            &["--interface", "x", "--tolerance", "-1"],
            "0 to 100 percent",
        ),
    ];
    for (arguments, words) in cases {
        let output = Tool::new(script()).args(*arguments).output();
        ended(&output, 2, words);
    }
}

fn refusals() {
    let kernel = Kernel::new();
    ended(
        &kernel.run(&["--interface", "none0"]),
        3,
        "there is no interface none0",
    );

    ended(
        &kernel.run(&["--core", "7"]),
        3,
        "pktgen has no thread on core 7",
    );
    kernel.write("kpktgend_0", "Running: \nStopped: eth9 \n");
    ended(&kernel.run(&[]), 3, "somebody uses it");

    kernel.ns.ip(&["link", "set", IF, "up"]);
    kernel.ns.ip(&["route", "add", "default", "dev", IF]);
    ended(&kernel.run(&[]), 3, "the default route leads through out0");
    kernel.ns.address(IF, "192.0.2.1/24");
    ended(&kernel.run(&[]), 3, "out0 has an address");
    assert!(kernel.told("kpktgend_0").is_empty() && kernel.told(IF).is_empty());
    let force = ["--force", "--sizes", "64", "--seconds", "0.01"];
    ended(&kernel.run(&force), 0, "");
    assert!(kernel.is_up(), "as it was");

    fs::remove_dir_all(kernel.proc.path()).expect("our own folder");
    ended(
        &kernel.run(&["--force"]),
        3,
        "this kernel has no pktgen: boot one",
    );
}

fn asked() {
    let kernel = Kernel::new();
    let printed = ended(
        &kernel.run(&[
            "--sizes",
            "64,imix,1518",
            "--flows",
            "1000000",
            "--rate",
            "5000",
            "--seconds",
            "0.01",
            "--to",
            "02:00:00:00:00:01",
        ]),
        0,
        "",
    );
    let size = |what: &str| {
        [
            "count 0",
            "clone_skb 0",
            "delay 0",
            what,
            "dst_mac 02:00:00:00:00:01",
            "dst_min 198.18.0.1",
            "dst_max 198.18.0.1",
            "src_min 10.64.0.0",
            "src_max 10.79.66.63",
            "udp_src_min 40000",
            "udp_src_max 40000",
            "udp_dst_min 5201",
            "udp_dst_max 5201",
            "ratep 5000",
        ]
        .map(str::to_owned)
    };
    let expected = [
        size("pkt_size 60"),
        size("imix_weights 60,7 590,4 1514,1"),
        size("pkt_size 1514"),
    ]
    .concat();
    assert_eq!(kernel.told(IF), expected);
    assert_eq!(kernel.told("pgctrl"), ["start", "stop"].repeat(3));
    let add = format!("add_device {IF}");
    let mut devices = ["rem_device_all", &add].repeat(3);
    devices.push("rem_device_all");
    assert_eq!(kernel.told("kpktgend_0"), devices);
    assert!(!kernel.is_up(), "as it was");
    let rows: Vec<Vec<&str>> = printed
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let expected = ["64", "imix", "1518"].map(|size| vec![size, "1000000", "1000000"]);
    assert_eq!(rows[0], ["size", "flows", "frames/s"]);
    assert_eq!(rows[1..], expected);
}

fn refused_command() {
    let kernel = Kernel::new();
    kernel.write(IF, "Result: No such parameter \"clone_skb\"\n");
    ended(&kernel.run(&[]), 1, "pktgen does not know");
    assert_eq!(
        kernel.told("kpktgend_0").last().map(String::as_str),
        Some("rem_device_all")
    );
    assert!(!kernel.is_up(), "as it was");
}

fn search() {
    let kernel = Kernel::new().with_dataplane();
    let arguments = [
        "--port",
        "uplink",
        "--sizes",
        "64",
        "--rate",
        "1000000",
        "--seconds",
        "0.01",
    ];
    let printed = ended(&kernel.run(&arguments), 0, "");
    let first = printed.lines().next().unwrap_or_default();
    assert!(
        first.ends_with("100000 lost (10.0000 %), 50000 of them by the kernel"),
        "{printed}"
    );
    let best: f64 = printed
        .split_whitespace()
        .last()
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("{printed}"));
    assert!(best > 395_000.0 && best <= 400_000.0, "{printed}");
    // Loss that is tolerated is none: the first trial is the last.
    let before = kernel.told("pgctrl").len();
    let tolerant = kernel.run(&[&arguments[..], &["--tolerance", "10"]].concat());
    assert!(ended(&tolerant, 0, "").ends_with("1000000\n"));
    assert_eq!(kernel.told("pgctrl").len(), before + 2);
}

fn no_port() {
    let kernel = Kernel::new().with_dataplane();
    ended(
        &kernel.run(&["--port", "lc9"]),
        2,
        "no port lc9: it has uplink",
    );
    fs::remove_file(kernel.proc.path().join("dpctl")).expect("our own file");
    let output = kernel.run(&["--port", "uplink"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is a dataplane running"));
}

fn interrupted() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let kernel = Kernel::new();
        let mut running = kernel.tool(&["--seconds", "600"]).spawn();
        wait_until(Duration::from_secs(10), || {
            kernel.told("pgctrl") == ["start"]
        });
        assert!(kernel.is_up());
        running.signal(signal);
        let status = running.wait(Duration::from_secs(10));
        assert_eq!(status.and_then(|s| s.code()), Some(code), "{running}");
        assert_eq!(kernel.told("pgctrl"), ["start", "stop"]);
        assert_eq!(
            kernel.told("kpktgend_0").last().map(String::as_str),
            Some("rem_device_all")
        );
        assert!(!kernel.is_up(), "as it was");
    }
}
