//! The command line of `dataplane`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, builder::NonEmptyStringValueParser};
use dataplane::policy::Rule;

use crate::{
    api::rules,
    config::{self, Config, CoreList, Overrides},
    oneline::{Pace, Target},
};

/// What is said to somebody who asks for nothing.
pub const USAGE: &str = "\
usage: dataplane --config FILE             what a configuration says: ports, policies, pipelines
       dataplane -r FILE [--to WHERE]      a capture file (- is standard input), by default to lc0
       dataplane -i INTERFACE [--to WHERE] the frames of an interface, by default to lc0

WHERE is a device to be made, an interface, a capture file, or - for standard output. --allow RULE lets
only that pass. More: dataplane --help
";

/// Moves Ethernet frames between interfaces, TAP devices, VXLAN tunnels and capture files, and lets
/// only what a policy allows through.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "dataplane",
    version,
    max_term_width = 100,
    group = ArgGroup::new("source").args(["config", "read", "interface"]).required(true),
    after_help = "\
Examples:
  sudo dataplane --config dp.toml                 run until SIGTERM or Ctrl-C
  sudo dataplane --cores 2-5 --config dp.toml     the same with workers on cores 2 to 5
  dataplane --check --config dp.toml              only say what it would do; needs no privilege
  sudo dataplane -r sample.pcap                   a capture file to lc0, once something listens there
  sudo dataplane -i eth0 --allow proto=udp,ports=53   the interface's DNS to lc0
  dataplane -r sample.pcap --to - --allow proto=tcp | tshark -r -
  dataplane -r sample.pcap --print-config         the same as a configuration, to go on from

Talk to a running one with dpctl: dpctl stats --watch, dpctl ports, dpctl stop.

Exit codes: 0 done, also after SIGTERM; 1 something failed for good while running; 2 the
configuration or a flag is wrong; 3 the machine refuses (privilege, missing interface, kernel)."
)]
pub struct Cli {
    /// The configuration, in TOML.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What runs without a configuration.
    #[command(flatten)]
    pub line: Line,

    /// The workers' cores, such as 2-5 or 0,2-3; wins over `cores` in the file.
    #[arg(long, value_name = "LIST")]
    pub cores: Option<CoreList>,

    /// The control socket; wins over `socket` in the file.
    #[arg(long, value_name = "PATH", value_parser = some_text())]
    pub socket: Option<String>,

    /// Validate, print the plan (which core polls what, what would be made) and change nothing.
    #[arg(long)]
    pub check: bool,

    /// Print what would run as a configuration, with the defaults that were chosen, and change nothing.
    #[arg(long, conflicts_with = "check")]
    pub print_config: bool,

    /// Write the counters to this file at the end, in the shape of `dpctl stats --json`; - is standard
    /// output.
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,

    /// Print nothing but warnings and errors.
    #[arg(short, long)]
    pub quiet: bool,
}

/// What stands for a configuration: one source, sinks, what is allowed.
#[derive(Clone, Debug, Default, Args)]
#[group(skip)]
pub struct Line {
    /// Play this capture file; - is standard input.
    #[arg(short, long, value_name = "FILE", help_heading = LINE, value_parser = some_text())]
    pub read: Option<String>,

    /// Take the frames of this interface.
    ///
    /// If it has an address or the default route, the host keeps its traffic and these are copies
    /// (af_packet); else the frames themselves are taken (af_xdp). any is all of them, as copies.
    #[arg(short, long, value_name = "INTERFACE", help_heading = LINE)]
    pub interface: Option<String>,

    /// Where frames go; several times for several places [default: lc0].
    ///
    /// What has a / in it or ends in .pcap, .pcapng or .cap, also with .zst, is a capture file to be
    /// written. The name of an interface that is there is that interface. Any other name is a TAP device
    /// that is made, and - is standard output.
    #[arg(long, value_name = "WHERE", help_heading = LINE, conflicts_with = "config")]
    pub to: Vec<Target>,

    /// Let pass only what these rules allow; several times for several rules.
    ///
    /// A rule is what `dpctl policy allow` takes: proto=tcp,to=10.0.0.0/8,ports=80,443,replies or a table as
    /// in a configuration. ARP and neighbour discovery pass beside them. Without rules everything passes.
    #[arg(long, value_name = "RULE", help_heading = LINE, value_parser = rule, conflicts_with = "config")]
    pub allow: Vec<Rule>,

    /// How fast the file is played: original, top, 2x, 10000pps or 10mbps.
    ///
    /// By default top, which is as fast as it goes, if it goes to files and standard output only; else
    /// original, as it was captured, of which 2x is twice as fast. pps are frames a second, mbps million bits.
    #[arg(long, value_name = "PACE", help_heading = LINE, conflicts_with_all = ["config", "interface"])]
    pub pace: Option<Pace>,

