//! The command line of QEMU.

use std::{ffi::OsString, path::Path, process::Command};

use crate::{
    accel::Accel,
    channel::Channel,
    error::Error,
    kernel::Kernel,
    lab::{Lab, TAP_SCRIPT},
};

/// The program.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// The kernel's command line. An oops is a panic, a panic is the end (`-no-reboot`); the answer to an NMI from outside
/// is a panic as well, which shows what all processors do. Guards against speculation cost emulation much and protect
/// nobody here; grace periods of RCU are the shortest, for everything that is set up and taken down.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=6 panic=-1 oops=panic unknown_nmi_panic=1 panic_print=0x40 \
                            nowatchdog tsc=reliable mitigations=off rcupdate.rcu_expedited=1 random.trust_cpu=on rdinit=/init";

/// A machine to be started.
pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) accel: Accel,
    pub(crate) cpus: u32,
    /// MiB.
    pub(crate) memory: u32,
    pub(crate) lab: &'a Lab,
    /// Folders of the host by their names in the guest, and whether it may write.
    pub(crate) shares: &'a [(&'a str, &'a Path, bool)],
    pub(crate) channels: &'a [Channel],
    pub(crate) qmp: &'a Channel,
    /// Whether the guest has a console on our terminal.
    pub(crate) terminal: bool,
    /// For files that belong to this run: the initramfs, the log.
    pub(crate) work: &'a Path,
}

/// A machine with a kernel and an initramfs, its log in a file, and nothing else.
pub(crate) fn bare(accel: Accel, kernel: &Kernel, initramfs: &Path, log: &Path) -> Command {
    let mut command = Command::new(QEMU);
    bare_arguments(&mut command, accel, kernel, initramfs, log);
    command
}

fn bare_arguments(
    command: &mut Command,
    accel: Accel,
    kernel: &Kernel,
    initramfs: &Path,
    log: &Path,
) {
    command
        .args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-machine",
            "q35,hpet=off",
        ])
        .args(accel.arguments())
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", COMMAND_LINE])
        .arg("-serial")
        .arg(with_path("file:", log));
}

fn with_path(before: &str, path: &Path) -> OsString {
    let mut text = OsString::from(before);
    // A comma begins the next option; twice it is one.
    text.push(path.to_string_lossy().replace(',', ",,"));
    text
}

impl Machine<'_> {
    /// The name of the initramfs below `work`.
    pub(crate) const INITRAMFS: &'static str = "initramfs";
    /// The name of the kernel's log below `work`.
    pub(crate) const LOG: &'static str = "console.log";

    /// The command that starts it.
    pub(crate) fn command(&self) -> Result<Command, Error> {
        let mut command = match self.lab.wrapper.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(QEMU);
                command
            }
            None => Command::new(QEMU),
        };
        let (initramfs, log) = (self.work.join(Self::INITRAMFS), self.work.join(Self::LOG));
        bare_arguments(&mut command, self.accel, self.kernel, &initramfs, &log);
        command
            .args([
                "-smp",
                &self.cpus.to_string(),
                "-m",
                &self.memory.to_string(),
            ])
            .args(["-device", "virtio-rng-pci"]);
        for (name, folder, writable) in self.shares {
            let readonly = if *writable { "off" } else { "on" };
            command
                .arg("-fsdev")
                .arg(with_path(
                    &format!("local,id={name},security_model=none,readonly={readonly},multidevs=remap,path="),
                    folder,
                ))
                .args(["-device", &format!("virtio-9p-pci,fsdev={name},mount_tag={name}")]);
        }
        command.args(["-device", "virtio-serial-pci,max_ports=16"]);
        for channel in self.channels {
            let name = channel.name();
            command
                .arg("-chardev")
                .arg(with_path(
                    &format!("socket,id={name},path="),
                    channel.path(),
                ))
                .args([
                    "-device",
                    &format!("virtserialport,chardev={name},name={name}"),
                ]);
        }
        if self.terminal {
            command
                .args(["-chardev", "stdio,id=terminal,signal=off"])
                .args(["-device", "virtconsole,chardev=terminal"]);
        }
        command
            .arg("-chardev")
            .arg(with_path("socket,id=qmp,path=", self.qmp.path()))
            .args(["-mon", "chardev=qmp,mode=control"]);
        let script = self.work.join("tap-script");
        std::fs::write(&script, TAP_SCRIPT)
            .and_then(|()| {
                use std::os::unix::fs::PermissionsExt;
                std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))
            })
            .map_err(|source| Error::File {
                path: script.clone(),
                source,
            })?;
        for (number, card) in self.lab.cards.iter().enumerate() {
            command
                .args([
                    "-netdev",
                    &card.netdev(&script.to_string_lossy()).to_string(),
                ])
                .args(["-device", &card.slot(number).to_string()])
                .args(["-device", &card.device().to_string()]);
        }
        Ok(command)
    }
}
