//! An interface against the machine: is it there, up, free and able; which queues it has.

use std::thread;

use super::{AfXdp, Queues, XdpMode};
use crate::{
    config::{At, Link, PlannedPort, Site},
    kernel::foreign::ForeignProgram,
    ports::{
        Found,
        interface::{LOOKS, PAUSE, find, more_queues, within},
    },
};

/// Drivers that are known to have no zero-copy AF_XDP. Whether another has it, only binding tells.
const NO_ZERO_COPY: &[&str] = &[
    "veth", "tun", "loopback", "bridge", "dummy", "macvlan", "ipvlan", "vxlan", "ifb",
];

/// What AF_XDP leaves free in a slot before a frame: XDP_PACKET_HEADROOM (include/uapi/linux/bpf.h).
const HEADROOM: u32 = 256;

/// An Ethernet header and one VLAN tag.
pub(super) const HEADER: u32 = 14 + 4;

/// Whether a driver may grant zero-copy in a mode, as far as that is known before a socket is bound.
pub(super) fn may_be_zero_copy(mode: XdpMode, driver: &str) -> bool {
    matches!(mode, XdpMode::Auto | XdpMode::ZeroCopy) && !NO_ZERO_COPY.contains(&driver)
}

/// The longest frame that a driver receives whole without copies, where that is less than a slot holds. A longer one it hands
/// to the program and the socket in pieces, each as if it were a frame: the second would be judged by what is in its middle.
/// igb's card is told the length of buffers in KiB, rounded down (E1000_SRRCTL_BSIZEPKT_SHIFT in igb_setup_srrctl), and its
/// driver does not look whether a descriptor is a frame's last (igb_clean_rx_irq_zc).
fn whole_without_copies(driver: &str, slot_size: u32) -> Option<u32> {
    (driver == "igb").then(|| room(slot_size) / 1024 * 1024)
}

/// Why zero-copy is not to be had from a driver with this MTU, and what mends that.
pub(super) fn in_pieces(driver: &str, mtu: u32, slot_size: u32) -> Option<String> {
    let whole = whole_without_copies(driver, slot_size).filter(|&whole| mtu + HEADER > whole)?;
    let larger = match whole_without_copies(driver, 4096) {
        Some(room) if slot_size < 4096 && mtu + HEADER <= room => "slot_size = 4096",
        _ => "a lower mtu",
    };
    Some(format!(
        "in zero-copy mode {driver} receives frames of more than {whole} bytes in pieces, with slots of {slot_size} bytes and mtu {mtu}; {larger} mends that"
    ))
}

