//! `scripts/install`: what it puts in place works there, and goes again without a trace; what is not its
//! own stays as it is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitCode, Output},
};

use tempfile::TempDir;
use tests::{
    Need, Theme, Tool, capture,
    daemon::{binary, folder},
    frames,
    process::run,
};

fn main() -> ExitCode {
    let mut theme = Theme::new();
    theme.test("comes_and_goes", &[], comes_and_goes);
    theme.test("the_programs_run_from_there", &[], programs_run);
    theme.test("the_examples_are_right", &[], examples);
    theme.test(
        "manual",
        &[Need::Checker("man"), Need::Checker("groff")],
        manual,
    );
    for (needs, shell, path) in SHELLS {
        theme.test(format!("completions_{shell}"), needs, move || {
            completions(shell, path);
        });
    }
    theme.test("below_a_folder_to_be_made", &[], below_a_folder_to_be_made);
    theme.test("twice_is_an_upgrade", &[], twice);
    theme.test("what_was_changed_is_kept", &[], changed);
    theme.test("what_is_foreign_is_kept", &[], foreign);
    theme.test("wrong_flags", &[], wrong_flags);
    theme.test("shellcheck", &[Need::Checker("shellcheck")], || {
        for name in [
            "install",
            "demo",
            "test",
            "fuzz",
            "bpf-build",
            "pktgen",
            "../.ci/run",
        ] {
            let path = script().with_file_name(name);
            let path = path.to_str().expect("UTF-8");
            let flags = ["-x", "-P", "SCRIPTDIR", "-S", "warning"];
            run("shellcheck", &[&flags[..], &[path]].concat());
        }
    });
    theme.run()
}

/// What looks at completions, and where they are below `share/`.
const SHELLS: &[(&[Need], &str, &str)] = &[
    (
        &[Need::Tool("bash")],
        "bash",
        "bash-completion/completions/",
    ),
    (&[Need::Checker("zsh")], "zsh", "zsh/site-functions/_"),
    (
        &[Need::Checker("fish")],
        "fish",
        "fish/vendor_completions.d/",
    ),
];

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/install")
}

/// A place to install below.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(folder())
    }

    /// What is installed as `path` below the prefix.
    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join("usr/local").join(path)
    }

    fn install(&self, arguments: &[&str]) -> Output {
        Tool::new(script())
            .arg("--destdir")
            .arg(self.0.path())
            .args(arguments)
            .output()
    }

    /// Installs what the tests run.
    fn filled(self) -> Self {
        succeeded(&self.install(&["--built", built().to_str().expect("UTF-8")]));
        self
    }

    /// All files and folders, without the place itself.
    fn content(&self) -> Vec<PathBuf> {
        let mut content = Vec::new();
        let mut folders = vec![self.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("our own folder").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path.clone());
                }
                content.push(path);
            }
        }
        content.sort();
        content
    }
}

