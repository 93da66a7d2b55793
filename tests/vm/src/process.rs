//! QEMU's process: what it says, and its end, which comes with ours.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{accel, error::Error, stop};

/// A running QEMU; it is killed when this is dropped.
pub(crate) struct Qemu {
    child: Child,
    /// What it said, each line after a line feed.
    said: Arc<Mutex<String>>,
}

impl Qemu {
    /// Starts it. Its standard error must be a pipe.
    pub(crate) fn start(mut command: Command) -> Result<Self, Error> {
        die_with_us(&mut command);
        let mut child = command.spawn().map_err(|e| accel::not_started(&e))?;
        let said = Arc::new(Mutex::new(String::new()));
        if let Some(stderr) = child.stderr.take() {
            let into = Arc::clone(&said);
            let _: JoinHandle<()> = thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    // It warns of each hub, which leads nowhere on purpose.
                    if let Ok(mut said) = into.lock()
                        && !line.contains("is not connected to host network")
                    {
                        said.push('\n');
                        said.push_str(&line);
                    }
                }
            });
        }
        Ok(Self { child, said })
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// Waits for its end, at most so long, or until we are to end.
    pub(crate) fn wait(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        while !self.has_ended() && Instant::now() < end && !stop::wanted() {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it. Answers how it ended and what it had said.
    pub(crate) fn end(&mut self) -> (String, String) {
        let _ = self.child.kill();
        let status = self
            .child
            .wait()
            .map_or_else(|e| e.to_string(), |status| status.to_string());
        // Its last words may be on their way.
        thread::sleep(Duration::from_millis(20));
        let said = self
            .said
            .lock()
            .map(|said| said.clone())
            .unwrap_or_default();
        (format!("QEMU: {status}"), said)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has the kernel end QEMU when we end without a word.
fn die_with_us(command: &mut Command) {
    let settle = || nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from);
    // SAFETY: between fork and exec the closure makes one prctl system call, and neither allocates nor takes a lock.
    unsafe { command.pre_exec(settle) };
}
