//! What runs the guest's instructions: KVM where it is proven to run a kernel, else QEMU's own emulation, which
//! works everywhere.

use std::{fs, os::unix::process::CommandExt, path::Path, process::Stdio, time::Duration};

use crate::{
    console,
    error::{At, Error},
    initramfs,
    kernel::{self, Kernel},
    process::Qemu,
    qemu, stop,
};

/// What runs a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accel {
    /// The processor itself.
    Kvm,
    /// Emulation, a thread for each of the guest's processors.
    Tcg,
}

/// What a kernel says in the trial.
const WORD: &str = "dataplane-vm-alive";

/// How long a trial may take; under KVM a kernel is there within a second or two.
const TRIAL: Duration = Duration::from_secs(15);

impl Accel {
    /// Its part of QEMU's command line.
    pub(crate) fn arguments(self) -> [&'static str; 4] {
        match self {
            Accel::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // Five levels of page tables are one more to walk. Without ERMS and FSRM the guest copies by eight bytes at a
            // time instead of by a string instruction, which is emulated byte by byte: tests took a third less time.
            Accel::Tcg => [
                "-accel",
                "tcg,thread=multi,tb-size=512",
                "-cpu",
                "max,la57=off,erms=off,fsrm=off",
            ],
        }
    }

    /// KVM if a kernel boots by it, else emulation. A device node proves nothing: within a virtual machine it may be there
    /// and run no guest. The answer is kept until the machine boots again.
    pub(crate) fn proven(kernel: &Kernel) -> Result<Self, Error> {
        let usable = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm");
        if usable.is_err() {
            return Ok(Accel::Tcg);
        }
        let file = kernel::cache()?.join("kvm");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let known = fs::read_to_string(&file).unwrap_or_default();
        let runs = match known.strip_prefix(&boot).map(str::trim) {
            Some("runs") => true,
            Some("fails") => false,
            _ => {
                let runs = boots(kernel)?;
                let word = if runs { "runs" } else { "fails" };
                fs::write(&file, format!("{boot}{word}\n")).at(&file)?;
                if !runs {
                    eprintln!("vm: /dev/kvm is there, but no kernel boots by it: emulating");
                }
                runs
            }
        };
        Ok(if runs { Accel::Kvm } else { Accel::Tcg })
    }
}

/// Whether a kernel comes up under KVM.
fn boots(kernel: &Kernel) -> Result<bool, Error> {
    let work = tempfile::tempdir().at(std::env::temp_dir())?;
    let (image, log) = (work.path().join("probe"), work.path().join("log"));
    initramfs::write_probe(&image, WORD)?;
    let mut command = qemu::bare(Accel::Kvm, kernel, &image, &log);
    command
        .args(["-m", "512"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut trial = Qemu::start(command)?;
    trial.wait(TRIAL);
    trial.end();
    if stop::wanted() {
        return Err(Error::Interrupted);
    }
    Ok(said(&log))
}

fn said(log: &Path) -> bool {
    console::read(log).contains(WORD)
}

/// Why QEMU does not even start.
pub(crate) fn not_started(error: &std::io::Error) -> Error {
    Error::Machine(format!(
        "cannot start {}: {error}; install qemu-system-x86 (scripts/vm does it as root)",
        qemu::QEMU
    ))
}
