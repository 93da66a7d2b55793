//! The bench that most themes work at: a veth, of which one end is the dataplane's and the other the
//! sender's, and lc0.

use control::stats::Stats;

use crate::{Daemon, Netns, send::Sender};

/// A veth whose one end, `up0`, is the dataplane's and whose other end, `out0`, is the sender's.
pub struct Bench {
    /// Where the dataplane runs.
    pub inside: Netns,
    /// Where the sender is.
    pub outside: Netns,
}

impl Bench {
    /// Makes the namespaces and the veth.
    pub fn new() -> Self {
        let (inside, outside) = (Netns::new(), Netns::new());
        inside.veth("up0", &outside, "out0");
        Self { inside, outside }
    }

    /// A sender on the far end.
    pub fn sender(&self) -> Sender {
        Sender::open(&self.outside, "out0")
    }

    /// A configuration from port `up` to port `lc0`, with more lines for `up` and the lines of a policy
    /// `p`, if any.
    pub fn config(port: &str, policy: Option<&str>) -> String {
        let (named, policy) = match policy {
            Some(policy) => ("policy = \"p\"", format!("[policies.p]\n{policy}")),
            None => ("", String::new()),
        };
        format!(
            "[ports.up]\nkind = \"af_xdp\"\ninterface = \"up0\"\n{port}\n\
             [ports.lc0]\nkind = \"tap\"\n{policy}\n\
             [[pipelines]]\nfrom = [\"up\"]\n{named}\nto = [\"lc0\"]\n"
        )
    }

    /// A daemon with that configuration.
    pub fn start(&self, port: &str, policy: Option<&str>) -> Daemon {
        Daemon::start(&self.inside, &Self::config(port, policy))
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

/// Frames of a reading whose fate was not decided, wherever they are.
pub fn in_flight(stats: &Stats) -> u64 {
    let ports = stats.ports.values();
    let on_ports: u64 = ports.map(|p| p.rx.in_flight + p.tx.in_flight).sum();
    on_ports + stats.pipelines.iter().map(|p| p.in_flight).sum::<u64>()
}
