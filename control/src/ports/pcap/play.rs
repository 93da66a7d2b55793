//! A capture that is played, opened and its header looked at before anything starts.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::Path,
};

use dataplane::port::{
    Port,
    pcap::read::{self, OpenedCapture, Options, Pace as Playing, PcapSource},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::{NO_FILE, Pace, Pcap};
use crate::{
    api::protocol::PortInfo,
    config::PlannedPort,
    daemon::StartError,
    ports::{Device, Seat},
};

pub(super) struct CaptureDevice {
    path: String,
    capture: Option<OpenedCapture>,
}

impl CaptureDevice {
    pub(super) fn make(port: &PlannedPort, config: &Pcap) -> Result<Self, StartError> {
        let path = &config.path.value;
        let file = match config.is_standard() {
            true => standard_input(),
            false => open(path),
        };
        let file = file.map_err(|e| StartError::config(&port.name, &e))?;
        let loops = config.loops();
        let options = Options {
            pace: match config.pace() {
                Pace::Original => Playing::Original {
                    speed: config.speed(),
                },
                Pace::Top => Playing::Top,
                Pace::Pps(pps) => Playing::Pps(pps),
                Pace::Mbps(mbps) => Playing::Mbps(mbps),
            },
            loops: loops.try_into().map_err(|_| {
                StartError::config(
                    &port.name,
                    &format!("loops = {loops} is too many; 0 is for ever"),
                )
            })?,
        };
        let capture =
            read::open(path, file, options).map_err(|e| StartError::config(&port.name, &e))?;
        Ok(Self {
            path: config.shown(true),
            capture: Some(capture),
        })
    }
}

impl Device for CaptureDevice {
    fn open(&mut self, _seat: &Seat<'_>) -> Result<Option<Box<dyn Port>>, StartError> {
        Ok(self
            .capture
            .take()
            .map(|capture| Box::new(PcapSource::new(capture)) as Box<dyn Port>))
    }

    fn describe(&self, info: &mut PortInfo) {
        info.interface = Some(self.path.clone());
    }
}

/// Opens a capture file or a FIFO, whose writer may come later. What it was when the configuration was checked
/// may be something else now.
fn open(path: &Path) -> Result<File, String> {
    let shown = path.display();
    let refused = |error| format!("cannot open {shown}: {error}");
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(refused)?;
    let kind = file.metadata().map_err(refused)?.file_type();
    if !kind.is_file() && !kind.is_fifo() {
        return Err(format!("{shown} {NO_FILE}"));
    }
    // A file's pages may have to be waited for; a FIFO is waited for before it is read.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).map_err(|errno| refused(errno.into()))?;
    Ok(file)
}

fn standard_input() -> Result<File, String> {
    let input = io::stdin();
    if input.is_terminal() {
        return Err(
            "standard input is a terminal; pipe a capture into it: tcpdump -U -w - | dataplane …"
                .to_owned(),
        );
    }
    let file = input.as_fd().try_clone_to_owned();
    let file = file.map_err(|e| format!("standard input cannot be read: {e}"))?;
    Ok(File::from(file))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read};

    use nix::{fcntl::FdFlag, sys::stat::Mode, unistd::mkfifo};

    use super::*;

    #[test]
    fn only_a_file_or_a_fifo_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "frames").unwrap();
        mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink(at("fifo"), at("link")).unwrap();
        for (path, error) in [
            (folder.path().to_owned(), "is no file and no pipe"),
            ("/dev/null".into(), "is no file and no pipe"),
            (at("none"), "cannot open"),
        ] {
            let message = open(&path).unwrap_err();
            assert!(message.contains(error), "{message}");
            assert!(message.contains(path.to_str().unwrap()), "{message}");
        }

        // Nobody writes to it yet.
        for path in [at("fifo"), at("link")] {
            assert!(
                open(&path)
                    .unwrap()
                    .metadata()
                    .unwrap()
                    .file_type()
                    .is_fifo()
            );
        }
        let mut file = open(&at("file")).unwrap();
        let status = fcntl(&file, FcntlArg::F_GETFL).unwrap();
        assert!(!OFlag::from_bits_retain(status).contains(OFlag::O_NONBLOCK));
        let flags = fcntl(&file, FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "frames");
    }
}
