//! The commands of docs/tools.md that are marked as tested, run as they stand there: each tool sees every
//! frame of a capture file, on lc0 or through a pipe.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tests::{
    Daemon, Need, Netns, Theme, Tool, capture,
    daemon::{self, binary},
    frames, run, wait_until,
};

/// Frames in `sample.pcap`, each of them UDP to port 53.
const FRAMES: usize = 50;

/// What `my.rules` alerts to: each of them, because of its payload.
const RULES: &str = "alert udp any any -> any 53 (msg:\"a question\"; dsize:>0; sid:1; rev:1;)\n";

/// How long a tool may take, its start included.
const LIMIT: Duration = Duration::from_secs(60);

/// How a command's success shows: the folder in which it ran, and what it printed.
type Saw = fn(&Path, &str) -> usize;

/// For each tested command, in the order of the page: its beginning, what it takes, and how many frames it
/// saw.
const COMMANDS: &[(&str, &[Need], Saw)] = &[
    ("sudo tcpdump", LISTEN, |folder, _| {
        let bytes = fs::read(folder.join("seen.pcap")).unwrap_or_default();
        let (Ok((_, records)) | Err((_, records))) = capture::decode(&bytes);
        records.len()
    }),
    ("dataplane -r sample.pcap --to - | tcpdump", TCPDUMP, lines),
    ("dataplane -r sample.pcap --to - | tshark", TSHARK, lines),
    (
        "sudo tshark",
        &[Need::Root, Need::Tool("tshark")],
        |folder, _| {
            let file = folder.join("seen.pcapng");
            let file = file.to_str().expect("UTF-8");
            run("tshark", &["-n", "-r", file]).lines().count()
        },
    ),
    ("sudo suricata", &[Need::Root, Need::Suricata7], alerts),
    (
        "dataplane -r sample.pcap --to - | suricata",
        &[Need::Root, Need::Suricata7],
        alerts,
    ),
];

const LISTEN: &[Need] = &[Need::Root, Need::Tool("tcpdump")];
const TCPDUMP: &[Need] = &[Need::Root, Need::Tool("tcpdump")];
const TSHARK: &[Need] = &[Need::Root, Need::Tool("tshark")];

fn lines(_: &Path, printed: &str) -> usize {
    printed.lines().count()
}

fn alerts(folder: &Path, _: &str) -> usize {
    let log = fs::read_to_string(folder.join("logs/fast.log")).unwrap_or_default();
    log.lines().count()
}

fn main() -> ExitCode {
    let mut theme = Theme::new();
    let commands = tested();
    assert_eq!(commands.len(), COMMANDS.len(), "{commands:#?}");
    for (command, &(beginning, needs, saw)) in commands.into_iter().zip(COMMANDS) {
        assert!(command.starts_with(beginning), "{command}");
        theme.test(command.clone(), needs, move || sees_all(&command, saw));
    }
    theme.run()
}

/// The commands of the page that it says are tested.
fn tested() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tools.md");
    let text = fs::read_to_string(page).expect("docs/tools.md");
    let blocks = text.split("\n```sh tested\n").skip(1);
    blocks
        .map(|rest| rest.split("\n```").next().expect("a block").to_owned())
        .collect()
}

fn sees_all(command: &str, saw: Saw) {
    let ns = Netns::new();
    let folder = prepare();
    let printed = match command.contains("lc0") {
        true => listen(&ns, &folder, command, saw),
        false => shell(&ns, &folder, command).limit(LIMIT).output().stdout,
    };
    let printed = String::from_utf8_lossy(&printed);
    assert_eq!(saw(folder.path(), &printed), FRAMES, "{command}\n{printed}");
}

/// A folder with what the page says is there.
fn prepare() -> TempDir {
    let folder = daemon::folder();
    let frames = frames::mixed(FRAMES as u32, 1514);
    capture::write(&folder.path().join("sample.pcap"), &frames);
    fs::write(folder.path().join("my.rules"), RULES).expect("our own folder");
    fs::create_dir(folder.path().join("logs")).expect("our own folder");
    folder
}

/// A command in a shell, where `dataplane` is the built one.
fn shell(ns: &Netns, folder: &TempDir, command: &str) -> Tool {
    let program = binary("dataplane");
    let programs: PathBuf = program.parent().expect("a folder").to_owned();
    let path = env::var("PATH").unwrap_or_default();
    let command = command.trim_start_matches("sudo ");
    // A listener takes the shell's place, so that a signal reaches it.
    let exec = if command.contains('|') { "" } else { "exec " };
    let script = format!(
        "set -o pipefail; PATH='{}':{path}; {exec}{command}",
        programs.display()
    );
    ns.tool("bash")
        .args(["-c", &script])
        .current_dir(folder.path())
}

/// Plays the file to lc0 while the command listens there.
fn listen(ns: &Netns, folder: &TempDir, command: &str, saw: Saw) -> Vec<u8> {
    let file = folder.path().join("sample.pcap");
    let file = file.to_str().expect("UTF-8");
    let mut daemon = Daemon::spawn_flags(ns, &["-r", file, "--pace", "1000pps"]).ready();
    daemon.wait_for("sources wait");
    let mut listener = shell(ns, folder, command).spawn();
    daemon.wait(LIMIT).explained();
    // Some end with their device, others wait for it to come back.
    wait_until(LIMIT, || {
        listener.has_ended() || saw(folder.path(), "") == FRAMES
    });
    if !listener.has_ended() {
        listener.signal(Signal::SIGINT);
    }
    let ended = listener.wait(LIMIT);
    assert!(ended.is_some(), "{command} does not end\n{listener}");
    Vec::new()
}
