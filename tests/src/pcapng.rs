//! Recordings, read back by a reader of our own that takes nothing but whole blocks.

use std::{fs, path::Path};

use crate::capture::Record;

/// What a recording holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// The names of its interfaces.
    pub interfaces: Vec<String>,
    /// Its frames, each with the number of its interface.
    pub frames: Vec<(u32, Record)>,
}

impl Recording {
    /// The bytes of the frames.
    pub fn bytes(&self) -> Vec<Vec<u8>> {
        let frames = self.frames.iter();
        frames.map(|(_, record)| record.frame.clone()).collect()
    }

    /// The frames with their times.
    pub fn records(&self) -> Vec<Record> {
        let frames = self.frames.iter();
        frames.map(|(_, record)| record.clone()).collect()
    }
}

/// Reads a file, compressed or not. Panics unless it is whole.
pub fn read(path: &Path) -> Recording {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let bytes = match bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        true => zstd::decode_all(&bytes[..]).expect("whole frames of zstd"),
        false => bytes,
    };
    decode(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Reads little-endian pcapng with one section and times in nanoseconds, as the dataplane writes it.
pub fn decode(bytes: &[u8]) -> Result<Recording, String> {
    let word = |at: usize| -> Result<u32, String> {
        let word = bytes.get(at..at + 4).ok_or(format!("cut at {at}"))?;
        Ok(u32::from_le_bytes(word.try_into().expect("four bytes")))
    };
    let mut recording = Recording::default();
    let mut at = 0;
    while at < bytes.len() {
        let (kind, length) = (word(at)?, word(at + 4)? as usize);
        let block = bytes
            .get(at..at + length)
            .ok_or(format!("a block of {length} bytes at {at} is cut"))?;
        if length < 12 || word(at + length - 4)? as usize != length {
            return Err(format!("the lengths of the block at {at} differ"));
        }
        match kind {
            0x0a0d_0d0a if at == 0 => {}
            1 => {
                let options = &block[16..length - 4];
                let name = (options.get(..2) == Some(&[2, 0]))
                    .then(|| usize::from(options[2]))
                    .and_then(|n| options.get(4..4 + n));
                let name = name.ok_or("an interface without a name")?;
                recording
                    .interfaces
                    .push(String::from_utf8_lossy(name).into_owned());
            }
            6 => {
                let captured = word(at + 20)? as usize;
                let frame = block
                    .get(28..28 + captured)
                    .ok_or(format!("the frame at {at} is longer than its block"))?;
                let time = u64::from(word(at + 12)?) << 32 | u64::from(word(at + 16)?);
                let record = Record {
                    at: time,
                    frame: frame.to_vec(),
                };
                recording.frames.push((word(at + 8)?, record));
            }
            _ => return Err(format!("a block of type {kind:#x} at {at}")),
        }
        at += length;
    }
    match bytes.is_empty() {
        true => Err("empty".to_owned()),
        false => Ok(recording),
    }
}
