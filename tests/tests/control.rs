//! A running daemon from outside: its privileges, its control socket, and what dpctl tells.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use control::stats::Stats;
use nix::{
    libc::RLIM_INFINITY,
    sys::{
        resource::{Resource, getrlimit},
        signal::Signal,
    },
    unistd::Group,
};
use tests::{
    Bench, Daemon, Need, Netns, Theme, Tool,
    capture::{self, Listening},
    daemon, frames,
    process::tool_as_nobody,
    wait_until,
};

const ROOT: &[Need] = &[Need::Root];
const LIMIT: Duration = Duration::from_secs(10);

/// Numbers of capabilities (include/uapi/linux/capability.h).
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const SYS_ADMIN: u64 = 1 << 21;
const IPC_LOCK: u64 = 1 << 14;
const SYS_RESOURCE: u64 = 1 << 24;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

/// What an AF_XDP port takes to be opened again: the privilege to lock memory only where its limit
/// could not be lifted for good.
fn af_xdp() -> u64 {
    let always = NET_ADMIN | NET_RAW | BPF | PERFMON;
    let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).expect("a limit of every process");
    let may_lift = mask(&own_status(), "CapEff:") & SYS_RESOURCE != 0;
    if hard == RLIM_INFINITY || may_lift {
        always
    } else {
        always | IPC_LOCK
    }
}

fn main() -> ExitCode {
    let mut theme = Theme::new();
    const LISTEN: &[Need] = &[Need::Root, Need::Tool("tcpdump")];
    theme.test("capture_to_tap_keeps_no_privilege", ROOT, || {
        let ns = Netns::new();
        let folder = daemon::folder();
        assert_keeps(&Daemon::start(&ns, &waiting(folder.path())), 0);
    });
    theme.test("af_xdp_keeps_what_return_takes", ROOT, || {
        let bench = Bench::new();
        assert_keeps(&bench.start("", None), af_xdp());
    });
    theme.test("af_xdp_in_another_namespace_keeps_setns", ROOT, || {
        let bench = Bench::new();
        let netns = format!("netns = \"{}\"", bench.inside.name());
        let config = Bench::config(&netns, None);
        let config = config.replace("kind = \"tap\"", &format!("kind = \"tap\"\n{netns}"));
        let daemon = Daemon::spawn_here(&config).ready();
        assert_keeps(&daemon, af_xdp() | SYS_ADMIN);
        daemon.stop().explained();
    });
    theme.test(
        "socket_is_for_owner_and_group",
        ROOT,
        socket_is_for_owner_and_group,
    );
    theme.test("two_daemons", ROOT, two_daemons);
    theme.test("one_socket_for_two_daemons", ROOT, one_socket);
    theme.test("socket_of_a_killed_daemon", ROOT, socket_of_a_killed_daemon);
    theme.test("no_daemon", ROOT, no_daemon);
    theme.test("ports_and_listeners", LISTEN, ports_and_listeners);
    theme.test("stats_watched", ROOT, stats_watched);
    theme.run()
}

/// A configuration that waits for a listener: it runs until it is stopped.
fn waiting(folder: &Path) -> String {
    let file = folder.join("sample.pcap");
    capture::write(&file, &frames::mixed(10, 100));
    format!(
        "[ports.sample]\nkind = \"pcap\"\npath = \"{}\"\n\
         [ports.lc0]\nkind = \"tap\"\nwait_for_consumer = \"600s\"\n\
         [[pipelines]]\nfrom = [\"sample\"]\nto = [\"lc0\"]\n",
        file.display()
    )
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.expect("a field of every status").trim()
}

fn mask(status: &str, name: &str) -> u64 {
    u64::from_str_radix(field(status, name), 16).expect("hexadecimal")
}

fn own_status() -> String {
    fs::read_to_string("/proc/self/status").expect("our own")
}

