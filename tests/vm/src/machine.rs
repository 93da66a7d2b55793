//! A guest from its start to its end: what it prints, what it asks for, and its verdict.

use std::{
    fs,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    accel::Accel,
    broker,
    channel::{self, Channel},
    cli::quoted,
    console,
    error::{At, Error},
    initramfs,
    kernel::Kernel,
    lab::Lab,
    process::Qemu,
    qemu::Machine,
    qmp::Qmp,
    stop,
    verdict::{self, Verdict},
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

/// Where the command's output goes.
pub(crate) type Output = Box<dyn Write + Send>;

/// How long QEMU may take to connect, and to end after the verdict.
const GRACE: Duration = Duration::from_secs(20);

/// How long a boot may take; a loaded machine was seen to take 30 s.
const BOOT: Duration = Duration::from_secs(60);

/// How often a machine is started that does not come as far as its command. Emulation with several threads has races of
/// its own (QEMU 10.0: the assertion in `iotlb_to_section`, one boot of some twenty; a processor without timer
/// interrupts, rarer), in which nothing of ours has a part yet.
const BOOTS: u32 = 3;

/// Why there is no verdict.
enum Failure {
    /// Before the command began, by something that may not happen again.
    Boot(Error),
    /// For good.
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Final(error)
    }
}

impl Guest {
    /// Boots it, passes on what its command prints to what `outputs` gives (standard output and error), and waits for
    /// its end.
    pub(crate) fn run(&self, outputs: impl Fn() -> (Output, Output)) -> Result<Ended, Error> {
        let end = self.limit.map(|limit| Instant::now() + limit);
        for boot in 1.. {
            match self.attempt(outputs(), end) {
                Ok(ended) => return Ok(ended),
                Err(Failure::Boot(e)) if boot < BOOTS => {
                    let why = e.to_string();
                    eprintln!(
                        "vm: {}; booting again",
                        why.lines().next().unwrap_or_default()
                    );
                }
                Err(Failure::Boot(e) | Failure::Final(e)) => return Err(e),
            }
        }
        unreachable!("the last attempt returns")
    }

    fn attempt(
        &self,
        (stdout, stderr): (Output, Output),
        end: Option<Instant>,
    ) -> Result<Ended, Failure> {
        let work = tempfile::Builder::new()
            .prefix("dataplane-vm-")
            .tempdir()
            .at(std::env::temp_dir())?;
        let work = work.path();
        let listen = |name| Channel::listen(work, name);
        let channels = [
            listen("stdout")?,
            listen("stderr")?,
            listen("verdict")?,
            listen("control")?,
        ];
        let monitor = listen("qmp")?;
        let mut qemu = self.start(work, &channels, &monitor)?;
        let log_file = work.join(Machine::LOG);
        let streams = channels
            .into_iter()
            .chain([monitor])
            .map(|channel| channel.accept(&mut qemu, GRACE));
        let Ok(streams) = streams.collect::<Result<Vec<_>, _>>() else {
            let (status, said) = qemu.end();
            return Err(Failure::Final(match stop::wanted() {
                true => Error::Interrupted,
                false => Error::Machine(format!("QEMU does not start ({status}){said}")),
            }));
        };
        let Ok([out, err, verdicts, control, monitor]) = <[_; 5]>::try_from(streams) else {
            unreachable!("as many as there are channels")
        };
        let qmp = Arc::new(Mutex::new(Qmp::new(monitor).map_err(Error::Machine)?));
        let copies = [channel::copy(out, stdout), channel::copy(err, stderr)];
        let _broker: JoinHandle<()> =
            broker::serve(control, Arc::clone(&qmp), self.lab.cards.clone());
        let mut up = false;
        let waited = self.wait(&mut qemu, &verdict::read(verdicts), end, &mut up);
        if matches!(waited, Err(Error::Hang { .. })) {
            // The answer to this is a panic, whose trace shows what the processors do.
            if let Ok(mut qmp) = qmp.lock() {
                let _ = qmp.call("inject-nmi", &json!({}));
            }
            thread::sleep(Duration::from_secs(2));
        }
        let (status, said) = qemu.end();
        for copy in copies {
            let _ = copy.join();
        }
        let log = console::read(&log_file);
        if let Some(kept) = &self.log {
            fs::write(kept, &log).at(kept)?;
        }
        let log_end = console::tail(&log);
        let error = match waited {
            Ok(Some(code)) => {
                let warnings = console::warnings(&log)
                    .into_iter()
                    .map(str::to_owned)
                    .collect();
                return Ok(Ended { code, warnings });
            }
            Ok(None) => match console::panic(&log) {
                Some(what) => return Err(Failure::Final(Error::Panic { what, log: log_end })),
                None => Error::NoVerdict {
                    status,
                    said,
                    log: log_end,
                },
            },
            Err(Error::Hang { what, limit, .. }) => Error::Hang {
                what,
                limit,
                log: log_end,
            },
            Err(e) => return Err(Failure::Final(e)),
        };
        let over = end.is_some_and(|end| Instant::now() > end);
        Err(match up || over {
            true => Failure::Final(error),
            false => Failure::Boot(error),
        })
    }

