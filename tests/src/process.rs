//! Child processes: tools that run to their end within a time limit, and tools that run beside a test
//! until it stops them.

use std::{
    ffi::OsStr,
    fmt,
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::wait_until;

/// How long a tool may take unless a test says otherwise.
const LIMIT: Duration = Duration::from_secs(30);

/// A program with its arguments, not started.
pub struct Tool {
    command: Command,
    limit: Duration,
}

impl Tool {
    /// A program without arguments.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        Self {
            command,
            limit: LIMIT,
        }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Adds one argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Has it run in a folder.
    pub fn current_dir(mut self, folder: impl AsRef<Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Gives it another time limit.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end. Panics when it cannot be started or takes too long.
    pub fn output(self) -> Output {
        let limit = self.limit;
        let shown = format!("{:?}", self.command);
        let mut running = self.spawn();
        let status = running
            .wait(limit)
            .unwrap_or_else(|| panic!("{shown} still runs after {limit:?}\n{running}"));
        running.join();
        let stdout = running.stdout.lock().expect("no reader panics").clone();
        let stderr = running.stderr.lock().expect("no reader panics").clone();
        Output {
            status,
            stdout,
            stderr,
        }
    }

    /// Starts it, to run beside the test.
    pub fn spawn(mut self) -> Running {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        die_with_us(&mut self.command);
        let name = format!("{:?}", self.command);
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let readers = vec![
            collect(child.stdout.take().expect("piped"), &stdout),
            collect(child.stderr.take().expect("piped"), &stderr),
        ];
        Running {
            name,
            child,
            stdout,
            stderr,
            readers,
        }
    }
}

/// A child that runs beside the test. Dropped, it is killed.
pub struct Running {
    name: String,
    child: Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed to standard output so far.
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it has printed to standard error so far.
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).unwrap_or_else(|e| panic!("{signal} to {}: {e}", self.name));
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Waits for its end. `None` when it does not come in time.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let mut status = None;
        wait_until(limit, || {
            status = self.child.try_wait().expect("our own child");
            status.is_some()
        });
        if status.is_some() {
            self.join();
        }
        status
    }

    /// Waits until a line with `words` is on standard error. Panics when the child ends or the time
    /// passes before.
    pub fn wait_for_stderr(&mut self, words: &str, limit: Duration) {
        let mut ended = false;
        let found = wait_until(limit, || {
            if self.stderr().contains(words) {
                return true;
            }
            // Once more after the end: the last words may be on their way.
            std::mem::replace(&mut ended, self.has_ended()) && !self.has_unread()
        });
        let why = if found {
            "before the end".to_owned()
        } else {
            format!("within {limit:?}")
        };
        let said = self.stderr().contains(words);
        assert!(said, "{words:?} was not said {why}\n{self}");
    }

    fn has_unread(&self) -> bool {
        self.readers.iter().any(|reader| !reader.is_finished())
    }

    /// Waits for the rest of what it printed. A grandchild that keeps the pipe open is not waited for.
    fn join(&mut self) {
        wait_until(Duration::from_secs(1), || !self.has_unread());
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "--- {}\n--- standard output\n{}--- standard error\n{}",
            self.name,
            self.stdout(),
            self.stderr()
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end and answers with its standard output. Panics when it fails.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Tool::new(program).args(arguments).output();
    assert!(
        output.status.success(),
        "{program} {}: {}\n{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `ip`.
pub fn ip(arguments: &[&str]) -> String {
    run("ip", arguments)
}

/// A command as an ordinary user without any privilege.
pub fn as_nobody(command: &[&str]) -> Command {
    let mut whole = Command::new("setpriv");
    whole
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args(command)
        .stdin(Stdio::null());
    whole
}

/// The same as a tool.
pub fn tool_as_nobody(command: &[&str]) -> Tool {
    Tool {
        command: as_nobody(command),
        limit: LIMIT,
    }
}

fn text(bytes: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&bytes.lock().expect("no reader panics")).into_owned()
}

/// Reads a pipe to its end in a thread of its own, line by line, so that a child never blocks.
fn collect(pipe: impl Read + Send + 'static, into: &Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    let into = Arc::clone(into);
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            into.lock().expect("no reader panics").append(&mut line);
        }
    })
}

/// Has the kernel kill the child when the thread that started it dies, so that nothing survives a test
/// run that is killed.
fn die_with_us(command: &mut Command) {
    let settle = || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from)?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes one prctl system call and neither allocates nor
    // takes a lock.
    unsafe { command.pre_exec(settle) };
}
