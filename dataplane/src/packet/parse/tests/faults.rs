//! Good frames, what is written over them, and the fault that must come of it.

use super::*;

/// What is written over a good frame, and the fault that must come of it.
struct Case {
    name: &'static str,
    frame: Vec<u8>,
    /// Places and the bytes that are put there.
    overwrite: &'static [(usize, &'static [u8])],
    /// Cut to this length, if not 0.
    cut: usize,
    fault: Option<Fault>,
}

fn check(cases: Vec<Case>) {
    for Case {
        name,
        mut frame,
        overwrite,
        cut,
        fault,
    } in cases
    {
        assert_eq!(parse(&frame).fault, None, "{name}: the frame before");
        for (at, bytes) in overwrite {
            frame[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        if cut != 0 {
            frame.truncate(cut);
        }
        let headers = parse(&frame);
        assert_eq!(headers.fault, fault, "{name}");
        if fault.is_some() {
            let behind = (headers.src_port, headers.dst_port, headers.tcp_flags);
            assert_eq!(behind, (0, 0, 0), "{name}: nothing behind a fault is read");
        }
    }
}

/// One line of a table.
macro_rules! case {
    ($name:literal, $frame:expr, $overwrite:expr, $cut:expr, $fault:expr) => {
        Case {
            name: $name,
            frame: $frame,
            overwrite: $overwrite,
            cut: $cut,
            fault: $fault,
        }
    };
}

#[test]
fn faults_of_link_and_arp() {
    let arp = || built(FrameBuilder::new().arp(ARP));
    let tagged = || built(tcp().tags(&[Tag::customer(1), Tag::customer(2)]).ipv4(V4));
    let deep = built(tcp().tags(&[Tag::customer(1); 4]).ipv4(V4));
    check(vec![
        case!("first tag cut", tagged(), &[], 17, Some(Fault::Truncated)),
        case!("second tag cut", tagged(), &[], 21, Some(Fault::Truncated)),
        case!(
            "tags, then nothing",
            tagged(),
            &[],
            22,
            Some(Fault::Truncated)
        ),
        case!(
            "a fifth tag",
            deep,
            &[(28, &[0x88, 0xa8])],
            0,
            Some(Fault::TooDeep)
        ),
        case!("ARP cut", arp(), &[], 41, Some(Fault::Truncated)),
        case!(
            "ARP for token ring",
            arp(),
            &[(IP, &[0, 6])],
            0,
            Some(Fault::Header)
        ),
        case!(
            "ARP for AppleTalk",
            arp(),
            &[(IP + 2, &[0x80])],
            0,
            Some(Fault::Header)
        ),
        case!(
            "ARP hardware length",
            arp(),
            &[(IP + 4, &[8])],
            0,
            Some(Fault::Header)
        ),
        case!(
            "ARP protocol length",
            arp(),
            &[(IP + 5, &[16])],
            0,
            Some(Fault::Header)
        ),
        case!(
            "ARP operation 257",
            arp(),
            &[(IP + 6, &[1, 1])],
            0,
            Some(Fault::Header)
        ),
        case!("ARP reply", arp(), &[(IP + 7, &[2])], 0, None),
    ]);
}

#[test]
fn faults_of_ipv4() {
    let frame = || built(udp().ipv4(V4).pad_to(60));
    let ah = || {
        let header = [6, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
        let payload = [&header[..], &[0; 12], &[0x50], &[0; 7]].concat();
        built(
            FrameBuilder::new()
                .ipv4(V4)
                .raw(protocol::AUTHENTICATION)
                .payload(&payload),
        )
    };
    check(vec![
        case!("no header", frame(), &[], IP, Some(Fault::Truncated)),
        case!("header cut", frame(), &[], IP + 19, Some(Fault::Truncated)),
        case!(
            "version 6",
            frame(),
            &[(IP, &[0x65])],
            0,
            Some(Fault::Header)
        ),
        case!(
            "header length 16",
            frame(),
            &[(IP, &[0x44])],
            0,
            Some(Fault::Header)
        ),
        case!(
            "options cut",
            frame(),
            &[(IP, &[0x4f])],
            60,
            Some(Fault::Truncated)
        ),
        case!(
            "total 19",
            frame(),
            &[(IP + 2, &[0, 19])],
            0,
            Some(Fault::Length)
        ),
        case!(
            "total beyond",
            frame(),
            &[(IP + 2, &[0, 47])],
            0,
            Some(Fault::Length)
        ),
        case!(
            "total 0",
            frame(),
            &[(IP + 2, &[0, 0])],
            0,
            Some(Fault::Length)
        ),
        case!("frame cut", frame(), &[], 48, Some(Fault::Length)),
        case!(
            "padding counted in",
            frame(),
            &[(IP + 2, &[0, 46])],
            0,
            None
        ),
        case!("reserved flag", frame(), &[(IP + 6, &[0x80])], 0, None),
        case!(
            "AH of 8 bytes",
            ah(),
            &[(V4_PAYLOAD + 1, &[0])],
            0,
            Some(Fault::Header)
        ),
        case!(
            "AH beyond",
            ah(),
            &[(V4_PAYLOAD + 1, &[7])],
            0,
            Some(Fault::Truncated)
        ),
        case!(
            "AH cut",
            ah(),
            &[(IP + 2, &[0, 31])],
            0,
            Some(Fault::Truncated)
        ),
    ]);
    assert_eq!(parse(&ah()).protocol, protocol::TCP);
    assert_eq!(parse(&ah()).transport_offset, 46);
}

#[test]
fn faults_of_ipv6() {
    let frame = || built(udp().ipv6(V6));
    let options = |extensions: &[Extension<'_>]| built(udp().ipv6(Ipv6 { extensions, ..V6 }));
    let eight = || options(&[Extension::DestinationOptions(&[]); 8]);
    let fragment = |field| options(&[Extension::Fragment(field, 1), Extension::Routing(&[])]);
    let ah = || options(&[Extension::Authentication(&[])]);
    let hop = || options(&[Extension::HopByHop(&[]), Extension::Routing(&[])]);
    const NINTH: &[(usize, &[u8])] = &[(V6_PAYLOAD + 56, &[60])];
    const AGAIN: &[(usize, &[u8])] = &[(V6_PAYLOAD, &[44])];
    check(vec![
        case!("header cut", frame(), &[], IP + 39, Some(Fault::Truncated)),
        case!(
            "version 4",
            frame(),
            &[(IP, &[0x45])],
            0,
            Some(Fault::Header)
        ),
        case!(
            "payload beyond",
            frame(),
            &[(IP + 4, &[0, 16])],
            0,
            Some(Fault::Length)
        ),
        case!(
            "frame cut",
            frame(),
            &[],
            V6_PAYLOAD + 14,
            Some(Fault::Length)
        ),
        case!(
            "payload 0",
            frame(),
            &[(IP + 4, &[0, 0])],
            0,
            Some(Fault::Truncated)
        ),
        case!(
            "jumbogram",
            hop(),
            &[(IP + 4, &[0, 0])],
            0,
            Some(Fault::Length)
        ),
        case!("empty", frame(), &[(IP + 4, &[0, 0, 59])], 0, None),
        case!(
            "hop-by-hop second",
            hop(),
            &[(V6_PAYLOAD, &[0])],
            0,
            Some(Fault::Header)
        ),
        case!(
            "options beyond",
            hop(),
            &[(V6_PAYLOAD + 1, &[4])],
            0,
            Some(Fault::Truncated)
        ),
        case!(
            "options cut",
            hop(),
            &[(IP + 4, &[0, 7])],
            0,
            Some(Fault::Truncated)
        ),
        case!("a ninth", eight(), NINTH, 0, Some(Fault::TooDeep)),
        case!(
            "AH of 8",
            ah(),
            &[(V6_PAYLOAD + 1, &[0])],
            0,
            Some(Fault::Header)
        ),
        case!(
            "AH beyond",
            ah(),
            &[(V6_PAYLOAD + 1, &[255])],
            0,
            Some(Fault::Truncated)
        ),
        case!(
            "twice a fragment",
            fragment(FragmentField::WHOLE),
            AGAIN,
            0,
            Some(Fault::Header)
        ),
        case!(
            "fragment cut",
            fragment(FragmentField::FIRST),
            &[(IP + 4, &[0, 7])],
            0,
            Some(Fault::Truncated)
        ),
    ]);
}

#[test]
fn faults_of_transports() {
    const UDP_LENGTH: usize = V4_PAYLOAD + 4;
    let tcp = || built(tcp().ipv4(V4).payload(&[0; 8]));
    let udp = || built(udp().ipv4(V4).pad_to(80));
    let first = || {
        let ip = Ipv4 {
            fragment: FragmentField::FIRST,
            ..V4
        };
        built(FrameBuilder::new().udp(1, 2).payload(b"payload").ipv4(ip))
    };
    let echo = Icmp {
        kind: 8,
        ..Icmp::default()
    };
    let ping = || built(FrameBuilder::new().icmp(echo).ipv4(V4));
    let ping6 = || built(FrameBuilder::new().icmp(echo).ipv6(V6));
    check(vec![
        case!(
            "TCP cut by the total length",
            tcp(),
            &[(IP + 2, &[0, 39])],
            0,
            Some(Fault::Truncated)
        ),
        case!(
            "TCP data offset 4",
            tcp(),
            &[(V4_PAYLOAD + 12, &[0x40])],
            0,
            Some(Fault::Header)
        ),
        case!(
            "TCP data offset 8",
            tcp(),
            &[(V4_PAYLOAD + 12, &[0x80])],
            0,
            Some(Fault::Truncated)
        ),
        case!(
            "TCP data offset 7",
            tcp(),
            &[(V4_PAYLOAD + 12, &[0x70])],
            0,
            None
        ),
        case!(
            "TCP in a tiny first fragment",
            tcp(),
            &[(IP + 2, &[0, 28]), (IP + 6, &[0x20])],
            0,
            Some(Fault::Truncated)
        ),
        case!(
            "UDP cut",
            udp(),
            &[(IP + 2, &[0, 27])],
            0,
            Some(Fault::Truncated)
        ),
        case!(
            "UDP length 0",
            udp(),
            &[(UDP_LENGTH, &[0, 0])],
            0,
            Some(Fault::Length)
        ),
        case!(
            "UDP length 7",
            udp(),
            &[(UDP_LENGTH, &[0, 7])],
            0,
            Some(Fault::Length)
        ),
        case!(
            "UDP length beyond",
            udp(),
            &[(UDP_LENGTH, &[0, 16])],
            0,
            Some(Fault::Length)
        ),
        case!(
            "UDP with a surplus",
            udp(),
            &[(UDP_LENGTH, &[0, 8])],
            0,
            None
        ),
        case!(
            "UDP of a longer datagram",
            first(),
            &[(UDP_LENGTH, &[5, 0])],
            0,
            None
        ),
        case!(
            "UDP length 7 in a fragment",
            first(),
            &[(UDP_LENGTH, &[0, 7])],
            0,
            Some(Fault::Length)
        ),
        case!(
            "ICMP cut",
            ping(),
            &[(IP + 2, &[0, 27])],
            0,
            Some(Fault::Truncated)
        ),
        case!(
            "ICMPv6 cut",
            ping6(),
            &[(IP + 4, &[0, 7])],
            0,
            Some(Fault::Truncated)
        ),
        case!(
            "ICMPv6 in IPv4",
            ping(),
            &[(IP + 9, &[58])],
            0,
            Some(Fault::Header)
        ),
        case!(
            "ICMP in IPv6",
            ping6(),
            &[(IP + 6, &[1])],
            0,
            Some(Fault::Header)
        ),
    ]);
}
