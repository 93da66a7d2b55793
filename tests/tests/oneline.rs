//! Runs without a configuration: the flags do what they say, and `--print-config` says what they do.

use std::{
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{ExitCode, Output},
    time::Duration,
};

use control::{
    link::netns::{NetNs, in_netns},
    stats::Stats,
};
use nix::sys::signal::Signal;
use tests::{
    Bench, Daemon, Need, Netns, Theme, Tool,
    capture::{self, ETHERNET, Endian, Format, Listening, Record},
    daemon::{self, binary, folder},
    frames,
    process::{run, tool_as_nobody},
    wait_until,
};

const LISTEN: &[Need] = &[Need::Root, Need::Tool("tcpdump")];
const ROOT: &[Need] = &[Need::Root];
const TCPDUMP: &[Need] = &[Need::Tool("tcpdump")];

/// How long a run may take.
const LIMIT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let mut theme = Theme::new();
    theme.test("file_to_lc0", LISTEN, file_to_lc0);
    theme.test(
        "file_to_a_device_in_a_namespace",
        LISTEN,
        device_in_a_namespace,
    );
    theme.test("file_to_an_interface", LISTEN, file_to_an_interface);
    theme.test("allow", LISTEN, allow);
    theme.test(
        "interface_without_an_address",
        LISTEN,
        interface_without_an_address,
    );
    theme.test(
        "interface_with_an_address",
        LISTEN,
        interface_with_an_address,
    );
    theme.test("file_to_standard_output", LISTEN, file_to_standard_output);
    theme.test(
        "no_place_for_a_socket",
        &[Need::Root],
        no_place_for_a_socket,
    );
    theme.test(
        "side_by_side",
        &[Need::Root, Need::Tool("tcpdump")],
        side_by_side,
    );
    theme.test("standard_input_to_files", TCPDUMP, standard_input_to_files);
    theme.test("hangup_under_nohup", &[], hangup_under_nohup);
    theme.test("printed_is_planned", ROOT, printed_is_planned);
    theme.test("files_are_written_out", &[], files_are_written_out);
    theme.test("nothing_to_do", &[], nothing_to_do);
    theme.test("quiet", &[], quiet);
    theme.run()
}

/// A capture file in a folder of its own, and its frames.
struct Sample {
    folder: tempfile::TempDir,
    frames: Vec<Vec<u8>>,
}

impl Sample {
    /// UDP to port 53, longest 1,514 bytes.
    fn new() -> Self {
        Self::of(frames::mixed(200, 1514))
    }

    fn of(frames: Vec<Vec<u8>>) -> Self {
        let folder = folder();
        capture::write(&folder.path().join("sample.pcap"), &frames);
        Self { folder, frames }
    }

    fn path(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        path.to_str().expect("UTF-8").to_owned()
    }

    fn file(&self) -> String {
        self.path("sample.pcap")
    }
}

