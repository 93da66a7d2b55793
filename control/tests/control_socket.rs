//! The control socket against callers of every sort: well-behaved, mistaken, slow and hostile.

mod fake;

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use control::{
    api::{
        client::{Client, ClientError},
        protocol::{Applied, MAX_LINE, PolicyText, PortInfo, Request, Stopping, Version},
        server::MAX_CONNECTIONS,
    },
    stats::Stats,
};
use fake::Daemon;

fn connect(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(daemon.path()).unwrap();
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).unwrap();
    stream.set_write_timeout(limit).unwrap();
    stream
}

fn client(daemon: &Daemon) -> Client {
    Client::connect(&[daemon.path().to_owned()]).unwrap()
}

/// What comes back for `bytes`, up to the end of its line.
fn ask(daemon: &Daemon, bytes: &[u8]) -> String {
    let mut stream = connect(daemon);
    // Cut short when the server has read enough to refuse it.
    let _ = stream.write_all(bytes);
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn each_request_has_its_answer() {
    let daemon = Daemon::start();
    let mut client = client(&daemon);
    let name = || "web".to_owned();
    let rule = || "{ proto = \"tcp\" }".to_owned();

    let version: Version = client.call(&Request::Version {}).unwrap();
    assert_eq!(version.pid, std::process::id());
    assert_eq!(client.peer(), Some(std::process::id()));
    let stats: Stats = client.call(&Request::Stats {}).unwrap();
    assert_eq!(stats.ports["uplink"].rx.frames, 1000);
    let ports: Vec<PortInfo> = client.call(&Request::Ports {}).unwrap();
    assert_eq!(ports[0].listeners[0].name, "tcpdump");
    let allow = Request::PolicyAllow {
        name: name(),
        rule: rule(),
    };
    let applied: Applied = client.call(&allow).unwrap();
    assert_eq!(applied.generation, 1);
    let text: PolicyText = client.call(&Request::PolicyShow { name: name() }).unwrap();
    assert_eq!(text.rules, "allow = [ { proto = \"tcp\" } ]\n");
    let remove = Request::PolicyRemove {
        name: name(),
        rule: rule(),
    };
    client.call::<Applied>(&remove).unwrap();
    let refused = client.call::<Applied>(&remove).unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(_)), "{refused}");
    assert_eq!(refused.to_string(), "the policy has no such rule");
    let replace = Request::PolicyReplace {
        name: name(),
        rules: "allow = []".to_owned(),
    };
    let applied: Applied = client.call(&replace).unwrap();
    assert_eq!(applied.generation, 3);
    assert!(!daemon.fake.stopped());
    client.call::<Stopping>(&Request::Stop {}).unwrap();
    assert!(daemon.fake.stopped());
}

