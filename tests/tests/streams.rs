//! Captures through pipes: standard output and input, FIFOs, and the tools at their other ends. No privilege
//! is needed for any of it.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use control::stats::Stats;
use nix::{sys::stat::Mode, unistd::mkfifo};
use tempfile::TempDir;
use tests::{
    Need, Netns, Theme, Tool,
    capture::{self, ETHERNET, Endian, Format, Packing, Record},
    daemon, frames, needs, pcapng,
    process::{run, tool_as_nobody},
    send::Sender,
    suricata, wait_until,
};

const LIMIT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let mut theme = Theme::new();
    theme.test("to_tshark", &[Need::Tool("tshark")], to_tshark);
    theme.test("to_a_slow_reader", &[], to_a_slow_reader);
    theme.test("to_a_reader_that_leaves", &[], to_a_reader_that_leaves);
    theme.test(
        "to_a_reader_that_stops_reading",
        &[],
        to_a_reader_that_stops,
    );
    theme.test("to_a_file", &[], to_a_file);
    theme.test("compressed", &[], compressed);
    theme.test("from_every_capture", &[], from_every_capture);
    theme.test("from_nothing", &[], from_nothing);
    theme.test(
        "from_tcpdump",
        &[Need::Root, Need::Tool("tcpdump")],
        from_tcpdump,
    );
    theme.test("fifos", &[], fifos);
    theme.test("a_fifo_that_nobody_reads", &[], unread_fifo);
    theme.test("stopped_before_a_fifo_is_read", &[], stopped_at_a_fifo);
    theme.test("an_ordinary_user", &[Need::Root], ordinary_user);
    theme.test("terminals", &[Need::Tool("script")], terminals);
    theme.test("beside_a_tool", &[Need::Tool("script")], beside_a_tool);
    theme.test("a_summary_to_standard_output", &[], summary_to_stdout);
    for name in [
        "mixed-web-browsing-large",
        "mixed-home-lan",
        "sip-udp-register-invite-mixed",
    ] {
        theme.test(
            format!("to_suricata_{name}"),
            &[Need::Suricata7, Need::Captures],
            move || to_suricata(name),
        );
    }
    theme.run()
}

/// A daemon in a pipeline: its configuration, and what it left.
struct Run {
    folder: TempDir,
}

