//! Capture files as a source.

#[cfg(test)]
mod fixture;
pub mod format;
pub mod pace;
