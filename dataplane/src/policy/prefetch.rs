//! Asks the processor for a cache line before it is needed, so that the misses of a batch overlap.

// The prefetch instruction takes a raw address.
#![allow(unsafe_code)]

/// Starts loading the line of `value`. A hint: it changes nothing that a program can see.
#[inline(always)]
pub(super) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing into the program and faults on no address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
