//! What running daemons have changed on interfaces, on record in a directory, so that it can be put back
//! after one that was killed: programs and TAPs go with a process, switched features stay.
//!
//! A record is a small JSON file, and says which process wrote it. It is stale when that process has ended;
//! whose number has been given to another tells the time of the start (proc_pid_stat(5), field 22). Records
//! help afterwards: a run that may not write any goes on without.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process,
};

use serde::{Deserialize, Serialize};

use super::{
    netlink::Link,
    netns::{NetNs, in_netns},
};
use crate::directory;

/// Where daemons of the system keep their records. /run is emptied by a restart of the machine, and so are
/// the features.
pub const SYSTEM_DIRECTORY: &str = "/run/dataplane/changed";

/// Longer than any record; a longer file is none.
const RECORD_MAX: u64 = 64 << 10;

/// What one process has turned off on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The process.
    pub pid: u32,
    /// When it started, in clock ticks after boot: another process of this number has another.
    pub started: u64,
    /// The interface's namespace as the configuration names it; `None` for the process's own.
    pub netns: Option<String>,
    /// The inode of that namespace (nsfs), by which it is known whatever its name.
    pub netns_inode: u64,
    /// The interface's name at that time.
    pub interface: String,
    /// Its number, which it keeps when it is renamed.
    pub ifindex: u32,
    /// What was turned off, as `ethtool -k` names it.
    pub features: Vec<String>,
}

impl Record {
    /// A record of this process. `None` where /proc does not tell what it takes.
    pub fn new(ns: &NetNs, link: &Link, features: &[String]) -> Option<Self> {
        let pid = process::id();
        Some(Self {
            pid,
            started: started(pid).ok()??,
            netns: ns.name().map(str::to_owned),
            netns_inode: inode(ns)?,
            interface: link.name.clone(),
            ifindex: link.ifindex,
            features: features.to_vec(),
        })
    }

    /// Whether the process that wrote it still runs. One that cannot be looked at is taken to.
    pub fn is_live(&self) -> bool {
        match started(self.pid) {
            Ok(started) => started == Some(self.started),
            Err(_) => true,
        }
    }
}

/// A record of a process that has ended, in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// The file.
    pub path: PathBuf,
    /// What it says.
    pub record: Record,
}

/// What a directory of records holds beside those of running processes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Records of processes that have ended, in the order of their files' names.
    pub stale: Vec<Stale>,
    /// Files that have a record's name and are none, and why.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// A directory of records.
#[derive(Clone, Debug)]
pub struct Ledger {
    directory: PathBuf,
}

impl Ledger {
    /// The system's: [`SYSTEM_DIRECTORY`].
    pub fn system() -> Self {
        Self::at(SYSTEM_DIRECTORY)
    }

