//! Suricata over a file or a device, with rules and a configuration of the test's own, and what it
//! alerted to.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{Netns, Tool, daemon, process::Running, wait_until};

/// How many alerts there were, by the rule's number.
pub type Alerts = BTreeMap<u64, u64>;

/// How long Suricata may take to start on a busy machine.
const START: Duration = Duration::from_secs(60);

/// Only what these tests need; the distribution's own file is not asked, as it may be anything.
const CONFIG: &str = r#"%YAML 1.1
---
vars:
  address-groups: { HOME_NET: "any", EXTERNAL_NET: "any" }
stats: { enabled: no }
outputs:
  - eve-log: { enabled: yes, filetype: regular, filename: eve.json, types: [alert] }
logging:
  default-log-level: notice
  outputs: [ { console: { enabled: yes } } ]
unix-command: { enabled: no }
af-packet:
  - interface: default
    threads: 1
    cluster-id: 77
    cluster-type: cluster_flow
    # Fragments as they are: the file has them so.
    defrag: no
    use-mmap: yes
    # Packets as they come, and not in blocks that wait to be full.
    tpacket-v3: no
    ring-size: 4096
app-layer:
  protocols:
    http: { enabled: yes }
    dns:
      tcp: { enabled: yes, detection-ports: { dp: 53 } }
      udp: { enabled: yes, detection-ports: { dp: 53 } }
    tls: { enabled: yes, detection-ports: { dp: 443 } }
    sip: { enabled: yes }
"#;

/// A folder with configuration and rules.
fn prepare(rules: &str) -> TempDir {
    let folder = daemon::folder();
    fs::write(folder.path().join("suricata.yaml"), CONFIG).expect("our own folder");
    fs::write(folder.path().join("test.rules"), rules).expect("our own folder");
    folder
}

/// What every run is given. `-k none`: checksums that a host left to its hardware are not wrong.
fn arguments(folder: &Path) -> Vec<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let (config, rules) = (path("suricata.yaml"), path("test.rules"));
    let mut all: Vec<String> = ["-k", "none", "--runmode", "workers"]
        .map(str::to_owned)
        .to_vec();
    for (flag, value) in [
        ("-c", config),
        ("-S", rules),
        ("-l", folder.display().to_string()),
    ] {
        all.extend([flag.to_owned(), value]);
    }
    all
}

/// What Suricata alerts to when it reads a file.
pub fn alerts_of_file(rules: &str, file: &Path) -> Alerts {
    read(rules, "", &file.display().to_string())
}

/// What it alerts to when it reads what a command prints.
pub fn alerts_of_stream(rules: &str, command: &str) -> Alerts {
    read(rules, &format!("{command} |"), "/dev/stdin")
}

fn read(rules: &str, before: &str, file: &str) -> Alerts {
    let folder = prepare(rules);
    let mut arguments = arguments(folder.path());
    // A file is read by one thread; the runmode is a device's.
    arguments.retain(|argument| argument != "--runmode" && argument != "workers");
    let arguments = arguments.join(" ");
    let output = Tool::new("bash")
        .args(["-o", "pipefail", "-c"])
        .arg(format!(
            "{before} suricata {arguments} --runmode single -r {file}"
        ))
        .limit(START)
        .output();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    alerts(&folder.path().join("eve.json"))
}

/// Suricata, listening on a device. Dropped, it is killed.
pub struct Suricata {
    running: Running,
    eve: PathBuf,
    _folder: TempDir,
}

impl Suricata {
    /// Starts it; answers when all its threads run.
    pub fn start(ns: &Netns, interface: &str, rules: &str) -> Self {
        let folder = prepare(rules);
        let mut running = ns
            .tool("suricata")
            .args(arguments(folder.path()))
            .arg(format!("--af-packet={interface}"))
            .spawn();
        let started = wait_until(START, || {
            running.has_ended() || running.stdout().contains("Engine started")
        });
        assert!(started && !running.has_ended(), "{running}");
        Self {
            running,
            eve: folder.path().join("eve.json"),
            _folder: folder,
        }
    }

    /// What it has alerted to so far.
    pub fn alerts(&self) -> Alerts {
        alerts(&self.eve)
    }

    /// Waits until `alerts` are there, at most `limit`; then ends it and answers with all it alerted
    /// to, which may be more.
    pub fn finish(mut self, alerts: &Alerts, limit: Duration) -> Alerts {
        wait_until(limit, || self.alerts() == *alerts);
        self.running.signal(Signal::SIGTERM);
        let ended = self.running.wait(Duration::from_secs(30));
        assert!(ended.is_some(), "suricata does not end\n{}", self.running);
        self.alerts()
    }
}

fn alerts(eve: &Path) -> Alerts {
    let mut alerts = Alerts::new();
    for line in fs::read_to_string(eve).unwrap_or_default().lines() {
        // The last line may not be whole yet.
        let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else {
            continue;
        };
        if let Some(rule) = event["alert"]["signature_id"].as_u64() {
            *alerts.entry(rule).or_default() += 1;
        }
    }
    alerts
}
