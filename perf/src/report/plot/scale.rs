//! Numbers on an axis: round steps, short labels, and the numbers that cases name.

/// Round steps from 0 to at least `most`, about `count` of them; the last is the axis's end.
pub(super) fn steps(most: f64, count: usize) -> Vec<f64> {
    if !(most > 0.0 && most.is_finite()) {
        return vec![0.0, 1.0];
    }
    let rough = most / count as f64;
    let decade = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|round| round * decade)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(10.0 * decade);
    let last = (most / step * 0.999).ceil().max(1.0) as usize;
    (0..=last).map(|at| at as f64 * step).collect()
}

/// 1500 as `1,500`, a million as `1M`, 0.25 as it is.
pub(super) fn label(number: f64) -> String {
    let short = |number: f64| {
        let text = format!("{number:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match number.abs() {
        1e9.. => format!("{}G", short(number / 1e9)),
        1e6.. => format!("{}M", short(number / 1e6)),
        1e4.. => format!("{}k", short(number / 1e3)),
        0.01.. | 0.0 => short(number),
        _ => format!("{number:e}"),
    }
}

/// The number before the word `unit` in a case, and what else the case says.
pub(super) fn number(case: &str, unit: &str) -> Option<(f64, String)> {
    let words: Vec<&str> = case.split_whitespace().collect();
    let bare = |word: &str| word.trim_end_matches([',', ':', ';']).to_owned();
    let (at, taken, number) = words.iter().enumerate().find_map(|(at, word)| {
        let next = words.get(at + 1).map(|next| bare(next));
        if next.as_deref() == Some(unit) {
            return Some((at, 2, parse(word)?));
        }
        let glued = bare(word).strip_suffix(unit).and_then(parse)?;
        Some((at, 1, glued))
    })?;
    let rest = words[..at].iter().chain(&words[at + taken..]);
    let rest: Vec<&str> = rest.copied().collect();
    let rest = rest.join(" ");
    Some((number, rest.trim_matches([',', ' ']).to_owned()))
}

/// `1500`, `65k`, `1M`, `1,000`.
fn parse(word: &str) -> Option<f64> {
    let word = word.replace([',', '_'], "");
    let (digits, factor) = match word.chars().last()? {
        'k' => (&word[..word.len() - 1], 1e3),
        'M' => (&word[..word.len() - 1], 1e6),
        _ => (word.as_str(), 1.0),
    };
    let number: f64 = digits.parse().ok()?;
    number.is_finite().then_some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_reach_the_end() {
        for (most, expected) in [
            (10.0, vec![0.0, 2.0, 4.0, 6.0, 8.0, 10.0]),
            (717.0, vec![0.0, 200.0, 400.0, 600.0, 800.0]),
            (0.0, vec![0.0, 1.0]),
            (f64::NAN, vec![0.0, 1.0]),
        ] {
            assert_eq!(steps(most, 5), expected, "{most}");
        }
        assert!(steps(0.37, 5).last().is_some_and(|end| *end >= 0.37));
    }

    #[test]
    fn labels_are_short() {
        for (number, expected) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (64.0, "64"),
            (1500.0, "1500"),
            (65_536.0, "65.536k"),
            (1e6, "1M"),
            (2.5e9, "2.5G"),
            (0.000_5, "5e-4"),
        ] {
            assert_eq!(label(number), expected);
        }
    }

    #[test]
    fn cases_name_numbers() {
        let found = |number: f64, rest: &str| Some((number, rest.to_owned()));
        for (case, unit, expected) in [
            ("64 bytes", "bytes", found(64.0, "")),
            ("65k rules, exact, hit", "rules", found(65e3, "exact, hit")),
            ("exact, 1,000 rules, hit", "rules", found(1e3, "exact, hit")),
            ("at 50% of the rate", "%", found(50.0, "at of the rate")),
            ("1M pps", "pps", found(1e6, "")),
            ("IMIX", "bytes", None),
            ("many rules", "rules", None),
        ] {
            assert_eq!(number(case, unit), expected, "{case}");
        }
    }
}
