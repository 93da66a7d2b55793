//! Parts of dp.toml that benchmarks share.

use crate::generator::frame;

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
