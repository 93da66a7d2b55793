//! A kernel's packages, fetched and unpacked into the cache, never installed: the image and the modules stay, with
//! their index.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Kernel, apt::Source, in_folder};
use crate::error::{At, Error, run};

/// The package that depends on the newest kernel.
const META: &str = "linux-image-amd64";

/// What the names of folders begin with that are not whole yet.
const UNPACKING: &str = ".unpacking-";

/// The newest kernel of a suite; fetched unless the cache has that version.
pub(super) fn newest(source: &Source, cache: &Path) -> Result<Kernel, Error> {
    let meta = source.package(META)?;
    let packages = kernel_packages(|name| Ok(source.package(name)?.depends))?;
    let name = packages.first().ok_or_else(|| {
        Error::Machine(format!("{META} of {} depends on no kernel", source.suite()))
    })?;
    let folder = cache
        .join("kernels")
        .join(format!("{name}_{}", meta.version));
    if let Ok(kernel) = in_folder(&folder) {
        return Ok(kernel);
    }
    eprintln!("vm: fetching {} ({})", packages.join(", "), meta.version);
    let parent = cache.join("kernels");
    fs::create_dir_all(&parent).at(&parent)?;
    // Of a run that was killed; only the holder of the lock is here.
    for stale in fs::read_dir(&parent).at(&parent)?.flatten() {
        if stale.file_name().to_string_lossy().starts_with(UNPACKING) {
            let _ = fs::remove_dir_all(stale.path());
        }
    }
    // Beside its place, so that it comes there whole or not at all.
    let work = tempfile::Builder::new()
        .prefix(UNPACKING)
        .tempdir_in(&parent)
        .at(&parent)?;
    let (debs, tree, base) = (
        work.path().join("debs"),
        work.path().join("tree"),
        work.path().join("base"),
    );
    for folder in [&debs, &tree] {
        fs::create_dir(folder).at(folder)?;
    }
    source.download(&packages, &debs)?;
    for deb in fs::read_dir(&debs).at(&debs)?.flatten() {
        run(Command::new("dpkg-deb")
            .arg("-x")
            .arg(deb.path())
            .arg(&tree))?;
    }
    settle(&tree, &base)?;
    let _ = fs::remove_dir_all(&folder);
    fs::rename(&base, &folder).at(&folder)?;
    in_folder(&folder)
}

/// The packages with the files of a kernel, behind [`META`]. Up to 7.0 one has all; later the image, the modules, and
/// the list of what is built in have each their own.
fn kernel_packages(
    mut depends: impl FnMut(&str) -> Result<Vec<String>, Error>,
) -> Result<Vec<String>, Error> {
    let mut found: Vec<String> = Vec::new();
    let mut open = vec![META.to_owned()];
    while let Some(name) = open.pop() {
        for next in depends(&name)? {
            let versioned = [
                "linux-image-",
                "linux-binary-",
                "linux-modules-",
                "linux-base-",
            ]
            .iter()
            .filter_map(|prefix| next.strip_prefix(prefix))
            .any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            if versioned && !found.contains(&next) {
                found.push(next.clone());
                open.push(next);
            }
        }
    }
    // The one that others depend on comes first; it names the kernel.
    found.sort_by_key(|name| !name.starts_with("linux-image-"));
    Ok(found)
}

/// Lays out `base` as `modprobe -d` wants it, from what packages had.
fn settle(tree: &Path, base: &Path) -> Result<(), Error> {
    let modules = [tree.join("lib/modules"), tree.join("usr/lib/modules")]
        .into_iter()
        .find(|folder| folder.is_dir())
        .ok_or_else(|| Error::Machine("the kernel's packages have no modules".into()))?;
    let release = only_entry(&modules)?;
    let name = release
        .file_name()
        .and_then(OsStr::to_str)
        .unwrap_or_default();
    let image = [
        tree.join("boot").join(format!("vmlinuz-{name}")),
        release.join("vmlinuz"),
    ]
    .into_iter()
    .find(|file| file.is_file())
    .ok_or_else(|| Error::Machine(format!("the packages of {name} have no image")))?;
    let (boot, lib) = (base.join("boot"), base.join("lib/modules"));
    for folder in [&boot, &lib] {
        fs::create_dir_all(folder).at(folder)?;
    }
    fs::rename(&image, boot.join(format!("vmlinuz-{name}"))).at(&image)?;
    fs::rename(&release, lib.join(name)).at(&release)?;
    run(Command::new("depmod").arg("-b").arg(base).arg(name))
        .map_err(|e| Error::Machine(format!("{e}; depmod is in the package kmod")))?;
    Ok(())
}

fn only_entry(folder: &Path) -> Result<PathBuf, Error> {
    let mut entries = fs::read_dir(folder).at(folder)?.flatten();
    match (entries.next(), entries.next()) {
        (Some(one), None) => Ok(one.path()),
        _ => Err(Error::Machine(format!(
            "{} is not one kernel's",
            folder.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_both_ages() {
        let split = |name: &str| {
            Ok(match name {
                META => vec![
                    "linux-base-amd64",
                    "linux-image-7.3-amd64",
                    "linux-modules-amd64",
                ],
                "linux-image-7.3-amd64" => vec![
                    "dracut",
                    "linux-binary-7.3-amd64",
                    "linux-modules-7.3-amd64",
                ],
                "linux-modules-7.3-amd64" => vec!["kmod", "linux-base-7.3-amd64"],
                _ => vec![],
            }
            .into_iter()
            .map(str::to_owned)
            .collect())
        };
        let mut names = kernel_packages(split).expect("no error");
        assert_eq!(names.remove(0), "linux-image-7.3-amd64");
        names.sort();
        assert_eq!(
            names,
            [
                "linux-base-7.3-amd64",
                "linux-binary-7.3-amd64",
                "linux-modules-7.3-amd64"
            ]
        );
        let whole = |name: &str| {
            Ok(match name {
                META => vec!["linux-image-6.1.0-50-amd64".to_owned()],
                _ => vec!["kmod".to_owned(), "linux-base".to_owned()],
            })
        };
        assert_eq!(
            kernel_packages(whole).expect("no error"),
            ["linux-image-6.1.0-50-amd64"]
        );
    }

    #[test]
    fn a_tree_of_either_age_is_laid_out() {
        for old in [true, false] {
            let work = tempfile::tempdir().expect("a folder");
            let tree = work.path().join("tree");
            let modules = tree.join(if old {
                "lib/modules/9.9-x"
            } else {
                "usr/lib/modules/9.9-x"
            });
            fs::create_dir_all(modules.join("kernel")).expect("a folder");
            fs::write(modules.join("modules.order"), "").expect("a file");
            fs::write(modules.join("modules.builtin"), "").expect("a file");
            let image = match old {
                true => tree.join("boot/vmlinuz-9.9-x"),
                false => modules.join("vmlinuz"),
            };
            fs::create_dir_all(image.parent().expect("within the tree")).expect("a folder");
            fs::write(&image, "image").expect("a file");
            let base = work.path().join("base");
            match settle(&tree, &base) {
                // Without kmod there is no depmod; all else is tested.
                Err(Error::Machine(e)) if e.contains("kmod") => continue,
                other => other.expect("laid out"),
            }
            let kernel = in_folder(&base).expect("a kernel");
            assert_eq!(kernel.release, "9.9-x");
            assert_eq!(fs::read(&kernel.image).expect("the image"), b"image");
        }
    }
}