/// The folder of the programs that the tests run.
fn built() -> PathBuf {
    let programs = binary("dataplane")
        .parent()
        .expect("in a folder")
        .to_owned();
    let manual = programs.join("examples/manual");
    assert!(
        manual.is_file(),
        "{} is not there: build it with `cargo build -p control --example manual`",
        manual.display()
    );
    programs
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

fn succeeded(output: &Output) {
    assert!(
        output.status.success(),
        "{}: {}",
        output.status,
        text(output)
    );
}

fn refused(output: &Output, code: i32, fragments: &[&str]) {
    let said = text(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for fragment in fragments {
        assert!(said.contains(fragment), "{fragment} in {said}");
    }
}

fn comes_and_goes() {
    let place = Place::new().filled();
    for path in [
        "bin/dataplane",
        "bin/dpctl",
        "share/man/man1/dataplane.1",
        "share/man/man1/dpctl.1",
        "share/man/man1/dpctl-policy-allow.1",
        "share/bash-completion/completions/dpctl",
        "share/zsh/site-functions/_dataplane",
        "share/fish/vendor_completions.d/dpctl.fish",
        "share/doc/dataplane/examples/monitor.toml",
        "share/dataplane/manifest",
    ] {
        assert!(place.path(path).is_file(), "{path}");
    }
    succeeded(&place.install(&["--uninstall"]));
    assert_eq!(place.content(), Vec::<PathBuf>::new());
    let again = place.install(&["--uninstall"]);
    refused(&again, 3, &["nothing was installed", "--prefix"]);
}

fn below_a_folder_to_be_made() {
    let place = Place::new();
    let above = place.0.path().join("a");
    let destdir = above.join("b");
    let destdir = destdir.to_str().expect("UTF-8");
    let programs = built();
    let programs = programs.to_str().expect("UTF-8");
    succeeded(&place.install(&["--destdir", destdir, "--built", programs]));
    assert!(above.join("b/usr/local/bin/dpctl").is_file());
    succeeded(&place.install(&["--destdir", destdir, "--uninstall"]));
    assert_eq!(place.content(), [above], "only what is above stays");
}

fn programs_run() {
    let place = Place::new().filled();
    for program in ["dataplane", "dpctl"] {
        let path = place.path("bin").join(program);
        let version = run(path.to_str().expect("UTF-8"), &["--version"]);
        assert!(version.starts_with(program), "{version}");
    }
}

/// One of them needs nothing of the machine but its capture file, in the working directory.
fn examples() {
    let place = Place::new().filled();
    let folder = folder();
    capture::write(&folder.path().join("sample.pcap"), &frames::mixed(10, 100));
    let check = format!(
        "cd '{}' && '{}' --check --config '{}'",
        folder.path().display(),
        place.path("bin/dataplane").display(),
        place
            .path("share/doc/dataplane/examples/replay.toml")
            .display()
    );
    let plan = run("sh", &["-c", &check]);
    assert!(plan.contains("pcap sample.pcap"), "{plan}");
}

/// Every page is laid out without a complaint, and has the sections that a manual has.
fn manual() {
    let place = Place::new().filled();
    let folder = fs::read_dir(place.path("share/man/man1")).expect("installed");
    let pages: Vec<_> = folder.flatten().map(|entry| entry.path()).collect();
    assert!(pages.len() >= 11, "{pages:?}");
    for page in &pages {
        let name = page.file_stem().expect("a name").to_str().expect("UTF-8");
        let path = page.to_str().expect("UTF-8");
        let complaints = Tool::new("groff")
            .args(["-man", "-ww", "-z", "-Tutf8", path])
            .output();
        assert_eq!(text(&complaints), "", "{name}");
        // Plain letters, however the terminal is.
        let laid_out = run(
            "env",
            &[
                "MANPAGER=cat",
                "MANWIDTH=100",
                "LC_ALL=C",
                "man",
                "-l",
                path,
            ],
        );
        let sections: &[&str] = match name {
            "dataplane" | "dpctl" => &[
                "NAME",
                "SYNOPSIS",
                "DESCRIPTION",
                "OPTIONS",
                "EXIT STATUS",
                "FILES",
                "ENVIRONMENT",
                "EXAMPLES",
                "SEE ALSO",
            ],
            _ => &["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "SEE ALSO"],
        };
        for section in sections {
            let there = laid_out.lines().any(|line| line.trim_end() == *section);
            assert!(there, "{section} in {name}:\n{laid_out}");
        }
    }
    let page = fs::read_to_string(place.path("share/man/man1/dataplane.1")).expect("installed");
    let help = run(binary("dataplane").to_str().expect("UTF-8"), &["--help"]);
    // Where an option is explained, its line begins with it.
    let flags = help
        .lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with('-'));
    let long = flags.filter_map(|line| line.split([' ', ',']).find(|word| word.starts_with("--")));
    let missing: Vec<_> = long
        .filter(|flag| !page.contains(&flag.replace('-', "\\-")))
        .collect();
    assert!(missing.is_empty(), "not in the manual: {missing:?}");
}

fn completions(shell: &str, path: &str) {
    let place = Place::new().filled();
    for program in ["dataplane", "dpctl"] {
        let end = if shell == "fish" { ".fish" } else { "" };
        let file = place.path("share").join(format!("{path}{program}{end}"));
        run(shell, &["-n", file.to_str().expect("UTF-8")]);
        let text = fs::read_to_string(&file).expect("installed");
        let word = if program == "dpctl" {
            "policy"
        } else {
            "print-config"
        };
        assert!(text.contains(word), "{word} in {}", file.display());
    }
}

fn twice() {
    let place = Place::new().filled();
    let first = place.content();
    // What an earlier version had and this one has not goes.
    let old = place.path("share/man/man1/dpctl-old.1");
    fs::write(&old, "").expect("our own folder");
    let manifest = place.path("share/dataplane/manifest");
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let line = format!("file {empty} /usr/local/share/man/man1/dpctl-old.1\n");
    let text = fs::read_to_string(&manifest).expect("installed");
    fs::write(&manifest, line + &text).expect("our own file");
    let place = place.filled();
    assert_eq!(place.content(), first);
    assert_eq!(fs::read_to_string(&manifest).expect("installed"), text);
    succeeded(&place.install(&["--uninstall"]));
    assert_eq!(place.content(), Vec::<PathBuf>::new());
}

fn changed() {
    let place = Place::new().filled();
    let example = place.path("share/doc/dataplane/examples/host.toml");
    fs::write(&example, "# mine\n").expect("our own file");
    let again = place.install(&["--built", built().to_str().expect("UTF-8")]);
    refused(&again, 0, &["host.toml", "is kept"]);
    let gone = place.install(&["--uninstall"]);
    refused(&gone, 0, &["host.toml", "changed", "left"]);
    assert_eq!(fs::read_to_string(&example).expect("kept"), "# mine\n");
    let files = place.content().into_iter().filter(|path| path.is_file());
    assert_eq!(files.collect::<Vec<_>>(), [example]);
}

fn foreign() {
    let place = Place::new();
    let program = place.path("bin/dpctl");
    fs::create_dir_all(program.parent().expect("a folder")).expect("our own folder");
    fs::write(&program, "#!/bin/sh\n").expect("our own folder");
    let before = place.content();
    let output = place.install(&["--built", built().to_str().expect("UTF-8")]);
    refused(&output, 3, &["bin/dpctl", "remove", "--prefix"]);
    assert_eq!(place.content(), before);
    assert_eq!(fs::read_to_string(&program).expect("kept"), "#!/bin/sh\n");
}

fn wrong_flags() {
    let place = Place::new();
    for (arguments, code, fragments) in [
        (
            &["--prefix", "relative"][..],
            2,
            &["--prefix", "absolute"][..],
        ),
        (&["--prefix"], 2, &["--prefix needs a folder"]),
        (&["--everything"], 2, &["usage:"]),
        (
            &["--built", "/nowhere"],
            3,
            &["/nowhere/dataplane", "cargo build"],
        ),
    ] {
        refused(&place.install(arguments), code, fragments);
    }
    assert_eq!(place.content(), Vec::<PathBuf>::new());
}
