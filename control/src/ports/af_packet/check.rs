//! An interface against the machine: is it there, up, and are its frames Ethernet's.

use dataplane::port::af_packet::filter::{ETHERNET, LOOPBACK};

use super::AfPacket;
use crate::{
    config::Site,
    ports::{Found, interface::find},
};

/// Finds the interface, and says what stands against listening there.
pub(super) fn inspect(packet: &AfPacket, site: &mut Site<'_>) -> Found {
    let netns = packet.netns.as_ref();
    let Some(name) = packet.interface() else {
        if *packet.promiscuous {
            site.wrong(
                packet.promiscuous.at,
                "promiscuous is for one interface, and interface = \"any\" names none; name it, or set promiscuous = false"
                    .to_owned(),
            );
        }
        // That the namespace is there.
        site.links(netns);
        return Found::default();
    };
    let Some(link) = find(&packet.interface, netns, site) else {
        return Found::default();
    };
    if let Some(fault) = no_ethernet(name, link.hardware) {
        site.refuse(packet.interface.at, fault);
    }
    Found {
        link: Some(link),
        ..Found::default()
    }
}

/// Why an interface of this hardware type (ARPHRD_*) will not do; `None` when it will.
pub(super) fn no_ethernet(name: &str, hardware: u16) -> Option<String> {
    (!matches!(hardware, ETHERNET | LOOPBACK)).then(|| {
        format!(
            "{name} has no Ethernet frames (its link type is {hardware}, as a tun, a tunnel or a point-to-point link has one of its own); listen on the interface below it"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ethernet_and_what_looks_like_it() {
        for (hardware, will_do) in [
            (1, true),
            (772, true),
            (65_534, false),
            (512, false),
            (0, false),
        ] {
            assert_eq!(no_ethernet("x0", hardware).is_none(), will_do, "{hardware}");
        }
    }
}
