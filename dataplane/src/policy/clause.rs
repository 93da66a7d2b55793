//! The form of a rule that tables are built from: one protocol, one direction, nothing optional about
//! ICMP. A rule is one to three clauses, and as many more when it admits replies.

use ipnet::IpNet;

use super::ranges::Address;
use super::rule::{IcmpKind, PortRange, Protocol, Rule};
use crate::packet::{Headers, protocol, tcp_flags};

/// What the rules look at in a frame: its 5-tuple, with the ICMP message in the place of a port. Addresses
/// are as wide as their family's, so that a batch of IPv4 frames is few cache lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuple<A> {
    pub(super) src: A,
    pub(super) dst: A,
    pub(super) src_port: u16,
    /// For ICMP the message, as [`icmp_port`] numbers it.
    pub(super) dst_port: u16,
    pub(super) protocol: Protocol,
    /// Whether a mirrored rule may admit the frame: TCP with ACK or RST, any UDP and ICMP.
    pub(super) reply: bool,
}

impl<A: Address> Tuple<A> {
    /// A tuple to fill an array with.
    #[inline(always)]
    pub(super) fn blank() -> Self {
        Self {
            src: A::default(),
            dst: A::default(),
            src_port: 0,
            dst_port: 0,
            protocol: Protocol::Tcp,
            reply: false,
        }
    }

    /// The tuple of a frame of the family of `A`, `None` when its protocol is none that a rule can name.
    #[inline(always)]
    pub(super) fn of(headers: &Headers) -> Option<Self> {
        let tuple = Self {
            src: A::narrow(headers.src),
            dst: A::narrow(headers.dst),
            src_port: headers.src_port,
            dst_port: headers.dst_port,
            protocol: Protocol::Udp,
            reply: true,
        };
        match headers.protocol {
            protocol::TCP => Some(Self {
                protocol: Protocol::Tcp,
                reply: headers.tcp_flags & (tcp_flags::ACK | tcp_flags::RST) != 0,
                ..tuple
            }),
            protocol::UDP => Some(tuple),
            protocol::ICMP if !A::V6 => Some(tuple.icmp(icmp_port_v4(headers.icmp_type))),
            protocol::ICMPV6 if A::V6 => Some(tuple.icmp(icmp_port_v6(headers.icmp_type))),
            _ => None,
        }
    }

    fn icmp(self, port: u16) -> Self {
        Self {
            protocol: Protocol::Icmp,
            src_port: 0,
            dst_port: port,
            ..self
        }
    }
}

/// The number that stands for an ICMP message where TCP and UDP have their destination port.
const fn icmp_port(kind: IcmpKind) -> u16 {
    match kind {
        IcmpKind::Echo => 1,
        IcmpKind::EchoReply => 2,
        IcmpKind::Unreachable => 3,
        IcmpKind::TimeExceeded => 4,
    }
}

/// Messages that no rule can name: only "any ICMP" admits them.
const OTHER_ICMP: u16 = 5;

/// ICMP types by their message (RFC 792).
const fn icmp_port_v4(kind: u8) -> u16 {
    match kind {
        8 => icmp_port(IcmpKind::Echo),
        0 => icmp_port(IcmpKind::EchoReply),
        3 => icmp_port(IcmpKind::Unreachable),
        11 => icmp_port(IcmpKind::TimeExceeded),
        _ => OTHER_ICMP,
    }
}

/// ICMPv6 types by their message (RFC 4443); 2 is packet too big.
const fn icmp_port_v6(kind: u8) -> u16 {
    match kind {
        128 => icmp_port(IcmpKind::Echo),
        129 => icmp_port(IcmpKind::EchoReply),
        1 | 2 => icmp_port(IcmpKind::Unreachable),
        3 => icmp_port(IcmpKind::TimeExceeded),
        _ => OTHER_ICMP,
    }
}

