//! An interface taken by AF_XDP: its offloads set, our program attached, one socket a queue. The
//! interface may go down, away and come back; then everything is made anew.

use std::{
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use dataplane::{
    frame::{Arena, Backing, HugePages},
    port::{
        Port, af_packet,
        af_xdp::{
            AfXdpOptions, AfXdpPort, BindMode, Granted, OpenError, OpenQueue, QueueOptions, open,
        },
    },
};

use super::{
    AfXdp, Offloads, Queues, XdpMode,
    check::{self, HEADER, room},
};
use crate::{
    api::protocol::PortInfo,
    config::{Plan, PlannedPort},
    daemon::StartError,
    kernel::xdp::{
        Delivery, QueueCounters, Unclaimed, XdpChoice, XdpMode as Attached, XdpOptions, XdpProgram,
    },
    link::{
        ethtool::Ethtool,
        monitor::{Change, LinkEvent},
        netlink::{Link, Netlink},
        netns::{NetNs, in_netns, on_core_in_netns},
        offloads::{self, OffloadChoice, OffloadGuard},
    },
    ports::{Device, Seat, Turn},
    stats::PortStats,
};

/// How often a bind is tried at the start, while the kernel may still release the socket of a run
/// before, and how long between. Later the daemon itself tries again, and sleeps meanwhile.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// How long a card may be without carrier that starts anew; gigabit cards negotiate for some 3 s.
const CARRIER: Duration = Duration::from_secs(10);

/// How often a queue that returns finds its memory in use before it gets other memory. The daemon tries again
/// every 50 ms.
const PATIENCE: u32 = 10;

pub(super) struct XdpDevice {
    port: String,
    interface: String,
    ns: NetNs,
    config: AfXdp,
    queues: Vec<u32>,
    source: bool,
    sink: bool,
    options: QueueOptions,
    /// What memory of a queue's own takes, should its part of the worker's not be free: slots, their size, pages.
    slots: u32,
    slot_size: u32,
    hugepages: HugePages,
    /// How often a part was not free since the link came back.
    waited: u32,
    /// The driver's name, where that is known.
    driver: String,
    /// Whether that driver may grant zero-copy, as far as one knows before it is asked.
    may_be_zero_copy: bool,
    /// While the interface is there; for a port that is no source, where the driver may transmit without copies.
    program: Option<XdpProgram>,
    /// While it is open, the interface takes frames that are for others.
    promiscuous: Option<OwnedFd>,
    /// What was changed on the interface and its peer, to be put back.
    offloads: Vec<OffloadGuard>,
    ifindex: Option<u32>,
    mtu: Option<u32>,
    /// Whether a frame of that length needs several slots, and whether the kernel can do that.
    asked_multi_buffer: bool,
    multi_buffer: bool,
    up: bool,
    /// Whether it had a carrier before a program was attached.
    had_carrier: bool,
    /// Nothing was lost yet: what keeps a queue busy is about to go.
    starting: bool,
    granted: Option<(Granted, Backing)>,
    /// What programs that are gone had dropped.
    dropped_before: QueueCounters,
    notes: Vec<String>,
}

impl XdpDevice {
    pub(super) fn make(
        port: &PlannedPort,
        config: &AfXdp,
        plan: &Plan,
    ) -> Result<Self, StartError> {
        let ns = NetNs::open_or_own(config.netns.as_ref().map(|ns| ns.value.as_str()))
            .map_err(|e| StartError::machine(&port.name, &e))?;
        let mut device = Self {
            port: port.name.clone(),
            interface: config.interface.value.clone(),
            ns,
            config: config.clone(),
            queues: port.queues.clone(),
            source: port.source,
            sink: port.sink,
            options: QueueOptions {
                interface: config.interface.value.clone(),
                queue: 0,
                mode: BindMode::Copy,
                transmits: port.sink,
                multi_buffer: false,
            },
            slots: plan.slots,
            slot_size: plan.slot_size,
            hugepages: plan.hugepages.into(),
            waited: 0,
            driver: String::new(),
            may_be_zero_copy: false,
            program: None,
            promiscuous: None,
            offloads: Vec::new(),
            mtu: None,
            asked_multi_buffer: false,
            multi_buffer: false,
            ifindex: None,
            up: false,
            had_carrier: false,
            starting: false,
            granted: None,
            dropped_before: QueueCounters::default(),
            notes: Vec::new(),
        };
        device.revive()?;
        device.await_carrier()?;
        device.starting = true;
        Ok(device)
    }

    /// The interface as it is now.
    fn look(&self) -> Result<Link, StartError> {
        let link = Netlink::open(&self.ns)
            .and_then(|mut netlink| netlink.link_by_name(&self.interface))
            .map_err(|e| self.fail(&e))?;
        link.ok_or_else(|| {
            let missing = format!("there is no interface {} in {}", self.interface, self.ns);
            StartError::machine(&self.port, &missing)
        })
    }

    /// Waits for a card that starts anew because a program was attached: a capture that plays into it would be lost
    /// meanwhile.
    fn await_carrier(&mut self) -> Result<(), StartError> {
        let end = Instant::now() + CARRIER;
        while !self.up && self.had_carrier {
            if Instant::now() >= end {
                self.notes.push(format!(
                    "{} lost its carrier when its program was attached, and has none after {} s; it is taken up when it has one",
                    self.interface,
                    CARRIER.as_secs()
                ));
                break;
            }
            thread::sleep(BUSY_PAUSE);
            let link = self.look()?;
            self.up = link.up && link.carrier;
        }
        Ok(())
    }

    fn fail(&self, error: &dyn std::fmt::Display) -> StartError {
        StartError::machine(&self.port, error)
    }

    /// Queues that the program must know: all that the interface has, claimed or not.
    fn highest_queue(&self) -> u32 {
        self.queues.iter().max().map_or(1, |q| q + 1)
    }

    fn forget_program(&mut self) {
        if let Some(program) = self.program.take() {
            for &queue in &self.queues {
                add(&mut self.dropped_before, program.counters(queue).ok());
            }
            add(&mut self.dropped_before, program.other_counters().ok());
        }
    }

    fn attach(&mut self) -> Result<(), StartError> {
        let options = XdpOptions {
            mode: match self.config.mode.value {
                XdpMode::Auto => XdpChoice::Auto,
                XdpMode::ZeroCopy | XdpMode::Copy => XdpChoice::Only(Attached::Native),
                XdpMode::Skb => XdpChoice::Only(Attached::Skb),
            },
            queues: self.highest_queue(),
            unclaimed: match self.config.queues {
                Queues::All => Unclaimed::Drop,
                Queues::These(_) => Unclaimed::Pass,
            },
        };
        let mut program =
            XdpProgram::attach(&self.ns, &self.interface, &options).map_err(|e| self.fail(&e))?;
        if let Some(why) = program.fallback() {
            self.notes
                .push(format!("{}: {why}; attached in skb mode", self.interface));
        }
        for &queue in &self.queues {
            program.claim(queue).map_err(|e| self.fail(&e))?;
        }
        self.program = Some(program);
        Ok(())
    }

    /// Attaches the program to an interface that is only transmitted on, where it passes everything on: many drivers
    /// set up a queue for zero-copy, and transmit on it, only while an XDP program runs (igb_xsk_wakeup in
    /// drivers/net/ethernet/intel/igb/igb_xsk.c; ixgbe, i40e and ice alike). Bound without one, a socket is granted
    /// zero-copy and sends nothing.
    fn accompany(&mut self) -> Result<(), StartError> {
        let options = XdpOptions {
            mode: XdpChoice::Only(Attached::Native),
            queues: self.highest_queue(),
            unclaimed: Unclaimed::Pass,
        };
        match XdpProgram::attach(&self.ns, &self.interface, &options) {
            Ok(program) => self.program = Some(program),
            Err(e) if self.config.mode.value == XdpMode::ZeroCopy => return Err(self.fail(&e)),
            // Then it copies.
            Err(e) => self.notes.push(format!(
                "{}: transmits with a copy, because zero-copy takes an XDP program: {e}",
                self.interface
            )),
        }
        Ok(())
    }

    /// Why frames would come in pieces in zero-copy mode, if they would.
    fn pieces(&self) -> Option<String> {
        if !(self.source && self.may_be_zero_copy) {
            return None;
        }
        check::in_pieces(&self.driver, self.mtu?, self.slot_size)
    }

    fn comes_in_pieces(&self) -> bool {
        self.pieces().is_some()
    }

    /// The workers' ports are closed: what they had is to be asked for anew.
    fn closed(&mut self) {
        self.waited = 0;
        self.granted = None;
    }

    /// How to bind. Zero-copy is left to the driver unless it is known that frames would not come or go whole.
    fn bind_mode(&mut self) -> Result<BindMode, StartError> {
        let asked = self.config.mode.value;
        // Of a mode that copies, that is known.
        if !self.may_be_zero_copy {
            return Ok(BindMode::Copy);
        }
        if let Some(why) = self.pieces() {
            if asked == XdpMode::ZeroCopy {
                return Err(self.fail(&format!("{}: {why}", self.interface)));
            }
            self.notes
                .push(format!("{}: copies, because {why}", self.interface));
            return Ok(BindMode::Copy);
        }
        Ok(match (asked, &self.program) {
            (XdpMode::ZeroCopy, _) => BindMode::ZeroCopy,
            (_, Some(program)) if program.mode() == Attached::Native => BindMode::Auto,
            _ => BindMode::Copy,
        })
    }

    /// Has the interface take frames that are for others: a bridge's, or a mirrored port's. A card filters by address
    /// before any program sees a frame.
    fn take_all(&mut self, ifindex: u32) -> Result<Option<OwnedFd>, StartError> {
        if self.config.promiscuous == Some(false) {
            return Ok(None);
        }
        let socket =
            in_netns(&self.ns, || af_packet::promiscuous(ifindex)).map_err(|e| self.fail(&e))?;
        let error = match socket {
            Ok(socket) => return Ok(Some(socket)),
            Err(e) => format!(
                "cannot have {} take frames that are for others: {e}",
                self.interface
            ),
        };
        // Whoever has not asked for it may do without, but is told.
        match self.config.promiscuous {
            Some(_) => Err(self.fail(&error)),
            None => {
                self.notes.push(format!(
                    "{error}; frames for its own address come all the same"
                ));
                Ok(None)
            }
        }
    }

    fn settle_offloads(&mut self) -> Result<(), StartError> {
        let choice = match self.config.offloads {
            Offloads::Fix => OffloadChoice::Fix,
            Offloads::Keep => OffloadChoice::Keep,
            Offloads::Require => OffloadChoice::Require,
        };
        let program = self.program.as_ref();
        let skb = program.is_some_and(|program| program.mode() == Attached::Skb);
        let found = offloads::apply(&self.ns, &self.interface, choice, skb)
            .map_err(|e| StartError::machine(&self.port, &e))?;
        self.notes.extend(offloads::lines(found.remarkable()));
        self.offloads = found.guards;
        Ok(())
    }

    fn bind(&mut self, seat: &Seat<'_>) -> Result<OpenQueue, StartError> {
        let mut options = QueueOptions {
            queue: seat.queue,
            multi_buffer: self.multi_buffer,
            ..self.options.clone()
        };
        let mut memory = seat.memory.map(|(arena, part)| (arena.clone(), part));
        if self.waited >= PATIENCE {
            memory = None;
        }
        let (arena, part) = match memory {
            Some(memory) => memory,
            None => (self.memory_of_its_own(seat.core)?, 0),
        };
        let mut tries = 0;
        loop {
            let opened = on_core_in_netns(seat.core, &self.ns, || open(&options, &arena, part))
                .map_err(|e| self.fail(&e))?;
            match opened {
                Ok(queue) => return Ok(queue),
                Err(e) if options.multi_buffer && e.is_unsupported() => {
                    options.multi_buffer = false;
                    self.multi_buffer = false;
                    self.notes.push(format!(
                        "{}: neither sends nor receives frames of more than {} bytes, because this kernel or driver has no AF_XDP with several buffers a frame ({e}); longer ones are lost and counted: it takes Linux 6.6, or a lower mtu",
                        self.interface,
                        room(self.slot_size),
                    ));
                }
                Err(e) if e.is_busy() && self.starting && tries < BUSY_TRIES => {
                    tries += 1;
                    thread::sleep(BUSY_PAUSE);
                }
                Err(e) => {
                    if matches!(e, OpenError::Memory { .. }) {
                        self.waited += 1;
                    }
                    return Err(self.fail(&e));
                }
            }
        }
    }

    /// Frames of the queue are on their way through a sink that does not move: it does not wait for that. What
    /// it receives now is copied where other queues transmit it.
    fn memory_of_its_own(&self, core: usize) -> Result<Arena, StartError> {
        let map = || Arena::map(1, self.slots, self.slot_size, self.hugepages);
        on_core_in_netns(core, &NetNs::own(), map)
            .map_err(|e| self.fail(&e))?
            .map_err(|e| self.fail(&e))
    }
}

fn add(to: &mut QueueCounters, from: Option<QueueCounters>) {
    if let Some(from) = from {
        to.no_socket += from.no_socket;
        to.multi_buffer += from.multi_buffer;
        to.unclaimed_passed += from.unclaimed_passed;
        to.unclaimed_dropped += from.unclaimed_dropped;
    }
}

impl Device for XdpDevice {
    fn open(&mut self, seat: &Seat<'_>) -> Result<Option<Box<dyn Port>>, StartError> {
        if !self.up {
            return Ok(None);
        }
        let opened = self.bind(seat)?;
        let queue = seat.queue;
        self.granted = Some((opened.granted(), opened.backing()));
        if let Some(program) = self.program.as_mut().filter(|_| self.source) {
            // A frame in several buffers that a socket cannot take so: in zero-copy mode its pieces would be read as
            // frames, and before Linux 6.6 the kernel redirects none, and does not count it (net/core/filter.c,
            // xdp_do_redirect).
            let whole_only = !self.multi_buffer
                && (opened.granted() == Granted::ZeroCopy || self.asked_multi_buffer);
            let delivery = match whole_only {
                true => Delivery::SingleBuffer,
                false => Delivery::Any,
            };
            let set = program.set(queue, &opened.fd(), delivery);
            set.map_err(|e| StartError::machine(&self.port, &e))?;
        }
        let options = AfXdpOptions {
            source: self.source,
            sink: self.sink,
            // What the kernel forwards to a device (include/linux/netdevice.h, __is_skb_forwardable).
            max_frame: self.mtu.unwrap_or(1500) as usize + 14 + 4,
        };
        Ok(Some(Box::new(AfXdpPort::new(opened, options))))
    }

    fn notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Which program runs, and what the socket was granted.
    fn mode(&self) -> String {
        let granted = self.granted.map(|(granted, _)| granted.to_string());
        match (&self.program, granted) {
            (Some(program), Some(granted)) if program.mode() == Attached::Skb => {
                format!("skb {granted}")
            }
            (_, Some(granted)) => granted,
            (_, None) => "down".to_owned(),
        }
    }

    fn watched(&self) -> Option<(&NetNs, &str)> {
        Some((&self.ns, &self.interface))
    }

    fn link_changed(&mut self, event: &LinkEvent) -> Turn {
        let ours = self.ifindex == Some(event.ifindex);
        let named = event.name == self.interface;
        match event.change {
            Change::Gone if ours => {
                self.forget_program();
                self.offloads.clear();
                self.promiscuous = None;
                self.ifindex = None;
                self.closed();
                if std::mem::take(&mut self.up) {
                    Turn::Down
                } else {
                    Turn::None
                }
            }
            Change::Gone => Turn::None,
            _ if ours && self.up && !event.up => {
                self.up = false;
                self.closed();
                Turn::Down
            }
            _ if (ours || named) && !self.up && event.up => Turn::Up,
            _ if ours && self.up && self.mtu != Some(event.mtu) => {
                let before = (self.asked_multi_buffer, self.comes_in_pieces());
                self.mtu = Some(event.mtu);
                let several = event.mtu + HEADER > room(self.slot_size);
                // Sockets know how long a frame may be that they send, and whether one may take several slots.
                if self.sink || before != (several, self.comes_in_pieces()) {
                    self.closed();
                    Turn::Anew(format!("{} has mtu {} now", event.name, event.mtu))
                } else {
                    Turn::None
                }
            }
            _ => Turn::None,
        }
    }

    fn revive(&mut self) -> Result<(), StartError> {
        self.starting = false;
        self.notes.clear();
        let mut link = self.look()?;
        self.had_carrier = link.up;
        if self.ifindex != Some(link.ifindex) {
            self.forget_program();
            // Another card may have come under the name.
            self.driver = Ethtool::open(&self.ns)
                .and_then(|ethtool| ethtool.driver(&self.interface))
                .unwrap_or_default();
            self.may_be_zero_copy = check::may_be_zero_copy(*self.config.mode, &self.driver);
            if self.source {
                self.attach()?;
                // Only what arrives can be hidden or merged; and which offloads do that depends on
                // where the program runs.
                self.settle_offloads()?;
                self.promiscuous = self.take_all(link.ifindex)?;
            } else if self.may_be_zero_copy {
                self.accompany()?;
            }
            self.ifindex = Some(link.ifindex);
            // Some cards start anew for that, and are without carrier meanwhile.
            link = self.look()?;
        }
        self.up = link.up && link.carrier;
        self.mtu = Some(link.mtu);
        self.asked_multi_buffer = link.mtu + HEADER > room(self.slot_size);
        self.multi_buffer = self.asked_multi_buffer;
        self.options.mode = self.bind_mode()?;
        if !self.up && !self.had_carrier {
            self.notes.push(format!(
                "{} has no carrier; it is taken up when it has one",
                self.interface
            ));
        }
        Ok(())
    }

    fn count(&self, stats: &mut PortStats) {
        let mut dropped = self.dropped_before;
        if let Some(program) = &self.program {
            for &queue in &self.queues {
                add(&mut dropped, program.counters(queue).ok());
            }
            add(&mut dropped, program.other_counters().ok());
        }
        stats.add_before_socket(
            dropped.no_socket,
            dropped.multi_buffer,
            dropped.unclaimed_dropped,
        );
    }

    fn describe(&self, info: &mut PortInfo) {
        info.interface = Some(self.interface.clone());
        info.netns = self.ns.name().map(str::to_owned);
        info.backing = self.granted.map(|(_, backing)| backing.to_string());
        info.mtu = self.mtu;
    }
}
