//! A recording: the thread that writes it, and what it writes to, opened by that thread without any
//! privilege, so that what could not be done later fails at the start. Under sudo(8) it is the caller's, where root
//! without privilege may not write.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use dataplane::port::{
    Port,
    pcap::write::{Output, Recorder, Settings},
};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{AccessFlags, faccessat},
};

use super::{
    Pcap,
    names::Names,
    output::{Files, Stream},
};
use crate::{
    api::protocol::PortInfo,
    config::{Plan, PlannedPort},
    daemon::{StartError, exit, hold_signals},
    ports::{Device, PortKind, Seat},
    privilege,
};

/// How long a file system may take for what is in flight at the end.
const DISK_PATIENCE: Duration = Duration::from_secs(2);

/// The same for whoever reads a stream.
const READER_PATIENCE: Duration = Duration::from_millis(100);

/// How long the start waits for somebody to open a FIFO for reading.
const OPENED: Duration = Duration::from_secs(5);

/// What became of waiting for that when a signal came.
const STOPPED: &str = "told to stop before anybody had opened the FIFO for reading";

/// Bytes of a pipe, where it may be made so large.
const PIPE: i32 = 1 << 20;

pub(super) struct RecordingDevice {
    path: String,
    recorder: Recorder,
    /// For each worker that writes, the interface of each of its ports.
    interfaces: Vec<Vec<u32>>,
}

impl RecordingDevice {
    pub(super) fn make(port: &PlannedPort, config: &Pcap, plan: &Plan) -> Result<Self, StartError> {
        let path = &config.path.value;
        let to_stream = config.is_standard() || is_stream(path);
        if config.is_standard() && io::stdout().is_terminal() {
            return Err(StartError::config(
                &port.name,
                &"standard output is a terminal, and captures are no text; send it to a program or a file: dataplane … | tshark -r -",
            ));
        }
        not_of_another_port(port, path, plan)?;
        let rotate = config.rotate.as_ref().map(|rotate| rotate.value);
        let names = Names::new(path, rotate.is_some())
            .map_err(|e| StartError::config(&port.name, &format!("path: {e}")))?;
        let (sources, interfaces) = interfaces(port, plan);
        let settings = Settings {
            workers: interfaces.len(),
            program: concat!("dataplane ", env!("CARGO_PKG_VERSION")).to_owned(),
            interfaces: sources,
            limits: rotate.unwrap_or_default().limits(),
            compress: config.compresses(),
            patience: if to_stream {
                READER_PATIENCE
            } else {
                DISK_PATIENCE
            },
        };
        let keep = config.keep.as_ref().map(|keep| keep.value as usize);
        let (path, standard) = (path.clone(), config.is_standard());
        let recorder = Recorder::start(settings, move || {
            privilege::lock_down_to_write(|| standard || may_write(&path)).map_err(|e| e.to_string())?;
            Ok(if standard {
                Box::new(standard_output()?) as Box<dyn Output>
            } else if to_stream {
                Box::new(fifo(&path)?)
            } else {
                Box::new(Files::new(names, keep))
            })
        })
        .map_err(|e| {
            if e == STOPPED {
                return StartError {
                    code: exit::DONE,
                    message: format!("port {}: {e}", port.name),
                };
            }
            let remedy = match e.contains("ermission denied") {
                // As root one would not expect it.
                true => "; it is written without privilege, as the user who started the daemon or called sudo: give that user the directory (chown), or name another",
                false => "",
            };
            StartError::machine(&port.name, &format!("{e}{remedy}"))
        })?;
        Ok(Self {
            path: config.shown(false),
            recorder,
            interfaces,
        })
    }
}

impl Device for RecordingDevice {
    fn open(
        &mut self,
        &Seat { queue, .. }: &Seat<'_>,
    ) -> Result<Option<Box<dyn Port>>, StartError> {
        let interfaces = std::mem::take(&mut self.interfaces[queue as usize]);
        let sink = self.recorder.sink(queue as usize, interfaces);
        Ok(Some(Box::new(sink)))
    }

    fn describe(&self, info: &mut PortInfo) {
        info.interface = Some(self.path.clone());
    }
}