    /// The network namespace of the devices and interfaces that --to names.
    #[arg(long, value_name = "NAME", help_heading = LINE, value_parser = some_text(), conflicts_with = "config")]
    pub netns: Option<String>,
}

const LINE: &str = "Without a configuration";

fn some_text() -> NonEmptyStringValueParser {
    NonEmptyStringValueParser::new()
}

impl Cli {
    /// What the flags set over the file, for the plan.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            cores: self.cores.clone(),
        }
    }

    /// Puts what the flags set in the place of what the file says.
    pub fn apply(&self, config: &mut Config) {
        if let Some(cores) = &self.cores {
            config.engine.cores = Some(config::At {
                value: cores.clone(),
                ..config::At::default()
            });
        }
        if let Some(socket) = &self.socket {
            config.control.socket = Some(config::At {
                value: socket.into(),
                ..config::At::default()
            });
        }
    }
}

/// A rule in either form that `dpctl` takes.
fn rule(text: &str) -> Result<Rule, String> {
    let table = rules::inline_table(text)?;
    config::parse_rule(&table).map_err(|errors| {
        let messages: Vec<_> = errors.into_iter().map(|error| error.message).collect();
        messages.join("; ")
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["dataplane"], arguments].concat())
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags() {
        let cli =
            parse(&["--cores", "2-5", "--config", "dp.toml"]).expect("the documented command");
        assert_eq!(cli.overrides().cores, Some(CoreList(vec![2, 3, 4, 5])));
        assert!(!cli.check);
        let cli = parse(&[
            "-r",
            "-",
            "--to",
            "-",
            "--to",
            "lc1",
            "--allow",
            "proto=tcp",
        ]);
        let line = cli.expect("without a configuration").line;
        assert_eq!((line.read.as_deref(), line.to.len()), (Some("-"), 2));
        assert_eq!(line.allow.len(), 1);
    }

    #[test]
    fn wrong_flags_say_what_is_right_and_exit_2() {
        use ErrorKind::{
            ArgumentConflict, MissingRequiredArgument, UnknownArgument, ValueValidation,
        };
        let config = ["--config", "dp.toml"];
        let read = ["-r", "sample.pcap"];
        for (before, arguments, kind, fragments) in [
            (
                &config[..],
                &["--cores", "1-"][..],
                ValueValidation,
                &["write them as \"2-5\""][..],
            ),
            (
                &config,
                &["--cores", "1,1"],
                ValueValidation,
                &["listed twice"],
            ),
            (&config, &["--chek"], UnknownArgument, &["--check"]),
            (
                &[],
                &["--check"],
                MissingRequiredArgument,
                &["--config", "--read", "--interface"],
            ),
            (&config, &read, ArgumentConflict, &["--config", "--read"]),
            (
                &config,
                &["--to", "lc0"],
                ArgumentConflict,
                &["--to", "--config"],
            ),
            (
                &config,
                &["--allow", "proto=tcp"],
                ArgumentConflict,
                &["--allow", "--config"],
            ),
            (
                &read,
                &["-i", "eth0"],
                ArgumentConflict,
                &["--read", "--interface"],
            ),
            (&read, &["-r", "b.pcap"], ArgumentConflict, &["--read"]),
            (
                &["-i", "eth0"],
                &["--pace", "top"],
                ArgumentConflict,
                &["--pace", "--interface"],
            ),
            (
                &read,
                &["--pace", "fast"],
                ValueValidation,
                &["--pace", "\"fast\"", "10000pps"],
            ),
            (
                &read,
                &["--allow", "prto=tcp"],
                ValueValidation,
                &["--allow", "\"prto\"", "\"proto\""],
            ),
            (
                &read,
                &["--allow", "tcp"],
                ValueValidation,
                &["--allow", "\"tcp\"", "write proto=tcp"],
            ),
            (
                &read,
                &["--allow", "proto=icmp,ports=80"],
                ValueValidation,
                &["--allow", "icmp"],
            ),
            (&read, &["--to", ""], ValueValidation, &["--to", "lc0"]),
            (
                &read,
                &["--to", "averyverylongname"],
                ValueValidation,
                &["17 bytes", ".pcap"],
            ),
            (&read, &["--to", "a b"], ValueValidation, &["' '"]),
            (
                &read,
                &["--check", "--print-config"],
                ArgumentConflict,
                &["--check", "--print-config"],
            ),
        ] {
            let error = parse(&[before, arguments].concat()).expect_err(fragments[0]);
            let text = error.to_string();
            assert_eq!((error.kind(), error.exit_code()), (kind, 2), "{text}");
            for fragment in fragments {
                assert!(text.contains(fragment), "{fragment} in {text}");
            }
        }
    }
}
