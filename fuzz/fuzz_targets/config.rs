//! The configuration: any text has an answer, every error says something on one line and points into
//! the text, and what is accepted survives being written and read again.
#![no_main]

use control::config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match config::parse(text, "dp.toml") {
        Ok(accepted) => {
            let written = accepted.to_toml().expect("what was read can be written");
            let again = config::parse(&written, "dp.toml")
                .unwrap_or_else(|errors| panic!("refuses its own text: {errors:?}\n{written}"));
            let rewritten = again.to_toml().expect("what was read can be written");
            assert_eq!(written, rewritten, "another configuration");
        }
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without a word");
            let lines = text.lines().count().max(1) + 1;
            for error in errors {
                let message = error.to_string();
                assert!(!message.contains('\n'), "one line: {message:?}");
                assert!(
                    error.line as usize <= lines,
                    "line {} of {lines}: {message}",
                    error.line
                );
            }
        }
    }
    // What dpctl is given goes through the same reader.
    let _ = config::parse_rule(text);
    let _ = config::parse_policy(text, "rules", "web");
});
