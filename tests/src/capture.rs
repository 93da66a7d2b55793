//! Capture files: written in every form that the dataplane reads, read back with a reader of our own,
//! and made by tcpdump from a device.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{Netns, process::Running, wait_until};

/// How a capture is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The classic format, microseconds.
    Micro,
    /// The classic format, nanoseconds.
    Nano,
    /// pcapng; frames alternate between three interfaces of different resolutions.
    Pcapng,
}

/// Which byte comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endian {
    /// The lowest.
    Little,
    /// The highest.
    Big,
}

/// What is around the capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Nothing.
    Plain,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// The link type of Ethernet.
pub const ETHERNET: u32 = 1;

/// One frame of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was captured, in nanoseconds since 1970.
    pub at: u64,
    /// Its bytes, as many as were captured.
    pub frame: Vec<u8>,
}

/// Frames `gap` nanoseconds apart.
pub fn records(frames: &[Vec<u8>], gap: u64) -> Vec<Record> {
    /// In 2023; a whole second, so that every resolution can say it.
    const BEGAN: u64 = 1_700_000_000_000_000_000;
    frames
        .iter()
        .zip(0_u64..)
        .map(|(frame, number)| Record {
            at: BEGAN + number * gap,
            frame: frame.clone(),
        })
        .collect()
}

struct Bytes {
    bytes: Vec<u8>,
    endian: Endian,
}

impl Bytes {
    fn u16(&mut self, value: u16) {
        self.bytes.extend(match self.endian {
            Endian::Little => value.to_le_bytes(),
            Endian::Big => value.to_be_bytes(),
        });
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend(match self.endian {
            Endian::Little => value.to_le_bytes(),
            Endian::Big => value.to_be_bytes(),
        });
    }

    /// A pcapng block: its type, its length before and after the body, which is padded to 32 bits.
    fn block(&mut self, kind: u32, body: impl FnOnce(&mut Self)) {
        let mut inner = Self {
            bytes: Vec::new(),
            endian: self.endian,
        };
        body(&mut inner);
        inner.pad();
        let length = inner.bytes.len() as u32 + 12;
        self.u32(kind);
        self.u32(length);
        self.bytes.extend(inner.bytes);
        self.u32(length);
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A capture in memory.
pub fn encode(records: &[Record], format: Format, endian: Endian, link_type: u32) -> Vec<u8> {
    let mut out = Bytes {
        bytes: Vec::new(),
        endian,
    };
    match format {
        Format::Micro => classic(&mut out, records, 0xa1b2_c3d4, 1_000, link_type),
        Format::Nano => classic(&mut out, records, 0xa1b2_3c4d, 1, link_type),
        Format::Pcapng => pcapng(&mut out, records, link_type),
    }
    out.bytes
}

fn classic(out: &mut Bytes, records: &[Record], magic: u32, unit: u64, link_type: u32) {
    out.u32(magic);
    out.u16(2);
    out.u16(4);
    for value in [0, 0, 262_144, link_type] {
        out.u32(value);
    }
    for record in records {
        out.u32((record.at / 1_000_000_000) as u32);
        out.u32((record.at % 1_000_000_000 / unit) as u32);
        out.u32(record.frame.len() as u32);
        out.u32(record.frame.len() as u32);
        out.bytes.extend(&record.frame);
    }
}

/// Resolutions of the three interfaces: none said (microseconds), nanoseconds, and 2^-20 s.
const RESOLUTIONS: [Option<u8>; 3] = [None, Some(9), Some(0x80 | 20)];

fn pcapng(out: &mut Bytes, records: &[Record], link_type: u32) {
    out.block(0x0a0d_0d0a, |section| {
        section.u32(0x1a2b_3c4d);
        section.u16(1);
        section.u16(0);
        section.u32(u32::MAX);
        section.u32(u32::MAX);
    });
    for resolution in RESOLUTIONS {
        out.block(1, |interface| {
            interface.u16(link_type as u16);
            interface.u16(0);
            interface.u32(0);
            if let Some(resolution) = resolution {
                interface.u16(9);
                interface.u16(1);
                interface.bytes.extend([resolution, 0, 0, 0]);
                interface.u16(0);
                interface.u16(0);
            }
        });
    }
    for (record, number) in records.iter().zip(0_usize..) {
        let interface = number % RESOLUTIONS.len();
        let ticks = match RESOLUTIONS[interface] {
            None => record.at / 1_000,
            Some(9) => record.at,
            Some(_) => (u128::from(record.at) * (1 << 20) / 1_000_000_000) as u64,
        };
        out.block(6, |packet| {
            packet.u32(interface as u32);
            packet.u32((ticks >> 32) as u32);
            packet.u32(ticks as u32);
            packet.u32(record.frame.len() as u32);
            packet.u32(record.frame.len() as u32);
            packet.bytes.extend(&record.frame);
        });
        // A block that no reader need know.
        if number % 5 == 0 {
            out.block(0x0bad_cafe, |unknown| unknown.u32(number as u32));
        }
    }
}

/// Packs bytes.
pub fn pack(bytes: Vec<u8>, packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => bytes,
        Packing::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&bytes).expect("memory");
            encoder.finish().expect("memory")
        }
        Packing::Zstd => zstd::encode_all(&bytes[..], 1).expect("memory"),
    }
}

/// Writes a classic capture of frames a millisecond apart into a file.
pub fn write(path: &Path, frames: &[Vec<u8>]) {
    let bytes = encode(
        &records(frames, 1_000_000),
        Format::Micro,
        Endian::Little,
        ETHERNET,
    );
    fs::write(path, bytes).expect("a writable folder");
}

