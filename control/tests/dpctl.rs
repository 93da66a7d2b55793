//! `dpctl` as it is run: what it prints, and what it exits with.

mod fake;

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use control::stats::Stats;
use fake::{Daemon, Fake, serve};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

fn dpctl(daemon: &Daemon) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dpctl"));
    command.arg("--socket").arg(daemon.path());
    command
}

fn run(daemon: &Daemon, args: &[&str]) -> (Option<i32>, String, String) {
    ended(dpctl(daemon).args(args).output().unwrap())
}

fn ended(output: Output) -> (Option<i32>, String, String) {
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn each_command_prints_its_answer() {
    let daemon = Daemon::start();
    let rules = daemon.path().with_file_name("rules.toml");
    fs::write(&rules, "# mine\n[ { proto = \"udp\" } ]\n").unwrap();
    let applied =
        |n| format!("generation {n}, rebuilt in 0.1 ms, in force on every worker after 41 µs\n");
    let table = "PORT  KIND  INTERFACE  NETNS  MODE  STATE  MTU  CORE:QUEUE  BACKING  LISTENERS\n\
                 lc0   tap   -          -      -     up       -  0           -        tcpdump (7)\n";
    let show = |generation, rules| format!("# policy web, generation {generation}\n{rules}\n");
    let cases: [(&[&str], String); 7] = [
        (&["ports"], table.to_owned()),
        (
            &["policy", "allow", "web", "proto=tcp,ports=80,443"],
            applied(1),
        ),
        (
            &["policy", "allow", "web", "{ proto = \"icmp\" }"],
            applied(2),
        ),
        (
            &["policy", "show", "web"],
            show(
                2,
                "allow = [ { proto = \"tcp\", ports = \"80,443\" }, { proto = \"icmp\" } ]",
            ),
        ),
        (&["policy", "remove", "web", "proto=icmp"], applied(3)),
        (
            &["policy", "show", "web"],
            show(3, "allow = [ { proto = \"tcp\", ports = \"80,443\" } ]"),
        ),
        (&["stats"], {
            "dataplane up 1s, policy generation 3\n\n\
             PORT    KIND    MODE  STATE    RX  BYTES  FORWARDED  DROPPED  TX  BYTES  DROPPED\n\
             uplink  af_xdp  copy  up     1000    0 B       1000        0   0    0 B        0\n\n\
             PIPELINE       POLICY  RECEIVED  JUDGED  FORWARDED  DROPPED  IN FLIGHT\n\
             uplink -> lc0  web            0       0          0        0          0\n"
                .to_owned()
        }),
    ];
    for (args, expected) in cases {
        assert_eq!(
            run(&daemon, args),
            (Some(0), expected, String::new()),
            "{args:?}"
        );
    }

    let (code, out, _) = run(&daemon, &["stats", "--json"]);
    assert_eq!(code, Some(0));
    assert_eq!(serde_json::from_str::<Stats>(&out).unwrap().generation, 3);
    let (code, out, _) = run(&daemon, &["ports", "--json"]);
    assert_eq!(code, Some(0));
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&out).unwrap()[0]["name"],
        "lc0"
    );
}

