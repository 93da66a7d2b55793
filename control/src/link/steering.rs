//! How an interface spreads the flows that arrive over its queues: RSS (a hash of some fields, looked up in an
//! indirection table) and ntuple rules, as far as its driver tells (include/uapi/linux/ethtool.h).

use super::ethtool::Ethtool;

/// Commands, flow types and bits of include/uapi/linux/ethtool.h.
const GRXFH: u32 = 0x29;
const GRXCLSRLCNT: u32 = 0x2e;
const GRXFHINDIR: u32 = 0x38;
const TCP_V4_FLOW: u32 = 0x01;
const UDP_V4_FLOW: u32 = 0x02;
const RXH_ADDRESSES: u32 = 1 << 4 | 1 << 5;
const RXH_PORTS: u32 = 1 << 6 | 1 << 7;
/// 32-bit words of `struct ethtool_rxnfc`, and the place of `rule_cnt` in it.
const RXNFC_WORDS: usize = 48;
const RULE_CNT: usize = 46;
/// More entries than any card has; a larger answer is not believed.
const TABLE_MAX: u32 = 65_536;

/// What of a packet decides its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hashed {
    /// Both addresses: all flows between two hosts share a queue.
    Addresses,
    /// Addresses and ports.
    AddressesAndPorts,
    /// Anything else, such as nothing.
    Other,
}

/// What a driver tells of its steering. What it does not tell is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// The indirection table: a queue for each of its entries.
    pub table: Vec<u32>,
    /// What is hashed of TCP over IPv4.
    pub tcp: Option<Hashed>,
    /// What is hashed of UDP over IPv4.
    pub udp: Option<Hashed>,
    /// How many ntuple rules there are, which go before the table.
    pub rules: u32,
}

impl Ethtool {
    /// How flows are spread. Needs no privilege.
    pub fn steering(&self, interface: &str) -> Steering {
        let what = "read the steering";
        let hashed = |flow| {
            let mut command = [0; RXNFC_WORDS];
            (command[0], command[1]) = (GRXFH, flow);
            self.ioctl(interface, what, &mut command).ok()?;
            Some(hashed(command[2]))
        };
        let mut rules = [0; RXNFC_WORDS];
        rules[0] = GRXCLSRLCNT;
        let counted = self.ioctl(interface, what, &mut rules).is_ok();
        Steering {
            table: self.table(interface).unwrap_or_default(),
            tcp: hashed(TCP_V4_FLOW),
            udp: hashed(UDP_V4_FLOW),
            rules: if counted { rules[RULE_CNT] } else { 0 },
        }
    }

    fn table(&self, interface: &str) -> Option<Vec<u32>> {
        let what = "read the indirection table";
        // struct ethtool_rxfh_indir: cmd, size, then the entries; without room it answers the size alone.
        let mut size = [GRXFHINDIR, 0];
        self.ioctl(interface, what, &mut size).ok()?;
        let entries = size[1].min(TABLE_MAX);
        let mut command = vec![0; 2 + entries as usize];
        (command[0], command[1]) = (GRXFHINDIR, entries);
        self.ioctl(interface, what, &mut command).ok()?;
        Some(command.split_off(2))
    }
}

fn hashed(fields: u32) -> Hashed {
    match fields {
        RXH_ADDRESSES => Hashed::Addresses,
        f if f == RXH_ADDRESSES | RXH_PORTS => Hashed::AddressesAndPorts,
        _ => Hashed::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::NetNs;

    #[test]
    fn fields_have_names() {
        for (fields, expected) in [
            (0x30, Hashed::Addresses),
            (0xf0, Hashed::AddressesAndPorts),
            (0, Hashed::Other),
            (0x10, Hashed::Other),
            (0xf2, Hashed::Other),
        ] {
            assert_eq!(hashed(fields), expected, "{fields:#x}");
        }
    }

    #[test]
    fn what_no_driver_tells_is_empty() {
        let ethtool = Ethtool::open(&NetNs::own()).expect("a socket");
        for name in ["lo", "no-such-link-0"] {
            assert_eq!(ethtool.steering(name), Steering::default(), "{name}");
        }
    }
}
