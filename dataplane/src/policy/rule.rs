//! A rule as a person writes it, and what makes one wrong. A rule says what is allowed; a field left
//! out means any, of both IP families. How a rule is spelled is in `text.rs`.

use ipnet::IpNet;

/// The protocols that a rule can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP over IPv4 and IPv6.
    Tcp,
    /// UDP over IPv4 and IPv6.
    Udp,
    /// ICMP over IPv4 and ICMPv6 over IPv6.
    Icmp,
}

/// Which ICMP messages a rule means, of both IP families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IcmpKind {
    /// Echo request.
    Echo,
    /// Echo reply.
    EchoReply,
    /// Destination unreachable; for IPv6 also packet too big.
    Unreachable,
    /// Time exceeded.
    TimeExceeded,
}

/// An inclusive range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port, at least `first`.
    pub last: u16,
}

/// One line of an allowlist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// TCP, UDP or ICMP; `None` is any of the three.
    pub protocol: Option<Protocol>,
    /// Source network; `None` is any address of either family.
    pub from: Option<IpNet>,
    /// Source ports, of TCP and UDP; empty is any.
    pub from_ports: Vec<PortRange>,
    /// Destination network; `None` is any address of either family.
    pub to: Option<IpNet>,
    /// Destination ports, of TCP and UDP; empty is any.
    pub to_ports: Vec<PortRange>,
    /// ICMP messages; `None` is any.
    pub icmp: Option<IcmpKind>,
    /// Also allow the mirrored frame: TCP only with ACK or RST, of echo only the reply.
    pub replies: bool,
}

/// What is wrong with a rule, or with the text of one of its fields.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A protocol that rules do not know.
    #[error("unknown protocol {0:?}; write \"tcp\", \"udp\" or \"icmp\"")]
    UnknownProtocol(String),
    /// An ICMP message that rules do not know.
    #[error(
        "unknown ICMP message {0:?}; write \"echo\", \"echo-reply\", \"unreachable\" or \"time-exceeded\""
    )]
    UnknownIcmp(String),
    /// Not an address and not a network.
    #[error(
        "{0:?} is no network; write an address or a prefix, such as \"10.0.0.0/8\" or \"2001:db8::1\""
    )]
    BadNetwork(String),
    /// A network with bits set behind its prefix.
    #[error("{given} has bits set behind its prefix; write {meant} for the network, or {host} for the one host",
            meant = given.trunc(), host = given.addr())]
    HostBits {
        /// The network as it was given.
        given: IpNet,
    },
    /// Not a list of ports.
    #[error("{0:?} is no port list; write ports and ranges such as \"80,443,8000-8100\"")]
    BadPorts(String),
    /// A range that ends before it begins.
    #[error("the port range {first}-{last} ends before it begins; write {last}-{first}")]
    Backwards {
        /// The port before the dash.
        first: u16,
        /// The port behind it.
        last: u16,
    },
    /// Port 0, which is reserved (RFC 6335, section 6).
    #[error("port 0 is reserved; begin at 1, or leave the ports out for any")]
    PortZero,
    /// An ICMP message without `proto = "icmp"`.
    #[error("`icmp` needs proto = \"icmp\"; set it, or leave `icmp` out")]
    IcmpWithoutProtocol,
    /// Ports in a rule about ICMP.
    #[error(
        "ICMP has no ports; leave `ports` and `from_ports` out, or set proto to \"tcp\" or \"udp\""
    )]
    PortsWithIcmp,
    /// `from` and `to` of two IP families: no frame has such addresses.
    #[error(
        "no frame goes from {from} to {to}: one is IPv4, the other IPv6; write one rule for each family"
    )]
    MixedFamilies {
        /// The rule's source.
        from: IpNet,
        /// The rule's destination.
        to: IpNet,
    },
    /// `replies` for an ICMP message that nobody replies to.
    #[error(
        "nothing replies to an ICMP {}; leave `replies` out, or set icmp to \"echo\"", .0.name()
    )]
    NoReplies(IcmpKind),
}

impl Rule {
    /// Checks what a rule's fields say together.
    ///
    /// # Errors
    ///
    /// The first contradiction, in the order `icmp`, ports, networks, `replies`.
    pub fn check(&self) -> Result<(), RuleError> {
        let icmp = self.protocol == Some(Protocol::Icmp);
        if self.icmp.is_some() && !icmp {
            return Err(RuleError::IcmpWithoutProtocol);
        }
        if icmp && !(self.from_ports.is_empty() && self.to_ports.is_empty()) {
            return Err(RuleError::PortsWithIcmp);
        }
        for range in self.from_ports.iter().chain(&self.to_ports) {
            range.check()?;
        }
        for &given in self.from.iter().chain(&self.to) {
            if given.addr() != given.network() {
                return Err(RuleError::HostBits { given });
            }
        }
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from.addr().is_ipv4() != to.addr().is_ipv4()
        {
            return Err(RuleError::MixedFamilies { from, to });
        }
        match self.icmp {
            Some(kind) if self.replies && kind != IcmpKind::Echo => Err(RuleError::NoReplies(kind)),
            _ => Ok(()),
        }
    }
}

