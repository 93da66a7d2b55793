//! What a test needs of the machine, and the words for what is missing.

use std::{env, fmt, path::PathBuf};

use nix::unistd::geteuid;

use crate::guest::{self, Card};

/// Something that not every machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The superuser, for namespaces, AF_XDP and TAP devices.
    Root,
    /// A program in the search path.
    Tool(&'static str),
    /// A program in the search path that only looks at text of ours: no tool of the trade.
    Checker(&'static str),
    /// The folder of real captures, see [`captures`].
    Captures,
    /// Suricata of the 7 series.
    Suricata7,
    /// A kernel that lets this process use io_uring; a container may not.
    IoUring,
    /// User namespaces that an ordinary user may make.
    UserNamespaces,
    /// The guest of `scripts/vm`.
    Guest,
    /// One of its network cards.
    Card(Card),
}

impl Need {
    /// What is missing, in words; `None` when nothing is.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!geteuid().is_root()).then(|| "needs root".to_owned()),
            Self::Tool(name) | Self::Checker(name) => find(name)
                .is_none()
                .then(|| format!("needs {name}, which is not installed")),
            Self::Captures => captures().err(),
            Self::Suricata7 => match suricata_version() {
                None => Some("needs suricata, which is not installed".to_owned()),
                Some(version) if version.starts_with("7.") => None,
                Some(version) => Some(format!("needs suricata 7, installed is {version}")),
            },
            Self::IoUring => dataplane::worker::ring::Ring::new()
                .err()
                .map(|e| format!("needs io_uring: {e}")),
            Self::Guest => (!guest::is_here()).then(|| "needs the guest of scripts/vm".to_owned()),
            Self::Card(card) => Self::Guest.missing().or_else(|| {
                (!card.is_here()).then(|| format!("needs {}, which the guest has not", card.name))
            }),
            Self::UserNamespaces => {
                let mut trial = crate::process::as_nobody(&["unshare", "-Urn", "true"]);
                match trial.output() {
                    Ok(output) if output.status.success() => None,
                    Ok(output) => Some(format!(
                        "needs user namespaces for ordinary users: {}",
                        String::from_utf8_lossy(&output.stderr).trim()
                    )),
                    Err(e) => Some(format!("needs setpriv and unshare: {e}")),
                }
            }
        }
    }

    /// The word by which `DATAPLANE_REQUIRE` speaks of it.
    fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Tool(_) | Self::Suricata7 => "tools",
            Self::Checker(_) => "checkers",
            Self::Captures => "captures",
            Self::IoUring => "io_uring",
            Self::UserNamespaces => "userns",
            Self::Guest | Self::Card(_) => "guest",
        }
    }

    /// Whether the environment says that this need is to be met: then its lack is a failure. Set
    /// `DATAPLANE_REQUIRE=root,tools` where nothing may be skipped for want of them.
    pub fn is_required(self) -> bool {
        env::var("DATAPLANE_REQUIRE")
            .is_ok_and(|words| words.split(',').any(|word| word.trim() == self.word()))
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tool(name) | Self::Checker(name) => f.write_str(name),
            Self::Card(card) => f.write_str(card.name),
            other => f.write_str(other.word()),
        }
    }
}

/// Where a program is.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The folder of real captures, which `DATAPLANE_CAPTURES` names. The error says what is missing.
pub fn captures() -> Result<PathBuf, String> {
    let folder = env::var_os("DATAPLANE_CAPTURES")
        .map(PathBuf::from)
        .ok_or("needs captures; name their folder in DATAPLANE_CAPTURES")?;
    if folder.is_dir() {
        Ok(folder)
    } else {
        Err(format!(
            "needs captures; DATAPLANE_CAPTURES={} is not a folder",
            folder.display()
        ))
    }
}

fn suricata_version() -> Option<String> {
    let output = std::process::Command::new(find("suricata")?)
        .arg("-V")
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split("version ").nth(1)?.split_whitespace().next()?;
    Some(version.to_owned())
}
