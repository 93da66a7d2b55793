//! TAPs as the product makes them for listeners: the same receive path in all that is compared.

use control::link::{
    NetNs,
    tap::{Tap, TapError, TapOptions},
};

/// A passive TAP of one queue.
pub(crate) fn passive_tap(name: &str) -> Result<Tap, TapError> {
    Tap::create(
        &NetNs::own(),
        &TapOptions {
            passive: true,
            ..TapOptions::active(name)
        },
    )
}
