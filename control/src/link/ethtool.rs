//! A driver's name, queues and features, through the ethtool ioctl (include/uapi/linux/ethtool.h;
//! net/ethtool/ioctl.c, which also lists what is unprivileged: reading is).
//!
//! Features are bits whose places differ between kernels, so the kernel is asked for their names first.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::{
    NAME_MAX,
    netns::{NetNs, NetNsError, in_netns},
};

/// From include/uapi/linux/sockios.h; the libc crate has it for other systems only.
const SIOCETHTOOL: u32 = 0x8946;
/// Commands and string sets (include/uapi/linux/ethtool.h).
const GDRVINFO: u32 = 0x03;
const GSTRINGS: u32 = 0x1b;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const SFEATURES: u32 = 0x3b;
const GCHANNELS: u32 = 0x3c;
const SET_FEATURES: u32 = 4;
/// 32-bit words of `struct ethtool_drvinfo` and `struct ethtool_channels`.
const DRVINFO_WORDS: usize = 49;
const CHANNELS_WORDS: usize = 9;
/// ETH_GSTRING_LEN.
const STRING: usize = 32;
/// More features than any kernel has; a larger answer is not believed.
const FEATURES_MAX: usize = 1024;

mod request {
    nix::ioctl_readwrite_bad!(ethtool, super::SIOCETHTOOL, libc::ifreq);
}

/// Why a driver cannot be asked or changed.
#[derive(Debug, thiserror::Error)]
pub enum EthtoolError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// No socket to ask with.
    #[error(
        "{ns}: cannot open a socket to ask drivers with: {error}; check the limit on open files (ulimit -n)"
    )]
    Socket {
        /// The namespace.
        ns: NetNs,
        /// From socket(2).
        error: io::Error,
    },
    /// The ioctl failed.
    #[error("{ns}: cannot {what} of {interface}: {error}; {}", remedy(error))]
    Ioctl {
        /// The namespace.
        ns: NetNs,
        /// The interface.
        interface: String,
        /// What was tried.
        what: &'static str,
        /// From ioctl(2).
        error: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => {
            "this needs CAP_NET_ADMIN in that namespace: run as root, or set offloads = \"keep\""
        }
        Some(libc::ENODEV) => "the interface is gone: check ip link",
        _ => "see ethtool -k, or set offloads = \"keep\"",
    }
}

/// How a feature stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// It is on.
    pub active: bool,
    /// The user may change it.
    pub changeable: bool,
}

/// A socket to ask with, in one namespace; to be used from any thread.
#[derive(Debug)]
pub struct Ethtool {
    socket: OwnedFd,
    ns: NetNs,
}

impl Ethtool {
    /// Opens a socket in `ns`.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered or no socket be had.
    pub fn open(ns: &NetNs) -> Result<Self, EthtoolError> {
        let socket = in_netns(ns, || {
            socket(
                AddressFamily::Unix,
                SockType::Datagram,
                SockFlag::SOCK_CLOEXEC,
                None,
            )
        })?
        .map_err(|errno| EthtoolError::Socket {
            ns: ns.clone(),
            error: errno.into(),
        })?;
        Ok(Self {
            socket,
            ns: ns.clone(),
        })
    }

    /// The name of an interface's driver. Needs no privilege.
    ///
    /// # Errors
    ///
    /// When there is no such interface, or it has no driver.
    pub fn driver(&self, interface: &str) -> Result<String, EthtoolError> {
        // struct ethtool_drvinfo: cmd, then the driver's name in 32 bytes, then what is not asked for.
        let mut command = [0; DRVINFO_WORDS];
        command[0] = GDRVINFO;
        self.ioctl(interface, "read the driver", &mut command)?;
        Ok(text(&command[1..1 + STRING / 4]))
    }

    /// The active receive queues of an interface. Needs no privilege.
    ///
    /// # Errors
    ///
    /// When there is no such interface, or its driver does not count them.
    pub fn queues(&self, interface: &str) -> Result<u32, EthtoolError> {
        // struct ethtool_channels: cmd, four limits, then counts: rx, tx, other, combined.
        let mut command = [0; CHANNELS_WORDS];
        command[0] = GCHANNELS;
        self.ioctl(interface, "count the queues", &mut command)?;
        Ok(command[5].saturating_add(command[8]))
    }

    /// All features of an interface, by name. Needs no privilege.
    ///
    /// # Errors
    ///
    /// When there is no such interface.
    pub fn features(&self, interface: &str) -> Result<HashMap<String, Feature>, EthtoolError> {
        let names = self.names(interface)?;
        let blocks = names.len().div_ceil(32);
        // struct ethtool_gfeatures: cmd, size, then per block: available, requested, active, never_changed.
        let mut command = vec![0; 2 + 4 * blocks];
        command[0] = GFEATURES;
        command[1] = blocks as u32;
        self.ioctl(interface, "read the features", &mut command)?;
        let blocks = &command[2..];
        let bit = |feature: usize, word: usize| {
            blocks[feature / 32 * 4 + word] >> (feature % 32) & 1 == 1
        };
        Ok(names
            .into_iter()
            .enumerate()
            .filter(|(_, name)| !name.is_empty())
            .map(|(feature, name)| {
                let feature = Feature {
                    active: bit(feature, 2),
                    changeable: bit(feature, 0) && !bit(feature, 3),
                };
                (name, feature)
            })
            .collect())
    }

