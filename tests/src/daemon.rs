//! The daemon as a child of the test: its configuration in a folder of its own, its control socket
//! beside it, its end within a time limit.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use control::stats::{PortStats, Stats, check_laws};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{Netns, Tool, process::Running, wait_until};

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(20);

/// How long an end may take: the promise is 100 ms, the machine may be busy.
const END: Duration = Duration::from_secs(10);

/// Where the built programs are: `DATAPLANE_BIN_DIR`, or beside the folder of this test's own program.
pub fn binary(name: &str) -> PathBuf {
    let folder = env::var_os("DATAPLANE_BIN_DIR").map_or_else(
        || {
            let test = env::current_exe().expect("the path of this program");
            let deps = test.parent().expect("in a folder");
            deps.parent().expect("in target/PROFILE").to_owned()
        },
        PathBuf::from,
    );
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is not there: build it with `cargo build -p control`, or name its folder in DATAPLANE_BIN_DIR",
        path.display()
    );
    path
}

/// A folder for a configuration, a socket and captures, which every user may enter.
pub fn folder() -> TempDir {
    let folder = tempfile::Builder::new()
        .prefix("dpt-")
        .tempdir()
        .expect("a folder for temporary files");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("our own folder");
    folder
}

/// What precedes every configuration: one core, so that two daemons can run beside each other, and a
/// small pool.
pub fn preamble(socket: &Path) -> String {
    format!(
        "[engine]\ncores = \"0\"\nhugepages = \"off\"\n[control]\nsocket = \"{}\"\n",
        socket.display()
    )
}

/// A running daemon. Dropped, it is killed.
pub struct Daemon {
    folder: TempDir,
    running: Running,
}

/// How a daemon ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` when a signal killed it.
    pub code: Option<i32>,
    /// All that it said.
    pub stderr: String,
    /// Its summary, where it wrote one.
    pub stats: Option<Stats>,
}

impl Ended {
    /// The summary of a run that did what it should: exit code 0, and every frame explained.
    pub fn explained(self) -> Stats {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        let stats = self.stats.expect("a summary");
        assert_explained(&stats);
        for (name, port) in &stats.ports {
            assert_eq!(port.rx.in_flight, 0, "{name} at the end\n{stats:#?}");
            assert_eq!(port.tx.in_flight, 0, "{name} at the end\n{stats:#?}");
        }
        stats
    }
}

/// Panics unless the counters explain every frame.
pub fn assert_explained(stats: &Stats) {
    if let Err(broken) = check_laws(stats) {
        panic!("{broken}\n{stats:#?}");
    }
}

/// One port of a reading.
pub fn port<'a>(stats: &'a Stats, name: &str) -> &'a PortStats {
    stats
        .ports
        .get(name)
        .unwrap_or_else(|| panic!("no port {name} in {stats:#?}"))
}

impl Daemon {
    /// Starts one in a namespace, with `config` after [`preamble`].
    pub fn spawn(ns: &Netns, config: &str) -> Self {
        Self::spawn_in(ns, folder(), config, preamble)
    }

    /// The same with a folder that is there already and another beginning of the configuration.
    pub fn spawn_in(
        ns: &Netns,
        folder: TempDir,
        config: &str,
        preamble: impl FnOnce(&Path) -> String,
    ) -> Self {
        let tool = |program: &Path| ns.tool(program.to_str().expect("a path in UTF-8"));
        Self::spawn_by(folder, config, preamble, tool)
    }

    /// The same in the namespace of the test itself: its ports name their own.
    pub fn spawn_here(config: &str) -> Self {
        Self::spawn_by(folder(), config, preamble, |program| Tool::new(program))
    }

