//! Why the daemon did not start, or ended, and the exit code that says so.

use std::fmt;

/// Exit codes, as the manual lists them.
pub mod exit {
    /// Done, also after SIGTERM.
    pub const DONE: u8 = 0;
    /// Something failed for good while it ran.
    pub const FAILED: u8 = 1;
    /// The configuration or a flag is wrong.
    pub const CONFIG: u8 = 2;
    /// The machine refuses.
    pub const MACHINE: u8 = 3;
}

/// Why the daemon did not start: one line, and its exit code.
#[derive(Debug)]
pub struct StartError {
    /// See [`exit`].
    pub code: u8,
    /// What is wrong, where, and what to do.
    pub message: String,
}

impl StartError {
    /// The configuration of a port is wrong.
    pub(crate) fn config(port: &str, error: &dyn fmt::Display) -> Self {
        Self {
            code: exit::CONFIG,
            message: format!("port {port}: {error}"),
        }
    }

    /// The machine refuses something that a port needs.
    pub(crate) fn machine(port: &str, error: &dyn fmt::Display) -> Self {
        Self {
            code: exit::MACHINE,
            message: format!("port {port}: {error}"),
        }
    }

    /// The machine refuses something that no port is to blame for.
    pub(super) fn refused(error: &dyn fmt::Display) -> Self {
        Self {
            code: exit::MACHINE,
            message: error.to_string(),
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StartError {}
