//! What reading one frame's headers costs: this crate's parser beside etherparse's, which gives its
//! slices as [`Headers`] are filled from them. Run with `cargo bench -p dataplane --bench packet`.

use dataplane::packet::build::{Checksum, Extension, FrameBuilder, Ipv4, Ipv6, Tag, Tcp};
use dataplane::packet::{finish_partial, parse, tcp_flags};
use divan::{Bencher, black_box};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

/// Frames a batch, as a worker parses them; figures are per batch and, as a rate, per frame.
const BATCH: usize = 64;

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}

const FRAMES: [&str; 3] = ["tcp_ipv4", "vlan_udp", "ipv6_extensions_udp"];

fn frame(name: &str) -> Vec<u8> {
    let v4 = Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let tags = [Tag::customer(42)];
    let extensions = [
        Extension::HopByHop(&[5, 2, 0, 0]),
        Extension::DestinationOptions(&[]),
    ];
    let v6 = Ipv6 {
        extensions: &extensions,
        ..Ipv6::new(1.into(), 2.into())
    };
    let plain = FrameBuilder::new().payload(b"sixteen bytes ..");
    let described = match name {
        "tcp_ipv4" => plain.ipv4(v4).tcp(Tcp::new(40_000, 443, tcp_flags::ACK)),
        "vlan_udp" => plain.tags(&tags).ipv4(v4).udp(40_000, 53),
        _ => plain.ipv6(v6).udp(40_000, 53),
    };
    described.to_vec().expect("short enough")
}

fn batch(name: &str) -> Vec<Vec<u8>> {
    (0..BATCH).map(|_| frame(name)).collect()
}

#[divan::bench(args = FRAMES)]
fn own(bencher: Bencher<'_, '_>, name: &str) {
    let frames = batch(name);
    bencher
        .counter(divan::counter::ItemsCount::new(BATCH))
        .bench_local(|| {
            for frame in &frames {
                black_box(parse(black_box(frame)));
            }
        });
}

/// Slices and reads of them what a verdict needs: without the reading, the comparison would be with
/// half of the work.
#[divan::bench(args = FRAMES)]
fn etherparse_strict(bencher: Bencher<'_, '_>, name: &str) {
    let frames = batch(name);
    bencher
        .counter(divan::counter::ItemsCount::new(BATCH))
        .bench_local(|| {
            for frame in &frames {
                let Ok(packet) = SlicedPacket::from_ethernet(black_box(frame)) else {
                    continue;
                };
                match &packet.net {
                    Some(NetSlice::Ipv4(ip)) => {
                        black_box((ip.header().source(), ip.header().destination()));
                    }
                    Some(NetSlice::Ipv6(ip)) => {
                        black_box((ip.header().source(), ip.header().destination()));
                    }
                    _ => {}
                }
                match &packet.transport {
                    Some(TransportSlice::Tcp(tcp)) => {
                        black_box((tcp.source_port(), tcp.destination_port(), tcp.syn()));
                    }
                    Some(TransportSlice::Udp(udp)) => {
                        black_box((udp.source_port(), udp.destination_port()));
                    }
                    _ => {}
                }
            }
        });
}

/// What `checksums = "auto"` costs a frame whose checksum is complete.
#[divan::bench]
fn finish_complete(bencher: Bencher<'_, '_>) {
    let mut frame = frame("tcp_ipv4");
    let headers = parse(&frame);
    bencher.bench_local(|| black_box(finish_partial(black_box(&mut frame), &headers)));
}

/// And one of 1,514 bytes whose checksum is finished, the copy of the frame included.
#[divan::bench]
fn finish_partial_1514(bencher: Bencher<'_, '_>) {
    let partial = FrameBuilder::new()
        .ipv4(Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()))
        .tcp(Tcp::new(40_000, 443, tcp_flags::ACK))
        .checksum(Checksum::Partial)
        .payload(&[0x5a; 1460])
        .to_vec()
        .expect("short enough");
    let headers = parse(&partial);
    let mut frame = partial.clone();
    bencher.bench_local(|| {
        frame.copy_from_slice(&partial);
        black_box(finish_partial(black_box(&mut frame), &headers))
    });
}
