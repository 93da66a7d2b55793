//! The daemon: reads a configuration, plans, starts, runs.

use std::{
    env,
    io::{self, IsTerminal, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use control::{
    cli::dataplane::{Cli, USAGE},
    config::{self, Config, ConfigError, Plan, PlannedPort, SystemMachine},
    daemon::{self, Daemon, End, Options, StartError, Summary, exit},
    log,
    oneline::OneLine,
    ports::Claim,
};

/// How long the end waits for whoever reads the log.
const LAST_WORDS: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    if env::args_os().len() < 2 {
        log::text(USAGE.to_owned());
        return ExitCode::from(exit::CONFIG);
    }
    let cli = Cli::parse();
    let code = run(&cli).unwrap_or_else(|e| {
        log::line(&e.message);
        e.code
    });
    log::flush(LAST_WORDS);
    ExitCode::from(code)
}

fn run(cli: &Cli) -> Result<u8, StartError> {
    let line = OneLine::new(cli, &SystemMachine).map_err(refused)?;
    let mut config = match (&line, &cli.config) {
        (Some(line), _) => line.config(),
        (None, file) => config::load(file.as_deref().unwrap_or(Path::new(""))),
    }
    .map_err(refused)?;
    cli.apply(&mut config);
    if cli.print_config {
        return print(&as_file(&config, line)?);
    }
    let plan = Plan::new(&config, &cli.overrides(), &SystemMachine);
    let may_lack_socket = line.is_some();
    let mut plan = plan.map_err(|errors| {
        refused(match &line {
            Some(line) => line.blame(errors),
            None => errors,
        })
    })?;
    plan.notes
        .extend(line.into_iter().flat_map(|line| line.notes));
    if cli.check {
        return print(&plan.to_string());
    }
    let signals = daemon::hold_signals()?;
    log::start();
    let piped = plan.ports.iter().any(|port| port.sink && is_standard(port));
    let summary = match cli.summary.as_deref() {
        Some(file) if file == Path::new("-") && piped => {
            return Err(StartError {
                code: exit::CONFIG,
                message: "--summary -: standard output has the capture; name a file".to_owned(),
            });
        }
        file => file.map(Summary::open).transpose()?,
    };
    // The tool that reads the capture has the same terminal, and more to say there.
    let brief = piped && io::stderr().is_terminal();
    let quiet = cli.quiet || brief;
    if !quiet {
        log::text(plan.to_string());
    }
    let options = Options {
        quiet,
        may_lack_socket,
    };
    let End { code, stats } = Daemon::start(&config, plan, signals, &options)?.run();
    let table = || control::api::render::stats(&stats, None);
    match summary {
        None if cli.quiet => {}
        None if brief => log::line(&control::api::render::in_a_line(&stats)),
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

/// Whether its file is standard output or input.
fn is_standard(port: &PlannedPort) -> bool {
    let claims = port.kind.claims(port);
    let standard =
        |claim: &Claim<'_>| matches!(claim, Claim::Stream(path) if path.as_os_str() == "-");
    claims.iter().any(standard)
}

/// What would run, as a file: the one that was written from flags, else the user's own with its defaults.
fn as_file(config: &Config, line: Option<OneLine>) -> Result<String, StartError> {
    match line {
        Some(line) => Ok(line.text),
        None => config.to_toml().map_err(|e| StartError {
            code: exit::FAILED,
            message: format!("{}: cannot be written as TOML: {e}", config.file),
        }),
    }
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
