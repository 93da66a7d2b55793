//! What a test found the kernel to do, for docs/kernels.md.

use std::{cell::RefCell, env, fs::OpenOptions, io::Write};

use serde_json::json;

/// Names the file, which `scripts/vm` reads.
const FILE: &str = "DATAPLANE_VM_FACTS";

thread_local! {
    /// The test that runs on this thread.
    static TEST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Says which test runs on this thread.
pub(crate) fn begin(test: &str) {
    TEST.with_borrow_mut(|name| test.clone_into(name));
}

/// Writes down what the kernel does about a feature, or what the dataplane does in its place.
pub fn fact(feature: &str, answer: &str) {
    let Some(file) = env::var_os(FILE) else {
        return;
    };
    let theme = env::current_exe().ok();
    let theme = theme.as_deref().and_then(|path| path.file_name()?.to_str());
    let theme = theme.map_or("", |name| {
        name.rsplit_once('-').map_or(name, |(name, _)| name)
    });
    let theme = theme.strip_prefix("guest_").unwrap_or(theme);
    let test = TEST.with_borrow(|test| format!("{theme}::{test}"));
    let line = json!({ "feature": feature, "answer": answer, "test": test });
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(file)
        .expect("a writable file");
    writeln!(file, "{line}").expect("room for a line");
}
