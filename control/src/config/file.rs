//! The text of a file -> [`Config`]. Everything that can be said without asking the machine is said
//! here, about as many mistakes at once as there are.

use std::path::{Path, PathBuf};

use super::{
    error::{Class, ConfigError},
    model::{
        Config, Control, Engine, HugePages, Idle, Mode, OnViolation, Pipeline, Policy, Profile,
    },
    reader::{At, Reader, Source},
    rules,
    value::Value,
};
use crate::ports;

/// The most bytes that one region may have.
pub const LARGEST_REGION: u64 = 1 << 30;

/// Fewer slots than this cannot feed every source of a worker and its sinks.
const FEWEST_SLOTS: u64 = 256;

/// The longest name of a port or a policy.
const LONGEST_NAME: usize = 32;

/// The longest path of a Unix socket (`sun_path` of unix(7), without its final zero).
const LONGEST_SOCKET: usize = 107;

/// Reads a configuration. `name` is what errors call the file. Total: any text has an answer.
pub fn parse(text: &str, name: &str) -> Result<Config, Vec<ConfigError>> {
    let source = Source::new(text, name);
    let Some(tree) = source.tree() else {
        return source.finish(None);
    };
    let mut file = Reader::new(&source, tree.get_ref(), "", 0);
    let engine = match file.get("engine") {
        Some(value) => value
            .table("engine", "a table: [engine]")
            .and_then(read_engine),
        None => Some(default_engine()),
    };
    let control = match file.get("control") {
        Some(value) => value
            .table("control", "a table: [control]")
            .map(read_control),
        None => Some(Control::default()),
    };
    let ports = named(&mut file, "ports", ports::read);
    let policies = named(&mut file, "policies", read_policy);
    let pipelines = file.get("pipelines").map(read_pipelines);
    if pipelines.is_none() {
        file.error(
            "there are no pipelines; add [[pipelines]] with from = [\"…\"] and to = [\"…\"]",
        );
    }
    file.finish();
    let config = engine.zip(control).map(|(engine, control)| Config {
        file: name.to_owned(),
        engine,
        control,
        ports,
        policies,
        pipelines: pipelines.unwrap_or_default(),
    });
    source.finish(config)
}

/// Reads the configuration in a file.
pub fn load(path: &Path) -> Result<Config, Vec<ConfigError>> {
    let name = path.display().to_string();
    let refuse = |message: String| {
        vec![ConfigError {
            file: name.clone(),
            line: 0,
            column: 0,
            context: String::new(),
            message,
            class: Class::Config,
        }]
    };
    let bytes = std::fs::read(path).map_err(|error| {
        refuse(match error.kind() {
            std::io::ErrorKind::NotFound => {
                "there is no such file; name the configuration with --config FILE".to_owned()
            }
            _ => format!("cannot be read: {error}"),
        })
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        refuse(format!(
            "is not UTF-8 text at byte {}; a configuration is TOML",
            error.utf8_error().valid_up_to()
        ))
    })?;
    parse(&text, &name)
}

/// Reads the keys of one `[policies.NAME]` table without its header, as `dpctl policy replace` is
/// given them. `file` is what errors call the text.
pub fn parse_policy(text: &str, file: &str, name: &str) -> Result<Policy, Vec<ConfigError>> {
    let source = Source::new(text, file);
    let policy = source.tree().and_then(|tree| {
        let table = Reader::new(&source, tree.get_ref(), format!("policies.{name}"), 0);
        read_policy(name, table)
    });
    source.finish(policy)
}

