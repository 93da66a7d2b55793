//! A guest from its start to its end: what it prints, what it asks for, and its verdict.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{net::UnixStream, process::CommandExt},
    path::PathBuf,
    process::{Child, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::json;
use signal_hook::consts::TERM_SIGNALS;

use crate::{
    accel::{self, Accel},
    broker,
    channel::{self, Channel},
    console,
    error::{At, Error},
    initramfs,
    kernel::Kernel,
    lab::Lab,
    qemu::Machine,
    qmp::Qmp,
};

/// A guest to be booted.
pub(crate) struct Guest {
    pub(crate) kernel: Kernel,
    pub(crate) accel: Accel,
    pub(crate) cpus: u32,
    /// MiB.
    pub(crate) memory: u32,
    pub(crate) lab: Lab,
    /// The checkout.
    pub(crate) project: PathBuf,
    /// Where its programs were built.
    pub(crate) target: PathBuf,
    /// Where the guest may write; a folder that is gone at the end, if none is given.
    pub(crate) out: Option<PathBuf>,
    /// A script for /bin/sh.
    pub(crate) command: String,
    /// How long it may take in all.
    pub(crate) limit: Option<Duration>,
    /// Where the kernel's log is kept.
    pub(crate) log: Option<PathBuf>,
    /// The size of our terminal, in rows and columns, if the command is to have it.
    pub(crate) terminal: Option<(u16, u16)>,
}

/// How the command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code.
    pub(crate) code: u8,
    /// Warnings of the guest's kernel.
    pub(crate) warnings: Vec<String>,
}

/// What the guest's first process says at the end.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Exit(u8),
    Failed(String),
}

impl Verdict {
    fn read(line: &str) -> Option<Self> {
        let line = line.trim();
        if let Some(why) = line.strip_prefix("failed ") {
            return Some(Verdict::Failed(why.to_owned()));
        }
        let code = line.strip_prefix("exit ")?.parse().ok()?;
        Some(Verdict::Exit(code))
    }
}

/// How long QEMU may take to connect, and to end after the verdict.
const GRACE: Duration = Duration::from_secs(20);

