//! Tests in the guest: which executables, what they said, and what they found out about the kernel.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use serde::{Deserialize, Serialize};

use crate::{
    cli::quoted,
    error::{At, Error},
    machine::Guest,
};

/// A test executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Theme {
    /// Its name.
    name: String,
    /// Where it is in the guest.
    path: String,
}

/// How one test ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trial {
    /// Its theme and its name.
    pub(crate) name: String,
    /// What became of it.
    pub(crate) result: TrialResult,
}

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TrialResult {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It could not run.
    Skipped,
}

/// Something that a test found the kernel to do or not to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fact {
    /// What it is about.
    pub(crate) feature: String,
    /// What the kernel does, or what the dataplane does in its place.
    pub(crate) answer: String,
    /// The test that found it.
    pub(crate) test: String,
}

/// All that came of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// What the kernel is called here.
    pub(crate) name: String,
    /// `uname -r` of the kernel.
    pub(crate) release: String,
    /// Every test, in the order in which they ran.
    pub(crate) trials: Vec<Trial>,
    /// What they found out.
    pub(crate) facts: Vec<Fact>,
    /// Whether all is well.
    #[serde(skip)]
    pub(crate) passed: bool,
}

/// The guest's file in which tests write down facts, one JSON object a line.
const FACTS: &str = "facts.jsonl";

/// How long one theme may take, in seconds.
const THEME_LIMIT: u32 = 900;

impl Theme {
    /// The theme of an executable below the folder of what was built.
    pub(crate) fn new(file: &Path, target: &Path) -> Result<Self, Error> {
        let file = fs::canonicalize(file).at(file)?;
        let below = file.strip_prefix(target).map_err(|_| {
            Error::Usage(format!(
                "--theme {}: not below {}",
                file.display(),
                target.display()
            ))
        })?;
        let name = below
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        // cargo puts a hash behind the name.
        let name = name.rsplit_once('-').map_or(name, |(name, _)| name);
        Ok(Self {
            name: name.strip_prefix("guest_").unwrap_or(name).to_owned(),
            path: Path::new("/target")
                .join(below)
                .to_string_lossy()
                .into_owned(),
        })
    }
}

/// A writer that passes everything on and keeps it.
#[derive(Clone, Default)]
struct Keep(Arc<Mutex<Vec<u8>>>);

impl Write for Keep {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write_all(bytes)?;
        if let Ok(mut kept) = self.0.lock() {
            kept.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// Runs the themes in one guest, one after another.
pub(crate) fn run(
    mut guest: Guest,
    name: &str,
    themes: &[Theme],
    filter: Option<&str>,
) -> Result<Outcome, Error> {
    let out = tempfile::tempdir().at(std::env::temp_dir())?;
    guest.out = Some(PathBuf::from(out.path()));
    guest.command = script(name, themes, filter);
    let release = guest.kernel.release.clone();
    println!(
        "kernel {release}, {:?}, {} processors",
        guest.accel, guest.cpus
    );
    let kept = Keep::default();
    let ended = guest.run(|| (Box::new(kept.clone()), Box::new(io::stderr())))?;
    for warning in &ended.warnings {
        println!("the guest's kernel warned: {warning}");
    }
    let said = kept
        .0
        .lock()
        .map(|said| String::from_utf8_lossy(&said).into_owned())
        .unwrap_or_default();
    let trials = trials(&said);
    let facts = facts(&fs::read_to_string(out.path().join(FACTS)).unwrap_or_default())?;
    let failed = trials
        .iter()
        .any(|trial| trial.result == TrialResult::Failed);
    Ok(Outcome {
        name: name.to_owned(),
        release,
        passed: ended.code == 0 && !failed && !trials.is_empty(),
        trials,
        facts,
    })
}

/// The guest's command.
fn script(name: &str, themes: &[Theme], filter: Option<&str>) -> String {
    // What may not be skipped here may not be skipped there.
    let required = std::env::var("DATAPLANE_REQUIRE").unwrap_or_default();
    let mut script = format!(
        "#!/bin/sh\nexport DATAPLANE_BIN_DIR=/target/debug DATAPLANE_VM_FACTS=/out/{FACTS}\n\
         export DATAPLANE_REQUIRE={} DATAPLANE_VM_KERNEL={}\ncode=0\n",
        quoted(&[required]),
        quoted(&[name])
    );
    for theme in themes {
        let mut words = vec![
            "timeout".to_owned(),
            "-k".into(),
            "10".into(),
            THEME_LIMIT.to_string(),
        ];
        words.push(theme.path.clone());
        words.push("--test-threads=1".into());
        words.extend(filter.map(str::to_owned));
        script += &format!(
            "echo {}\ncd /project/tests && {} || {{ echo \"{} ended with exit code $?\"; code=1; }}\n",
            quoted(&[format!("theme {}", theme.name)]),
            quoted(&words),
            theme.name,
        );
    }
    script += "exit $code\n";
    script
}

fn trials(said: &str) -> Vec<Trial> {
    let mut theme = "";
    let mut trials = Vec::new();
    for line in said.lines() {
        if let Some(name) = line.strip_prefix("theme ") {
            theme = name;
        } else if let Some((test, result)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "))
        {
            let result = match result.trim() {
                "ok" => TrialResult::Passed,
                result if result.starts_with("ignored") => TrialResult::Skipped,
                _ => TrialResult::Failed,
            };
            // Before the name is what the test needs, in brackets.
            let test = test
                .rsplit(' ')
                .find(|word| !word.is_empty())
                .unwrap_or(test);
            trials.push(Trial {
                name: format!("{theme}::{test}"),
                result,
            });
        }
    }
    trials
}

fn facts(text: &str) -> Result<Vec<Fact>, Error> {
    text.lines()
        .map(|line| {
            serde_json::from_str(line)
                .map_err(|e| Error::Broken(format!("{FACTS} has {line:?}: {e}")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tests_said() {
        let said = "theme zero_copy\n\nrunning 3 tests\ntest [root]          arrives ... ok\n\
                    test [root,tcpdump]  leaves  ... ignored (no card)\ntest other ... FAILED\n\
                    test result: FAILED. 1 passed; 1 failed; 1 ignored\n";
        let of = |name: &str, result| Trial {
            name: name.into(),
            result,
        };
        assert_eq!(
            trials(said),
            [
                of("zero_copy::arrives", TrialResult::Passed),
                of("zero_copy::leaves", TrialResult::Skipped),
                of("zero_copy::other", TrialResult::Failed)
            ]
        );
    }

    #[test]
    fn a_theme_is_found_in_the_guest() {
        let target = tempfile::tempdir().expect("a folder");
        let target = fs::canonicalize(target.path()).expect("there");
        fs::create_dir_all(target.join("debug/deps")).expect("a folder");
        let file = target.join("debug/deps/guest_zero_copy-0123abcd");
        fs::write(&file, "").expect("a file");
        let theme = Theme::new(&file, &target).expect("below");
        assert_eq!(theme.name, "zero_copy");
        assert_eq!(theme.path, "/target/debug/deps/guest_zero_copy-0123abcd");
        assert!(Theme::new(Path::new("/etc/passwd"), &target).is_err());
        let script = script("6.1", &[theme], Some("it's"));
        assert!(script.contains(r"'--test-threads=1' 'it'\''s'"), "{script}");
    }
}
