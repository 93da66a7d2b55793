//! What a configuration says about itself: names that must exist, loops, cores.
//! No question to the machine but which cores it has.

use std::collections::HashMap;

use super::{
    claims,
    cores::CoreList,
    error::hint,
    machine::Machine,
    model::Config,
    plan::{Overrides, PlannedPipeline, PlannedPort, Problems},
    reader::At,
};
use crate::ports::{Placement, Role};

/// The ports that pipelines use, and the pipelines with their names resolved to them.
pub(crate) fn resolve(
    config: &Config,
    problems: &mut Problems,
) -> (Vec<PlannedPort>, Vec<PlannedPipeline>) {
    let uses = |names: fn(&super::Pipeline) -> &[At<String>], port: &str| {
        config
            .pipelines
            .iter()
            .any(|pipeline| names(pipeline).iter().any(|name| **name == *port))
    };
    let mut ports = Vec::new();
    for port in &config.ports {
        let source = uses(|pipeline| &pipeline.from, &port.name);
        let sink = uses(|pipeline| &pipeline.to, &port.name);
        if !source && !sink {
            problems.note(format!(
                "port {:?} (line {}) is in no pipeline; it is not opened",
                *port.name, port.name.at.line
            ));
            continue;
        }
        ports.push(PlannedPort {
            name: port.name.value.clone(),
            at: port.name.at,
            kind: port.kind.clone(),
            source,
            sink,
            queues: Vec::new(),
            link: None,
            path_mtu: None,
            leaves_by: None,
        });
    }
    for policy in &config.policies {
        let name = &policy.name;
        let used =
            |pipeline: &super::Pipeline| pipeline.policy.as_ref().is_some_and(|used| used == name);
        if !config.pipelines.iter().any(used) {
            problems.note(format!(
                "policy {:?} (line {}) is in no pipeline; it judges nothing",
                **name, name.at.line
            ));
        }
    }
    let pipelines = pipelines(config, &ports, problems);
    directions(config, problems);
    claims::check(&ports, problems);
    (ports, pipelines)
}

fn pipelines(
    config: &Config,
    ports: &[PlannedPort],
    problems: &mut Problems,
) -> Vec<PlannedPipeline> {
    let mut resolved = Vec::new();
    for (i, pipeline) in config.pipelines.iter().enumerate() {
        let context = format!("pipelines[{i}]");
        let mut indices = |names: &[At<String>]| -> Vec<usize> {
            let mut indices = Vec::new();
            for name in names {
                match ports.iter().position(|port| port.name == **name) {
                    Some(index) => indices.push(index),
                    None => {
                        let known = config.ports.iter().map(|port| port.name.as_str());
                        problems.config(
                            name.at,
                            context.clone(),
                            format!("unknown port {:?}{}", **name, hint(name, known, "port")),
                        );
                    }
                }
            }
            indices
        };
        let (from, to) = (indices(&pipeline.from), indices(&pipeline.to));
        let policy = pipeline.policy.as_ref().and_then(|name| {
            let policy = config.policy(name).cloned();
            if policy.is_none() {
                let known = config.policies.iter().map(|policy| policy.name.as_str());
                problems.config(
                    name.at,
                    context.clone(),
                    format!("unknown policy {:?}{}", **name, hint(name, known, "policy")),
                );
            }
            policy
        });
        resolved.push(PlannedPipeline {
            from,
            policy,
            to,
            to_at: pipeline.to.iter().map(|name| name.at).collect(),
            at: pipeline.position(),
        });
    }
    resolved
}

/// Sources that cannot be, sinks that cannot be, one source in two pipelines, and loops.
fn directions(config: &Config, problems: &mut Problems) {
    let mut sources: HashMap<&str, usize> = HashMap::new();
    for (i, pipeline) in config.pipelines.iter().enumerate() {
        let context = format!("pipelines[{i}]");
        for name in &pipeline.from {
            if let Some(why) = config
                .port(name)
                .and_then(|port| port.kind.refuses(Role::Source, name))
            {
                problems.config(name.at, context.clone(), format!("port {:?} {why}", **name));
            }
            if let Some(first) = sources.insert(name, i)
                && config.port(name).is_some()
            {
                problems.config(
                    name.at,
                    context.clone(),
                    format!(
                        "port {:?} is already the source of pipelines[{first}] (line {}), and a frame has one policy; use one pipeline with several names in `to`",
                        **name,
                        config.pipelines[first].position().line
                    ),
                );
            }
        }
        for name in &pipeline.to {
            let Some(port) = config.port(name) else {
                continue;
            };
            if let Some(why) = port.kind.refuses(Role::Sink, name) {
                problems.config(name.at, context.clone(), format!("port {:?} {why}", **name));
            } else if pipeline.from.contains(name) {
                problems.config(
                    name.at,
                    context.clone(),
                    format!(
                        "port {:?} is in `from` too, so that its frames would go back where they came from; take it out of one",
                        **name
                    ),
                );
            }
        }
    }
}

/// The workers' cores: the flag's, else the file's, else one.
pub(crate) fn cores(
    config: &Config,
    overrides: &Overrides,
    machine: &dyn Machine,
    problems: &mut Problems,
) -> Vec<usize> {
    let online = machine.cores();
    let cores = match (&overrides.cores, &config.engine.cores) {
        (Some(flag), _) => flag.clone(),
        (None, Some(file)) => file.value.clone(),
        (None, None) => {
            let core = machine.default_core();
            problems.note(format!(
                "no cores are named; one worker runs on core {core} (--cores 2-5 or cores = \"2-5\" sets others)"
            ));
            CoreList(vec![core])
        }
    };
    for core in cores.0.iter().filter(|core| !online.contains(core)) {
        let message = format!(
            "core {core} is not online; online are {}",
            CoreList(online.clone())
        );
        match (&overrides.cores, &config.engine.cores) {
            (None, Some(file)) => problems.machine(file.at, "engine".to_owned(), message),
            _ => problems.flag("--cores", message),
        }
    }
    for port in &config.ports {
        let Placement::Queues {
            cores: Some(wanted),
            ..
        } = port.kind.placement()
        else {
            continue;
        };
        if let Some(core) = wanted.iter().find(|core| !cores.0.contains(core)) {
            problems.config(
                wanted.at,
                format!("ports.{}", *port.name),
                format!(
                    "core {core} has no worker; the workers' cores are {cores} ({})",
                    match overrides.cores {
                        Some(_) => "--cores",
                        None => "cores in [engine]",
                    }
                ),
            );
        }
    }
    cores.0
}
