//! Recordings: what is in the files is what came, with its times, whatever ends a file; and nothing else
//! stops when a disk is full.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use control::stats::{Stats, total};
use nix::sys::signal::Signal;
use tests::{
    Daemon, Need, Netns, Theme, Tool,
    bench::in_flight,
    capture::{self, ETHERNET, Endian, Format, Record},
    daemon, frames, needs, pcapng,
    process::run,
    send::{Load, Sender},
    wait_until,
};

const ROOT: &[Need] = &[Need::Root];
const TSHARK: &[Need] = &[Need::Root, Need::Tool("tshark")];

const LIMIT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let mut theme = Theme::new();
    for (name, keys, most) in ROTATIONS {
        theme.test(format!("rotated_by_{name}"), ROOT, move || {
            rotated(keys, *most);
        });
    }
    theme.test("rotated_by_time", ROOT, rotated_by_time);
    theme.test("the_last_ones_are_kept", ROOT, kept);
    theme.test("names_by_the_clock", ROOT, names_by_the_clock);
    for file in ["x.pcapng", "x.pcapng.zst"] {
        theme.test(format!("read_while_it_grows_{file}"), TSHARK, move || {
            read_while_it_grows(file);
        });
    }
    theme.test("a_long_one_that_is_compressed", TSHARK, long_and_compressed);
    theme.test("a_full_disk", ROOT, full_disk);
    theme.test("a_disk_too_small_for_a_file", ROOT, small_disk);
    theme.test("two_workers", ROOT, two_workers);
    for file in ["x.pcapng", "x.pcapng.zst"] {
        theme.test(
            format!("an_interrupt_loses_nothing_{file}"),
            ROOT,
            move || {
                interrupted(file);
            },
        );
    }
    theme.test("a_folder_that_is_not_ours", ROOT, folder_of_another);
    theme.test(
        "a_folder_of_the_caller_of_sudo",
        ROOT,
        folder_of_the_caller_of_sudo,
    );
    theme.test("a_file_that_another_run_writes", ROOT, file_of_another_run);
    theme.test("its_source_under_another_name", ROOT, its_own_source);
    real_captures(&mut theme);
    theme.run()
}

/// A configuration that plays one file into another.
fn config(from: &Path, source: &str, to: &Path, sink: &str) -> String {
    format!(
        "[ports.sample]\nkind = 'pcap'\npath = '{}'\n{source}\n[ports.rec]\nkind = 'pcap'\npath = '{}'\n{sink}\n\
         [[pipelines]]\nfrom = ['sample']\nto = ['rec']\n",
        from.display(),
        to.display()
    )
}

/// Frames in a file, and what is in it.
fn sample(folder: &Path, count: u32) -> (PathBuf, Vec<Record>) {
    let records = capture::records(&frames::mixed(count, 1514), 1_000_003);
    let file = folder.join("sample.pcap");
    let bytes = capture::encode(&records, Format::Nano, Endian::Little, ETHERNET);
    fs::write(&file, bytes).expect("our own folder");
    (file, records)
}

/// The files of a folder whose names begin so, in their order.
fn files(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("our own folder").flatten();
    let name = |path: &PathBuf| {
        path.file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned()
    };
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| name(path).starts_with(prefix));
    files.sort();
    files
}

fn records_of(files: &[PathBuf]) -> Vec<Record> {
    files
        .iter()
        .flat_map(|file| pcapng::read(file).records())
        .collect()
}

fn assert_all_recorded(stats: &Stats, count: usize) {
    let rec = daemon::port(stats, "rec");
    assert_eq!(
        (rec.tx.offered, rec.tx.frames),
        (count as u64, count as u64)
    );
    assert_eq!(total(&rec.tx.dropped), 0, "{stats:#?}");
}

/// What there is no need to see a file for: name, keys, and the most bytes and frames of a file.
const ROTATIONS: &[(&str, &str, (u64, usize))] = &[
    ("frames", "rotate = { frames = 700 }", (u64::MAX, 700)),
    ("size", "rotate = { size = '100kB' }", (100_000, usize::MAX)),
    (
        "both_compressed",
        "rotate = { size = '64KiB', frames = 1000 }\ncompress = 'zstd'",
        (65_536, 1000),
    ),
];

