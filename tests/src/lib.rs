//! What integration tests share: network namespaces, the daemon as a child, tools with time limits,
//! captures and frames. The tests themselves are in `tests/`, a theme in each file.
//!
//! Everything that a test makes is a guard: it is removed when the test ends, however it ends. A test
//! says what it needs of the machine; without that it is reported as ignored, with the reason.

pub mod bench;
pub mod capture;
pub mod daemon;
pub mod frames;
pub mod guest;
pub mod http;
pub mod needs;
pub mod net;
pub mod pcapng;
pub mod process;
pub mod send;
pub mod suricata;
pub mod theme;
pub mod wait;

pub use self::{
    bench::Bench,
    daemon::Daemon,
    needs::Need,
    net::Netns,
    process::{Tool, run},
    theme::Theme,
    wait::wait_until,
};
