//! Whether a frame's IP header says more of its addresses than their fields do: then its transport
//! checksum is computed over addresses that the verdict does not see.

use super::headers::{Headers, Network, protocol};
use super::parse::is_extension;

/// IPv4 loose and strict source routes (RFC 791, section 3.1).
const SOURCE_ROUTES: [u8; 2] = [131, 137];
/// The home address of a mobile node, among IPv6 destination options (RFC 6275, section 6.3).
const HOME_ADDRESS: u8 = 201;

/// Whether options or extension headers hold an address that stands in the pseudo header instead of
/// the IP header's. `headers` are those of `frame`, without a fault. When in doubt, yes.
#[cold]
#[inline(never)]
pub(super) fn carries_other_address(frame: &[u8], headers: &Headers) -> bool {
    let (start, end) = (
        usize::from(headers.network_offset),
        usize::from(headers.transport_offset),
    );
    let Some(chain) = frame.get(start..end) else {
        return true;
    };
    match headers.network {
        Network::V4 => match chain.first() {
            Some(first) => chain
                .get(20..usize::from(first & 0x0f) * 4)
                .is_none_or(|options| any_option(options, 1, &SOURCE_ROUTES)),
            None => true,
        },
        Network::V6 => v6_chain(chain),
        Network::Arp | Network::Other => true,
    }
}

/// `chain` is the IPv6 header and all extension headers.
fn v6_chain(chain: &[u8]) -> bool {
    let Some((header, mut rest)) = chain.split_first_chunk::<40>() else {
        return true;
    };
    let mut next = header[6];
    while is_extension(next) {
        let Some(header) = rest.first_chunk::<8>() else {
            return true;
        };
        let length = match next {
            protocol::FRAGMENT => 8,
            protocol::AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        let Some((extension, behind)) = rest.split_at_checked(length) else {
            return true;
        };
        let other = match next {
            // Segments left: 0 means that the destination is the last one (RFC 8200, section 4.4).
            protocol::ROUTING => header[3] != 0,
            protocol::DESTINATION_OPTIONS => any_option(&extension[2..], 0, &[HOME_ADDRESS]),
            _ => false,
        };
        if other {
            return true;
        }
        next = header[0];
        rest = behind;
    }
    false
}

/// Whether one of `wanted` is among the type-length-value `options`, or they are malformed. The one-byte
/// option (padding) has the type `single`; for IPv4 the length counts type and length too, and type 0 is the end.
fn any_option(mut options: &[u8], single: u8, wanted: &[u8]) -> bool {
    let v4 = single == 1;
    while let [kind, rest @ ..] = options {
        if *kind == single {
            options = rest;
            continue;
        }
        if v4 && *kind == 0 {
            return false;
        }
        let length = match rest.first() {
            Some(length) if v4 => usize::from(*length).max(2),
            Some(length) => usize::from(*length) + 2,
            None => return true,
        };
        if wanted.contains(kind) {
            return true;
        }
        match options.get(length..) {
            Some(behind) => options = behind,
            None => return true,
        }
    }
    false
}
