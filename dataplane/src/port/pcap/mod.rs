//! Capture files: [`mod@format`] knows their bytes, [`read`] plays them as a source.

#[cfg(test)]
mod fixture;
pub mod format;
pub mod read;
