//! Whose program that is: what the kernel tells about a loaded BPF program, where it is pinned, and which
//! processes hold it or its link. For messages; nothing is decided by it.

use std::{
    ffi::CString,
    fmt, fs,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use aya::programs::{
    ProgramInfo,
    links::{LinkInfo, LinkType},
    loaded_links, loaded_programs,
};

use super::link;

/// Where BPF objects are pinned by convention.
const BPFFS: &str = "/sys/fs/bpf";
/// Files of a bpffs that are looked at before the search is given up.
const PINS_MAX: usize = 4096;

/// A BPF program that somebody has loaded. Fields that could not be found out are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignProgram {
    /// The kernel's number of it.
    pub id: u32,
    /// The name in its object, at most 15 bytes.
    pub name: Option<String>,
    /// The user who loaded it.
    pub uid: Option<u32>,
    /// It is on an XDP hook by a bpf_link: only the end of that link takes it off. Otherwise anybody with
    /// the privilege can (`ip link set dev … xdp off`).
    pub by_link: bool,
    /// Where it or its link is pinned.
    pub pinned: Vec<PathBuf>,
    /// Processes that have it or a link to it open: number and name.
    pub holders: Vec<(u32, String)>,
}

impl ForeignProgram {
    /// Finds out what may be found out about a program. Costs a walk through `/proc` and `/sys/fs/bpf`.
    pub fn describe(id: u32) -> Self {
        let info = loaded_programs().flatten().find(|info| info.id() == id);
        Self {
            id,
            name: info
                .as_ref()
                .and_then(|info| info.name_as_str())
                .filter(|name| !name.is_empty())
                .map(str::to_owned),
            uid: info.as_ref().and_then(ProgramInfo::created_by_uid),
            by_link: loaded_links()
                .flatten()
                .any(|link| is_xdp_link_to(&link, id)),
            pinned: pins_of(id),
            holders: holders_of(id),
        }
    }

    /// The command that takes it off the XDP hook of an interface. `prefix` is what to put before a command
    /// so that it runs in the interface's namespace ([`shell_prefix`](crate::link::netns::shell_prefix)).
    pub fn removal(&self, prefix: &str, interface: &str) -> String {
        match (self.by_link, self.pinned.first()) {
            (false, _) => format!("{prefix}ip link set dev {interface} xdp off"),
            (true, Some(path)) => format!("rm {}", path.display()),
            (true, None) => "bpftool link detach id ID (bpftool link list shows the ID)".into(),
        }
    }
}

impl fmt::Display for ForeignProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "program {name:?} (id {}", self.id)?,
            None => write!(f, "program with id {} (", self.id)?,
        }
        let comma = if self.name.is_some() { ", " } else { "" };
        match self.uid {
            Some(uid) => write!(f, "{comma}loaded by user {uid}")?,
            None => write!(f, "{comma}of an unknown user")?,
        }
        for path in &self.pinned {
            write!(f, ", pinned at {}", path.display())?;
        }
        for (pid, comm) in &self.holders {
            write!(f, ", held by {comm} with pid {pid}")?;
        }
        if self.pinned.is_empty() && self.holders.is_empty() {
            f.write_str(", held by no process")?;
        }
        f.write_str(")")
    }
}

fn pins_of(id: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(BPFFS)];
    let mut looked_at = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            looked_at += 1;
            if looked_at > PINS_MAX {
                return found;
            }
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if program_pinned_at(&path) == Some(id) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn is_xdp_link_to(link: &LinkInfo, id: u32) -> bool {
    link.program_id() == id && link.link_type().is_ok_and(|kind| kind == LinkType::Xdp)
}

/// The program that is pinned there, or whose link is; `None` for maps. The descriptor's fdinfo tells which
/// of them it is: the information structures of the three look alike.
fn program_pinned_at(path: &Path) -> Option<u32> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let fd = link::open_pin(&path).ok()?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    program_of_fdinfo(&info)
}

/// The kernel writes `prog_id:` into the fdinfo of a program's descriptor and of a link's
/// (kernel/bpf/syscall.c, `bpf_prog_show_fdinfo` and `bpf_link_show_fdinfo`).
fn holders_of(id: u32) -> Vec<(u32, String)> {
    let mut holders: Vec<(u32, String)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            fs::read_dir(format!("/proc/{pid}/fd"))
                .into_iter()
                .flatten()
                .flatten()
                .filter(|fd| {
                    fs::read_link(fd.path())
                        .is_ok_and(|target| target.to_string_lossy().starts_with("anon_inode:bpf"))
                })
                .any(|fd| {
                    let number = fd.file_name();
                    let path = Path::new("/proc")
                        .join(pid.to_string())
                        .join("fdinfo")
                        .join(number);
                    fs::read_to_string(path).is_ok_and(|info| program_of_fdinfo(&info) == Some(id))
                })
        })
        .map(|pid| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm"))
                .map_or_else(|_| "?".into(), |comm| comm.trim_end().to_owned());
            (pid, comm)
        })
        .collect();
    holders.sort_unstable();
    holders
}

fn program_of_fdinfo(info: &str) -> Option<u32> {
    info.lines()
        .find_map(|line| line.strip_prefix("prog_id:"))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_says_what_is_known() {
        let known = ForeignProgram {
            id: 7,
            name: Some("xdp_pass".into()),
            uid: Some(0),
            by_link: true,
            pinned: vec!["/sys/fs/bpf/x".into()],
            holders: vec![(12, "tool".into())],
        };
        for (program, expected) in [
            (
                known,
                "program \"xdp_pass\" (id 7, loaded by user 0, pinned at /sys/fs/bpf/x, held by tool with pid 12)",
            ),
            (
                ForeignProgram {
                    id: 7,
                    ..ForeignProgram::default()
                },
                "program with id 7 (of an unknown user, held by no process)",
            ),
        ] {
            assert_eq!(program.to_string(), expected);
        }
    }

    #[test]
    fn what_a_link_holds_is_not_taken_off_by_netlink() {
        for (by_link, pin, expected) in [
            (
                false,
                None,
                "ip netns exec blue ip link set dev eth0 xdp off",
            ),
            (
                false,
                Some("/sys/fs/bpf/x"),
                "ip netns exec blue ip link set dev eth0 xdp off",
            ),
            (true, Some("/sys/fs/bpf/x"), "rm /sys/fs/bpf/x"),
            (
                true,
                None,
                "bpftool link detach id ID (bpftool link list shows the ID)",
            ),
        ] {
            let program = ForeignProgram {
                by_link,
                pinned: pin.map(PathBuf::from).into_iter().collect(),
                ..ForeignProgram::default()
            };
            assert_eq!(program.removal("ip netns exec blue ", "eth0"), expected);
        }
    }

    #[test]
    fn the_program_of_a_descriptor_stands_in_its_fdinfo() {
        for (info, id) in [
            (
                "pos:\t0\nlink_type:\txdp\nlink_id:\t3\nprog_tag:\tab\nprog_id:\t42\n",
                Some(42),
            ),
            ("pos:\t0\nmap_id:\t42\n", None),
            ("prog_id:\tx\n", None),
            ("", None),
        ] {
            assert_eq!(program_of_fdinfo(info), id, "{info:?}");
        }
    }
}
