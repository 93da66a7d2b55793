//! The documentation keeps pace with the code: every configuration in it is accepted, every key, every kind of
//! port and every reason for a drop is in its reference. And its links lead somewhere.

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
fn whole_configurations_in_the_pages_are_accepted() {
    let whole = pages()
        .into_iter()
        .filter(|page| page != "docs/configuration.md");
    let blocks: Vec<_> = whole.flat_map(|page| blocks(&page)).collect();
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

/// The pages, by their paths from the repository's folder.
fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    for folder in ["docs", "docs/benchmarks"] {
        let there = fs::read_dir(repository().join(folder)).unwrap();
        let names = there.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let pages_there = names.filter(|name| name.ends_with(".md"));
        pages.extend(pages_there.map(|name| format!("{folder}/{name}")));
    }
    pages
}

/// Where the links of a page lead, but for those to other sites.
fn links(page: &str) -> Vec<String> {
    let text = read(page);
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'));
    targets
        .map(|(target, _)| target.to_owned())
        .filter(|target| !target.contains("://"))
        .collect()
}

/// What leads to the headings of a page, as GitHub and others make it of their words.
fn anchors(page: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(page).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| line.trim_start_matches('#').trim().to_lowercase())
        .map(|words| {
            let kept = words
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let mut dead = Vec::new();
    for page in pages() {
        let path = repository().join(&page);
        for link in links(&page) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => path.clone(),
                _ => path.parent().unwrap().join(file),
            };
            if !target.exists() || !anchor.is_empty() && !anchors(&target).contains(anchor) {
                dead.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(dead.is_empty(), "dead links: {dead:#?}");
}

#[test]
fn every_page_is_in_the_readme() {
    let linked = links("README.md");
    let missing: Vec<_> = pages()
        .into_iter()
        .filter(|page| page != "README.md" && !linked.contains(page))
        .collect();
    assert!(missing.is_empty(), "not in README.md: {missing:?}");
}

/// Each kind of the reference has its part in docs/ports.md, and an example there that has a port of it. All
/// examples are there.
#[test]
fn every_kind_of_port_has_an_example() {
    let reference = read("docs/configuration.md");
    let kinds: Vec<&str> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("### kind = \"")?.strip_suffix('"'))
        .collect();
    assert!(kinds.contains(&"af_xdp"), "{kinds:?}");
    let ports = read("docs/ports.md");
    for kind in kinds {
        assert!(ports.contains(&format!("\n## {kind}\n")), "{kind}");
        let row = ports
            .lines()
            .find(|line| line.starts_with(&format!("| [`{kind}`]")));
        let row = row.unwrap_or_else(|| panic!("no row for {kind}"));
        let examples: Vec<&str> = row
            .split("](examples/")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
            .collect();
        assert!(!examples.is_empty(), "no example for {kind}");
        for example in examples.iter().filter(|name| name.ends_with(".toml")) {
            let text = read(&format!("docs/examples/{example}"));
            assert!(
                text.contains(&format!("kind = \"{kind}\"")),
                "{example} has no {kind}"
            );
        }
    }
    for path in examples() {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            ports.contains(&format!("](examples/{name})")),
            "{name} is not in docs/ports.md"
        );
    }
}
