//! Interfaces and network namespaces as ports name them: what a name may be, what is there, and the commands
//! that a remedy shows.

use std::time::Duration;

use crate::{
    config::{At, Link, Site, Value, hint},
    link::NAME_MAX,
};

/// How often what a killed run may have left is looked at again, and after how long: the kernel takes
/// some 50 ms to take its rings and sockets down.
pub(super) const LOOKS: u32 = 40;
pub(super) const PAUSE: Duration = Duration::from_millis(25);

/// The name of an interface, which may not be there yet.
pub(super) fn interface_name(value: &Value<'_, '_>) -> Option<String> {
    let name = value.string()?;
    if let Some(fault) = interface_fault(name) {
        value.error(format!("{name:?} {fault}"));
        return None;
    }
    Some(name.to_owned())
}

/// What the kernel has against a name for an interface (dev_valid_name in net/core/dev.c).
pub(crate) fn interface_fault(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("is empty; name an interface".to_owned());
    }
    if name.len() > NAME_MAX {
        return Some(format!(
            "is {} bytes long; the kernel allows an interface {NAME_MAX}",
            name.len()
        ));
    }
    if name == "." || name == ".." {
        return Some("is no name for an interface".to_owned());
    }
    name.chars()
        .find(|c| matches!(c, '/' | ':' | '\0' | '%') || c.is_whitespace())
        .map(|c| format!("contains {c:?}, which an interface's name may not"))
}

/// Finds the interface of a port, which is told when it is not there, or down.
pub(super) fn find(
    interface: &At<String>,
    netns: Option<&At<String>>,
    site: &mut Site<'_>,
) -> Option<Link> {
    let name = interface.as_str();
    let links = site.links(netns)?;
    let Some(link) = links.iter().find(|link| link.name == name).cloned() else {
        let names = links.iter().map(|link| link.name.as_str());
        let near = hint(name, names, "interface");
        let place = match netns {
            Some(netns) => format!(" in namespace {:?}", **netns),
            None => String::new(),
        };
        let message = format!("interface {name:?} does not exist{place}{near}");
        site.refuse(interface.at, message);
        return None;
    };
    if !link.up {
        let ip = format!("{}ip", within(netns));
        let message = format!("{name} is down; run: {ip} link set {name} up");
        site.refuse(interface.at, message);
    }
    Some(link)
}

/// A name below `/run/netns`, or the absolute path of a namespace, such as `/proc/PID/ns/net`.
pub(super) fn netns_name(value: &Value<'_, '_>) -> Option<String> {
    let name = value.string()?;
    // One namespace, one spelling: two ports are compared by it.
    let name = ["/run/netns/", "/var/run/netns/"]
        .iter()
        .find_map(|folder| name.strip_prefix(folder))
        .unwrap_or(name);
    let path = name.starts_with('/');
    let bad = name.is_empty() || name == "." || name == ".." || name.contains('\0');
    if bad || (name.contains('/') && !path) || name.len() > 255 {
        value.error(format!(
            "must be the name of a network namespace, as `ip netns` lists it, or an absolute path, not {name:?}"
        ));
        return None;
    }
    Some(name.to_owned())
}

/// What to put before a shell command so that it runs where the port is.
pub(super) fn within(netns: Option<&At<String>>) -> String {
    match netns {
        None => String::new(),
        Some(path) if path.starts_with('/') => format!("nsenter --net={} ", **path),
        Some(name) => format!("ip netns exec {} ", **name),
    }
}

/// The command that gives the interface of a port `count` queues. A veth counts directions apart.
pub(crate) fn more_queues(
    interface: &str,
    netns: Option<&At<String>>,
    link: Option<&Link>,
    count: usize,
) -> String {
    let within = within(netns);
    let channels = match link {
        Some(link) if link.driver == "veth" => format!("rx {count} tx {count}"),
        _ => format!("combined {count}"),
    };
    format!("{within}ethtool -L {interface} {channels}")
}