/// Reads one rule as it stands in an allowlist, with or without its braces.
pub fn parse_rule(text: &str) -> Result<dataplane::policy::Rule, Vec<ConfigError>> {
    let text = text.trim();
    let text = match text.starts_with('{') {
        true => format!("rule = {text}"),
        false => format!("rule = {{ {text} }}"),
    };
    let source = Source::new(&text, "rule");
    let rule = source.tree().and_then(|tree| {
        let mut file = Reader::new(&source, tree.get_ref(), "", 0);
        let rule = file.take("rule", |v| rules::read(v.table("", "a rule")?));
        file.finish();
        rule
    });
    source.finish(rule).map_err(|mut errors| {
        // Places in the text that was put around the rule would help nobody.
        for error in &mut errors {
            (error.line, error.column) = (0, 0);
        }
        errors
    })
}

/// The tables `[section.NAME]`, their names checked.
fn named<T>(
    file: &mut Reader<'_, '_>,
    section: &'static str,
    read: impl Fn(&str, Reader<'_, '_>) -> Option<T>,
) -> Vec<T> {
    let Some(tables) = file.take(section, |v| {
        v.table(section, "a table with one table a name")
    }) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for (name, table) in tables.tables() {
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_plain) {
            table.error(format!(
                "a name is 1 to {LONGEST_NAME} letters, digits, - and _, not {name:?}"
            ));
        }
        all.extend(read(&name, table));
    }
    all
}

/// Whether the name of a port or a policy may have this letter.
pub(crate) fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == '-'
}

fn default_engine() -> Engine {
    Engine {
        cores: None,
        slots: At {
            value: 8192,
            ..At::default()
        },
        slot_size: 2048,
        hugepages: HugePages::default(),
        idle: Idle::default(),
        batch: 64,
    }
}

fn read_engine(mut table: Reader<'_, '_>) -> Option<Engine> {
    let default = default_engine();
    let cores = table.take_at("cores", |v| match v.string()?.parse() {
        Ok(cores) => Some(cores),
        Err(error) => {
            v.fault(error);
            None
        }
    });
    let slots = table.take_at("slots", |v| v.integer(FEWEST_SLOTS..=u64::from(u32::MAX)));
    let slot_size = table.take("slot_size", |v| match v.integer(0..=u64::MAX)? {
        size @ (2048 | 4096) => Some(size as u32),
        size => {
            v.error(format!("must be 2048 or 4096, not {size}"));
            None
        }
    });
    let hugepages = table.take("hugepages", |v| v.choice(HugePages::ALL, &[]));
    let idle = table.take("idle", |v| v.choice(Idle::ALL, &[]));
    let batch = table.take("batch", |v| v.integer(1..=64));
    let slot_size = slot_size.unwrap_or(default.slot_size);
    if let Some(slots) = &slots {
        let most = LARGEST_REGION / u64::from(slot_size);
        if **slots > most {
            table.take("slots", |v| -> Option<()> {
                v.error(format!(
                    "{} of {slot_size} bytes are more than 1 GiB for one region; set at most {most}",
                    **slots
                ));
                None
            });
        }
    }
    table.finish();
    Some(Engine {
        cores,
        slots: slots.map_or(default.slots, |slots| At {
            value: slots.value as u32,
            at: slots.at,
        }),
        slot_size,
        hugepages: hugepages.unwrap_or_default(),
        idle: idle.unwrap_or_default(),
        batch: batch.map_or(default.batch, |batch| batch as u16),
    })
}

fn read_control(mut table: Reader<'_, '_>) -> Control {
    let socket = table.take_at("socket", |v| {
        let path = v.string()?;
        if path.is_empty() || path.contains('\0') {
            v.error("must be the path of the control socket");
            return None;
        }
        if path.len() > LONGEST_SOCKET {
            v.error(format!(
                "is {} bytes long; the path of a socket may have {LONGEST_SOCKET}",
                path.len()
            ));
            return None;
        }
        Some(PathBuf::from(path))
    });
    let socket_group = table.take_at("socket_group", |v| {
        let group = v.string()?;
        if group.is_empty() || group.contains([':', '\0', '\n']) {
            v.error(format!("must be the name of a group, not {group:?}"));
            return None;
        }
        Some(group.to_owned())
    });
    table.not_built("metrics", "`dpctl stats --json` prints the same numbers");
    table.finish();
    Control {
        socket,
        socket_group,
    }
}

