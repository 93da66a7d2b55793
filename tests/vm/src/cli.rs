//! The command line.

use std::{
    fs,
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    accel::Accel,
    error::{At, Error},
    kernel,
    lab::Lab,
    machine::Guest,
    matrix,
    themes::{self, Theme},
};

/// Boots a packaged kernel in QEMU, with the project in it, and runs a command there.
#[derive(Debug, Parser)]
#[command(
    name = "vm",
    after_help = "\
Examples:
  scripts/vm shell                                             a prompt, dataplane and dpctl in the search path
  scripts/vm run -- dataplane -i nic0 --check                  one command; its exit code is the answer
  scripts/vm run --kernel 6.1 --out /tmp/out -- cp /proc/config.gz /out
  scripts/vm test zero_copy                                    tests of the guest whose names contain it
  scripts/vm matrix                                            all tests on all kernels, and docs/kernels.md

In the guest: root, the host's /usr (what is written there is gone at the end), the checkout in /project and
what was built in /target, both read-only, and /out, which is the folder of --out. Its network cards lead to each
other and nowhere else: nic0 - gen0, nic1 - gen1 (virtio-net), igb0 - gen2, and nic3 - gen3 with four queues.

Exit codes: those of the command; 2 wrong usage, 3 the machine refuses, 124 the guest hung (--time), 125 its kernel
panicked or it ended without a verdict, 130 interrupted."
)]
pub(crate) struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run a command in a guest
    Run(Run),
    /// A prompt in a guest
    Shell(Shell),
    /// Run the tests of the guest
    Test(Test),
    /// Run all tests of the guest on every kernel, and write what they found to docs/kernels.md
    Matrix(Matrix),
    /// The kernels that there are; fetches those that are named
    Kernels {
        /// Fetch this one
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct Options {
    /// 6.1, 6.12, newest, or a folder with boot/vmlinuz-RELEASE and lib/modules/RELEASE
    #[arg(long, value_name = "NAME", default_value = kernel::DEFAULT)]
    kernel: String,
    #[command(flatten)]
    size: Size,
    /// Where the kernel's log is kept
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Size {
    /// The guest's processors
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// Its memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(256..))]
    memory: u32,
    /// auto, which is kvm where it is proven to boot a kernel, or kvm or tcg (emulation)
    #[arg(long, value_name = "WHICH", default_value = "auto", value_parser = ["auto", "kvm", "tcg"])]
    accel: String,
    /// The checkout
    #[arg(
        long,
        value_name = "FOLDER",
        env = "DATAPLANE_VM_PROJECT",
        default_value = ".",
        hide = true
    )]
    project: PathBuf,
    /// What was built
    #[arg(
        long,
        value_name = "FOLDER",
        env = "CARGO_TARGET_DIR",
        default_value = "target",
        hide = true
    )]
    target: PathBuf,
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    options: Options,
    /// The folder that is /out in the guest
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// How many seconds it may take, the boot included
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    time: u64,
    /// The command
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

