//! Frame memory: regions of slots, the token that stands for one frame, and the pool with its law.

mod arena;
#[cfg(test)]
mod law;
mod limbo;
mod marks;
mod memory;
mod pool;
mod region;
mod token;

pub use arena::Arena;
pub(crate) use arena::Part;
pub use limbo::Lease;
pub use marks::Finished;
pub use memory::{Backing, HugePages, RegionError};
pub(crate) use pool::CHAIN;
pub use pool::{MAX_REGIONS, Piece, Pool, PoolCount, Receiver, SlotRef};
pub use region::Region;
pub use token::{Frame, RegionId, Staged};
