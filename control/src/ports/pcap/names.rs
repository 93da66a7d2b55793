//! The names of a recording's files: `path` with the conversions of strftime(3) in local time, or numbered
//! where it has none and files are rotated.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use jiff::{Zoned, fmt::strtime};

/// Makes one name after the other, no two alike.
#[derive(Debug)]
pub(super) struct Names {
    path: String,
    numbered: bool,
    next: u32,
    given: HashSet<PathBuf>,
}

impl Names {
    /// The names for a path.
    ///
    /// # Errors
    ///
    /// What is wrong with the conversions in it.
    pub(super) fn new(path: &Path, rotated: bool) -> Result<Self, String> {
        let path = path.display().to_string();
        let sample = expand(&path, &Zoned::now())?;
        if sample.contains(char::is_control) && !path.contains(char::is_control) {
            return Err(
                "a conversion puts a line break or a tab into the name (%n, %t)".to_owned(),
            );
        }
        if sample.matches('/').count() > path.matches('/').count() {
            return Err("a conversion puts a / into the name (%D); write %F".to_owned());
        }
        Ok(Self {
            numbered: rotated && !path.contains('%'),
            path,
            next: 1,
            given: HashSet::new(),
        })
    }

    /// The name of a file that is begun now.
    pub(super) fn next(&mut self, now: &Zoned) -> PathBuf {
        // It was checked when this was made; what is checked then does not depend on the time.
        let plain = expand(&self.path, now).unwrap_or_else(|_| self.path.clone());
        let name = if self.numbered {
            let number = self.next;
            self.next += 1;
            numbered(&plain, number)
        } else {
            let mut name = PathBuf::from(&plain);
            let mut number = 1;
            while self.given.contains(&name) {
                number += 1;
                name = numbered(&plain, number);
            }
            name
        };
        self.given.insert(name.clone());
        name
    }

    /// Whether the folder of a name depends on the time.
    pub(super) fn folders_vary(&self) -> bool {
        self.path
            .rsplit_once('/')
            .is_some_and(|(folder, _)| folder.contains('%'))
    }

    /// A name may be given again: its file is no more.
    pub(super) fn forget(&mut self, name: &Path) {
        self.given.remove(name);
    }
}

fn expand(path: &str, now: &Zoned) -> Result<String, String> {
    if !path.contains('%') {
        return Ok(path.to_owned());
    }
    strtime::format(path, now).map_err(|e| e.to_string())
}

/// Puts a number before the extension, which may be two: `x-00002.pcapng.zst`.
fn numbered(path: &str, number: u32) -> PathBuf {
    let base = path.rfind('/').map_or(0, |slash| slash + 1);
    let name = &path[base..];
    // A name that begins with a dot has no extension there.
    let mut end = name.rfind('.').filter(|&dot| dot > 0).unwrap_or(name.len());
    if &name[end..] == ".zst"
        && let Some(dot) = name[..end].rfind('.').filter(|&dot| dot > 0)
    {
        end = dot;
    }
    let (stem, extension) = name.split_at(end);
    PathBuf::from(format!("{}{stem}-{number:05}{extension}", &path[..base]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Zoned {
        text.parse().expect("a time with its zone")
    }

    #[test]
    fn numbers_go_before_the_extension() {
        for (path, expected) in [
            ("x.pcapng", "x-00007.pcapng"),
            ("a.b/x", "a.b/x-00007"),
            ("/a/x.pcapng.zst", "/a/x-00007.pcapng.zst"),
            ("/a/.hidden", "/a/.hidden-00007"),
            ("x.zst", "x-00007.zst"),
            ("1.2.3.pcap", "1.2.3-00007.pcap"),
        ] {
            assert_eq!(numbered(path, 7), Path::new(expected));
        }
    }

    #[test]
    fn conversions_that_make_no_name_are_refused() {
        for path in ["x-%n.pcap", "x-%t.pcap", "%D.pcap", "d/%D.pcap"] {
            assert!(Names::new(Path::new(path), true).is_err(), "{path}");
        }
        for path in ["d/%Y/x.pcap", "x-%F-%H%M%S.pcap", "odd\tname.pcap"] {
            assert!(Names::new(Path::new(path), true).is_ok(), "{path}");
        }
    }

    #[test]
    fn no_name_is_given_twice() {
        let first = at("2026-11-20T16:00:00+01:00[Europe/Berlin]");
        let second = at("2026-11-20T16:00:01+01:00[Europe/Berlin]");
        let cases: [(&str, bool, [&str; 4]); 3] = [
            (
                "x.pcap",
                true,
                [
                    "x-00001.pcap",
                    "x-00002.pcap",
                    "x-00003.pcap",
                    "x-00004.pcap",
                ],
            ),
            (
                "d/x-%Y%m%d-%H%M%S.pcapng",
                true,
                [
                    "d/x-20261120-160000.pcapng",
                    "d/x-20261120-160000-00002.pcapng",
                    "d/x-20261120-160000-00003.pcapng",
                    "d/x-20261120-160001.pcapng",
                ],
            ),
            (
                "100%%.pcap",
                true,
                [
                    "100%.pcap",
                    "100%-00002.pcap",
                    "100%-00003.pcap",
                    "100%-00004.pcap",
                ],
            ),
        ];
        for (path, rotated, expected) in cases {
            let mut names = Names::new(Path::new(path), rotated).expect(path);
            let times = [&first, &first, &first, &second];
            let given = times.map(|now| names.next(now));
            assert_eq!(given, expected.map(PathBuf::from));
        }
        let mut names = Names::new(Path::new("x.pcap"), false).expect("a path");
        assert_eq!(names.next(&first), Path::new("x.pcap"));
    }

    #[test]
    fn a_name_comes_back_when_its_file_has_gone() {
        let now = at("2026-11-20T16:00:00+00:00[UTC]");
        let mut names = Names::new(Path::new("%H"), true).expect("a path");
        let name = names.next(&now);
        names.forget(&name);
        assert_eq!(names.next(&now), name);
    }

    #[test]
    fn conversions_that_there_are_not_are_named() {
        for path in ["x-%", "x-%J.pcap", "100%.pcap"] {
            let error = Names::new(Path::new(path), false).expect_err(path);
            assert!(!error.is_empty() && !error.contains('\n'), "{error}");
        }
    }
}
