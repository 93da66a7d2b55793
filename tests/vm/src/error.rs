//! What can go wrong before a guest runs, and how a guest can end other than by its command.

use std::{io, path::PathBuf, time::Duration};

/// Why there is no answer of the guest's command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A flag makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The machine lacks something.
    #[error("{0}")]
    Machine(String),
    /// A file or folder.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// A program failed.
    #[error("{program} failed ({status}): {said}")]
    Program {
        /// Which.
        program: String,
        /// How it ended.
        status: String,
        /// The last line of what it said.
        said: String,
    },
    /// The guest or the harness itself is at fault.
    #[error("{0}")]
    Broken(String),
    /// The guest's kernel gave up.
    #[error("the guest's kernel panicked: {what}\n{log}")]
    Panic {
        /// The line that says why.
        what: String,
        /// The end of its log.
        log: String,
    },
    /// The guest did not come to an end.
    #[error("the guest hangs: {what} within {limit:?}\n{log}")]
    Hang {
        /// What did not come.
        what: &'static str,
        /// How long it had.
        limit: Duration,
        /// The end of its log.
        log: String,
    },
    /// QEMU ended, but not because the command did.
    #[error("the guest ended without a verdict ({status}){said}\n{log}")]
    NoVerdict {
        /// How QEMU ended.
        status: String,
        /// What QEMU said.
        said: String,
        /// The end of the guest's log.
        log: String,
    },
    /// A signal.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// The exit code of `vm`. Those of the guest's command are its own, so ours are ones that commands
    /// rarely have.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            Error::Machine(_) | Error::File { .. } | Error::Program { .. } => 3,
            Error::Broken(_) | Error::Panic { .. } | Error::NoVerdict { .. } => 125,
            Error::Hang { .. } => 124,
            Error::Interrupted => 130,
        }
    }
}

/// Names the file of an error of the file system.
pub(crate) trait At<T> {
    /// The error with its file.
    fn at(self, path: impl Into<PathBuf>) -> Result<T, Error>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: impl Into<PathBuf>) -> Result<T, Error> {
        self.map_err(|source| Error::File {
            path: path.into(),
            source,
        })
    }
}

/// Runs a program to its end and answers with what it printed.
pub(crate) fn run(command: &mut std::process::Command) -> Result<Vec<u8>, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|e| Error::Machine(format!("cannot start {program}: {e}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    // Ctrl-C is for it as well.
    if crate::stop::wanted() {
        return Err(Error::Interrupted);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().rfind(|line| !line.trim().is_empty());
    Err(Error::Program {
        program,
        status: output.status.to_string(),
        said: said.unwrap_or("no reason given").to_owned(),
    })
}
