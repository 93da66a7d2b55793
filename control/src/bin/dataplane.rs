//! The daemon: reads a configuration, plans, starts, runs.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use control::{
    cli::Cli,
    config::{self, ConfigError, Plan, SystemMachine},
    daemon::{self, Daemon, End, Options, StartError, exit},
    log,
    stats::Stats,
};

/// How long the end waits for whoever reads the log.
const LAST_WORDS: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = run(&cli).unwrap_or_else(|e| {
        log::line(&e.message);
        e.code
    });
    log::flush(LAST_WORDS);
    ExitCode::from(code)
}

fn run(cli: &Cli) -> Result<u8, StartError> {
    let config = config::load(&cli.config).map_err(refused)?;
    let plan = Plan::new(&config, &cli.overrides(), &SystemMachine).map_err(refused)?;
    if cli.check {
        return print(&plan.to_string());
    }
    let signals = daemon::hold_signals()?;
    log::start();
    // Opened before privileges go, so that a path that cannot be written fails now and not at the end.
    let summary = cli.summary.as_deref().map(Summary::open).transpose()?;
    if !cli.quiet {
        log::text(plan.to_string());
    }
    let options = Options { quiet: cli.quiet };
    let End { code, stats } = Daemon::start(&config, plan, signals, &options)?.run();
    let table = || control::api::render::stats(&stats, None);
    match summary {
        None if cli.quiet => {}
        None => log::text(table()),
        Some(summary) => {
            if let Err(e) = summary.write(&stats) {
                log::text(table());
                return Err(e);
            }
        }
    }
    Ok(code)
}

/// All that is wrong, a line each, and the exit code that goes with it.
fn refused(errors: Vec<ConfigError>) -> StartError {
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    StartError {
        code: config::exit_code(&errors),
        message: lines.join("\ndataplane: "),
    }
}

/// Prints to standard output. A reader who has seen enough is no failure.
fn print(text: &str) -> Result<u8, StartError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(StartError {
            code: exit::FAILED,
            message: format!("cannot write to standard output: {e}"),
        }),
        _ => Ok(exit::DONE),
    }
}

/// Where the last counters go. What an earlier run left there stays until these are written.
struct Summary {
    path: PathBuf,
    file: File,
}

impl Summary {
    fn open(path: &Path) -> Result<Self, StartError> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
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

    fn write(mut self, stats: &Stats) -> Result<(), StartError> {
        let mut text = serde_json::to_string_pretty(stats).map_err(|e| self.failed(&e))?;
        text.push('\n');
        // A pipe or a terminal has no length to cut.
        let cut = match self.file.metadata() {
            Ok(metadata) if metadata.is_file() => self.file.set_len(0),
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
