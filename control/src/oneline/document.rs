//! The configuration that is written: TOML for a person to read and go on from, in the order of
//! docs/configuration.md, with a comment where something was chosen for the user.

use std::fmt;

use dataplane::policy::Rule;
use serde::Serialize;
use toml_edit::{
    Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value, ser::ValueSerializer, value,
};

use crate::config::RuleText;

/// The name of the policy that `--allow` makes.
pub(super) const POLICY: &str = "allow";

/// The tables of a configuration.
#[derive(Default)]
pub(super) struct Document {
    engine: Table,
    control: Table,
    ports: Table,
    policies: Table,
    pipelines: ArrayOfTables,
}

impl Document {
    pub(super) fn engine(&mut self, key: &str, text: impl Into<Value>) {
        self.engine.insert(key, value(text));
    }

    /// Sets a key that the user did not, and says why.
    pub(super) fn engine_explained(&mut self, key: &str, to: impl Into<Value>, why: &str) {
        self.engine(key, to);
        comment(&mut self.engine, key, why);
    }

    pub(super) fn control(&mut self, key: &str, text: impl Into<Value>) {
        self.control.insert(key, value(text));
    }

    pub(super) fn port(&mut self, name: &str, section: Section) {
        self.ports.insert(name, Item::Table(section.table));
    }

    /// From one port to others, judged by a policy if there are rules.
    pub(super) fn pipeline(&mut self, from: &str, allow: &[Rule], to: &[String]) {
        let mut pipeline = Table::new();
        pipeline.insert("from", value(Array::from_iter([from])));
        if !allow.is_empty() {
            let mut rules = Array::from_iter(allow.iter().map(rule));
            for rule in rules.iter_mut() {
                rule.decor_mut().set_prefix("\n  ");
            }
            rules.set_trailing("\n");
            rules.set_trailing_comma(true);
            let mut policy = Table::new();
            policy.insert("allow", value(rules));
            self.policies.insert(POLICY, Item::Table(policy));
            pipeline.insert("policy", value(POLICY));
        }
        pipeline.insert("to", value(Array::from_iter(to)));
        self.pipelines.push(pipeline);
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut document = DocumentMut::new();
        for (name, table) in [
            ("engine", &self.engine),
            ("control", &self.control),
            ("ports", &self.ports),
            ("policies", &self.policies),
        ] {
            if !table.is_empty() {
                let mut table = table.clone();
                // No header of its own over [ports.NAME].
                let headless = table.iter().all(|(_, item)| item.is_table());
                table.set_implicit(headless);
                document.insert(name, Item::Table(table));
            }
        }
        document.insert("pipelines", Item::ArrayOfTables(self.pipelines.clone()));
        f.write_str(document.to_string().trim_start())
    }
}

/// One table `[ports.NAME]`.
pub(super) struct Section {
    table: Table,
}

impl Section {
    pub(super) fn new(kind: &str) -> Self {
        let mut section = Self {
            table: Table::new(),
        };
        section.set("kind", kind);
        section
    }

    /// Says why the port is of its kind.
    pub(super) fn because(mut self, why: &str) -> Self {
        comment(&mut self.table, "kind", why);
        self
    }

    pub(super) fn set(&mut self, key: &str, to: impl Into<Value>) {
        self.table.insert(key, value(to));
    }

    /// Sets a key that the user did not, and says why.
    pub(super) fn explained(&mut self, key: &str, to: impl Into<Value>, why: &str) {
        self.set(key, to);
        comment(&mut self.table, key, why);
    }

    /// A rate, such as `{ pps = 1000 }`.
    pub(super) fn set_rate(&mut self, key: &str, unit: &str, rate: f64) {
        self.set(key, InlineTable::from_iter([(unit, number(rate))]));
    }

    /// Leaves out the device's name where it is the port's.
    pub(super) fn named(mut self, port: &str) -> Self {
        if self.table.get("name").and_then(Item::as_str) == Some(port) {
            self.table.remove("name");
        }
        self
    }
}

fn comment(table: &mut Table, key: &str, text: &str) {
    if let Some(mut key) = table.key_mut(key) {
        key.leaf_decor_mut().set_prefix(format!("# {text}\n"));
    }
}

/// A number as a person would write it.
pub(super) fn number(number: f64) -> Value {
    match number as i64 {
        whole if whole as f64 == number => whole.into(),
        _ => number.into(),
    }
}

/// A rule in the words of a file.
fn rule(rule: &Rule) -> Value {
    let text = RuleText::from(rule).serialize(ValueSerializer::new());
    text.expect("text and truth values, which TOML has")
}
