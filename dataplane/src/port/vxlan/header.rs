//! The VXLAN header: RFC 7348, section 5. Eight bytes: flags (8 bits, of which only I may be set), 24
//! reserved bits, the VNI (24 bits), 8 reserved bits.
//!
//! Reserved bits are sent as zero. Where RFC 7348 says that a receiver ignores them, we drop a datagram that
//! has one set, as the kernel does (drivers/net/vxlan/vxlan_core.c, `vxlan_rcv`): they belong to
//! extensions (GBP, GPE, remote checksum) that give the bytes behind them another meaning.

use crate::policy::Reason;

/// Bytes of the header.
pub(super) const LEN: usize = 8;

/// The I flag: the VNI is valid.
const VNI_IS_VALID: u8 = 0x08;

/// VXLAN network identifiers have so many bits.
pub const VNI_BITS: u32 = 24;

/// The header of every datagram to a network.
pub(super) const fn encode(vni: u32) -> [u8; LEN] {
    let [_, a, b, c] = vni.to_be_bytes();
    [VNI_IS_VALID, 0, 0, 0, a, b, c, 0]
}

/// The network that a datagram belongs to, which has at least the header; why it has none otherwise.
#[inline]
pub const fn decode(header: [u8; LEN]) -> Result<u32, Reason> {
    match header {
        [VNI_IS_VALID, 0, 0, 0, a, b, c, 0] => Ok(u32::from_be_bytes([0, a, b, c])),
        _ => Err(Reason::VxlanHeader),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_figure_of_the_rfc() {
        assert_eq!(encode(0), [8, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(encode(42), [8, 0, 0, 0, 0, 0, 42, 0]);
        assert_eq!(encode(0x12_3456), [8, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
        assert_eq!(encode(0xff_ffff), [8, 0, 0, 0, 0xff, 0xff, 0xff, 0]);
    }

    proptest! {
        #[test]
        fn a_network_survives(vni in 0u32..1 << VNI_BITS) {
            prop_assert_eq!(decode(encode(vni)), Ok(vni));
        }

        #[test]
        fn one_bit_more_or_less_is_no_header(vni in 0u32..1 << VNI_BITS, bit in 0usize..64) {
            let mut header = encode(vni);
            header[bit / 8] ^= 0x80 >> (bit % 8);
            let expected = match bit {
                32..=55 => Ok(vni ^ 1 << (55 - bit)),
                _ => Err(Reason::VxlanHeader),
            };
            prop_assert_eq!(decode(header), expected);
        }

        #[test]
        fn what_is_decoded_is_what_would_be_encoded(header: [u8; LEN]) {
            if let Ok(vni) = decode(header) {
                prop_assert_eq!(encode(vni), header);
            }
        }
    }
}
