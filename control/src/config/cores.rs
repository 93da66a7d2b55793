//! Lists of cores as people write them: `2-5`, `0,2-3`. The kernel writes them the same way
//! (Documentation/admin-guide/cputopology.rst).

use std::fmt;

/// Cores in the order they were named; worker `i` runs on the `i`-th.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoreList(pub Vec<usize>);

/// No machine that Linux runs on has more (CONFIG_NR_CPUS is at most 8192).
const MOST: usize = 8192;

/// Why a text is no list of cores.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreListError {
    /// Not numbers and ranges.
    #[error("{0:?} is no list of cores; write them as \"2-5\" or \"0,2-3\"")]
    Syntax(String),
    /// A range that ends before it begins.
    #[error("the range {0}-{1} of cores runs backwards; write {1}-{0}")]
    Backwards(usize, usize),
    /// The same core more than once.
    #[error("core {0} is listed twice; each worker needs a core of its own")]
    Twice(usize),
    /// A number that no machine has.
    #[error("there is no core {0}; Linux numbers at most {MOST}")]
    TooLarge(usize),
}

impl std::str::FromStr for CoreList {
    type Err = CoreListError;

    fn from_str(text: &str) -> Result<Self, CoreListError> {
        let syntax = || CoreListError::Syntax(text.to_owned());
        let number = |part: &str| -> Result<usize, CoreListError> {
            let part = part.trim();
            if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(syntax());
            }
            let number = part.parse().map_err(|_| syntax())?;
            if number >= MOST {
                return Err(CoreListError::TooLarge(number));
            }
            Ok(number)
        };
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if last < first {
                return Err(CoreListError::Backwards(first, last));
            }
            for core in first..=last {
                if cores.contains(&core) {
                    return Err(CoreListError::Twice(core));
                }
                cores.push(core);
            }
        }
        Ok(Self(cores))
    }
}

impl fmt::Display for CoreList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_slice();
        let mut separator = "";
        while let [first, ..] = rest {
            let run = rest
                .iter()
                .enumerate()
                .take_while(|&(i, core)| *core == first + i)
                .count();
            f.write_str(separator)?;
            match run {
                1 => write!(f, "{first}")?,
                _ => write!(f, "{first}-{}", first + run - 1)?,
            }
            separator = ",";
            rest = &rest[run..];
        }
        Ok(())
    }
}

impl serde::Serialize for CoreList {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists() {
        for (text, cores) in [
            ("0", &[0][..]),
            ("2-5", &[2, 3, 4, 5]),
            ("0,2-3", &[0, 2, 3]),
            (" 3 , 1 ", &[3, 1]),
        ] {
            assert_eq!(text.parse(), Ok(CoreList(cores.to_vec())), "{text}");
        }
        for (text, error) in [
            ("", CoreListError::Syntax("".into())),
            ("a", CoreListError::Syntax("a".into())),
            ("1,", CoreListError::Syntax("1,".into())),
            ("-1", CoreListError::Syntax("-1".into())),
            ("1-2-3", CoreListError::Syntax("1-2-3".into())),
            ("+1", CoreListError::Syntax("+1".into())),
            ("5-2", CoreListError::Backwards(5, 2)),
            ("1,0-2", CoreListError::Twice(1)),
            ("0-99999", CoreListError::TooLarge(99_999)),
        ] {
            assert_eq!(text.parse::<CoreList>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(mut cores in proptest::collection::vec(0usize..40, 1..20)) {
            let mut seen = std::collections::HashSet::new();
            cores.retain(|core| seen.insert(*core));
            let list = CoreList(cores);
            prop_assert_eq!(list.to_string().parse(), Ok(list));
        }

        #[test]
        fn any_text_is_answered(text in "[-0-9, ]{0,12}|.{0,8}") {
            let _ = text.parse::<CoreList>();
        }
    }
}
