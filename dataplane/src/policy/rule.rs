//! A rule as a person writes it, with every field checked. A rule says what is allowed; a field left
//! out means any, of both IP families.

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
