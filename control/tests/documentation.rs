//! The documentation keeps pace with the code: every configuration in it is accepted, every key and every
//! reason for a drop is in its reference.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use control::config::{self, Class};
use dataplane::policy::Reason;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The blocks that are marked as TOML, with their place.
fn blocks(path: &str) -> Vec<(String, String)> {
    let text = read(path);
    let mut blocks = Vec::new();
    for (number, part) in text.split("\n```toml\n").skip(1).enumerate() {
        let (block, _) = part.split_once("\n```").expect("a block that ends");
        blocks.push((format!("{path}, block {}", number + 1), block.to_owned()));
    }
    blocks
}

fn accepted(place: &str, text: &str) -> config::Config {
    config::parse(text, place).unwrap_or_else(|errors| {
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        panic!("{}", lines.join("\n"))
    })
}

/// The configurations among the examples.
fn examples() -> Vec<PathBuf> {
    let folder = fs::read_dir(repository().join("docs/examples")).unwrap();
    folder
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect()
}

#[test]
fn examples_are_accepted() {
    let mut count = 0;
    for path in examples() {
        let text = fs::read_to_string(&path).unwrap();
        accepted(&path.display().to_string(), &text);
        count += 1;
    }
    assert!(count > 0, "there are examples");
}

#[test]
fn examples_are_planned_but_for_what_this_machine_lacks() {
    for path in examples() {
        let config = config::load(&path).unwrap();
        let plan = config::Plan::new(
            &config,
            &config::Overrides::default(),
            &config::SystemMachine,
        );
        for error in plan.err().unwrap_or_default() {
            // Their interfaces, cores and files need not be here; all else would be the example's fault.
            assert!(
                error.class == Class::Machine
                    || error.message.contains("does not exist")
                    || error.message.contains("has no worker"),
                "{error}"
            );
        }
    }
}

#[test]
fn whole_configurations_in_the_readme_are_accepted() {
    let blocks = blocks("README.md");
    assert!(!blocks.is_empty());
    for (place, text) in blocks {
        accepted(&place, &text);
    }
}

/// The fragments of the reference make one configuration, which names every key there is.
#[test]
fn the_reference_is_accepted_and_complete() {
    let fragments = blocks("docs/configuration.md");
    let whole: Vec<_> = fragments.iter().map(|(_, text)| text.as_str()).collect();
    let config = accepted("docs/configuration.md", &whole.join("\n"));
    let written = config.to_toml().unwrap();
    let mut keys = BTreeSet::new();
    collect(&written.parse().unwrap(), "", &mut keys);
    assert!(keys.contains("wait_for_consumer") && keys.contains("from_ports"));
    let reference = read("docs/configuration.md");
    let missing: Vec<_> = keys
        .iter()
        .filter(|key| !reference.contains(&format!("`{key}`")))
        .collect();
    assert!(missing.is_empty(), "not in the reference: {missing:?}");
}

/// Every key of the tables, but the names that users choose.
fn collect(table: &toml::Table, context: &str, keys: &mut BTreeSet<String>) {
    for (key, value) in table {
        if !matches!(context, "ports" | "policies") {
            keys.insert(key.clone());
        }
        let inner: Vec<&toml::Table> = match value {
            toml::Value::Table(table) => vec![table],
            toml::Value::Array(all) => all.iter().filter_map(toml::Value::as_table).collect(),
            _ => Vec::new(),
        };
        for table in inner {
            collect(table, key, keys);
        }
    }
}

#[test]
fn every_reason_for_a_drop_is_explained() {
    let counters = read("docs/counters.md");
    for reason in Reason::ALL {
        let row = format!("| `{}` |", reason.name());
        assert!(counters.contains(&row), "{} is missing", reason.name());
    }
}
