//! Capture files: [`mod@format`] knows their bytes, [`read`] plays them as a source, [`mod@write`] records what
//! a sink gets.

#[cfg(test)]
mod fixture;
pub mod format;
mod park;
pub mod read;
pub mod write;
