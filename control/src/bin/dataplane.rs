//! The daemon: reads a configuration, plans, starts, runs.

use std::{fs::File, io::Write, path::Path, process::ExitCode};

use clap::Parser;
use control::{
    cli::Cli,
    config::{self, ConfigError, Plan, SystemMachine},
    daemon::{self, Daemon, End, Options, StartError, exit},
    stats::Stats,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            eprintln!("dataplane: {e}");
            ExitCode::from(e.code)
        }
    }
}

fn run(cli: &Cli) -> Result<u8, StartError> {
    let config = config::load(&cli.config).map_err(refused)?;
    let plan = Plan::new(&config, &cli.overrides(), &SystemMachine).map_err(refused)?;
    if cli.check {
        print!("{plan}");
        return Ok(exit::DONE);
    }
    let signals = daemon::hold_signals()?;
    // Opened before privileges go, so that a path that cannot be written fails now and not at the end.
    let summary = cli.summary.as_deref().map(create).transpose()?;
    if !cli.quiet {
        eprint!("{plan}");
    }
    let options = Options { quiet: cli.quiet };
    let End { code, stats } = Daemon::start(&config, plan, signals, &options)?.run();
    match summary {
        Some(file) => write(file, &stats)?,
        None if cli.quiet => {}
        None => eprint!("{}", control::api::render::stats(&stats, None)),
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

fn create(path: &Path) -> Result<File, StartError> {
    File::create(path).map_err(|e| StartError {
        code: exit::CONFIG,
        message: format!("--summary {}: {e}", path.display()),
    })
}

fn write(mut file: File, stats: &Stats) -> Result<(), StartError> {
    let text = serde_json::to_string_pretty(stats).map_err(std::io::Error::from);
    text.and_then(|text| writeln!(file, "{text}"))
        .map_err(|e| StartError {
            code: exit::FAILED,
            message: format!("the summary could not be written: {e}"),
        })
}