fn rotated(keys: &str, (size, most): (u64, usize)) {
    let folder = daemon::folder();
    let (from, want) = sample(folder.path(), 5_000);
    let to = folder.path().join("out.pcapng");
    let stats = Daemon::spawn_here(&config(&from, "pace = 'top'", &to, keys))
        .wait(LIMIT)
        .explained();
    assert_all_recorded(&stats, want.len());
    let files = files(folder.path(), "out");
    assert!(files.len() > 3, "{files:?}");
    assert!(files[0].ends_with("out-00001.pcapng"), "{files:?}");
    for file in &files {
        let count = pcapng::read(file).frames.len();
        assert!(count > 0 && count <= most, "{count} in {}", file.display());
        assert!(fs::metadata(file).expect("a file").len() <= size);
    }
    assert!(
        records_of(&files) == want,
        "the same frames at the same times"
    );
}

/// Three seconds of frames, a file a second.
fn rotated_by_time() {
    let folder = daemon::folder();
    let (from, want) = sample(folder.path(), 3_000);
    let to = folder.path().join("out.pcapng");
    let text = config(
        &from,
        "pace = { pps = 1000 }",
        &to,
        "rotate = { time = '1s' }",
    );
    let stats = Daemon::spawn_here(&text).wait(LIMIT).explained();
    assert_all_recorded(&stats, want.len());
    let files = files(folder.path(), "out");
    assert!(files.len() >= 2, "{files:?}");
    assert!(
        records_of(&files) == want,
        "the same frames at the same times"
    );
}

fn kept() {
    let folder = daemon::folder();
    let (from, want) = sample(folder.path(), 1_050);
    // Of an earlier run: none of ours.
    let other = folder.path().join("out-00000.pcapng");
    fs::write(&other, "kept").expect("our own folder");
    let to = folder.path().join("out.pcapng");
    let keys = "rotate = { frames = 100 }\nkeep = 3";
    let stats = Daemon::spawn_here(&config(&from, "pace = 'top'", &to, keys))
        .wait(LIMIT)
        .explained();
    assert_all_recorded(&stats, want.len());
    let files = files(folder.path(), "out-");
    let expected = [0, 9, 10, 11].map(|n| folder.path().join(format!("out-{n:05}.pcapng")));
    assert_eq!(files, expected);
    assert!(records_of(&files[1..]) == want[800..]);
}

fn names_by_the_clock() {
    let folder = daemon::folder();
    let (from, want) = sample(folder.path(), 1_000);
    let to = folder.path().join("out-%Y-100%%.pcapng");
    let text = config(&from, "pace = 'top'", &to, "rotate = { frames = 400 }");
    let stats = Daemon::spawn_here(&text).wait(LIMIT).explained();
    assert_all_recorded(&stats, want.len());
    // All within a year, or at its turn.
    let files = files(folder.path(), "out-2");
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(
        files
            .iter()
            .any(|file| file.to_string_lossy().ends_with("-100%.pcapng"))
    );
    let count: usize = files
        .iter()
        .map(|file| pcapng::read(file).frames.len())
        .sum();
    assert_eq!(count, want.len());
}

/// How many frames tshark finds. Panics when it finds anything wrong.
fn seen_by_tshark(file: &Path) -> usize {
    let output = Tool::new("tshark")
        .arg("-r")
        .arg(file)
        .args(["-T", "fields", "-e", "frame.number"])
        .output();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && !said.contains("cut short"),
        "{said}"
    );
    String::from_utf8_lossy(&output.stdout).lines().count()
}

fn read_while_it_grows(name: &str) {
    let folder = daemon::folder();
    let (from, want) = sample(folder.path(), 500);
    let to = folder.path().join(name);
    let mut daemon = Daemon::spawn_here(&config(&from, "pace = { pps = 500 }\nloops = 0", &to, ""));
    daemon.wait_for("control socket");
    let (mut last, mut grown) = (seen_by_tshark(&to), 0);
    let growing = wait_until(LIMIT, || {
        let now = seen_by_tshark(&to);
        assert!(now >= last, "{now} after {last}");
        grown += usize::from(now > last);
        last = now;
        grown >= 5
    });
    assert!(growing, "{grown}");
    let stats = daemon.stop().explained();
    let recording = pcapng::read(&to);
    assert_eq!(
        recording.frames.len() as u64,
        daemon::port(&stats, "rec").tx.frames
    );
    assert_eq!(seen_by_tshark(&to), recording.frames.len());
    for (got, want) in recording.records().iter().zip(&want) {
        assert_eq!(got, want);
    }
}

