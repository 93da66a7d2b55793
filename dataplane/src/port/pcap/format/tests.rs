//! What a reader makes of good, cut, damaged and foreign captures.

use std::io::{self, Read};

use proptest::prelude::*;

use super::*;
use crate::port::pcap::fixture::{
    Builder, KINDS, PACKINGS, Packing, capture, frames, pack, resolved,
};

type Read1 = (Option<u64>, Vec<u8>, u32);

/// Everything that can be read, and how it ends.
fn read_all(stream: impl Read) -> (Vec<Read1>, Result<(), ReadError>) {
    let mut records = Vec::new();
    let mut reader = match CaptureReader::new(stream) {
        Ok(reader) => reader,
        Err(error) => return (records, Err(error)),
    };
    let end = loop {
        match reader.next_record() {
            Ok(Some(r)) => records.push((r.timestamp, r.data.to_vec(), r.original)),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    assert_eq!(reader.records(), records.len() as u64);
    assert!(matches!(reader.next_record(), Ok(None)), "it has ended");
    (records, end)
}

/// A stream that gives at most a few bytes at a time, as a pipe may.
struct Dribble<'a>(&'a [u8], usize);

impl Read for Dribble<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.1.min(into.len()).min(self.0.len());
        into[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

#[test]
fn every_format_order_and_compression_reads_back() {
    let frames = frames(40, 1_234_567);
    for kind in KINDS {
        for big in [false, true] {
            for packing in PACKINGS {
                let bytes = pack(packing, &capture(kind, big, &frames));
                let (records, end) = read_all(&bytes[..]);
                end.unwrap_or_else(|e| panic!("{kind:?} {big} {packing:?}: {e}"));
                let expected: Vec<_> = frames
                    .iter()
                    .map(|(t, d)| (resolved(kind, *t), d.clone(), d.len() as u32))
                    .collect();
                assert_eq!(records, expected, "{kind:?} {big} {packing:?}");
            }
        }
    }
}

#[test]
fn a_file_cut_at_any_byte_gives_all_whole_records_and_an_offset() {
    let frames = frames(5, 1000);
    for kind in KINDS {
        for big in [false, true] {
            let whole = capture(kind, big, &frames);
            // Where each record ends: a capture of the first n frames is a prefix of the whole.
            let ends: Vec<_> = (0..=frames.len())
                .map(|n| capture(kind, big, &frames[..n]).len())
                .collect();
            for cut in 0..whole.len() {
                let (records, end) = read_all(&whole[..cut]);
                let complete = ends.iter().filter(|&&e| e <= cut).count().max(1) - 1;
                assert_eq!(records.len(), complete, "{kind:?} {big} cut at {cut}");
                match end {
                    // Between two blocks nothing tells a cut from an end.
                    Ok(()) => assert!(
                        ends.contains(&cut) || cut == 28,
                        "{kind:?} {big} cut at {cut}"
                    ),
                    Err(error) => {
                        let offset = error.offset().expect("an offset");
                        let told = match error {
                            ReadError::Foreign { .. } => cut < 4 && offset == 0,
                            _ => offset == cut as u64,
                        };
                        assert!(told, "{kind:?} {big} cut at {cut}: {error}");
                        assert!(error.to_string().contains("byte") || cut == 0);
                    }
                }
            }
        }
    }
}

#[test]
fn a_compressed_file_cut_at_any_byte_never_ends_well() {
    let frames = frames(5, 1000);
    let plain = capture(KINDS[0], false, &frames);
    for packing in [Packing::Gzip, Packing::Zstd] {
        let whole = pack(packing, &plain);
        let complete = read_all(&whole[..]).0;
        for cut in 0..whole.len() {
            let (records, end) = read_all(&whole[..cut]);
            let error = end.expect_err("a cut file");
            assert!(error.offset().is_some(), "{error}");
            assert!(complete.starts_with(&records), "{packing:?} cut at {cut}");
        }
    }
}

#[test]
fn members_and_frames_may_follow_each_other() {
    let frames = frames(9, 1000);
    let bytes = capture(KINDS[2], true, &frames);
    let skippable = [0x53, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
    for packing in [Packing::Gzip, Packing::Zstd] {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let mut packed = pack(packing, first);
        packed.extend(pack(packing, second));
        if packing == Packing::Zstd {
            packed = [&skippable[..], &packed].concat();
        }
        let (records, end) = read_all(Dribble(&packed, 3));
        end.expect("a good file");
        assert_eq!(records.len(), 9);
    }
}

#[test]
fn corrupt_compressed_data_is_named() {
    let plain = capture(KINDS[0], false, &frames(2000, 1000));
    for packing in [Packing::Gzip, Packing::Zstd] {
        let mut packed = pack(packing, &plain);
        let last = packed.len() - 6;
        packed[last] ^= 0x55;
        let (_, end) = read_all(&packed[..]);
        let message = end.expect_err("a broken checksum").to_string();
        if packing == Packing::Gzip {
            assert!(message.contains("of the uncompressed stream"), "{message}");
        }
    }
}

#[test]
fn sections_orders_interfaces_and_options() {
    let data = [7u8; 60];
    let little = Builder::new(false)
        .section()
        // An unknown option, milliseconds, an hour later, and no end of options.
        .interface(1, 0, |b| {
            b.option(2, b"eth0")
                .option(9, &[3])
                .option(14, &3600i64.to_le_bytes())
        })
        .interface(101, 0, |b| b)
        .interface(1, 40, |b| b.option(9, &[0x80 | 10]))
        // Name resolution, an unknown block, statistics: skipped.
        .block(4, |b| b.raw(&[0; 37]))
        .block(0x0bad_0bad, |b| b.raw(&[9; 5000]))
        .block(5, |b| b.u32(0).u64(0))
        .enhanced(0, 1500, 60, &data)
        .enhanced(2, 2048, 1500, &data)
        // Comment, end of options behind the data.
        .block(6, |b| {
            b.u32(0)
                .u32(0)
                .u32(7)
                .u32(3)
                .u32(3)
                .raw(b"abc\0")
                .option(1, b"a comment")
                .option(0, &[])
        })
        .bytes;
    let big = Builder::new(true)
        .section()
        .interface(1, 16, |b| b)
        .block(3, |b| b.u32(1000).raw(&[8; 16]))
        .enhanced(0, 5_000_000, 60, &data)
        .bytes;
    let (records, end) = read_all(&[little, big].concat()[..]);
    end.expect("a good file");
    assert_eq!(
        records,
        [
            (Some(3_601_500_000_000), data.to_vec(), 60),
            (Some(2_000_000_000), data.to_vec(), 1500),
            (Some(3_600_007_000_000), b"abc".to_vec(), 3),
            (None, vec![8; 16], 1000),
            (Some(5_000_000_000), data.to_vec(), 60),
        ]
    );
}

#[test]
fn frames_up_to_the_bound_are_read_whatever_the_snaplen_says() {
    let jumbo = vec![1; MAX_FRAME];
    for kind in KINDS {
        let bytes = capture(kind, false, &[(0, jumbo.clone())]);
        let (records, end) = read_all(&bytes[..]);
        end.expect("a good file");
        assert!(records[0].1 == jumbo);
    }
    let cut = Builder::new(false)
        .classic(0xa1b2_c3d4, 1)
        .record(1, 0, 60, 1500, &[0; 60])
        .bytes;
    let mut reader = CaptureReader::new(&cut[..]).expect("a header");
    let record = reader.next_record().expect("a record").expect("one");
    assert!(record.original as usize > record.data.len());
}

#[test]
fn an_empty_capture_is_a_capture() {
    for kind in KINDS {
        let (records, end) = read_all(&capture(kind, true, &[])[..]);
        end.expect("a good file");
        assert!(records.is_empty());
    }
}

#[test]
fn what_is_wrong_is_named() {
    let classic = || Builder::new(false).classic(0xa1b2_c3d4, 1);
    let section = || Builder::new(true).section();
    let long = MAX_FRAME as u32 + 1;
    let mut unequal = section().interface(1, 0, |b| b).bytes;
    let tail = unequal.len() - 1;
    unequal[tail] += 4;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", vec![], "the file is empty"),
        (
            "packed nothing",
            pack(Packing::Gzip, &[]),
            "the uncompressed stream (gzip) is empty",
        ),
        (
            "text",
            b"#!/bin/sh".to_vec(),
            "not a capture: the file begins with [23, 21, 2f, 62] at byte 0",
        ),
        ("xz", b"\xfd7zXZ\0".to_vec(), "an xz file"),
        ("snoop", b"snoop\0\0\0".to_vec(), "a snoop capture"),
        (
            "Kuznetzov",
            Builder::new(true).classic(0xa1b2_cd34, 1).bytes,
            "Kuznetzov",
        ),
        (
            "Kuznetzov",
            Builder::new(false).classic(0xa1b2_cd34, 1).bytes,
            "Kuznetzov",
        ),
        (
            "version",
            Builder::new(true)
                .u32(0xa1b2_c3d4)
                .u16(3)
                .raw(&[0; 18])
                .bytes,
            "version 3.0 of pcap at byte 4",
        ),
        (
            "SLL",
            Builder::new(false).classic(0xa1b2_c3d4, 113).bytes,
            "link type 113 (LINUX_SLL), and only ETHERNET (1)",
        ),
        (
            "NULL",
            Builder::new(false).classic(0xa1b2_c3d4, 0).bytes,
            "link type 0 (NULL)",
        ),
        (
            "unheard of",
            Builder::new(false).classic(0xa1b2_c3d4, 9999).bytes,
            "link type 9999,",
        ),
        (
            "too long",
            classic()
                .record(0, 0, 3, 3, b"abc")
                .record(0, 0, long, 60, &[])
                .bytes,
            "corrupt: record 2 at byte 43 of the file claims 262145 captured bytes (at most 262144)",
        ),
        (
            "packed too long",
            pack(Packing::Zstd, &classic().record(0, 0, long, 60, &[]).bytes),
            "record 1 at byte 24 of the uncompressed stream (zstd) claims 262145",
        ),
        (
            "cut",
            classic().record(0, 0, 60, 60, &[0; 10]).bytes,
            "truncated: record 1 begins at byte 24, and the file ends at byte 50",
        ),
        (
            "order",
            Builder::new(true)
                .block(0x0a0d_0d0a, |b| b.u32(1).u64(0).u64(0))
                .bytes,
            "byte order magic [00, 00, 00, 01]",
        ),
        (
            "version",
            Builder::new(true)
                .block(0x0a0d_0d0a, |b| b.u32(0x1a2b_3c4d).u16(2).u16(0).u64(0))
                .bytes,
            "version 2.0 of pcapng at byte 12",
        ),
        (
            "short section",
            Builder::new(true)
                .block(0x0a0d_0d0a, |b| b.u32(0x1a2b_3c4d).u32(0))
                .bytes,
            "the capture header at byte 0 of the file needs 12 bytes where it has 4 left",
        ),
        (
            "unaligned",
            section().u32(4).u32(13).raw(&[0; 5]).bytes,
            "the block of type 0x00000004 at byte 28 of the file claims an impossible length of 13",
        ),
        (
            "small",
            section().u32(4).u32(8).bytes,
            "impossible length of 8",
        ),
        (
            "huge",
            section().u32(4).u32(1 << 30).bytes,
            "impossible length of 1073741824",
        ),
        (
            "unequal",
            unequal,
            "has 20 bytes by its head and 24 by its tail",
        ),
        (
            "no interface",
            section().enhanced(0, 0, 3, b"abc").bytes,
            "record 1 at byte 28 of the file is of interface 0, but 0 are described",
        ),
        (
            "no interface",
            section().block(3, |b| b.u32(0)).bytes,
            "is of interface 0",
        ),
        (
            "an earlier section's",
            section()
                .interface(1, 0, |b| b)
                .section()
                .enhanced(0, 0, 3, b"abc")
                .bytes,
            "of interface 0",
        ),
        (
            "too long",
            section()
                .interface(1, 0, |b| b)
                .block(6, |b| b.u32(0).u64(0).u32(long).u32(60))
                .bytes,
            "claims 262145 captured",
        ),
        (
            "longer than its block",
            section()
                .interface(1, 0, |b| b)
                .block(6, |b| b.u32(0).u64(0).u32(60).u32(60).raw(&[0; 56]))
                .bytes,
            "needs 60 bytes where it has 56 left",
        ),
        (
            "longer than its block",
            section()
                .interface(1, 0, |b| b)
                .block(3, |b| b.u32(60).raw(&[0; 56]))
                .bytes,
            "needs 60 bytes",
        ),
        (
            "other link",
            section()
                .interface(228, 0, |b| b)
                .enhanced(0, 0, 3, b"abc")
                .bytes,
            "record 1 at byte 48 of the file is of link type 228 (IPV4)",
        ),
        (
            "option",
            section().interface(1, 0, |b| b.option(9, &[6, 6])).bytes,
            "option 9 with 2 bytes",
        ),
        (
            "option",
            section().interface(1, 0, |b| b.u16(3).u16(400)).bytes,
            "needs 400 bytes where it has 0 left",
        ),
        (
            "half a block",
            section().u32(4).bytes,
            "a block header begins at byte 28, and the file ends at byte 32",
        ),
    ];
    for (name, bytes, expected) in cases {
        let (_, end) = read_all(&bytes[..]);
        let error = end.expect_err(name);
        let message = error.to_string();
        assert!(message.contains(expected), "{name}: {message}");
        assert!(!message.contains('\n'));
        assert!(error.offset().is_some());
    }
}

#[test]
fn more_interfaces_than_any_file_has_are_refused() {
    let mut capture = Builder::new(false).section();
    for _ in 0..=65_536 {
        capture = capture.interface(1, 0, |b| b);
    }
    let (_, end) = read_all(&capture.bytes[..]);
    let error = end.expect_err("too many");
    assert!(error.to_string().contains("one interface more than 65536"));
}

#[test]
fn a_failing_read_is_the_kernels_word() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
    }
    let good = capture(KINDS[0], false, &frames(3, 0));
    let (records, end) = read_all(good.chain(Failing));
    assert_eq!(records.len(), 3);
    assert!(matches!(end, Err(ReadError::Io { offset, .. }) if offset == good.len() as u64));
    let packed = pack(Packing::Gzip, &good);
    let (_, end) = read_all(packed[..packed.len() - 8].chain(Failing));
    assert!(matches!(end, Err(ReadError::Io { .. })));
}

