//! What a network card goes through while the dataplane runs on it: links that flap, another MTU, the card taken out and
//! put in again, SIGKILL, and starts and ends without number. After each, frames arrive and the counters explain all.

use std::{
    fs,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use control::stats::Stats;
use nix::sys::signal::Signal;
use tests::{
    Daemon, Need, Theme, Tool,
    bench::in_flight,
    capture::{self, Listening},
    daemon, frames,
    guest::{Lane, card, fact, host, newest_has},
    process::run,
    send::{Load, Sender},
    wait_until,
};

const VIRTIO: &[Need] = &[Need::Root, Need::Card(card::NIC0), Need::Tool("tcpdump")];
const TWO: &[Need] = &[
    Need::Root,
    Need::Card(card::NIC0),
    Need::Card(card::NIC1),
    Need::Tool("tcpdump"),
];
const BPF: &[Need] = &[
    Need::Root,
    Need::Card(card::NIC0),
    Need::Card(card::NIC1),
    Need::Tool("bpftool"),
];

const LIMIT: Duration = Duration::from_secs(60);

/// Starts and ends of one test.
const CYCLES: usize = 200;

fn main() -> ExitCode {
    let mut theme = Theme::new();
    theme.test("link_flaps_under_load", VIRTIO, || {
        flaps(|lane, up| {
            let state = if up { "up" } else { "down" };
            lane.inside.ip(&["link", "set", lane.nic.name, state]);
        })
    });
    theme.test("cable_flaps_under_load", VIRTIO, || {
        flaps(|lane, up| host::cable(lane.nic, up))
    });
    theme.test("mtu_changes_under_load", VIRTIO, mtu);
    theme.test("unplugged_and_plugged_in", VIRTIO, unplugged);
    theme.test("a_card_and_a_veth_on_one_worker", VIRTIO, beside_a_veth);
    theme.test("two_daemons_on_two_cards", TWO, two_daemons);
    theme.test("sigkill_under_load", VIRTIO, sigkill);
    theme.test("huge_pages", VIRTIO, huge_pages);
    theme.test("little_memory", VIRTIO, little_memory);
    theme.test("two_hundred_starts_and_ends", BPF, cycles);
    theme.run()
}

fn lane() -> Lane {
    Lane::new(card::NIC0, card::GEN0)
}

fn load(sender: Sender) -> Load {
    Load::start(sender, frames::mixed(100, 1514))
}

/// A load that has arrived at port `up`.
fn arriving(lane: &Lane, daemon: &Daemon) -> Load {
    let before = daemon::port(&daemon.stats(), "up").rx.frames;
    let load = load(lane.sender());
    daemon.stats_when(LIMIT, |stats| {
        daemon::port(stats, "up").rx.frames > before + 200
    });
    load
}

fn is_up(daemon: &Daemon, port: &str, up: bool) -> Stats {
    daemon.stats_when(LIMIT, |stats| daemon::port(stats, port).up == up)
}

/// Sends frames, few at a time: what a line has to hold back it puts out of order.
fn send(daemon: &Daemon, sender: &Sender, port: &str, sent: &[Vec<u8>]) {
    for few in sent.chunks(50) {
        let before = daemon::port(&daemon.stats(), port).rx.frames;
        sender.send(few);
        daemon.stats_when(LIMIT, |stats| {
            daemon::port(stats, port).rx.frames >= before + few.len() as u64
        });
    }
}

/// Sends frames, and waits until port `port` has received them and lc0 has written them.
fn arrive(daemon: &Daemon, sender: &Sender, port: &str, sent: &[Vec<u8>]) {
    let counts = |stats: &Stats| {
        (
            daemon::port(stats, port).rx.forwarded,
            daemon::port(stats, "lc0").tx.frames,
        )
    };
    // Whatever was on its way before has come.
    let settled = daemon.stats_when(LIMIT, |stats| in_flight(stats) == 0);
    let (received, written) = counts(&settled);
    send(daemon, sender, port, sent);
    let count = sent.len() as u64;
    let stats = daemon.stats_when(LIMIT, |stats| {
        counts(stats) == (received + count, written + count)
    });
    daemon::assert_explained(&stats);
}

/// The mode that a port was granted when it was up the first time.
fn granted(daemon: &Daemon, port: &str) -> String {
    daemon::port(&is_up(daemon, port, true), port).mode.clone()
}

fn flaps(set: impl Fn(&Lane, bool)) {
    let lane = lane();
    let daemon = lane.start("", None);
    let mode = granted(&daemon, "up");
    for _ in 0..3 {
        let load = arriving(&lane, &daemon);
        set(&lane, false);
        is_up(&daemon, "up", false);
        set(&lane, true);
        let stats = is_up(&daemon, "up", true);
        daemon::assert_explained(&stats);
        assert_eq!(daemon::port(&stats, "up").mode, mode);
        load.stop();
        settle(&daemon);
    }
    arrive(&daemon, &lane.sender(), "up", &frames::mixed(200, 1514));
    daemon.stop().explained();
}

/// Waits until nothing more comes.
fn settle(daemon: &Daemon) {
    let mut before = u64::MAX;
    daemon.stats_when(LIMIT, |stats| {
        thread::sleep(Duration::from_millis(200));
        let now = daemon::port(stats, "up").rx.frames;
        std::mem::replace(&mut before, now) == now && in_flight(stats) == 0
    });
}

/// Frames of the new length arrive whole where they can; the load goes on all the while.
fn mtu() {
    let lane = lane();
    let config = lane
        .config("", None)
        .replace("kind = \"tap\"", "kind = \"tap\"\nmtu = 9000");
    let daemon = Daemon::start(&lane.inside, &config);
    let set = |mtu: u32| {
        for (ns, card) in [(&lane.outside, lane.sender), (&lane.inside, lane.nic)] {
            ns.ip(&["link", "set", card.name, "mtu", &mtu.to_string()]);
        }
        let known = wait_until(LIMIT, || {
            daemon
                .dpctl_ok(&["ports", "--json"])
                .matches(&format!("\"mtu\": {mtu},"))
                .count()
                > usize::from(mtu == 9000)
        });
        assert!(
            known,
            "mtu {mtu}: {}",
            daemon.dpctl_ok(&["ports", "--json"])
        );
        daemon::assert_explained(&is_up(&daemon, "up", true));
    };
    let load = Load::start(lane.sender(), frames::mixed(100, 1400));
    for mtu in [9000, 1400, 9000] {
        set(mtu);
        let before = daemon::port(&daemon.stats(), "up").rx.frames;
        daemon.stats_when(LIMIT, |stats| {
            daemon::port(stats, "up").rx.frames > before + 200
        });
    }
    load.stop();
    settle(&daemon);
    let long: Vec<_> = (0..50)
        .map(|number| frames::udp(number, 53, 5000))
        .collect();
    let listening = Listening::start(&lane.inside, "lc0");
    lane.sender().send(&long);
    let refused = daemon
        .stderr()
        .contains("has no AF_XDP with several buffers");
    newest_has(!refused, "AF_XDP with several buffers");
    // Refused, the driver or our program drops them: it is for `features` to say what is counted.
    if !refused {
        listening.wait_for(50, LIMIT);
        capture::assert_same(&listening.finish(), &long);
    }
    set(1500);
    settle(&daemon);
    let listening = Listening::start(&lane.inside, "lc0");
    let sent = frames::mixed(200, 1514);
    arrive(&daemon, &lane.sender(), "up", &sent);
    listening.wait_for(sent.len(), LIMIT);
    capture::assert_same(&listening.finish(), &sent);
    daemon.stop().explained();
}

fn unplugged() {
    let lane = lane();
    let daemon = lane.start("", None);
    let mode = granted(&daemon, "up");
    for _ in 0..3 {
        let load = arriving(&lane, &daemon);
        lane.unplug();
        let stats = is_up(&daemon, "up", false);
        daemon::assert_explained(&stats);
        load.stop();
        lane.plug();
        assert_eq!(daemon::port(&is_up(&daemon, "up", true), "up").mode, mode);
        arrive(&daemon, &lane.sender(), "up", &frames::mixed(200, 1514));
    }
    daemon.stop().explained();
    fact("network card taken out and put in again", "yes");
}

/// The card's mode is its own, whatever is beside it; the veth does not notice that the card goes.
fn beside_a_veth() {
    let lane = lane();
    lane.inside.veth("up1", &lane.outside, "out1");
    let config = format!(
        "[ports.other]\nkind = \"af_xdp\"\ninterface = \"up1\"\n\
         [ports.up]\nkind = \"af_xdp\"\ninterface = \"{}\"\n[ports.lc0]\nkind = \"tap\"\n\
         [[pipelines]]\nfrom = [\"up\", \"other\"]\nto = [\"lc0\"]\n",
        lane.nic.name
    );
    let daemon = Daemon::start(&lane.inside, &config);
    let mode = granted(&daemon, "up");
    assert_eq!(granted(&daemon, "other"), "copy");
    let veth = Sender::open(&lane.outside, "out1");
    let sent = frames::mixed(200, 1514);
    arrive(&daemon, &lane.sender(), "up", &sent);
    arrive(&daemon, &veth, "other", &sent);
    lane.unplug();
    is_up(&daemon, "up", false);
    arrive(&daemon, &veth, "other", &sent);
    lane.plug();
    let stats = is_up(&daemon, "up", true);
    assert_eq!(daemon::port(&stats, "up").mode, mode);
    assert_eq!(daemon::port(&stats, "other").mode, "copy");
    arrive(&daemon, &lane.sender(), "up", &sent);
    arrive(&daemon, &veth, "other", &sent);
    daemon.stop().explained();
    fact(
        "a card and a veth on one worker, each in its own mode",
        &format!("yes ({mode} and copy)"),
    );
}

fn two_daemons() {
    let lanes = [lane(), Lane::new(card::NIC1, card::GEN1)];
    let daemons = lanes.each_ref().map(|lane| lane.start("", None));
    let listening = lanes
        .each_ref()
        .map(|lane| Listening::start(&lane.inside, "lc0"));
    let sent = [frames::mixed(300, 1514), frames::mixed(500, 900)];
    for ((lane, daemon), sent) in lanes.iter().zip(&daemons).zip(&sent) {
        send(daemon, &lane.sender(), "up", sent);
    }
    for ((daemon, listening), sent) in daemons.iter().zip(listening).zip(&sent) {
        daemon.stats_when(LIMIT, |stats| {
            daemon::port(stats, "lc0").tx.frames == sent.len() as u64
        });
        listening.wait_for(sent.len(), LIMIT);
        capture::assert_same(&listening.finish(), sent);
    }
    for daemon in daemons {
        daemon.stop().explained();
    }
}

/// Nothing of a killed daemon is left, and the next one starts as the first did.
fn sigkill() {
    let lane = lane();
    let load = load(lane.sender());
    let mut modes = Vec::new();
    for _ in 0..5 {
        let daemon = lane.start("", None);
        daemon.stats_when(LIMIT, |stats| daemon::port(stats, "up").rx.frames > 200);
        modes.push(granted(&daemon, "up"));
        daemon.signal(Signal::SIGKILL);
        assert_eq!(daemon.wait(LIMIT).code, None);
        let gone = wait_until(LIMIT, || {
            !lane.inside.has_link("lc0")
                && !lane
                    .inside
                    .ip(&["-d", "link", "show", lane.nic.name])
                    .contains("xdp")
        });
        assert!(
            gone,
            "something is left: {}",
            lane.inside.ip(&["-d", "link"])
        );
    }
    modes.dedup();
    assert_eq!(modes.len(), 1, "{modes:?}");
    load.stop();
    let daemon = lane.start("", None);
    settle(&daemon);
    arrive(&daemon, &lane.sender(), "up", &frames::mixed(200, 1514));
    daemon.stop().explained();
}

/// A number of /proc/meminfo.
fn memory(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
    let line = text
        .lines()
        .find(|line| line.split(':').next() == Some(name));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// Frame memory is on huge pages where some are reserved, and given back.
fn huge_pages() {
    const RESERVED: &str = "/proc/sys/vm/nr_hugepages";
    let reserved = Setting::set(RESERVED, "32");
    let all = memory("HugePages_Free");
    assert!(all >= 16, "no huge pages are to be had: {all}");
    let lane = lane();
    let preamble = |socket: &std::path::Path| {
        format!(
            "[engine]\ncores = \"0\"\nhugepages = \"require\"\n[control]\nsocket = \"{}\"\n",
            socket.display()
        )
    };
    let daemon = Daemon::spawn_in(
        &lane.inside,
        daemon::folder(),
        &lane.config("", None),
        preamble,
    )
    .ready();
    let mode = granted(&daemon, "up");
    let ports = daemon.dpctl_ok(&["ports"]);
    assert!(ports.contains("huge pages"), "{ports}");
    arrive(&daemon, &lane.sender(), "up", &frames::mixed(200, 1514));
    let used = all - memory("HugePages_Free");
    // 8,192 slots of 2,048 bytes.
    assert!(used >= 8, "{used} huge pages of 2 MiB in use");
    daemon.stop().explained();
    let back = wait_until(LIMIT, || memory("HugePages_Free") == all);
    assert!(back, "{} of {all} are free", memory("HugePages_Free"));
    drop(reserved);
    fact("frame memory on huge pages", &format!("yes ({mode})"));
}

/// Memory that is filled up while this is there.
struct Filled;

impl Filled {
    const FOLDER: &str = "/tmp/dpt-fill";

    /// Leaves so many MiB.
    fn all_but(mib: u64) -> Self {
        fs::create_dir_all(Self::FOLDER).expect("a folder");
        run(
            "mount",
            &["-t", "tmpfs", "-o", "size=100%", "tmpfs", Self::FOLDER],
        );
        let filled = Self;
        let count = (memory("MemAvailable") / 1024).saturating_sub(mib);
        let file = format!("of={}/file", Self::FOLDER);
        Tool::new("dd")
            .args(["if=/dev/zero", &file, "bs=1M", &format!("count={count}")])
            .limit(LIMIT)
            .output();
        filled
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        Tool::new("umount").arg(Self::FOLDER).output();
    }
}

/// A number of the kernel's, another while this is there.
struct Setting(&'static str, String);

impl Setting {
    fn set(path: &'static str, value: &str) -> Self {
        let was = fs::read_to_string(path).expect("a setting");
        fs::write(path, value).expect("root may");
        Self(path, was)
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = fs::write(self.0, &self.1);
    }
}

/// With hardly any memory free, and so little room for what is transmitted that the kernel refuses most kicks (EAGAIN): the
/// counters explain every frame all the while, and when there is memory again, all frames arrive at both sinks.
fn little_memory() {
    let lane = lane();
    lane.inside.veth("up1", &lane.outside, "out1");
    let config = format!(
        "[ports.up]\nkind = \"af_xdp\"\ninterface = \"{}\"\n[ports.back]\nkind = \"af_xdp\"\ninterface = \"up1\"\n\
         [ports.lc0]\nkind = \"tap\"\n[[pipelines]]\nfrom = [\"up\"]\nto = [\"lc0\", \"back\"]\n",
        lane.nic.name
    );
    // Two frames of the longest fill it.
    let small = Setting::set("/proc/sys/net/core/wmem_default", "4608");
    let daemon = Daemon::start(&lane.inside, &config);
    drop(small);
    let sent = frames::mixed(200, 1514);
    arrive(&daemon, &lane.sender(), "up", &sent);
    let filled = Filled::all_but(40);
    assert!(
        memory("MemAvailable") < 120 * 1024,
        "{} KiB",
        memory("MemAvailable")
    );
    let load = load(lane.sender());
    let before = daemon::port(&daemon.stats(), "up").rx.frames;
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        daemon::assert_explained(&daemon.stats());
        thread::sleep(Duration::from_millis(200));
    }
    let under_pressure = daemon::port(&daemon.stats(), "up").rx.frames - before;
    assert!(
        under_pressure > 200,
        "{under_pressure} frames under pressure"
    );
    load.stop();
    drop(filled);
    settle(&daemon);
    let before = daemon::port(&daemon.stats(), "back").tx.frames;
    arrive(&daemon, &lane.sender(), "up", &sent);
    daemon.stats_when(LIMIT, |stats| {
        daemon::port(stats, "back").tx.frames == before + sent.len() as u64
    });
    daemon.stop().explained();
}

/// What the kernel keeps of programs and maps, files, and memory that nobody uses.
#[derive(Debug)]
struct Kept {
    programs: usize,
    maps: usize,
    files: u64,
    /// KiB of memory that is neither free nor to be had.
    memory: u64,
}

impl Kept {
    fn now() -> Self {
        let count = |what: &str| {
            let list = run("bpftool", &["--json", what, "list"]);
            serde_json::from_str::<Vec<serde_json::Value>>(&list)
                .expect("a list in JSON")
                .len()
        };
        let files = fs::read_to_string("/proc/sys/fs/file-nr").expect("/proc");
        let files = files.split_whitespace().next().and_then(|n| n.parse().ok());
        fs::write("/proc/sys/vm/drop_caches", "3").expect("root may");
        Self {
            programs: count("prog"),
            maps: count("map"),
            files: files.expect("a number"),
            memory: memory("MemTotal") - memory("MemAvailable"),
        }
    }
}

/// 200 starts and ends on two cards at a time, each of which moves frames: afterwards the kernel keeps no more than after
/// the first twenty.
fn cycles() {
    let lanes = [lane(), Lane::new(card::NIC1, card::GEN1)];
    let sent = frames::mixed(10, 1514);
    let cycle = |lane: &Lane| {
        let daemon = Daemon::start(&lane.inside, &lane.config("", None));
        lane.sender().send(&sent);
        daemon.stats_when(LIMIT, |stats| daemon::port(stats, "lc0").tx.frames >= 10);
        daemon.stop().explained();
    };
    let cycles = |count: usize| {
        thread::scope(|scope| {
            for lane in &lanes {
                let cycle = &cycle;
                scope.spawn(move || (0..count).for_each(|_| cycle(lane)));
            }
        });
    };
    cycles(10);
    let before = Kept::now();
    cycles(CYCLES / 2 - 10);
    // What is given back after a grace period of RCU, or by a worker of the kernel's, is given back soon.
    let mut after = Kept::now();
    let same = wait_until(LIMIT, || {
        after = Kept::now();
        after.programs <= before.programs
            && after.maps <= before.maps
            && after.files <= before.files + 64
            // A daemon has some 25 MiB: of 180, less than two.
            && after.memory < before.memory + 48 * 1024
    });
    assert!(same, "something is left: {before:?}, {after:?}");
    fact(
        &format!("{CYCLES} starts and ends leave nothing in the kernel"),
        "yes",
    );
}
