//! Why nothing could be measured.

use std::io;

use control::link::{netns::NetNsError, tap::TapError};

use crate::{generator::GeneratorError, lab::LabError};

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// No place to measure in, or Ctrl-C.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// No traffic.
    #[error(transparent)]
    Generator(#[from] GeneratorError),
    /// A suite gives a benchmark options that it does not have.
    #[error("the options of the suite are wrong: {0}")]
    Options(String),
    /// No TAP.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The core cannot be had.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// No look at what arrives.
    #[error(
        "{interface}: cannot watch what arrives there: {message}; it takes root and Linux 6.6 (TCX)"
    )]
    Arrivals {
        /// Where.
        interface: String,
        /// The refusal.
        message: String,
    },
    /// No capture to play.
    #[error("{path}: cannot write the capture to be played: {error}; TMPDIR names another folder")]
    Capture {
        /// Where.
        path: String,
        /// The refusal.
        error: io::Error,
    },
    /// An interface's counters.
    #[error("{interface}: no counters in {file}: {message}")]
    Counters {
        /// Which.
        interface: String,
        /// Where they should be.
        file: &'static str,
        /// What is wrong.
        message: String,
    },
    /// What the product is measured beside failed.
    #[error("{peer}: {message}")]
    Peer {
        /// Which.
        peer: &'static str,
        /// What happened, and what to do.
        message: String,
    },
    /// The probe at the TAP cannot be had.
    #[error("cannot measure at the TAP: {0}; it takes root and Linux 6.6 (TCX)")]
    Probe(#[from] aya::EbpfError),
    /// The product failed.
    #[error("dataplane: {0}")]
    Product(String),
}

impl BenchError {
    /// A loop of our own failed at a system call.
    pub(crate) fn bare(peer: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Peer {
            peer,
            message: format!(
                "{error}; it needs root, Linux 6.1 or newer, and for --hugepages require enough free huge pages"
            ),
        }
    }

    /// Whatever else a peer answers.
    pub(crate) fn peer(peer: &'static str, message: impl ToString) -> Self {
        Self::Peer {
            peer,
            message: message.to_string(),
        }
    }
}
