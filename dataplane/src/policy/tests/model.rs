//! The rules as the configuration promises them, read one by one. Knows nothing of how they are compiled.

use ipnet::IpNet;

use crate::packet::{Headers, Network, protocol, tcp_flags};
use crate::policy::{IcmpKind, PortRange, Protocol, Rule};

pub(super) fn allows(rules: &[Rule], frame: &Headers) -> bool {
    rules
        .iter()
        .any(|rule| forward(rule, frame) || rule.replies && mirrored(rule, frame))
}

fn holds(network: Option<IpNet>, address: u128, family: Network) -> bool {
    network.is_none_or(|network| match (network, family) {
        (IpNet::V4(network), Network::V4) => {
            network.contains(&std::net::Ipv4Addr::from_bits(address as u32))
        }
        (IpNet::V6(network), Network::V6) => {
            network.contains(&std::net::Ipv6Addr::from_bits(address))
        }
        _ => false,
    })
}

fn any_of(ports: &[PortRange], port: u16) -> bool {
    ports.is_empty()
        || ports
            .iter()
            .any(|range| range.first <= port && port <= range.last)
}

fn protocol_of(frame: &Headers) -> Protocol {
    match frame.protocol {
        protocol::TCP => Protocol::Tcp,
        protocol::UDP => Protocol::Udp,
        _ => Protocol::Icmp,
    }
}

fn kind_of(frame: &Headers) -> Option<IcmpKind> {
    match (frame.network, frame.icmp_type) {
        (Network::V4, 8) | (Network::V6, 128) => Some(IcmpKind::Echo),
        (Network::V4, 0) | (Network::V6, 129) => Some(IcmpKind::EchoReply),
        (Network::V4, 3) | (Network::V6, 1 | 2) => Some(IcmpKind::Unreachable),
        (Network::V4, 11) | (Network::V6, 3) => Some(IcmpKind::TimeExceeded),
        _ => None,
    }
}

fn forward(rule: &Rule, frame: &Headers) -> bool {
    let protocol = protocol_of(frame);
    rule.protocol.is_none_or(|named| named == protocol)
        && holds(rule.from, frame.src, frame.network)
        && holds(rule.to, frame.dst, frame.network)
        && match protocol {
            Protocol::Icmp => {
                rule.from_ports.is_empty()
                    && rule.to_ports.is_empty()
                    && (rule.icmp.is_none() || rule.icmp == kind_of(frame))
            }
            _ => any_of(&rule.from_ports, frame.src_port) && any_of(&rule.to_ports, frame.dst_port),
        }
}

fn mirrored(rule: &Rule, frame: &Headers) -> bool {
    let turned = Headers {
        src: frame.dst,
        dst: frame.src,
        src_port: frame.dst_port,
        dst_port: frame.src_port,
        ..*frame
    };
    match protocol_of(frame) {
        Protocol::Tcp => {
            forward(rule, &turned) && frame.tcp_flags & (tcp_flags::ACK | tcp_flags::RST) != 0
        }
        Protocol::Udp => forward(rule, &turned),
        // The frame is the reply to an echo that the rule admits.
        Protocol::Icmp => {
            kind_of(frame) == Some(IcmpKind::EchoReply)
                && forward(
                    rule,
                    &Headers {
                        icmp_type: if frame.network == Network::V4 { 8 } else { 128 },
                        ..turned
                    },
                )
        }
    }
}
