//! What the control plane tells a worker: to begin, to close and open ports, to report, to stop.

use std::time::Duration;

use super::{
    Worker, clock,
    mailbox::{Command, Message},
    refused,
    report::Report,
    ring::Tag,
};
use crate::{
    policy::Reason,
    port::{Place, Port, PortIndex},
};

/// How long a worker that has stopped waits for cancelled operations to let go of their slots.
const LET_GO: u64 = 20_000_000;

/// How long it sleeps, at its end, before it looks again for what is on its way by other means than its ring:
/// what writes a recording may need this core to come to its end.
const GLANCE: Duration = Duration::from_micros(100);

impl Worker {
    /// Takes all commands. Answers whether one of them was to stop.
    #[cold]
    pub(super) fn obey(&mut self) -> bool {
        while let Some(command) = self.mailbox.command() {
            match command {
                Command::Go => self.receiving = true,
                Command::Close { port, reason } => self.close(port, reason),
                Command::Open { index, port } => self.open(index, port),
                Command::Report(mut report) => {
                    self.report(&mut report);
                    self.mailbox.tell(Message::Report(report));
                }
                Command::Stop => return true,
            }
        }
        false
    }

    fn close(&mut self, index: PortIndex, reason: Reason) {
        let at = index.0 as usize;
        let Some(mut port) = self.ports.get_mut(at).and_then(Option::take) else {
            return;
        };
        if let Some(kernel) = port.kernel() {
            self.kernel_before[at].add(&kernel);
        }
        self.closed_for[at] = reason;
        port.close(&mut self.io, reason);
        let place = Place {
            index,
            generation: self.generations[at],
        };
        self.generations[at] = (self.generations[at] + 1) % Tag::GENERATIONS;
        self.retiring = true;
        if port.is_held() {
            self.leaving.push((place, port));
        } else {
            self.mailbox.tell(Message::Retired(port));
        }
    }

    /// The ring holds no file of a closed port any more.
    #[cold]
    pub(super) fn let_go(&mut self, place: Place) {
        if let Some(at) = self.leaving.iter().position(|(left, _)| *left == place) {
            self.mailbox
                .tell(Message::Retired(self.leaving.swap_remove(at).1));
        }
    }

    fn open(&mut self, index: PortIndex, mut port: Box<dyn Port>) {
        let at = index.0 as usize;
        if self.ports.get(at).is_none_or(Option::is_some) {
            self.mailbox.tell(Message::Retired(port));
            return;
        }
        let place = Place {
            index,
            generation: self.generations[at],
        };
        match port.attach(&mut self.io, place) {
            Ok(()) => self.ports[at] = Some(port),
            Err(failure) => {
                port.close(&mut self.io, Reason::LinkDown);
                self.retiring = true;
                self.mailbox.tell(Message::Retired(port));
                self.mailbox.tell(Message::Failed {
                    port: index,
                    failure,
                });
            }
        }
    }

    fn report(&self, report: &mut Report) {
        report.ports.copy_from_slice(&self.io.counters);
        for (pipeline, into) in self.pipelines.iter().zip(&mut report.pipelines) {
            *into = pipeline.counters;
        }
        for (at, port) in self.ports.iter().enumerate() {
            report.up[at] = port.is_some();
            report.in_flight[at] = port.as_ref().map_or(0, |p| p.in_flight() as u64);
            report.kernel[at] = self.kernel_before[at];
            if let Some(kernel) = port.as_ref().and_then(|p| p.kernel()) {
                report.kernel[at].add(&kernel);
            }
        }
        report.pool = self.io.pool.total();
        report.elapsed = self.io.now - self.began;
        report.busy = self.busy;
        report.residence.reset();
        // The bounds are the same, so that this neither fails nor allocates.
        let _ = report.residence.add(&self.residence);
    }

    #[cold]
    pub(super) fn tell_failures(&mut self) {
        self.io.trouble = false;
        for (at, port) in self.ports.iter_mut().enumerate() {
            if let Some(failure) = port.as_mut().and_then(|p| p.failure()) {
                self.mailbox.tell(Message::Failed {
                    port: PortIndex(at as u16),
                    failure,
                });
            }
        }
    }

    /// Gives regions of closed ports away once nothing uses them.
    #[cold]
    pub(super) fn collect(&mut self) {
        while let Some((id, region)) = self.io.pool.collect() {
            // Refused, the kernel keeps the pages for as long as the ring lives.
            let _ = self.io.ring.unregister(id);
            self.mailbox.tell(Message::Region(region));
        }
        self.retiring = self.io.pool.is_retiring();
    }

    /// Writes what is on its way, counts what cannot be written, and takes every slot back.
    pub(super) fn stop(mut self) -> Report {
        self.receiving = false;
        let began = clock();
        let mut deadlines = std::mem::take(&mut self.deadlines);
        let ports = self.ports.iter_mut();
        deadlines.extend(ports.map(|port| match port {
            Some(port) => began.saturating_add(port.drain(&mut self.io)),
            None => 0,
        }));
        let unwritten = |(port, deadline): (&Option<Box<dyn Port>>, &u64), now| {
            now < *deadline && port.as_ref().is_some_and(|p| p.in_flight() > 0)
        };
        while self
            .ports
            .iter()
            .zip(&deadlines)
            .any(|port| unwritten(port, self.io.now))
        {
            if !self.turn()
                && let Err(e) = self.io.ring.sleep(Some(GLANCE))
            {
                refused(&e);
            }
        }
        for at in 0..self.ports.len() {
            if self.ports[at].is_some() {
                self.close(PortIndex(at as u16), Reason::Shutdown);
            }
        }
        // Nothing hands out a slot any more, so that what a socket still reads stays as it is.
        self.io.pool.settle(true);
        let deadline = clock() + LET_GO;
        while self.io.pool.total().kernel > 0 && self.io.now < deadline {
            self.turn();
        }
        for (_, port) in self.leaving.drain(..) {
            self.mailbox.tell(Message::Retired(port));
        }
        let mut report = Report::blank(self.ports.len(), self.pipelines.len());
        self.report(&mut report);
        report
    }
}
