//! What the guest's kernel printed: its end, and the line that says why it stopped.

use std::{fs, path::Path};

/// How much of the log is shown.
const SHOWN: usize = 60;

/// What the kernel says when it goes on no more. `oops=panic` makes one of every oops.
const PANIC: &str = "Kernel panic - not syncing: ";

/// The log in a file, as far as it came.
pub(crate) fn read(file: &Path) -> String {
    let bytes = fs::read(file).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\r', "")
}

/// Why the kernel panicked, if it did: the first oops or bug before that, or its own words.
pub(crate) fn panic(log: &str) -> Option<String> {
    let own = log
        .lines()
        .find_map(|line| line.split_once(PANIC).map(|(_, why)| why))?;
    let cause = log
        .lines()
        .filter(|line| !line.contains(PANIC))
        .find_map(|line| {
            ["BUG: ", "Oops: ", "kernel BUG at "]
                .iter()
                .find_map(|word| Some(&line[line.find(word)?..]))
        });
    Some(match cause {
        Some(cause) => format!("{own} ({cause})"),
        None => own.to_owned(),
    })
}

/// The end of a log.
pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(SHOWN);
    let mut text = format!(
        "--- the last {} of {} lines of the guest's kernel\n",
        lines.len() - from,
        lines.len()
    );
    text.push_str(&lines[from..].join("\n"));
    text
}

/// Warnings of the kernel, which are no failure but deserve a look.
pub(crate) fn warnings(log: &str) -> Vec<&str> {
    log.lines()
        .filter_map(|line| Some(&line[line.find("WARNING: ")?..]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_with_its_cause() {
        let cases = [
            ("[ 1.0] all is well\n", None),
            (
                "[ 1.0] Kernel panic - not syncing: sysrq triggered crash\n",
                Some("sysrq triggered crash"),
            ),
            (
                "[ 1.0] BUG: kernel NULL pointer dereference, address: 0\n[ 1.1] Oops: 0002 [#1]\n\
                 [ 1.2] Kernel panic - not syncing: Fatal exception\n",
                Some("Fatal exception (BUG: kernel NULL pointer dereference, address: 0)"),
            ),
        ];
        for (log, expected) in cases {
            assert_eq!(panic(log).as_deref(), expected, "{log}");
        }
    }

    #[test]
    fn a_tail_is_short() {
        let log: String = (0..200).map(|n| format!("line {n}\n")).collect();
        let tail = tail(&log);
        assert!(
            tail.contains("line 199") && tail.contains("line 140") && !tail.contains("line 139"),
            "{tail}"
        );
        assert_eq!(
            warnings("[ 2.0] WARNING: CPU: 0\nfine\n"),
            ["WARNING: CPU: 0"]
        );
    }
}
