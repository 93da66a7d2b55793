//! BPF programs: loaded into the kernel, attached by links that end with their owner, and asked about.
//!
//! [`xdp`] gives the frames of an interface to AF_XDP sockets, [`passive`] keeps the host's stack from
//! answering on a listeners' interface, [`foreign`] tells whose a program is that was there before.

pub mod foreign;
mod link;
mod objects;
pub mod passive;
pub mod xdp;

/// What an error of bpf(2) asks of the user.
fn remedy(errno: Option<i32>) -> &'static str {
    match errno {
        Some(libc::EPERM | libc::EACCES) => {
            "BPF programs need CAP_BPF and CAP_NET_ADMIN (CAP_SYS_ADMIN before Linux 5.8) of the machine itself, \
             not of a user namespace: run as root"
        }
        Some(libc::ENOSYS) => "this kernel has no bpf(2): use one with CONFIG_BPF_SYSCALL",
        Some(libc::ENOMEM) => {
            "free memory, or raise the limit on locked memory: ulimit -l unlimited"
        }
        Some(libc::ENODEV) => "the interface is gone: check ip link",
        _ => "Linux 6.1 or later with CONFIG_BPF_SYSCALL and CONFIG_XDP_SOCKETS is needed",
    }
}

/// The number of the system call's error somewhere among the causes of an error.
fn errno_of(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(errno) = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error)
        {
            return Some(errno);
        }
        cause = error.source();
    }
    None
}

/// An error with all of its causes in one line.
fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // aya's words before the verifier's, of which there are none when the program was not looked at.
    text.trim_end_matches(". Verifier output:").to_owned()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::link::netns::tests::in_new_netns;

    /// [`in_new_netns`] for tests that load programs, which root of a user namespace may not.
    pub(super) fn in_new_netns_with_bpf(test: impl FnOnce() + Send) {
        match aya::Ebpf::load(objects::xsk()) {
            Err(error) if errno_of(&error) == Some(libc::EPERM) => {
                eprintln!("skipped: may not load BPF programs; run as root");
            }
            _ => in_new_netns(test),
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer\n says")]
    struct Outer(#[source] io::Error);

    #[test]
    fn the_errno_and_the_text_of_a_cause_are_found() {
        let error = Outer(io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(errno_of(&error), Some(libc::EPERM));
        assert_eq!(
            one_line(&error),
            "outer says: Operation not permitted (os error 1)"
        );
        assert_eq!(errno_of(&io::Error::other("none")), None);
    }
}
