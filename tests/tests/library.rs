//! The library for programs that have frames of their own: the example in docs/examples as it stands, and its
//! device, against real listeners.

use std::{
    fs,
    io::Write,
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use control::link::netns::{NetNs, in_netns};
use dataplane::lc::{Lc, LcError};
use tests::{
    Need, Netns, Theme,
    capture::{self, Listening},
    daemon, frames, wait_until,
};

const LISTEN: &[Need] = &[Need::Root, Need::Tool("tcpdump")];

/// How long frames may take through a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut theme = Theme::new();
    theme.test("the_example", LISTEN, the_example);
    theme.test("every_frame_is_heard", LISTEN, every_frame_is_heard);
    theme.test("a_device_is_silent", &[Need::Root], a_device_is_silent);
    theme.test("a_device_that_goes_down", &[Need::Root], goes_down);
    theme.test("a_device_that_is_removed", &[Need::Root], is_removed);
    theme.test("a_name_in_use", &[Need::Root], a_name_in_use);
    theme.run()
}

/// Runs work in a namespace, in a thread of its own: a device is made where its thread is.
fn within<R: Send>(ns: &Netns, work: impl FnOnce() -> R + Send) -> R {
    let there = NetNs::open(ns.name()).expect("our own namespace");
    in_netns(&there, work).expect("our own namespace")
}

/// The example, killed when the test ends.
struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(ns: &Netns) -> Example {
    let program = daemon::binary("examples/inject");
    let child = Command::new("ip")
        .args(["netns", "exec", ns.name()])
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ip");
    Example(child)
}

fn the_example() {
    let ns = Netns::new();
    let mut example = start(&ns);
    let up = wait_until(LIMIT, || {
        ns.has_link("lc0") && ns.ip(&["link", "show", "lc0"]).contains("NOARP,UP")
    });
    assert!(up, "no lc0");
    let listening = Listening::start(&ns, "lc0");
    let lines: Vec<String> = (0..100).map(|n| "x".repeat(n) + "end").collect();
    let mut input = example.0.stdin.take().expect("piped");
    for line in &lines {
        writeln!(input, "{line}").expect("it reads");
    }
    let heard = listening.wait_for(lines.len(), LIMIT);
    drop(input);
    let mut ended = None;
    wait_until(LIMIT, || {
        ended = example.0.try_wait().expect("our own child");
        ended.is_some()
    });
    assert!(ended.is_some_and(|code| code.success()), "{ended:?}");
    listening.after_the_device();
    let payloads: Vec<&[u8]> = heard.iter().map(|frame| &frame[14 + 20 + 8..]).collect();
    let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
    assert_eq!(payloads, lines);

    // Without privilege it says what is missing.
    let program = fs::read(daemon::binary("examples/inject")).expect("built");
    let folder = daemon::folder();
    let copy = folder.path().join("inject");
    fs::write(&copy, program).expect("our own folder");
    tests::run("chmod", &["755", copy.to_str().expect("UTF-8")]);
    let refused = tests::process::tool_as_nobody(&[copy.to_str().expect("UTF-8")]).output();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("inject: cannot "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

fn every_frame_is_heard() {
    let ns = Netns::new();
    let mut sent = frames::mixed(5_000, 9_000);
    sent.push(vec![7; 14]);
    sent.push(vec![8; 9_022]);
    let (heard, counters) = within(&ns, || {
        let mut lc = Lc::builder("lc0").mtu(9_000).create().expect("a device");
        assert!(lc.notes().is_empty(), "{:?}", lc.notes());
        let listening = Listening::start(&ns, "lc0");
        for frame in &sent {
            lc.write(frame).expect("written");
        }
        for wrong in [vec![0; 13], vec![0; 9_023]] {
            let error = lc.write(&wrong).expect_err("a wrong length");
            assert!(matches!(error, LcError::Length { .. }), "{error}");
        }
        lc.flush().expect("written");
        listening.wait_for(sent.len(), LIMIT);
        let counters = *lc.counters();
        drop(lc);
        (listening.after_the_device(), counters)
    });
    capture::assert_same(&heard, &sent);
    let bytes: usize = sent.iter().map(Vec::len).sum();
    assert_eq!(counters.frames, sent.len() as u64);
    assert_eq!(counters.bytes, bytes as u64);
    assert_eq!((counters.in_flight(), counters.dropped.total()), (0, 0));
    assert!(wait_until(LIMIT, || !ns.has_link("lc0")), "lc0 is left");
}

fn a_device_is_silent() {
    let ns = Netns::new();
    within(&ns, || {
        let lc = Lc::create("lc0").expect("a device");
        let link = ns.ip(&["link", "show", "dev", lc.name()]);
        assert!(link.contains("NOARP") && link.contains("UP"), "{link}");
        let addresses = ns.ip(&["address", "show", "dev", "lc0"]);
        assert!(!addresses.contains("inet"), "{addresses}");
    });
}

fn goes_down() {
    let ns = Netns::new();
    within(&ns, || {
        let mut lc = Lc::create("lc0").expect("a device");
        ns.ip(&["link", "set", "lc0", "down"]);
        for number in 0..10 {
            lc.write(&frames::udp(number, 53, 60)).expect("gathered");
        }
        let error = lc.flush().expect_err("down").to_string();
        for words in ["lc0", "10 frames", "link_down", "ip link set lc0 up"] {
            assert!(error.contains(words), "{words}: {error}");
        }
        ns.ip(&["link", "set", "lc0", "up"]);
        lc.write(&frames::udp(10, 53, 60)).expect("gathered");
        lc.flush().expect("up again");
        assert_eq!((lc.counters().frames, lc.counters().offered), (1, 11));
    });
}

fn is_removed() {
    let ns = Netns::new();
    within(&ns, || {
        let mut lc = Lc::create("lc0").expect("a device");
        ns.ip(&["link", "delete", "lc0"]);
        for _ in 0..2 {
            lc.write(&frames::udp(1, 53, 60)).expect("gathered");
            let error = lc.flush().expect_err("gone");
            assert!(matches!(error, LcError::Gone(_)), "{error}");
        }
        assert_eq!(lc.counters().dropped.total(), 2);
    });
}

fn a_name_in_use() {
    let ns = Netns::new();
    within(&ns, || {
        let _lc = Lc::create("lc0").expect("a device");
        for name in ["lc0", "lo"] {
            let error = Lc::create(name).expect_err("in use").to_string();
            for words in [name, "choose another name"] {
                assert!(error.contains(words), "{error}");
            }
        }
        let error = Lc::builder("lc1").mtu(67).create().expect_err("no MTU");
        assert!(error.to_string().contains("68 to 65521"), "{error}");
        assert!(wait_until(LIMIT, || !ns.has_link("lc1")), "lc1 is left");
    });
}