impl Run {
    /// From `from` to `to`, each a path or `-`.
    fn new(from: &str, source: &str, to: &str, sink: &str) -> Self {
        let folder = daemon::folder();
        let text = format!(
            "{}[ports.in]\nkind = 'pcap'\npath = '{from}'\n{source}\n[ports.out]\nkind = 'pcap'\npath = '{to}'\n{sink}\n\
             [[pipelines]]\nfrom = ['in']\nto = ['out']\n",
            daemon::preamble(&folder.path().join("control.sock"))
        );
        fs::write(folder.path().join("dp.toml"), text).expect("our own folder");
        Self { folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The daemon's command line.
    fn line(&self) -> String {
        format!(
            "{} -q --config {} --summary {}",
            daemon::binary("dataplane").display(),
            self.at("dp.toml").display(),
            self.at("summary.json").display()
        )
    }

    /// The daemon alone, between two pipes.
    fn spawn(&self) -> Child {
        Command::new("sh")
            .args(["-c", &format!("exec {}", self.line())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a shell")
    }

    /// Waits until the daemon has done all that it can while nobody reads. Answers how many frames it has taken.
    fn wait_until_stuck(&self) -> u64 {
        let received = || {
            let output = Tool::new(daemon::binary("dpctl"))
                .arg("--socket")
                .arg(self.at("control.sock"))
                .args(["stats", "--json"])
                .output();
            let stats = serde_json::from_slice::<Stats>(&output.stdout).ok();
            stats.map_or(0, |stats| daemon::port(&stats, "in").rx.frames)
        };
        let mut last = 0;
        let stuck = wait_until(LIMIT, || {
            let now = received();
            let stuck = now > 0 && now == last;
            last = now;
            thread::sleep(Duration::from_millis(50));
            stuck
        });
        assert!(stuck, "{last} frames, and more all the time");
        last
    }

    fn stats(&self) -> Stats {
        let text = fs::read_to_string(self.at("summary.json")).expect("a summary");
        let stats = serde_json::from_str(&text).expect("statistics");
        daemon::assert_explained(&stats);
        stats
    }

    fn assert_all_written(&self, count: usize) {
        let stats = self.stats();
        let (from, to) = (daemon::port(&stats, "in"), daemon::port(&stats, "out"));
        assert_eq!(
            (from.rx.frames, to.tx.frames),
            (count as u64, count as u64),
            "{stats:#?}"
        );
        assert_eq!(to.tx.in_flight + from.rx.in_flight, 0);
    }
}

/// Waits for a child. Panics, and kills it, when that takes too long. Answers with its exit code and what
/// it said on standard error.
fn finish(mut child: Child) -> (Option<i32>, String) {
    let mut status = None;
    wait_until(LIMIT, || {
        status = child.try_wait().expect("our own child");
        status.is_some()
    });
    let Some(status) = status else {
        let _ = child.kill();
        panic!("no end within {LIMIT:?}");
    };
    let mut said = String::new();
    let stderr = child.stderr.as_mut().expect("piped");
    stderr.read_to_string(&mut said).expect("UTF-8");
    (status.code(), said)
}

/// Runs a line of shell. Panics unless each of its programs succeeds.
fn shell(line: &str) -> String {
    run("bash", &["-o", "pipefail", "-c", line])
}

/// Frames in a file, and what is in it.
fn sample(folder: &Path, count: u32) -> (String, Vec<Record>) {
    let records = capture::records(&frames::mixed(count, 1514), 1_000_003);
    let file = folder.join("sample.pcap");
    let bytes = capture::encode(&records, Format::Nano, Endian::Little, ETHERNET);
    fs::write(&file, bytes).expect("our own folder");
    (file.display().to_string(), records)
}

const FIELDS: &str = "-T fields -e frame.time_epoch -e frame.cap_len -e frame.protocols";

fn to_tshark() {
    let folder = daemon::folder();
    let (from, want) = sample(folder.path(), 2_000);
    let run = Run::new(&from, "pace = 'top'", "-", "");
    let through = shell(&format!(
        "{} | tshark -r - {FIELDS} 2>{}/said",
        run.line(),
        folder.path().display()
    ));
    assert!(through == shell(&format!("tshark -r {from} {FIELDS} 2>/dev/null")));
    run.assert_all_written(want.len());
}

fn to_suricata(name: &str) {
    const RULES: &str = r#"
alert tcp any any -> any any (msg:"opening SYN"; flags:S; sid:1; rev:1;)
alert udp any any -> any any (msg:"UDP with a payload"; dsize:>0; sid:2; rev:1;)
alert http any any -> any any (msg:"GET"; http.method; content:"GET"; sid:4; rev:1;)
alert dns any any -> any any (msg:"a question"; dns.query; content:"."; sid:6; rev:1;)
alert tls any any -> any any (msg:"a server's name"; tls.sni; content:"."; sid:7; rev:1;)
alert udp any any -> any any (msg:"REGISTER"; content:"REGISTER"; sid:8; rev:1;)
"#;
    let file = needs::captures()
        .expect("asked before")
        .join(format!("{name}.pcap"));
    let want = suricata::alerts_of_file(RULES, &file);
    assert!(!want.is_empty(), "nothing to compare");
    let run = Run::new(file.to_str().expect("UTF-8"), "pace = 'top'", "-", "");
    let got = suricata::alerts_of_stream(RULES, &run.line());
    assert_eq!(got, want, "alerts through the pipe and of the file");
}

/// More than every buffer on the way holds: the source has to wait, and nothing is lost.
fn to_a_slow_reader() {
    const COUNT: u32 = 60_000;
    let folder = daemon::folder();
    let (from, want) = sample(folder.path(), COUNT);
    let run = Run::new(&from, "pace = 'top'", "-", "");
    let mut child = run.spawn();
    let mut out = child.stdout.take().expect("piped");
    let received = run.wait_until_stuck();
    assert!(
        received < u64::from(COUNT),
        "{received} of {COUNT}: it was to wait"
    );
    let bytes = read_slowly(&mut out);
    let (code, said) = finish(child);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let recording = pcapng::decode(&bytes).expect("a whole capture");
    assert!(recording.records() == want);
    run.assert_all_written(want.len());
}

fn read_slowly(out: &mut ChildStdout) -> Vec<u8> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
    loop {
        let read = out.read(&mut buffer).expect("a pipe");
        if read == 0 {
            return bytes;
        }
        bytes.extend(&buffer[..read]);
        thread::yield_now();
    }
}

fn to_a_reader_that_leaves() {
    let folder = daemon::folder();
    let (from, _) = sample(folder.path(), 1_000);
    let run = Run::new(&from, "pace = 'top'\nloops = 0", "-", "");
    let mut child = run.spawn();
    let mut out = child.stdout.take().expect("piped");
    out.read_exact(&mut [0; 100_000]).expect("frames");
    drop(out);
    let (code, said) = finish(child);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("port out: the reader of standard output has left"),
        "{said}"
    );
    assert!(said.contains("nothing is left to run for"), "{said}");
    let stats = run.stats();
    let out = daemon::port(&stats, "out");
    assert!(out.tx.dropped["write_error"] > 0, "{stats:#?}");
    assert_eq!(out.tx.in_flight, 0);
}

/// A reader that is there and does not read: the end does not wait for it, and what it had no room for is
/// counted.
fn to_a_reader_that_stops() {
    let folder = daemon::folder();
    let (from, _) = sample(folder.path(), 1_000);
    let run = Run::new(&from, "pace = 'top'\nloops = 0", "-", "");
    let mut child = run.spawn();
    let mut out = child.stdout.take().expect("piped");
    out.read_exact(&mut [0; 100_000]).expect("frames");
    run.wait_until_stuck();
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("our own child");
    let (code, said) = finish(child);
    assert_eq!(code, Some(0), "{said}");
    let stats = run.stats();
    let tx = &daemon::port(&stats, "out").tx;
    assert!(tx.dropped["shutdown"] > 0, "{stats:#?}");
    assert_eq!(tx.in_flight, 0);
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).expect("a pipe");
}

/// Standard output may be a file, which is written behind what is there.
fn to_a_file() {
    let folder = daemon::folder();
    let (from, want) = sample(folder.path(), 1_000);
    let out = folder.path().join("out");
    let run = Run::new(&from, "pace = 'top'", "-", "");
    shell(&format!("{} > {}", run.line(), out.display()));
    assert!(pcapng::read(&out).records() == want);
    let first = fs::read(&out).expect("a file");
    shell(&format!("{} >> {}", run.line(), out.display()));
    assert!(fs::read(&out).expect("a file") == [&first[..], &first[..]].concat());
}

fn compressed() {
    let folder = daemon::folder();
    let (from, want) = sample(folder.path(), 5_000);
    let out = folder.path().join("out");
    let first = Run::new(&from, "pace = 'top'", "-", "compress = 'zstd'");
    let second = Run::new("-", "pace = 'top'", "-", "");
    shell(&format!(
        "{} | {} > {}",
        first.line(),
        second.line(),
        out.display()
    ));
    assert!(pcapng::read(&out).records() == want);
    second.assert_all_written(want.len());
}

fn from_every_capture() {
    let folder = daemon::folder();
    let want = capture::records(&frames::mixed(2_000, 1514), 1_000_000);
    let file = folder.path().join("sample");
    let out = folder.path().join("out");
    for format in [Format::Micro, Format::Nano, Format::Pcapng] {
        for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
            let bytes = capture::encode(&want, format, Endian::Big, ETHERNET);
            fs::write(&file, capture::pack(bytes, packing)).expect("our own folder");
            for way in ["< FILE DAEMON", "cat FILE | DAEMON"] {
                let run = Run::new("-", "pace = 'top'", out.to_str().expect("UTF-8"), "");
                let way = way.replace("FILE", &file.display().to_string());
                shell(&way.replace("DAEMON", &run.line()));
                let got = pcapng::read(&out).records();
                assert_eq!(got.len(), want.len(), "{format:?} {packing:?} {way}");
                for (got, want) in got.iter().zip(&want) {
                    assert_eq!(got.frame, want.frame);
                    // An interface in units of 2^-20 s, as some of these are, rounds.
                    assert!(got.at.abs_diff(want.at) < 1_000, "{got:?} {want:?}");
                }
                run.assert_all_written(want.len());
            }
        }
    }
}

