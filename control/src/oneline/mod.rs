//! A run without a configuration: `dataplane -r FILE --to lc0`. From the flags a configuration is
//! written, which is then read and planned like any other, so that there is one set of checks. What is
//! wrong with it is told by the flag, because nobody has seen its lines.

mod blame;
mod document;
mod flags;
mod source;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

pub use flags::{Pace, Target};

use self::{
    blame::Blame,
    document::{Document, Section},
    source::Source,
};
use crate::{
    cli::dataplane::Cli,
    config::{self, Class, Config, ConfigError, Link, Machine},
};

/// What errors would call the configuration that was written.
const NAME: &str = "command line";

/// The device that frames go to unless `--to` says otherwise.
const LC0: &str = "lc0";

/// A configuration that was written from flags.
#[derive(Debug)]
pub struct OneLine {
    /// The configuration.
    pub text: String,
    /// What was chosen on what was found, and is worth a line.
    pub notes: Vec<String>,
    blame: Blame,
}

impl OneLine {
    /// Writes the configuration for these flags on this machine; `None` when they name a configuration
    /// instead.
    ///
    /// # Errors
    ///
    /// What is wrong with the flags together, or that the machine has not.
    pub fn new(cli: &Cli, machine: &dyn Machine) -> Result<Option<Self>, Vec<ConfigError>> {
        match Source::new(&cli.line, machine) {
            None => Ok(None),
            Some(Ok(source)) => Self::write(cli, source, machine).map(Some),
            Some(Err(error)) => Err(vec![error]),
        }
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// As [`config::parse`], with flags in the place of lines.
    pub fn config(&self) -> Result<Config, Vec<ConfigError>> {
        config::parse(&self.text, NAME).map_err(|errors| self.blame(errors))
    }

    /// Names the flag to which each error is due.
    pub fn blame(&self, errors: Vec<ConfigError>) -> Vec<ConfigError> {
        self.blame.all(errors, &self.text)
    }

    fn write(cli: &Cli, source: Source, machine: &dyn Machine) -> Result<Self, Vec<ConfigError>> {
        let line = &cli.line;
        let mut blame = Blame::default();
        let mut names = Names::default();
        let mut document = Document::default();
        if let Some(cores) = &cli.cores {
            document.engine("cores", cores.to_string());
            blame.key("cores", "--cores");
        }
        if let Some((slots, why)) = source.slots() {
            document.engine_explained("slots", slots, why);
        }
        if let Some(socket) = &cli.socket {
            document.control("socket", socket.as_str());
            blame.key("socket", format!("--socket {socket}"));
        }
        if let Some(netns) = &line.netns {
            blame.key("netns", format!("--netns {netns}"));
        }
        if let Some(pace) = &line.pace {
            blame.key("pace", format!("--pace {pace}"));
            blame.key("speed", format!("--pace {pace}"));
        }

        let targets = targets(cli, &source)?;
        let waits = targets
            .iter()
            .any(|target| matches!(target, Target::Name(_)));
        let from = names.unused(source.name());
        blame.port(&from, source.flag());
        document.port(&from, source.section(line.pace, waits));

        let links = machine.links(line.netns.as_deref()).unwrap_or_default();
        let mut to = Vec::new();
        for target in &targets {
            let (name, section) = match target {
                Target::Stdout => ("stdout", stdout()),
                Target::File(path) => ("capture", capture(path)),
                Target::Name(name) => {
                    // A default is a device to be made, whatever is there.
                    let there = links.iter().find(|link| link.name == *name);
                    let there = there.filter(|_| !line.to.is_empty());
                    (
                        name.as_str(),
                        device(name, line.netns.as_deref(), there, &source),
                    )
                }
            };
            let name = names.unused(name);
            let section = section.named(&name);
            blame.port(&name, format!("--to {target}"));
            document.port(&name, section);
            to.push(name);
        }
        document.pipeline(&from, &line.allow, &to);
        Ok(Self {
            text: document.to_string(),
            notes: source.note().into_iter().collect(),
            blame,
        })
    }
}

/// Where frames go, each place once.
fn targets(cli: &Cli, source: &Source) -> Result<Vec<Target>, Vec<ConfigError>> {
    let line = &cli.line;
    let mut targets = line.to.clone();
    if targets.is_empty() {
        targets.push(Target::Name(LC0.to_owned()));
    }
    let mut errors = Vec::new();
    let mut seen = HashSet::new();
    for target in &targets {
        let flag = format!("--to {target}");
        if !seen.insert(target) {
            errors.push(wrong(flag, "is given twice; leave one out".to_owned()));
        } else if line.netns.is_none() && source.is_interface(target) {
            let what = format!(
                "is the interface of {}: its frames would go back where they came from; name another",
                source.flag()
            );
            errors.push(wrong(flag, what));
        }
    }
    if let Some(netns) = &line.netns
        && !targets
            .iter()
            .any(|target| matches!(target, Target::Name(_)))
    {
        let what =
            "says where the devices and interfaces of --to are, and there is none; leave it out";
        errors.push(wrong(format!("--netns {netns}"), what.to_owned()));
    }
    match errors.is_empty() {
        true => Ok(targets),
        false => Err(errors),
    }
}

fn stdout() -> Section {
    let mut section = Section::new("pcap");
    section.set("path", "-");
    section
}

fn capture(path: &str) -> Section {
    let mut section = Section::new("pcap");
    section.set("path", path);
    if path.ends_with(".zst") {
        section.explained("compress", "zstd", "as the name of the file says");
    }
    section
}

/// An interface that is `there` is written to; else, and where another's TAP device has the name, a TAP
/// device is made, or refused in the words of that kind.
fn device(name: &str, netns: Option<&str>, there: Option<&Link>, source: &Source) -> Section {
    let interface = there.filter(|link| link.driver != "tun");
    let mut section = match interface {
        Some(_) => Section::new("af_xdp").because("an interface of this name is there"),
        None => Section::new("tap"),
    };
    section.set(
        if interface.is_some() {
            "interface"
        } else {
            "name"
        },
        name,
    );
    if let Some(netns) = netns {
        section.set("netns", netns);
    }
    if interface.is_none() {
        source.suit(&mut section);
    }
    section
}

fn wrong(flag: String, message: String) -> ConfigError {
    flag_error(flag, message, Class::Config)
}

fn flag_error(flag: String, message: String, class: Class) -> ConfigError {
    ConfigError {
        file: flag,
        line: 0,
        column: 0,
        context: String::new(),
        message,
        class,
    }
}

/// Names of ports, each once.
#[derive(Default)]
struct Names(HashSet<String>);

impl Names {
    /// A name like `wanted` that no port has yet, of the letters that a port's name may have.
    fn unused(&mut self, wanted: &str) -> String {
        let plain = |c: char| if config::is_plain(c) { c } else { '-' };
        let plain: String = wanted.chars().map(plain).collect();
        let mut name = plain.clone();
        let mut number = 1;
        while !self.0.insert(name.clone()) {
            number += 1;
            name = format!("{plain}-{number}");
        }
        name
    }
}
