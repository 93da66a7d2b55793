//! What is said on the control socket. A request is one line of JSON, an object with `op` and that
//! operation's fields; the reply is one line, `{"ok": …}` or `{"error": {"message": …}}`. Requests on
//! one connection are answered in their order.
//!
//! ```text
//! {"op":"policy_allow","name":"web","rule":"{ proto = \"tcp\", to = \"10.0.0.0/8\", ports = \"80\" }"}
//! {"ok":{"generation":8,"rebuilt_us":95,"acknowledged_us":41}}
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

/// The version of the protocol. It changes when a request or a reply loses a field or means another
/// thing, not when one is added.
pub const VERSION: u32 = 1;

/// The longest request or reply, in bytes, its newline included. A policy of a million rules fits.
pub const MAX_LINE: usize = 64 << 20;

/// What can be asked. Unknown operations and fields are refused by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// All counters: answered with [`Stats`](crate::stats::Stats).
    Stats {},
    /// What the ports are: answered with a list of [`PortInfo`].
    Ports {},
    /// The rules of a policy: answered with [`PolicyText`].
    PolicyShow {
        /// The policy's name in the configuration.
        name: String,
    },
    /// Puts another allowlist in the place of a policy's own: answered with [`Applied`].
    PolicyReplace {
        /// The policy's name in the configuration.
        name: String,
        /// TOML that holds `allow = [ … ]`, as the configuration does.
        rules: String,
    },
    /// Adds one rule to a policy: answered with [`Applied`].
    PolicyAllow {
        /// The policy's name in the configuration.
        name: String,
        /// The rule as a TOML inline table.
        rule: String,
    },
    /// Takes one rule out of a policy: answered with [`Applied`].
    PolicyRemove {
        /// The policy's name in the configuration.
        name: String,
        /// The rule as a TOML inline table.
        rule: String,
    },
    /// Ends the daemon as SIGTERM does: answered with [`Stopping`], before it has ended.
    Stop {},
    /// Which daemon this is: answered with [`Version`].
    Version {},
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply<T> {
    /// It was done, and this is what was asked for.
    Ok(T),
    /// It was refused and nothing was changed, or it could not be brought to its end: the message says
    /// which.
    Error(Refusal),
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What was wrong, where, and how to mend it, in one line.
    pub message: String,
}

impl Refusal {
    /// A refusal that says what an error says.
    pub fn new(why: impl fmt::Display) -> Self {
        Self {
            message: why.to_string(),
        }
    }
}

/// One port as it was really opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortInfo {
    /// Its name in the configuration.
    pub name: String,
    /// Its kind, as in the configuration.
    pub kind: String,
    /// The interface, or the file or address that stands for one.
    pub interface: Option<String>,
    /// The network namespace of the interface, where it is not the daemon's own.
    pub netns: Option<String>,
    /// The mode that was granted, for kinds that have modes.
    pub mode: Option<String>,
    /// Which core polls which queue; for a port without queues, the cores that have the port.
    pub cores: Vec<usize>,
    /// The interface's queues, one for each entry of `cores`; empty for a port without queues.
    pub queues: Vec<u32>,
    /// Whether frames can come or go at this moment.
    pub up: bool,
    /// The longest frame without its Ethernet header, in bytes.
    pub mtu: Option<u32>,
    /// What backs its slots, such as `2 MiB pages`.
    pub backing: Option<String>,
    /// Inodes of the packet sockets that are bound to the interface, for the device that feeds tools.
    /// Whose they are is found by the client, with its own privileges: the daemon has none for that.
    #[serde(default)]
    pub listening: Vec<u64>,
    /// The processes that hold them, as far as the client may see.
    #[serde(default)]
    pub listeners: Vec<Listener>,
}

/// A process that captures from an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Its process number, as the daemon sees it.
    pub pid: u32,
    /// The name of its program.
    pub name: String,
}

/// A policy as it is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyText {
    /// Its name in the configuration.
    pub name: String,
    /// The generation in force.
    pub generation: u64,
    /// TOML that holds `allow = [ … ]`, fit to be given back with [`Request::PolicyReplace`].
    pub rules: String,
}

/// A change of policy that every worker judges by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The generation that the change made.
    pub generation: u64,
    /// From the rules as they were asked for, read, until tables were made of them, in microseconds.
    pub rebuilt_us: u64,
    /// From publishing it until the last worker acknowledged it, in microseconds.
    pub acknowledged_us: u64,
}

/// The daemon is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// Its process number.
    pub pid: u32,
}

/// Which daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The daemon's release.
    pub version: String,
    /// The protocol that it speaks, [`VERSION`].
    pub protocol: u32,
    /// Its process number.
    pub pid: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_and_written_alike() {
        let name = || "web".to_owned();
        let cases = [
            (r#"{"op":"stats"}"#, Request::Stats {}),
            (r#"{"op":"ports"}"#, Request::Ports {}),
            (r#"{"op":"stop"}"#, Request::Stop {}),
            (r#"{"op":"version"}"#, Request::Version {}),
            (
                r#"{"op":"policy_show","name":"web"}"#,
                Request::PolicyShow { name: name() },
            ),
            (
                r#"{"op":"policy_replace","name":"web","rules":"allow = []"}"#,
                Request::PolicyReplace {
                    name: name(),
                    rules: "allow = []".into(),
                },
            ),
            (
                r#"{"op":"policy_allow","name":"web","rule":"{}"}"#,
                Request::PolicyAllow {
                    name: name(),
                    rule: "{}".into(),
                },
            ),
            (
                r#"{"op":"policy_remove","name":"web","rule":"{}"}"#,
                Request::PolicyRemove {
                    name: name(),
                    rule: "{}".into(),
                },
            ),
        ];
        for (text, request) in cases {
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
        }
    }

    #[test]
    fn replies_are_ok_or_error() {
        let ok = Reply::Ok(Applied {
            generation: 8,
            rebuilt_us: 95,
            acknowledged_us: 41,
        });
        let error = Reply::<Applied>::Error(Refusal::new("no"));
        for (text, reply) in [
            (
                r#"{"ok":{"generation":8,"rebuilt_us":95,"acknowledged_us":41}}"#,
                ok,
            ),
            (r#"{"error":{"message":"no"}}"#, error),
        ] {
            assert_eq!(serde_json::from_str::<Reply<Applied>>(text).unwrap(), reply);
            assert_eq!(serde_json::to_string(&reply).unwrap(), text);
        }
    }
}
