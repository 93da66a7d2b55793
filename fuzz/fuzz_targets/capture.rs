//! The readers of capture files, plain and compressed: no file makes them panic, hand out more than a
//! frame may have, or go on behind an error; and reading bytes one by one gives what reading them at
//! once gives. libFuzzer's `-malloc_limit_mb` and `-rss_limit_mb` watch the memory.
#![no_main]

use std::io::{self, Read};

use dataplane::port::pcap::format::{CaptureReader, MAX_FRAME};
use libfuzzer_sys::fuzz_target;

/// A few bytes of a compressed file can be gigabytes of frames: enough is enough.
const RECORDS: u64 = 4096;

/// Hands out at most one byte a read, as a slow pipe would.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = into.len().min(1);
        self.0.read(&mut into[..n])
    }
}

/// Everything that a caller learns of a file.
#[derive(Debug, PartialEq)]
struct Outcome {
    frames: Vec<(Option<u64>, u32, Vec<u8>)>,
    offset: u64,
    error: Option<String>,
}

fn read(stream: impl Read) -> Outcome {
    let mut outcome = Outcome {
        frames: Vec::new(),
        offset: 0,
        error: None,
    };
    let mut reader = match CaptureReader::new(stream) {
        Ok(reader) => reader,
        Err(error) => {
            outcome.error = Some(error.to_string());
            return outcome;
        }
    };
    while reader.records() < RECORDS {
        match reader.next_record() {
            Ok(Some(record)) => {
                assert!(record.data.len() <= MAX_FRAME);
                // The first bytes tell records apart; whole frames would make the fuzzer slow.
                let start = record.data[..record.data.len().min(64)].to_vec();
                outcome
                    .frames
                    .push((record.timestamp, record.original, start));
            }
            Ok(None) => break,
            Err(error) => {
                let message = error.to_string();
                assert!(!message.contains('\n'), "one line: {message}");
                outcome.error = Some(message);
                break;
            }
        }
    }
    if outcome.error.is_some() {
        assert!(
            matches!(reader.next_record(), Ok(None)),
            "went on behind an error"
        );
    }
    assert_eq!(reader.records(), outcome.frames.len() as u64);
    outcome.offset = reader.offset();
    outcome
}

/// What a decompressor hands out before it notices that its input is corrupt depends on how much it was
/// given at a time; of a plain file nothing does.
fn is_compressed(file: &[u8]) -> bool {
    matches!(
        file,
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]
    )
}

fuzz_target!(|file: &[u8]| {
    let (whole, trickled) = (read(file), read(Trickle(file)));
    if is_compressed(file) && (whole.error.is_some() || trickled.error.is_some()) {
        let common = whole.frames.len().min(trickled.frames.len());
        assert_eq!(whole.frames[..common], trickled.frames[..common]);
    } else {
        assert_eq!(whole, trickled);
    }
});
