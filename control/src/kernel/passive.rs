//! Silences the host on an interface for listeners: every frame it receives is dropped at ingress, after
//! packet sockets have had their copy. By TCX (Linux 6.6), before that by a clsact filter.
//!
//! The program is `dataplane/bpf/passive.c`.

use std::fmt;

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        tc::{self, NlOptions, TcAttachOptions},
    },
};

use super::{errno_of, objects, one_line, remedy};
use crate::link::netns::{NetNs, NetNsError, in_netns};

/// Why the host may still see the frames of an interface.
#[derive(Debug, thiserror::Error)]
pub enum PassiveError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// The kernel does not take the program.
    #[error(
        "{ns}: cannot load the program that drops what {interface} receives: {}; {}",
        one_line(error),
        remedy(errno_of(error))
    )]
    Load {
        /// The namespace.
        ns: NetNs,
        /// The interface.
        interface: String,
        /// From aya.
        error: Box<EbpfError>,
    },
    /// Neither TCX nor clsact takes it.
    #[error(
        "{ns}: cannot attach the program that drops what {interface} receives: {}; {}",
        one_line(error),
        remedy(errno_of(error))
    )]
    Attach {
        /// The namespace.
        ns: NetNs,
        /// The interface.
        interface: String,
        /// From aya.
        error: Box<ProgramError>,
    },
}

/// How the drop is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// By a bpf_link: gone with the process.
    Tcx,
    /// By a filter on the clsact qdisc: the filter is removed when this is dropped; after a kill it stays
    /// for as long as the interface does.
    Clsact,
}

/// The drop on one interface; removed when this is dropped.
pub struct PassiveIngress {
    /// Holds the program and its link.
    ebpf: Option<Ebpf>,
    ns: NetNs,
    interface: String,
    ingress: Ingress,
}

impl fmt::Debug for PassiveIngress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassiveIngress")
            .field("ns", &self.ns)
            .field("interface", &self.interface)
            .field("ingress", &self.ingress)
            .finish_non_exhaustive()
    }
}

impl PassiveIngress {
    /// Attaches the drop to an interface of `ns`.
    ///
    /// # Errors
    ///
    /// Without CAP_BPF and CAP_NET_ADMIN of the machine (EPERM in every user namespace), or without the
    /// interface.
    pub fn attach(ns: &NetNs, interface: &str) -> Result<Self, PassiveError> {
        let load_error = |error: EbpfError| PassiveError::Load {
            ns: ns.clone(),
            interface: interface.into(),
            error: error.into(),
        };
        // It knows no kernel structure: nothing is gained by parsing the kernel's BTF.
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .load(objects::passive())
            .map_err(load_error)?;
        program(&mut ebpf)
            .and_then(SchedClassifier::load)
            .map_err(|error| load_error(error.into()))?;
        let ingress = in_netns(ns, || attach_here(&mut ebpf, interface))?.map_err(|error| {
            PassiveError::Attach {
                ns: ns.clone(),
                interface: interface.into(),
                error: error.into(),
            }
        })?;
        Ok(Self {
            ebpf: Some(ebpf),
            ns: ns.clone(),
            interface: interface.into(),
            ingress,
        })
    }

    /// How it is attached.
    pub fn ingress(&self) -> Ingress {
        self.ingress
    }
}

impl Drop for PassiveIngress {
    fn drop(&mut self) {
        // A clsact filter is removed through netlink, by the number of the interface, so it must not be done
        // elsewhere than in its namespace. When that cannot be entered any more, the filter stays.
        let mut ebpf = self.ebpf.take();
        let _ = in_netns(&self.ns, || drop(ebpf.take()));
        if self.ingress == Ingress::Clsact {
            std::mem::forget(ebpf);
        }
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, ProgramError> {
    ebpf.program_mut("passive")
        .ok_or(ProgramError::NotLoaded)?
        .try_into()
}

/// TCX, and where the kernel does not know it (EINVAL before 6.6), clsact.
fn attach_here(ebpf: &mut Ebpf, interface: &str) -> Result<Ingress, ProgramError> {
    let program = program(ebpf)?;
    match attach_tcx(program, interface) {
        Err(error) if matches!(errno_of(&error), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
            attach_clsact(program, interface)
        }
        result => result,
    }
}

fn attach_tcx(program: &mut SchedClassifier, interface: &str) -> Result<Ingress, ProgramError> {
    // First in the order: no other program sees a frame before it.
    program.attach_with_options(
        interface,
        TcAttachType::Ingress,
        TcAttachOptions::TcxOrder(LinkOrder::first()),
    )?;
    Ok(Ingress::Tcx)
}

fn attach_clsact(program: &mut SchedClassifier, interface: &str) -> Result<Ingress, ProgramError> {
    match tc::qdisc_add_clsact(interface) {
        Ok(()) => {}
        Err(error) if errno_of(&error) == Some(libc::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    program.attach_with_options(
        interface,
        TcAttachType::Ingress,
        TcAttachOptions::Netlink(NlOptions {
            priority: 1,
            ..NlOptions::default()
        }),
    )?;
    Ok(Ingress::Clsact)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::OwnedFd};

    use super::*;
    use crate::{
        kernel::tests::in_new_netns_with_bpf,
        link::tap::{Tap, TapOptions},
    };

    /// A broadcast IPv4 frame: the stack counts it (InReceives) before it looks any further.
    fn stack_sees(tap: &OwnedFd) -> bool {
        let count = || -> u64 {
            let snmp = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
            let values = snmp
                .lines()
                .filter(|line| line.starts_with("Ip:"))
                .nth(1)
                .unwrap();
            values.split(' ').nth(3).unwrap().parse().unwrap()
        };
        let before = count();
        let mut frame = vec![0xff; 12];
        frame.extend([8, 0, 0x45]);
        frame.resize(60, 0);
        nix::unistd::write(tap, &frame).unwrap();
        count() > before
    }

    #[test]
    fn tcx_and_clsact_both_silence_the_stack_until_they_are_dropped() {
        in_new_netns_with_bpf(|| {
            let ns = NetNs::own();
            let tap = Tap::create(&ns, &TapOptions::active("passive0")).unwrap();
            assert!(stack_sees(&tap.fds[0]));
            type Attach = fn(&mut SchedClassifier, &str) -> Result<Ingress, ProgramError>;
            let attaches: [(Attach, Ingress); 2] =
                [(attach_tcx, Ingress::Tcx), (attach_clsact, Ingress::Clsact)];
            for (attach, expected) in attaches {
                let mut ebpf = Ebpf::load(objects::passive()).unwrap();
                let classifier = program(&mut ebpf).unwrap();
                classifier.load().unwrap();
                let ingress = attach(classifier, "passive0").unwrap();
                let guard = PassiveIngress {
                    ebpf: Some(ebpf),
                    ns: ns.clone(),
                    interface: "passive0".into(),
                    ingress,
                };
                assert_eq!(guard.ingress(), expected);
                assert!(!stack_sees(&tap.fds[0]), "{expected:?}");
                drop(guard);
                assert!(stack_sees(&tap.fds[0]), "{expected:?}");
            }
        });
    }

    #[test]
    fn a_missing_interface_is_an_error() {
        in_new_netns_with_bpf(|| {
            let error = PassiveIngress::attach(&NetNs::own(), "no-such-if").unwrap_err();
            assert!(error.to_string().contains("no-such-if"), "{error}");
        });
    }
}
