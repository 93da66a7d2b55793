//! The command line of `dpctl`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::api::rules;

/// Asks a running dataplane, and changes its policies.
#[derive(Debug, Parser)]
#[command(
    name = "dpctl",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 the dataplane refused (its reason is shown) or doctor found something \
                  that is left, 2 wrong usage, 3 no dataplane there."
)]
pub struct Command {
    /// The control socket [default: the user's own, then /run/dataplane/control.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Counters of ports, pipelines and workers
    Stats(StatsArgs),
    /// The ports as they were opened: mode, cores, queues, MTU, who listens
    Ports {
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show and change what is allowed
    #[command(subcommand)]
    Policy(Policy),
    /// End the dataplane, and wait until it has ended
    Stop {
        /// How long to wait, in seconds
        #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
        wait: Duration,
    },
    /// Look for what a dataplane that was killed has left changed; needs none that runs
    Doctor {
        /// JSON instead of text
        #[arg(long)]
        json: bool,
        /// Put it back; needs root
        #[arg(long)]
        fix: bool,
    },
}

/// How counters are shown.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// JSON instead of tables; with --watch one line a reading
    #[arg(long)]
    pub json: bool,
    /// Again and again, with rates, every so many seconds, until Ctrl-C
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "1",
        value_parser = seconds
    )]
    pub watch: Option<Duration>,
}

/// What to do with a policy.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Print a policy's rules, as `replace` takes them
    Show {
        /// The policy
        name: String,
    },
    /// Put the rules of a file in the place of a policy's own
    #[command(after_help = "FILE holds TOML as in dp.toml:\n\n    \
        allow = [\n      { proto = \"tcp\", to = \"10.0.0.0/8\", ports = \"80,443\", replies = true },\n    ]\n\n\
        The array alone will do.")]
    Replace {
        /// The policy
        name: String,
        /// The rules; - is standard input
        file: PathBuf,
    },
    /// Add one rule to a policy
    #[command(after_help = RULE_HELP)]
    Allow {
        /// The policy
        name: String,
        /// The rule
        #[arg(value_parser = rules::inline_table)]
        rule: String,
    },
    /// Take one rule out of a policy
    #[command(after_help = RULE_HELP)]
    Remove {
        /// The policy
        name: String,
        /// The rule
        #[arg(value_parser = rules::inline_table)]
        rule: String,
    },
}

const RULE_HELP: &str = "RULE is a table as in dp.toml or its short form:\n\n    \
    '{ proto = \"tcp\", to = \"10.0.0.0/8\", ports = \"80,443\", replies = true }'\n    \
    proto=tcp,to=10.0.0.0/8,ports=80,443,replies\n\n\
    Fields: proto, from, from_ports, to, ports, icmp, replies. A field left out means any.";

/// Seconds, from a tenth to a day.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give seconds, from 0.1 to 86400".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Command::command().debug_assert();
    }
}
