//! The shipped `dataplane` with an ordinary configuration, as a child process: what it forwards and the
//! processor time of its worker.

use std::{
    env, fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use control::{api::protocol::PortInfo, stats::Stats};
use nix::{
    sys::{
        prctl::set_pdeathsig,
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use super::{ForwardError, HugePages, Measured};
use crate::{
    generator::{Generator, Traffic, frame},
    lab::{Cores, Interrupt, SOURCE, UPLINK},
};
use control::link::NetNs;

/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a worker has slept when its processor time has not changed.
const QUIET: Duration = Duration::from_millis(30);

/// What came of a run of the product.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) measured: Measured,
    /// Frames that the generator handed to the interface.
    pub(super) offered: u64,
    /// What the frame memory is made of.
    pub(super) backing: String,
}

/// Pours frames into a new dataplane for `time` and lets it come to rest.
pub(super) fn measure(
    cores: Cores,
    frame: &[u8],
    time: Duration,
    hugepages: HugePages,
    interrupt: &Interrupt,
) -> Result<Run, ForwardError> {
    let product = Product::start(cores, hugepages, interrupt)?;
    let ports: Vec<PortInfo> = product.dpctl(&["ports", "--json"])?;
    let backing = ports
        .into_iter()
        .find_map(|port| port.backing)
        .unwrap_or_default();
    let (cpu, forwarded) = product.at_rest(interrupt)?;
    let traffic = Traffic {
        frame: frame.to_vec(),
        count: None,
        rate: None,
        core: cores.generator,
    };
    let generator = Generator::start(&NetNs::own(), SOURCE, traffic)?;
    while generator.progress().began == 0 && !generator.is_finished() {
        interrupt.check()?;
        thread::sleep(Duration::from_millis(1));
    }
    let end = Instant::now() + time;
    while Instant::now() < end && !generator.is_finished() {
        interrupt.check()?;
        thread::sleep((end - Instant::now()).min(Duration::from_millis(20)));
    }
    let sent = generator.stop()?;
    let (cpu_after, forwarded_after) = product.at_rest(interrupt)?;
    product.stop()?;
    Ok(Run {
        measured: Measured {
            frames: forwarded_after - forwarded,
            cpu: cpu_after - cpu,
            elapsed: sent.elapsed,
        },
        offered: sent.frames,
        backing,
    })
}

/// A running dataplane. Killed when dropped, and by the kernel should this process die first.
struct Product {
    child: Child,
    dpctl: PathBuf,
    schedstat: PathBuf,
    dir: TempDir,
}

impl Product {
    fn start(
        cores: Cores,
        hugepages: HugePages,
        interrupt: &Interrupt,
    ) -> Result<Self, ForwardError> {
        let dataplane = sibling("dataplane")?;
        let dpctl = sibling("dpctl")?;
        let failed = ForwardError::product;
        let dir = tempfile::Builder::new()
            .prefix("dpbench-")
            .tempdir()
            .map_err(|e| failed(format!("no temporary folder: {e}")))?;
        let config = dir.path().join("dp.toml");
        fs::write(
            &config,
            configuration(cores, hugepages, &socket(dir.path())),
        )
        .map_err(|e| failed(format!("{}: {e}", config.display())))?;
        let log =
            fs::File::create(dir.path().join("log")).map_err(|e| failed(format!("no log: {e}")))?;
        let mut command = Command::new(&dataplane);
        command
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // SAFETY: between fork and exec only prctl(2) is called, which allocates and locks nothing.
        unsafe { command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from)) };
        let child = command
            .spawn()
            .map_err(|e| failed(format!("cannot start {}: {e}", dataplane.display())))?;
        let mut product = Self {
            child,
            dpctl,
            schedstat: PathBuf::new(),
            dir,
        };
        let deadline = Instant::now() + PATIENCE;
        while product.dpctl::<Stats>(&["stats", "--json"]).is_err() {
            if product.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Err(failed(format!("it ended: {}", product.log())));
            }
            if Instant::now() > deadline {
                return Err(failed(format!("it does not answer: {}", product.log())));
            }
            interrupt.check()?;
            thread::sleep(Duration::from_millis(20));
        }
        product.schedstat = worker_of(product.child.id(), cores.worker)?;
        Ok(product)
    }

    /// What it wrote on its standard error, in one line.
    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log"))
            .unwrap_or_default()
            .lines()
            .collect::<Vec<_>>()
            .join("; ")
    }

    fn dpctl<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T, ForwardError> {
        let output = Command::new(&self.dpctl)
            .arg("--socket")
            .arg(socket(self.dir.path()))
            .args(arguments)
            .output()
            .map_err(|e| ForwardError::product(format!("{}: {e}", self.dpctl.display())))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(ForwardError::product(said.trim().to_owned()));
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|e| ForwardError::product(format!("dpctl {}: {e}", arguments.join(" "))))
    }

    /// The worker's processor time, and the frames it has written, once it sleeps: the kernel brings
    /// the time of a running thread up to date at its ticks only, that of a sleeping one is exact.
    fn at_rest(&self, interrupt: &Interrupt) -> Result<(Duration, u64), ForwardError> {
        let deadline = Instant::now() + PATIENCE;
        let mut stats: Stats = self.dpctl(&["stats", "--json"])?;
        loop {
            let before = self.cpu()?;
            thread::sleep(QUIET);
            let cpu = self.cpu()?;
            if cpu == before {
                let written = |stats: &Stats| stats.ports.get("lc0").map_or(0, |lc0| lc0.tx.frames);
                let seen = written(&stats);
                // Asking wakes the worker for a moment: it counts towards the next reading.
                stats = self.dpctl(&["stats", "--json"])?;
                if written(&stats) == seen {
                    return Ok((cpu, seen));
                }
            }
            if Instant::now() > deadline {
                return Err(ForwardError::product(
                    "its worker does not come to rest".into(),
                ));
            }
            interrupt.check()?;
        }
    }

    /// The first number of schedstat: nanoseconds on a processor.
    fn cpu(&self) -> Result<Duration, ForwardError> {
        let failed = |what: &dyn std::fmt::Display| {
            ForwardError::product(format!("{}: {what}", self.schedstat.display()))
        };
        let text = fs::read_to_string(&self.schedstat).map_err(|e| failed(&e))?;
        let first = text.split_whitespace().next().unwrap_or_default();
        first
            .parse()
            .map(Duration::from_nanos)
            .map_err(|e| failed(&e))
    }

    fn stop(mut self) -> Result<(), ForwardError> {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(5)),
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(ForwardError::product(format!("{status}: {}", self.log())));
                }
                Err(e) => return Err(ForwardError::product(e.to_string())),
            }
        }
        Err(ForwardError::product("SIGTERM does not end it".into()))
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// An executable beside this one.
fn sibling(name: &str) -> Result<PathBuf, ForwardError> {
    let own = env::current_exe().map_err(|e| ForwardError::product(e.to_string()))?;
    let path = own.with_file_name(name);
    if path.exists() {
        Ok(path)
    } else {
        Err(ForwardError::product(format!(
            "{} is not there: build it in the same profile, cargo build --release --bins",
            path.display()
        )))
    }
}

