//! What tests in the guest of `scripts/vm` share: its network cards, what they may ask of the machine around it,
//! the kernel's pktgen, and a place to write down what the kernel was found to do.

pub mod card;
pub mod facts;
pub mod host;
pub mod lane;
pub mod pktgen;

pub use self::{card::Card, facts::fact, lane::Lane};

/// Panics on the newest kernel, which has all that is tested, unless `holds`: what an older kernel may be without must not
/// get lost unseen.
pub fn newest_has(holds: bool, what: &str) {
    let newest = std::env::var("DATAPLANE_VM_KERNEL").is_ok_and(|name| name == "newest");
    assert!(holds || !newest, "the newest kernel has {what}");
}

/// Whether this is the guest of `scripts/vm`.
pub fn is_here() -> bool {
    std::env::var_os(host::PORT).is_some()
}
