//! Writes pcapng (draft-ietf-opsawg-pcapng): a section header, an interface description for each source,
//! and enhanced packet blocks with times in nanoseconds. Little-endian, as every machine that this runs on.

use super::MAX_FRAME;

/// Block types (section 11.1 of the draft).
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

/// Tells the byte order of a section (section 4.1).
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;

/// Options: the end of all (section 3.5), the program that writes (4.1), an interface's name and the
/// exponent of its times' unit (4.2).
const END_OF_OPTIONS: u16 = 0;
const USER_APPLICATION: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;

/// What an enhanced packet block has beside its frame and the padding behind it, in bytes (section 4.3).
const PACKET_OVERHEAD: usize = 32;

/// Bytes of the block of the longest frame.
pub(crate) const LONGEST_PACKET: usize = packet_len(MAX_FRAME);

/// The beginning of a file: the section header, and a description of each interface, whose number is its
/// place. All have one link type and one snapshot length: libpcap reads no file where they differ.
pub(crate) fn beginning(program: &str, interfaces: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    block(&mut bytes, SECTION_HEADER, |body| {
        body.extend(BYTE_ORDER_MAGIC.to_le_bytes());
        body.extend(1u16.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        // The section's length: not known.
        body.extend(u64::MAX.to_le_bytes());
        option(body, USER_APPLICATION, program.as_bytes());
        option(body, END_OF_OPTIONS, &[]);
    });
    for name in interfaces {
        block(&mut bytes, INTERFACE_DESCRIPTION, |body| {
            body.extend(ETHERNET.to_le_bytes());
            body.extend(0u16.to_le_bytes());
            body.extend((MAX_FRAME as u32).to_le_bytes());
            option(body, IF_NAME, name.as_bytes());
            option(body, IF_TSRESOL, &[9]);
            option(body, END_OF_OPTIONS, &[]);
        });
    }
    bytes
}

/// Bytes of the enhanced packet block of a frame.
#[inline]
pub(crate) const fn packet_len(frame: usize) -> usize {
    PACKET_OVERHEAD + frame.next_multiple_of(4)
}

/// Appends a frame's enhanced packet block: [`packet_len`] bytes. The frame has `frame` bytes in `parts`. `time` is nanoseconds since 1970.
#[inline]
pub(crate) fn packet<'a>(
    bytes: &mut Vec<u8>,
    interface: u32,
    time: u64,
    frame: usize,
    parts: impl Iterator<Item = &'a [u8]>,
) {
    let total = packet_len(frame) as u32;
    let length = frame as u32;
    let mut head = [0; PACKET_OVERHEAD - 4];
    let words = [
        ENHANCED_PACKET,
        total,
        interface,
        (time >> 32) as u32,
        time as u32,
        length,
        // Its original length: nothing is cut here.
        length,
    ];
    for (into, word) in head.chunks_exact_mut(4).zip(words) {
        into.copy_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&head);
    for part in parts {
        bytes.extend_from_slice(part);
    }
    let padding = frame.next_multiple_of(4) - frame;
    bytes.extend_from_slice(&[0; 3][..padding]);
    bytes.extend_from_slice(&total.to_le_bytes());
}

