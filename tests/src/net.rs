//! Network namespaces and the veth pairs between them, made with iproute2.

use std::{
    fs,
    path::Path,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::process::{Tool, ip};

/// What the names of all our namespaces begin with; the number of the process that made it follows.
const PREFIX: &str = "dpt-";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace of the test's own. Dropped, it is removed with all that is in it.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes one, with its loopback interface up.
    pub fn new() -> Self {
        let name = format!(
            "{PREFIX}{}-{}",
            process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        ip(&["netns", "add", &name]);
        let made = Self { name };
        made.ip(&["link", "set", "lo", "up"]);
        made
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip` with arguments, in here. Panics with what it said when it fails.
    pub fn ip(&self, arguments: &[&str]) -> String {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments);
        ip(&all)
    }

    /// Whether `ip` succeeds in here.
    pub fn ip_succeeds(&self, arguments: &[&str]) -> bool {
        Tool::new("ip")
            .args(["-n", &self.name])
            .args(arguments)
            .output()
            .status
            .success()
    }

    /// Whether an interface of this name is in here.
    pub fn has_link(&self, interface: &str) -> bool {
        self.ip_succeeds(&["link", "show", "dev", interface])
    }

    /// A program that will run in here.
    pub fn tool(&self, program: &str) -> Tool {
        Tool::new("ip").args(["netns", "exec", &self.name, program])
    }

    /// Makes a veth pair, one end in here, the other in `other`, both up and without addresses: no
    /// frame comes that no test sent.
    pub fn veth(&self, here: &str, other: &Self, there: &str) {
        self.veth_with(here, other, there, &[]);
    }

    /// The same with so many queues each way at both ends.
    pub fn veth_with_queues(&self, here: &str, other: &Self, there: &str, queues: u32) {
        let queues = queues.to_string();
        let more = ["numrxqueues", &queues, "numtxqueues", &queues];
        self.veth_with(here, other, there, &more);
    }

    fn veth_with(&self, here: &str, other: &Self, there: &str, more: &[&str]) {
        let add = ["link", "add", here];
        let peer = ["type", "veth", "peer", "name", there, "netns", &other.name];
        self.ip(&[&add[..], more, &peer, more].concat());
        for (ns, end) in [(self, here), (other, there)] {
            ns.quiet(end);
            ns.ip(&["link", "set", end, "up"]);
        }
    }

    /// Keeps an interface from speaking by itself (IPv6 router and duplicate address solicitations).
    pub fn quiet(&self, interface: &str) {
        self.ip(&["link", "set", interface, "addrgenmode", "none"]);
    }

    /// Gives an interface an IPv4 address.
    pub fn address(&self, interface: &str, address: &str) {
        self.ip(&["address", "add", address, "dev", interface]);
    }
}

impl Default for Netns {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // A test that fails must not hide why.
        let _ = Tool::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// Removes namespaces of runs that were killed before they could.
pub fn sweep() {
    let Ok(folder) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in folder.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if let Some(pid) = owner
            && pid.parse::<u32>().is_ok()
            && !Path::new("/proc").join(pid).exists()
        {
            let _ = Tool::new("ip").args(["netns", "del", &name]).output();
        }
    }
}
