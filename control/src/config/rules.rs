//! Rules between the words of a file and the policy's own type: `{ proto = "tcp", to = "10.0.0.0/8" }`.

use dataplane::policy::{IcmpKind, PortRange, Protocol, Rule, RuleError, parse_network};
use ipnet::IpNet;
use serde::Serialize;

use super::{reader::Reader, value::Value};

/// Reads one rule, and refuses what could never match.
pub(crate) fn read(mut table: Reader<'_, '_>) -> Option<Rule> {
    let protocols = Protocol::ALL.map(|protocol| (protocol.name(), protocol));
    let kinds = IcmpKind::ALL.map(|kind| (kind.name(), kind));
    let rule = Rule {
        protocol: table.take("proto", |v| v.choice(&protocols, &[])),
        from: table.take("from", network),
        from_ports: table.take("from_ports", ports).unwrap_or_default(),
        to: table.take("to", network),
        to_ports: table.take("ports", ports).unwrap_or_default(),
        icmp: table.take("icmp", |v| v.choice(&kinds, &[])),
        replies: table.take("replies", |v| v.boolean()).unwrap_or(false),
    };
    // A field that was refused is missing here, which would be a second error about the same mistake.
    let sound = table.all_sound();
    table.finish();
    if let Err(error) = rule.check()
        && sound
    {
        table.error(error.to_string());
        return None;
    }
    Some(rule)
}

/// `"10.0.0.0/8"`, or one address, which is a network of its own.
fn network(value: Value<'_, '_>) -> Option<IpNet> {
    read_text(&value, parse_network)
}

/// `"80,443,8000-8100"`.
fn ports(value: Value<'_, '_>) -> Option<Vec<PortRange>> {
    read_text(&value, PortRange::parse_list)
}

fn read_text<T>(
    value: &Value<'_, '_>,
    read: impl FnOnce(&str) -> Result<T, RuleError>,
) -> Option<T> {
    read(value.string()?)
        .map_err(|error| value.fault(error))
        .ok()
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
            proto: rule.protocol.map(Protocol::name),
            from: rule.from.map(|network| network.to_string()),
            from_ports: ranges(&rule.from_ports),
            to: rule.to.map(|network| network.to_string()),
            ports: ranges(&rule.to_ports),
            icmp: rule.icmp.map(IcmpKind::name),
            replies: rule.replies,
        }
    }
}

fn ranges(ranges: &[PortRange]) -> Option<String> {
    let parts: Vec<String> = ranges.iter().map(PortRange::to_string).collect();
    (!parts.is_empty()).then(|| parts.join(","))
}