fn from_nothing() {
    for (input, words) in [
        ("< /dev/null", "standard input: the file is empty"),
        ("echo hello |", "standard input: not a capture"),
    ] {
        let run = Run::new("-", "", "-", "");
        let output = Tool::new("sh")
            .args(["-c", &format!("{input} {}", run.line())])
            .output();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(words), "{said}");
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(output.stdout.len() < 500, "no more than a beginning");
    }
}

/// A live capture: what the listener hears comes through, with its times.
fn from_tcpdump() {
    const COUNT: u32 = 500;
    let (ns, other) = (Netns::new(), Netns::new());
    ns.veth("in0", &other, "out0");
    let folder = daemon::folder();
    let out = folder.path().join("out");
    let run = Run::new("-", "pace = 'top'", out.to_str().expect("UTF-8"), "");
    let line = format!(
        "tcpdump -i in0 -n -U --immediate-mode -s 9216 -B 32768 -Z root -c {COUNT} -w - | {}",
        run.line()
    );
    let mut running = ns
        .tool("bash")
        .args(["-o", "pipefail", "-c", &line])
        .spawn();
    running.wait_for_stderr("listening on in0", LIMIT);
    let sent = frames::mixed(COUNT, 1514);
    Sender::open(&other, "out0").send(&sent);
    let status = running.wait(LIMIT);
    assert!(status.is_some_and(|status| status.success()), "{running}");
    capture::assert_same(&pcapng::read(&out).bytes(), &sent);
    run.assert_all_written(sent.len());
}

