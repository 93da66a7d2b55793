//! What a packet socket takes: a program of classic BPF (Documentation/networking/filter.rst) that the
//! kernel runs on each frame before it copies it.

use libc::sock_filter;

/// `ARPHRD_ETHER` (include/uapi/linux/if_arp.h): interfaces with Ethernet headers.
pub const ETHERNET: u16 = 1;
/// `ARPHRD_LOOPBACK`: those of the loopback interface look like Ethernet's.
pub const LOOPBACK: u16 = 772;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// The way a frame went that the host sent (include/uapi/linux/if_packet.h).
const OUTGOING: u32 = libc::PACKET_OUTGOING as u32;

fn load(what: i32) -> sock_filter {
    statement(LOAD, (libc::SKF_AD_OFF + what).cast_unsigned())
}

fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// Goes on for `k`, else passes over `skip` instructions.
fn only_if(k: u32, skip: u8) -> sock_filter {
    sock_filter {
        jf: skip,
        ..statement(JUMP_IF_EQUAL, k)
    }
}

/// Takes nothing: for a socket that is not ready yet.
pub fn nothing() -> Vec<sock_filter> {
    vec![statement(RETURN, 0)]
}

/// Takes the frames of interfaces with Ethernet headers, those of the loopback interface once, as they come in
/// (they pass on their way out as well), and none of the interfaces in `without`. Of each frame at most
/// `bytes` are copied, with its whole length beside them.
pub fn ethernet(without: &[u32], bytes: u32) -> Vec<sock_filter> {
    let mut program = vec![
        load(libc::SKF_AD_HATYPE),
        // Ethernet: on behind what is asked of the loopback interface.
        sock_filter {
            jt: 4,
            ..only_if(u32::from(ETHERNET), 0)
        },
        only_if(u32::from(LOOPBACK), 2),
        load(libc::SKF_AD_PKTTYPE),
        only_if(OUTGOING, 1),
        statement(RETURN, 0),
        // A loopback interface is nobody's own, but one more comparison costs less than one more jump.
        load(libc::SKF_AD_IFINDEX),
    ];
    for &index in without {
        program.extend([only_if(index, 1), statement(RETURN, 0)]);
    }
    program.push(statement(RETURN, bytes));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does, with what it can load.
    fn run(program: &[sock_filter], hardware: u32, index: u32, way: u32) -> u32 {
        let (mut at, mut a) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            match step.code {
                LOAD => {
                    a = match step.k.cast_signed() - libc::SKF_AD_OFF {
                        libc::SKF_AD_HATYPE => hardware,
                        libc::SKF_AD_IFINDEX => index,
                        libc::SKF_AD_PKTTYPE => way,
                        other => panic!("loads {other}"),
                    }
                }
                JUMP_IF_EQUAL => at += usize::from(if a == step.k { step.jt } else { step.jf }),
                RETURN => return step.k,
                other => panic!("instruction {other}"),
            }
        }
    }

    #[test]
    fn what_is_taken() {
        let (in_, out) = (0, OUTGOING);
        let (eth, lo, none) = (u32::from(ETHERNET), u32::from(LOOPBACK), 65_534);
        for (case, without, hardware, index, way, taken) in [
            ("in", &[][..], eth, 2, in_, true),
            ("out", &[], eth, 2, out, true),
            ("loopback, coming in", &[], lo, 1, in_, true),
            ("loopback, going out", &[], lo, 1, out, false),
            ("no Ethernet header", &[], none, 3, in_, false),
            ("our own", &[7], eth, 7, in_, false),
            ("our own, going out", &[5, 7], eth, 7, out, false),
            ("beside our own", &[5, 7], eth, 6, in_, true),
            ("loopback beside our own", &[5, 7], lo, 1, in_, true),
        ] {
            let got = run(&ethernet(without, 1522), hardware, index, way);
            assert_eq!(got, if taken { 1522 } else { 0 }, "{case}");
        }
        assert_eq!(run(&nothing(), eth, 2, in_), 0);
    }
}
