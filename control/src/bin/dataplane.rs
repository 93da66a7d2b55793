//! The daemon: reads a configuration, plans, starts, runs.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use control::{
    cli::dataplane::Cli,
    config::{self, ConfigError, Plan, SystemMachine},
    daemon::{self, Daemon, End, Options, StartError, Summary, exit},
    log,
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
