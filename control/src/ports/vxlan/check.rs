//! A VXLAN port against the machine: is there a way to the far end, do the frames fit through it with their
//! outer headers, and does nobody send them round and round?

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use dataplane::policy::{Protocol, Rule};

use super::{super::interface::within, Vxlan};
use crate::{
    config::{Link, LookError, Mode, PlannedPort, Policy, Site},
    ports::{Around, Claim, Feeder, Found},
};

/// What surrounds a frame without its Ethernet header: that header, and those of VXLAN, UDP and IP, in
/// bytes (RFC 7348, section 5).
fn overhead(config: &Vxlan) -> u32 {
    let ip = match config
        .remote
        .as_ref()
        .is_some_and(|remote| remote.is_ipv6())
    {
        true => 40,
        false => 20,
    };
    14 + 8 + 8 + ip
}

/// Looks for the way to the far end, or else for the port's own address.
pub(super) fn inspect(config: &Vxlan, port: &PlannedPort, site: &mut Site<'_>) -> Found {
    let netns = config.netns.as_ref();
    if netns.is_some() && site.links(netns).is_none() {
        // Said already.
        return Found::default();
    }
    let local = config.local.as_ref();
    let own = local.map(|local| SocketAddr::new(**local, *config.port));
    let Some(to) = config.peer().or(own) else {
        return Found::default();
    };
    let netns_name = netns.map(|netns| netns.as_str());
    let from = local.map(|local| **local);
    match site.machine().way(netns_name, from, to) {
        Ok(way) if port.sink && config.remote.is_some() => {
            let links = site.links(netns).unwrap_or_default();
            return Found {
                path_mtu: Some(way.mtu),
                leaves_by: leaves_by(way.source, to.ip(), links),
                ..Found::default()
            };
        }
        Ok(_) => {}
        Err(LookError::Other(error)) => refused(config, port, site, &error),
        Err(LookError::NoNamespace | LookError::Privilege) => {}
    }
    Found::default()
}

/// The interface with the address that the host has on its way to a far end.
fn leaves_by(source: IpAddr, to: IpAddr, links: &[Link]) -> Option<String> {
    let has = |link: &&Link| {
        let mut addresses = link.addresses.iter();
        match source == to {
            true => link.driver == "loopback",
            false => addresses.any(|address| {
                let address = address.split_once('/').map_or(address.as_str(), |(a, _)| a);
                address.parse() == Ok(source)
            }),
        }
    };
    links.iter().find(has).map(|link| link.name.clone())
}

fn refused(config: &Vxlan, port: &PlannedPort, site: &mut Site<'_>, error: &io::Error) {
    let ip = format!("{}ip", within(config.netns.as_ref()));
    match (error.kind(), &config.local, &config.remote) {
        (io::ErrorKind::AddrNotAvailable, Some(local), _) => {
            let message = format!(
                "local {} is no address of this host; name one that is ({ip} address), or leave it out",
                **local
            );
            site.refuse(local.at, message);
        }
        // The answer to a socket that may not broadcast.
        (io::ErrorKind::PermissionDenied, _, Some(remote)) => {
            let message = format!(
                "remote {} is a broadcast address of one of this host's networks; name one host",
                **remote
            );
            site.wrong(remote.at, message);
        }
        (_, _, Some(remote)) if port.sink => site.note(format!(
            "port {:?}: there is no way to {} now ({error}); it must be there at the start: {ip} route add … ",
            port.name, **remote
        )),
        _ => {}
    }
}

/// What the user should know when one that feeds this port copies what this port sends.
pub(super) fn comes_back(
    config: &Vxlan,
    port: &PlannedPort,
    around: &Around<'_>,
) -> Option<String> {
    let (leaves_by, to) = (port.leaves_by.as_ref()?, config.peer()?);
    let copies = |feeder: &PlannedPort| {
        let mut claims = feeder.kind.claims(feeder).into_iter();
        feeder.kind.netns() == port.kind.netns()
            && claims.any(|claim| match claim {
                Claim::Copies { device, sent: true } => {
                    device.is_none_or(|device| **device == *leaves_by)
                }
                _ => false,
            })
    };
    let comes_back = |feeder: &&Feeder<'_>| {
        copies(feeder.port) && feeder.policy.is_none_or(|policy| lets_pass(policy, to))
    };
    let Feeder { port: feeder, .. } = around.feeders.iter().find(comes_back)?;
    Some(format!(
        "port {:?}: what it sends to {} leaves by {leaves_by}, where port {:?} copies it, to be sent again, round and round; set direction = \"in\" in [ports.{}], or a policy that does not let UDP to port {} pass",
        port.name,
        to.ip(),
        feeder.name,
        feeder.name,
        to.port(),
    ))
}

/// Whether a policy may forward UDP to an address, whoever sends it.
fn lets_pass(policy: &Policy, to: SocketAddr) -> bool {
    let allows = |rule: &Rule| {
        let mut ports = rule.to_ports.iter();
        rule.protocol
            .is_none_or(|protocol| protocol == Protocol::Udp)
            && rule.to.is_none_or(|net| net.contains(&to.ip()))
            && (ports.len() == 0
                || ports.any(|range| (range.first..=range.last).contains(&to.port())))
    };
    policy.mode == Mode::Direct || policy.rules().iter().any(allows)
}

/// What the user should know when frames do not fit the path with their outer headers.
pub(super) fn frames_fit(
    config: &Vxlan,
    port: &PlannedPort,
    around: &Around<'_>,
) -> Option<String> {
    let path = port.path_mtu?;
    let overhead = overhead(config);
    let fits = path.saturating_sub(overhead);
    // The largest that each feeder can have, where it says so, none larger than the port takes.
    let mtu = |feeder: &PlannedPort| {
        let largest = match (&feeder.link, feeder.kind.largest_frame(feeder)) {
            (Some(link), _) => link.mtu,
            (None, Some(largest)) => largest.value,
            (None, None) => u32::MAX,
        };
        largest.min(*config.mtu)
    };
    let feeders = around.feeders.iter().map(|feeder| feeder.port);
    let feeder = feeders.max_by_key(|feeder| mtu(feeder))?;
    let mtu = mtu(feeder);
    if mtu <= fits {
        return None;
    }
    let fate = match config.dont_fragment {
        true => "dropped as too_long",
        false => "sent in fragments",
    };
    let lower = match (&feeder.link, feeder.kind.largest_frame(feeder)) {
        (Some(link), _) => format!(
            "{}ip link set {} mtu {fits}",
            within(feeder.kind.netns()),
            link.name
        ),
        (None, Some(_)) => format!("mtu = {fits} in [ports.{}]", feeder.name),
        (None, None) => format!(
            "mtu = {fits} in [ports.{}], which drops them as too_long",
            port.name
        ),
    };
    Some(format!(
        "port {:?}: frames of port {:?} (mtu {mtu}) take {overhead} bytes more on the way to {}, whose mtu is {path}: those of more than {fits} bytes and an Ethernet header are {fate}; make the way's mtu {} or lower that of the frames where they are made ({lower})",
        port.name,
        feeder.name,
        config
            .remote
            .as_ref()
            .map_or_else(String::new, |remote| remote.to_string()),
        mtu + overhead,
    ))
}