    /// Starts QEMU, with all that it needs in a folder.
    fn start(&self, work: &Path, channels: &[Channel], monitor: &Channel) -> Result<Qemu, Error> {
        let own_out = work.join("out");
        let out = match &self.out {
            Some(out) => out,
            None => {
                fs::create_dir(&own_out).at(&own_out)?;
                &own_out
            }
        };
        initramfs::write(
            &work.join(Machine::INITRAMFS),
            &self.kernel,
            &self.command,
            &self.settings(),
        )?;
        let modules = self.kernel.modules();
        let shares = [
            ("usr", "/usr".as_ref(), false),
            ("modules", modules.as_path(), false),
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
            channels,
            qmp: monitor,
            terminal: self.terminal.is_some(),
            work,
        };
        let mut command = machine.command()?;
        command.stderr(Stdio::piped());
        if self.terminal.is_none() {
            // Ctrl-C is for us to answer.
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .process_group(0);
        }
        Qemu::start(command)
    }

    /// The exit code of the command, or nothing when QEMU ended without one. `up` says whether the command began.
    fn wait(
        &self,
        qemu: &mut Qemu,
        verdicts: &Receiver<Verdict>,
        end: Option<Instant>,
        up: &mut bool,
    ) -> Result<Option<u8>, Error> {
        let began = Instant::now();
        loop {
            match verdicts.recv_timeout(Duration::from_millis(50)) {
                Ok(Verdict::Up) => *up = true,
                Ok(Verdict::Exit(code)) => {
                    qemu.wait(GRACE);
                    return Ok(Some(code));
                }
                Ok(Verdict::Failed(why)) => {
                    return Err(Error::Broken(format!(
                        "the guest could not be set up: {why}"
                    )));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    qemu.wait(GRACE);
                    return Ok(None);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if stop::wanted() {
                return Err(Error::Interrupted);
            }
            let over = |end: Option<Instant>| end.is_some_and(|end| Instant::now() > end);
            let hang = |what, limit: Option<Duration>| Error::Hang {
                what,
                limit: limit.unwrap_or_default(),
                log: String::new(),
            };
            if over(end) {
                return Err(hang("no end (--time)", self.limit));
            }
            if !*up && over(Some(began + BOOT)) {
                return Err(hang("its command has not begun", Some(BOOT)));
            }
        }
    }

    /// What the guest's first process reads.
    fn settings(&self) -> String {
        let cards = self.lab.cards.iter();
        let cards: Vec<String> = cards
            .map(|card| format!("{}={}", card.address(), card.name))
            .collect();
        let mut text = format!("CARDS='{}'\n", cards.join(" "));
        // Tests know the checkout by the path that it had when they were built.
        text += &format!("PROJECT={}\n", quoted(&[self.project.to_string_lossy()]));
        if let Some((rows, columns)) = self.terminal {
            text += &format!("SHELL_SIZE='{rows} {columns}'\n");
            let term = std::env::var("TERM").unwrap_or_default();
            if term
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-+._".contains(c))
            {
                text += &format!("TERM='{term}'\n");
            }
        }
        text
    }
}
