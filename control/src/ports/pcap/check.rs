//! A capture against the machine: a file that can be played, or a place where one can be recorded.

use std::{io, path::Path};

use super::{NO_FILE, Pcap, names::Names};
use crate::config::{At, FileFact, PlannedPort, Position, Site};

/// Says what stands against playing or recording it.
pub(super) fn inspect(config: &Pcap, port: &PlannedPort, site: &mut Site<'_>) {
    match (port.source, port.sink) {
        (true, true) => {
            let path = config.path.display();
            site.wrong(port.at, format!("a capture is either played or recorded, and {path} is in `from` and in `to`; make two ports of it"));
        }
        (true, false) => inspect_source(config, site),
        (false, _) => inspect_sink(config, port, site),
    }
}

/// Where each key stands that is one role's, and its name.
fn keys(config: &Pcap, source: bool) -> Vec<(&'static str, Position)> {
    fn at<T>(key: &Option<At<T>>) -> Option<Position> {
        key.as_ref().map(|key| key.at)
    }
    let keys = match source {
        true => [
            ("pace", at(&config.pace)),
            ("speed", at(&config.speed)),
            ("loops", at(&config.loops)),
        ],
        false => [
            ("rotate", at(&config.rotate)),
            ("keep", at(&config.keep)),
            ("compress", at(&config.compress)),
        ],
    };
    let given = keys.into_iter().filter_map(|(key, at)| Some((key, at?)));
    given.collect()
}

fn inspect_source(config: &Pcap, site: &mut Site<'_>) {
    for (key, at) in keys(config, false) {
        site.wrong(
            at,
            format!(
                "{key} is for recording, and this capture is played: it is in `from`; leave it out"
            ),
        );
    }
    if config.is_standard() {
        return;
    }
    let path = config.path.display();
    let at = config.path.at;
    match site.machine().file(&config.path) {
        Ok(FileFact::Regular(0)) => {
            let what = format!("capture file {path} is empty; name one that holds frames");
            site.wrong(at, what);
        }
        Ok(FileFact::Directory) => {
            site.wrong(at, format!("{path} is a directory; name a capture file"));
        }
        Ok(FileFact::Other) => site.wrong(at, format!("{path} {NO_FILE}")),
        Ok(FileFact::Regular(_) | FileFact::Pipe) => {}
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                let what = "does not exist; a relative path begins at the working directory";
                site.wrong(at, format!("capture file {path} {what}"));
            }
            io::ErrorKind::PermissionDenied => {
                let what = "may not be read; give it to this user, or run as another";
                site.refuse(at, format!("capture file {path} {what}"));
            }
            _ => site.refuse(at, format!("capture file {path} cannot be read: {error}")),
        },
    }
}

fn inspect_sink(config: &Pcap, port: &PlannedPort, site: &mut Site<'_>) {
    for (key, at) in keys(config, true) {
        site.wrong(
            at,
            format!(
                "{key} is for playing, and this capture is recorded: it is in `to`; leave it out"
            ),
        );
    }
    let at = config.path.at;
    let shown = config.path.display();
    if config.path.extension().is_some_and(|e| e == "gz") {
        site.wrong(at, format!("{shown} would be compressed with gzip, which is not written; name it .zst, or set compress = \"zstd\" and leave .gz out"));
    }
    if let (Some(keep), None) = (&config.keep, &config.rotate) {
        site.wrong(
            keep.at,
            "keep is about several files; set rotate too: rotate = { size = \"100MB\" }".to_owned(),
        );
    }
    let fact = match config.is_standard() {
        true => Ok(FileFact::Pipe),
        false => site.machine().file(&config.path),
    };
    if let (Some(rotate), Ok(FileFact::Pipe)) = (&config.rotate, &fact) {
        let what = config.shown(false);
        site.wrong(
            rotate.at,
            format!("{what} cannot be rotated; leave rotate out, or name a file"),
        );
    }
    if config.is_standard() {
        return;
    }
    let mut names = match Names::new(&config.path, config.rotate.is_some()) {
        Ok(names) => names,
        Err(error) => {
            site.wrong(at, format!("path {shown:?}: {error}; conversions are those of strftime, such as %Y%m%d-%H%M%S, and %% is a percent sign"));
            return;
        }
    };
    match fact {
        Ok(FileFact::Directory) => {
            site.wrong(at, format!("{shown} is a directory; name a file in it"));
            return;
        }
        Ok(FileFact::Other) => {
            site.wrong(at, format!("{shown} {NO_FILE}"));
            return;
        }
        Ok(FileFact::Pipe) => {
            site.note(format!(
                "port {:?}: the start waits up to 5s for somebody to read the FIFO {shown}",
                port.name
            ));
            return;
        }
        Ok(FileFact::Regular(_)) | Err(_) => {}
    }
    let first = names.next(&jiff::Zoned::now());
    let folder = match first.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    match site.machine().file(folder) {
        Ok(FileFact::Directory) => {}
        Ok(_) => {
            site.wrong(at, format!("{} is no directory", folder.display()));
            return;
        }
        // It is made with the first file, as those of other times will be.
        Err(error) if error.kind() == io::ErrorKind::NotFound && names.folders_vary() => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = folder.display();
            site.wrong(
                at,
                format!("directory {folder} does not exist; make it: mkdir -p {folder}"),
            );
            return;
        }
        // The start will say more.
        Err(_) => {}
    }
    if matches!(site.machine().file(&first), Ok(FileFact::Regular(_))) {
        site.note(format!(
            "port {:?}: {} is there already and is overwritten",
            port.name,
            first.display()
        ));
    }
}
