//! Writes the manual pages and the shells' completions of both programs into a folder, for
//! `scripts/install`: `man1/`, `bash/`, `zsh/` and `fish/`. What options say comes from the command lines;
//! what else a manual has is here.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};
use control::cli;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let (Some(folder), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: manual FOLDER");
        return ExitCode::from(2);
    };
    let folder = PathBuf::from(folder);
    match write(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manual: {}: {error}", folder.display());
            ExitCode::from(1)
        }
    }
}

fn write(folder: &Path) -> io::Result<()> {
    for (name, command) in [
        ("dataplane", cli::dataplane::Cli::command()),
        ("dpctl", cli::dpctl::Command::command()),
    ] {
        for (shell, place) in [
            (Shell::Bash, "bash"),
            (Shell::Zsh, "zsh"),
            (Shell::Fish, "fish"),
        ] {
            let place = folder.join(place);
            fs::create_dir_all(&place)?;
            generate_to(shell, &mut command.clone(), name, place)?;
        }
        let place = folder.join("man1");
        fs::create_dir_all(&place)?;
        let mut command = command.disable_help_subcommand(true);
        command.build();
        pages(&command, &place)?;
    }
    Ok(())
}

/// The pages of a command and of all below it.
fn pages(command: &Command, folder: &Path) -> io::Result<()> {
    for below in command.get_subcommands() {
        pages(below, folder)?;
    }
    let man = Man::new(command.clone())
        .manual("dataplane manual")
        .source(concat!("dataplane ", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    let program = [DATAPLANE, DPCTL].into_iter();
    let program = program.clone().find(|p| p.name == command.get_name());
    match &program {
        Some(program) => program.opening().to_writer(&mut page)?,
        None => {
            man.render_synopsis_section(&mut page)?;
            man.render_description_section(&mut page)?;
        }
    }
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    match &program {
        Some(program) => program.closing().to_writer(&mut page)?,
        None if command.get_after_help().is_some() => {
            let mut notes = Vec::new();
            man.render_extra_section(&mut notes)?;
            let notes = String::from_utf8_lossy(&notes).replace(".SH EXTRA", ".SH NOTES");
            page.extend(notes.into_bytes());
        }
        None => {}
    }
    see_also(command.get_display_name().unwrap_or_default()).to_writer(&mut page)?;
    fs::write(folder.join(man.get_filename()), page)
}

/// What a program's page says beside its options.
#[derive(Clone, Copy)]
struct Program {
    name: &'static str,
    synopsis: &'static [&'static str],
    description: &'static [&'static str],
    exit: &'static [(&'static str, &'static str)],
    files: &'static [(&'static str, &'static str)],
    environment: &'static [(&'static str, &'static str)],
    examples: &'static [(&'static str, &'static str)],
}

const DATAPLANE: Program = Program {
    name: "dataplane",
    synopsis: &[
        "--config FILE [--cores LIST] [--check | --print-config] [--summary FILE] [--quiet]",
        "-r FILE [--to WHERE]... [--allow RULE]... [--pace PACE] [--netns NAME] [--print-config] ...",
        "-i INTERFACE [--to WHERE]... [--allow RULE]... [--netns NAME] [--print-config] ...",
    ],
    description: &[
        "A port is a place that frames come from or go to: an interface, a TAP device that is made, a \
         VXLAN tunnel, a capture file. A pipeline takes the frames of some ports, has a policy judge them, \
         and writes what it forwards to other ports. A policy is an allowlist, frame by frame; what no rule \
         allows is dropped and counted with its reason.",
        "All that is said in a configuration in TOML, which --config names. Without one, -r or -i name the \
         one source, --to says where its frames go, and --allow what may pass; --print-config shows the \
         configuration that this amounts to.",
        "Workers are pinned to cores (--cores); without a word there is one. What was made is removed at the \
         end. Privileges that are not needed any more are given up after the start. A run whose sources \
         are all capture files ends when they have been played; SIGTERM, SIGINT and SIGHUP end any, and so \
         does dpctl stop.",
        "The log is on standard error. At the end the counters are printed there, unless --summary names a \
         file or --quiet forbids it.",
    ],
    exit: &[
        (
            "0",
            "Done: all capture files were played, or it was told to stop.",
        ),
        (
            "1",
            "Something failed for good while it ran: a corrupt capture file, all sources or all sinks dead.",
        ),
        (
            "2",
            "The configuration or a flag is wrong. Each mistake has a line that says where and what to do.",
        ),
        (
            "3",
            "The machine refuses: a privilege, a missing interface or network namespace, a core that is not \
             online, something that the kernel has not.",
        ),
    ],
    files: &[
        (
            "/run/dataplane/control.sock",
            "The control socket of root's daemon. Another user's is $XDG_RUNTIME_DIR/dataplane.sock.",
        ),
        (
            "/run/dataplane/changed/",
            "What is to be put back after a daemon was killed; see dpctl-doctor(1).",
        ),
        (
            "PREFIX/share/doc/dataplane/examples/",
            "Whole configurations; PREFIX is /usr/local unless scripts/install was told otherwise.",
        ),
    ],
    environment: &[(
        "XDG_RUNTIME_DIR",
        "Where the control socket of a user that is not root is made.",
    )],
    examples: &[
        (
            "dataplane --check --config dp.toml",
            "What it would do; changes nothing and needs no privilege.",
        ),
        (
            "sudo dataplane --cores 2-5 --config dp.toml",
            "Run it with workers on cores 2 to 5.",
        ),
        (
            "sudo dataplane -r sample.pcap",
            "Play a capture file to the device lc0, when something listens there: tcpdump -n \
             --immediate-mode -i lc0",
        ),
        (
            "sudo dataplane -i eth0 --allow proto=udp,ports=53,replies",
            "The DNS traffic of an interface to lc0.",
        ),
        (
            "dataplane -r sample.pcap --allow proto=tcp --to - | tshark -r -",
            "A capture file behind a policy to a tool, with its own time stamps and without any privilege.",
        ),
        (
            "dataplane -r sample.pcap --print-config > dp.toml",
            "The same as a configuration, to go on from.",
        ),
    ],
};