/// Several times what is compressed together.
fn long_and_compressed() {
    let folder = daemon::folder();
    let (from, want) = sample(folder.path(), 10_000);
    let to = folder.path().join("x.pcapng.zst");
    let stats = Daemon::spawn_here(&config(&from, "pace = 'top'", &to, ""))
        .wait(LIMIT)
        .explained();
    assert_all_recorded(&stats, want.len());
    assert_eq!(seen_by_tshark(&to), want.len());
}

/// A file system in memory with so much room. Dropped, it is taken away.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf, size: &str) -> Self {
        fs::create_dir(&at).expect("our own folder");
        let disk = Self(at);
        let path = disk.0.to_str().expect("UTF-8");
        run(
            "mount",
            &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", path],
        );
        disk
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Tool::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// One recording on a full disk, one beside it on another.
fn full_disk() {
    let folder = daemon::folder();
    let (from, _) = sample(folder.path(), 1_000);
    let disk = SmallDisk::mount(folder.path().join("disk"), "64m");
    let filler = disk.0.join("filler");
    fs::write(&filler, vec![0; 66_500_000]).expect("a disk with room");
    let to = disk.0.join("out.pcapng");
    let beside = folder.path().join("beside.pcapng");
    let text = config(&from, "pace = { pps = 3000 }\nloops = 0", &to, "")
        .replace("to = ['rec']", "to = ['rec', 'beside']")
        + &format!(
            "[ports.beside]\nkind = 'pcap'\npath = '{}'\n",
            beside.display()
        );
    let mut daemon = Daemon::spawn_here(&text).ready();
    daemon.wait_for("cannot be written: No space left on device");
    let dropped = |stats: &Stats, port: &str| total(&daemon::port(stats, port).tx.dropped);
    let full = daemon.stats_when(LIMIT, |stats| dropped(stats, "rec") > 3_000);
    daemon::assert_explained(&full);
    assert_eq!(
        daemon::port(&full, "rec")
            .tx
            .dropped
            .keys()
            .collect::<Vec<_>>(),
        ["disk_full"]
    );
    assert_eq!(dropped(&full, "beside"), 0, "it runs on");
    // What is there can be read.
    assert_eq!(
        pcapng::read(&to).frames.len() as u64,
        daemon::port(&full, "rec").tx.frames
    );
    let said = daemon.stderr().matches("No space left").count();
    assert_eq!(said, 1, "once\n{}", daemon.stderr());

    fs::remove_file(&filler).expect("our own file");
    daemon.wait_for("is written again; ");
    let stats = daemon.stop().explained();
    let rec = daemon::port(&stats, "rec");
    let recording = pcapng::read(&to);
    assert_eq!(recording.frames.len() as u64, rec.tx.frames);
    assert!(rec.tx.frames > daemon::port(&full, "rec").tx.frames);
    let all = pcapng::read(&beside);
    assert_eq!(
        all.frames.len() as u64,
        daemon::port(&stats, "beside").tx.frames
    );
    assert_eq!(all.frames.len() as u64, rec.tx.offered);
}

