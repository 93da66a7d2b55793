//! tcpreplay, the tool that people play captures with: `-t -K`, as fast as it can out of memory, or `--pps`.

use std::{
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::Pid,
};

use crate::{error::BenchError, product::processor_time};

const NAME: &str = "tcpreplay";

/// What a report says where it is missing.
pub(crate) const MISSING: &str =
    "tcpreplay is not installed, so its rows are missing: apt-get install tcpreplay";

/// How fast it plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speed {
    /// `--topspeed`
    Top,
    /// `--pps`
    Pps(u64),
}

/// A running tcpreplay, that plays a file again and again until it is dropped.
pub(crate) struct Tcpreplay(Child);

impl Tcpreplay {
    /// Starts it on a core, in the namespace of the calling thread. `None` where it is not installed.
    pub(crate) fn start(
        core: usize,
        interface: &str,
        file: &Path,
        speed: Speed,
    ) -> Result<Option<Self>, BenchError> {
        let failed = |message: String| BenchError::peer(NAME, message);
        let mut cores = CpuSet::new();
        cores
            .set(core)
            .map_err(|e| failed(format!("core {core}: {e}")))?;
        let mut command = Command::new(NAME);
        match speed {
            Speed::Top => command.arg("--topspeed"),
            Speed::Pps(pps) => command.arg(format!("--pps={pps}")),
        };
        command
            .args(["--preload-pcap", "--loop=0", "--intf1", interface])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: between fork and exec only system calls are made, which allocate and lock nothing.
        unsafe {
            command.pre_exec(move || {
                set_pdeathsig(Signal::SIGKILL)
                    .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores))
                    .map_err(io::Error::from)
            });
        }
        match command.spawn() {
            Ok(child) => Ok(Some(Self(child))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(e.to_string())),
        }
    }

    /// Its processor time, as of the last tick or sleep.
    pub(crate) fn time(&self) -> Result<Duration, BenchError> {
        let schedstat = PathBuf::from(format!("/proc/{}/schedstat", self.0.id()));
        processor_time(&schedstat)
    }

    /// Fails when it has ended, which it never should.
    pub(crate) fn check(&mut self) -> Result<(), BenchError> {
        match self.0.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(BenchError::peer(
                NAME,
                format!("it ended too early ({status}); version 4.4 is known to do"),
            )),
            Err(e) => Err(BenchError::peer(NAME, e)),
        }
    }
}

impl Drop for Tcpreplay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