/// What a classic capture holds, and its link type. The error says what is wrong and where; what comes
/// before that is given with it.
pub fn decode(bytes: &[u8]) -> Result<(u32, Vec<Record>), (String, Vec<Record>)> {
    let fail = |what: &str, records| Err((what.to_owned(), records));
    let Some(header) = bytes.get(..24) else {
        return fail("shorter than a header", Vec::new());
    };
    let magic = [header[0], header[1], header[2], header[3]];
    let (endian, unit) = match magic {
        [0xd4, 0xc3, 0xb2, 0xa1] => (Endian::Little, 1_000),
        [0xa1, 0xb2, 0xc3, 0xd4] => (Endian::Big, 1_000),
        [0x4d, 0x3c, 0xb2, 0xa1] => (Endian::Little, 1),
        [0xa1, 0xb2, 0x3c, 0x4d] => (Endian::Big, 1),
        _ => return fail("not a classic capture", Vec::new()),
    };
    let u32_at = |at: usize| {
        let word = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(match endian {
            Endian::Little => u32::from_le_bytes(word),
            Endian::Big => u32::from_be_bytes(word),
        })
    };
    let link_type = u32_at(20).expect("within the header") & 0x0fff_ffff;
    let mut records = Vec::new();
    let mut at = 24;
    while at < bytes.len() {
        let (Some(seconds), Some(fraction), Some(length)) =
            (u32_at(at), u32_at(at + 4), u32_at(at + 8))
        else {
            return fail(&format!("cut at {at}"), records);
        };
        let Some(frame) = bytes.get(at + 16..at + 16 + length as usize) else {
            return fail(&format!("{length} bytes at {at}"), records);
        };
        records.push(Record {
            at: u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * unit,
            frame: frame.to_vec(),
        });
        at += 16 + length as usize;
    }
    Ok((link_type, records))
}

/// Panics, with the first difference, unless both hold the same frames in the same order.
pub fn assert_same(got: &[Vec<u8>], want: &[Vec<u8>]) {
    if got == want {
        return;
    }
    let at = got
        .iter()
        .zip(want)
        .position(|(got, want)| got != want)
        .unwrap_or(got.len().min(want.len()));
    let hex = |frame: Option<&Vec<u8>>| {
        frame.map_or_else(
            || "none".to_owned(),
            |frame| {
                let mut text = format!("{} bytes ", frame.len());
                for byte in frame.iter().take(80) {
                    let _ = write!(text, "{byte:02x}");
                }
                text
            },
        )
    };
    panic!(
        "{} frames instead of {}; frame {at} is\n{}\ninstead of\n{}",
        got.len(),
        want.len(),
        hex(got.get(at)),
        hex(want.get(at))
    );
}

/// tcpdump, listening. Dropped, it is killed.
pub struct Listening {
    running: Running,
    file: PathBuf,
    _folder: TempDir,
}

impl Listening {
    /// Starts it on an interface; answers when it listens.
    pub fn start(ns: &Netns, interface: &str) -> Self {
        Self::start_with(ns, interface, "")
    }

    /// The same for the frames only that a filter of tcpdump lets through.
    pub fn start_with(ns: &Netns, interface: &str, filter: &str) -> Self {
        let mut started = Self::spawn(ns, interface, filter);
        started
            .running
            .wait_for_stderr("listening on", Duration::from_secs(10));
        started
    }

    fn spawn(ns: &Netns, interface: &str, filter: &str) -> Self {
        let folder = crate::daemon::folder();
        let file = folder.path().join("heard.pcap");
        let running = ns
            .tool("tcpdump")
            .args(["-i", interface, "-Z", "root", "-n", "-U"])
            // Immediate: what the kernel has is written, not held for a full block. Its ring is
            // divided into slots of the snapshot length, hence not the default of 256 KiB.
            .args(["--immediate-mode", "-s", "9216", "-B", "131072", "-w"])
            .arg(&file)
            .arg(filter)
            .spawn();
        Self {
            running,
            file,
            _folder: folder,
        }
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// What it has written so far.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        let bytes = fs::read(&self.file).unwrap_or_default();
        let records = match decode(&bytes) {
            Ok((_, records)) | Err((_, records)) => records,
        };
        records.into_iter().map(|record| record.frame).collect()
    }

    /// Waits until it has heard so many frames, at most `limit`; the caller compares.
    pub fn wait_for(&self, count: usize, limit: Duration) -> Vec<Vec<u8>> {
        wait_until(limit, || self.frames().len() >= count);
        self.frames()
    }

    /// Ends it, if its device's end has not, and answers with all that it heard. Panics when the kernel
    /// dropped something on the way to it: then the test's listener was too slow, not the dataplane.
    pub fn finish(mut self) -> Vec<Vec<u8>> {
        if !self.running.has_ended() {
            self.running.signal(Signal::SIGINT);
        }
        let ended = self.running.wait(Duration::from_secs(10));
        assert!(ended.is_some(), "tcpdump does not end\n{}", self.running);
        let said = self.running.stderr();
        assert!(
            said.contains("\n0 packets dropped by kernel"),
            "tcpdump lost frames\n{said}"
        );
        self.frames()
    }

    /// Waits until it ends because its device is gone, and answers like [`Self::finish`].
    pub fn after_the_device(mut self) -> Vec<Vec<u8>> {
        let ended = self.running.wait(Duration::from_secs(10));
        assert!(ended.is_some(), "tcpdump's device stayed\n{}", self.running);
        self.finish()
    }
}
