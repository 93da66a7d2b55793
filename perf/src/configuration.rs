//! Parts of dp.toml that benchmarks share.

use crate::{generator::frame, lab::UPLINK, session::HugePages};

/// Frames that come to [`UPLINK`], judged by the policy `bench`, which is given, go to the TAP `lc0`. `idle` is a
/// worker's way to wait; none is the default.
pub fn uplink_to_lc0(
    worker: usize,
    hugepages: HugePages,
    idle: Option<&str>,
    policy: &str,
) -> String {
    let idle = idle.map_or(String::new(), |idle| format!("idle = \"{idle}\"\n"));
    format!(
        r#"[engine]
cores = "{worker}"
hugepages = "{hugepages}"
{idle}
[ports.uplink]
kind = "af_xdp"
interface = "{UPLINK}"

[ports.lc0]
kind = "tap"
name = "lc0"

{policy}
[[pipelines]]
from = ["uplink"]
policy = "bench"
to = ["lc0"]
"#
    )
}

/// The policy `bench` of ten rules, of which the last admits the generator's frames.
pub fn ten_rules() -> String {
    let generators = format!(
        r#"proto = "udp", from = "{}", to = "{}", ports = "{}""#,
        frame::FROM,
        frame::TO,
        frame::TO_PORT,
    );
    ten_rules_and(&generators)
}

/// The policy `bench` of nine rules, followed by these.
pub fn ten_rules_and(last: &str) -> String {
    format!(
        r#"[policies.bench]
mode = "filtered"
allow = [
  {{ proto = "tcp", to = "10.0.0.0/8", ports = "80,443,8000-8100", replies = true }},
  {{ proto = "tcp", to = "10.0.0.0/8", ports = "22", replies = true }},
  {{ proto = "tcp", from = "10.1.0.0/16", to = "10.2.0.10", ports = "5432", replies = true }},
  {{ proto = "tcp", from = "10.1.0.0/16", to = "10.2.0.11", ports = "6379", replies = true }},
  {{ proto = "udp", to = "10.0.0.53", ports = "53", replies = true }},
  {{ proto = "udp", to = "10.0.0.123", ports = "123", replies = true }},
  {{ proto = "udp", from = "10.1.0.0/16", to = "203.0.113.50", ports = "51820" }},
  {{ proto = "udp", to = "192.0.2.0/24", ports = "4000-5000" }},
  {{ proto = "icmp", icmp = "echo", to = "10.0.0.0/8", replies = true }},
  {{ {last} }},
]
"#
    )
}
