//! Who listens on an interface: the kernel's list of packet sockets, and the processes that hold them.
//!
//! `/proc/net/packet` is written by net/packet/af_packet.c, `packet_seq_show`. A socket bound to all
//! interfaces (a capture on `any`) is no listener of one.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::netns::{NetNs, NetNsError, in_netns};

/// How often the list is read while it is waited for listeners.
const POLL: Duration = Duration::from_millis(10);

/// Why the listeners cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ListenersError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// The list cannot be read.
    #[error(
        "{ns}: cannot read /proc/thread-self/net/packet: {error}; mount /proc, or do without `wait_for_consumer`"
    )]
    Read {
        /// The namespace.
        ns: NetNs,
        /// From open(2) or read(2).
        error: io::Error,
    },
}

/// A packet socket bound to one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketSocket {
    /// The socket's inode, as it stands in `/proc/PID/fd`.
    pub inode: u64,
    /// The EtherType that it takes; 3 is all of them (ETH_P_ALL).
    pub protocol: u16,
}

/// A process that holds a packet socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// Its number, as seen from the `/proc` that is mounted here.
    pub pid: u32,
    /// Its name (`comm`, at most 15 bytes).
    pub comm: String,
    /// How many packet sockets it holds on the interface.
    pub sockets: usize,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.comm, self.pid)
    }
}

/// How waiting for listeners ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waited {
    /// There are some, and no more have come for the settling time.
    Listening(Vec<PacketSocket>),
    /// The time passed. Sockets that came too late to settle are in the list.
    TimedOut(Vec<PacketSocket>),
    /// It was interrupted.
    Stopped,
}

/// The kernel's list of packet sockets of one namespace. Opened once: reading it again needs no privilege,
/// so that a daemon which has given up entering namespaces still sees who listens.
#[derive(Debug)]
pub struct PacketSockets {
    ns: NetNs,
    table: File,
}

impl PacketSockets {
    /// Opens the list of a namespace.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered or there is no `/proc`.
    pub fn open(ns: &NetNs) -> Result<Self, ListenersError> {
        // `/proc/net` would be that of the process's first thread.
        let table = in_netns(ns, || File::open("/proc/thread-self/net/packet"))?;
        Ok(Self {
            ns: ns.clone(),
            table: table.map_err(|error| ListenersError::Read {
                ns: ns.clone(),
                error,
            })?,
        })
    }

    /// The packet sockets that receive frames of exactly this interface, ordered.
    ///
    /// # Errors
    ///
    /// When the list cannot be read.
    pub fn on(&self, ifindex: u32) -> Result<Vec<PacketSocket>, ListenersError> {
        self.read(ifindex).map_err(|error| ListenersError::Read {
            ns: self.ns.clone(),
            error,
        })
    }

    fn read(&self, ifindex: u32) -> io::Result<Vec<PacketSocket>> {
        let mut text = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            // By position: several threads may read the one descriptor.
            match self.table.read_at(&mut chunk, text.len() as u64)? {
                0 => return Ok(parse(&String::from_utf8_lossy(&text), ifindex)),
                n => text.extend_from_slice(&chunk[..n]),
            }
        }
    }
}

/// Columns: sk RefCnt Type Proto Iface R Rmem User Inode.
fn parse(table: &str, ifindex: u32) -> Vec<PacketSocket> {
    let mut sockets: Vec<PacketSocket> = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut columns = line.split_ascii_whitespace().skip(3);
            let protocol = u16::from_str_radix(columns.next()?, 16).ok()?;
            let bound_to: u32 = columns.next()?.parse().ok()?;
            let running = columns.next()? == "1";
            let inode = columns.nth(2)?.parse().ok()?;
            (bound_to == ifindex && ifindex != 0 && protocol != 0 && running)
                .then_some(PacketSocket { inode, protocol })
        })
        .collect();
    sockets.sort_unstable();
    sockets
}

/// The processes that hold sockets of these inodes, by number. Those that may not be looked at, and those of another
/// PID namespace, are missing; a socket that several share counts for each.
pub fn processes_of(sockets: &[u64]) -> Vec<Listener> {
    if sockets.is_empty() {
        return Vec::new();
    }
    let mut held: HashMap<u32, usize> = HashMap::new();
    for pid in fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
    {
        let mut inodes: Vec<u64> = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| socket_inode(fs::read_link(entry.path()).ok()?.to_str()?))
            .filter(|inode| sockets.contains(inode))
            .collect();
        inodes.sort_unstable();
        inodes.dedup(); // a descriptor that was duplicated is one socket
        if !inodes.is_empty() {
            held.insert(pid, inodes.len());
        }
    }
    let mut listeners: Vec<Listener> = held
        .into_iter()
        .map(|(pid, sockets)| Listener {
            pid,
            comm: fs::read_to_string(format!("/proc/{pid}/comm"))
                .map_or_else(|_| "?".into(), |comm| comm.trim_end().to_owned()),
            sockets,
        })
        .collect();
    listeners.sort_unstable();
    listeners
}

