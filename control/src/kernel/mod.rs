//! BPF programs: loaded into the kernel, attached by links that end with their owner, and asked about.
//!
//! [`xdp`] gives the frames of an interface to AF_XDP sockets, [`passive`] keeps the host's stack from
//! answering on a listeners' interface, [`steering`] keeps a TAP from remembering flows, [`foreign`] tells whose a program is that was there before.

pub mod foreign;
mod link;
mod objects;
pub mod passive;
pub mod steering;
pub mod xdp;

/// What an error of bpf(2) asks of the user.
fn remedy(errno: Option<i32>) -> &'static str {
    match errno {
        Some(libc::EPERM | libc::EACCES) => {
            "BPF programs need CAP_BPF, CAP_NET_ADMIN and, for the verifier, CAP_PERFMON (CAP_SYS_ADMIN before \
             Linux 5.8) of the machine itself, not of a user namespace: run as root"
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
    // The verifier's output is a listing of the program, and what it objects to is its last line.
    let (text, log) = text.split_once(VERIFIER).unwrap_or((&text, ""));
    let mut line = words(text);
    if let Some(objection) = objection(log) {
        line = format!("{line}: {objection}");
    }
    cut(line)
}

/// aya's words before the verifier's, of which there are none when the program was not looked at.
const VERIFIER: &str = ". Verifier output:";
/// Characters of an error that a message has room for.
const ERROR_MAX: usize = 300;

/// The last line of the verifier's output that says something: after it stand statistics only
/// (kernel/bpf/verifier.c, `print_verification_stats`).
fn objection(log: &str) -> Option<String> {
    log.lines().rev().map(words).find(|line| {
        let statistics = ["processed ", "verification time ", "stack depth "];
        !line.is_empty() && !statistics.iter().any(|start| line.starts_with(start))
    })
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cut(mut line: String) -> String {
    if let Some((end, _)) = line.char_indices().nth(ERROR_MAX) {
        line.truncate(end);
        line.push('…');
    }
    line
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

    /// As aya has it, with a cause that its text names already.
    #[derive(Debug, thiserror::Error)]
    #[error("the BPF_PROG_LOAD syscall returned {0}. Verifier output: {1}")]
    struct Load(#[source] io::Error, String);

    #[test]
    fn of_the_verifiers_output_the_objection_is_told() {
        let returned = "the BPF_PROG_LOAD syscall returned Permission denied (os error 13)";
        let listing = "0: (79) r2 = *(u64 *)(r1 +0)\nR1 type=ctx\n".repeat(100);
        let statistics = "processed 12 insns (limit 1000000) max_states_per_insn 0\n";
        let objection = "R2 pointer comparison prohibited";
        for (log, expected) in [
            (String::new(), returned.to_owned()),
            ("\n \n".to_owned(), returned.to_owned()),
            (statistics.to_owned(), returned.to_owned()),
            (
                format!("{listing}{objection}\n{statistics}\n"),
                format!("{returned}: {objection}"),
            ),
            (
                format!(
                    "{listing}{objection}\nverification time 5 usec\nstack depth 0\n{statistics}"
                ),
                format!("{returned}: {objection}"),
            ),
        ] {
            let error = Load(io::Error::from_raw_os_error(libc::EACCES), log.clone());
            assert_eq!(one_line(&error), expected, "{log}");
        }
        let long = Load(io::Error::from_raw_os_error(libc::EACCES), "é".repeat(3000));
        let line = one_line(&long);
        assert_eq!(line.chars().count(), ERROR_MAX + 1, "{line}");
        assert!(remedy(errno_of(&long)).contains("CAP_PERFMON"));
    }

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