    /// Starts one without a configuration, with these flags, in a namespace.
    pub fn spawn_flags(ns: &Netns, flags: &[&str]) -> Self {
        let folder = folder();
        let program = binary("dataplane");
        let running = ns
            .tool(program.to_str().expect("a path in UTF-8"))
            .args(flags)
            .args(if flags.contains(&"--cores") {
                &[][..]
            } else {
                &["--cores", "0"]
            })
            .arg("--socket")
            .arg(folder.path().join("control.sock"))
            .arg("--summary")
            .arg(folder.path().join("summary.json"))
            .spawn();
        Self { folder, running }
    }

    fn spawn_by(
        folder: TempDir,
        config: &str,
        preamble: impl FnOnce(&Path) -> String,
        tool: impl FnOnce(&Path) -> Tool,
    ) -> Self {
        let file = folder.path().join("dp.toml");
        let text = preamble(&folder.path().join("control.sock")) + config;
        fs::write(&file, text).expect("a file in our own folder");
        let running = tool(&binary("dataplane"))
            .arg("--config")
            .arg(&file)
            .arg("--summary")
            .arg(folder.path().join("summary.json"))
            .current_dir(folder.path())
            .spawn();
        Self { folder, running }
    }

    /// Starts one and waits until it can be talked to.
    pub fn start(ns: &Netns, config: &str) -> Self {
        Self::spawn(ns, config).ready()
    }

    /// Waits until it can be talked to.
    pub fn ready(mut self) -> Self {
        self.running.wait_for_stderr("control socket", START);
        self
    }

    /// Waits until it can be talked to, or has ended: then the answer is no.
    pub fn ready_or_ended(&mut self, limit: Duration) -> bool {
        let mut ready = false;
        wait_until(limit, || {
            ready = self.running.stderr().contains("control socket");
            ready || self.running.has_ended()
        });
        ready
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// The folder of its configuration and socket.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has said so far.
    pub fn stderr(&self) -> String {
        self.running.stderr()
    }

    /// Waits until it has said `words`.
    pub fn wait_for(&mut self, words: &str) {
        self.running.wait_for_stderr(words, START);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// `dpctl` with arguments, sent to this daemon.
    pub fn dpctl(&self, arguments: &[&str]) -> Output {
        Tool::new(binary("dpctl"))
            .arg("--socket")
            .arg(self.folder.path().join("control.sock"))
            .args(arguments)
            .output()
    }

    /// The same; panics unless it succeeds, and answers with what it printed.
    pub fn dpctl_ok(&self, arguments: &[&str]) -> String {
        let output = self.dpctl(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && stderr.is_empty(),
            "dpctl {}: {}\n{stderr}{}",
            arguments.join(" "),
            output.status,
            self.running
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// A reading of its counters.
    pub fn stats(&self) -> Stats {
        serde_json::from_str(&self.dpctl_ok(&["stats", "--json"])).expect("the shape of statistics")
    }

    /// Waits until its counters are as they should be, and answers with them. Panics, with the last
    /// reading, when that takes longer than `limit`.
    pub fn stats_when(&self, limit: Duration, mut are_right: impl FnMut(&Stats) -> bool) -> Stats {
        let mut last = None;
        let right = wait_until(limit, || {
            let stats = self.stats();
            let right = are_right(&stats);
            last = Some(stats);
            right
        });
        let last = last.expect("asked at least once");
        assert!(right, "not within {limit:?}: {last:#?}\n{}", self.running);
        last
    }

    /// Waits for its end.
    pub fn wait(mut self, limit: Duration) -> Ended {
        let status = self.running.wait(limit);
        let status = status.unwrap_or_else(|| panic!("no end within {limit:?}\n{}", self.running));
        let summary = fs::read_to_string(self.folder.path().join("summary.json"));
        Ended {
            code: status.code(),
            stderr: self.running.stderr(),
            stats: summary
                .ok()
                .and_then(|text| serde_json::from_str(&text).ok()),
        }
    }

    /// Stops it with SIGTERM.
    pub fn stop(self) -> Ended {
        self.running.signal(Signal::SIGTERM);
        self.wait(END)
    }
}
