//! Kernels: which there are, and their files: the image, and the modules in a folder as `modprobe -d` wants it.

mod apt;
mod modules;
mod unpack;

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use nix::fcntl::{Flock, FlockArg};

pub(crate) use self::modules::closure;
use crate::error::{At, Error};

/// A kernel that a distribution packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packaged {
    /// What it is called here.
    pub(crate) name: &'static str,
    /// The suite of Debian that has it.
    pub(crate) suite: &'static str,
}

impl Packaged {
    /// Whether a release is of the series that the name promises.
    fn is(&self, release: &str) -> bool {
        let rest = release.strip_prefix(self.name);
        !self.name.starts_with(|c: char| c.is_ascii_digit())
            || rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    }
}

/// Every kernel that is tested: Debian 12's own, that of its backports, and the newest that is packaged for a stable
/// release. The package is `linux-image-amd64` in each.
pub(crate) const PACKAGED: &[Packaged] = &[
    Packaged {
        name: "6.1",
        suite: "bookworm",
    },
    Packaged {
        name: "6.12",
        suite: "bookworm-backports",
    },
    Packaged {
        name: "newest",
        suite: "trixie-backports",
    },
];

/// The one that is taken where none is named.
pub(crate) const DEFAULT: &str = "newest";

/// A kernel's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// As `uname -r` says it.
    pub(crate) release: String,
    /// The image that boots.
    pub(crate) image: PathBuf,
    /// A folder with `lib/modules/RELEASE` in it.
    pub(crate) base: PathBuf,
}

impl Kernel {
    /// Where its modules and their index are.
    pub(crate) fn modules(&self) -> PathBuf {
        self.base.join("lib/modules").join(&self.release)
    }
}

/// How long an answer of the package source to "which is the newest" is good for.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// The kernel of that name, fetched if need be; or the one in that folder.
pub(crate) fn find(name: &str) -> Result<Kernel, Error> {
    if let Some(packaged) = PACKAGED.iter().find(|packaged| packaged.name == name) {
        return fetch(*packaged);
    }
    if name.contains('/') {
        return in_folder(Path::new(name));
    }
    let names: Vec<&str> = PACKAGED.iter().map(|packaged| packaged.name).collect();
    Err(Error::Usage(format!(
        "--kernel {name}: there are {}; or name a folder with boot/vmlinuz-RELEASE and lib/modules/RELEASE (such as / or ./)",
        names.join(", ")
    )))
}

/// Kernels and what is known of them: `DATAPLANE_VM_CACHE`, or in the user's cache.
pub(crate) fn cache() -> Result<PathBuf, Error> {
    let from = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let folder = from("DATAPLANE_VM_CACHE")
        .or_else(|| Some(from("XDG_CACHE_HOME")?.join("dataplane/vm")))
        .or_else(|| Some(from("HOME")?.join(".cache/dataplane/vm")))
        .ok_or_else(|| {
            Error::Machine(
                "HOME is not set: say in DATAPLANE_VM_CACHE where kernels may be kept".into(),
            )
        })?;
    fs::create_dir_all(&folder).at(&folder)?;
    Ok(folder)
}

fn fetch(packaged: Packaged) -> Result<Kernel, Error> {
    let cache = cache()?;
    // Two at once would unpack into each other.
    let lock = cache.join("lock");
    let file = fs::File::create(&lock).at(&lock)?;
    let _held = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| Error::File {
        path: lock,
        source: e.into(),
    })?;
    let known = Known::read(&cache, packaged);
    if let Some(known) = &known
        && known.fresh
    {
        return Ok(known.kernel.clone());
    }
    match apt::Source::of(packaged.suite, &cache).and_then(|source| unpack::newest(&source, &cache))
    {
        Ok(kernel) if !packaged.is(&kernel.release) => Err(Error::Machine(format!(
            "{} has {} and no {}",
            packaged.suite, kernel.release, packaged.name
        ))),
        Ok(kernel) => {
            Known::write(&cache, packaged, &kernel)?;
            Ok(kernel)
        }
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Err(e) => match known {
            Some(known) => {
                eprintln!("vm: {e}; taking {}, which is here", known.kernel.release);
                Ok(known.kernel)
            }
            None => Err(e),
        },
    }
}

