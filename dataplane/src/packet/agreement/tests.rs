//! The inputs on which both parsers must agree: built frames, mutated ones, random bytes, captures.

use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;

use super::*;
use crate::packet::build::{Arp, Extension, FragmentField, FrameBuilder, Icmp, Ipv4, Ipv6, Tag};
use crate::packet::described::frames;
use crate::packet::{parse, protocol};

fn agree(frame: &[u8]) -> Result<(), TestCaseError> {
    let reference = reference(frame);
    prop_assert_eq!(
        parse(frame),
        reference.headers,
        "differences {:?}, frame {:02x?}",
        reference.differences,
        &frame[..frame.len().min(200)]
    );
    Ok(())
}

/// What happens to a frame on its way into a fuzzer. Places are fractions of the first 128 bytes:
/// behind them is payload.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(Index, u8),
    Byte(Index, u8),
    Word(Index, u16),
    Truncate(Index),
    Append(Vec<u8>),
    /// A VLAN tag more, behind the addresses.
    Tag(u16),
}

impl Mutation {
    fn apply(&self, frame: &mut Vec<u8>) {
        let place = |index: &Index| (!frame.is_empty()).then(|| index.index(frame.len().min(128)));
        match self {
            Self::Flip(index, bit) => {
                if let Some(at) = place(index) {
                    frame[at] ^= 1 << bit;
                }
            }
            Self::Byte(index, value) => {
                if let Some(at) = place(index) {
                    frame[at] = *value;
                }
            }
            Self::Word(index, value) => {
                if let Some(at) = place(index)
                    && let Some(field) = frame.get_mut(at..at + 2)
                {
                    field.copy_from_slice(&value.to_be_bytes());
                }
            }
            Self::Truncate(index) => {
                let length = place(index).unwrap_or(0);
                frame.truncate(length);
            }
            Self::Append(bytes) => frame.extend_from_slice(bytes),
            Self::Tag(control) => {
                if frame.len() >= 12 {
                    let [high, low] = control.to_be_bytes();
                    frame.splice(12..12, [0x81, 0x00, high, low]);
                }
            }
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    // Numbers that mean something somewhere, for they are hard to hit by chance.
    const TELLING: &[u8] = &[
        0, 1, 4, 5, 6, 7, 8, 17, 43, 44, 50, 51, 58, 59, 60, 0x45, 0x46, 0x60, 0xff,
    ];
    prop_oneof![
        4 => (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        4 => (any::<Index>(), select(TELLING)).prop_map(|(at, byte)| Mutation::Byte(at, byte)),
        2 => (any::<Index>(), 0u16..256).prop_map(|(at, word)| Mutation::Word(at, word)),
        2 => any::<Index>().prop_map(Mutation::Truncate),
        1 => vec(any::<u8>(), 0..40).prop_map(Mutation::Append),
        1 => any::<u16>().prop_map(Mutation::Tag),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn on_built_and_mutated_frames(described in frames(), mutations in vec(mutation(), 0..8)) {
        let mut frame = described.frame();
        agree(&frame)?;
        for mutation in &mutations {
            mutation.apply(&mut frame);
            agree(&frame)?;
        }
    }

    #[test]
    fn on_random_bytes(
        mut frame in vec(any::<u8>(), 0..160),
        kind in select(&[0x0800u16, 0x86dd, 0x0806, 0x8100, 0x88a8, 0x9100, 0x88e5, 0x0100][..]),
        first in select(&[0x45u8, 0x4f, 0x60, 0x00][..]),
    ) {
        agree(&frame)?;
        // And with a start that leads somewhere.
        if let Some(field) = frame.get_mut(12..15) {
            field[..2].copy_from_slice(&kind.to_be_bytes());
            field[2] = first;
        }
        agree(&frame)?;
    }
}

#[test]
fn on_every_truncation_and_every_bit_of_typical_frames() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..100 {
        let described = frames().new_tree(&mut runner).unwrap().current();
        let frame = described.frame();
        for length in 0..frame.len() {
            agree(&frame[..length]).unwrap();
        }
        for bit in 0..frame.len() * 8 {
            let mut frame = frame.clone();
            frame[bit / 8] ^= 1 << (bit % 8);
            agree(&frame).unwrap();
        }
    }
}

#[test]
fn on_long_frames() {
    for kind in [0x0800u16, 0x86dd, 0x0806, 0x8100, 0x88b5] {
        for length in [0xffff, 0x1_0000, 70_000] {
            let mut frame = vec![0x45; length];
            frame[12..14].copy_from_slice(&kind.to_be_bytes());
            agree(&frame).unwrap();
            // The largest total and payload lengths that such a frame can state.
            for stated in [
                0xffffu16 - 14,
                0xffff - 13,
                0xffff - 54,
                0xffff - 53,
                0xffff,
            ] {
                frame[14] = if kind == 0x86dd { 0x60 } else { 0x45 };
                frame[16..18].copy_from_slice(&stated.to_be_bytes());
                frame[18..20].copy_from_slice(&stated.to_be_bytes());
                agree(&frame).unwrap();
            }
        }
    }
}

/// Frames that show one difference each, so that the list holds none that is no longer one.
#[test]
fn each_difference_is_met() {
    let v4 = Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let v6 = Ipv6::new(1.into(), 2.into());
    let later = FragmentField {
        offset: 1,
        more: false,
    };
    let arp = Arp {
        operation: 1,
        sender_mac: [2; 6],
        sender: [10, 0, 0, 1].into(),
        target_mac: [0; 6],
        target: [10, 0, 0, 2].into(),
    };
    let tags = [Tag::customer(1); 5];
    let options = [Extension::DestinationOptions(&[]); 9];
    let hop_by_hop = [Extension::HopByHop(&[])];
    let twice = [Extension::Fragment(FragmentField::WHOLE, 1); 2];
    let behind = [
        Extension::Fragment(later, 1),
        Extension::DestinationOptions(&[]),
    ];
    let plain = FrameBuilder::new();
    let built = |builder: FrameBuilder<'_>| builder.to_vec().unwrap();
    let with = |mut frame: Vec<u8>, at: usize, bytes: &[u8]| {
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let extended = |extensions| plain.clone().ipv6(Ipv6 { extensions, ..v6 }).udp(1, 2);
    let macsec = [0, 0, 0, 0, 0, 1, 0x08, 0x00, 0x45, 0, 0, 20];
    let frames = [
        (vec![0; 70_000], Difference::FrameTooLong),
        (built(plain.clone().tags(&tags[..4])), Difference::FourthTag),
        (built(plain.clone().tags(&tags)), Difference::FifthTag),
        (
            built(plain.clone().other(0x88e5).payload(&macsec)),
            Difference::Macsec,
        ),
        (
            with(built(plain.clone().arp(arp)), 14, &[0, 6]),
            Difference::ArpForOthers,
        ),
        (
            built(plain.clone().arp(Arp {
                operation: 257,
                ..arp
            })),
            Difference::ArpOperation,
        ),
        (
            built(
                plain
                    .clone()
                    .ipv4(Ipv4 {
                        fragment: later,
                        ..v4
                    })
                    .raw(protocol::AUTHENTICATION),
            ),
            Difference::BehindLaterFragmentV4,
        ),
        (built(extended(&behind)), Difference::BehindLaterFragmentV6),
        (
            with(built(extended(&hop_by_hop)), 18, &[0, 0]),
            Difference::Jumbogram,
        ),
        (
            with(built(extended(&[])), 18, &[0, 0]),
            Difference::EmptyPayload,
        ),
        (built(extended(&options)), Difference::NinthExtension),
        (built(extended(&twice)), Difference::SecondFragmentHeader),
        (
            built(
                plain
                    .clone()
                    .ipv4(v4)
                    .raw(protocol::ICMPV6)
                    .payload(&[0; 8]),
            ),
            Difference::ForeignIcmp,
        ),
        (
            built(plain.clone().ipv4(v4).icmp(Icmp {
                kind: 13,
                ..Icmp::default()
            })),
            Difference::IcmpTimestamp,
        ),
        (built(plain.clone().ipv4(v4).raw(2)), Difference::Igmp),
        (
            with(built(plain.clone().ipv4(v4).udp(1, 2)), 38, &[0, 0]),
            Difference::UdpLengthZero,
        ),
    ];
    let mut met = Vec::new();
    for (frame, difference) in frames {
        agree(&frame).unwrap();
        let found = reference(&frame).differences;
        assert!(
            found.contains(&difference),
            "{difference:?} not in {found:?}"
        );
        met.push(difference);
    }
    met.sort();
    assert_eq!(met, Difference::ALL);
}

/// Real frames, with what real senders do. The captures are not part of this repository.
#[test]
fn on_captures() {
    let Some(folder) = std::env::var_os("DATAPLANE_CAPTURES").map(PathBuf::from) else {
        println!("skipped: needs captures; name their folder in DATAPLANE_CAPTURES");
        return;
    };
    let mut frames = 0;
    for entry in std::fs::read_dir(&folder).expect("DATAPLANE_CAPTURES") {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "pcap")
        {
            frames += agree_on_file(&std::fs::read(&path).unwrap());
        }
    }
    assert!(
        frames > 0,
        "{} holds no classic pcap file with Ethernet",
        folder.display()
    );
    println!("agreed on {frames} captured frames");
}

/// Little-endian classic pcap with Ethernet, up to the first record that does not fit; the number of frames.
fn agree_on_file(file: &[u8]) -> usize {
    let word = |at: usize| Some(u32::from_le_bytes(*file.get(at..at + 4)?.first_chunk()?));
    if word(0) != Some(0xa1b2_c3d4) || word(20) != Some(1) {
        return 0;
    }
    let (mut at, mut frames) = (24, 0);
    while let Some(length) = word(at + 8)
        && let Some(frame) = file.get(at + 16..at + 16 + length as usize)
    {
        agree(frame).unwrap();
        // Cut short, as a snap length does.
        agree(&frame[..frame.len().min(60)]).unwrap();
        at += 16 + frame.len();
        frames += 1;
    }
    frames
}
