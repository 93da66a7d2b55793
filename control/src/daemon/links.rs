//! Interfaces that go down or away, and come back: their ports are closed on the workers, and opened
//! again when that succeeds.

use std::time::{Duration, Instant};

use dataplane::policy::Reason;

use super::{Daemon, Live, StartError};
use crate::{
    link::{
        monitor::{Change, LinkEvent},
        netns::NetNs,
    },
    ports::Turn,
};

/// How soon a port whose interface came back, but could not be opened, is tried again. The kernel takes
/// some 15 ms over the socket that had its queue before.
pub(super) const RETRY: Duration = Duration::from_millis(50);

/// How often that fails before it is worth a line.
const TRIES: u32 = 20;

/// How often it is tried from then on: each time costs what a start costs.
const LATER: Duration = Duration::from_secs(1);

impl Daemon {
    pub(super) fn link_events(&mut self) {
        for at in 0..self.monitors.len() {
            let (ns, monitor) = &mut self.monitors[at];
            let events = match monitor.read_events() {
                Ok(events) => events,
                Err(e) => {
                    Self::complain(&format!(
                        "{ns}: {e}; interfaces that go or come there are not noticed from now on: restart the dataplane"
                    ));
                    self.monitors.remove(at);
                    return;
                }
            };
            let ns = ns.clone();
            for event in events {
                self.link_event(&ns, &event);
            }
        }
    }

    /// What changed between the moment a port looked at its interface and the moment the monitor began.
    pub(super) fn catch_up(&self) {
        for (ns, monitor) in &self.monitors {
            for event in monitor.links() {
                self.link_event(ns, &event);
            }
        }
    }

    fn link_event(&self, ns: &NetNs, event: &LinkEvent) {
        for live in self.shared.ports().iter_mut() {
            let watched = live.device.watched();
            if watched.is_none_or(|(watched, _)| watched.name() != ns.name()) {
                continue;
            }
            match live.device.link_changed(event) {
                Turn::None => {}
                Turn::Down => {
                    let gone = event.change == Change::Gone;
                    Self::complain(&format!(
                        "port {}: {} is {}; its frames are counted as link_down until it returns",
                        live.name,
                        event.name,
                        if gone { "gone" } else { "down" }
                    ));
                    live.retry = None;
                    self.close(live);
                }
                Turn::Anew(why) => {
                    self.say(&format!(
                        "port {}: {why}; its sockets are made anew",
                        live.name
                    ));
                    live.retry = Some(Instant::now());
                    self.close(live);
                }
                Turn::Up => live.retry = Some(Instant::now()),
                Turn::Tell(what) => self.say(&format!("port {}: {what}", live.name)),
                Turn::Warn(what) => Self::complain(&format!("port {}: {what}", live.name)),
            }
        }
    }

    fn close(&self, live: &mut Live) {
        live.tries = 0;
        let engine = self.shared.engine();
        for place in &live.units {
            engine.close_port(place.worker, place.index, Reason::LinkDown);
        }
    }

    /// Opens ports whose interface is back.
    pub(super) fn retry(&mut self) {
        let mut ports = self.shared.ports();
        for live in ports.iter_mut() {
            if live.retry.is_none_or(|at| at > Instant::now()) {
                continue;
            }
            match self.reopen(live) {
                // Its next change brings it here again.
                Ok(false) => live.retry = None,
                Ok(true) => {
                    live.retry = None;
                    live.tries = 0;
                    for note in live.device.notes() {
                        self.say(&note);
                    }
                    self.say(&format!(
                        "port {} is back ({})",
                        live.name,
                        live.device.mode()
                    ));
                }
                Err(e) => {
                    live.tries += 1;
                    if live.tries == TRIES {
                        Self::complain(&format!("{e}; trying again until it can be opened"));
                    }
                    let pause = if live.tries < TRIES { RETRY } else { LATER };
                    live.retry = Some(Instant::now() + pause);
                }
            }
        }
    }

    /// `false` when the link is down again.
    fn reopen(&self, live: &mut Live) -> Result<bool, StartError> {
        live.device.revive()?;
        // The old sockets are closed when what the workers gave back is dropped.
        self.shared.engine().flush_messages();
        let mut opened = Vec::new();
        for place in &live.units {
            match live.device.open(&self.shared.seat(place))? {
                Some(port) => opened.push((place, port)),
                None => return Ok(false),
            }
        }
        let engine = self.shared.engine();
        for (place, port) in opened {
            engine.open_port(place.worker, place.index, port);
        }
        Ok(true)
    }
}
