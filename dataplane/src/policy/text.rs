//! How rules are spelled: the texts that a configuration and `dpctl` read, and the inline table
//! that a rule prints as. What reads and what prints here agree.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::rule::{IcmpKind, PortRange, Protocol, Rule, RuleError};

impl Protocol {
    /// Every protocol that a rule can name.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    /// The name in a rule.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }

    /// The protocol of a name.
    ///
    /// # Errors
    ///
    /// [`RuleError::UnknownProtocol`] with the names there are.
    pub fn parse(name: &str) -> Result<Self, RuleError> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.name() == name)
            .ok_or_else(|| RuleError::UnknownProtocol(name.to_owned()))
    }
}

impl IcmpKind {
    /// Every message that a rule can name.
    pub const ALL: [Self; 4] = [
        Self::Echo,
        Self::EchoReply,
        Self::Unreachable,
        Self::TimeExceeded,
    ];

    /// The name in a rule.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::EchoReply => "echo-reply",
            Self::Unreachable => "unreachable",
            Self::TimeExceeded => "time-exceeded",
        }
    }

    /// The message of a name.
    ///
    /// # Errors
    ///
    /// [`RuleError::UnknownIcmp`] with the names there are.
    pub fn parse(name: &str) -> Result<Self, RuleError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| RuleError::UnknownIcmp(name.to_owned()))
    }
}

impl PortRange {
    /// Reads a list such as `80,443,8000-8100`. Blanks around ports do not matter.
    ///
    /// # Errors
    ///
    /// [`RuleError::BadPorts`] for anything else, [`RuleError::Backwards`] and
    /// [`RuleError::PortZero`] for ranges that no frame can match.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, RuleError> {
        text.split(',')
            .map(|part| {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let range = Self {
                    first: port(first, text)?,
                    last: port(last, text)?,
                };
                range.check().map(|()| range)
            })
            .collect()
    }
}

/// One port, digits only (`str::parse` would take a sign).
fn port(digits: &str, list: &str) -> Result<u16, RuleError> {
    let digits = digits.trim();
    Some(digits)
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| RuleError::BadPorts(list.to_owned()))
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// Reads a network: a prefix such as `10.0.0.0/8`, or an address, which is the network of one host.
///
/// # Errors
///
/// [`RuleError::BadNetwork`] for anything else; [`RuleError::HostBits`], with the network that was
/// likely meant, when bits are set behind the prefix.
pub fn parse_network(text: &str) -> Result<IpNet, RuleError> {
    if let Ok(host) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(host));
    }
    let given: IpNet = text
        .parse()
        .map_err(|_| RuleError::BadNetwork(text.to_owned()))?;
    if given.addr() == given.network() {
        Ok(given)
    } else {
        Err(RuleError::HostBits { given })
    }
}

/// Prints the TOML inline table that the rule came from:
/// `{ proto = "tcp", to = "10.0.0.0/8", ports = "80,443", replies = true }`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = [
            ("proto", self.protocol.map(|p| quoted(p.name()))),
            ("icmp", self.icmp.map(|kind| quoted(kind.name()))),
            ("from", self.from.map(network)),
            ("from_ports", port_list(&self.from_ports)),
            ("to", self.to.map(network)),
            ("ports", port_list(&self.to_ports)),
            ("replies", self.replies.then(|| "true".to_owned())),
        ];
        let mut separator = "{ ";
        for (key, value) in fields {
            if let Some(value) = value {
                write!(f, "{separator}{key} = {value}")?;
                separator = ", ";
            }
        }
        f.write_str(if separator == "{ " { "{}" } else { " }" })
    }
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn network(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        quoted(&network.addr().to_string())
    } else {
        quoted(&network.to_string())
    }
}