/// From one FIFO to another, whose ends are opened in any order.
fn fifos() {
    let folder = daemon::folder();
    let (from, want) = sample(folder.path(), 5_000);
    let [input, output] = ["in", "out"].map(|name| folder.path().join(name));
    for fifo in [&input, &output] {
        mkfifo(fifo, Mode::S_IRWXU).expect("our own folder");
    }
    let [shown_in, shown_out] = [&input, &output].map(|path| path.to_str().expect("UTF-8"));
    let run = Run::new(shown_in, "pace = 'top'", shown_out, "");
    let child = run.spawn();
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        File::open(output)
            .expect("a FIFO")
            .read_to_end(&mut bytes)
            .expect("a FIFO");
        bytes
    });
    let bytes = fs::read(from).expect("our own file");
    File::options()
        .write(true)
        .open(&input)
        .expect("a FIFO")
        .write_all(&bytes)
        .expect("a reader");
    let (code, said) = finish(child);
    assert_eq!(code, Some(0), "{said}");
    let got = pcapng::decode(&reader.join().expect("no panic")).expect("a whole capture");
    assert!(got.records() == want);
    run.assert_all_written(want.len());
}

fn unread_fifo() {
    let folder = daemon::folder();
    let (from, _) = sample(folder.path(), 10);
    let fifo = folder.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).expect("our own folder");
    let run = Run::new(&from, "", fifo.to_str().expect("UTF-8"), "");
    let (code, said) = finish(run.spawn());
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("nobody has opened the FIFO") && said.contains("start its reader first"),
        "{said}"
    );
}

