//! Directories that a daemon makes for its files, such as /run/dataplane: the control socket and the
//! records of changes share one, and whichever goes last takes it away.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What this process has made: one that was there before it is an administrator's, and stays.
static MADE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn made() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a directory (0755, whatever the umask), but not that directory's own; one that is there will do.
pub(crate) fn make(directory: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(directory) {
        Ok(()) => {
            made().insert(directory.to_owned());
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
        }
        Err(_) if directory.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes a directory if this process has made it and nothing is in it any more.
pub(crate) fn leave(directory: &Path) {
    let mut made = made();
    if made.contains(directory) && fs::remove_dir(directory).is_ok() {
        made.remove(directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_file_takes_the_directory_along_if_it_was_made_for_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        fs::create_dir(&path).unwrap();
        make(&path).unwrap();
        leave(&path);
        assert!(path.exists(), "it was there before");
        fs::remove_dir(&path).unwrap();
        make(&path).unwrap();
        make(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o755
        );
        fs::write(path.join("file"), "").unwrap();
        leave(&path);
        assert!(path.exists(), "something is in it");
        fs::remove_file(path.join("file")).unwrap();
        leave(&path);
        assert!(!path.exists());
        // Another's from now on.
        fs::create_dir(&path).unwrap();
        leave(&path);
        assert!(path.exists());
        assert!(make(&root.path().join("a/b")).is_err());
    }
}