/// The names of all sources of a sink, which are the interfaces of its files; and for each worker that
/// writes to it which of them each of the worker's ports is.
fn interfaces(sink: &PlannedPort, plan: &Plan) -> (Vec<String>, Vec<Vec<u32>>) {
    let of = |name: &str| plan.ports.iter().position(|port| port.name == name);
    let Some(sink) = of(&sink.name) else {
        return (Vec::new(), Vec::new());
    };
    let mut sources: Vec<usize> = Vec::new();
    for pipeline in plan.pipelines.iter().filter(|p| p.to.contains(&sink)) {
        let new = pipeline.from.iter().filter(|from| !sources.contains(from));
        sources.extend(new.copied().collect::<Vec<_>>());
    }
    let number = |port: usize| sources.iter().position(|&source| source == port);
    let mut workers: Vec<(u32, Vec<u32>)> = Vec::new();
    for worker in &plan.workers {
        if let Some(unit) = worker.units.iter().find(|unit| unit.port == sink) {
            let units = worker.units.iter();
            let numbers = units.map(|unit| number(unit.port).unwrap_or(0) as u32);
            workers.push((unit.queue, numbers.collect()));
        }
    }
    workers.sort_by_key(|(queue, _)| *queue);
    let name = |&source: &usize| plan.ports[source].name.clone();
    (
        sources.iter().map(name).collect(),
        workers.into_iter().map(|(_, numbers)| numbers).collect(),
    )
}

/// Under another name, a link, it may be the file that another port reads.
fn not_of_another_port(port: &PlannedPort, path: &Path, plan: &Plan) -> Result<(), StartError> {
    let identity = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    let Some(mine) = identity(&path.to_owned()) else {
        return Ok(());
    };
    for other in plan.ports.iter().filter(|other| other.name != port.name) {
        if let PortKind::Pcap(pcap) = &other.kind
            && identity(&pcap.path) == Some(mine)
        {
            let what = format!(
                "{} is the file of port {} under another name; name another file",
                path.display(),
                other.name
            );
            return Err(StartError::config(&port.name, &what));
        }
    }
    Ok(())
}

/// Whether the calling thread may write the file of that name, or make it and the folders that it takes.
fn may_write(path: &Path) -> bool {
    let here = Path::new(".");
    let mut ancestors = path.ancestors().map(|path| match path.as_os_str() {
        name if name.is_empty() => here,
        _ => path,
    });
    let there = ancestors.find(|path| path.exists()).unwrap_or(here);
    faccessat(AT_FDCWD, there, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_ok()
}

/// Whether there is something at a path that is written like a pipe.
fn is_stream(path: &Path) -> bool {
    let kind = fs::metadata(path).map(|metadata| metadata.file_type());
    kind.is_ok_and(|kind| kind.is_fifo())
}

fn standard_output() -> Result<Stream, String> {
    let refused = |e: io::Error| format!("standard output cannot be written: {e}");
    let file = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(refused)?);
    enlarge(&file);
    Stream::new("standard output", file).map_err(refused)
}

/// Opens a FIFO for writing once somebody reads it: before, the kernel answers ENXIO (fifo(7)).
fn fifo(path: &Path) -> Result<Stream, String> {
    let shown = path.display();
    let until = Instant::now() + OPENED;
    // A second one, to look and not to read: whoever says stop need not wait with us.
    let signals = hold_signals().map_err(|e| e.message)?;
    loop {
        let opened = OpenOptions::new()
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path);
        match opened {
            Ok(file) => {
                enlarge(&file);
                return Stream::new(shown.to_string(), file)
                    .map_err(|e| format!("{shown} cannot be written: {e}"));
            }
            Err(e) if e.raw_os_error() == Some(Errno::ENXIO as i32) => {
                if Instant::now() >= until {
                    return Err(format!(
                        "nobody has opened the FIFO {shown} for reading within {OPENED:?}; start its reader first"
                    ));
                }
                let mut stop = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
                if poll(&mut stop, PollTimeout::from(20u8)).is_ok_and(|n| n > 0) {
                    return Err(STOPPED.to_owned());
                }
            }
            Err(e) => return Err(format!("cannot open {shown}: {e}")),
        }
    }
}

/// A larger pipe takes more at a time; what is no pipe, or refuses, stays as it is.
fn enlarge(pipe: &File) {
    let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE));
}
