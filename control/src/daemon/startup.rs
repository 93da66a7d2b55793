//! From a plan to a daemon that is ready to receive: privileges checked, ports made, workers started,
//! privileges given up.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, atomic::AtomicBool},
    thread,
    time::Instant,
};

use caps::Capability;
use dataplane::{
    engine::Engine,
    frame::Arena,
    port::PortIndex,
    worker::spec::{Idle, OwnRegion, PipelineSpec, SourceSpec, WorkerSpec},
};
use nix::sys::{
    eventfd::{EfdFlags, EventFd},
    resource::{Resource, setrlimit},
    signalfd::SignalFd,
};

use super::{Daemon, Live, Place, Policies, Shared, StartError, exit};
use crate::{
    api::{
        server::{Server, Service},
        socket::{ControlSocket, SocketError, default_path},
    },
    config::{Config, HEADROOM, Plan, Worker},
    link::{
        monitor::LinkMonitor,
        netns::{NetNs, on_core_in_netns},
    },
    log, privilege,
};

/// What a start needs beside the plan.
pub struct Options {
    /// Print nothing but warnings and errors.
    pub quiet: bool,
    /// Do without a control socket where another daemon listens in its usual place, or it cannot be made
    /// there, as a run that was typed on one line does: several of those can run side by side.
    pub may_lack_socket: bool,
}

impl Daemon {
    /// Makes everything that a plan says. Nothing is received before [`Daemon::run`].
    pub fn start(
        config: &Config,
        plan: Plan,
        signals: SignalFd,
        options: &Options,
    ) -> Result<Self, StartError> {
        require_privileges(&plan)?;
        // Frame memory counts as locked. Where the limit cannot be lifted for good, the privilege to
        // exceed it is kept; an ordinary user has neither and gets fewer slots.
        let unlimited = setrlimit(
            Resource::RLIMIT_MEMLOCK,
            nix::libc::RLIM_INFINITY,
            nix::libc::RLIM_INFINITY,
        )
        .is_ok();
        let policies = Policies::compile(plan.pipelines.iter().filter_map(|p| p.policy.as_ref()))?;
        let socket = control_socket(config, options)?;

        let mut live = Vec::with_capacity(plan.ports.len());
        for planned in &plan.ports {
            live.push(Live {
                name: planned.name.clone(),
                device: planned.kind.make(planned, &plan)?,
                units: Vec::new(),
                retry: None,
                tries: 0,
                failed: false,
                source: planned.source,
                sink: planned.sink,
            });
        }
        let mut specs = Vec::with_capacity(plan.workers.len());
        let mut arenas = Vec::with_capacity(plan.workers.len());
        for (number, worker) in plan.workers.iter().enumerate() {
            let arena = arena(worker, &plan)?;
            specs.push(worker_spec(
                number,
                worker,
                &plan,
                &policies,
                arena.as_ref(),
                &mut live,
            )?);
            arenas.push(arena);
        }
        let engine = Engine::start(specs, || {
            privilege::lock_down(&[]).map_err(|e| e.to_string())
        })
        .map_err(|e| StartError::refused(&e))?;
        policies.set_wakers(engine.wakers());

        let mut monitors: Vec<(_, LinkMonitor)> = Vec::new();
        for port in &live {
            if let Some((ns, _)) = port.device.watched()
                && !monitors
                    .iter()
                    .any(|(known, _): &(crate::link::netns::NetNs, _)| known.name() == ns.name())
            {
                let monitor =
                    LinkMonitor::open(ns).map_err(|e| StartError::machine(&port.name, &e))?;
                monitors.push((ns.clone(), monitor));
            }
        }
        privilege::lock_down(&kept(&plan, unlimited)).map_err(|e| StartError::refused(&e))?;

        let shared = Arc::new(Shared {
            plan,
            arenas,
            engine: Mutex::new(engine),
            ports: Mutex::new(live),
            policies,
            began: Instant::now(),
            stop: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(
                |e| {
                    StartError::refused(&format!(
                        "no eventfd: {e}; raise the limit of open files (ulimit -n)"
                    ))
                },
            )?,
        });
        let server = match socket {
            None => None,
            Some(socket) => Some(serve(socket, Arc::clone(&shared) as _)?),
        };
        let daemon = Self {
            shared,
            server,
            monitors,
            signals,
            quiet: options.quiet,
            ending: Arc::new(AtomicBool::new(false)),
            leaving: None,
            finished: BTreeSet::new(),
            ended: false,
        };
        daemon.announce();
        Ok(daemon)
    }

    /// Says what was really got, where it can differ from what was planned.
    fn announce(&self) {
        for live in self.shared.ports().iter_mut() {
            for note in live.device.notes() {
                self.say(&note);
            }
            let mode = live.device.mode();
            if !mode.is_empty() {
                self.say(&format!("port {}: {mode}", live.name));
            }
        }
        let engine = self.shared.engine();
        for worker in 0..engine.workers() {
            if let Some((slots, size, backing)) = engine.started(worker).own {
                self.say(&format!(
                    "core {}: {slots} slots of {size} bytes on {backing}",
                    engine.core(worker)
                ));
            }
        }
        if let Some(server) = &self.server {
            self.say(&format!("control socket {}", server.path().display()));
        }
    }
}

/// The memory of a worker's queues, touched on its core: a part for each, and before them one for its own
/// region where queues transmit what comes into that.
fn arena(worker: &Worker, plan: &Plan) -> Result<Option<Arena>, StartError> {
    let parts = plan.umems(worker);
    if parts == 0 {
        return Ok(None);
    }
    let parts = parts + usize::from(plan.own_region_is_shared(worker));
    let map = || Arena::map(parts, plan.slots, plan.slot_size, plan.hugepages.into());
    on_core_in_netns(worker.core, &NetNs::own(), map)
        .map_err(|e| StartError::refused(&e))?
        .map(Some)
        .map_err(|e| StartError::refused(&format!("core {}: {e}", worker.core)))
}

