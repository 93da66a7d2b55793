//! Why a frame was dropped: the one list, for sources, policies, sinks and the kernel's programs.

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a frame was dropped. The numbers are positions in a counter array; the names are what
        /// statistics print.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];
            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in statistics, snake_case.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Reason::$variant => $name,)*
                }
            }
        }
    };
}

reasons! {
    // The policy's.
    /// No rule allows the frame.
    NotAllowed = "not_allowed",
    /// The frame ends inside a header.
    Truncated = "truncated",
    /// Lengths in the headers contradict each other or the frame's.
    BadLength = "bad_length",
    /// A header field has a value that its protocol forbids.
    BadHeader = "bad_header",
    /// More VLAN tags or extension headers than are walked.
    TooDeep = "too_deep",
    /// A later fragment: it shows no ports to judge.
    Fragment = "fragment",
    /// An EtherType that no rule can speak of, or 802.3.
    UnknownEthertype = "unknown_ethertype",
    /// An IP protocol that no rule can speak of.
    UnknownProtocol = "unknown_protocol",
    /// ARP or neighbour discovery, where the policy says `arp = false`.
    Arp = "arp",
    // A source's.
    /// The kernel had no room for the frame before we saw it.
    KernelFull = "kernel_full",
    /// It came on a queue of ours that had no socket: before the first was bound, while one was made
    /// anew, or on a queue that was switched on later than we.
    NoSocket = "no_socket",
    /// Longer than the slot or the port's largest frame.
    TooLong = "too_long",
    /// Shorter than an Ethernet header.
    TooShort = "too_short",
    /// The datagram has no VXLAN header, or one with other flags than RFC 7348's.
    VxlanHeader = "vxlan_header",
    /// The VXLAN header names another network (VNI) than the port's.
    WrongVni = "wrong_vni",
    /// The datagram came from another address than the port's `remote`.
    WrongPeer = "wrong_peer",
    // A sink's.
    /// The sink has as many frames in flight as it may, or its ring is full.
    SinkFull = "sink_full",
    /// The sink's link is down or its interface gone.
    LinkDown = "link_down",
    /// The sink takes IP packets, and the frame carries none.
    NotIp = "not_ip",
    /// The disk that the sink writes to has no room.
    DiskFull = "disk_full",
    /// The kernel refused the write.
    WriteError = "write_error",
    /// The daemon ended before the frame was written.
    Shutdown = "shutdown",
}
