//! The kernel's bridge with the same allowlist in nftables (family `bridge`), between the same two veths.
//!
//! For small frames it runs in a kernel thread of its own on the worker's core (threaded NAPI), so that its
//! processor time can be read like a worker's. TCP runs through it as the kernel does by default.

use std::{
    collections::BTreeSet,
    fs, io,
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::{
    error::BenchError,
    generator::frame,
    lab::{OUT, UPLINK, ip},
};

const NAME: &str = "bridge";
const DEVICE: &str = "br0";

/// A bridge between [`UPLINK`] and [`OUT`]. Dropped, it is gone, and so are its rules.
pub(crate) struct Bridge(());

impl Bridge {
    /// Makes it in the namespace of the calling thread. `None` without nft(8) or a kernel that can filter
    /// bridged frames, with the reason.
    pub(crate) fn start() -> Result<Result<Self, String>, BenchError> {
        if let Err(reason) = nft(&rules()) {
            return Ok(Err(reason));
        }
        let bridge = Self(());
        ip(&["link", "add", DEVICE, "type", "bridge"])?;
        for port in [UPLINK, OUT] {
            ip(&["link", "set", port, "master", DEVICE])?;
        }
        ip(&["link", "set", DEVICE, "up"])?;
        Ok(Ok(bridge))
    }

    /// Has the kernel receive [`UPLINK`]'s frames in a thread of their own on this core.
    pub(crate) fn on_core(&self, core: usize) -> Result<NapiThread, BenchError> {
        let failed = |what: &str, error: io::Error| {
            BenchError::peer(
                NAME,
                format!("{what}: {error}; it needs threaded NAPI, Linux 5.12"),
            )
        };
        let before = napi_threads();
        let gro = Command::new("ethtool")
            .args(["-K", UPLINK, "gro", "on"])
            .stdout(Stdio::null())
            .status()
            .map_err(|e| failed("ethtool", e))?;
        if !gro.success() {
            return Err(failed(
                "ethtool -K gro on",
                io::Error::other(gro.to_string()),
            ));
        }
        // sysfs shows the namespace that it was mounted in.
        let script =
            format!("mount -t sysfs dpbench /sys && echo 1 > /sys/class/net/{UPLINK}/threaded");
        let threaded = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .status()
            .map_err(|e| failed("unshare", e))?;
        if !threaded.success() {
            return Err(failed(
                "threaded NAPI",
                io::Error::other(threaded.to_string()),
            ));
        }
        let thread = napi_threads().difference(&before).next().copied();
        let thread =
            thread.ok_or_else(|| failed("no thread napi/up0", io::ErrorKind::NotFound.into()))?;
        let mut cores = CpuSet::new();
        cores.set(core).map_err(|e| failed("core", e.into()))?;
        sched_setaffinity(Pid::from_raw(thread), &cores).map_err(|e| failed("core", e.into()))?;
        Ok(NapiThread(thread))
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = ip(&["link", "delete", DEVICE]);
        let _ = nft("flush ruleset\n");
        let _ = Command::new("ethtool")
            .args(["-K", UPLINK, "gro", "off"])
            .stdout(Stdio::null())
            .status();
    }
}

/// The kernel's thread.
pub(crate) struct NapiThread(i32);

impl NapiThread {
    /// Its processor time; exact while it sleeps.
    pub(crate) fn time(&self) -> Duration {
        let schedstat =
            fs::read_to_string(format!("/proc/{}/schedstat", self.0)).unwrap_or_default();
        let first = schedstat.split_whitespace().next().unwrap_or_default();
        Duration::from_nanos(first.parse().unwrap_or_default())
    }
}

/// All kernel threads that receive for an [`UPLINK`], in whatever namespace.
fn napi_threads() -> BTreeSet<i32> {
    let prefix = format!("napi/{UPLINK}-");
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
            comm.starts_with(&prefix).then_some(pid)
        })
        .collect()
}

/// Has nft(8) read a script, or says why that cannot be.
fn nft(script: &str) -> Result<(), String> {
    let mut nft = match Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    {
        Ok(nft) => nft,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err("nft is not installed: apt-get install nftables".into());
        }
        Err(e) => return Err(format!("nft: {e}")),
    };
    if let Some(mut input) = nft.stdin.take() {
        let _ = input.write_all(script.as_bytes());
    }
    match nft.wait_with_output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let first = said.lines().next().unwrap_or_default();
            Err(format!(
                "nft: {first}; the kernel must filter bridged frames (CONFIG_NF_TABLES_BRIDGE)"
            ))
        }
        Err(e) => Err(format!("nft: {e}")),
    }
}

/// The ten rules of [`crate::configuration`], with those that `replies = true` stands for; the last admits
/// the generator's frames, and the TCP between the ends.
fn rules() -> String {
    let (from, to, port) = (frame::FROM, frame::TO, frame::TO_PORT);
    let mut text = String::from(
        "table bridge bench {\n chain forward {\n  type filter hook forward priority 0; policy drop;\n  ether type arp accept\n",
    );
    let tcp: [(&str, &str, &str); 4] = [
        ("", "10.0.0.0/8", "{ 80, 443, 8000-8100 }"),
        ("", "10.0.0.0/8", "22"),
        ("10.1.0.0/16", "10.2.0.10", "5432"),
        ("10.1.0.0/16", "10.2.0.11", "6379"),
    ];
    let one = |word: &str, value: &str| match value {
        "" => String::new(),
        value => format!("ip {word} {value} "),
    };
    for (source, target, ports) in tcp {
        let there = one("saddr", source) + &one("daddr", target);
        let back = one("saddr", target) + &one("daddr", source);
        text += &format!("  {there}tcp dport {ports} accept\n");
        text += &format!("  {back}tcp sport {ports} tcp flags & (ack | rst) != 0 accept\n");
    }
    for (target, ports) in [("10.0.0.53", "53"), ("10.0.0.123", "123")] {
        text += &format!("  ip daddr {target} udp dport {ports} accept\n");
        text += &format!("  ip saddr {target} udp sport {ports} accept\n");
    }
    text += "  ip saddr 10.1.0.0/16 ip daddr 203.0.113.50 udp dport 51820 accept\n";
    text += "  ip daddr 192.0.2.0/24 udp dport 4000-5000 accept\n";
    text += "  ip daddr 10.0.0.0/8 icmp type echo-request accept\n";
    text += "  ip saddr 10.0.0.0/8 icmp type echo-reply accept\n";
    text += &format!("  ip saddr {from} ip daddr {to} udp dport {port} accept\n");
    text += &format!("  ip saddr {from} ip daddr {to} tcp dport {port} accept\n");
    text += &format!(
        "  ip saddr {to} ip daddr {from} tcp sport {port} tcp flags & (ack | rst) != 0 accept\n"
    );
    text + " }\n}\n"
}
