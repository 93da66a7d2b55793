//! What killed daemons have left behind: looked for without one that runs, shown, and mended when asked.
//!
//! Programs, sockets and TAPs go with a process. Switched features of interfaces stay, and are on record
//! ([`ledger`]); the control socket's file stays. A record that says nothing that is still so is dropped.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::unistd::getuid;
use serde::Serialize;

use crate::{
    api::socket,
    link::{
        NetNs,
        ethtool::Ethtool,
        ledger::{self, Ledger, Record, Stale},
        netlink::Netlink,
        netns::{self, NAMED},
    },
};

/// Features of one interface that a killed run turned off and that are off still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Features {
    /// The process that was killed.
    pub pid: u32,
    /// The interface, as it is called now.
    pub interface: String,
    /// Its namespace: a name, a path, or `None` for the caller's own.
    pub netns: Option<String>,
    /// Its number.
    pub ifindex: u32,
    /// As `ethtool -k` names them.
    pub features: Vec<String>,
    /// What turns them on again.
    pub command: String,
    /// How it stands.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A control socket on which nobody listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Socket {
    /// Its file.
    pub path: PathBuf,
    /// How it stands.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A file among the records that is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// Whether something that was left behind has been mended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// It has been.
    pub mended: bool,
    /// Why it could not be, or could not be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Outcome {
    fn of<E: fmt::Display>(result: Result<(), E>) -> Self {
        Self {
            mended: result.is_ok(),
            problem: result.err().map(|error| error.to_string()),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Features that are off still.
    pub offloads: Vec<Features>,
    /// Control sockets without a daemon.
    pub sockets: Vec<Socket>,
    /// Files that should be records. They are never removed: nobody knows what they are.
    pub unreadable: Vec<Unreadable>,
}

impl Report {
    /// How much is still to be done.
    pub fn left(&self) -> usize {
        let outcomes = self.offloads.iter().map(|found| &found.outcome);
        let outcomes = outcomes.chain(self.sockets.iter().map(|found| &found.outcome));
        outcomes.filter(|outcome| !outcome.mended).count() + self.unreadable.len()
    }

    fn is_empty(&self) -> bool {
        self.offloads.is_empty() && self.sockets.is_empty() && self.unreadable.is_empty()
    }
}

impl fmt::Display for Report {
    /// A line or two for each thing, with the command that mends it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "nothing was left behind");
        }
        for found in &self.offloads {
            let place = match &found.netns {
                None => String::new(),
                Some(netns) => format!(" in network namespace {netns}"),
            };
            let features = found.features.join(", ");
            let Features { interface, pid, .. } = found;
            if found.outcome.mended {
                writeln!(f, "{interface}{place}: turned on again: {features}")?;
                continue;
            }
            writeln!(
                f,
                "{interface}{place}: left off by the killed process {pid}: {features}"
            )?;
            problem(f, &found.outcome)?;
            writeln!(f, "    {}", found.command)?;
        }
        for Socket { path, outcome } in &self.sockets {
            let path = path.display();
            if outcome.mended {
                writeln!(f, "{path}: removed: nobody listened on it")?;
                continue;
            }
            writeln!(f, "{path}: a control socket on which nobody listens")?;
            problem(f, outcome)?;
            writeln!(f, "    rm {path}")?;
        }
        for Unreadable { path, why } in &self.unreadable {
            let path = path.display();
            writeln!(f, "{path}: not a record of changes: {why}")?;
            writeln!(f, "    look at it, then: rm {path}")?;
        }
        Ok(())
    }
}

fn problem(f: &mut fmt::Formatter<'_>, outcome: &Outcome) -> fmt::Result {
    match &outcome.problem {
        None => Ok(()),
        Some(problem) => writeln!(f, "    {problem}"),
    }
}

/// Looks at the records of `ledger` and at `sockets`; with `fix`, puts back what was left changed.
///
/// # Errors
///
/// When the records cannot be listed.
pub fn examine(ledger: &Ledger, sockets: &[PathBuf], fix: bool) -> io::Result<Report> {
    let found = ledger.read()?;
    let unreadable = found.unreadable.into_iter();
    let stale_sockets = sockets.iter().filter(|path| socket::is_stale(path));
    Ok(Report {
        offloads: found
            .stale
            .iter()
            .filter_map(|stale| features(stale, fix))
            .collect(),
        sockets: stale_sockets
            .map(|path| Socket {
                path: path.clone(),
                outcome: if fix {
                    Outcome::of(socket::remove_if_stale(path))
                } else {
                    Outcome::default()
                },
            })
            .collect(),
        unreadable: unreadable
            .map(|(path, why)| Unreadable { path, why })
            .collect(),
    })
}