fn read_policy(name: &str, mut table: Reader<'_, '_>) -> Option<Policy> {
    let mode = table.take("mode", |v| v.choice(Mode::ALL, &["conntrack", "sampled"]));
    let mode = mode.unwrap_or_default();
    table.not_built("offload", "verdicts are made by the workers; leave it out");
    table.not_built("on_exit", "a policy ends with the daemon; leave it out");
    if mode == Mode::Direct {
        for key in ["allow", "profile", "on_violation", "arp"] {
            table.misplaced(
                key,
                "has no meaning with mode = \"direct\", which forwards everything; set mode = \"filtered\"",
            );
        }
    }
    let profile = table.take("profile", |v| v.choice(Profile::ALL, &["vm"]));
    let on_violation = table.take("on_violation", |v| {
        v.choice(OnViolation::ALL, &["terminate"])
    });
    let arp = table.take("arp", |v| v.boolean());
    let allow = match table.get("allow") {
        Some(value) => read_rules(&value),
        None if mode == Mode::Direct => Some(Vec::new()),
        None => {
            table.error(
                "allow is missing; list what may pass, or write allow = [] to block everything",
            );
            None
        }
    };
    let at = table.at();
    table.finish();
    Some(Policy {
        name: At {
            value: name.to_owned(),
            at,
        },
        mode,
        profile: profile.unwrap_or_default(),
        on_violation: on_violation.unwrap_or_default(),
        arp: arp.unwrap_or(true),
        allow: allow?,
    })
}

fn read_rules(value: &Value<'_, '_>) -> Option<Vec<At<dataplane::policy::Rule>>> {
    let elements =
        value.elements("a list of rules such as [{ proto = \"tcp\", ports = \"443\" }]")?;
    let rules = elements.into_iter().enumerate().map(|(i, element)| {
        element.located(|v| {
            let context = format!("{}.allow[{i}]", v.context());
            rules::read(v.table(
                context,
                "a list of tables: { proto = \"tcp\", ports = \"443\" }",
            )?)
        })
    });
    // Every rule is read before any is missed: each has its own error to show.
    rules.collect::<Vec<_>>().into_iter().collect()
}

fn read_pipelines(value: Value<'_, '_>) -> Vec<Pipeline> {
    let Some(elements) = value.elements("tables: [[pipelines]]") else {
        return Vec::new();
    };
    if elements.is_empty() {
        value.error("is empty; add [[pipelines]] with from = [\"…\"] and to = [\"…\"]");
    }
    elements
        .into_iter()
        .enumerate()
        .filter_map(|(i, element)| {
            let mut table = element.table(format!("pipelines[{i}]"), "tables: [[pipelines]]")?;
            let from = table.need("from", "[\"uplink\"]", names);
            let policy = table.take_at("policy", |v| v.string().map(str::to_owned));
            let to = table.need("to", "[\"lc0\"]", names);
            table.not_built("steps", "frames are forwarded as they are; leave it out");
            let at = At {
                value: (),
                at: table.at(),
            };
            table.finish();
            Some(Pipeline {
                from: from?.value,
                policy,
                to: to?.value,
                at,
            })
        })
        .collect()
}

/// A list of port names, each once.
fn names(value: Value<'_, '_>) -> Option<Vec<At<String>>> {
    let elements = value.elements("a list of port names such as [\"uplink\"]")?;
    if elements.is_empty() {
        value.error("is empty; name at least one port");
        return None;
    }
    let mut names: Vec<At<String>> = Vec::new();
    for element in elements {
        let name = element.clone().located(|v| v.string().map(str::to_owned))?;
        if names.contains(&name) {
            element.error(format!("names {:?} twice", *name));
            return None;
        }
        names.push(name);
    }
    Some(names)
}