impl PortRange {
    /// The range of one port.
    pub const fn single(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// Whether the range holds `port`.
    #[inline]
    pub const fn contains(self, port: u16) -> bool {
        port.wrapping_sub(self.first) <= self.last.wrapping_sub(self.first)
    }

    /// Checks that the range begins above 0 and does not end before it begins.
    pub(super) fn check(self) -> Result<(), RuleError> {
        if self.first > self.last {
            return Err(RuleError::Backwards {
                first: self.first,
                last: self.last,
            });
        }
        if self.first == 0 {
            return Err(RuleError::PortZero);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(change: impl FnOnce(&mut Rule)) -> Rule {
        let mut rule = Rule::default();
        change(&mut rule);
        rule
    }

    fn net(text: &str) -> Option<IpNet> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn contradictions_are_named_with_their_remedy() {
        use Protocol::{Icmp, Tcp};
        let range = |first, last| vec![PortRange { first, last }];
        let cases = [
            (
                rule(|r| r.icmp = Some(IcmpKind::Echo)),
                "`icmp` needs proto = \"icmp\"; set it, or leave `icmp` out",
            ),
            (
                rule(|r| {
                    r.protocol = Some(Tcp);
                    r.icmp = Some(IcmpKind::Echo);
                }),
                "`icmp` needs proto = \"icmp\"; set it, or leave `icmp` out",
            ),
            (
                rule(|r| {
                    r.protocol = Some(Icmp);
                    r.to_ports = range(80, 80);
                }),
                "ICMP has no ports; leave `ports` and `from_ports` out, or set proto to \"tcp\" or \"udp\"",
            ),
            (
                rule(|r| {
                    r.protocol = Some(Icmp);
                    r.from_ports = range(80, 80);
                }),
                "ICMP has no ports; leave `ports` and `from_ports` out, or set proto to \"tcp\" or \"udp\"",
            ),
            (
                rule(|r| r.to_ports = range(90, 80)),
                "the port range 90-80 ends before it begins; write 80-90",
            ),
            (
                rule(|r| r.from_ports = range(0, 80)),
                "port 0 is reserved; begin at 1, or leave the ports out for any",
            ),
            (
                rule(|r| r.to = net("10.0.0.1/8")),
                "10.0.0.1/8 has bits set behind its prefix; write 10.0.0.0/8 for the network, or 10.0.0.1 for the one host",
            ),
            (
                rule(|r| r.from = net("2001:db8::1/32")),
                "2001:db8::1/32 has bits set behind its prefix; write 2001:db8::/32 for the network, or 2001:db8::1 for the one host",
            ),
            (
                rule(|r| {
                    r.from = net("10.0.0.0/8");
                    r.to = net("2001:db8::/32");
                }),
                "no frame goes from 10.0.0.0/8 to 2001:db8::/32: one is IPv4, the other IPv6; write one rule for each family",
            ),
            (
                rule(|r| {
                    r.protocol = Some(Icmp);
                    r.icmp = Some(IcmpKind::TimeExceeded);
                    r.replies = true;
                }),
                "nothing replies to an ICMP time-exceeded; leave `replies` out, or set icmp to \"echo\"",
            ),
        ];
        for (rule, message) in cases {
            assert_eq!(rule.check().unwrap_err().to_string(), message, "{rule:?}");
        }
    }

    #[test]
    fn sound_rules_pass() {
        let cases = [
            Rule::default(),
            rule(|r| r.replies = true),
            rule(|r| {
                r.protocol = Some(Protocol::Icmp);
                r.replies = true;
            }),
            rule(|r| {
                r.protocol = Some(Protocol::Icmp);
                r.icmp = Some(IcmpKind::Echo);
                r.replies = true;
            }),
            rule(|r| {
                r.to = net("0.0.0.0/0");
                r.from = net("10.0.0.1/32");
                r.to_ports = vec![PortRange {
                    first: 1,
                    last: u16::MAX,
                }];
            }),
        ];
        for rule in cases {
            assert_eq!(rule.check(), Ok(()), "{rule:?}");
        }
    }

    #[test]
    fn a_range_holds_its_ends_and_what_is_between() {
        for (first, last) in [(1, 1), (1, 65535), (80, 90), (65535, 65535), (0, 65535)] {
            let range = PortRange { first, last };
            for port in 0..=u16::MAX {
                assert_eq!(range.contains(port), first <= port && port <= last);
            }
        }
    }
}