/// The schedstat of the thread `worker-CORE`.
fn worker_of(pid: u32, core: usize) -> Result<PathBuf, ForwardError> {
    let name = format!("worker-{core}");
    let tasks = format!("/proc/{pid}/task");
    fs::read_dir(&tasks)
        .into_iter()
        .flatten()
        .flatten()
        .map(|task| task.path())
        .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name))
        .map(|task| task.join("schedstat"))
        .ok_or_else(|| ForwardError::product(format!("no thread {name} in {tasks}")))
}

/// Ten rules, of which the last admits the generator's frames.
fn configuration(cores: Cores, hugepages: HugePages, socket: &Path) -> String {
    format!(
        r#"[engine]
cores = "{worker}"
hugepages = "{hugepages}"

[control]
socket = {socket:?}

[ports.uplink]
kind = "af_xdp"
interface = "{UPLINK}"

[ports.lc0]
kind = "tap"
name = "lc0"

[policies.bench]
mode = "filtered"
allow = [
  {{ proto = "tcp", to = "10.0.0.0/8", ports = "80,443,8000-8100", replies = true }},
  {{ proto = "tcp", to = "10.0.0.0/8", ports = "22", replies = true }},
  {{ proto = "tcp", from = "10.1.0.0/16", to = "10.2.0.10", ports = "5432", replies = true }},
  {{ proto = "tcp", from = "10.1.0.0/16", to = "10.2.0.11", ports = "6379", replies = true }},
  {{ proto = "udp", to = "10.0.0.53", ports = "53", replies = true }},
  {{ proto = "udp", to = "10.0.0.123", ports = "123", replies = true }},
  {{ proto = "udp", from = "10.1.0.0/16", to = "203.0.113.50", ports = "51820" }},
  {{ proto = "udp", to = "192.0.2.0/24", ports = "4000-5000" }},
  {{ proto = "icmp", icmp = "echo", to = "10.0.0.0/8", replies = true }},
  {{ proto = "udp", from = "{from}", to = "{to}", ports = "{port}" }},
]

[[pipelines]]
from = ["uplink"]
policy = "bench"
to = ["lc0"]
"#,
        worker = cores.worker,
        from = frame::FROM,
        to = frame::TO,
        port = frame::TO_PORT,
    )
}
