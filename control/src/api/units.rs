//! Numbers for people: counts, bytes, times, in three digits and a unit.

use std::time::Duration;

/// A number of things: exact below 10,000, three digits and a unit from there.
pub(super) fn count(n: u64) -> String {
    if n < 10_000 {
        return n.to_string();
    }
    scaled(n as f64, 1000.0, &["", "k", "M", "G", "T", "P", "E"], "")
}

/// A number of bytes, in powers of 1000.
pub(super) fn bytes(n: u64) -> String {
    if n < 1000 {
        return format!("{n} B");
    }
    scaled(
        n as f64,
        1000.0,
        &["B", "kB", "MB", "GB", "TB", "PB", "EB"],
        " ",
    )
}

/// A time given in nanoseconds.
pub(super) fn nanoseconds(n: u64) -> String {
    if n < 1000 {
        return format!("{n} ns");
    }
    scaled(
        n as f64,
        1000.0,
        &["ns", "µs", "ms", "s", "ks", "Ms", "Gs"],
        " ",
    )
}

/// Three significant digits and the unit that fits.
fn scaled(mut n: f64, step: f64, units: &[&str], space: &str) -> String {
    let mut unit = 0;
    // 999.5 would be printed as 1000.
    while n >= step - 0.5 && unit + 1 < units.len() {
        n /= step;
        unit += 1;
    }
    // By what is printed: 9.996 is 10.0.
    let digits = if n < 9.995 {
        2
    } else if n < 99.95 {
        1
    } else {
        0
    };
    format!("{n:.digits$}{space}{}", units[unit])
}

/// Seconds as days, hours, minutes and seconds.
pub(super) fn uptime(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds)
        .unwrap_or_default()
        .as_secs();
    let (days, hours) = (whole / 86_400, whole / 3600 % 24);
    let (minutes, seconds) = (whole / 60 % 60, whole % 60);
    if days > 0 {
        format!("{days}d {hours:02}h {minutes:02}m")
    } else if hours > 0 {
        format!("{hours}h {minutes:02}m {seconds:02}s")
    } else if minutes > 0 {
        format!("{minutes}m {seconds:02}s")
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        for (n, text) in [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10.0k"),
            (99_949, "99.9k"),
            (99_950, "100k"),
            (999_499, "999k"),
            (999_500, "1.00M"),
            (9_995_000, "10.0M"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(count(n), text);
        }
        for (n, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(n), text);
        }
        for (n, text) in [(999, "999 ns"), (1_000, "1.00 µs"), (u64::MAX, "18.4 Gs")] {
            assert_eq!(nanoseconds(n), text);
        }
        for (seconds, text) in [
            (0.9, "0s"),
            (61.0, "1m 01s"),
            (3600.0, "1h 00m 00s"),
            (90_061.0, "1d 01h 01m"),
            (f64::NAN, "0s"),
            (-1.0, "0s"),
        ] {
            assert_eq!(uptime(seconds), text);
        }
    }
}