/// What was fetched before.
struct Known {
    kernel: Kernel,
    fresh: bool,
}

impl Known {
    fn file(cache: &Path, packaged: Packaged) -> PathBuf {
        cache.join(format!("{}.kernel", packaged.name))
    }

    fn read(cache: &Path, packaged: Packaged) -> Option<Self> {
        let file = Self::file(cache, packaged);
        let folder = fs::read_to_string(&file).ok()?;
        let kernel = in_folder(&cache.join(folder.trim())).ok()?;
        let written = fs::metadata(&file).and_then(|file| file.modified()).ok()?;
        let age = SystemTime::now()
            .duration_since(written)
            .unwrap_or_default();
        Some(Self {
            kernel,
            fresh: age < FRESH,
        })
    }

    fn write(cache: &Path, packaged: Packaged, kernel: &Kernel) -> Result<(), Error> {
        let folder = kernel.base.strip_prefix(cache).unwrap_or(&kernel.base);
        let file = Self::file(cache, packaged);
        fs::write(&file, folder.as_os_str().as_encoded_bytes()).at(file)
    }
}

/// The numbers of a release, by which releases are in order.
fn numbers(release: &str) -> Vec<u64> {
    let numbers = release.split(|c: char| !c.is_ascii_digit());
    numbers.filter_map(|number| number.parse().ok()).collect()
}

/// The kernel in a folder that is laid out as a root file system is: the one with the highest name, if it has several.
fn in_folder(base: &Path) -> Result<Kernel, Error> {
    let boot = base.join("boot");
    let mut releases: Vec<String> = fs::read_dir(&boot)
        .at(&boot)?
        .flatten()
        .filter_map(|entry| {
            Some(
                entry
                    .file_name()
                    .to_str()?
                    .strip_prefix("vmlinuz-")?
                    .to_owned(),
            )
        })
        .filter(|release| {
            let modules = base.join("lib/modules").join(release);
            ["modules.dep", "modules.builtin"]
                .iter()
                .all(|name| modules.join(name).is_file())
        })
        .collect();
    releases.sort_by_key(|release| numbers(release));
    let release = releases.pop().ok_or_else(|| {
        Error::Machine(format!(
            "{} has no boot/vmlinuz-RELEASE with a lib/modules/RELEASE/modules.dep (depmod -b makes it)",
            base.display()
        ))
    })?;
    Ok(Kernel {
        image: boot.join(format!("vmlinuz-{release}")),
        base: base.to_owned(),
        release,
    })
}

/// The packaged kernel as it was fetched last, if it was.
pub(crate) fn known(packaged: Packaged) -> Option<Kernel> {
    Some(Known::read(&cache().ok()?, packaged)?.kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_in_order_and_of_a_series() {
        let mut releases = [
            "6.12.95+deb12-amd64",
            "6.1.0-9-amd64",
            "6.1.0-50-amd64",
            "7.3.4+deb13-amd64",
            "6.9.1",
        ];
        releases.sort_by_key(|release| numbers(release));
        assert_eq!(
            releases,
            [
                "6.1.0-9-amd64",
                "6.1.0-50-amd64",
                "6.9.1",
                "6.12.95+deb12-amd64",
                "7.3.4+deb13-amd64"
            ]
        );
        for (name, release, expected) in [
            ("6.1", "6.1.0-50-amd64", true),
            ("6.1", "6.12.95+deb12-amd64", false),
            ("6.12", "6.12.95+deb12-amd64", true),
            ("newest", "7.3.4+deb13-amd64", true),
        ] {
            assert_eq!(
                Packaged { name, suite: "" }.is(release),
                expected,
                "{name} {release}"
            );
        }
    }
}
