//! The harness with real guests: what a command prints and how it ends comes back, and a guest that panics or hangs is a
//! failure with its log.

use std::{
    env, fs,
    process::{Command, Output},
    sync::Mutex,
};

/// Guests one after another: each wants all processors.
static ONE: Mutex<()> = Mutex::new(());

/// Runs `vm` with these arguments; `None`, said, where this machine has no guest. A kernel is not fetched unasked: the
/// folder that keeps it must be named, as scripts/test does.
fn vm(arguments: &[&str]) -> Option<Output> {
    let project = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let required = env::var("DATAPLANE_REQUIRE")
        .is_ok_and(|words| words.split(',').any(|word| word.trim() == "guest"));
    let skip = |why: &str| {
        assert!(!required, "{why}");
        println!("skipped: {why}");
        None
    };
    if env::var_os("DATAPLANE_VM_CACHE").is_none() {
        return skip("DATAPLANE_VM_CACHE does not name a folder for kernels (scripts/test does)");
    }
    let _one = ONE.lock().unwrap_or_else(|broken| broken.into_inner());
    let target = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_vm"))
        .args(arguments)
        .env("DATAPLANE_VM_PROJECT", project)
        .env("CARGO_TARGET_DIR", target.path())
        .output()
        .expect("the program of this package");
    // What the machine lacks; a fault of the guest's or ours is another code.
    match output.status.code() {
        Some(3) => skip(&String::from_utf8_lossy(&output.stderr)),
        _ => Some(output),
    }
}

#[test]
fn what_a_command_says_and_how_it_ends() {
    let out = tempfile::tempdir().expect("a folder");
    let folder = out.path().to_str().expect("UTF-8");
    let command = "echo said; echo complained >&2; echo kept >/out/file; touch /project/x /target/x; touch /usr/x && exit 7";
    let Some(output) = vm(&[
        "run", "--time", "180", "--out", folder, "--", "sh", "-c", command,
    ]) else {
        return;
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "said\n");
    assert!(stderr.contains("complained\n"), "{stderr}");
    // Neither the checkout nor what was built can be written to.
    assert_eq!(
        stderr.matches("Read-only file system").count(),
        2,
        "{stderr}"
    );
    assert_eq!(
        fs::read_to_string(out.path().join("file")).expect("written there"),
        "kept\n"
    );
}

#[test]
fn a_panic_is_a_failure_with_its_log() {
    let Some(output) = vm(&[
        "run",
        "--time",
        "180",
        "--",
        "sh",
        "-c",
        "echo c >/proc/sysrq-trigger",
    ]) else {
        return;
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(
        stderr.contains("the guest's kernel panicked: sysrq triggered crash\n"),
        "{stderr}"
    );
    assert!(stderr.contains("Call Trace:"), "{stderr}");
}

#[test]
fn a_hang_is_a_failure_with_its_log() {
    let command = "echo began; while :; do sleep 1; done";
    // Long enough for a boot on a busy machine.
    let Some(output) = vm(&["run", "--time", "40", "--", "sh", "-c", command]) else {
        return;
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(124), "{stderr}");
    assert!(
        stderr.contains("the guest hangs: no end (--time) within 40s"),
        "{stderr}"
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "began\n",
        "{stderr}"
    );
}

#[test]
fn wrong_usage_is_said_in_a_line() {
    for (arguments, expected) in [
        (
            &["run", "--kernel", "2.4", "--", "true"][..],
            "there are 6.1, 6.12, newest",
        ),
        (
            &["run", "--kernel", "/nowhere", "--", "true"],
            "/nowhere/boot: No such file or directory",
        ),
        (&["shell"], "shell needs a terminal"),
        (&["test"], "no tests"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_vm"))
            .args(arguments)
            .env("CARGO_TARGET_DIR", env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("the program of this package");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains(expected) && said.lines().count() == 1,
            "{arguments:?}: {said}"
        );
        assert!(
            matches!(output.status.code(), Some(2 | 3)),
            "{arguments:?}: {said}"
        );
    }
}
