//! The values of `--to` and `--pace`, as they are typed.

use std::{fmt, str::FromStr};

use crate::ports;

/// How the names of capture files end.
const CAPTURES: &[&str] = &[".pcap", ".pcapng", ".cap"];

/// The same in words.
const ENDS: &str = "end in .pcap, .pcapng or .cap, or in .pcap.zst and the like";

/// A value of `--to`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A capture file.
    File(String),
    /// An interface, or a device that is made if there is none of that name.
    Name(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" {
            return Ok(Self::Stdout);
        }
        let lower = text.to_ascii_lowercase();
        let plain = lower.strip_suffix(".zst").unwrap_or(&lower);
        if text.contains('/') || CAPTURES.iter().any(|end| plain.ends_with(end)) {
            return Ok(Self::File(text.to_owned()));
        }
        // No device is meant by sample.pcap.gz.
        let otherwise = |end: &&str| plain.contains(&format!("{end}."));
        if CAPTURES.iter().any(otherwise) {
            return Err(format!(
                "{text:?} looks like a capture file, and those {ENDS}"
            ));
        }
        let fault = match text {
            "" => "is empty".to_owned(),
            _ => match ports::interface_fault(text) {
                None => return Ok(Self::Name(text.to_owned())),
                Some(fault) => fault,
            },
        };
        Err(format!(
            "{text:?} {fault}; name an interface, a device to be made such as lc0, capture files, whose names have a / or {ENDS}, or - for standard output"
        ))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stdout => "-",
            Self::File(text) | Self::Name(text) => text,
        })
    }
}

/// A value of `--pace`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many times as fast as it was captured.
    Original(f64),
    /// As fast as the sinks take it.
    Top,
    /// Frames a second.
    Pps(f64),
    /// Million bits of frames a second.
    Mbps(f64),
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rate = |unit: &str| -> Option<f64> {
            let digits = text.strip_suffix(unit)?;
            let plain = |c: char| c.is_ascii_digit() || c == '.';
            digits.chars().all(plain).then(|| digits.parse().ok())?
        };
        match text {
            "original" => Some(Self::Original(1.0)),
            "top" => Some(Self::Top),
            _ => rate("pps")
                .map(Self::Pps)
                .or_else(|| rate("mbps").map(Self::Mbps))
                .or_else(|| rate("x").map(Self::Original)),
        }
        .ok_or_else(|| format!("{text:?} is no pace; write original, top, 2x, 10000pps or 10mbps"))
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Original(1.0) => f.write_str("original"),
            Self::Original(speed) => write!(f, "{speed}x"),
            Self::Top => f.write_str("top"),
            Self::Pps(rate) => write!(f, "{rate}pps"),
            Self::Mbps(rate) => write!(f, "{rate}mbps"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let file = |text: &str| Ok(Target::File(text.to_owned()));
        let name = |text: &str| Ok(Target::Name(text.to_owned()));
        for (text, target) in [
            ("-", Ok(Target::Stdout)),
            ("lc0", name("lc0")),
            ("eth0.100", name("eth0.100")),
            ("out.pcap", file("out.pcap")),
            ("OUT.PCAPNG", file("OUT.PCAPNG")),
            ("out.cap.zst", file("out.cap.zst")),
            ("./out", file("./out")),
            ("/tmp/out", file("/tmp/out")),
            ("zst", name("zst")),
        ] {
            assert_eq!(text.parse::<Target>(), target, "{text}");
            assert_eq!(target.expect("right").to_string(), text);
        }
        for text in ["", ".", "..", "a b", "a:b", "sixteen-bytes-16"] {
            let message = text.parse::<Target>().expect_err(text);
            assert!(message.contains("such as lc0"), "{message}");
        }
        for text in ["a.pcap.gz", "a.cap.xz", "A.PCAPNG.1"] {
            let message = text.parse::<Target>().expect_err(text);
            assert!(message.contains("end in .pcap"), "{message}");
        }
    }

    #[test]
    fn paces() {
        for (text, pace) in [
            ("original", Pace::Original(1.0)),
            ("top", Pace::Top),
            ("2x", Pace::Original(2.0)),
            ("0.5x", Pace::Original(0.5)),
            ("10000pps", Pace::Pps(10_000.0)),
            ("1.5mbps", Pace::Mbps(1.5)),
        ] {
            assert_eq!(text.parse(), Ok(pace), "{text}");
            assert_eq!(pace.to_string(), text);
        }
        for text in [
            "", "x", "pps", "fast", "-1pps", "1e3pps", "infx", "10 pps", "10kpps",
        ] {
            let message = text.parse::<Pace>().expect_err(text);
            assert!(message.contains("10000pps"), "{message}");
        }
    }
}