fn any_frames() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
    let frame = proptest::collection::vec(any::<u8>(), 0..200);
    // Classic captures count seconds in 32 bits.
    proptest::collection::vec((0..u64::from(u32::MAX) * 1_000_000_000, frame), 0..30)
}

proptest! {
    #[test]
    fn written_is_read(
        frames in any_frames(),
        kind in proptest::sample::select(&KINDS[..]),
        big: bool,
        packing in proptest::sample::select(&PACKINGS[..]),
        piece in 1usize..300,
    ) {
        let bytes = pack(packing, &capture(kind, big, &frames));
        let (records, end) = read_all(Dribble(&bytes, piece));
        prop_assert!(end.is_ok(), "{:?}", end);
        let expected: Vec<_> = frames
            .into_iter()
            .map(|(t, d)| { let n = d.len() as u32; (resolved(kind, t), d, n) })
            .collect();
        prop_assert_eq!(records, expected);
    }

    #[test]
    fn anything_ends(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (_, end) = read_all(&bytes[..]);
        prop_assert!(end.is_err());
    }

    /// A good file is read as `pcap-parser` reads it. Of one with changed bytes both read the same frames,
    /// until one of them finds it broken.
    #[test]
    fn damage_is_survived_and_judged_like_the_reference(
        frames in any_frames(),
        kind in proptest::sample::select(&KINDS[..3]),
        big: bool,
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut bytes = capture(kind, big, &frames);
        for (at, value) in &damage {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        let (records, end) = read_all(&bytes[..]);
        let reference = reference(&bytes);
        for (mine, theirs) in records.iter().zip(&reference) {
            prop_assert_eq!(&mine.1, theirs);
        }
        if damage.is_empty() {
            prop_assert!(end.is_ok());
            prop_assert_eq!(records.len(), reference.len());
        }
    }
}

/// The packets that `pcap-parser` finds.
fn reference(bytes: &[u8]) -> Vec<Vec<u8>> {
    use pcap_parser::{Block, PcapBlockOwned, PcapError, traits::PcapNGPacketBlock};
    let mut packets = Vec::new();
    let Ok(mut reader) = pcap_parser::create_reader(1 << 16, bytes) else {
        return packets;
    };
    loop {
        match reader.next() {
            Ok((consumed, block)) => {
                match block {
                    PcapBlockOwned::Legacy(packet) => {
                        packets.push(packet.data[..packet.caplen as usize].to_vec());
                    }
                    PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                        packets.push(packet.packet_data().to_vec());
                    }
                    _ => {}
                }
                reader.consume(consumed);
            }
            Err(PcapError::Incomplete(_)) => {
                if reader.refill().is_err() || reader.reader_exhausted() {
                    return packets;
                }
            }
            Err(_) => return packets,
        }
    }
}
