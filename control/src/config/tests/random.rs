//! Any text is answered: with a configuration, or with errors that stand within it.

use proptest::prelude::*;

use super::{FULL, FakeMachine, plan};
use crate::config::{parse, parse_policy, parse_rule};

/// Cuts a piece out of the full file and puts another text there.
fn mutated() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        ".{0,6}",
        "[\\[\\]{}=\",.#\n' ]{0,4}",
        "-?[0-9]{1,20}",
        Just(String::new()),
        Just("[[pipelines]]\n".to_owned()),
        Just("\"all\"".to_owned()),
        Just("nan".to_owned()),
        (0..FULL.len(), 1usize..60).prop_map(|(at, len)| cut(at, len).to_owned()),
    ];
    let edit = (0..FULL.len(), 0usize..12, pieces);
    proptest::collection::vec(edit, 1..5).prop_map(|mut edits| {
        edits.sort_by_key(|(at, ..)| *at);
        let mut text = String::new();
        let mut done = 0;
        for (at, len, piece) in edits {
            text += cut(done, at.saturating_sub(done));
            text += &piece;
            done = done.max(at + len);
        }
        text + FULL.get(done..).unwrap_or("")
    })
}

/// A piece of the full file, which is ASCII.
fn cut(at: usize, len: usize) -> &'static str {
    let at = at.min(FULL.len());
    &FULL[at..(at + len).min(FULL.len())]
}

fn answered(text: &str) -> Result<(), TestCaseError> {
    let Err(errors) = parse(text, "f") else {
        // What reads must also be planned or refused, and be written so that it reads back.
        let _ = plan(text, "0-1", &FakeMachine);
        let config = parse(text, "f").expect("it read before");
        let again = config.to_toml().expect("TOML");
        let again = parse(&again, "f").map_err(|e| TestCaseError::fail(format!("{e:?}")))?;
        prop_assert_eq!(again.engine, config.engine);
        prop_assert_eq!(again.pipelines, config.pipelines);
        return Ok(());
    };
    prop_assert!(!errors.is_empty());
    let lines = text.split('\n').count();
    for error in errors {
        prop_assert!((1..=lines).contains(&error.line), "{}", error);
        prop_assert!(error.column >= 1);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn of_a_mutated_file(text in mutated()) {
        answered(&text)?;
    }

    #[test]
    fn of_any_text(text in "(?s).{0,80}") {
        answered(&text)?;
        let _ = parse_rule(&text);
        let _ = parse_policy(&text, "f", "p");
    }
}

#[test]
fn deep_nesting_is_an_error_and_no_crash() {
    for open in ["[", "{a="] {
        let text = format!("x = {}", open.repeat(100_000));
        assert!(parse(&text, "f").is_err());
    }
}
