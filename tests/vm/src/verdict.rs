//! What the guest's first process says of its command: that it begins, and how it ended.

use std::{
    io::{BufRead, BufReader},
    os::unix::net::UnixStream,
    sync::mpsc,
    thread,
};

/// What the guest's first process says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The command begins.
    Up,
    /// It ended with this exit code.
    Exit(u8),
    /// It could not begin.
    Failed(String),
}

impl Verdict {
    fn read(line: &str) -> Option<Self> {
        let line = line.trim();
        if line == "up" {
            return Some(Verdict::Up);
        }
        if let Some(why) = line.strip_prefix("failed ") {
            return Some(Verdict::Failed(why.to_owned()));
        }
        let code = line.strip_prefix("exit ")?.parse().ok()?;
        Some(Verdict::Exit(code))
    }
}

/// The verdicts as they come, read by a thread of its own.
pub(crate) fn read(stream: UnixStream) -> mpsc::Receiver<Verdict> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some(verdict) = Verdict::read(&line)
                && sender.send(verdict).is_err()
            {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let cases = [
            ("exit 0", Some(Verdict::Exit(0))),
            ("exit 255\r", Some(Verdict::Exit(255))),
            ("exit 256", None),
            (
                "failed no share out",
                Some(Verdict::Failed("no share out".into())),
            ),
            ("up", Some(Verdict::Up)),
            ("noise", None),
        ];
        for (line, expected) in cases {
            assert_eq!(Verdict::read(line), expected, "{line}");
        }
    }
}
