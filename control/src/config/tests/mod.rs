//! Tables of configurations, bad and good, against a machine of invented facts; and the property that
//! any text is answered.

mod bad;
pub(crate) mod fake;
mod good;
mod random;

use super::{Config, ConfigError, Overrides, Plan, parse};
use fake::FakeMachine;

/// A file that uses every key that is built.
const FULL: &str = r#"
[engine]
cores = "0-1"
slots = 4096
slot_size = 2048
hugepages = "off"
idle = "busy"
batch = 32

[control]
socket = "/run/dataplane/control.sock"
socket_group = "netops"

[ports.uplink]
kind = "af_xdp"
interface = "eth0"
queues = "all"
mode = "auto"
checksums = "auto"
offloads = "fix"
claim = "all"

[ports.down]
kind = "af_xdp"
interface = "veth1"
netns = "ids"
queues = [0]
mode = "copy"
checksums = "trust"
offloads = "keep"
force = true
cores = [1]

[ports.sample]
kind = "pcap"
path = "sample.pcapng"
pace = { pps = 1000 }
loops = 0

[ports.slow]
kind = "pcap"
path = "sample.pcapng"
speed = 0.5

[ports.lc0]
kind = "tap"
name = "lc0"
netns = "ids"
mtu = 9000
wait_for_consumer = "5s"
passive = true
gso = true

[ports.packets]
kind = "tap"
type = "tun"
name = "tun0"

[ports.record]
kind = "pcap"
path = "record-%Y%m%d-%H%M%S.pcapng"
max_frame = 9000
rotate = { size = "100MB", time = "60s", frames = 1000000 }
keep = 10
compress = "zstd"

[ports.far]
kind = "vxlan"
vni = 42
remote = "198.51.100.1"
port = 4790
local = "198.51.100.2"
ttl = 16
dscp = 46
dont_fragment = true
source_ports = 8
mtu = 1400
checksums = "trust"
netns = "ids"

[ports.beside]
kind = "af_packet"
interface = "eth1"
netns = "ids"
promiscuous = true
direction = "in"
checksums = "trust"
mtu = 65521
buffer = "8MiB"

[policies.web]
mode = "filtered"
profile = "network"
on_violation = "drop"
arp = true
allow = [
  { proto = "tcp", to = "10.0.0.0/8", ports = "80,443,8000-8100", replies = true },
  { proto = "udp", from = "10.1.0.0/16", from_ports = "1024-65535", to = "203.0.113.50", ports = "51820" },
  { proto = "icmp", icmp = "echo", to = "10.0.0.0/8", replies = true },
  { from = "2001:db8::/32" },
]

[policies.open]
mode = "direct"

[[pipelines]]
from = ["uplink", "sample"]
policy = "web"
to = ["lc0"]

[[pipelines]]
from = ["slow"]
policy = "open"
to = ["lc0", "record"]
"#;

/// Reads a text and plans it on a machine.
fn plan(text: &str, cores: &str, machine: &FakeMachine) -> Result<Plan, Vec<ConfigError>> {
    let config = parse(text, "dp.toml")?;
    let overrides = Overrides {
        cores: (!cores.is_empty()).then(|| cores.parse().expect("a list of cores")),
    };
    Plan::new(&config, &overrides, machine)
}

fn parsed(text: &str) -> Config {
    parse(text, "dp.toml").unwrap_or_else(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        panic!("{}", lines.join("\n"))
    })
}