/// One worker as the engine takes it, its ports opened.
fn worker_spec(
    number: usize,
    worker: &Worker,
    plan: &Plan,
    policies: &Policies,
    arena: Option<&Arena>,
    live: &mut [Live],
) -> Result<WorkerSpec, StartError> {
    let mut ports = Vec::with_capacity(worker.units.len());
    let mut part = usize::from(plan.own_region_is_shared(worker));
    for (index, unit) in worker.units.iter().enumerate() {
        let place = Place {
            worker: number,
            core: worker.core,
            index: PortIndex(index as u16),
            queue: unit.queue,
            part,
        };
        part += usize::from(plan.ports[unit.port].by_queue());
        ports.push(live[unit.port].device.open(&place.seat(arena))?);
        live[unit.port].units.push(place);
    }
    let index = |unit: usize| PortIndex(unit as u16);
    let kind = |unit: usize| &plan.ports[worker.units[unit].port].kind;
    let pipelines = worker
        .pipelines
        .iter()
        .map(|running| {
            let planned = &plan.pipelines[running.pipeline];
            PipelineSpec {
                sources: running
                    .sources
                    .iter()
                    .map(|&unit| SourceSpec {
                        port: index(unit),
                        finish_checksums: kind(unit).unfinished_checksums(),
                        patient: kind(unit).patient(),
                    })
                    .collect(),
                policy: planned
                    .policy
                    .as_ref()
                    .and_then(|policy| policies.reader(&policy.name.value)),
                sinks: running.sinks.iter().map(|&unit| index(unit)).collect(),
            }
        })
        .collect();
    let sinks = worker.units.iter().filter(|unit| unit.sink).count();
    Ok(WorkerSpec {
        core: worker.core,
        batch: plan.batch.into(),
        idle: match plan.idle {
            crate::config::Idle::Adaptive => Idle::Adaptive,
            crate::config::Idle::Busy => Idle::Busy,
        },
        own: worker.own_slot_size.map(|slot_size| OwnRegion {
            slots: plan.slots,
            slot_size: slot_size as usize,
            headroom: HEADROOM as usize,
            hugepages: plan.hugepages.into(),
            shrink: !plan.slots_set,
        }),
        arena: arena.filter(|_| plan.own_region_is_shared(worker)).cloned(),
        // However many sinks are stuck, sources keep slots to receive into.
        sink_cap: plan.slots as usize / (sinks + 1),
        ports,
        pipelines,
    })
}

/// The control socket, listening. Where nobody has said where it is to be, an ordinary user without a place
/// for it has none, and neither has a run that may lack it: the run does not need it.
fn control_socket(config: &Config, options: &Options) -> Result<Option<ControlSocket>, StartError> {
    let group = config.control.socket_group.as_ref();
    let group = group.map(|group| group.value.as_str());
    let path = match &config.control.socket {
        Some(path) => Ok(path.value.clone()),
        None => default_path(),
    };
    let error = match path.and_then(|path| ControlSocket::listen(&path, group)) {
        Ok(socket) => return Ok(Some(socket)),
        Err(error) => error,
    };
    let lacks_it = match &error {
        SocketError::NoDefault { .. } => true,
        _ => options.may_lack_socket && config.control.socket.is_none(),
    };
    if !lacks_it {
        return Err(StartError {
            code: match error {
                SocketError::NoSuchGroup { .. } => exit::CONFIG,
                _ => exit::MACHINE,
            },
            message: error.to_string(),
        });
    }
    if !options.quiet {
        let why = match error {
            SocketError::Refused { what, path, source } => format!(
                "cannot {what} {}: {source}; name a place for it with --socket PATH",
                path.display()
            ),
            error => error.to_string(),
        };
        log::line(&format!("no control socket: {why}"));
    }
    Ok(None)
}

/// Serves the control socket from threads without any privilege. They have what the thread has that
/// starts them, so that is one for this alone.
fn serve(socket: ControlSocket, service: Arc<dyn Service>) -> Result<Server, StartError> {
    let unprivileged = || {
        privilege::lock_down(&[]).map_err(|e| StartError::refused(&e))?;
        Server::start(socket, service).map_err(|e| StartError::refused(&e))
    };
    thread::scope(|scope| scope.spawn(unprivileged).join())
        .unwrap_or_else(|_| Err(StartError::refused(&"the control socket's thread panicked")))
}

/// The privileges that opening the ports takes.
fn require_privileges(plan: &Plan) -> Result<(), StartError> {
    for port in &plan.ports {
        let mut needed = port.kind.privileges().start.to_vec();
        if port.kind.netns().is_some() {
            needed.push(Capability::CAP_SYS_ADMIN);
        }
        privilege::require(format!("{} port {}", port.kind.name(), port.name), &needed)
            .map_err(|e| StartError::refused(&e))?;
    }
    Ok(())
}

/// The privileges that running takes: none, unless a port may have to be opened again.
fn kept(plan: &Plan, unlimited: bool) -> Vec<Capability> {
    let mut kept = Vec::new();
    for port in &plan.ports {
        let reopen = port.kind.privileges().reopen;
        if reopen.is_empty() {
            continue;
        }
        kept.extend(reopen);
        if !unlimited && port.by_queue() {
            // Each queue's region is made anew.
            kept.push(Capability::CAP_IPC_LOCK);
        }
        if port.kind.netns().is_some() {
            // setns(2) into it, each time its interface comes back.
            kept.push(Capability::CAP_SYS_ADMIN);
        }
    }
    kept.sort_unstable_by_key(Capability::index);
    kept.dedup();
    kept
}