#[test]
fn what_is_no_request_is_answered_with_the_reason() {
    let daemon = Daemon::start();
    let cases: [(&[u8], &str); 15] = [
        (b"\n", "EOF while parsing"),
        (b"hello\n", "expected value"),
        (b"\xff\xfe\x00\x01\n", "expected value"),
        (b"{\"op\":\"\xff\"}\n", "invalid unicode"),
        (b"{\"op\":\"stats\"\n", "EOF while parsing"),
        (
            b"{\"op\":\"stats\"}{\"op\":\"stop\"}\n",
            "trailing characters",
        ),
        (b"{\"op\":\"stats\",\"nmae\":1}\n", "unknown field `nmae`"),
        (b"{\"op\":\"reboot\"}\n", "unknown variant `reboot`"),
        (b"{\"op\":7}\n", "variant identifier"),
        (b"{}\n", "missing field `op`"),
        (b"[]\n", "not a request"),
        (b"\"stop\"\n", "not a request"),
        (b"{\"op\":\"policy_show\"}\n", "missing field `name`"),
        (b"{\"op\":\"policy_show\",\"name\":7}\n", "invalid type"),
        (b"{\"op\":\"policy_show\",\"name\":\"wbe\"}\n", "no policy"),
    ];
    for (request, reason) in cases {
        let line = ask(&daemon, request);
        let reply: serde_json::Value = serde_json::from_str(&line).unwrap();
        let message = reply["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(reason), "{request:?}: {line}");
        assert!(!message.contains('\n'), "{line}");
    }
    let deep = [b"{\"a\":".to_vec(), vec![b'['; 100_000], b"\n".to_vec()].concat();
    let line = ask(&daemon, &deep);
    assert!(line.contains("recursion limit"), "{line}");
    assert!(!daemon.fake.stopped());
}

#[test]
fn requests_may_come_in_one_piece_or_in_many() {
    let daemon = Daemon::start();
    let mut stream = connect(&daemon);
    stream
        .write_all(b"{\"op\":\"version\"}\n{\"op\":\"nonsense\"}\n{\"op\":\"stats\"}\n{\"op\":\"po")
        .unwrap();
    for &byte in b"rts\"}\n" {
        stream.write_all(&[byte]).unwrap();
    }
    let mut lines = BufReader::new(stream).lines();
    for expected in [
        "{\"ok\":{\"version\":",
        "{\"error\":",
        "{\"ok\":{\"version\":1,",
        "{\"ok\":[{",
    ] {
        let line = lines.next().unwrap().unwrap();
        assert!(line.starts_with(expected), "{line}");
    }
}

#[test]
fn half_a_request_does_nothing() {
    let daemon = Daemon::start();
    // Valid JSON as far as it goes: only the newline says that it is all.
    connect(&daemon).write_all(b"{\"op\":\"stop\"}").unwrap();
    connect(&daemon).write_all(b"{\"op\":\"st").unwrap();
    drop(connect(&daemon));
    client(&daemon).call::<Stats>(&Request::Stats {}).unwrap();
    assert!(!daemon.fake.stopped());
}

#[test]
fn an_overlong_request_is_refused_and_a_long_one_is_not() {
    let daemon = Daemon::start();
    let line = ask(&daemon, &vec![b'x'; MAX_LINE]);
    assert!(line.contains("longer than 67108864 bytes"), "{line}");

    let mut client = client(&daemon);
    let rule = "{ to = \"10.0.0.1\" }, ".repeat(400_000);
    let replace = Request::PolicyReplace {
        name: "web".into(),
        rules: format!("allow = [{rule}]"),
    };
    let applied: Applied = client.call(&replace).unwrap();
    assert_eq!(applied.generation, 1);
    let show = Request::PolicyShow { name: "web".into() };
    let shown: PolicyText = client.call(&show).unwrap();
    assert!(shown.rules.len() > 8_000_000);
}

#[test]
fn unfinished_requests_share_one_budget() {
    let daemon = Daemon::start();
    let large = vec![b'x'; MAX_LINE / 2 + 1];
    let hoarders: Vec<UnixStream> = (0..4)
        .map(|_| {
            let mut stream = connect(&daemon);
            stream.write_all(&large).unwrap();
            stream
        })
        .collect();
    // What was written last may not have been read yet.
    let deadline = Instant::now() + Duration::from_secs(10);
    let refused = loop {
        let line = ask(&daemon, &[vec![b' '; 1 << 20], b"{}\n".to_vec()].concat());
        if line.contains("too many large requests") || Instant::now() > deadline {
            break line;
        }
    };
    assert!(refused.contains("too many large requests"), "{refused}");
    // Small ones need no budget, and what ended has given its share back.
    client(&daemon).call::<Stats>(&Request::Stats {}).unwrap();
    drop(hoarders);
    let freed = loop {
        let line = ask(&daemon, &[vec![b' '; 1 << 20], b"{}\n".to_vec()].concat());
        if line.contains("missing field") || Instant::now() > deadline {
            break line;
        }
    };
    assert!(freed.contains("missing field"), "{freed}");
}

#[test]
fn fifty_callers_at_once_are_all_answered() {
    let daemon = Daemon::start();
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let mut client = client(&daemon);
                for _ in 0..20 {
                    client.call::<Stats>(&Request::Stats {}).unwrap();
                    let allow = Request::PolicyAllow {
                        name: "web".into(),
                        rule: "{}".into(),
                    };
                    client.call::<Applied>(&allow).unwrap();
                }
            });
        }
    });
    let mut client = client(&daemon);
    let show = Request::PolicyShow { name: "web".into() };
    assert_eq!(client.call::<PolicyText>(&show).unwrap().generation, 1000);
}

#[test]
fn those_who_keep_us_waiting_give_way() {
    let daemon = Daemon::start();
    let silent: Vec<UnixStream> = (0..MAX_CONNECTIONS * 2).map(|_| connect(&daemon)).collect();
    let mut deaf = connect(&daemon);
    // Asks without end and never reads: its thread comes to wait for it in writing.
    deaf.set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    while deaf.write_all(b"{\"op\":\"stats\"}\n").is_ok() {}
    let started = Instant::now();
    client(&daemon).call::<Stats>(&Request::Stats {}).unwrap();
    // Far less than the minute that silence is borne.
    assert!(started.elapsed() < Duration::from_secs(20));
    // The first were cut off.
    let mut first = &silent[0];
    assert_eq!(first.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn the_end_of_the_server_is_prompt_and_leaves_nothing() {
    let daemon = Daemon::start();
    let path = daemon.path().to_owned();
    let _idle = connect(&daemon);
    let mut half = connect(&daemon);
    half.write_all(b"{\"op\":").unwrap();
    let mut stopping = client(&daemon);
    stopping.call::<Stopping>(&Request::Stop {}).unwrap();
    let Daemon { server, .. } = daemon;
    let started = Instant::now();
    drop(server);
    // It waits neither for silence to end nor for the half line.
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(!path.exists());
    let lost = stopping.call::<Stats>(&Request::Stats {}).unwrap_err();
    assert!(matches!(lost, ClientError::Lost { .. }), "{lost}");
}

#[test]
fn those_who_are_no_dataplane_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let other = std::os::unix::net::UnixListener::bind(at("other")).unwrap();
    let answering = thread::spawn(move || {
        for answer in ["220 hello\n", "half"] {
            let (mut stream, _) = other.accept().unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
        }
    });
    let call = |path: &Path| {
        let mut client = Client::connect(&[path.to_owned()])?;
        client.call::<Stats>(&Request::Stats {})
    };
    let expected = ["does not answer as a dataplane does", "gave no answer"];
    for expected in expected {
        let message = call(&at("other")).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    answering.join().unwrap();
    // The first that exists is spoken of, or else the first.
    for (paths, named) in [
        ([at("a"), at("b")], "/a:"),
        ([at("a"), at("other")], "/other:"),
    ] {
        let message = Client::connect(&paths).unwrap_err().to_string();
        assert!(
            message.contains(named) && message.contains("no dataplane listens"),
            "{message}"
        );
    }
}
