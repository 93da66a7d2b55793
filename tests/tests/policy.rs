//! Policies exchanged while frames flow: no frame is lost beyond what the policy in force says, and
//! each change has its generation, acknowledged by every worker.

use std::{fs, process::ExitCode, time::Duration};

use tests::{
    Bench, Need, Theme,
    bench::in_flight,
    capture::{self, Listening},
    daemon, frames,
    send::Load,
};

const ROOT: &[Need] = &[Need::Root];
const LIMIT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut theme = Theme::new();
    const LISTEN: &[Need] = &[Need::Root, Need::Tool("tcpdump")];
    theme.test("equal_policies_lose_nothing", ROOT, equal_policies);
    theme.test("allow_and_remove", LISTEN, allow_and_remove);
    theme.test("show_is_fit_for_replace", ROOT, show_and_replace);
    theme.run()
}

/// The number in `generation N, in force …`.
fn generation(printed: &str) -> u64 {
    let number = printed
        .strip_prefix("generation ")
        .and_then(|rest| rest.split(',').next());
    number
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("no generation in {printed:?}"))
}

/// A hundred exchanges under load, each of which allows port 53: not one frame to it is denied.
fn equal_policies() {
    let bench = Bench::new();
    let daemon = bench.start("", Some("allow = [{ proto = \"udp\", ports = \"53\" }]"));
    let files = ["\"53\"", "\"50-60\"", "\"1,53\"", "\"53,1000-2000\""].map(|ports| {
        let file = daemon.folder().join(format!("{}.toml", ports.len()));
        fs::write(
            &file,
            format!("allow = [{{ proto = \"udp\", ports = {ports} }}]"),
        )
        .expect("our own folder");
        file.display().to_string()
    });
    let load = Load::start(bench.sender(), frames::mixed(100, 200));
    daemon.stats_when(LIMIT, |stats| daemon::port(stats, "up").rx.frames > 1_000);
    for (last, file) in (1..).zip(files.iter().cycle().take(100)) {
        let printed = daemon.dpctl_ok(&["policy", "replace", "p", file]);
        assert!(printed.contains("in force on every worker"), "{printed}");
        assert_eq!(generation(&printed), last + 1, "{printed}");
    }
    load.stop();
    daemon.stats_when(LIMIT, |stats| in_flight(stats) == 0);
    let stats = daemon.stop().explained();
    assert_eq!(stats.generation, 101);
    let pipeline = &stats.pipelines[0];
    assert!(pipeline.received > 1_000);
    assert_eq!(pipeline.judged, pipeline.received);
    assert_eq!(pipeline.forwarded, pipeline.received, "{stats:#?}");
}

/// What is heard changes with each rule, from the moment that dpctl answers.
fn allow_and_remove() {
    let bench = Bench::new();
    let daemon = bench.start("", Some("allow = []"));
    let listening = Listening::start(&bench.inside, "lc0");
    let sender = bench.sender();
    let number = std::cell::Cell::new(0);
    let mut want = Vec::new();
    let mut send = |passes: bool| {
        let frame = frames::udp(number.replace(number.get() + 1), 53, 100);
        sender.send(std::slice::from_ref(&frame));
        let sent = u64::from(number.get());
        daemon.stats_when(LIMIT, |s| {
            s.pipelines[0].received == sent && in_flight(s) == 0
        });
        if passes {
            want.push(frame);
        }
    };
    send(false);
    for round in 0..5 {
        let allowed = daemon.dpctl_ok(&["policy", "allow", "p", "proto=udp,ports=53"]);
        assert_eq!(generation(&allowed), 2 + round * 2);
        send(true);
        let removed = daemon.dpctl_ok(&[
            "policy",
            "remove",
            "p",
            "{ proto = \"udp\", ports = \"53\" }",
        ]);
        assert_eq!(generation(&removed), 3 + round * 2);
        send(false);
    }
    listening.wait_for(want.len(), LIMIT);
    let stats = daemon.stop().explained();
    capture::assert_same(&listening.after_the_device(), &want);
    assert_eq!(stats.pipelines[0].dropped["not_allowed"], 6);
}

/// What `show` prints can be given back; what is wrong is refused with its place, and changes nothing.
fn show_and_replace() {
    let bench = Bench::new();
    let rules = "allow = [
        { proto = \"tcp\", to = \"10.0.0.0/8\", ports = \"80,443,8000-8100\", replies = true },
        { proto = \"icmp\", icmp = \"echo\", from = \"10.0.0.1\" },
        { proto = \"udp\", to = \"fd00::/8\", from_ports = \"53\" },
    ]";
    let daemon = bench.start("", Some(rules));
    let shown = daemon.dpctl_ok(&["policy", "show", "p"]);
    assert!(
        shown.contains("8000-8100") && shown.contains("fd00::/8"),
        "{shown}"
    );
    let file = daemon.folder().join("shown.toml");
    fs::write(&file, &shown).expect("our own folder");
    let path = file.display().to_string();
    assert_eq!(
        generation(&daemon.dpctl_ok(&["policy", "replace", "p", &path])),
        2
    );
    let again = daemon.dpctl_ok(&["policy", "show", "p"]);
    assert_eq!(again, shown.replace("generation 1", "generation 2"));

    for (arguments, fragments) in [
        (&["policy", "show", "q"][..], &["no policy q", "p"][..]),
        (
            &["policy", "remove", "p", "proto=udp"],
            &["no rule", "policy show p"],
        ),
        (&["policy", "allow", "p", "proto=upd"], &["upd", "udp"]),
        (&["policy", "allow", "p", "prot=udp"], &["prot", "proto"]),
    ] {
        let refused = daemon.dpctl(arguments);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}: {said}");
        for fragment in fragments {
            assert!(
                said.contains(fragment),
                "{arguments:?}: {fragment} in {said}"
            );
        }
    }
    assert_eq!(daemon.dpctl_ok(&["policy", "show", "p"]), again);
    daemon.stop().explained();
}
