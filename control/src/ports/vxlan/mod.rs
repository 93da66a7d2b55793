//! `kind = "vxlan"`: Ethernet frames in UDP datagrams (RFC 7348), to and from one far end or many. Here are
//! the settings; `check` sets them against the machine, `device` opens the sockets.

mod check;
mod device;

use std::net::{IpAddr, SocketAddr};

use dataplane::port::vxlan::header::VNI_BITS;
use serde::Serialize;

use super::{
    Around, Checksums, Claim, Device, Found, Kind, LargestFrame, Listens, Placement, Privileges,
    Role, frames::HEADERS, interface::netns_name,
};
use crate::{
    config::{At, Plan, PlannedPort, Reader, Site, Value},
    daemon::StartError,
    link::udp::Outer,
};

/// The port that IANA gave VXLAN (RFC 7348, section 5).
const PORT: u16 = 4789;

/// What the kernel's own devices have as time to live, and as DSCP.
const TTL: u8 = 64;

/// The largest MTU: an IPv4 packet of 65,535 bytes, less the headers of IPv4, UDP and VXLAN and those of
/// the frame.
const LARGEST_MTU: u64 = 65_535 - 20 - 8 - 8 - HEADERS as u64;

/// The settings of a port.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Vxlan {
    /// The network's identifier.
    pub vni: At<u32>,
    /// The far end; `None` for a source that takes datagrams from everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<At<IpAddr>>,
    /// The UDP port that datagrams go to and are received at.
    pub port: At<u16>,
    /// The host's address; `None` is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<At<IpAddr>>,
    /// Time to live, or hop limit, of what is sent.
    pub ttl: u8,
    /// The code point of what is sent, 6 bits.
    pub dscp: u8,
    /// Whether what is sent may not be fragmented on its way.
    pub dont_fragment: bool,
    /// How many outer source ports flows are spread over, on each worker.
    pub source_ports: u16,
    /// The largest frame without its Ethernet header, in bytes.
    pub mtu: At<u32>,
    /// What is done about checksums that the sender left to the hardware.
    pub checksums: Checksums,
    /// The network namespace of the sockets; `None` is the daemon's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<At<String>>,
}

impl Vxlan {
    /// Reads the keys of the kind.
    pub(super) fn read(table: &mut Reader<'_, '_>, port: &At<String>) -> Option<Self> {
        let default = |value| At { value, at: port.at };
        let vni = table.need("vni", "42", |v| v.integer(0..=(1 << VNI_BITS) - 1));
        let remote = table.take_at("remote", unicast);
        let udp_port = table.take_at("port", |v| v.integer(1..=65_535).map(|n| n as u16));
        let local = table.take_at("local", |v| {
            let local = unicast(v.clone())?;
            match &remote {
                Some(remote) if remote.is_ipv4() != local.is_ipv4() => {
                    v.error(format!(
                        "{local} and remote {} are of two IP versions; give both of one",
                        **remote
                    ));
                    None
                }
                _ => Some(local),
            }
        });
        let ttl = table.take("ttl", |v| v.integer(1..=255));
        let dscp = table.take("dscp", |v| v.integer(0..=63));
        let dont_fragment = table.take("dont_fragment", |v| v.boolean());
        let source_ports = table.take("source_ports", |v| v.integer(1..=256));
        let mtu = table.take_at("mtu", |v| v.integer(68..=LARGEST_MTU).map(|mtu| mtu as u32));
        let checksums = table.take("checksums", |v| v.choice(Checksums::ALL, &[]));
        let netns = table.take_at("netns", |v| netns_name(&v));
        let vni = vni?;
        Some(Self {
            vni: At {
                value: vni.value as u32,
                at: vni.at,
            },
            remote,
            port: udp_port.unwrap_or(At {
                value: PORT,
                at: port.at,
            }),
            local,
            ttl: ttl.map_or(TTL, |ttl| ttl as u8),
            dscp: dscp.map_or(0, |dscp| dscp as u8),
            dont_fragment: dont_fragment.unwrap_or(false),
            source_ports: source_ports.map_or(16, |n| n as u16),
            mtu: mtu.unwrap_or(default(1500)),
            checksums: checksums.unwrap_or_default(),
            netns,
        })
    }

    /// Where datagrams are sent to.
    fn peer(&self) -> Option<SocketAddr> {
        let remote = self.remote.as_ref()?;
        Some(SocketAddr::new(**remote, *self.port))
    }