/// Who plays a file into another learns that not all of it is there.
fn small_disk() {
    let folder = daemon::folder();
    let (from, _) = sample(folder.path(), 1_000);
    let disk = SmallDisk::mount(folder.path().join("disk"), "128k");
    let to = disk.0.join("out.pcapng");
    let ended = Daemon::spawn_here(&config(&from, "pace = 'top'", &to, "")).wait(LIMIT);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for words in ["No space left on device", "a recording lacks frames"] {
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
    let stats = ended.stats.expect("a summary");
    daemon::assert_explained(&stats);
    let rec = daemon::port(&stats, "rec");
    assert!(rec.tx.dropped["disk_full"] > 0, "{stats:#?}");
    assert_eq!(pcapng::read(&to).frames.len() as u64, rec.tx.frames);
}

/// It is left to who has it.
fn file_of_another_run() {
    let folder = daemon::folder();
    let (from, want) = sample(folder.path(), 100);
    let to = folder.path().join("out.pcapng");
    let text = config(&from, "pace = { pps = 1000 }\nloops = 0", &to, "");
    let first = Daemon::spawn_here(&text).ready();
    first.stats_when(LIMIT, |stats| daemon::port(stats, "rec").tx.frames > 100);
    let second = Daemon::spawn_here(&text).wait(LIMIT);
    assert_eq!(second.code, Some(3), "{}", second.stderr);
    let words = "out.pcapng cannot be written: another dataplane records there; name another file";
    assert!(second.stderr.contains(words), "{}", second.stderr);
    let stats = first.stop().explained();
    let recording = pcapng::read(&to).records();
    assert_eq!(
        recording.len() as u64,
        daemon::port(&stats, "rec").tx.frames
    );
    assert!(recording[..100] == want);
}

/// Two files are read by two workers and recorded in one.
fn two_workers() {
    let folder = daemon::folder();
    let (from, want) = sample(folder.path(), 4_000);
    let to = folder.path().join("out.pcapng");
    let other = format!(
        "to = ['rec']\n[ports.other]\nkind = 'pcap'\npath = '{}'\npace = 'top'\n[[pipelines]]\nfrom = ['other']\nto = ['rec']",
        from.display()
    );
    let text = config(&from, "pace = 'top'", &to, "").replace("to = ['rec']", &other);
    let ns = Netns::new();
    let daemon = Daemon::spawn_in(&ns, daemon::folder(), &text, |socket| {
        daemon::preamble(socket).replace("cores = \"0\"", "cores = \"0-1\"")
    });
    let stats = daemon.wait(LIMIT).explained();
    assert_eq!(stats.workers.len(), 2);
    assert_all_recorded(&stats, 2 * want.len());
    let recording = pcapng::read(&to);
    assert_eq!(recording.interfaces, ["sample", "other"]);
    for interface in 0..2 {
        let mine = recording
            .frames
            .iter()
            .filter(|(from, _)| *from == interface);
        let mine: Vec<_> = mine.map(|(_, record)| record.clone()).collect();
        assert!(
            mine == want,
            "interface {interface}: its frames in their order"
        );
    }
}

/// Ctrl-C under load: what was taken from the source is in the file, and nothing else.
fn interrupted(file: &str) {
    let ns = Netns::new();
    let folder = daemon::folder();
    let to = folder.path().join(file);
    let text = format!(
        "[ports.in0]\nkind = 'tap'\n[ports.rec]\nkind = 'pcap'\npath = '{}'\n[[pipelines]]\nfrom = ['in0']\nto = ['rec']",
        to.display()
    );
    let began = std::time::SystemTime::now();
    let daemon = Daemon::start(&ns, &text);
    let load = Load::start(Sender::open(&ns, "in0"), frames::mixed(100, 1514));
    daemon.stats_when(LIMIT, |stats| daemon::port(stats, "rec").tx.frames > 20_000);
    daemon.signal(Signal::SIGINT);
    let stats = daemon.wait(LIMIT).explained();
    drop(load);
    let (in0, rec) = (daemon::port(&stats, "in0"), daemon::port(&stats, "rec"));
    let recording = pcapng::read(&to);
    assert_eq!(recording.frames.len() as u64, rec.tx.frames);
    assert_eq!(rec.tx.dropped.get("shutdown"), None, "{stats:#?}");
    assert_eq!(rec.tx.offered, in0.rx.forwarded);
    assert_eq!(in_flight(&stats), 0);
    // Nothing else knows their time: it is that of their receipt.
    let since = began
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let times: Vec<u64> = recording
        .frames
        .iter()
        .map(|(_, record)| record.at)
        .collect();
    assert!(times.is_sorted());
    assert!(u128::from(times[0]) >= since.as_nanos());
}

/// Root without its capabilities is a user like others: what only works with them fails at the start.
fn folder_of_another() {
    let folder = daemon::folder();
    let (from, _) = sample(folder.path(), 10);
    let theirs = folder.path().join("theirs");
    fs::create_dir(&theirs).expect("our own folder");
    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).expect("root");
    let ended = Daemon::spawn_here(&config(&from, "", &theirs.join("x"), "")).wait(LIMIT);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    for words in [
        "port rec",
        "theirs/x",
        "Permission denied",
        "without privilege",
        "chown",
    ] {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
}

/// Under sudo, recordings in the caller's own folder are the caller's.
fn folder_of_the_caller_of_sudo() {
    let folder = daemon::folder();
    let (from, frames) = sample(folder.path(), 10);
    let theirs = folder.path().join("theirs");
    fs::create_dir(&theirs).expect("our own folder");
    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).expect("root");
    let to = theirs.join("x.pcapng");
    let socket = folder.path().join("control.sock");
    let output = Tool::new("env")
        .args(["SUDO_UID=65534", "SUDO_GID=65534"])
        .arg(daemon::binary("dataplane"))
        .arg("--socket")
        .arg(&socket)
        .arg("-r")
        .arg(&from)
        .arg("--to")
        .arg(&to)
        // A folder of root's stays root's affair.
        .arg("--to")
        .arg(folder.path().join("y.pcapng"))
        .output();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for (path, owner) in [(to, 65534), (folder.path().join("y.pcapng"), 0)] {
        let metadata = fs::metadata(&path).expect("recorded");
        let ids = (metadata.uid(), metadata.gid());
        assert_eq!(ids, (owner, owner), "{}", path.display());
        assert_eq!(pcapng::read(&path).frames.len(), frames.len());
    }
}