#[test]
fn rules_come_from_a_file_or_from_standard_input() {
    let daemon = Daemon::start();
    let file = daemon.path().with_file_name("rules.toml");
    fs::write(&file, "[ { proto = \"udp\" } ]\n").unwrap();
    let file = file.to_str().unwrap();
    let (code, out, err) = run(&daemon, &["policy", "replace", "web", file]);
    assert_eq!(
        (code, out.starts_with("generation 1,")),
        (Some(0), true),
        "{out}{err}"
    );

    let mut child = dpctl(&daemon)
        .args(["policy", "replace", "web", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = child.stdin.take();
    input
        .unwrap()
        .write_all(b"allow = [ { proto = \"icmp\" } ]")
        .unwrap();
    let (code, out, _) = ended(child.wait_with_output().unwrap());
    assert_eq!(
        (code, out.starts_with("generation 2,")),
        (Some(0), true),
        "{out}"
    );
    let (_, shown, _) = run(&daemon, &["policy", "show", "web"]);
    assert!(
        shown.ends_with("allow = [ { proto = \"icmp\" } ]\n"),
        "{shown}"
    );
}

#[test]
fn failures_have_their_codes_and_say_what_to_do() {
    let daemon = Daemon::start();
    let bad = daemon.path().with_file_name("bad.toml");
    fs::write(&bad, "nonsense").unwrap();
    let bad = bad.to_str().unwrap();
    let nobody = daemon.path().with_file_name("nobody.sock");
    let nobody = nobody.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 15] = [
        (&["policy", "show", "wbe"], 1, "the policies are: web"),
        (
            &["policy", "replace", "web", bad],
            1,
            "this is no allow list",
        ),
        (&["policy", "remove", "web", "{}"], 1, "no such rule"),
        (&[], 2, "Usage"),
        (&["status"], 2, "similar subcommand"),
        (&["stats", "--jsn"], 2, "--json"),
        (&["stats", "--watch", "0"], 2, "from 0.1 to 86400"),
        (&["stats", "--watch", "nan"], 2, "from 0.1 to 86400"),
        (&["policy", "allow", "web"], 2, "RULE"),
        (&["policy", "allow", "web", "tcp"], 2, "write proto=tcp"),
        (
            &["policy", "replace", "web", "/no/such/file"],
            2,
            "cannot read the rules",
        ),
        (
            &["policy", "replace", "web", "/"],
            2,
            "name a readable file",
        ),
        (&["--socket", nobody, "stats"], 3, "no dataplane listens"),
        (&["--socket", bad, "stop"], 3, "--socket PATH"),
        (&["stop", "--socket", nobody], 3, "start one"),
    ];
    for (args, expected, named) in cases {
        // The option may be given once, and is here in some cases.
        let output = if args.contains(&"--socket") {
            Command::new(env!("CARGO_BIN_EXE_dpctl"))
                .args(args)
                .output()
        } else {
            dpctl(&daemon).args(args).output()
        };
        let (code, out, err) = ended(output.unwrap());
        assert_eq!(
            (code, out.as_str()),
            (Some(expected), ""),
            "{args:?}: {err}"
        );
        assert!(err.contains(named), "{args:?}: {err}");
        if expected != 2 {
            assert_eq!(err.lines().count(), 1, "{err}");
        }
    }
}

#[test]
fn help_and_version_are_no_failures() {
    let daemon = Daemon::start();
    for (args, named) in [
        (&["--help"][..], "Exit codes: 0 done"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
        (&["policy", "allow", "--help"], "from_ports"),
        (&["policy", "replace", "--help"], "allow = ["),
    ] {
        let (code, out, err) = run(&daemon, args);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{args:?}");
        assert!(out.contains(named), "{out}");
    }
}

#[test]
fn stopping_waits_until_the_daemon_has_ended() {
    const SOCKET: &str = "DPCTL_TEST_SOCKET";
    if let Some(path) = env::var_os(SOCKET) {
        // The daemon's part, in a process of its own.
        let fake = Arc::new(Fake::default());
        let server = serve(Path::new(&path), Arc::clone(&fake));
        while !fake.stopped() {
            thread::sleep(Duration::from_millis(5));
        }
        drop(server);
        // Longer than the connection: only the process's end is the end.
        thread::sleep(Duration::from_millis(200));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let started = Instant::now();
    let mut daemon = Command::new(env::current_exe().unwrap())
        .args(["--exact", "stopping_waits_until_the_daemon_has_ended"])
        .env(SOCKET, &path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !path.exists() && started.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(5));
    }
    let output = Command::new(env!("CARGO_BIN_EXE_dpctl"))
        .args(["stop", "--socket"])
        .arg(&path)
        .output()
        .unwrap();
    assert_eq!(
        ended(output),
        (Some(0), "stopped\n".to_owned(), String::new())
    );
    // It has ended already, but perhaps for its last threads; it would have run on for longer.
    let mut status = None;
    for _ in 0..20 {
        status = daemon.try_wait().unwrap().map(|status| status.success());
        if status.is_some() {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(status, Some(true));
}

#[test]
fn a_daemon_that_does_not_stop_is_a_failure() {
    let daemon = Daemon::start();
    let (code, out, err) = run(&daemon, &["stop", "--wait", "0.2"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("still runs after 0.2 s"), "{err}");
    assert!(daemon.fake.stopped());
}

fn watch(daemon: &Daemon, more: &[&str]) -> Child {
    dpctl(daemon)
        .args(["stats", "--watch", "0.1"])
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn watching_shows_rates_until_a_signal() {
    let daemon = Daemon::start();
    let mut child = watch(&daemon, &[]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let rates = lines
        .find(|line| line.as_ref().unwrap().contains("RX/S"))
        .unwrap()
        .unwrap();
    assert!(
        !rates.contains('\x1b'),
        "no terminal, no escapes: {rates:?}"
    );
    let uplink = lines.next().unwrap().unwrap();
    assert_eq!(uplink.split_whitespace().nth(5), Some("1000"), "{uplink}");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(0), None));
}

#[test]
fn watching_as_json_is_a_line_a_reading() {
    let daemon = Daemon::start();
    let mut child = watch(&daemon, &["--json"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for reading in 1..4 {
        let line = lines.next().unwrap().unwrap();
        let stats: Stats = serde_json::from_str(&line).unwrap();
        assert_eq!(stats.ports["uplink"].rx.frames, reading * 1000);
    }
    // Nobody reads any more.
    drop(lines);
    let (code, _, err) = ended(child.wait_with_output().unwrap());
    assert_eq!((code, err.as_str()), (Some(0), ""));
}

#[test]
fn watching_ends_when_the_daemon_does() {
    let daemon = Daemon::start();
    let mut child = watch(&daemon, &[]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    drop(daemon);
    lines.for_each(drop);
    let (code, _, err) = ended(child.wait_with_output().unwrap());
    assert_eq!(code, Some(3), "{err}");
    assert!(err.contains("no dataplane listens"), "{err}");
}
