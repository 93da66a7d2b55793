//! Frames put onto an interface, byte for byte, through a packet socket.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use control::link::netns::{NetNs, in_netns};
use nix::{
    net::if_::if_nametoindex,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockType, send, setsockopt, socket,
            sockopt::SendTimeout,
        },
        time::{TimeVal, TimeValLike},
    },
};

use crate::Netns;

/// A packet socket on one interface.
pub struct Sender {
    socket: OwnedFd,
}

impl Sender {
    /// Opens one on an interface of a namespace.
    pub fn open(ns: &Netns, interface: &str) -> Self {
        let there = NetNs::open(ns.name()).expect("our own namespace");
        let opened = in_netns(&there, || -> io::Result<OwnedFd> {
            let index = if_nametoindex(interface)?;
            // Protocol 0: it only sends, and no frame is queued to it.
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                None,
            )?;
            bind(&socket, index)?;
            Ok(socket)
        });
        let socket = opened.expect("our own namespace").unwrap_or_else(|e| {
            panic!("a packet socket on {interface} in {}: {e}", ns.name());
        });
        Self { socket }
    }

    /// Sends one frame. An error is the device's: it is down, or its queue is full.
    pub fn try_send(&self, frame: &[u8]) -> io::Result<()> {
        let sent = send(self.socket.as_raw_fd(), frame, MsgFlags::empty())?;
        assert_eq!(sent, frame.len(), "a packet socket sends all or nothing");
        Ok(())
    }

    /// Sends frames, in order. Panics when one is refused.
    pub fn send(&self, frames: &[Vec<u8>]) {
        for frame in frames {
            self.try_send(frame)
                .unwrap_or_else(|e| panic!("{} bytes: {e}", frame.len()));
        }
    }
}

/// A thread that sends the same frames over and over. Dropped, it ends.
pub struct Load {
    ending: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts to send as fast as the interface takes it.
    pub fn start(sender: Sender, frames: Vec<Vec<u8>>) -> Self {
        // A card whose line holds frames back, because nobody is at its end, keeps none of its senders for ever.
        let patience = TimeVal::milliseconds(200);
        setsockopt(&sender.socket, SendTimeout, &patience).expect("a timeout");
        let (ending, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let thread = thread::spawn({
            let (ending, sent) = (Arc::clone(&ending), Arc::clone(&sent));
            move || {
                for frame in frames.iter().cycle() {
                    if ending.load(Ordering::Relaxed) {
                        return;
                    }
                    // A link that is down for a while refuses; the load goes on.
                    match sender.try_send(frame) {
                        Ok(()) => {
                            sent.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => thread::yield_now(),
                    }
                }
            }
        });
        Self {
            ending,
            sent,
            thread: Some(thread),
        }
    }

    /// How many frames the kernel has taken.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it; answers how many frames the kernel took.
    pub fn stop(mut self) -> u64 {
        self.end();
        self.sent()
    }

    fn end(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

fn bind(socket: &OwnedFd, index: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: `address` is a whole sockaddr_ll that outlives the call, and its size goes with it.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    if bound == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
