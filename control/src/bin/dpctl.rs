//! `dpctl`: asks a running dataplane, and changes its policies.

use std::{
    fs,
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use control::{
    api::{
        client::{Client, ClientError},
        protocol::{Applied, Listener, PolicyText, PortInfo, Request, Stopping},
        render, rules, socket,
    },
    cli::dpctl::{Action, Command, Policy},
    doctor,
    link::{
        ledger::{self, Ledger},
        listeners,
    },
    stats::{Stats, check_laws},
};
use nix::unistd::getuid;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

/// Why `dpctl` ends without having done it.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(
        "cannot read the rules from {path}: {source}; name a readable file, or - for standard input"
    )]
    Rules { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the dataplane was told to stop but still runs after {} s; see its output", waited.as_secs_f64())]
    StillRuns { waited: Duration },
    #[error("{left} left behind by a dataplane that was killed; put back what can be: sudo dpctl doctor --fix", left = things(*.left))]
    LeftBehind { left: usize },
    #[error("{left} left behind by a dataplane that was killed; --fix needs root: sudo dpctl doctor --fix", left = things(*.left))]
    FixNeedsRoot { left: usize },
    #[error("{left} could not be put back; what stands beside each says why", left = things(*.left))]
    NotMended { left: usize },
    #[error(
        "cannot list the records in {}: {source}; run with sudo",
        ledger::SYSTEM_DIRECTORY
    )]
    Records { source: io::Error },
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Rules { .. } => 2,
            Self::Client(ClientError::Refused(_))
            | Self::StillRuns { .. }
            | Self::LeftBehind { .. }
            | Self::FixNeedsRoot { .. }
            | Self::NotMended { .. }
            | Self::Records { .. }
            | Self::Output(_) => 1,
            Self::Client(_) => 3,
        }
    }
}

fn things(count: usize) -> String {
    match count {
        1 => "1 thing".to_owned(),
        _ => format!("{count} things"),
    }
}