/// What a thread of the daemon has: its name, permitted and effective capabilities.
fn threads(pid: u32) -> Vec<(String, u64, u64)> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .expect("it runs")
        .flatten()
    {
        let read = |file| fs::read_to_string(task.path().join(file));
        // A thread that has just ended has nothing.
        let (Ok(name), Ok(status)) = (read("comm"), read("status")) else {
            continue;
        };
        assert_eq!(field(&status, "NoNewPrivs:"), "1", "{name}");
        threads.push((
            name.trim().to_owned(),
            mask(&status, "CapPrm:"),
            mask(&status, "CapEff:"),
        ));
    }
    threads
}

/// The first thread keeps exactly `kept`, every other one, and above all each worker, nothing.
fn assert_keeps(daemon: &Daemon, kept: u64) {
    // An answer: start-up is over.
    daemon.stats();
    let threads = threads(daemon.pid());
    let worker = threads.iter().find(|(name, ..)| name == "worker-0");
    assert!(worker.is_some(), "{threads:?}");
    for (at, (name, permitted, effective)) in threads.iter().enumerate() {
        let kept = if at == 0 { kept } else { 0 };
        assert_eq!(
            (*permitted, *effective),
            (kept, kept),
            "thread {name}: {permitted:#x}, {effective:#x} instead of {kept:#x}"
        );
    }
}

fn socket_is_for_owner_and_group() {
    let ns = Netns::new();
    let group = Group::from_name("daemon")
        .ok()
        .flatten()
        .expect("a group of every system");
    for (line, gid) in [("", 0), ("socket_group = \"daemon\"\n", group.gid.as_raw())] {
        let folder = daemon::folder();
        let config = waiting(folder.path());
        let preamble = |socket: &Path| daemon::preamble(socket) + line;
        let daemon = Daemon::spawn_in(&ns, folder, &config, preamble).ready();
        let socket = daemon.folder().join("control.sock");
        let metadata = fs::metadata(&socket).expect("the socket");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
        assert_eq!((metadata.uid(), metadata.gid()), (0, gid));
        let mut command = vec!["--inh-caps=-all"];
        let dpctl = daemon.folder().join("dpctl");
        fs::copy(daemon::binary("dpctl"), &dpctl).expect("our own folder");
        let (dpctl, socket) = (dpctl.display().to_string(), socket.display().to_string());
        command.extend([&*dpctl, "--socket", &socket, "stats"]);
        let refused = tool_as_nobody(&command).output();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(3), "{said}");
        assert!(
            said.contains(&socket) && said.contains("ermission"),
            "{said}"
        );
        daemon.stop();
        // What it made it removes.
        assert!(!Path::new(&socket).exists());
    }
}

fn two_daemons() {
    let (one, other) = (Bench::new(), Bench::new());
    let first = one.start("", None);
    let second = other.start("", None);
    one.sender().send(&frames::mixed(10, 100));
    let received = |daemon: &Daemon, frames| {
        daemon.stats_when(LIMIT, |stats| {
            daemon::port(stats, "lc0").tx.frames == frames
        });
    };
    received(&first, 10);
    received(&second, 0);
    first.stop().explained();
    other.sender().send(&frames::mixed(20, 100));
    received(&second, 20);
    second.stop().explained();
}

fn one_socket() {
    let (one, other) = (Netns::new(), Netns::new());
    let folder = daemon::folder();
    let config = waiting(folder.path());
    let first = Daemon::start(&one, &config);
    let taken = first.folder().join("control.sock");
    let preamble = |_: &Path| daemon::preamble(&taken);
    let second = Daemon::spawn_in(&other, folder, &config, preamble).wait(LIMIT);
    assert_eq!(second.code, Some(3), "{}", second.stderr);
    let named = taken.display().to_string();
    assert!(second.stderr.contains(&named), "{}", second.stderr);
    // The first still has it.
    first.stats();
}

