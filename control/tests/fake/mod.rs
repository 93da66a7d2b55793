//! A daemon without a dataplane: a [`Service`] that keeps a list of rules as text.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use control::{
    api::{
        protocol::{Applied, Listener, PolicyText, PortInfo, Refusal},
        server::{Server, Service},
        socket::ControlSocket,
    },
    stats::{PipelineStats, PortStats, Stats},
};

/// Knows the policy `web`, and every rule that begins as a table does.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    rules: Mutex<Vec<String>>,
    generation: AtomicU64,
    readings: AtomicU64,
    stopped: Mutex<bool>,
}

impl Fake {
    fn known(name: &str) -> Result<(), Refusal> {
        if name == "web" {
            Ok(())
        } else {
            Err(Refusal::new(format_args!(
                "there is no policy {name:?}; the policies are: web"
            )))
        }
    }

    fn applied(&self) -> Applied {
        Applied {
            generation: self.generation.fetch_add(1, Ordering::Relaxed) + 1,
            rebuilt_us: 95,
            acknowledged_us: 41,
        }
    }

    pub(crate) fn stopped(&self) -> bool {
        *self.stopped.lock().unwrap()
    }
}

impl Service for Fake {
    fn stats(&self) -> Result<Stats, Refusal> {
        let reading = self.readings.fetch_add(1, Ordering::Relaxed) + 1;
        let generation = self.generation.load(Ordering::Relaxed);
        let mut stats = Stats::new(reading as f64, generation);
        let mut port = PortStats::new("af_xdp", "copy", true);
        port.rx.frames = 1000 * reading;
        port.rx.forwarded = 1000 * reading;
        stats.ports.insert("uplink".into(), port);
        stats.pipelines.push(PipelineStats::new(
            vec!["uplink".into()],
            vec!["lc0".into()],
            Some("web".into()),
        ));
        Ok(stats)
    }

    fn ports(&self) -> Result<Vec<PortInfo>, Refusal> {
        Ok(vec![PortInfo {
            name: "lc0".into(),
            kind: "tap".into(),
            cores: vec![0],
            up: true,
            listeners: vec![Listener {
                pid: 7,
                name: "tcpdump".into(),
            }],
            ..PortInfo::default()
        }])
    }

    fn policy_show(&self, name: &str) -> Result<PolicyText, Refusal> {
        Self::known(name)?;
        let rules = self.rules.lock().unwrap();
        Ok(PolicyText {
            name: name.to_owned(),
            generation: self.generation.load(Ordering::Relaxed),
            rules: format!("allow = [ {} ]\n", rules.join(", ")),
        })
    }

    fn policy_replace(&self, name: &str, rules: &str) -> Result<Applied, Refusal> {
        Self::known(name)?;
        let inner = rules
            .trim()
            .strip_prefix("allow = [")
            .and_then(|rest| rest.strip_suffix(']'))
            .ok_or_else(|| Refusal::new("line 1: this is no allow list"))?;
        *self.rules.lock().unwrap() = vec![inner.trim().to_owned()];
        Ok(self.applied())
    }

    fn policy_allow(&self, name: &str, rule: &str) -> Result<Applied, Refusal> {
        Self::known(name)?;
        self.rules.lock().unwrap().push(rule.to_owned());
        Ok(self.applied())
    }

    fn policy_remove(&self, name: &str, rule: &str) -> Result<Applied, Refusal> {
        Self::known(name)?;
        let mut rules = self.rules.lock().unwrap();
        match rules.iter().position(|have| have == rule) {
            Some(at) => {
                rules.remove(at);
                Ok(self.applied())
            }
            None => Err(Refusal::new("the policy has no such rule")),
        }
    }

    fn stop(&self) {
        *self.stopped.lock().unwrap() = true;
    }
}

/// Serves a fake.
pub(crate) fn serve(path: &Path, fake: Arc<Fake>) -> Server {
    Server::start(ControlSocket::listen(path, None).unwrap(), fake).unwrap()
}

/// A fake that is served in a directory of its own.
pub(crate) struct Daemon {
    pub(crate) fake: Arc<Fake>,
    pub(crate) server: Server,
    /// Removed with the daemon.
    _directory: tempfile::TempDir,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fake = Arc::new(Fake::default());
        let path = directory.path().join("control.sock");
        Self {
            server: serve(&path, Arc::clone(&fake)),
            fake,
            _directory: directory,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.server.path()
    }
}
