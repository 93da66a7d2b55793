//! The shipped `dataplane` with an ordinary configuration, as a child process: its counters, and the processor
//! time of its workers.

use std::{
    env, fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use control::{
    api::{
        client::Client,
        protocol::{PortInfo, Request},
    },
    stats::Stats,
};
use nix::{
    sys::{
        prctl::set_pdeathsig,
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::{error::BenchError, lab::Interrupt};

/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a worker has slept when its processor time has not changed.
const QUIET: Duration = Duration::from_millis(30);

/// A running dataplane. Killed when dropped, and by the kernel should this process die first.
pub struct Product {
    child: Child,
    dpctl: PathBuf,
    dir: TempDir,
}

impl Product {
    /// Starts it in the namespace of the calling thread. `configuration` is its dp.toml but for the table
    /// `[control]`, which is added. Comes back once it answers.
    ///
    /// # Errors
    ///
    /// When it ends or does not answer, with what it said.
    pub fn start(configuration: &str, interrupt: &Interrupt) -> Result<Self, BenchError> {
        let mut product = Self::spawn(configuration)?;
        let deadline = Instant::now() + PATIENCE;
        while product.stats().is_err() {
            if product.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Err(BenchError::Product(format!("it ended: {}", product.log())));
            }
            if Instant::now() > deadline {
                return Err(BenchError::Product(format!(
                    "it does not answer: {}",
                    product.log()
                )));
            }
            interrupt.check()?;
            thread::sleep(Duration::from_millis(20));
        }
        Ok(product)
    }

    /// Starts it, like [`start`](Self::start), and comes back at once: for one that ends by itself.
    ///
    /// # Errors
    ///
    /// When there is no such executable beside this one.
    pub fn spawn(configuration: &str) -> Result<Self, BenchError> {
        let dataplane = sibling("dataplane")?;
        let dpctl = sibling("dpctl")?;
        let failed = BenchError::Product;
        let dir = tempfile::Builder::new()
            .prefix("dpbench-")
            .tempdir()
            .map_err(|e| failed(format!("no temporary folder: {e}")))?;
        let config = dir.path().join("dp.toml");
        let control = format!("[control]\nsocket = {:?}\n\n", socket(dir.path()));
        fs::write(&config, control + configuration)
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
        Ok(Self { child, dpctl, dir })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote on its standard error, in one line.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log"))
            .unwrap_or_default()
            .lines()
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// What a subcommand of dpctl prints as JSON.
    ///
    /// # Errors
    ///
    /// When it refuses, with its reason.
    pub fn dpctl<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T, BenchError> {
        let output = Command::new(&self.dpctl)
            .arg("--socket")
            .arg(socket(self.dir.path()))
            .args(arguments)
            .output()
            .map_err(|e| BenchError::Product(format!("{}: {e}", self.dpctl.display())))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(BenchError::Product(said.trim().to_owned()));
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|e| BenchError::Product(format!("dpctl {}: {e}", arguments.join(" "))))
    }

    /// What it answers to a request on its control socket.
    ///
    /// # Errors
    ///
    /// When it refuses, with its reason.
    pub fn call<T: DeserializeOwned>(&self, request: &Request) -> Result<T, BenchError> {
        let failed = |e: &dyn std::fmt::Display| BenchError::Product(e.to_string());
        let mut client = Client::connect(&[socket(self.dir.path())]).map_err(|e| failed(&e))?;
        client.call(request).map_err(|e| failed(&e))
    }

    /// Its counters.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn stats(&self) -> Result<Stats, BenchError> {
        self.dpctl(&["stats", "--json"])
    }

    /// What its frame memory is made of.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn backing(&self) -> Result<String, BenchError> {
        let ports: Vec<PortInfo> = self.dpctl(&["ports", "--json"])?;
        let backing = ports.into_iter().find_map(|port| port.backing);
        Ok(backing.unwrap_or_default())
    }

    /// The processor time of the worker on a core, and all counters, once it sleeps: the kernel brings
    /// the time of a running thread up to date at its ticks only, that of a sleeping one is exact.
    ///
    /// # Errors
    ///
    /// When it does not come to rest, as one with `idle = "busy"` never does.
    pub fn at_rest(
        &self,
        core: usize,
        interrupt: &Interrupt,
    ) -> Result<(Duration, Stats), BenchError> {
        let schedstat = thread_of(self.child.id(), &worker_name(core))?;
        let deadline = Instant::now() + PATIENCE;
        let mut stats = self.stats()?;
        loop {
            let before = processor_time(&schedstat)?;
            thread::sleep(QUIET);
            let cpu = processor_time(&schedstat)?;
            if cpu == before {
                // Asking wakes the worker for a moment: it counts towards the next reading.
                let seen = std::mem::replace(&mut stats, self.stats()?);
                if moved(&seen) == moved(&stats) {
                    return Ok((cpu, stats));
                }
            }
            if Instant::now() > deadline {
                return Err(BenchError::Product(
                    "its worker does not come to rest".into(),
                ));
            }
            interrupt.check()?;
        }
    }

    /// The processor time of the worker on a core, as of the last tick or sleep.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn worker_time(&self, core: usize) -> Result<Duration, BenchError> {
        self.thread_time(&worker_name(core))
    }

    /// The processor time of its thread of that name, as of the last tick or sleep.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn thread_time(&self, name: &str) -> Result<Duration, BenchError> {
        processor_time(&thread_of(self.child.id(), name)?)
    }

    /// Ends it with SIGTERM.
    ///
    /// # Errors
    ///
    /// When it does not end, or says that something failed.
    pub fn stop(self) -> Result<(), BenchError> {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        match self.wait(PATIENCE)? {
            (status, _) if status.success() => Ok(()),
            (status, log) => Err(BenchError::Product(format!("{status}: {log}"))),
        }
    }

    /// Waits until it ends by itself. Answers how, and what it wrote on its standard error.
    ///
    /// # Errors
    ///
    /// When it does not within `patience`.
    pub fn wait(mut self, patience: Duration) -> Result<(ExitStatus, String), BenchError> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(5)),
                Ok(Some(status)) => return Ok((status, self.log())),
                Err(e) => return Err(BenchError::Product(e.to_string())),
            }
        }
        Err(BenchError::Product(format!(
            "it does not end: {}",
            self.log()
        )))
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