/// Finds the interface and its queues, and says what stands against taking it.
pub(super) fn inspect(xdp: &AfXdp, port: &PlannedPort, site: &mut Site<'_>) -> Found {
    let name = xdp.interface.as_str();
    let netns = xdp.netns.as_ref();
    if site.links(netns).is_none() {
        let queues = match &xdp.queues {
            Queues::All => {
                site.note(format!(
                    "{}: the queues of {name} are not known; queue 0 stands for all",
                    site.context()
                ));
                vec![0]
            }
            Queues::These(queues) => sorted(queues),
        };
        return Found {
            queues,
            ..Found::default()
        };
    }
    let Some(link) = find(&xdp.interface, netns, site) else {
        return Found::default();
    };
    let at = xdp.interface.at;
    if !xdp.force && (!link.addresses.is_empty() || link.default_route) {
        let what = match (link.addresses.first(), link.default_route) {
            (Some(address), true) => format!("the address {address} and the default route"),
            (Some(address), false) => format!("the address {address}"),
            (None, _) => "the default route".to_owned(),
        };
        let fate = match (port.source, port.sink) {
            (true, false) => {
                "the host would no longer get its frames; take kind = \"af_packet\", which leaves the host its traffic, or set force = true to take it all the same"
            }
            (true, true) => {
                "the host would no longer get its frames; name an interface that the host has no use for, or set force = true to take it all the same"
            }
            (false, _) => {
                "frames would be sent into the host's own network; name an interface that the host has no use for, or set force = true to send them there"
            }
        };
        site.refuse(at, format!("{name} has {what}, and {fate}"));
    }
    if let Some(program) = foreign_program(xdp, &link, site) {
        let removal = program.removal(&within(netns), name);
        let message = format!(
            "{name} runs an XDP program already: {program}; stop its owner, or take it off: {removal}"
        );
        site.refuse(at, message);
    }
    if *xdp.mode == XdpMode::ZeroCopy && NO_ZERO_COPY.contains(&link.driver.as_str()) {
        site.refuse(
            xdp.mode.at,
            format!(
                "{name} has the driver {:?}, which has no zero-copy AF_XDP; set mode = \"auto\" or \"copy\"",
                link.driver
            ),
        );
    }
    let queues = match &xdp.queues {
        Queues::All => (0..link.queues.max(1)).collect(),
        Queues::These(queues) => {
            for queue in queues.iter().filter(|queue| ***queue >= link.queues) {
                let has = match link.queues {
                    0 | 1 => "queue 0 only".to_owned(),
                    n => format!("queues 0-{}", n - 1),
                };
                site.refuse(
                    queue.at,
                    format!(
                        "{name} has {has}, no queue {}; where the driver has more, they come with: {}",
                        **queue,
                        more_queues(name, netns, Some(&link), **queue as usize + 1)
                    ),
                );
            }
            sorted(queues)
        }
    };
    Found {
        queues,
        link: Some(link),
        ..Found::default()
    }
}

fn sorted(queues: &[At<u32>]) -> Vec<u32> {
    let mut queues: Vec<u32> = queues.iter().map(|queue| queue.value).collect();
    queues.sort_unstable();
    queues
}

/// The XDP program that stands in the way. One that nobody holds may be gone in a moment: a run that was
/// killed leaves its program for some 50 ms, while the kernel takes its sockets down.
fn foreign_program(xdp: &AfXdp, link: &Link, site: &mut Site<'_>) -> Option<ForeignProgram> {
    let mut program = site.machine().program(link.xdp?);
    for _ in 0..LOOKS {
        if !(program.holders.is_empty() && program.pinned.is_empty()) {
            break;
        }
        thread::sleep(PAUSE);
        site.look_again(xdp.netns.as_ref());
        let mut links = site.links(xdp.netns.as_ref())?.iter();
        let id = links.find(|again| again.name == link.name)?.xdp?;
        program = site.machine().program(id);
    }
    Some(program)
}

/// The longest frame that one slot holds.
pub(super) fn room(slot_size: u32) -> u32 {
    slot_size - HEADROOM
}

/// Says when zero-copy is not to be had, or not yet, where it is wanted.
pub(super) fn copies(xdp: &AfXdp, port: &PlannedPort, slot_size: u32) -> Option<String> {
    let link = port.link.as_ref()?;
    if !(port.source && may_be_zero_copy(*xdp.mode, &link.driver)) {
        return None;
    }
    let why = in_pieces(&link.driver, link.mtu, slot_size)?;
    let so = match *xdp.mode {
        XdpMode::ZeroCopy => "will not start",
        _ => "copies",
    };
    Some(format!(
        "port {:?}: {} {so}: {why}",
        port.name, *xdp.interface
    ))
}

/// Says when frames may come that one slot does not hold.
pub(super) fn frames_fit(xdp: &AfXdp, port: &PlannedPort, slot_size: u32) -> Option<String> {
    let link = port.link.as_ref()?;
    let room = room(slot_size);
    if link.mtu + HEADER <= room || !port.source {
        return None;
    }
    let larger = match slot_size {
        2048 if link.mtu + HEADER <= 4096 - HEADROOM => "; slot_size = 4096 spares that",
        _ => "",
    };
    Some(format!(
        "port {:?}: {} has mtu {}, and a slot of {slot_size} bytes holds frames of {room}; longer ones take several slots each{larger}",
        port.name, *xdp.interface, link.mtu
    ))
}
