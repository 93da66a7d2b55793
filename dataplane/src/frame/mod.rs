//! Frame memory: regions of slots, the token that stands for one frame, and the pool with its law.

#[cfg(test)]
mod law;
mod marks;
mod pool;
mod region;
mod token;

pub use marks::Finished;
pub use pool::{MAX_REGIONS, Pool, PoolCount, Receiver, SlotRef};
pub use region::{Backing, HugePages, Region, RegionError};
pub use token::{Frame, RegionId, Staged};
