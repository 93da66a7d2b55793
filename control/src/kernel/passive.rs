//! Silences the host on an interface for listeners: every frame it receives is dropped at ingress, after
//! packet sockets have had their copy. By TCX (Linux 6.6), before that by a clsact filter.
//!
//! The program is `dataplane/bpf/passive.c`.

use std::fmt;

use aya::{
    Ebpf, EbpfError,
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
        let mut ebpf = Ebpf::load(objects::passive()).map_err(load_error)?;
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
        // A clsact filter is removed through netlink, which must speak of the interface's namespace. When that
        // cannot be entered any more there is nobody left to tell.
        if let Some(ebpf) = self.ebpf.take() {
            let _ = in_netns(&self.ns, move || drop(ebpf));
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
    // First in the order: no other program sees a frame before it.
    let tcx = program.attach_with_options(
        interface,
        TcAttachType::Ingress,
        TcAttachOptions::TcxOrder(LinkOrder::first()),
    );
    match tcx {
        Ok(_) => return Ok(Ingress::Tcx),
        Err(error) if !matches!(errno_of(&error), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
            return Err(error);
        }
        Err(_) => {}
    }
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