    /// The address that datagrams are received at; `None` is every one of both IP versions.
    fn listens_at(&self) -> Option<IpAddr> {
        match (&self.local, &self.remote) {
            (Some(local), _) => Some(**local),
            (None, Some(remote)) if remote.is_ipv4() => {
                Some(std::net::Ipv4Addr::UNSPECIFIED.into())
            }
            (None, Some(_)) => Some(std::net::Ipv6Addr::UNSPECIFIED.into()),
            (None, None) => None,
        }
    }

    fn outer(&self) -> Outer {
        Outer {
            ttl: self.ttl,
            dscp: self.dscp,
            dont_fragment: self.dont_fragment,
        }
    }
}

impl Kind for Vxlan {
    fn placement(&self) -> Placement<'_> {
        Placement::Spread
    }

    fn privileges(&self) -> Privileges {
        Privileges::default()
    }

    fn refuses(&self, role: Role, name: &str) -> Option<String> {
        (role == Role::Sink && self.remote.is_none()).then(|| {
            format!(
                "has nobody to send to; name the far end in [ports.{name}], such as remote = \"192.0.2.1\""
            )
        })
    }

    fn netns(&self) -> Option<&At<String>> {
        self.netns.as_ref()
    }

    fn claims(&self, port: &PlannedPort) -> Vec<Claim<'_>> {
        let listens = port.source.then(|| {
            Claim::Listens(Listens {
                address: self.listens_at(),
                port: *self.port,
                at: self.port.at,
            })
        });
        listens.into_iter().collect()
    }

    fn largest_frame(&self, _port: &PlannedPort) -> Option<LargestFrame> {
        Some(LargestFrame::of_mtu(*self.mtu, self.mtu.at))
    }

    fn unfinished_checksums(&self) -> bool {
        self.checksums == Checksums::Auto
    }

    fn inspect(&self, port: &PlannedPort, site: &mut Site<'_>) -> Found {
        check::inspect(self, port, site)
    }

    fn cautions(&self, port: &PlannedPort, around: &Around<'_>) -> Vec<String> {
        let cautions = [
            check::frames_fit(self, port, around),
            check::comes_back(self, port, around),
        ];
        cautions.into_iter().flatten().collect()
    }

    fn describe(&self, port: &PlannedPort) -> String {
        let mut text = format!("vxlan {}", *self.vni);
        let at = match &self.local {
            Some(local) => SocketAddr::new(**local, *self.port).to_string(),
            None => format!("port {}", *self.port),
        };
        match &self.remote {
            Some(remote) => {
                text += &format!(" with {}", **remote);
                match port.source {
                    true => text += &format!(" at {at}"),
                    false => text += &format!(" port {}", *self.port),
                }
            }
            None => text += &format!(" at {at}"),
        }
        if let Some(netns) = &self.netns {
            text += &format!(" in namespace {}", **netns);
        }
        text += &format!(", mtu {}", *self.mtu);
        if port.sink {
            text += &format!(", ttl {}, dscp {}", self.ttl, self.dscp);
            text += match self.dont_fragment {
                true => ", not to be fragmented",
                false => "",
            };
            if let Some(mtu) = port.path_mtu {
                text += &format!(" (path mtu {mtu})");
            }
        }
        text
    }

    fn make(&self, port: &PlannedPort, _plan: &Plan) -> Result<Box<dyn Device>, StartError> {
        Ok(Box::new(device::VxlanDevice::make(port, self)?))
    }
}

/// The address of one host.
fn unicast(value: Value<'_, '_>) -> Option<IpAddr> {
    let text = value.string()?;
    let Ok(address) = text.parse::<IpAddr>() else {
        value.error(format!(
            "must be an IPv4 or IPv6 address such as \"192.0.2.1\", not {text:?}; names are not looked up"
        ));
        return None;
    };
    let address = address.to_canonical();
    let fault = match address {
        _ if address.is_unspecified() => "is no host's address; name one host",
        _ if address.is_multicast() => {
            "is a multicast group, and frames go to one far end; name a host, with a port for each"
        }
        IpAddr::V4(v4) if v4.is_broadcast() => "is the broadcast address; name one host",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            "is an address of one link alone, which would need an interface beside it; use a global or unique local one"
        }
        _ => return Some(address),
    };
    value.error(format!("{address} {fault}"));
    None
}
