//! A capture file to be played: frames of ours, a hundred thousand by default, in a folder of its own that goes
//! with it.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::error::BenchError;

/// Time from frame to frame, in nanoseconds: what a player at the original pace would keep.
const GAP: u64 = 10_000;

/// A file of frames.
pub(crate) struct Capture {
    path: PathBuf,
    frames: u64,
    bytes: u64,
    _folder: TempDir,
}

impl Capture {
    /// Writes the frames of `mix`, one after the other and again, `count` in all.
    pub(crate) fn write(mix: &[Vec<u8>], count: u64) -> Result<Self, BenchError> {
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |error| BenchError::Capture { path, error }
        };
        let folder = tempfile::Builder::new()
            .prefix("dpbench-")
            .tempdir()
            .map_err(failed(&std::env::temp_dir()))?;
        let path = folder.path().join("sample.pcap");
        let bytes = write(&path, mix, count).map_err(failed(&path))?;
        Ok(Self {
            path,
            frames: count,
            bytes,
            _folder: folder,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of a frame, on average.
    pub(crate) fn mean(&self) -> usize {
        (self.bytes / self.frames.max(1)) as usize
    }
}

/// pcap with times in microseconds, which every tool reads. Answers the bytes of all frames.
fn write(path: &Path, mix: &[Vec<u8>], count: u64) -> io::Result<u64> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut head = Vec::with_capacity(24);
    head.extend(0xa1b2_c3d4u32.to_le_bytes());
    head.extend([2, 0, 4, 0]);
    head.extend([0; 8]);
    // Snapshot length, and LINKTYPE_ETHERNET.
    head.extend(65_535u32.to_le_bytes());
    head.extend(1u32.to_le_bytes());
    file.write_all(&head)?;
    let mut bytes = 0;
    for (n, frame) in (0..count).zip(mix.iter().cycle()) {
        let micros = n * GAP / 1000;
        let len = frame.len() as u32;
        for word in [
            (micros / 1_000_000) as u32,
            (micros % 1_000_000) as u32,
            len,
            len,
        ] {
            file.write_all(&word.to_le_bytes())?;
        }
        file.write_all(frame)?;
        bytes += u64::from(len);
    }
    file.into_inner()?.sync_data()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use dataplane::port::pcap::format::CaptureReader;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mix = [vec![1; 60], vec![2; 1514]];
        let capture = Capture::write(&mix, 5).expect("a temporary file");
        assert_eq!(capture.mean(), (3 * 60 + 2 * 1514) / 5);
        let bytes = fs::read(capture.path()).expect("the file");
        let mut reader = CaptureReader::new(&bytes[..]).expect("a capture");
        let mut frames = Vec::new();
        while let Some(record) = reader.next_record().expect("a record") {
            assert_eq!(record.timestamp, Some(frames.len() as u64 * GAP));
            frames.push(record.data.to_vec());
        }
        let expected: Vec<_> = mix.iter().cycle().take(5).cloned().collect();
        assert_eq!(frames, expected);
    }
}
