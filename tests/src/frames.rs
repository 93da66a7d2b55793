//! Frames for tests, built by the product's own builder, whose round trip the parser's tests prove.

use std::net::Ipv4Addr;

use dataplane::packet::build::{Arp, FrameBuilder, Ipv4, Tcp};

/// The client of all our conversations.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The server.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// A UDP frame from client to server whose payload begins with `number`, `length` bytes long in all.
pub fn udp(number: u32, dst_port: u16, length: usize) -> Vec<u8> {
    /// Ethernet, IPv4 and UDP.
    const HEADERS: usize = 14 + 20 + 8;
    let mut payload = number.to_be_bytes().to_vec();
    payload.extend((4..length.saturating_sub(HEADERS)).map(|at| at as u8));
    FrameBuilder::new()
        .ipv4(Ipv4::new(CLIENT, SERVER))
        .udp(40_000, dst_port)
        .payload(&payload)
        .to_vec()
        .expect("short enough")
}

/// A TCP segment without payload, from `from` to `to`.
pub fn tcp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: u8) -> Vec<u8> {
    FrameBuilder::new()
        .ipv4(Ipv4::new(from.0, to.0))
        .tcp(Tcp::new(from.1, to.1, flags))
        .pad_to(60)
        .to_vec()
        .expect("short enough")
}

/// An ARP request of the client for the server.
pub fn arp() -> Vec<u8> {
    FrameBuilder::new()
        .ethernet([2, 0, 0, 0, 0, 1], [0xff; 6])
        .arp(Arp {
            operation: 1,
            sender_mac: [2, 0, 0, 0, 0, 1],
            sender: CLIENT,
            target_mac: [0; 6],
            target: SERVER,
        })
        .pad_to(60)
        .to_vec()
        .expect("short enough")
}

/// `count` frames of many lengths, from the shortest of Ethernet to `longest`.
pub fn mixed(count: u32, longest: usize) -> Vec<Vec<u8>> {
    let span = longest - 60 + 1;
    (0..count)
        .map(|number| udp(number, 53, 60 + (number as usize * 197) % span))
        .collect()
}
