//! The compiled programs of `dataplane/bpf/`, as part of this executable. `scripts/bpf-build` makes them.

use aya::include_bytes_aligned;

/// `dataplane/bpf/xsk.c`.
pub(super) fn xsk() -> &'static [u8] {
    include_bytes_aligned!("../../../dataplane/bpf/xsk.bpf.o")
}

/// `dataplane/bpf/passive.c`.
pub(super) fn passive() -> &'static [u8] {
    include_bytes_aligned!("../../../dataplane/bpf/passive.bpf.o")
}

/// `dataplane/bpf/steer.c`.
pub(super) fn steer() -> &'static [u8] {
    include_bytes_aligned!("../../../dataplane/bpf/steer.bpf.o")
}
