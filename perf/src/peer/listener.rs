//! Tools that listen on a TAP: packet sockets with a ring of blocks (TPACKET_V3), as tcpdump and Suricata
//! have them, whose readers look at each frame's header and do nothing with it. What one of them costs the
//! writer is the kernel's copy into its ring.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use control::link::{
    NetNs,
    netlink::{Netlink, NetlinkError},
    netns::on_core_in_netns,
};
use dataplane::port::af_packet::{Next, Sharing, SocketOptions, filter, open};

use crate::{error::BenchError, lab::Cores};

/// Of each listener: room for 200,000 short frames or 20,000 long ones, some 15 ms of either.
const RING: usize = 32 << 20;
/// How often an empty ring is looked at: the kernel hands over a block after a millisecond at the latest.
const NAP: Duration = Duration::from_micros(200);
/// How long a ring must have been empty at the end.
const QUIET: Duration = Duration::from_millis(20);

const PEER: &str = "listener";

/// How many listen, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Audience {
    /// How many.
    pub(crate) listeners: usize,
    /// On which core they read.
    pub(crate) core: usize,
}

impl Audience {
    /// On a core of its own where there is one, else on the generator's: that one pours in more than can be
    /// taken either way.
    pub(crate) fn of(listeners: usize, cores: Cores) -> Self {
        let core = core_affinity::get_core_ids()
            .unwrap_or_default()
            .iter()
            .map(|core| core.id)
            .find(|&id| id != cores.generator && id != cores.worker)
            .unwrap_or(cores.generator);
        Self { listeners, core }
    }

    /// Has them listen on the interface of that name in the calling thread's namespace.
    pub(crate) fn listen_on(self, interface: &str) -> Result<Listeners, BenchError> {
        let failed = |e: NetlinkError| BenchError::peer(PEER, e);
        let link = Netlink::open(&NetNs::own())
            .and_then(|mut netlink| netlink.link_by_name(interface))
            .map_err(failed)?
            .ok_or_else(|| BenchError::peer(PEER, format!("there is no {interface}")))?;
        self.listen(interface, link.ifindex)
    }

    /// Has them listen on an interface of the calling thread's namespace, from now on.
    pub(crate) fn listen(self, interface: &str, ifindex: u32) -> Result<Listeners, BenchError> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Listeners {
            threads: Vec::new(),
            stop: Arc::clone(&stop),
        };
        for _ in 0..self.listeners {
            let (interface, stop) = (interface.to_owned(), Arc::clone(&stop));
            let (ready, opened) = mpsc::sync_channel(1);
            let thread = thread::Builder::new()
                .name(PEER.into())
                .spawn(move || {
                    on_core_in_netns(self.core, &NetNs::own(), || {
                        read(&interface, ifindex, &stop, &ready)
                    })?
                })
                .map_err(|e| BenchError::peer(PEER, e))?;
            threads.threads.push(thread);
            // An error comes with the thread's end.
            let _ = opened.recv();
        }
        Ok(threads)
    }
}

/// What listeners heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Frames for all of them, those lost included.
    pub(crate) frames: u64,
    /// Frames that found no room in their rings.
    pub(crate) lost: u64,
}

impl Heard {
    /// The share that was lost, in percent; none when there was nothing.
    pub(crate) fn lost_percent(&self) -> Option<f64> {
        (self.frames > 0).then(|| self.lost as f64 / self.frames as f64 * 100.0)
    }
}

/// Listeners at work. Dropped, they end.
pub(crate) struct Listeners {
    threads: Vec<JoinHandle<Result<Heard, BenchError>>>,
    stop: Arc<AtomicBool>,
}

impl Listeners {
    /// Ends them, once they have read what there was.
    pub(crate) fn finish(mut self) -> Result<Heard, BenchError> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Heard::default();
        for thread in self.threads.drain(..) {
            let heard = match thread.join() {
                Ok(heard) => heard?,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            all.frames += heard.frames;
            all.lost += heard.lost;
        }
        Ok(all)
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn read(
    interface: &str,
    ifindex: u32,
    stop: &AtomicBool,
    ready: &mpsc::SyncSender<()>,
) -> Result<Heard, BenchError> {
    let options = SocketOptions {
        interface,
        ifindex: Some(ifindex),
        ring: RING,
        incoming_only: false,
        promiscuous: false,
        sharing: Sharing::Alone,
        filter: &filter::ethernet(&[], u32::MAX),
    };
    let (socket, mut ring) = open(&options).map_err(|e| BenchError::peer(PEER, e))?;
    let _ = ready.send(());
    let mut quiet = Duration::ZERO;
    while quiet < QUIET {
        let mut any = false;
        while let Next::Frame(frame) = ring.read() {
            black_box(frame.bytes.first());
            any = true;
        }
        thread::sleep(NAP);
        if any || !stop.load(Ordering::Relaxed) {
            quiet = Duration::ZERO;
        } else {
            quiet += NAP;
        }
    }
    let statistics = socket.statistics();
    Ok(Heard {
        frames: statistics.frames,
        lost: statistics.dropped,
    })
}