/// How an interface on record stands.
enum Now {
    /// It is gone, or all is on again.
    Nothing,
    /// Some features are off still.
    Off {
        ns: NetNs,
        interface: String,
        features: Vec<String>,
    },
}

/// What a stale record says that is still so; `None`, and no more record, when nothing is.
fn features(stale: &Stale, fix: bool) -> Option<Features> {
    let record = &stale.record;
    let mut found = match now(record) {
        Ok(Now::Nothing) => {
            // Without the right to it stays, and says as little the next time.
            let _ = ledger::discard(&stale.path);
            return None;
        }
        Ok(Now::Off {
            ns,
            interface,
            features,
        }) => Features {
            pid: record.pid,
            command: command(&ns.shell_prefix(), &interface, &features),
            interface,
            netns: ns.name().map(str::to_owned),
            ifindex: record.ifindex,
            features,
            outcome: Outcome::default(),
        },
        // What the record says may be so.
        Err(problem) => Features {
            pid: record.pid,
            command: command(
                &netns::shell_prefix(record.netns.as_deref()),
                &record.interface,
                &record.features,
            ),
            interface: record.interface.clone(),
            netns: record.netns.clone(),
            ifindex: record.ifindex,
            features: record.features.clone(),
            outcome: Outcome {
                mended: false,
                problem: Some(problem),
            },
        },
    };
    if fix && found.outcome.problem.is_none() {
        found.outcome = Outcome::of(put_back(record, &found.features));
        if found.outcome.mended {
            let _ = ledger::discard(&stale.path);
        }
    }
    Some(found)
}

fn command(prefix: &str, interface: &str, features: &[String]) -> String {
    let mut command = format!("{prefix}ethtool -K {interface}");
    for feature in features {
        command += &format!(" {feature} on");
    }
    command
}

fn now(record: &Record) -> Result<Now, String> {
    let Some(ns) = namespace(record)? else {
        return Ok(Now::Nothing);
    };
    let mut netlink = Netlink::open(&ns).map_err(|error| error.to_string())?;
    let link = netlink
        .link_by_index(record.ifindex)
        .map_err(|error| error.to_string())?;
    let Some(link) = link else {
        return Ok(Now::Nothing);
    };
    let all = Ethtool::open(&ns)
        .and_then(|ethtool| ethtool.features(&link.name))
        .map_err(|error| error.to_string())?;
    let mut features = record.features.clone();
    features.retain(|feature| all.get(feature).is_some_and(|f| !f.active));
    if features.is_empty() {
        return Ok(Now::Nothing);
    }
    Ok(Now::Off {
        ns,
        interface: link.name,
        features,
    })
}

fn put_back(record: &Record, features: &[String]) -> Result<(), String> {
    // Looked up once more: by now it may have gone, and then there is nothing to do.
    let Now::Off { ns, interface, .. } = now(record)? else {
        return Ok(());
    };
    let names: Vec<&str> = features.iter().map(String::as_str).collect();
    Ethtool::open(&ns)
        .and_then(|ethtool| ethtool.set(&interface, &names, true))
        .map_err(|error| error.to_string())?;
    match now(record)? {
        Now::Nothing => Ok(()),
        Now::Off { features, .. } => Err(format!(
            "the driver leaves off: {}; see ethtool -k {interface}",
            features.join(", ")
        )),
    }
}

/// The namespace of a record by its inode, whatever it is called now; `None` when it is gone.
///
/// # Errors
///
/// When it is nowhere to be seen, and the caller may not see all.
fn namespace(record: &Record) -> Result<Option<NetNs>, String> {
    let is_it = |path: &Path| fs::metadata(path).is_ok_and(|m| m.ino() == record.netns_inode);
    if is_it(Path::new("/proc/thread-self/ns/net")) {
        return Ok(Some(NetNs::own()));
    }
    // A path stays a path when it is joined.
    if let Some(name) = &record.netns
        && is_it(&Path::new(NAMED).join(name))
        && let Ok(ns) = NetNs::open(name)
    {
        return Ok(Some(ns));
    }
    let open = |name: &str| NetNs::open(name).map(Some).map_err(|e| e.to_string());
    for entry in directory(NAMED) {
        if let Some(name) = entry.file_name().to_str()
            && is_it(&entry.path())
        {
            return open(name);
        }
    }
    // Any process that lives in it gives a way in.
    for entry in directory("/proc") {
        let path = entry.path().join("ns/net");
        if let Some(path) = path.to_str()
            && is_it(Path::new(path))
        {
            return open(path);
        }
    }
    if getuid().is_root() {
        Ok(None)
    } else {
        Err("its namespace cannot be looked at by this user; run as root".to_owned())
    }
}

fn directory(path: &str) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(path).into_iter().flatten().flatten()
}
