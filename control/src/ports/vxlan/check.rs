//! A VXLAN port against the machine: is there a way to the far end, and do the frames fit through it with
//! their outer headers?

use std::{io, net::SocketAddr};

use super::{super::interface::within, Vxlan};
use crate::{
    config::{LookError, PlannedPort, Site},
    ports::{Around, Found},
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
    match site.machine().path_mtu(netns_name, from, to) {
        Ok(mtu) => {
            return Found {
                path_mtu: (port.sink && config.remote.is_some()).then_some(mtu),
                ..Found::default()
            };
        }
        Err(LookError::Other(error)) => refused(config, port, site, &error),
        Err(LookError::NoNamespace | LookError::Privilege) => {}
    }
    Found::default()
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
    let feeder = around.feeders.iter().max_by_key(|feeder| mtu(feeder))?;
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
