//! One suite of the machine's own package source, asked through apt with state of its own: nothing that the machine
//! has installed, configured or cached takes part or is changed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::error::{At, Error, run};

/// A suite, its lists up to date.
pub(crate) struct Source {
    suite: String,
    folder: PathBuf,
}

impl Source {
    /// Fetches the lists of a suite.
    pub(crate) fn of(suite: &str, cache: &Path) -> Result<Self, Error> {
        let folder = cache.join("apt").join(suite);
        for name in ["lists/partial", "cache/archives/partial"] {
            let folder = folder.join(name);
            fs::create_dir_all(&folder).at(folder)?;
        }
        let archive = Archive::of_this_machine()?;
        let file = folder.join("sources.list");
        fs::write(&file, archive.entry(suite)).at(file)?;
        let file = folder.join("status");
        fs::write(&file, "").at(file)?;
        let source = Self {
            suite: suite.to_owned(),
            folder,
        };
        eprintln!("vm: asking for the kernels of {suite}");
        run(source.apt("apt-get").args(["-o", "APT::Update::Error-Mode=any", "update"])).map_err(|e| {
            Error::Machine(format!(
                "{e}; {suite} is a suite of Debian: elsewhere name a folder with a kernel (--kernel /)"
            ))
        })?;
        Ok(source)
    }

    /// The suite's name.
    pub(crate) fn suite(&self) -> &str {
        &self.suite
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, name) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::State::lists", "lists"),
            // What is installed here does not matter.
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
        ] {
            command
                .arg("-o")
                .arg(format!("{option}={}", self.folder.join(name).display()));
        }
        // Pins of the machine would choose for us; as root, apt would fetch as a user who may not write here.
        for option in [
            "Dir::Etc::sourceparts=/dev/null",
            "Dir::Etc::preferences=/dev/null",
            "Dir::Etc::preferencesparts=/dev/null",
            "APT::Sandbox::User=",
        ] {
            command.args(["-o", option]);
        }
        command.env("LC_ALL", "C");
        command
    }

    /// The newest package of that name.
    pub(crate) fn package(&self, name: &str) -> Result<Package, Error> {
        let text = run(self
            .apt("apt-cache")
            .args(["show", "--no-all-versions", name]))?;
        Ok(Package::read(&String::from_utf8_lossy(&text)))
    }

    /// Fetches packages into a folder.
    pub(crate) fn download(&self, names: &[String], into: &Path) -> Result<(), Error> {
        run(self
            .apt("apt-get")
            .arg("download")
            .args(names)
            .current_dir(into))?;
        Ok(())
    }
}

/// What of a package's description matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) version: String,
    /// The names of what it depends on; of alternatives, the first.
    pub(crate) depends: Vec<String>,
}

impl Package {
    fn read(text: &str) -> Self {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .unwrap_or_default()
        };
        let names = field("Depends").split(',');
        Self {
            version: field("Version").to_owned(),
            depends: names
                .filter_map(|one| one.split_whitespace().next())
                .map(str::to_owned)
                .collect(),
        }
    }
}

/// Where the machine has its packages from.
struct Archive {
    uri: String,
    key: Option<String>,
}

impl Archive {
    fn of_this_machine() -> Result<Self, Error> {
        let format = "$(REPO_URI) $(SOURCESENTRY)";
        let text = run(Command::new("apt-get").args([
            "indextargets",
            "--format",
            format,
            "Created-By: Packages",
        ]))
        .map_err(|e| {
            Error::Machine(format!(
                "{e}; without apt, name a folder with a kernel (--kernel /)"
            ))
        })?;
        let text = String::from_utf8_lossy(&text);
        let (uri, entry) = first(&text).ok_or_else(|| {
            Error::Machine(
                "apt has no package source on this machine (/etc/apt/sources.list.d)".into(),
            )
        })?;
        // The entry is FILE:LINE.
        let file = entry
            .trim()
            .rsplit_once(':')
            .map_or(entry, |(file, _)| file);
        Ok(Self {
            uri: uri.to_owned(),
            key: key(&fs::read_to_string(file).unwrap_or_default()),
        })
    }

    fn entry(&self, suite: &str) -> String {
        let key = self
            .key
            .as_ref()
            .map(|key| format!("signed-by={key} "))
            .unwrap_or_default();
        format!("deb [{key}arch=amd64] {} {suite} main\n", self.uri)
    }
}

/// Of lines with an archive and where it is configured, the first that is no special one: security and the like have
/// archives of their own.
fn first(text: &str) -> Option<(&str, &str)> {
    let lines = || text.lines().filter_map(|line| line.split_once(' '));
    lines()
        .find(|(uri, _)| uri.trim_end_matches('/').ends_with("/debian"))
        .or_else(|| lines().next())
}

/// The file with the archive's keys that a file of package sources names (sources.list(5), in both styles).
fn key(sources: &str) -> Option<String> {
    let value = sources.lines().find_map(|line| {
        let lower = line.to_ascii_lowercase();
        let at = match lower.strip_prefix("signed-by:") {
            Some(_) => "signed-by:".len(),
            None => lower.find("signed-by=")? + "signed-by=".len(),
        };
        let value = line[at..].trim_start();
        value.split([' ', ']', ',']).next().map(str::to_owned)
    })?;
    value.starts_with('/').then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description() {
        let text = "Package: linux-image-amd64\nVersion: 7.3-1\n\
                    Depends: linux-base (= 7.3-1), linux-image-7.3-amd64 (= 7.3-1), dracut | initramfs-tools\n";
        let package = Package::read(text);
        assert_eq!(package.version, "7.3-1");
        assert_eq!(
            package.depends,
            ["linux-base", "linux-image-7.3-amd64", "dracut"]
        );
        assert_eq!(Package::read("Package: alone\n"), Package::default());
    }

    #[test]
    fn the_archive_is_not_that_of_security() {
        let text = "http://a.test/debian-security/ /etc/s:2\nhttp://a.test/debian/ /etc/s:1\n";
        assert_eq!(first(text), Some(("http://a.test/debian/", "/etc/s:1")));
        assert_eq!(
            first("http://b.test/mirror/ /etc/s:1\n"),
            Some(("http://b.test/mirror/", "/etc/s:1"))
        );
        assert_eq!(first(""), None);
    }

    #[test]
    fn keys_of_both_styles() {
        let cases = [
            ("Types: deb\nSigned-By: /keys/a.gpg\n", Some("/keys/a.gpg")),
            (
                "deb [arch=amd64 signed-by=/keys/b.gpg] http://a.test/ sid main\n",
                Some("/keys/b.gpg"),
            ),
            (
                "deb [signed-by=/keys/c.gpg,/keys/d.gpg] http://a.test/ sid main\n",
                Some("/keys/c.gpg"),
            ),
            ("Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n", None),
            ("deb http://a.test/ sid main\n", None),
        ];
        for (text, expected) in cases {
            assert_eq!(key(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn an_entry() {
        let archive = |key: Option<&str>| Archive {
            uri: "http://a.test/".into(),
            key: key.map(str::to_owned),
        };
        assert_eq!(
            archive(Some("/k.gpg")).entry("sid"),
            "deb [signed-by=/k.gpg arch=amd64] http://a.test/ sid main\n"
        );
        assert_eq!(
            archive(None).entry("sid"),
            "deb [arch=amd64] http://a.test/ sid main\n"
        );
    }
}
