//! The plan as a person reads it, for `--check` and the start.

use std::fmt;

use super::{
    model::Mode,
    plan::{Plan, Unit},
};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ports")?;
        let width = self
            .ports
            .iter()
            .map(|port| port.name.len())
            .max()
            .unwrap_or(0);
        for port in &self.ports {
            let way = match (port.source, port.sink) {
                (true, true) => "in, out",
                (true, false) => "in",
                _ => "out",
            };
            writeln!(
                f,
                "  {:width$}  {:7}  {}",
                port.name,
                way,
                port.kind.describe(port)
            )?;
        }
        writeln!(f, "pipelines")?;
        for pipeline in &self.pipelines {
            let names = |ports: &[usize]| -> String {
                let names: Vec<&str> = ports.iter().map(|&p| self.ports[p].name.as_str()).collect();
                names.join(", ")
            };
            let policy = match &pipeline.policy {
                None => "everything".to_owned(),
                Some(policy) if policy.mode == Mode::Direct => {
                    format!("{} (everything)", *policy.name)
                }
                Some(policy) => format!(
                    "{} ({}, {} rule{}{})",
                    *policy.name,
                    policy.mode,
                    policy.allow.len(),
                    if policy.allow.len() == 1 { "" } else { "s" },
                    if policy.arp { ", ARP passes" } else { "" },
                ),
            };
            writeln!(
                f,
                "  {} -> {policy} -> {}",
                names(&pipeline.from),
                names(&pipeline.to)
            )?;
        }
        writeln!(f, "workers")?;
        for worker in &self.workers {
            write!(f, "  core {}", worker.core)?;
            if let Some(node) = worker.node {
                write!(f, " (node {node})")?;
            }
            let list = |wanted: fn(&Unit) -> bool| -> String {
                let units = worker.units.iter().filter(|unit| wanted(unit));
                let names: Vec<String> = units.map(|unit| self.unit(unit)).collect();
                names.join(", ")
            };
            write!(f, "  polls {}", list(|unit| unit.source))?;
            let written = list(|unit| unit.sink);
            if !written.is_empty() {
                write!(f, "; writes {written}")?;
            }
            writeln!(f)?;
            write!(f, "    memory {}:", size(self.memory(worker)))?;
            let umems = self.umems(worker);
            let mut separator = " ";
            if umems > 0 {
                write!(
                    f,
                    " {umems} UMEM{} of {} slots of {} bytes",
                    if umems == 1 { "" } else { "s" },
                    self.slots,
                    self.slot_size
                )?;
                separator = ", ";
            }
            if let Some(slot_size) = worker.own_slot_size {
                write!(
                    f,
                    "{separator}a region of {} slots of {slot_size} bytes",
                    self.slots
                )?;
            }
            writeln!(f)?;
        }
        let total: u64 = self.workers.iter().map(|worker| self.memory(worker)).sum();
        writeln!(
            f,
            "engine\n  {} worker{}, {} of frame memory (huge pages: {}), batches of {}, idle: {}",
            self.workers.len(),
            if self.workers.len() == 1 { "" } else { "s" },
            size(total),
            self.hugepages,
            self.batch,
            self.idle
        )?;
        if self.finite {
            writeln!(
                f,
                "  ends by itself when the last capture file has been played"
            )?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

impl Plan {
    /// A unit in words: `uplink/0`, or the port's name where there is one descriptor of it.
    pub(crate) fn unit(&self, unit: &Unit) -> String {
        let port = &self.ports[unit.port];
        if port.by_queue() || port.queues.len() > 1 {
            format!("{}/{}", port.name, unit.queue)
        } else {
            port.name.clone()
        }
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes >> 10),
        _ => format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20)),
    }
}
