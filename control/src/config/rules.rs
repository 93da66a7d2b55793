//! Rules between the words of a file and the policy's own type: `{ proto = "tcp", to = "10.0.0.0/8" }`.

use std::net::IpAddr;

use dataplane::policy::{IcmpKind, PortRange, Protocol, Rule};
use ipnet::IpNet;
use serde::Serialize;

use super::reader::{Reader, Value};

const PROTOCOLS: &[(&str, Protocol)] = &[
    ("tcp", Protocol::Tcp),
    ("udp", Protocol::Udp),
    ("icmp", Protocol::Icmp),
];

const ICMP: &[(&str, IcmpKind)] = &[
    ("echo", IcmpKind::Echo),
    ("echo-reply", IcmpKind::EchoReply),
    ("unreachable", IcmpKind::Unreachable),
    ("time-exceeded", IcmpKind::TimeExceeded),
];

/// Reads one rule, and refuses what could never match.
pub(crate) fn read(mut table: Reader<'_, '_>) -> Option<Rule> {
    let protocol = table.take("proto", |v| v.choice(PROTOCOLS, &[]));
    let from = table.take("from", network);
    let from_ports = table.take("from_ports", ports);
    let to = table.take("to", network);
    let to_ports = table.take("ports", ports);
    let icmp = table.take("icmp", |v| v.choice(ICMP, &[]));
    let replies = table.take("replies", |v| v.boolean());
    let numbered = from_ports.is_some() || to_ports.is_some();
    let mut possible = true;
    if numbered && (protocol == Some(Protocol::Icmp) || icmp.is_some()) {
        table.error("ICMP has no ports; leave ports and from_ports out");
        possible = false;
    }
    if icmp.is_some() && matches!(protocol, Some(Protocol::Tcp | Protocol::Udp)) {
        table.error("icmp goes with proto = \"icmp\" only");
        possible = false;
    }
    if let (Some(from), Some(to)) = (from, to)
        && from.addr().is_ipv4() != to.addr().is_ipv4()
    {
        table.error(format!(
            "from {from} and to {to} are of different IP families, so that no frame can match"
        ));
        possible = false;
    }
    table.finish();
    possible.then(|| Rule {
        protocol,
        from,
        from_ports: from_ports.unwrap_or_default(),
        to,
        to_ports: to_ports.unwrap_or_default(),
        icmp,
        replies: replies.unwrap_or(false),
    })
}

/// `"10.0.0.0/8"`, or one address, which is a network of its own.
fn network(value: Value<'_, '_>) -> Option<IpNet> {
    let text = value.string()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.into());
    }
    let Ok(network) = text.parse::<IpNet>() else {
        value.error(format!(
            "must be an address or a network such as \"10.0.0.0/8\", not {text:?}"
        ));
        return None;
    };
    if network.addr() != network.network() {
        value.error(format!(
            "{text:?} has bits set behind its prefix; write \"{}\", or \"{}\" for the one address",
            network.trunc(),
            network.addr()
        ));
        return None;
    }
    Some(network)
}

/// `"80,443,8000-8100"`.
fn ports(value: Value<'_, '_>) -> Option<Vec<PortRange>> {
    let text = value.string()?;
    let port = |text: &str| {
        let text = text.trim();
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse::<u16>().ok())
            .flatten()
    };
    let mut ranges = Vec::new();
    for part in text.split(',') {
        let range = match part.split_once('-') {
            Some((first, last)) => port(first).zip(port(last)),
            None => port(part).zip(port(part)),
        };
        match range {
            Some((first, last)) if first <= last => ranges.push(PortRange { first, last }),
            Some((first, last)) => {
                value.error(format!(
                    "has the range {first}-{last}, which runs backwards; write {last}-{first}"
                ));
                return None;
            }
            None => {
                value.error(format!(
                    "must be ports from 0 to 65535 such as \"80,443,8000-8100\", not {text:?}"
                ));
                return None;
            }
        }
    }
    Some(ranges)
}

/// A rule in the words of a file.
#[derive(Debug, Serialize)]
pub(crate) struct Text {
    #[serde(skip_serializing_if = "Option::is_none")]
    proto: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_ports: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replies: bool,
}

impl From<&Rule> for Text {
    fn from(rule: &Rule) -> Self {
        Self {
            proto: rule.protocol.and_then(|wanted| name(PROTOCOLS, wanted)),
            from: rule.from.map(|network| network.to_string()),
            from_ports: ranges(&rule.from_ports),
            to: rule.to.map(|network| network.to_string()),
            ports: ranges(&rule.to_ports),
            icmp: rule.icmp.and_then(|wanted| name(ICMP, wanted)),
            replies: rule.replies,
        }
    }
}

fn name<T: PartialEq>(names: &[(&'static str, T)], wanted: T) -> Option<&'static str> {
    names
        .iter()
        .find(|(_, value)| *value == wanted)
        .map(|(name, _)| *name)
}

fn ranges(ranges: &[PortRange]) -> Option<String> {
    let parts: Vec<String> = ranges
        .iter()
        .map(|range| match range {
            PortRange { first, last } if first == last => first.to_string(),
            PortRange { first, last } => format!("{first}-{last}"),
        })
        .collect();
    (!parts.is_empty()).then(|| parts.join(","))
}