fn its_own_source() {
    let folder = daemon::folder();
    let (from, _) = sample(folder.path(), 10);
    let before = fs::read(&from).expect("our own file");
    let link = folder.path().join("link.pcap");
    std::os::unix::fs::symlink(&from, &link).expect("our own folder");
    let ended = Daemon::spawn_here(&config(&from, "", &link, "")).wait(LIMIT);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("is the file of port sample under another name"),
        "{}",
        ended.stderr
    );
    assert_eq!(fs::read(&from).expect("our own file"), before);
}

/// A trial for each capture of the folder, or one that says that there is no folder.
fn real_captures(theme: &mut Theme) {
    const NEEDS: &[Need] = &[Need::Root, Need::Tool("tshark"), Need::Captures];
    let folder = needs::captures().and_then(|f| fs::read_dir(f).map_err(|e| e.to_string()));
    let Ok(folder) = folder else {
        theme.test("captures", NEEDS, || unreachable!("there is no folder"));
        return;
    };
    let mut captures: Vec<_> = folder.flatten().map(|entry| entry.path()).collect();
    captures.sort();
    for file in captures {
        let decoded = fs::read(&file).map(|bytes| capture::decode(&bytes));
        let records = match decoded {
            Ok(Ok((ETHERNET, records)) | Err((_, records))) => records,
            _ => continue,
        };
        if file.extension().is_none_or(|e| e != "pcap") {
            continue;
        }
        let name = file.file_stem().expect("a name").to_string_lossy();
        theme.test(format!("capture_{name}"), NEEDS, {
            let file = file.clone();
            move || real(&file, &records)
        });
    }
}

fn real(file: &Path, records: &[Record]) {
    let folder = daemon::folder();
    let to = folder.path().join("out.pcapng");
    let ended = Daemon::spawn_here(&config(file, "pace = 'top'", &to, "")).wait(LIMIT);
    let stats = ended
        .stats
        .unwrap_or_else(|| panic!("no summary\n{}", ended.stderr));
    daemon::assert_explained(&stats);
    // Shorter ones are no frames, and counted.
    let want: Vec<Record> = records
        .iter()
        .filter(|r| r.frame.len() >= 14)
        .cloned()
        .collect();
    let short = daemon::port(&stats, "sample").rx.dropped.get("too_short");
    assert_eq!(
        short.copied().unwrap_or(0),
        (records.len() - want.len()) as u64
    );
    let recording = pcapng::read(&to);
    assert_eq!(recording.interfaces, ["sample"]);
    capture::assert_same(
        &recording.bytes(),
        &want.iter().map(|r| r.frame.clone()).collect::<Vec<_>>(),
    );
    assert!(recording.records() == want, "their times");
    if ended.code == Some(0) && short.is_none() {
        assert_eq!(told_by_tshark(&to), told_by_tshark(file));
    }
}

/// Time, length and protocol of each frame.
fn told_by_tshark(file: &Path) -> String {
    let file = file.to_str().expect("UTF-8");
    let fields = ["frame.time_epoch", "frame.cap_len", "frame.protocols"];
    let fields = fields.iter().flat_map(|field| ["-e", field]);
    let mut arguments = vec!["-r", file, "-T", "fields"];
    arguments.extend(fields);
    run("tshark", &arguments)
}