/// The first of several packet blocks as [`packet`] wrote them: its bytes and how long its frame is.
#[inline]
pub(crate) fn first_packet(blocks: &[u8]) -> Option<(usize, usize)> {
    let word = |at: usize| {
        let bytes = blocks.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    Some((word(4)?, word(20)?))
}

fn block(bytes: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend(kind.to_le_bytes());
    bytes.extend([0; 4]);
    body(bytes);
    let total = ((bytes.len() - start + 4) as u32).to_le_bytes();
    bytes[start + 4..start + 8].copy_from_slice(&total);
    bytes.extend(total);
}

fn option(bytes: &mut Vec<u8>, code: u16, value: &[u8]) {
    bytes.extend(code.to_le_bytes());
    bytes.extend((value.len() as u16).to_le_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{CaptureReader, Format};
    use super::*;

    type Frame = (u32, u64, Vec<u8>);
    /// Name, link type, snapshot length, resolution.
    type Interface = (String, i32, u32, u8);

    fn written(interfaces: &[String], frames: &[Frame]) -> Vec<u8> {
        let mut bytes = beginning("dataplane test", interfaces);
        for (interface, time, frame) in frames {
            let before = bytes.len();
            packet(
                &mut bytes,
                *interface,
                *time,
                frame.len(),
                std::iter::once(&frame[..]),
            );
            let block = &bytes[before..];
            assert_eq!(block.len(), packet_len(frame.len()));
            assert_eq!(first_packet(block), Some((block.len(), frame.len())));
        }
        bytes
    }

    /// As the reader of this crate has it: without interfaces.
    fn read(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut reader = CaptureReader::new(bytes).expect("a capture");
        assert_eq!(reader.format(), Format::Pcapng);
        let mut frames = Vec::new();
        while let Some(record) = reader.next_record().expect("a whole file") {
            assert_eq!(record.original as usize, record.data.len());
            frames.push((record.timestamp.expect("a time"), record.data.to_vec()));
        }
        frames
    }

    /// As `pcap-parser` has it: the names, link types, snapshot lengths and resolutions of the interfaces,
    /// and the frames with the number of theirs.
    fn parsed(bytes: &[u8]) -> (Vec<Interface>, Vec<Frame>) {
        use pcap_parser::{Block, OptionCode, PcapBlockOwned, PcapError};
        let mut reader = pcap_parser::create_reader(LONGEST_PACKET * 2, bytes).expect("a capture");
        let (mut interfaces, mut frames) = (Vec::new(), Vec::new());
        loop {
            match reader.next() {
                Ok((length, block)) => {
                    match block {
                        PcapBlockOwned::NG(Block::InterfaceDescription(i)) => {
                            let name = i.options.iter().find(|o| o.code == OptionCode::IfName);
                            let name = name.expect("a name");
                            let name = &name.value[..name.len as usize];
                            interfaces.push((
                                String::from_utf8(name.to_vec()).expect("UTF-8"),
                                i.linktype.0,
                                i.snaplen,
                                i.if_tsresol,
                            ));
                        }
                        PcapBlockOwned::NG(Block::EnhancedPacket(p)) => frames.push((
                            p.if_id,
                            u64::from(p.ts_high) << 32 | u64::from(p.ts_low),
                            p.data[..p.caplen as usize].to_vec(),
                        )),
                        _ => {}
                    }
                    reader.consume(length);
                }
                Err(PcapError::Eof) => return (interfaces, frames),
                Err(PcapError::Incomplete(_)) => reader.refill().expect("memory"),
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    #[test]
    fn interfaces_have_their_ports_names_and_agree() {
        let names: Vec<String> = ["uplink", "x", "a-name-of-32-bytes-which-is-most"]
            .map(str::to_owned)
            .to_vec();
        let (interfaces, frames) = parsed(&written(&names, &[]));
        assert!(frames.is_empty());
        let expected = names.into_iter().map(|name| (name, 1, 262_144, 9));
        assert_eq!(interfaces, expected.collect::<Vec<_>>());
    }

    #[test]
    fn frames_of_every_padding_and_the_longest_one() {
        let lengths = [0, 1, 2, 3, 4, 14, 60, 1514, 65_535, MAX_FRAME];
        let frames: Vec<Frame> = lengths
            .iter()
            .map(|&n| (0, u64::MAX - n as u64, (0..n).map(|i| i as u8).collect()))
            .collect();
        let bytes = written(&["a".to_owned()], &frames);
        assert!(parsed(&bytes).1 == frames);
        let without: Vec<_> = frames
            .into_iter()
            .map(|(_, at, bytes)| (at, bytes))
            .collect();
        assert!(read(&bytes) == without);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            frames in prop::collection::vec(
                (0u32..3, any::<u64>(), prop::collection::vec(any::<u8>(), 0..200)), 0..50),
        ) {
            let names = ["a", "b", "c"].map(str::to_owned);
            let bytes = written(&names, &frames);
            prop_assert_eq!(&parsed(&bytes).1, &frames);
            let without: Vec<_> = frames.into_iter().map(|(_, at, bytes)| (at, bytes)).collect();
            prop_assert_eq!(read(&bytes), without);
        }
    }
}