fn main() -> ExitCode {
    let command = Command::parse();
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read has read enough.
        Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            // Not eprintln, which panics when nobody reads that either.
            let message = render::clean(&failure.to_string());
            let _ = writeln!(io::stderr(), "dpctl: {message}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    // Usage is judged first, whether or not a daemon runs.
    let replacement = match &command.action {
        Action::Policy(Policy::Replace { file, .. }) => Some(read_rules(file)?),
        _ => None,
    };
    let paths = match command.socket {
        Some(path) => vec![path],
        None => socket::candidates(),
    };
    if let Action::Doctor { json, fix } = command.action {
        return doctor(&paths, json, fix);
    }
    let mut client = Client::connect(&paths)?;
    let mut out = io::stdout().lock();
    match command.action {
        Action::Stats(args) => match args.watch {
            Some(interval) => watch(client, interval, args.json, &mut out)?,
            None => {
                let stats = client.call(&Request::Stats {})?;
                if args.json {
                    print_json(&mut out, &stats)?;
                    warn_of_broken_laws(&stats);
                } else {
                    out.write_all(render::stats(&stats, None).as_bytes())?;
                }
            }
        },
        Action::Ports { json } => {
            let mut ports: Vec<PortInfo> = client.call(&Request::Ports {})?;
            for port in &mut ports {
                name_listeners(port);
            }
            if json {
                print_json(&mut out, &ports)?;
            } else {
                out.write_all(render::ports(&ports).as_bytes())?;
            }
        }
        Action::Policy(Policy::Show { name }) => {
            let policy: PolicyText = client.call(&Request::PolicyShow { name })?;
            writeln!(
                out,
                "# policy {}, generation {}",
                render::clean(&policy.name),
                policy.generation
            )?;
            writeln!(out, "{}", policy.rules.trim_end())?;
        }
        Action::Policy(Policy::Replace { name, .. }) => {
            let rules = replacement.unwrap_or_default();
            let applied = client.call(&Request::PolicyReplace { name, rules })?;
            print_applied(&mut out, applied)?;
        }
        Action::Policy(Policy::Allow { name, rule }) => {
            let applied = client.call(&Request::PolicyAllow { name, rule })?;
            print_applied(&mut out, applied)?;
        }
        Action::Policy(Policy::Remove { name, rule }) => {
            let applied = client.call(&Request::PolicyRemove { name, rule })?;
            print_applied(&mut out, applied)?;
        }
        Action::Stop { wait } => {
            let _: Stopping = client.call(&Request::Stop {})?;
            if !client.wait_for_end(wait) {
                return Err(Failure::StillRuns { waited: wait });
            }
            writeln!(out, "stopped")?;
        }
        // Done before there was a need for a daemon.
        Action::Doctor { .. } => {}
    }
    out.flush()?;
    Ok(())
}

fn doctor(sockets: &[PathBuf], json: bool, fix: bool) -> Result<(), Failure> {
    let report = doctor::examine(&Ledger::system(), sockets, fix)
        .map_err(|source| Failure::Records { source })?;
    let mut out = io::stdout().lock();
    if json {
        print_json(&mut out, &report)?;
    } else {
        for line in report.to_string().lines() {
            writeln!(out, "{}", render::clean(line))?;
        }
    }
    out.flush()?;
    match report.left() {
        0 => Ok(()),
        left if !fix => Err(Failure::LeftBehind { left }),
        left if !getuid().is_root() => Err(Failure::FixNeedsRoot { left }),
        left => Err(Failure::NotMended { left }),
    }
}

/// Prints a reading every `interval` until a signal ends it.
fn watch(
    mut client: Client,
    interval: Duration,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let (ending, end) = mpsc::channel();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            let _ = ending.send(());
        }
    });
    let screen = !json && io::stdout().is_terminal();
    let paths = [client.path().to_owned()];
    let mut before: Option<Stats> = None;
    let mut next = Instant::now();
    loop {
        let stats: Stats = match client.call(&Request::Stats {}) {
            // The daemon hangs up on those that say nothing for a minute.
            Err(ClientError::Lost { .. }) if before.is_some() => {
                client = Client::connect(&paths)?;
                client.call(&Request::Stats {})?
            }
            answer => answer?,
        };
        let mut text = if json {
            serde_json::to_string(&stats).map_err(io::Error::other)? + "\n"
        } else {
            render::stats(&stats, before.as_ref())
        };
        if screen {
            // From the top left, each line cleared to its end, then what is below: nothing flickers,
            // and there is no mode of the terminal to be put back.
            text = format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"));
            if before.is_none() {
                text.insert_str(0, "\x1b[2J");
            }
        } else if !json && before.is_some() {
            text.insert(0, '\n');
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
        if json {
            warn_of_broken_laws(&stats);
        }
        before = Some(stats);
        next = (next + interval).max(Instant::now());
        match end.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                if screen {
                    // The terminal has echoed ^C on the line of the cursor.
                    writeln!(out)?;
                }
                return Ok(());
            }
        }
    }
}

fn read_rules(file: &Path) -> Result<String, Failure> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    match text {
        Ok(text) => Ok(rules::document(&text)),
        Err(source) => Err(Failure::Rules {
            path: file.to_owned(),
            source,
        }),
    }
}

fn print_json(out: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// Finds out which processes hold the sockets that listen on a port's device.
fn name_listeners(port: &mut PortInfo) {
    port.listeners.extend(
        listeners::processes_of(&port.listening)
            .into_iter()
            .map(|process| Listener {
                pid: process.pid,
                name: process.comm,
            }),
    );
}

fn print_applied(out: &mut impl Write, applied: Applied) -> io::Result<()> {
    writeln!(
        out,
        "generation {}, rebuilt in {:.1} ms, in force on every worker after {} µs",
        applied.generation,
        applied.rebuilt_us as f64 / 1e3,
        applied.acknowledged_us
    )
}

fn warn_of_broken_laws(stats: &Stats) {
    if let Err(broken) = check_laws(stats) {
        let broken = render::clean(&broken);
        let _ = writeln!(
            io::stderr(),
            "dpctl: warning: the counters do not explain every frame: {broken}"
        );
    }
}