fn socket_of_a_killed_daemon() {
    let ns = Netns::new();
    let folder = daemon::folder();
    let config = waiting(folder.path());
    let first = Daemon::start(&ns, &config);
    let left = first.folder().join("control.sock");
    first.signal(Signal::SIGKILL);
    let ended = wait_until(LIMIT, || {
        !Path::new(&format!("/proc/{}/fd/0", first.pid())).exists()
    });
    assert!(ended && left.exists(), "a socket is left");
    let gone = wait_until(Duration::from_secs(1), || !ns.has_link("lc0"));
    assert!(gone, "lc0 is left");
    let preamble = |_: &Path| daemon::preamble(&left);
    let second = Daemon::spawn_in(&ns, folder, &config, preamble).ready();
    let answered = Tool::new(daemon::binary("dpctl"))
        .arg("--socket")
        .arg(&left)
        .arg("stats")
        .output();
    assert!(answered.status.success(), "{}", second.stderr());
}

fn no_daemon() {
    let folder = daemon::folder();
    let socket = folder.path().join("nobody.sock");
    let dpctl = |arguments: &[&str]| {
        Tool::new(daemon::binary("dpctl"))
            .arg("--socket")
            .arg(&socket)
            .args(arguments)
            .output()
    };
    let refused = dpctl(&["stats"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("nobody.sock"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    // Usage is judged first.
    assert_eq!(dpctl(&["stat"]).status.code(), Some(2));
    assert_eq!(dpctl(&["policy", "allow", "p"]).status.code(), Some(2));
}

fn ports_and_listeners() {
    let bench = Bench::new();
    let daemon = bench.start("", None);
    let listening = Listening::start(&bench.inside, "lc0");
    let ports: serde_json::Value =
        serde_json::from_str(&daemon.dpctl_ok(&["ports", "--json"])).expect("JSON");
    let port = |name| {
        let all = ports.as_array().expect("a list");
        all.iter()
            .find(|port| port["name"] == name)
            .expect("the port")
    };
    let (up, lc0) = (port("up"), port("lc0"));
    assert_eq!(up["kind"], "af_xdp");
    assert_eq!(up["interface"], "up0");
    assert_eq!(up["mode"], "copy");
    assert_eq!(up["queues"], serde_json::json!([0]));
    assert_eq!(up["cores"], serde_json::json!([0]));
    assert_eq!(lc0["interface"], "lc0");
    assert!(up["up"].as_bool() == Some(true) && lc0["up"].as_bool() == Some(true));
    let listeners = lc0["listeners"].as_array().expect("a list");
    assert_eq!(listeners.len(), 1, "{ports:#}");
    assert_eq!(listeners[0]["name"], "tcpdump");
    assert_eq!(listeners[0]["pid"], listening.pid());
    let table = daemon.dpctl_ok(&["ports"]);
    for fragment in ["up0", "af_xdp", "copy", "lc0", "tcpdump"] {
        assert!(table.contains(fragment), "{fragment}\n{table}");
    }
    daemon.stop().explained();
}

/// A reading each line, each of which explains every frame, while frames come.
fn stats_watched() {
    let bench = Bench::new();
    let daemon = bench.start("", None);
    let load = tests::send::Load::start(bench.sender(), frames::mixed(100, 1514));
    let mut watching = Tool::new(daemon::binary("dpctl"))
        .arg("--socket")
        .arg(daemon.folder().join("control.sock"))
        .args(["stats", "--json", "--watch", "0.1"])
        .spawn();
    let enough = wait_until(LIMIT, || watching.stdout().lines().count() >= 10);
    assert!(enough, "{watching}");
    watching.signal(Signal::SIGINT);
    let ended = watching.wait(LIMIT).expect("it ends");
    assert_eq!(ended.code(), Some(0), "{watching}");
    load.stop();
    let mut last = 0;
    for line in watching.stdout().lines() {
        let stats: Stats = serde_json::from_str(line).expect("a reading each line");
        daemon::assert_explained(&stats);
        let now = daemon::port(&stats, "up").rx.frames;
        assert!(now >= last, "counters never run backwards");
        last = now;
    }
    assert!(last > 0);
    let table = daemon.dpctl_ok(&["stats"]);
    assert!(table.contains("up") && table.contains("lc0"), "{table}");
    daemon.stop().explained();
}