/// Frames that came and went: equal when nothing moves.
fn moved(stats: &Stats) -> u64 {
    let ports = stats.ports.values();
    ports.map(|port| port.rx.frames + port.tx.frames).sum()
}

/// The first number of schedstat: nanoseconds on a processor.
pub(crate) fn processor_time(schedstat: &Path) -> Result<Duration, BenchError> {
    let failed = |what: &dyn std::fmt::Display| {
        BenchError::Product(format!("{}: {what}", schedstat.display()))
    };
    let text = fs::read_to_string(schedstat).map_err(|e| failed(&e))?;
    let first = text.split_whitespace().next().unwrap_or_default();
    first
        .parse()
        .map(Duration::from_nanos)
        .map_err(|e| failed(&e))
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// An executable beside this one.
pub(crate) fn sibling(name: &str) -> Result<PathBuf, BenchError> {
    let own = env::current_exe().map_err(|e| BenchError::Product(e.to_string()))?;
    let path = own.with_file_name(name);
    if path.exists() {
        Ok(path)
    } else {
        Err(BenchError::Product(format!(
            "{} is not there: build it in the same profile, cargo build --release --bins",
            path.display()
        )))
    }
}

/// A worker's thread, by its core.
fn worker_name(core: usize) -> String {
    format!("worker-{core}")
}

/// The schedstat of a thread.
fn thread_of(pid: u32, name: &str) -> Result<PathBuf, BenchError> {
    let tasks = format!("/proc/{pid}/task");
    fs::read_dir(&tasks)
        .into_iter()
        .flatten()
        .flatten()
        .map(|task| task.path())
        .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name))
        .map(|task| task.join("schedstat"))
        .ok_or_else(|| BenchError::Product(format!("no thread {name} in {tasks}")))
}