    /// Turns features on or off. Names that the kernel does not know are left out; what the driver does not
    /// let go stays as it is, which [`Ethtool::features`] shows.
    ///
    /// # Errors
    ///
    /// Without CAP_NET_ADMIN, and when the driver fails to change them.
    pub fn set(&self, interface: &str, features: &[&str], on: bool) -> Result<(), EthtoolError> {
        let names = self.names(interface)?;
        let blocks = names.len().div_ceil(32);
        // struct ethtool_sfeatures: cmd, size, then per block: valid, requested.
        let mut command = vec![0; 2 + 2 * blocks];
        command[0] = SFEATURES;
        command[1] = blocks as u32;
        for (feature, _) in names
            .iter()
            .enumerate()
            .filter(|(_, name)| features.contains(&name.as_str()))
        {
            let block = 2 + feature / 32 * 2;
            let bit = 1 << (feature % 32);
            command[block] |= bit;
            if on {
                command[block + 1] |= bit;
            }
        }
        self.ioctl(interface, "change the features", &mut command)
    }

    /// The names of the features, by bit; empty where a bit has none.
    fn names(&self, interface: &str) -> Result<Vec<String>, EthtoolError> {
        let what = "read the names of the features";
        // struct ethtool_sset_info: cmd, reserved, sset_mask (64 bits), then one length per set.
        let mut info = [GSSET_INFO, 0, 0, 0, 0];
        let mask = (1_u64 << SET_FEATURES).to_ne_bytes();
        info[2] = u32::from_ne_bytes([mask[0], mask[1], mask[2], mask[3]]);
        info[3] = u32::from_ne_bytes([mask[4], mask[5], mask[6], mask[7]]);
        self.ioctl(interface, what, &mut info)?;
        let count = (info[4] as usize).min(FEATURES_MAX);
        // struct ethtool_gstrings: cmd, string_set, len, then 32 bytes per string.
        let mut strings = vec![0; 3 + count * STRING / 4];
        strings[0] = GSTRINGS;
        strings[1] = SET_FEATURES;
        strings[2] = count as u32;
        self.ioctl(interface, what, &mut strings)?;
        Ok(strings[3..].chunks_exact(STRING / 4).map(text).collect())
    }

    /// `command` is the command's structure as 32-bit words: as long as the kernel's, or as its own length
    /// fields say.
    pub(super) fn ioctl(
        &self,
        interface: &str,
        what: &'static str,
        command: &mut [u32],
    ) -> Result<(), EthtoolError> {
        let failed = |error| EthtoolError::Ioctl {
            ns: self.ns.clone(),
            interface: interface.into(),
            what,
            error,
        };
        if interface.len() > NAME_MAX {
            // Cut short, it could be the name of another.
            return Err(failed(io::Error::from_raw_os_error(libc::ENODEV)));
        }
        let mut ifreq = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_data: command.as_mut_ptr().cast(),
            },
        };
        // The last byte stays zero.
        for (to, from) in ifreq.ifr_name.iter_mut().zip(interface.bytes()) {
            *to = from as libc::c_char;
        }
        // SAFETY: `ifreq` lives here, and its data points to a structure which is as long as the kernel's, or
        // whose length fields the callers have set to what the slice holds; the kernel keeps neither address.
        unsafe { request::ethtool(self.socket.as_raw_fd(), &raw mut ifreq) }
            .map(drop)
            .map_err(|errno| failed(errno.into()))
    }
}

/// A text that ends with a zero byte or the field, in words as the kernel wrote them.
fn text(words: &[u32]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_ne_bytes());
    let text: Vec<u8> = bytes.take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{
        netns::tests::in_new_netns,
        tap::{Tap, TapOptions},
    };

    #[test]
    fn the_loopbacks_features_have_names_and_states() {
        let ethtool = Ethtool::open(&NetNs::own()).unwrap();
        let features = ethtool.features("lo").unwrap();
        let loopback = features["loopback"];
        assert!(loopback.active && !loopback.changeable);
        assert!(!features["rx-lro"].active);
    }

    #[test]
    fn an_interface_that_is_not_there_has_neither_driver_nor_queues() {
        let ethtool = Ethtool::open(&NetNs::own()).unwrap();
        for name in ["no-such-link-0", "a-name-that-no-interface-can-have"] {
            assert!(ethtool.driver(name).is_err(), "{name}");
            assert!(ethtool.queues(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_driver_has_its_name_and_counts_its_queues() {
        in_new_netns(|| {
            let ns = NetNs::own();
            let _tap = Tap::create(&ns, &TapOptions::active("eth0")).unwrap();
            let ethtool = Ethtool::open(&ns).unwrap();
            assert_eq!(ethtool.driver("eth0").unwrap(), "tun");
            assert_eq!(ethtool.queues("eth0").unwrap(), 1);
            // The loopback counts none.
            assert!(ethtool.queues("lo").is_err());
        });
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let ethtool = Ethtool::open(&NetNs::own()).unwrap();
        let error = ethtool.features("no-such-if").unwrap_err().to_string();
        assert!(
            error.contains("no-such-if") && error.contains("check ip link"),
            "{error}"
        );
    }
}
