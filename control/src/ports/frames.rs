//! What settings say of frames, for every kind alike.

use crate::config::choice;

/// An Ethernet header and two VLAN tags: what a frame has beside its MTU, in bytes.
pub(super) const HEADERS: u32 = 14 + 8;

choice! {
    /// What is done about checksums that the sender left to the hardware.
    Checksums {
        /// Those whose field holds the sum of the pseudo-header are finished.
        #[default]
        Auto = "auto",
        /// Nobody looks.
        Trust = "trust",
    }
}