/// `dataplane` with arguments, to its end.
fn dataplane(arguments: &[&str]) -> Output {
    Tool::new(binary("dataplane")).args(arguments).output()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn assert_done(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
}

/// What a capture file of any kind holds, by way of tcpdump.
fn recorded(path: &str) -> Vec<Record> {
    let plain = format!("{path}.plain");
    run("tcpdump", &["-r", path, "-w", &plain]);
    let (link_type, records) = capture::decode(&fs::read(&plain).expect("written")).expect("sound");
    assert_eq!(link_type, ETHERNET);
    records
}

fn written(stats: &Stats, port: &str) -> u64 {
    daemon::port(stats, port).tx.frames
}

fn file_to_lc0() {
    let (ns, sample) = (Netns::new(), Sample::new());
    let daemon = Daemon::spawn_flags(&ns, &["-r", &sample.file(), "--pace", "20x"]).ready();
    let listening = Listening::start(&ns, "lc0");
    let stats = daemon.wait(LIMIT).explained();
    capture::assert_same(&listening.after_the_device(), &sample.frames);
    assert_eq!(written(&stats, "lc0"), 200);
}

/// The daemon is in one namespace, what `--to` names in another.
fn device_in_a_namespace() {
    let (ns, ids, sample) = (Netns::new(), Netns::new(), Sample::new());
    let flags = [
        "-r",
        &sample.file(),
        "--to",
        "ids0",
        "--netns",
        ids.name(),
        "--pace",
        "top",
    ];
    let daemon = Daemon::spawn_flags(&ns, &flags).ready();
    let listening = Listening::start(&ids, "ids0");
    let stats = daemon.wait(LIMIT).explained();
    capture::assert_same(&listening.after_the_device(), &sample.frames);
    assert_eq!(written(&stats, "ids0"), 200);
}

fn file_to_an_interface() {
    let (bench, sample) = (Bench::new(), Sample::new());
    let listening = Listening::start(&bench.outside, "out0");
    let flags = ["-r", &sample.file(), "--to", "up0", "--pace", "5000pps"];
    let stats = Daemon::spawn_flags(&bench.inside, &flags)
        .wait(LIMIT)
        .explained();
    assert_eq!(written(&stats, "up0"), 200);
    listening.wait_for(200, LIMIT);
    capture::assert_same(&listening.finish(), &sample.frames);
}

/// Two rules make one policy; what neither allows is dropped and counted.
fn allow() {
    let mut all = Vec::new();
    for number in 0..30 {
        all.push(frames::udp(number, [53, 67, 123][number as usize % 3], 100));
    }
    all.push(frames::arp());
    let (ns, sample) = (Netns::new(), Sample::of(all.clone()));
    let flags = [
        "-r",
        &sample.file(),
        "--pace",
        "top",
        "--allow",
        "proto=udp,ports=53",
        "--allow",
        "{ proto = \"udp\", ports = \"100-200\" }",
    ];
    let daemon = Daemon::spawn_flags(&ns, &flags).ready();
    let shown = daemon.dpctl_ok(&["policy", "show", "allow"]);
    assert!(
        shown.contains("100-200") && shown.contains("\"53\""),
        "{shown}"
    );
    let listening = Listening::start(&ns, "lc0");
    let stats = daemon.wait(LIMIT).explained();
    let passes = |(i, _): &(usize, &Vec<u8>)| i % 3 != 1 || *i == 30;
    let passed: Vec<_> = all
        .iter()
        .enumerate()
        .filter(passes)
        .map(|(_, f)| f.clone())
        .collect();
    capture::assert_same(&listening.after_the_device(), &passed);
    let dropped = daemon::port(&stats, "file").rx.dropped.get("not_allowed");
    assert_eq!(dropped, Some(&10), "{stats:#?}");
}

/// It is taken from the host, and that is said.
fn interface_without_an_address() {
    let bench = Bench::new();
    let mut daemon = Daemon::spawn_flags(&bench.inside, &["-i", "up0"]).ready();
    daemon.wait_for("-i up0: it has no address and no default route");
    let listening = Listening::start(&bench.inside, "lc0");
    let sent = frames::mixed(100, 1514);
    bench.sender().send(&sent);
    capture::assert_same(&listening.wait_for(100, LIMIT), &sent);
    let stats = daemon.stop().explained();
    assert_eq!(daemon::port(&stats, "up0").kind, "af_xdp");
    assert_eq!(written(&stats, "lc0"), 100);
}

/// The host keeps its traffic: it gets datagrams and answers them, and both ways are on lc0 as well.
fn interface_with_an_address() {
    let bench = Bench::new();
    bench.inside.address("up0", "10.77.0.1/24");
    bench.outside.address("out0", "10.77.0.2/24");
    let flags = ["-i", "up0", "--allow", "proto=udp,ports=7,replies"];
    let mut daemon = Daemon::spawn_flags(&bench.inside, &flags).ready();
    daemon.wait_for("-i up0: it has the address 10.77.0.1/24");
    let listening = Listening::start(&bench.inside, "lc0");
    let socket = |ns: &Netns, address: &str| -> UdpSocket {
        let there = NetNs::open(ns.name()).expect("our own namespace");
        let bound = in_netns(&there, || UdpSocket::bind(address));
        let bound = bound.expect("entered").expect("an address of our own");
        bound.set_read_timeout(Some(LIMIT)).expect("a socket");
        bound
    };
    let echo = socket(&bench.inside, "10.77.0.1:7");
    let client = socket(&bench.outside, "10.77.0.2:0");
    let mut buffer = [0; 64];
    for number in 0..10 {
        client.send_to(&[number; 20], "10.77.0.1:7").expect("sent");
        let (length, from) = echo.recv_from(&mut buffer).expect("the host gets it");
        echo.send_to(&buffer[..length], from).expect("sent");
        client.recv_from(&mut buffer).expect("the host answers");
    }
    let of_udp = |frames: &[Vec<u8>]| frames.iter().filter(|frame| frame[23] == 17).count();
    let heard = wait_until(LIMIT, || of_udp(&listening.frames()) == 20);
    assert!(
        heard,
        "{} of 20\n{}",
        of_udp(&listening.frames()),
        daemon.stderr()
    );
    let stats = daemon.stop().explained();
    assert_eq!(daemon::port(&stats, "up0").kind, "af_packet");
}

/// As an ordinary user: standard output is a capture with the times of the file.
fn file_to_standard_output() {
    let sample = Sample::new();
    let program = sample.path("dataplane");
    fs::copy(binary("dataplane"), &program).expect("our own folder");
    let folder = folder();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(folder.path(), open).expect("our own folder");
    let socket = folder.path().join("s");
    let socket = socket.to_str().expect("UTF-8");
    let flags = ["-r", &sample.file(), "--to", "-", "--socket", socket];
    let output = tool_as_nobody(&[&[program.as_str()], &flags[..]].concat()).output();
    assert_done(&output);
    let out = sample.path("out");
    fs::write(&out, &output.stdout).expect("our own folder");
    assert_eq!(recorded(&out), capture::records(&sample.frames, 1_000_000));
}

/// Where a user has no place for a control socket, as in a cron job, it runs without one and says so.
fn no_place_for_a_socket() {
    let sample = Sample::new();
    let program = sample.path("dataplane");
    fs::copy(binary("dataplane"), &program).expect("our own folder");
    let file = sample.file();
    for (environment, words) in [
        (&["-u", "XDG_RUNTIME_DIR"][..], "is not set"),
        (
            &["XDG_RUNTIME_DIR=/nonexistent"],
            "cannot make the directory /nonexistent",
        ),
    ] {
        let flags = [program.as_str(), "-r", &file, "--to", "-"];
        let output = tool_as_nobody(&[&["env"], environment, &flags].concat()).output();
        assert_done(&output);
        let said = stderr(&output);
        for words in ["no control socket: ", words, "--socket PATH"] {
            assert!(said.contains(words), "{said}");
        }
        let out = sample.path("out");
        fs::write(&out, &output.stdout).expect("our own folder");
        assert_eq!(recorded(&out).len(), sample.frames.len());
    }
}

/// A second run goes without the control socket that the first one has, and says so.
fn side_by_side() {
    let sample = Sample::new();
    let flags = ["-r", &sample.file(), "--pace", "1pps", "--to"];
    let mut first = Tool::new(binary("dataplane"))
        .args(flags)
        .arg(sample.path("first.pcapng"))
        .spawn();
    first.wait_for_stderr("control socket", LIMIT);
    let second = sample.path("second.pcapng");
    let output = dataplane(&["-r", &sample.file(), "--to", &second]);
    assert_done(&output);
    let said = stderr(&output);
    for words in ["no control socket: another dataplane", "--socket PATH"] {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(recorded(&second).len(), sample.frames.len());
    first.signal(Signal::SIGTERM);
    assert!(first.wait(LIMIT).is_some_and(|status| status.success()));
}

/// Who logs out of a run that nohup started does not end it.
fn hangup_under_nohup() {
    let sample = Sample::new();
    let program = binary("dataplane");
    let mut run = Tool::new("nohup")
        .arg(program)
        .args(["-r", &sample.file(), "--pace", "1pps", "--to"])
        .arg(sample.path("out.pcapng"))
        .arg("--socket")
        .arg(sample.path("socket"))
        .spawn();
    run.wait_for_stderr("control socket", LIMIT);
    run.signal(Signal::SIGHUP);
    run.signal(Signal::SIGTERM);
    run.wait_for_stderr("SIGTERM: stopping", LIMIT);
    assert!(run.wait(LIMIT).is_some_and(|status| status.success()));
}

/// From a pipe to two files, of which one is compressed.
fn standard_input_to_files() {
    let sample = Sample::new();
    let (plain, packed) = (sample.path("a.pcap"), sample.path("b.pcap.zst"));
    let pipe = format!(
        "cat '{}' | '{}' -r - --to '{plain}' --to '{packed}' --socket '{}'",
        sample.file(),
        binary("dataplane").display(),
        sample.path("s")
    );
    assert_done(&Tool::new("sh").args(["-c", &pipe]).output());
    let unpacked = sample.path("b.pcap");
    let bytes = fs::read(&packed).expect("written");
    fs::write(&unpacked, zstd::decode_all(bytes.as_slice()).expect("zstd"))
        .expect("our own folder");
    let want = capture::records(&sample.frames, 1_000_000);
    for path in [&plain, &unpacked] {
        assert_eq!(recorded(path), want, "{path}");
    }
}

/// What `--check` prints, without the remarks that the choice of flags makes.
fn plan_of(ns: &Netns, arguments: &[&str]) -> String {
    let program = binary("dataplane");
    let tool = ns.tool(program.to_str().expect("UTF-8"));
    let output = tool.args(arguments).arg("--check").output();
    assert_done(&output);
    let text = stdout(&output);
    let lines = text.lines().filter(|line| !line.starts_with("note: "));
    lines.collect::<Vec<_>>().join("\n")
}

/// `--print-config`, saved, plans the same.
fn printed_is_planned() {
    let bench = Bench::new();
    bench.inside.veth("host0", &bench.outside, "host1");
    bench.inside.address("host0", "10.77.0.1/24");
    let sample = Sample::new();
    let file = sample.file();
    let recording = sample.path("new.pcap");
    for flags in [
        &["-r", &file][..],
        &["-r", &file, "--to", "-"],
        &[
            "-r", &file, "--to", &recording, "--pace", "3x", "--cores", "0",
        ],
        &[
            "-r", &file, "--to", "lc0", "--to", "up0", "--pace", "2.5mbps",
        ],
        &[
            "-r",
            &file,
            "--netns",
            bench.outside.name(),
            "--allow",
            "proto=tcp,ports=80,443,replies",
        ],
        &["-i", "up0", "--allow", "to=2001:db8::/32"],
        &["-i", "host0", "--to", "up0"],
        &["-i", "lo", "--to", "lc7", "--socket", "/tmp/dpt.sock"],
    ] {
        let program = binary("dataplane");
        let tool = bench.inside.tool(program.to_str().expect("UTF-8"));
        let printed = tool.args(flags).arg("--print-config").output();
        assert_done(&printed);
        let saved = sample.path("dp.toml");
        fs::write(&saved, &printed.stdout).expect("our own folder");
        let (direct, again) = (
            plan_of(&bench.inside, flags),
            plan_of(&bench.inside, &["--config", &saved]),
        );
        assert_eq!(direct, again, "{flags:?}\n{}", stdout(&printed));
        assert!(!Path::new(&recording).exists(), "{flags:?} wrote a file");
    }
}

/// `--config FILE --print-config` is a configuration again, which says no more when it is asked again.
fn files_are_written_out() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    let folder = folder();
    let saved: PathBuf = folder.path().join("dp.toml");
    for example in fs::read_dir(examples).expect("examples").flatten() {
        let example = example.path();
        if example.extension().is_none_or(|end| end != "toml") {
            continue;
        }
        let print = |file: &Path| {
            let file = file.to_str().expect("UTF-8");
            let output = dataplane(&["--config", file, "--cores", "0", "--print-config"]);
            assert_done(&output);
            stdout(&output)
        };
        let first = print(&example);
        assert!(
            first.contains("slot_size = ") && first.contains("cores = \"0\""),
            "{first}"
        );
        fs::write(&saved, &first).expect("our own folder");
        assert_eq!(print(&saved), first, "{}", example.display());
    }
}

fn nothing_to_do() {
    let output = dataplane(&[]);
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    for fragment in [
        "usage: ",
        "--config FILE",
        "-r FILE",
        "-i INTERFACE",
        "--help",
    ] {
        assert!(said.contains(fragment), "{fragment} in {said}");
    }
    assert!(said.lines().count() <= 8, "{said}");
}

fn quiet() {
    let sample = Sample::of(frames::mixed(10, 100));
    let encoded = capture::encode(
        &capture::records(&sample.frames, 1),
        Format::Micro,
        Endian::Big,
        ETHERNET,
    );
    fs::write(sample.file(), encoded).expect("our own folder");
    let (out, socket) = (sample.path("out.pcap"), sample.path("s"));
    let output = dataplane(&[
        "-q",
        "-r",
        &sample.file(),
        "--to",
        &out,
        "--socket",
        &socket,
    ]);
    assert_done(&output);
    assert_eq!(
        (stdout(&output), stderr(&output)),
        (String::new(), String::new())
    );
}