fn port_list(ranges: &[PortRange]) -> Option<String> {
    if ranges.is_empty() {
        return None;
    }
    let ranges: Vec<_> = ranges.iter().map(PortRange::to_string).collect();
    Some(quoted(&ranges.join(",")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rule_prints_as_its_inline_table() {
        let cases = [
            (Rule::default(), "{}"),
            (
                Rule {
                    protocol: Some(Protocol::Tcp),
                    to: Some("10.0.0.0/8".parse().unwrap()),
                    to_ports: PortRange::parse_list("80,443").unwrap(),
                    replies: true,
                    ..Rule::default()
                },
                r#"{ proto = "tcp", to = "10.0.0.0/8", ports = "80,443", replies = true }"#,
            ),
            (
                Rule {
                    protocol: Some(Protocol::Udp),
                    from: Some(parse_network("10.1.0.0/16").unwrap()),
                    from_ports: PortRange::parse_list("1024-65535").unwrap(),
                    to: Some(parse_network("203.0.113.50").unwrap()),
                    to_ports: PortRange::parse_list("51820").unwrap(),
                    ..Rule::default()
                },
                r#"{ proto = "udp", from = "10.1.0.0/16", from_ports = "1024-65535", to = "203.0.113.50", ports = "51820" }"#,
            ),
            (
                Rule {
                    protocol: Some(Protocol::Icmp),
                    icmp: Some(IcmpKind::Echo),
                    to: Some(parse_network("2001:db8::/32").unwrap()),
                    replies: true,
                    ..Rule::default()
                },
                r#"{ proto = "icmp", icmp = "echo", to = "2001:db8::/32", replies = true }"#,
            ),
        ];
        for (rule, text) in cases {
            assert_eq!(rule.to_string(), text);
        }
    }

    #[test]
    fn bad_text_is_answered_with_the_text_and_the_remedy() {
        for text in [
            "", "80,,443", "80-", "-80", "+80", "65536", "http", "1-2-3", "8 0",
        ] {
            assert_eq!(
                PortRange::parse_list(text),
                Err(RuleError::BadPorts(text.to_owned()))
            );
        }
        assert_eq!(PortRange::parse_list("80,0"), Err(RuleError::PortZero));
        assert_eq!(
            PortRange::parse_list("9-8"),
            Err(RuleError::Backwards { first: 9, last: 8 })
        );
        for text in ["", "10.0.0", "10.0.0.0/33", "::/129", "host", "10.0.0.0/-1"] {
            assert_eq!(
                parse_network(text),
                Err(RuleError::BadNetwork(text.to_owned()))
            );
        }
        assert_eq!(
            parse_network("10.0.0.1/8").unwrap_err().to_string(),
            "10.0.0.1/8 has bits set behind its prefix; write 10.0.0.0/8 for the network, or 10.0.0.1 for the one host"
        );
        assert_eq!(
            Protocol::parse("TCP").unwrap_err().to_string(),
            "unknown protocol \"TCP\"; write \"tcp\", \"udp\" or \"icmp\""
        );
        assert_eq!(
            IcmpKind::parse("ping").unwrap_err(),
            RuleError::UnknownIcmp("ping".to_owned())
        );
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(
            ranges in prop::collection::vec((1u16.., 1u16..), 1..8),
            address: u128,
            four: bool,
            length in 0u8..=128,
        ) {
            let ranges: Vec<_> = ranges
                .into_iter()
                .map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) })
                .collect();
            let text = port_list(&ranges).unwrap();
            prop_assert_eq!(PortRange::parse_list(text.trim_matches('"')).unwrap(), ranges);

            let address: IpAddr = if four {
                std::net::Ipv4Addr::from(address as u32).into()
            } else {
                std::net::Ipv6Addr::from(address).into()
            };
            let length = if four { length % 33 } else { length };
            let net = IpNet::new(address, length).unwrap().trunc();
            prop_assert_eq!(parse_network(network(net).trim_matches('"')).unwrap(), net);

            for protocol in Protocol::ALL {
                prop_assert_eq!(Protocol::parse(protocol.name()).unwrap(), protocol);
            }
            for kind in IcmpKind::ALL {
                prop_assert_eq!(IcmpKind::parse(kind.name()).unwrap(), kind);
            }
        }
    }
}
