//! Frames of the kernel's pktgen: sent, and known again byte by byte (net/core/pktgen.c, fill_packet_ipv4 and
//! pktgen_finalize_skb).

use std::time::Duration;

use super::Lane;
use crate::process::run;

/// Frames of one length that the sender of a lane sends.
#[derive(Clone, Copy, Debug)]
pub struct Pktgen {
    /// How many.
    pub count: u32,
    /// Their length in bytes, without check sequence.
    pub length: usize,
    /// The destination port.
    pub port: u16,
    /// From how many source ports, in turn; each is a flow.
    pub flows: u16,
    /// Frames a second; 0: as many as can be.
    pub rate: u32,
}

/// Ethernet, IPv4, UDP.
const HEADERS: usize = 14 + 20 + 8;
/// pktgen's own header behind them: a magic word, a number, and the time in two words.
const OWN: usize = 16;
const MAGIC: [u8; 4] = 0xbe9b_e955_u32.to_be_bytes();
/// The first source port.
const FROM: u16 = 40_000;

impl Default for Pktgen {
    fn default() -> Self {
        Self {
            count: 10_000,
            length: 60,
            port: 53,
            flows: 1,
            rate: 0,
        }
    }
}

impl Pktgen {
    /// Sends them all. Panics unless pktgen says that it did.
    pub fn send(&self, lane: &Lane) {
        run("modprobe", &["pktgen"]);
        let device = lane.sender.name;
        let mut commands = vec![
            ("kpktgend_1", "rem_device_all".to_owned()),
            ("kpktgend_1", format!("add_device {device}")),
        ];
        let mut set = |command: String| commands.push((device, command));
        set(format!("count {}", self.count));
        set(format!("pkt_size {}", self.length));
        set("clone_skb 0".into());
        set("delay 0".into());
        if self.rate > 0 {
            set(format!("ratep {}", self.rate));
        }
        set(format!("dst_mac {}", lane.nic.address));
        set("src_min 10.0.0.1".into());
        set("src_max 10.0.0.1".into());
        set("dst_min 10.0.0.2".into());
        set("dst_max 10.0.0.2".into());
        set(format!("udp_src_min {FROM}"));
        set(format!("udp_src_max {}", FROM + self.flows));
        set(format!("udp_dst_min {0}", self.port));
        set(format!("udp_dst_max {0}", self.port));
        set("flag UDPCSUM".into());
        commands.push(("pgctrl", "start".into()));
        let mut script = String::from("set -e; cd /proc/net/pktgen\n");
        for (file, command) in &commands {
            script += &format!("echo '{command}' >{file}\n");
        }
        script += &format!("grep -E 'errors|pkts-sofar|Result' {device}\n");
        let output = lane
            .outside
            .tool("sh")
            .args(["-c", &script])
            .limit(Duration::from_secs(300))
            .output();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let all = format!("pkts-sofar: {}  errors: 0", self.count);
        assert!(
            output.status.success() && said.contains(&all),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Panics unless these are the frames that were sent: each of them once, byte by byte as it was sent, and in order
    /// but for `displaced` at most.
    pub fn assert_all(&self, lane: &Lane, heard: &[Vec<u8>], displaced: usize) {
        let mut numbers: Vec<u32> = heard.iter().map(|frame| number(frame)).collect();
        let out_of_order: Vec<_> = numbers
            .windows(2)
            .filter(|pair| pair[0] > pair[1])
            .collect();
        assert!(
            out_of_order.len() <= displaced,
            "out of order: {out_of_order:?}"
        );
        for (frame, number) in heard.iter().zip(&numbers) {
            // pktgen counts from one.
            let expected = self.frame(lane, number.wrapping_sub(1), frame);
            assert_eq!(*frame, expected, "frame {number} of {self:?}");
        }
        numbers.sort_unstable();
        let missing: Vec<u32> = (1..=self.count)
            .filter(|number| numbers.binary_search(number).is_err())
            .collect();
        assert!(missing.is_empty(), "{} missing: {missing:?}", missing.len());
        assert_eq!(numbers.len(), self.count as usize, "some came twice");
    }

    /// The frame at that place; its time, which nobody else knows, is that of `seen`, whose checksum must be right.
    fn frame(&self, lane: &Lane, index: u32, seen: &[u8]) -> Vec<u8> {
        let mac = |text: &str| -> Vec<u8> {
            text.split(':')
                .map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal"))
                .collect()
        };
        let ip_length = (self.length - 14) as u16;
        let mut frame = [mac(lane.nic.address), mac(lane.sender.address), vec![8, 0]].concat();
        frame.extend([0x45, 0]);
        frame.extend(ip_length.to_be_bytes());
        // The kernel numbers datagrams; it is not told where that begins.
        frame.extend(seen.get(18..20).unwrap_or(&[0, 0]));
        frame.extend([0, 0, 32, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let sum = internet_checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        let source = FROM + (index.wrapping_add(1) % u32::from(self.flows)) as u16;
        frame.extend(source.to_be_bytes());
        frame.extend(self.port.to_be_bytes());
        frame.extend((ip_length - 20).to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(MAGIC);
        frame.extend(index.wrapping_add(1).to_be_bytes());
        frame.extend(seen.get(HEADERS + 8..HEADERS + OWN).unwrap_or(&[0; 8]));
        frame.resize(self.length, 0);
        // The pseudo header: addresses, protocol and length.
        let mut summed = frame[26..34].to_vec();
        summed.extend([0, 17]);
        summed.extend((ip_length - 20).to_be_bytes());
        summed.extend(&frame[34..]);
        let sum = match internet_checksum(&summed) {
            0 => 0xffff,
            sum => sum,
        };
        frame[40..42].copy_from_slice(&sum.to_be_bytes());
        frame
    }
}

/// The number that pktgen gave a frame.
fn number(frame: &[u8]) -> u32 {
    let bytes = frame.get(HEADERS + 4..HEADERS + 8).unwrap_or(&[0; 4]);
    bytes
        .iter()
        .fold(0, |number, &byte| number << 8 | u32::from(byte))
}

/// The checksum of RFC 1071, the obvious way.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !sum as u16
}
