//! The frame that generators send: UDP over IPv4 with right lengths and checksums.

use std::{net::Ipv4Addr, ops::RangeInclusive};

use dataplane::packet::build::{FrameBuilder, Ipv4};

/// Where it comes from.
pub const FROM: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// Where it goes to.
pub const TO: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// The port that it comes from.
pub const FROM_PORT: u16 = 40_000;
/// The port that it goes to.
pub const TO_PORT: u16 = 5_201;

/// Where all flows come from, as a rule has it.
pub const FROM_NETWORK: &str = "10.9.0.0/16";

/// Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 14 + 20 + 8;
/// Where frames that carry the time at which they left have it.
pub const STAMP: usize = HEADERS;
/// Flows of one address.
const PORTS: u32 = 4096;

/// Where the flow number `n` comes from: a port of 4,096, then the next address, 10.9.0.1, 10.9.1.1 and so on.
pub fn flow(n: u32) -> (Ipv4Addr, u16) {
    let address = FROM.to_bits() + ((n / PORTS) << 8);
    (Ipv4Addr::from_bits(address), FROM_PORT + (n % PORTS) as u16)
}

/// Whether it is UDP over IPv4 without options and has all of the headers.
pub(super) fn is_udp(frame: &[u8]) -> bool {
    frame.len() >= HEADERS && frame[12..15] == [0x08, 0x00, 0x45] && frame[23] == 17
}

/// A frame of `size` bytes, from its Ethernet header on and without the check sequence that a wire adds.
/// Shorter than the headers it cannot be.
pub fn udp(size: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..size.saturating_sub(HEADERS)).map(|i| i as u8).collect();
    match FrameBuilder::new()
        .ipv4(Ipv4::new(FROM, TO))
        .udp(FROM_PORT, TO_PORT)
        .payload(&payload)
        .to_vec()
    {
        Ok(frame) => frame,
        Err(error) => panic!("a frame of {size} bytes: {error}"),
    }
}

/// The simple IMIX, without check sequences: seven frames of 60 bytes, four of 590, one of 1,514; in an order
/// that mixes them.
pub fn imix() -> Vec<Vec<u8>> {
    [60, 590, 60, 60, 590, 60, 1514, 60, 590, 60, 60, 590]
        .map(udp)
        .into()
}

/// Reads a frame's size from a command line.
///
/// # Errors
///
/// What sizes are possible, for any other.
pub fn size(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if range.contains(&size) => Ok(size),
        _ => Err(format!(
            "{} to {} bytes are possible",
            range.start(),
            range.end()
        )),
    }
}

#[cfg(test)]
mod tests {
    use dataplane::packet::parse;

    use super::*;

    #[test]
    fn a_frame_has_its_size_and_its_ports() {
        for size in [42, 60, 64, 512, 1500, 1514] {
            let frame = udp(size);
            assert_eq!(frame.len(), size);
            assert_eq!(parse(&frame).dst_port, TO_PORT);
        }
        assert_eq!(udp(0).len(), HEADERS);
        let bytes: usize = imix().iter().map(Vec::len).sum();
        assert_eq!((imix().len(), bytes), (12, 7 * 60 + 4 * 590 + 1514));
    }
}