fn socket_inode(target: &str) -> Option<u64> {
    target
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// Waits until somebody listens and the set of sockets has stayed the same for `settle`: Suricata opens one
/// socket per thread, one after the other, and discards frames until it has all of them. Gives up after
/// `timeout`, or, within some 10 ms, when `stop` becomes true.
///
/// # Errors
///
/// When the list cannot be read.
pub fn wait_for_listener(
    sockets: &PacketSockets,
    ifindex: u32,
    timeout: Duration,
    settle: Duration,
    stop: &AtomicBool,
) -> Result<Waited, ListenersError> {
    wait(timeout, settle, stop, || sockets.read(ifindex)).map_err(|error| ListenersError::Read {
        ns: sockets.ns.clone(),
        error,
    })
}

fn wait(
    timeout: Duration,
    settle: Duration,
    stop: &AtomicBool,
    mut read: impl FnMut() -> io::Result<Vec<PacketSocket>>,
) -> io::Result<Waited> {
    let start = Instant::now();
    let mut sockets = Vec::new();
    let mut since = start;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(Waited::Stopped);
        }
        let seen = read()?;
        let now = Instant::now();
        if seen != sockets {
            sockets = seen;
            since = now;
        }
        if !sockets.is_empty() && now - since >= settle {
            return Ok(Waited::Listening(sockets));
        }
        let left = timeout.saturating_sub(now - start);
        if left.is_zero() {
            return Ok(Waited::TimedOut(sockets));
        }
        thread::sleep(POLL.min(left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
sk               RefCnt Type Proto  Iface R Rmem   User   Inode
0000000000000000 3      3    0003   7     1 0      0      1234
0000000000000000 3      3    0003   7     1 4096   1000   1200
0000000000000000 3      3    0000   7     1 0      0      1235
0000000000000000 3      3    0003   7     0 0      0      1236
0000000000000000 3      3    0003   0     1 0      0      1237
0000000000000000 3      2    88cc   8     1 0      0      1238
";

    #[test]
    fn a_listener_is_bound_to_the_interface_and_running() {
        let inodes = |ifindex| -> Vec<u64> {
            parse(TABLE, ifindex)
                .iter()
                .map(|socket| socket.inode)
                .collect()
        };
        for (case, ifindex, expected) in [
            (
                "two running; one without protocol and one stopped left out",
                7,
                vec![1200, 1234],
            ),
            ("another protocol", 8, vec![1238]),
            ("nobody", 9, vec![]),
            ("a socket on all interfaces belongs to none", 0, vec![]),
        ] {
            assert_eq!(inodes(ifindex), expected, "{case}");
        }
        assert_eq!(parse(TABLE, 8)[0].protocol, 0x88cc);
    }

    #[test]
    fn a_table_cut_anywhere_is_read_as_far_as_it_goes() {
        for end in 0..TABLE.len() {
            assert!(parse(&TABLE[..end], 7).len() <= 2);
        }
        assert_eq!(parse("", 7), []);
    }

    #[test]
    fn only_links_to_sockets_carry_an_inode() {
        for (target, inode) in [
            ("socket:[42]", Some(42)),
            ("socket:[]", None),
            ("pipe:[42]", None),
            ("/dev/null", None),
        ] {
            assert_eq!(socket_inode(target), inode, "{target}");
        }
    }

    #[test]
    fn waiting_ends_when_the_set_has_settled() {
        let socket = |inode| PacketSocket { inode, protocol: 3 };
        let mut polls = 0;
        let waited = wait(
            Duration::from_secs(60),
            Duration::from_millis(1),
            &AtomicBool::new(false),
            || {
                polls += 1;
                Ok((0..(polls / 3).min(2)).map(socket).collect())
            },
        );
        // With polls ten times as far apart as the settling time each set settles at once but the empty one.
        assert_eq!(waited.unwrap(), Waited::Listening(vec![socket(0)]));
    }

    #[test]
    fn a_set_that_keeps_changing_times_out_with_what_is_there() {
        let mut polls = 0;
        let waited = wait(
            Duration::from_millis(50),
            Duration::from_secs(60),
            &AtomicBool::new(false),
            || {
                polls += 1;
                Ok(vec![PacketSocket {
                    inode: polls,
                    protocol: 3,
                }])
            },
        )
        .unwrap();
        assert!(matches!(waited, Waited::TimedOut(sockets) if sockets.len() == 1));
        assert!(polls > 1);
    }

    #[test]
    fn waiting_can_be_interrupted() {
        let stop = AtomicBool::new(false);
        let waited = wait(Duration::from_secs(60), Duration::ZERO, &stop, || {
            stop.store(true, Ordering::Relaxed);
            Ok(Vec::new())
        });
        assert_eq!(waited.unwrap(), Waited::Stopped);
    }

    #[test]
    fn nobody_can_listen_on_an_interface_that_is_not_there() {
        let sockets = PacketSockets::open(&NetNs::own()).unwrap();
        assert_eq!(sockets.on(0x7fff_fffe).unwrap(), []);
        // The list can be read again and again.
        assert_eq!(sockets.on(0x7fff_fffe).unwrap(), []);
        assert_eq!(processes_of(&[]), []);
    }
}
