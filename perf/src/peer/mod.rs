//! What the product is measured beside: bare loops of our own, each the best that can be written for what it
//! does, and other people's tools.

pub(crate) mod bare;
pub(crate) mod bare_inline;
pub(crate) mod bridge;
pub(crate) mod flat_set;
pub(crate) mod kernel_clone;
pub(crate) mod listener;
pub(crate) mod raw_socket;
pub(crate) mod receive;
pub(crate) mod tap;
pub(crate) mod tap_floor;
pub(crate) mod tcpreplay;
pub(crate) mod udp;
pub(crate) mod writer;
