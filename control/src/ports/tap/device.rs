//! A TAP or TUN device that the daemon made: one descriptor for each worker that reads or writes it.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use dataplane::port::{
    Port,
    tap::{Layer, TapOptions as QueueOptions, TapPort, device::is_nowait},
};

use super::{super::frames::HEADERS, Tap as Settings};
use crate::{
    api::protocol::PortInfo,
    config::PlannedPort,
    daemon::StartError,
    link::{
        listeners::PacketSockets,
        netns::NetNs,
        tap::{Tap, TapOptions},
    },
    ports::{Device, Listened, Seat},
};

pub(super) struct TapDevice {
    ns: NetNs,
    tap: Tap,
    /// Descriptors by queue; a worker takes its own.
    queues: Vec<Option<OwnedFd>>,
    mtu: u32,
    layer: Layer,
    gso: bool,
    source: bool,
    wait: Option<Duration>,
    /// Who listens, opened while the namespace can be entered.
    sockets: Arc<PacketSockets>,
}

impl TapDevice {
    pub(super) fn make(port: &PlannedPort, config: &Settings) -> Result<Self, StartError> {
        let fail = |error: &dyn std::fmt::Display| StartError::machine(&port.name, error);
        let ns = NetNs::open_or_own(config.netns.as_ref().map(|ns| ns.value.as_str()))
            .map_err(|e| fail(&e))?;
        let mut tap = Tap::create(
            &ns,
            &TapOptions {
                name: config.device.value.clone(),
                layer: config.layer(),
                gso: config.gso(),
                mtu: Some(config.mtu.value),
                queues: port.queues.len(),
                passive: port.passive(),
            },
        )
        .map_err(|e| fail(&e))?;
        let sockets = Arc::new(PacketSockets::open(&ns).map_err(|e| fail(&e))?);
        Ok(Self {
            sockets,
            ns,
            queues: tap.fds.drain(..).map(Some).collect(),
            tap,
            mtu: config.mtu.value,
            layer: config.layer(),
            gso: config.gso(),
            source: port.source,
            wait: config.wait_for_consumer,
        })
    }
}

impl Device for TapDevice {
    fn open(
        &mut self,
        &Seat { queue, .. }: &Seat<'_>,
    ) -> Result<Option<Box<dyn Port>>, StartError> {
        let Some(fd) = self.queues.get_mut(queue as usize).and_then(Option::take) else {
            return Ok(None);
        };
        let options = QueueOptions {
            layer: self.layer,
            longest: match self.layer {
                Layer::Ethernet => (self.mtu + HEADERS) as usize,
                Layer::Ip => self.mtu as usize,
            },
            source: self.source,
            threads: self.source && !is_nowait(fd.as_fd()),
            gso: self.gso,
        };
        if options.threads && queue == 0 {
            self.tap.notes.push(format!(
                "{}: this kernel's TUN driver cannot say that a read would wait (Linux 6.4): frames are read one at a time, which keeps their order and costs speed",
                self.tap.name
            ));
        }
        Ok(Some(Box::new(TapPort::new(
            self.tap.name.clone(),
            fd,
            options,
        ))))
    }

    fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.tap.notes)
    }

    /// Which sort of device it is, where that is not the kind's own, or that trains are written.
    fn mode(&self) -> String {
        match self.layer {
            Layer::Ethernet if self.gso => "gso".to_owned(),
            Layer::Ethernet => String::new(),
            Layer::Ip => "tun".to_owned(),
        }
    }

    fn listened(&self) -> Option<Listened<'_>> {
        Some(Listened {
            name: &self.tap.name,
            ifindex: self.tap.ifindex,
            sockets: &self.sockets,
            wait: self.wait,
        })
    }

    fn describe(&self, info: &mut PortInfo) {
        info.interface = Some(self.tap.name.clone());
        info.netns = self.ns.name().map(str::to_owned);
        info.mtu = Some(self.mtu);
    }
}