const fn icmp_ports(kind: IcmpKind) -> &'static [PortRange] {
    macro_rules! of {
        ($kind:ident) => {
            const { &[PortRange::single(icmp_port(IcmpKind::$kind))] }
        };
    }
    match kind {
        IcmpKind::Echo => of!(Echo),
        IcmpKind::EchoReply => of!(EchoReply),
        IcmpKind::Unreachable => of!(Unreachable),
        IcmpKind::TimeExceeded => of!(TimeExceeded),
    }
}

/// A space of ports that a rule set keeps one list of ranges for: whose ports they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Space {
    /// TCP, by destination port.
    TcpTo = 0,
    /// UDP, by destination port.
    UdpTo = 1,
    /// ICMP, by message.
    Icmp = 2,
    /// TCP with ACK or RST, by source port: mirrored rules.
    TcpReply = 3,
    /// UDP, by source port.
    UdpFrom = 4,
}

impl Space {
    pub(super) const COUNT: usize = 5;

    /// The space of a protocol's destination ports.
    #[inline]
    pub(super) const fn to(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::TcpTo,
            Protocol::Udp => Self::UdpTo,
            Protocol::Icmp => Self::Icmp,
        }
    }

    /// The space of a protocol's source ports, where there is one.
    #[inline]
    pub(super) const fn from(protocol: Protocol) -> Option<Self> {
        match protocol {
            Protocol::Tcp => Some(Self::TcpReply),
            Protocol::Udp => Some(Self::UdpFrom),
            Protocol::Icmp => None,
        }
    }
}

/// One direction of a rule, for one protocol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clause<'a> {
    pub(super) protocol: Protocol,
    pub(super) from: Option<IpNet>,
    /// In any order, overlapping or not; empty is any.
    pub(super) from_ports: &'a [PortRange],
    pub(super) to: Option<IpNet>,
    /// As `from_ports`; for ICMP the messages.
    pub(super) to_ports: &'a [PortRange],
    /// A mirrored rule: TCP only with ACK or RST.
    pub(super) reply: bool,
}

impl<'a> Clause<'a> {
    /// The port space and the ranges in it, when they and the addresses are all that the clause asks.
    pub(super) fn space(&self) -> Option<(Space, &'a [PortRange])> {
        let to_only = self.from_ports.is_empty();
        let from_only = self.to_ports.is_empty();
        match (self.protocol, self.reply) {
            (Protocol::Icmp, _) => Some((Space::Icmp, self.to_ports)),
            (Protocol::Tcp, false) if to_only => Some((Space::TcpTo, self.to_ports)),
            (Protocol::Tcp, true) if from_only => Some((Space::TcpReply, self.from_ports)),
            (Protocol::Udp, _) if to_only => Some((Space::UdpTo, self.to_ports)),
            (Protocol::Udp, _) if from_only => Some((Space::UdpFrom, self.from_ports)),
            (Protocol::Tcp | Protocol::Udp, _) => None,
        }
    }
}

/// The clauses that a rule stands for. Their union is what it allows.
pub(super) fn clauses(rule: &Rule) -> impl Iterator<Item = Clause<'_>> {
    let has_ports = !(rule.from_ports.is_empty() && rule.to_ports.is_empty());
    Protocol::ALL
        .into_iter()
        .filter(move |&protocol| match rule.protocol {
            Some(named) => named == protocol,
            None => !(has_ports && protocol == Protocol::Icmp),
        })
        .flat_map(move |protocol| {
            let forward = Clause {
                protocol,
                from: rule.from,
                from_ports: &rule.from_ports,
                to: rule.to,
                to_ports: match rule.icmp {
                    Some(kind) => icmp_ports(kind),
                    None => &rule.to_ports,
                },
                reply: false,
            };
            let mirrored = rule.replies.then(|| Clause {
                protocol,
                from: rule.to,
                from_ports: &rule.to_ports,
                to: rule.from,
                to_ports: match protocol {
                    Protocol::Icmp => icmp_ports(IcmpKind::EchoReply),
                    Protocol::Tcp | Protocol::Udp => &rule.from_ports,
                },
                reply: true,
            });
            std::iter::once(forward).chain(mirrored)
        })
}
