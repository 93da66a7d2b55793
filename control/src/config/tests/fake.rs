//! A machine of invented facts.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use nix::libc;

use crate::{
    config::machine::{FileFact, Link, LookError, Machine, Peer, Way},
    kernel::foreign::ForeignProgram,
    link::steering::{Hashed, Steering},
};

/// The program that is attached by a bpf_link.
const LINKED: u32 = 18;

/// Four cores, two of them on each of two nodes; `eth0` and `eth1` with two queues, `one` with one, `rss4`, `rss2` and
/// `ruled` with a known way to spread flows, a veth pair `va`-`vb`, and what is wrong with the others stands in their names. Namespace `ids` holds
/// `veth1` and `busy0`; `secret` may not be looked into.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeMachine;

pub(crate) fn link(name: &str, index: u32, queues: u32) -> Link {
    Link {
        name: name.to_owned(),
        index,
        hardware: 1,
        up: true,
        mtu: 1500,
        driver: "ixgbe".to_owned(),
        queues,
        ..Link::default()
    }
}

/// An interface whose RSS has this table.
fn spread(name: &str, index: u32, queues: u32, table: &[u32], rules: u32) -> Link {
    Link {
        steering: Steering {
            table: table.to_vec(),
            tcp: Some(Hashed::AddressesAndPorts),
            udp: Some(Hashed::Addresses),
            rules,
        },
        ..link(name, index, queues)
    }
}

fn veth(name: &str, index: u32, peer: u32, netns: Option<i32>) -> Link {
    Link {
        driver: "veth".to_owned(),
        peer: Some(Peer { index: peer, netns }),
        ..link(name, index, 1)
    }
}

impl Machine for FakeMachine {
    fn cores(&self) -> Vec<usize> {
        vec![0, 1, 2, 3]
    }

    fn node(&self, core: usize) -> Option<usize> {
        Some(core / 2)
    }

    fn links(&self, netns: Option<&str>) -> Result<Vec<Link>, LookError> {
        match netns {
            None => Ok(vec![
                link("eth0", 2, 2),
                link("eth1", 3, 2),
                link("one", 4, 1),
                link("two", 14, 1),
                link("quad", 15, 4),
                spread("rss4", 18, 4, &[0, 1, 2, 3], 0),
                spread("rss2", 19, 4, &[0, 1, 0, 1], 0),
                spread("ruled", 20, 4, &[0, 1, 0, 1], 3),
                Link {
                    queues: 2,
                    ..veth("wide", 21, 22, Some(7))
                },
                veth("va", 5, 6, None),
                veth("vb", 6, 5, None),
                veth("vc", 13, 2, Some(7)),
                Link {
                    up: false,
                    ..link("down0", 7, 1)
                },
                Link {
                    addresses: vec!["192.0.2.1/24".to_owned()],
                    ..link("addr0", 8, 1)
                },
                Link {
                    addresses: vec!["192.0.2.2/24".to_owned()],
                    default_route: true,
                    ..link("gw0", 9, 1)
                },
                Link {
                    xdp: Some(17),
                    ..link("xdp0", 10, 1)
                },
                Link {
                    xdp: Some(LINKED),
                    ..link("xdp1", 16, 1)
                },
                Link {
                    mtu: 3000,
                    ..link("jumbo0", 11, 1)
                },
                Link {
                    driver: "igb".to_owned(),
                    ..link("igb0", 23, 1)
                },
                Link {
                    mtu: 65_536,
                    driver: "loopback".to_owned(),
                    addresses: vec!["127.0.0.1/8".to_owned()],
                    ..link("lo", 1, 1)
                },
                Link {
                    driver: "tun".to_owned(),
                    ..link("taken", 12, 1)
                },
                Link {
                    hardware: 512,
                    ..link("ppp0", 17, 1)
                },
                Link {
                    hardware: 772,
                    mtu: 65_536,
                    ..link("lo", 1, 1)
                },
            ]),
            Some("ids") => Ok(vec![veth("veth1", 2, 13, Some(0)), link("busy0", 3, 1)]),
            Some("secret") => Err(LookError::Privilege),
            Some(_) => Err(LookError::NoNamespace),
        }
    }

    fn namespaces(&self) -> Vec<String> {
        vec!["ids".to_owned(), "secret".to_owned()]
    }

    fn namespace_id(&self, from: Option<&str>, of: Option<&str>) -> Option<i32> {
        match (from, of) {
            (None, Some("ids")) => Some(7),
            (Some("ids"), None) => Some(0),
            _ => None,
        }
    }

    fn program(&self, id: u32) -> ForeignProgram {
        ForeignProgram {
            id,
            name: Some("other".to_owned()),
            by_link: id == LINKED,
            holders: vec![(99, "xdpdump".to_owned())],
            ..ForeignProgram::default()
        }
    }

    fn way(
        &self,
        _netns: Option<&str>,
        local: Option<IpAddr>,
        to: SocketAddr,
    ) -> Result<Way, LookError> {
        let refuse = |errno| Err(io::Error::from_raw_os_error(errno).into());
        if local.is_some_and(|local| local.to_string() == "192.0.2.99") {
            return refuse(libc::EADDRNOTAVAIL);
        }
        let mtu = match to.ip().to_string().as_str() {
            "203.0.113.9" => return refuse(libc::ENETUNREACH),
            "192.0.2.255" => return refuse(libc::EACCES),
            "198.51.100.1" => 9000,
            _ => 1500,
        };
        // By `gw0`.
        let source = Ipv4Addr::new(192, 0, 2, 2).into();
        Ok(Way { mtu, source })
    }

    fn file(&self, path: &Path) -> io::Result<FileFact> {
        match path.to_str() {
            Some("sample.pcapng" | "b.pcap") => Ok(FileFact::Regular(1000)),
            Some("empty.pcap") => Ok(FileFact::Regular(0)),
            Some("fifo") => Ok(FileFact::Pipe),
            Some("device") => Ok(FileFact::Other),
            Some("." | "folder") => Ok(FileFact::Directory),
            Some("secret.pcap") => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}