#[derive(Debug, Args)]
struct Shell {
    #[command(flatten)]
    options: Options,
    /// The folder that is /out in the guest
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Test {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    themes: Themes,
    /// How many seconds all of it may take
    #[arg(long, value_name = "SECONDS", default_value_t = 1200)]
    time: u64,
    /// Only tests whose names contain it
    filter: Option<String>,
}

#[derive(Debug, Args)]
struct Matrix {
    #[command(flatten)]
    size: Size,
    #[command(flatten)]
    themes: Themes,
    /// Only this kernel, instead of all; may be given several times
    #[arg(long = "kernel", value_name = "NAME")]
    kernels: Vec<String>,
    /// How many seconds one kernel may take
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    time: u64,
}

#[derive(Debug, Args)]
struct Themes {
    /// A test executable below the folder of what was built
    #[arg(long = "theme", value_name = "FILE", hide = true)]
    executables: Vec<PathBuf>,
}

/// The search path of commands: what was built comes first.
const PATH: &str = "export PATH=/target/debug:$PATH DATAPLANE_BIN_DIR=/target/debug";

impl Command {
    /// Does what was asked for.
    pub(crate) fn run(self) -> Result<ExitCode, Error> {
        match self.action {
            Action::Run(run) => {
                let mut guest = run.options.guest(&run.options.kernel)?;
                guest.out = run.out;
                guest.limit = Some(Duration::from_secs(run.time));
                guest.command = format!("#!/bin/sh\n{PATH}\nexec {}\n", quoted(&run.command));
                let ended = guest.run(|| (Box::new(io::stdout()), Box::new(io::stderr())))?;
                warn(&ended.warnings);
                Ok(ExitCode::from(ended.code))
            }
            Action::Shell(shell) => shell.run(),
            Action::Test(test) => {
                let themes = test.themes.all(&test.options.size)?;
                let mut guest = test.options.guest(&test.options.kernel)?;
                guest.limit = Some(Duration::from_secs(test.time));
                let outcome =
                    themes::run(guest, &test.options.kernel, &themes, test.filter.as_deref())?;
                Ok(ExitCode::from(u8::from(!outcome.passed)))
            }
            Action::Matrix(matrix) => {
                let themes = matrix.themes.all(&matrix.size)?;
                let project = matrix.size.project.clone();
                let limit = Some(Duration::from_secs(matrix.time));
                let kernels: Vec<&str> = match matrix.kernels.is_empty() {
                    true => kernel::PACKAGED
                        .iter()
                        .map(|packaged| packaged.name)
                        .collect(),
                    false => matrix.kernels.iter().map(String::as_str).collect(),
                };
                let passed = matrix::run(&project, &kernels, |name| {
                    let mut guest = matrix.size.guest(name)?;
                    guest.limit = limit;
                    themes::run(guest, name, &themes, None)
                })?;
                Ok(ExitCode::from(u8::from(!passed)))
            }
            Action::Kernels { names } => {
                for name in &names {
                    kernel::find(name)?;
                }
                for packaged in kernel::PACKAGED {
                    let here = kernel::known(*packaged);
                    let here = here.map_or("not fetched".to_owned(), |kernel| kernel.release);
                    println!("{:<8} {:<20} {here}", packaged.name, packaged.suite);
                }
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

impl Options {
    fn guest(&self, kernel: &str) -> Result<Guest, Error> {
        Ok(Guest {
            log: self.log.clone(),
            ..self.size.guest(kernel)?
        })
    }
}

impl Size {
    fn guest(&self, kernel: &str) -> Result<Guest, Error> {
        let kernel = kernel::find(kernel)?;
        let accel = match self.accel.as_str() {
            "kvm" => Accel::Kvm,
            "tcg" => Accel::Tcg,
            _ => Accel::proven(&kernel)?,
        };
        let lab = Lab::all();
        if let Some(why) = &lab.missing {
            eprintln!("vm: without the cards nic3 and gen3: {why}");
        }
        Ok(Guest {
            kernel,
            accel,
            cpus: self.cpus,
            memory: self.memory,
            lab,
            project: fs::canonicalize(&self.project).at(&self.project)?,
            target: self.target()?,
            out: None,
            command: String::new(),
            limit: None,
            log: None,
            terminal: None,
        })
    }

    fn target(&self) -> Result<PathBuf, Error> {
        fs::canonicalize(&self.target).at(&self.target)
    }
}

impl Themes {
    fn all(&self, size: &Size) -> Result<Vec<Theme>, Error> {
        let target = size.target()?;
        let themes: Result<Vec<Theme>, Error> = self
            .executables
            .iter()
            .map(|file| Theme::new(file, &target))
            .collect();
        match themes {
            Ok(themes) if themes.is_empty() => {
                Err(Error::Usage("no tests: scripts/vm names them".into()))
            }
            other => other,
        }
    }
}

impl Shell {
    fn run(self) -> Result<ExitCode, Error> {
        if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
            return Err(Error::Usage(
                "shell needs a terminal; without one: scripts/vm run -- CMD".into(),
            ));
        }
        let mut guest = self.options.guest(&self.options.kernel)?;
        guest.out = self.out;
        guest.terminal = Some(terminal_size());
        guest.command = format!(
            "#!/bin/sh\n{PATH}\necho 'Linux '\"$(uname -r)\"'; what is in /out stays; exit ends the guest'\n\
             shell=/bin/bash; [ -x $shell ] || shell=/bin/sh\n$shell -i\n"
        );
        let ended = guest.run(|| (Box::new(io::sink()), Box::new(io::sink())))?;
        warn(&ended.warnings);
        Ok(ExitCode::from(ended.code))
    }
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("vm: the guest's kernel warned: {warning}");
    }
}

/// Rows and columns.
fn terminal_size() -> (u16, u16) {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    (
        number("LINES").unwrap_or(24),
        number("COLUMNS").unwrap_or(80),
    )
}

/// Words as a shell reads them back.
pub(crate) fn quoted<S: AsRef<str>>(words: &[S]) -> String {
    let quote = |word: &S| format!("'{}'", word.as_ref().replace('\'', r"'\''"));
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Command as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn words_survive_a_shell() {
        let words = ["a b", "it's", "$HOME", "", "\\", "\"", "a\nb"];
        let script = format!(
            "for word in {}; do printf '%s\\0' \"$word\"; done",
            quoted(&words)
        );
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .expect("a shell");
        let expected: String = words.iter().map(|word| format!("{word}\0")).collect();
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }
}
