//! A capture file, opened and its header looked at before anything starts.

use std::fs::File;

use dataplane::port::{
    Port,
    pcap::{self, OpenedCapture, Options, Pace as Playing, PcapPort},
};

use super::{Pace, Pcap};
use crate::{api::protocol::PortInfo, config::PlannedPort, daemon::StartError, ports::Device};

pub(super) struct CaptureDevice {
    path: String,
    capture: Option<OpenedCapture>,
}

impl CaptureDevice {
    pub(super) fn make(port: &PlannedPort, config: &Pcap) -> Result<Self, StartError> {
        let path = &config.path.value;
        let file = File::open(path).map_err(|e| {
            StartError::config(&port.name, &format!("cannot open {}: {e}", path.display()))
        })?;
        let options = Options {
            pace: match config.pace {
                Pace::Original => Playing::Original {
                    speed: config.speed,
                },
                Pace::Top => Playing::Top,
                Pace::Pps(pps) => Playing::Pps(pps),
                Pace::Mbps(mbps) => Playing::Mbps(mbps),
            },
            loops: config.loops.try_into().map_err(|_| {
                StartError::config(
                    &port.name,
                    &format!("loops = {} is too many; 0 is for ever", config.loops),
                )
            })?,
        };
        let capture =
            pcap::open(path, file, options).map_err(|e| StartError::config(&port.name, &e))?;
        Ok(Self {
            path: path.display().to_string(),
            capture: Some(capture),
        })
    }
}

impl Device for CaptureDevice {
    fn open(&mut self, _queue: u32, _core: usize) -> Result<Option<Box<dyn Port>>, StartError> {
        Ok(self
            .capture
            .take()
            .map(|capture| Box::new(PcapPort::new(capture)) as Box<dyn Port>))
    }

    fn describe(&self, info: &mut PortInfo) {
        info.interface = Some(self.path.clone());
    }
}
