//! Reports as JSON: one in a file, a list of them in a file, or a folder of such files. And their plots.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Plot, PlotError, Report, VERSION};

/// Why there are no reports to be had, or none could be written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refuses.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
    /// Not what dpbench writes.
    #[error("{path}: no report of dpbench ({error}); make one with --json", path = path.display())]
    Json {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// Of another dpbench.
    #[error("{path}: a report of version {found}, and this dpbench reads version {VERSION}: measure again", path = path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// No plot.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// Nothing in a folder.
    #[error("{path}: no reports (*.json) in this folder; dpbench all --out writes them", path = path.display())]
    Empty {
        /// Which folder.
        path: PathBuf,
    },
}

/// One or many.
#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    One(Box<Report>),
    Many(Vec<Report>),
}

/// The reports in a file, or in all files `*.json` of a folder, by name.
///
/// # Errors
///
/// When one cannot be read, or is none.
pub fn read(path: &Path) -> Result<Vec<Report>, FileError> {
    let io = |error| FileError::Io {
        path: path.into(),
        error,
    };
    if !path.is_dir() {
        return read_file(path);
    }
    let mut files: Vec<PathBuf> = fs::read_dir(path)
        .map_err(io)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(FileError::Empty { path: path.into() });
    }
    let mut reports = Vec::new();
    for file in files {
        reports.extend(read_file(&file)?);
    }
    Ok(reports)
}

fn read_file(path: &Path) -> Result<Vec<Report>, FileError> {
    let text = fs::read_to_string(path).map_err(|error| FileError::Io {
        path: path.into(),
        error,
    })?;
    let json = |error| FileError::Json {
        path: path.into(),
        error,
    };
    let reports = match serde_json::from_str(&text).map_err(json)? {
        Content::One(report) => vec![*report],
        Content::Many(reports) => reports,
    };
    match reports.iter().find(|report| report.version != VERSION) {
        Some(other) => Err(FileError::Version {
            path: path.into(),
            found: other.version,
        }),
        None => Ok(reports),
    }
}

/// Writes one report into a file.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write(path: &Path, report: &Report) -> Result<(), FileError> {
    let json = serde_json::to_string_pretty(report).map_err(|error| FileError::Json {
        path: path.into(),
        error,
    })?;
    put(path, json + "\n")
}

/// Draws the plots of a report into a folder, which is made when there is none. Answers those drawn, by file name.
///
/// # Errors
///
/// When one cannot be drawn or written.
pub fn draw(folder: &Path, report: &Report) -> Result<Vec<(String, Plot)>, FileError> {
    fs::create_dir_all(folder).map_err(|error| FileError::Io {
        path: folder.into(),
        error,
    })?;
    let mut drawn = Vec::new();
    for (name, plot) in report.plots() {
        if let Some(svg) = plot.svg(report)? {
            put(&folder.join(&name), svg)?;
            drawn.push((name, plot));
        }
    }
    Ok(drawn)
}

/// Writes a file.
pub(crate) fn put(path: &Path, content: String) -> Result<(), FileError> {
    fs::write(path, content).map_err(|error| FileError::Io {
        path: path.into(),
        error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{CPU, tests::report};

    #[test]
    fn one_report_a_list_and_a_folder_are_read() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| dir.path().join(name);
        assert!(matches!(read(dir.path()), Err(FileError::Empty { .. })));
        write(&path("one.json"), &report()).expect("a report is written");
        let list = serde_json::to_string(&[report(), report()]).expect("reports become JSON");
        fs::write(path("two.json"), list).expect("a list is written");
        for (name, reports) in [("one.json", 1), ("two.json", 2), ("", 3)] {
            assert_eq!(read(&path(name)).expect(name).len(), reports, "{name}");
        }
    }

    #[test]
    fn a_report_that_asks_for_nothing_gets_bars_of_its_ratios() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let folder = dir.path().join("new");
        let drawn = draw(&folder, &report()).expect("it can be drawn");
        assert_eq!(drawn.len(), 1);
        let (name, plot) = &drawn[0];
        assert_eq!((name.as_str(), &plot.quantity), ("test.svg", &CPU));
        assert!(folder.join(name).exists());
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("report.json");
        let mut other = report();
        other.version = VERSION + 1;
        let other = serde_json::to_string(&other).expect("a report becomes JSON");
        for (text, said) in [
            ("{}", "no report"),
            ("not JSON", "no report"),
            (&other, "measure again"),
        ] {
            fs::write(&path, text).expect("a file is written");
            let error = read(&path).expect_err(text).to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