impl Guest {
    /// Boots it, passes on what its command prints, and waits for its end.
    pub(crate) fn run(
        &self,
        stdout: impl Write + Send + 'static,
        stderr: impl Write + Send + 'static,
    ) -> Result<Ended, Error> {
        let began = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        for signal in TERM_SIGNALS {
            signal_hook::flag::register(*signal, Arc::clone(&stop)).at("signals")?;
        }
        let work = tempfile::Builder::new()
            .prefix("dataplane-vm-")
            .tempdir()
            .at(std::env::temp_dir())?;
        let own_out = work.path().join("out");
        let out = match &self.out {
            Some(out) => out,
            None => {
                fs::create_dir(&own_out).at(&own_out)?;
                &own_out
            }
        };
        initramfs::write(
            &work.path().join(Machine::INITRAMFS),
            &self.kernel,
            &self.command,
            &self.settings(),
        )?;
        let listen = |name| Channel::listen(work.path(), name);
        let channels = [listen("stdout")?, listen("stderr")?, listen("verdict")?, listen("control")?];
        let monitor = listen("qmp")?;
        let shares = [
            ("usr", "/usr".as_ref(), false),
            ("kernel", self.kernel.base.as_path(), false),
            ("project", self.project.as_path(), false),
            ("target", self.target.as_path(), false),
            ("out", out.as_path(), true),
        ];
        let machine = Machine {
            kernel: &self.kernel,
            accel: self.accel,
            cpus: self.cpus,
            memory: self.memory,
            lab: &self.lab,
            shares: &shares,
            channels: &channels,
            qmp: &monitor,
            terminal: self.terminal.is_some(),
            work: work.path(),
        };
        let mut command = machine.command()?;
        if self.terminal.is_none() {
            command.stdin(Stdio::null());
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        if self.terminal.is_some() {
            command.stdout(Stdio::inherit());
        } else {
            // Ctrl-C is for us to answer.
            command.process_group(0);
        }
        die_with_us(&mut command);
        let mut child = Qemu(command.spawn().map_err(|e| accel::not_started(&e))?);
        let said = child.collect_stderr();
        let [out_port, err_port, verdict_port, control_port] = channels;
        let connect = |channel: Channel| channel.accept(GRACE);
        let streams = (|| {
            Ok::<_, std::io::Error>((
                connect(out_port)?,
                connect(err_port)?,
                connect(verdict_port)?,
                connect(control_port)?,
                connect(monitor)?,
            ))
        })();
        let log_file = work.path().join(Machine::LOG);
        let Ok((out_stream, err_stream, verdict, control, monitor)) = streams else {
            child.end();
            return Err(no_verdict(&mut child, &said, ""));
        };
        let qmp = Qmp::new(monitor).map_err(Error::Machine)?;
        let qmp = Arc::new(Mutex::new(qmp));
        let copies = [channel::copy(out_stream, stdout), channel::copy(err_stream, stderr)];
        let _broker = broker::serve(control, Arc::clone(&qmp), self.lab.cards.clone());
        let waited = self.wait(&mut child, &read_verdict(verdict), &stop, began);
        if matches!(waited, Err(Error::Hang { .. })) {
            // The answer to this is a panic, whose trace shows what the processors do.
            if let Ok(mut qmp) = qmp.lock() {
                let _ = qmp.call("inject-nmi", &json!({}));
            }
            thread::sleep(Duration::from_secs(2));
        }
        child.end();
        for copy in copies {
            let _ = copy.join();
        }
        let log = console::read(&log_file);
        if let Some(kept) = &self.log {
            fs::write(kept, &log).at(kept)?;
        }
        match waited {
            Ok(Some(Verdict::Exit(code))) => Ok(Ended {
                code,
                warnings: console::warnings(&log).into_iter().map(str::to_owned).collect(),
            }),
            Ok(Some(Verdict::Failed(why))) => Err(Error::Machine(format!(
                "the guest could not be set up: {why}\n{}",
                console::tail(&log)
            ))),
            Ok(None) => Err(match console::panic(&log) {
                Some(what) => Error::Panic { what, log: console::tail(&log) },
                None => no_verdict(&mut child, &said, &log),
            }),
            Err(Error::Hang { limit, .. }) => Err(Error::Hang { limit, log: console::tail(&log) }),
            Err(e) => Err(e),
        }
    }

    /// The verdict, or nothing when QEMU ended without one.
    fn wait(
        &self,
        child: &mut Qemu,
        verdict: &mpsc::Receiver<Verdict>,
        stop: &AtomicBool,
        began: Instant,
    ) -> Result<Option<Verdict>, Error> {
        loop {
            match verdict.recv_timeout(Duration::from_millis(50)) {
                Ok(verdict) => {
                    child.wait(GRACE);
                    return Ok(Some(verdict));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    child.wait(GRACE);
                    return Ok(None);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            if let Some(limit) = self.limit
                && began.elapsed() > limit
            {
                return Err(Error::Hang { limit, log: String::new() });
            }
        }
    }

    /// What the guest's first process reads.
    fn settings(&self) -> String {
        let mut text = String::new();
        let cards: Vec<String> = self
            .lab
            .cards
            .iter()
            .map(|card| format!("{}={}", card.address(), card.name))
            .collect();
        text += &format!("CARDS='{}'\n", cards.join(" "));
        if let Some((rows, columns)) = self.terminal {
            text += &format!("SHELL_SIZE='{rows} {columns}'\n");
            let term: String = std::env::var("TERM").unwrap_or_default();
            if term.chars().all(|c| c.is_ascii_alphanumeric() || "-+._".contains(c)) {
                text += &format!("TERM='{term}'\n");
            }
        }
        text
    }
}

/// QEMU's process; it ends with this.
struct Qemu(Child);

impl Qemu {
    fn collect_stderr(&mut self) -> Arc<Mutex<String>> {
        let said = Arc::new(Mutex::new(String::new()));
        if let Some(stderr) = self.0.stderr.take() {
            let into = Arc::clone(&said);
            let _: JoinHandle<()> = thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    if let Ok(mut said) = into.lock() {
                        said.push('\n');
                        said.push_str(&line);
                    }
                }
            });
        }
        said
    }

    fn wait(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        while self.0.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.end();
    }
}

fn no_verdict(child: &mut Qemu, said: &Mutex<String>, log: &str) -> Error {
    let status = child.0.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
    // Its last words may be on their way.
    thread::sleep(Duration::from_millis(50));
    Error::NoVerdict {
        status: format!("QEMU: {status}"),
        said: said.lock().map(|said| said.clone()).unwrap_or_default(),
        log: console::tail(log),
    }
}

fn read_verdict(stream: UnixStream) -> mpsc::Receiver<Verdict> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some(verdict) = Verdict::read(&line) {
                let _ = sender.send(verdict);
                return;
            }
        }
    });
    receiver
}

/// Has the kernel end QEMU when we end without a word.
fn die_with_us(command: &mut std::process::Command) {
    let settle = || nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from);
    // SAFETY: between fork and exec the closure makes one prctl system call, and neither allocates nor takes a lock.
    unsafe { command.pre_exec(settle) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let cases = [
            ("exit 0", Some(Verdict::Exit(0))),
            ("exit 255\r", Some(Verdict::Exit(255))),
            ("exit 256", None),
            ("failed no share out", Some(Verdict::Failed("no share out".into()))),
            ("noise", None),
        ];
        for (line, expected) in cases {
            assert_eq!(Verdict::read(line), expected, "{line}");
        }
    }
}
