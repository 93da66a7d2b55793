//! The command line of `dataplane`.

use std::path::PathBuf;

use clap::Parser;

use crate::config::{CoreList, Overrides};

/// Moves Ethernet frames between interfaces, TAP devices and capture files, and lets only what a
/// policy allows through.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "dataplane",
    version,
    after_help = "\
Examples:
  sudo dataplane --config dp.toml                 run until SIGTERM or Ctrl-C
  sudo dataplane --cores 2-5 --config dp.toml     the same with workers on cores 2 to 5
  dataplane --check --config dp.toml              only say what it would do; needs no privilege

Talk to a running one with dpctl: dpctl stats --watch, dpctl ports, dpctl stop.

Exit codes: 0 done, also after SIGTERM; 1 something failed for good while running; 2 the
configuration or a flag is wrong; 3 the machine refuses (privilege, missing interface, kernel)."
)]
pub struct Cli {
    /// The configuration, in TOML.
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,

    /// The workers' cores, such as 2-5 or 0,2-3; wins over `cores` in the file.
    #[arg(long, value_name = "LIST")]
    pub cores: Option<CoreList>,

    /// Validate, print the plan (which core polls what, what would be made) and change nothing.
    #[arg(long)]
    pub check: bool,

    /// Write the counters to this file at the end, in the shape of `dpctl stats --json`.
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,

    /// Print nothing but warnings and errors.
    #[arg(short, long)]
    pub quiet: bool,
}

impl Cli {
    /// What the flags set over the file.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            cores: self.cores.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags() {
        let cli = Cli::try_parse_from(["dataplane", "--cores", "2-5", "--config", "dp.toml"]);
        let cli = cli.expect("the documented command");
        assert_eq!(cli.overrides().cores, Some(CoreList(vec![2, 3, 4, 5])));
        assert!(!cli.check);
    }

    #[test]
    fn wrong_flags_say_what_is_right_and_exit_2() {
        for (arguments, kind, fragment) in [
            (
                &["--cores", "1-"][..],
                ErrorKind::ValueValidation,
                "write them as \"2-5\"",
            ),
            (
                &["--cores", "1,1"],
                ErrorKind::ValueValidation,
                "listed twice",
            ),
            (&["--chek"], ErrorKind::UnknownArgument, "--check"),
            (&[], ErrorKind::MissingRequiredArgument, "--config"),
        ] {
            let mut all = vec!["dataplane"];
            if !arguments.is_empty() {
                all.extend(["--config", "dp.toml"]);
            }
            all.extend(arguments);
            let error = Cli::try_parse_from(all).expect_err(fragment);
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(fragment), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
