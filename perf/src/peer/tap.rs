//! TAPs as the product makes them for listeners: the same receive path in all that is compared.

use std::sync::atomic::{AtomicU32, Ordering};

use control::link::{
    NetNs,
    tap::{Tap, TapError, TapOptions},
};

/// A passive TAP of one queue. Its name begins with `stem`: a device that was closed stays for some 50 ms, and
/// keeps its name.
pub(crate) fn passive_tap(stem: &str) -> Result<Tap, TapError> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    Tap::create(
        &NetNs::own(),
        &TapOptions {
            passive: true,
            ..TapOptions::active(&format!("{stem}{number}"))
        },
    )
}
