//! What was found about the offloads of a port, and the lines that tell a user.

use std::fmt;

/// How an offload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was off already.
    Right,
    /// It was on and is now off; the guard puts it back.
    Changed,
    /// A run that was killed left it off; the guard turns it on again.
    Adopted,
    /// It is on, and was left so.
    On,
    /// It is on and could not be turned off, or cannot be looked at.
    OutOfReach,
}

/// What was found about one offload of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The interface that has it: the port's own, or a veth's peer.
    pub interface: String,
    /// As `ethtool -k` names it.
    pub feature: &'static str,
    /// What it does to frames.
    pub why: &'static str,
    /// How it stands.
    pub state: State,
    /// The command that turns it off, without `FEATURE off` at its end; where that is left to the user.
    pub command: Option<String>,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Right => "off",
            Self::Changed => "turned off",
            Self::Adopted => "left off by a run that was killed, on again at the end of this one",
            Self::On => "left on",
            Self::OutOfReach => "out of reach",
        })
    }
}

/// One line for all findings of an interface in the same state: what, why, and the one command that is left
/// to run. In the order of the findings.
pub fn lines<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Vec<String> {
    let mut groups: Vec<Vec<&Finding>> = Vec::new();
    for finding in findings {
        let group = groups
            .iter_mut()
            .find(|g| g[0].interface == finding.interface && g[0].state == finding.state);
        match group {
            Some(group) => group.push(finding),
            None => groups.push(vec![finding]),
        }
    }
    groups
        .iter()
        .map(|group| {
            let mut features = Vec::new();
            for finding in group {
                features.push(format!("{} ({})", finding.feature, finding.why));
            }
            let first = group[0];
            let mut line = format!(
                "{}: {}: {}",
                first.interface,
                first.state,
                features.join(", ")
            );
            if let Some(command) = &first.command {
                line += &format!("; run: {command}");
                for finding in group {
                    line += &format!(" {} off", finding.feature);
                }
            }
            line
        })
        .collect()
}
