//! `vm`: boots a packaged kernel in QEMU, with the project in it, and runs a command there. `scripts/vm` installs
//! what it needs, builds it and starts it.
//!
//! A kernel comes from a Debian package ([`kernel`]), with an initramfs of busybox and the few modules that
//! lead to the rest ([`initramfs`]); the host's /usr and the checkout are there read-only over 9p. What the guest
//! says and how it ends comes back over virtio serial ports ([`machine`]).

mod accel;
mod broker;
mod channel;
mod cli;
mod console;
mod error;
mod initramfs;
mod kernel;
mod lab;
mod machine;
mod matrix;
mod process;
mod qemu;
mod qmp;
mod stop;
mod themes;
mod verdict;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let command = cli::Command::parse();
    if let Err(error) = stop::listen() {
        eprintln!("vm: signals: {error}");
        return ExitCode::from(3);
    }
    match command.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vm: {error}");
            ExitCode::from(error.code())
        }
    }
}