    /// Another directory. It is made with its parent, but no further up, when the first record is written.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// Looks through the directory; one that is not there is empty. Files of other names than records have
    /// are nobody's business here.
    ///
    /// # Errors
    ///
    /// When it cannot be listed.
    pub fn read(&self) -> io::Result<Found> {
        let mut found = Found::default();
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(error),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                paths.push(path);
            }
        }
        paths.sort();
        for path in paths {
            match read(&path) {
                Ok(record) if record.is_live() => {}
                Ok(record) => found.stale.push(Stale { path, record }),
                // Its daemon has just ended.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => found.unreadable.push((path, error.to_string())),
            }
        }
        Ok(found)
    }

    /// The stale records of one interface, by its namespace's inode and its number.
    pub fn stale_of(&self, netns_inode: u64, ifindex: u32) -> Vec<Stale> {
        let mut stale = self.read().unwrap_or_default().stale;
        stale.retain(|Stale { record, .. }| {
            record.netns_inode == netns_inode && record.ifindex == ifindex
        });
        stale
    }

    /// Writes a record; `None` where that may not be. It stays until [`Entry::remove`].
    pub fn write(&self, record: &Record) -> Option<Entry> {
        // Another's last record may have gone with the directory in between.
        (0..3).find_map(|_| self.try_write(record).ok())
    }

    fn try_write(&self, record: &Record) -> io::Result<Entry> {
        if let Some(parent) = self.directory.parent() {
            directory::make(parent)?;
        }
        directory::make(&self.directory)?;
        let mut text = serde_json::to_vec(record)?;
        text.push(b'\n');
        // Under its name it is whole from the start, whoever reads it in between.
        let name = format!("{}-{}-{}", record.pid, record.ifindex, record.netns_inode);
        let draft = self.directory.join(format!("{name}.new"));
        let _ = fs::remove_file(&draft);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&draft)?;
        let written = file
            // Whatever the umask: `dpctl doctor` reads it as any user.
            .set_permissions(fs::Permissions::from_mode(0o644))
            .and_then(|()| file.write_all(&text))
            .and_then(|()| self.publish(&draft, &name));
        let _ = fs::remove_file(&draft);
        Ok(Entry { path: written? })
    }

    /// Gives a whole file a name that is free: the ends of a veth may be two ports, each of which changes
    /// both ends.
    fn publish(&self, draft: &Path, name: &str) -> io::Result<PathBuf> {
        for count in 0.. {
            let path = self.directory.join(format!("{name}-{count}.json"));
            match fs::hard_link(draft, &path) {
                Ok(()) => return Ok(path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

/// A record of this process in its file. It does not go by itself: as long as what it says is not undone,
/// it is needed.
#[derive(Debug)]
pub struct Entry {
    path: PathBuf,
}

impl Entry {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the record, with the directories that were made for it when they are empty.
    pub fn remove(self) {
        // It may be gone already; there is nobody left to tell.
        let _ = discard(&self.path);
        if let Some(parent) = self.path.parent().and_then(Path::parent) {
            directory::leave(parent);
        }
    }
}

/// Removes a record's file, and its directory if it was the last.
///
/// # Errors
///
/// When it may not be removed. That it is gone already is none.
pub fn discard(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Some(directory) = path.parent() {
        // Fails, as it should, while there are others.
        let _ = fs::remove_dir(directory);
    }
    Ok(())
}

/// The inode of a namespace; `None` when it cannot be entered.
pub fn inode(ns: &NetNs) -> Option<u64> {
    let metadata = in_netns(ns, || fs::metadata("/proc/thread-self/ns/net")).ok()?;
    Some(metadata.ok()?.ino())
}

fn read(path: &Path) -> io::Result<Record> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() || metadata.len() > RECORD_MAX {
        return Err(io::Error::other("not a small regular file"));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// When a process started; `None` when there is none of that number, or only what is left of one that has
/// ended and was not waited for.
fn started(pid: u32) -> io::Result<Option<u64>> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => parse_started(&stat)
            .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not as expected"))),
        // ESRCH: it ended while it was read.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The outer `None` is a line that is not understood. The name, field 2, may hold anything.
fn parse_started(stat: &str) -> Option<Option<u64>> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    // Field 3; then 22 is the nineteenth from there.
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some((!matches!(state, "Z" | "X")).then_some(started))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(pid: u32, started: u64) -> Record {
        Record {
            pid,
            started,
            netns: Some("blue".into()),
            netns_inode: 4_026_532_000,
            interface: "eth0".into(),
            ifindex: 7,
            features: vec!["rx-gro".into(), "rx-lro".into()],
        }
    }

    fn own() -> Record {
        let pid = process::id();
        record(pid, started(pid).unwrap().unwrap())
    }

    /// A number that no process has: above the kernel's limit (PID_MAX_LIMIT, include/linux/threads.h).
    const NOBODY: u32 = 1 << 23;

    #[test]
    fn files_are_told_apart() {
        #[derive(Debug, PartialEq)]
        enum Is {
            Passed,
            Stale,
            Unreadable,
        }
        let json = |record: &Record| serde_json::to_string(record).unwrap();
        let mut truncated = json(&own());
        truncated.truncate(truncated.len() / 2);
        let mut recycled = own();
        recycled.started -= 1;
        let later = json(&record(NOBODY, 1)).replace("\"pid\"", "\"of_later\":[1],\"pid\"");
        for (name, content, expected) in [
            ("alive.json", json(&own()), Is::Passed),
            ("dead.json", json(&record(NOBODY, 1)), Is::Stale),
            ("recycled.json", json(&recycled), Is::Stale),
            ("later-release.json", later, Is::Stale),
            ("truncated.json", truncated, Is::Unreadable),
            ("empty.json", String::new(), Is::Unreadable),
            ("other.json", "{\"pid\":1}".into(), Is::Unreadable),
            ("large.json", " ".repeat(65 << 10), Is::Unreadable),
            ("1-2-3.new", "half".into(), Is::Passed),
            ("README", "garbage".into(), Is::Passed),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(name);
            fs::write(&path, &content).unwrap();
            let found = Ledger::at(directory.path()).read().unwrap();
            let is = match (found.stale.as_slice(), found.unreadable.as_slice()) {
                ([], []) => Is::Passed,
                ([stale], []) if stale.path == path => Is::Stale,
                ([], [(unreadable, _)]) if *unreadable == path => Is::Unreadable,
                _ => panic!("{name}: {found:?}"),
            };
            assert_eq!(is, expected, "{name}");
            assert_eq!(fs::read_to_string(path).unwrap(), content, "{name}");
        }
    }

    #[test]
    fn a_symbolic_link_and_a_directory_are_no_records() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        fs::write(&target, serde_json::to_string(&record(NOBODY, 1)).unwrap()).unwrap();
        std::os::unix::fs::symlink(&target, directory.path().join("a.json")).unwrap();
        fs::create_dir(directory.path().join("b.json")).unwrap();
        let found = Ledger::at(directory.path()).read().unwrap();
        assert_eq!((found.stale.len(), found.unreadable.len()), (0, 2));
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("dataplane/changed");
        let ledger = Ledger::at(&directory);
        assert_eq!(ledger.read().unwrap(), Found::default());
        let dead = record(NOBODY, 1);
        let first = ledger.write(&dead).unwrap();
        let second = ledger.write(&dead).unwrap();
        assert_ne!(first.path(), second.path());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(first.path()), 0o644);
        assert_eq!(mode(&directory), 0o755);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
        let found = ledger.read().unwrap();
        assert_eq!(found.stale.len(), 2);
        assert!(found.stale.iter().all(|stale| stale.record == dead));
        for (inode, ifindex, expected) in [
            (dead.netns_inode, 7, 2),
            (dead.netns_inode, 8, 0),
            (dead.netns_inode + 1, 7, 0),
        ] {
            assert_eq!(ledger.stale_of(inode, ifindex).len(), expected);
        }
        second.remove();
        assert!(directory.exists());
        first.remove();
        assert!(!root.path().join("dataplane").exists());
    }

    #[test]
    fn a_directory_that_was_there_stays() {
        let root = tempfile::tempdir().unwrap();
        let ledger = Ledger::at(root.path().join("changed"));
        ledger.write(&own()).unwrap().remove();
        assert!(root.path().exists() && !root.path().join("changed").exists());
    }

    #[test]
    fn where_nothing_may_be_written_nothing_is() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        for place in ["file", "file/changed", "a/b/changed"] {
            let ledger = Ledger::at(root.path().join(place));
            assert!(ledger.write(&own()).is_none(), "{place}");
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_start_of_a_process_is_field_22_whatever_its_name() {
        let rest = "1 1 1 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 9876 1 1";
        for (line, expected) in [
            (format!("5 (sh) S {rest}"), Some(Some(9876))),
            (format!("5 (a) R 1 (b) S {rest}"), Some(Some(9876))),
            (format!("5 (sh) Z {rest}"), Some(None)),
            ("5 (sh) S 1 2 3".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(parse_started(&line), expected, "{line:?}");
        }
        assert_eq!(started(NOBODY).unwrap(), None);
        assert!(own().is_live() && !record(NOBODY, 1).is_live());
    }

    #[test]
    fn a_killed_child_is_dead_before_it_is_waited_for() {
        let mut child = process::Command::new("sleep").arg("60").spawn().unwrap();
        let live = record(child.id(), started(child.id()).unwrap().unwrap());
        assert!(live.is_live());
        child.kill().unwrap();
        for _ in 0..200 {
            if !live.is_live() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(!live.is_live());
        child.wait().unwrap();
    }
}