/// Nobody who says stop waits for a reader that may never come.
fn stopped_at_a_fifo() {
    let folder = daemon::folder();
    let (from, _) = sample(folder.path(), 10);
    let fifo = folder.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).expect("our own folder");
    let mut run = Tool::new(daemon::binary("dataplane"))
        .args(["-r", &from, "--to"])
        .arg(&fifo)
        .arg("--socket")
        .arg(folder.path().join("socket"))
        .spawn();
    // Signals are held before the plan is printed.
    run.wait_for_stderr("ends by itself", LIMIT);
    run.signal(nix::sys::signal::Signal::SIGTERM);
    run.wait_for_stderr("told to stop before anybody had opened the FIFO", LIMIT);
    assert!(run.wait(LIMIT).is_some_and(|status| status.success()));
}

/// Nothing but the right to run the program.
fn ordinary_user() {
    let folder = daemon::folder();
    let (from, want) = sample(folder.path(), 2_000);
    let out = folder.path().join("out");
    let run = Run::new("-", "pace = 'top'", "-", "");
    // The folder of the build may be closed to others.
    let program = run.at("dataplane");
    fs::copy(daemon::binary("dataplane"), &program).expect("our own folder");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("our own file");
    fs::set_permissions(run.folder.path(), fs::Permissions::from_mode(0o777))
        .expect("our own folder");
    let line = run.line().replace(
        daemon::binary("dataplane").to_str().expect("UTF-8"),
        program.to_str().expect("UTF-8"),
    );
    let all = format!("cat {from} | {line}");
    let output = tool_as_nobody(&[
        "setpriv",
        "--bounding-set=-all",
        "--no-new-privs",
        "bash",
        "-o",
        "pipefail",
        "-c",
        &format!("{all} | cat > {}", run.at("out").display()),
    ])
    .output();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!out.exists());
    assert!(pcapng::read(&run.at("out")).records() == want);
    run.assert_all_written(want.len());
}

/// A capture is no text to read, and nobody types one.
fn terminals() {
    let folder = daemon::folder();
    let (from, _) = sample(folder.path(), 10);
    let file = folder.path().join("x");
    for (run, words) in [
        (
            Run::new(&from, "", "-", ""),
            "standard output is a terminal",
        ),
        (
            Run::new("-", "", file.to_str().expect("UTF-8"), ""),
            "standard input is a terminal",
        ),
    ] {
        let output = Tool::new("script")
            .args(["-qec", &run.line(), "/dev/null"])
            .output();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(words), "{said}");
        assert_eq!(output.status.code(), Some(2), "{said}");
    }
}

/// On a terminal that is its reader's too, a run that goes well says one line.
fn beside_a_tool() {
    let folder = daemon::folder();
    let (from, _) = sample(folder.path(), 10);
    let program = daemon::binary("dataplane");
    let line = format!("{} -r {from} --to - | wc -c", program.display());
    let output = Tool::new("script")
        .args(["-qec", &line, "/dev/null"])
        .output();
    let said = String::from_utf8_lossy(&output.stdout);
    let mut lines: Vec<_> = said.lines().map(str::trim).collect();
    lines.retain(|line| line.parse::<u32>().is_err());
    assert_eq!(lines, ["dataplane: 10 frames received, 10 written"]);
}

/// It is for the counters, unless the capture goes there.
fn summary_to_stdout() {
    let folder = daemon::folder();
    let (from, want) = sample(folder.path(), 10);
    let to = folder.path().join("out.pcapng");
    let to = to.to_str().expect("UTF-8");
    let run = |to: &str| {
        let program = daemon::binary("dataplane");
        Tool::new(program.to_str().expect("UTF-8"))
            .args(["-q", "-r", &from, "--to", to, "--summary", "-"])
            .output()
    };
    let output = run(to);
    let stats: Stats = serde_json::from_slice(&output.stdout).expect("statistics");
    daemon::assert_explained(&stats);
    assert_eq!(daemon::port(&stats, "capture").tx.frames, want.len() as u64);
    let output = run("-");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--summary -: standard output has"), "{said}");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
}
