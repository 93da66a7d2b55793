//! The frame parser: no frame makes it panic, what it says of a frame is consistent in itself, and
//! bytes behind the network layer's end change nothing.
#![no_main]

use dataplane::packet::{
    Fragment, Headers, MAX_FRAME, MAX_VLAN_TAGS, Network, finish_partial, parse, protocol,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let headers = parse(frame);
    assert_eq!(headers, parse(frame), "the same bytes, another answer");
    consistent(&headers, frame.len());
    if headers.fault.is_none() && headers.network != Network::Other {
        padding_is_not_read(&headers, frame);
    }
    checksum_changes_no_header(&headers, frame);
});

fn consistent(headers: &Headers, length: usize) {
    assert!(headers.vlan_tags <= MAX_VLAN_TAGS);
    assert!(headers.vlan_id < 1 << 12);
    assert!(headers.vlan_id == 0 || headers.vlan_tags > 0);
    assert!(usize::from(headers.network_offset) <= length);
    if headers.fault.is_some() {
        return;
    }
    assert!(headers.network_offset >= 14 && usize::from(headers.end) <= length);
    if headers.transport_offset != 0 {
        assert!(headers.network_offset < headers.transport_offset);
        assert!(headers.transport_offset <= headers.end);
    }
    if headers.fragment == Fragment::Later {
        assert_eq!(headers.transport_offset, 0, "there is no transport header");
    }
    let ports = matches!(headers.protocol, protocol::TCP | protocol::UDP)
        && headers.fragment != Fragment::Later;
    assert!(ports || (headers.src_port, headers.dst_port) == (0, 0));
    assert!(headers.protocol == protocol::TCP || headers.tcp_flags == 0);
    if headers.network == Network::V4 {
        assert!(headers.src <= u128::from(u32::MAX) && headers.dst <= u128::from(u32::MAX));
    }
}

/// A frame cut to its network layer's end, or padded, has the same headers.
fn padding_is_not_read(headers: &Headers, frame: &[u8]) {
    let end = usize::from(headers.end);
    assert_eq!(parse(&frame[..end]), *headers, "padding was read");
    let mut padded = frame.to_vec();
    padded.resize((frame.len() + 46).min(MAX_FRAME.max(frame.len())), 0xa5);
    assert_eq!(parse(&padded), *headers, "padding was read");
}

/// Finishing a checksum writes the checksum alone, and doing it again writes nothing new.
fn checksum_changes_no_header(headers: &Headers, frame: &[u8]) {
    let mut once = frame.to_vec();
    let wrote = finish_partial(&mut once, headers);
    let changed = once.iter().zip(frame).filter(|(a, b)| a != b).count();
    assert!(changed <= if wrote { 2 } else { 0 });
    assert_eq!(parse(&once), *headers);
    let mut twice = once.clone();
    finish_partial(&mut twice, headers);
    assert_eq!(once, twice);
}
