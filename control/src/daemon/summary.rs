//! `--summary FILE`: the counters of a run, written at its end.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use super::{StartError, exit};
use crate::stats::Stats;

/// Where the last counters go. What an earlier run left there stays until these are written.
pub struct Summary {
    path: PathBuf,
    file: File,
}

impl Summary {
    /// Opens the file, before privileges go: a path that cannot be written fails at the start.
    ///
    /// # Errors
    ///
    /// That it cannot be opened for writing.
    pub fn open(path: &Path) -> Result<Self, StartError> {
        let file = match path == Path::new("-") {
            true => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            false => OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path),
        };
        Ok(Self {
            path: path.to_owned(),
            file: file.map_err(|e| StartError {
                code: exit::CONFIG,
                message: format!(
                    "--summary {}: {e}; name a file in a folder that is there and can be written",
                    path.display()
                ),
            })?,
        })
    }

    /// Writes the counters, in the shape of `dpctl stats --json`.
    ///
    /// # Errors
    ///
    /// That they could not be written.
    pub fn write(mut self, stats: &Stats) -> Result<(), StartError> {
        let mut text = serde_json::to_string_pretty(stats).map_err(|e| self.failed(&e))?;
        text.push('\n');
        // A pipe or a terminal has no length to cut, and what is in the file of standard output is not ours.
        let cut = match self.file.metadata() {
            Ok(metadata) if metadata.is_file() && self.path != Path::new("-") => {
                self.file.set_len(0)
            }
            _ => Ok(()),
        };
        cut.and_then(|()| self.file.write_all(text.as_bytes()))
            .map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> StartError {
        StartError {
            code: exit::FAILED,
            message: format!(
                "--summary {} could not be written: {error}; the counters are above",
                self.path.display()
            ),
        }
    }
}