const DPCTL: Program = Program {
    name: "dpctl",
    synopsis: &["[--socket PATH] stats | ports | policy | stop | doctor [ARGUMENT]..."],
    description: &[
        "Speaks to a running dataplane over its control socket: the user's own, then the system's, unless \
         --socket names another. doctor alone needs none that runs.",
        "Changes of policies are in force on every worker when dpctl ends, and live until the daemon ends: the \
         configuration is not written.",
    ],
    exit: &[
        ("0", "Done."),
        (
            "1",
            "The daemon refused, and its reason is shown; or it still runs after stop; or doctor found \
             something that a killed run has left.",
        ),
        ("2", "Wrong usage, or a file of rules that cannot be read."),
        (
            "3",
            "No daemon there, none that answers, or no permission to speak to it.",
        ),
    ],
    files: &[(
        "/run/dataplane/control.sock",
        "The control socket of root's daemon. Another user's is $XDG_RUNTIME_DIR/dataplane.sock.",
    )],
    environment: &[(
        "XDG_RUNTIME_DIR",
        "Where the control socket of the user's own daemon is looked for.",
    )],
    examples: &[
        ("sudo dpctl stats --watch", "Every frame explained, live."),
        (
            "sudo dpctl ports",
            "What was granted, and who listens on a device.",
        ),
        (
            "sudo dpctl policy allow web proto=udp,to=10.0.0.53,ports=53,replies",
            "Let something more through the policy web.",
        ),
        (
            "sudo dpctl policy show web > web.toml; sudo dpctl policy replace web web.toml",
            "Edit a policy as a whole.",
        ),
        (
            "sudo dpctl stop",
            "End the daemon, and wait until it has ended.",
        ),
    ],
};

impl Program {
    fn opening(&self) -> Roff {
        let mut roff = Roff::new();
        roff.control("SH", ["SYNOPSIS"]);
        for usage in self.synopsis {
            roff.text([bold(self.name), roman(format!(" {usage}"))]);
            roff.control("br", []);
        }
        roff.control("SH", ["DESCRIPTION"]);
        for text in self.description {
            roff.control("PP", []);
            roff.text([roman(*text)]);
        }
        roff
    }

    fn closing(&self) -> Roff {
        let mut roff = Roff::new();
        for (heading, entries) in [
            ("EXIT STATUS", self.exit),
            ("FILES", self.files),
            ("ENVIRONMENT", self.environment),
            ("EXAMPLES", self.examples),
        ] {
            roff.control("SH", [heading]);
            for (what, text) in entries {
                roff.control("TP", []);
                roff.text([bold(*what)]);
                roff.text([roman(*text)]);
            }
        }
        roff
    }
}

/// The other pages, for this one.
fn see_also(page: &str) -> Roff {
    let others = [
        ("dataplane", "1"),
        ("dpctl", "1"),
        ("dpctl-stats", "1"),
        ("dpctl-policy", "1"),
        ("dpctl-doctor", "1"),
        ("tcpdump", "8"),
        ("suricata", "1"),
    ];
    let others = others.iter().filter(|(other, _)| *other != page);
    let others: Vec<_> = others
        .map(|(other, section)| format!("{other}({section})"))
        .collect();
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(others.join(", "))]);
    roff
}
