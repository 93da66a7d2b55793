//! What the control socket is answered: statistics, ports, policies.

use dataplane::worker::report::{Report, residence_histogram};

use super::{Live, Shared};
use crate::{
    api::{
        protocol::{Applied, PolicyText, PortInfo, Refusal},
        server::Service,
    },
    ports::Device,
    stats::{PipelineStats, PortStats, Residence, Stats, WorkerStats},
};

impl Service for Shared {
    fn stats(&self) -> Result<Stats, Refusal> {
        let reports = self.engine().reports();
        Ok(stats(self, &reports))
    }

    fn ports(&self) -> Result<Vec<PortInfo>, Refusal> {
        let mut infos: Vec<_> = self.ports().iter().map(|live| self.info(live)).collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(infos)
    }

    fn policy_show(&self, name: &str) -> Result<PolicyText, Refusal> {
        self.policies.show(name)
    }

    fn policy_replace(&self, name: &str, rules: &str) -> Result<Applied, Refusal> {
        self.policies.replace(name, rules)
    }

    fn policy_allow(&self, name: &str, rule: &str) -> Result<Applied, Refusal> {
        self.policies.allow(name, rule)
    }

    fn policy_remove(&self, name: &str, rule: &str) -> Result<Applied, Refusal> {
        self.policies.remove(name, rule)
    }

    fn stop(&self) {
        let _ = self.stop.write(1);
    }
}

impl Shared {
    fn info(&self, live: &Live) -> PortInfo {
        let planned = self.plan.ports.iter().find(|p| p.name == live.name);
        let mut info = PortInfo {
            name: live.name.clone(),
            kind: planned.map_or_else(String::new, |p| p.kind.name().to_owned()),
            mode: Some(live.device.mode()).filter(|mode| !mode.is_empty()),
            cores: live.units.iter().map(|place| place.core).collect(),
            queues: live.units.iter().map(|place| place.queue).collect(),
            up: up(live.device.as_ref()) && !live.failed,
            ..PortInfo::default()
        };
        live.device.describe(&mut info);
        if let Some(listened) = live.device.listened() {
            let sockets = listened.sockets.on(listened.ifindex).unwrap_or_default();
            info.listening = sockets.iter().map(|socket| socket.inode).collect();
        }
        info
    }
}

fn up(device: &dyn Device) -> bool {
    device.mode() != "down"
}

/// All workers' reports as one set of statistics.
pub(super) fn stats(shared: &Shared, reports: &[Report]) -> Stats {
    let mut stats = Stats::new(
        shared.began.elapsed().as_secs_f64(),
        shared.policies.generation(),
    );
    for (planned, live) in shared.plan.ports.iter().zip(shared.ports().iter()) {
        let mut port = PortStats::new(
            planned.kind.name(),
            live.device.mode(),
            up(live.device.as_ref()) && !live.failed,
        );
        for place in &live.units {
            let report = &reports[place.worker];
            let at = place.index.0 as usize;
            port.add(&report.ports[at], Some(report.in_flight[at]));
            port.add_kernel(&report.kernel[at]);
        }
        live.device.count(&mut port);
        stats.ports.insert(planned.name.clone(), port);
    }
    for (number, planned) in shared.plan.pipelines.iter().enumerate() {
        let names = |ports: &[usize]| {
            ports
                .iter()
                .map(|&port| shared.plan.ports[port].name.clone())
                .collect()
        };
        let mut pipeline = PipelineStats::new(
            names(&planned.from),
            names(&planned.to),
            planned.policy.as_ref().map(|p| p.name.value.clone()),
        );
        for (worker, report) in shared.plan.workers.iter().zip(reports) {
            for (at, running) in worker.pipelines.iter().enumerate() {
                if running.pipeline == number {
                    pipeline.add(&report.pipelines[at]);
                }
            }
        }
        stats.pipelines.push(pipeline);
    }
    for (worker, report) in shared.plan.workers.iter().zip(reports) {
        let mut residence = residence_histogram();
        let _ = residence.add(&report.residence);
        stats.workers.push(WorkerStats {
            core: worker.core,
            busy: if report.elapsed == 0 {
                0.0
            } else {
                report.busy as f64 / report.elapsed as f64
            },
            slots_total: report.pool.total.into(),
            slots_free: report.pool.free.into(),
            residence_ns: Residence::from(&residence),
        });
    }
    stats
}
