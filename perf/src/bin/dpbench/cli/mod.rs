//! The command line: what all benchmarks share, and how a failure ends the process.

pub(crate) mod all;
pub(crate) mod bench;
pub(crate) mod compare;
pub(crate) mod generate;

use perf::{
    error::BenchError,
    lab::LabError,
    memory::MemoryError,
    report::{FileError, PlotError},
};

/// What went wrong, and the exit code that says so.
pub(crate) struct Failure(pub(crate) u8, pub(crate) String);

impl From<LabError> for Failure {
    fn from(error: LabError) -> Self {
        let code = match error {
            LabError::Interrupted => 130,
            LabError::Cores { .. } => 2,
            _ => 3,
        };
        Self(code, error.to_string())
    }
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        Self(3, error.to_string())
    }
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Lab(error) => error.into(),
            other => Self(1, other.to_string()),
        }
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self(1, error.to_string())
    }
}

impl From<PlotError> for Failure {
    fn from(error: PlotError) -> Self {
        Self(1, error.to_string())
    }
}
