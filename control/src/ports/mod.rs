//! The kinds of ports. Each is one module here: its settings and how they are read, what the plan must
//! know of it ([`Kind`]), and what it makes on the machine ([`Device`]); the frames themselves move in
//! its module of [`dataplane::port`].
//!
//! Nothing outside a kind's module knows it but the table of [`PortKind`] below.

pub mod af_packet;
pub mod af_xdp;
mod device;
mod frames;
mod interface;
mod kind;
pub mod pcap;
pub mod tap;
pub mod vxlan;

pub use device::{Device, Listened, Seat, Turn};
pub use frames::Checksums;
pub(crate) use interface::{interface_fault, more_queues};
pub use kind::{
    Around, Claim, Feeder, Found, Kind, LargestFrame, Listens, Placement, Privileges, Role,
};

use crate::config::{At, Port, Reader};

/// What the table of kinds stands for: the type of a port's settings, their names in the file, and the
/// way to the kind's own answers.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:literal => $Kind:ident in $module:ident,)*) => {
        /// A port's settings, by its kind. What can be asked of any kind is in [`Kind`], which this is
        /// dereferenced to.
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        #[serde(tag = "kind")]
        pub enum PortKind {
            $($(#[$doc])* #[serde(rename = $name)] $Kind($module::$Kind),)*
        }

        impl PortKind {
            /// The names of the kinds, and how the settings of each are read.
            const KINDS: &'static [(&'static str, Read)] = &[
                $(($name, |table, port| $module::$Kind::read(table, port).map(Self::$Kind)),)*
            ];

            /// The kind's name in the file.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$Kind(_) => $name,)*
                }
            }
        }

        impl std::ops::Deref for PortKind {
            type Target = dyn Kind;

            fn deref(&self) -> &Self::Target {
                match self {
                    $(Self::$Kind(kind) => kind,)*
                }
            }
        }
    };
}

// Adding a kind adds a line here and a module beside this one.
kinds! {
    /// An interface, by AF_XDP.
    "af_xdp" => AfXdp in af_xdp,
    /// An interface that keeps its traffic, by a packet socket.
    "af_packet" => AfPacket in af_packet,
    /// A TAP device that is made for it.
    "tap" => Tap in tap,
    /// A capture file.
    "pcap" => Pcap in pcap,
    /// A VXLAN network over UDP.
    "vxlan" => Vxlan in vxlan,
}

/// Kinds that the design names and this build does not have.
const LATER_KINDS: &[&str] = &["veth", "vm", "nat"];

/// Reads the keys of a kind from the table of the port with this name. `None` when something is wrong,
/// which the table has been told.
type Read = fn(&mut Reader<'_, '_>, &At<String>) -> Option<PortKind>;

/// Reads one table `[ports.NAME]`. `name` has been checked.
pub(crate) fn read(name: &str, mut table: Reader<'_, '_>) -> Option<Port> {
    let name = At {
        value: name.to_owned(),
        at: table.at(),
    };
    let read = table.need("kind", "\"af_xdp\"", |v| {
        v.choice(PortKind::KINDS, LATER_KINDS)
    })?;
    let kind = (*read)(&mut table, &name);
    table.finish();
    Some(Port { name, kind: kind? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_built_once_or_later() {
        let names: Vec<&str> = PortKind::KINDS.iter().map(|(name, _)| *name).collect();
        for (i, name) in names.iter().enumerate() {
            assert!(!names[..i].contains(name), "{name} twice");
            assert!(!LATER_KINDS.contains(name), "{name} is built");
        }
    }
}
