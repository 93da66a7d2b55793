//! `dpbench vxlan`: a capture file to a VXLAN tunnel, over a veth to another namespace, beside a plain loop of
//! send(2) and one with UDP_SEGMENT.
//!
//! The kernel runs the receiving end within the sender's call. So there are two of them: a wire that counts what
//! arrives and drops it, which leaves the sender's own cost; and the kernel's vxlan device, which unpacks it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use control::{kernel::passive::PassiveIngress, link::NetNs};

use crate::{
    arrivals::Arrivals,
    capture::Capture,
    error::BenchError,
    far::Far,
    generator::frame,
    interface::Counters,
    lab::{self, SOURCE, UPLINK},
    measure::Measured,
    peer::udp::{self, Calls},
    product::Product,
    replay::seconds,
    report::{CPU, LOSS, RATE, Report},
    session::{Benchmark, Session},
    watch::{READER, READER_THREAD, Seen, watch},
};

/// Capture file -> VXLAN over UDP, beside a loop of send(2), and what UDP_SEGMENT gains
#[derive(Clone, Debug, clap::Args)]
pub struct Vxlan {
    /// Inner frame sizes, in bytes without the check sequence
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "64,1400", value_parser = size)]
    sizes: Vec<usize>,
    /// How long each is looked at, in seconds
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Frames in the capture file, which is played again and again
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    frames: u64,
}

fn size(text: &str) -> Result<usize, String> {
    frame::size(text, 60..=1450)
}

const PLAIN: &str = "send loop";
const TRAIN: &str = "UDP_SEGMENT loop";
const SOFTWARE: &str = "UDP_SEGMENT loop, cut in software";
const PRODUCT: &str = "dataplane";

const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const FAR_MAC: &str = "02:00:00:00:00:02";
const VNI: u32 = 42;
/// Of VXLAN (RFC 7348).
const PORT: u16 = 4789;
/// The kernel's device at the far end.
const DEVICE: &str = "vx0";

/// What the datagrams meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Wire,
    Device,
}

/// The far end, and what it has seen.
struct Receiver {
    far: Far,
    arrivals: Option<Arrivals>,
    _silent: PassiveIngress,
}

impl Receiver {
    /// Takes [`UPLINK`] away.
    fn make(end: End) -> Result<Self, BenchError> {
        let far = Far::beyond(UPLINK)?;
        let steps = [
            format!("link set {UPLINK} address {FAR_MAC} mtu 1600 arp on up"),
            format!("address add {FAR}/24 dev {UPLINK}"),
            format!("link add {DEVICE} type vxlan id {VNI} dstport {PORT} local {FAR} nolearning"),
            format!("link set {DEVICE} mtu 1550 arp off up"),
        ];
        for step in &steps {
            far.ip(step)?;
        }
        let (silent, arrivals) = far.there(move || {
            let drop_at = match end {
                End::Wire => UPLINK,
                End::Device => DEVICE,
            };
            let silent = PassiveIngress::attach(&NetNs::own(), drop_at)
                .map_err(|e| BenchError::peer("far end", e))?;
            let arrivals = match end {
                End::Wire => Some(Arrivals::count(UPLINK)?),
                End::Device => None,
            };
            Ok::<_, BenchError>((silent, arrivals))
        })??;
        Ok(Self {
            far,
            arrivals,
            _silent: silent,
        })
    }

    /// Frames that have arrived.
    fn frames(&self) -> Result<u64, BenchError> {
        match &self.arrivals {
            Some(arrivals) => Ok(arrivals.frames()),
            None => Ok(Counters::find(&self.far.counters()?, DEVICE)?.received),
        }
    }
}

impl Benchmark for Vxlan {
    fn run(&self, session: &mut Session<'_>) -> Result<Report, BenchError> {
        lab::enter()?;
        let mut report = Report::begin(
            "vxlan",
            "capture file -> VXLAN over UDP",
            "The send loop hands one hot datagram after the other to a connected socket; the UDP_SEGMENT loop hands \
             over up to 64 of one size with each call, which stay together (as a card that can cut them up lets \
             them) or are cut in software; dataplane is the shipped binary with an ordinary configuration. What \
             arrives in another namespace is counted there: on the wire, where it ends, or behind the kernel's \
             vxlan device, which unpacks it within the sender's call.",
            session,
        );
        for &size in &self.sizes {
            let frame = frame::udp(size);
            let capture = Capture::write(std::slice::from_ref(&frame), self.frames)?;
            for (end, what) in [(End::Wire, "wire"), (End::Device, "vxlan device")] {
                let case = format!("{size} bytes, to a {what}");
                let receiver = self.meet(end)?;
                for round in 1..=session.rounds {
                    let step = format!("vxlan, {case}, round {round} of {}", session.rounds);
                    for (subject, calls) in [
                        (PLAIN, Calls::Each),
                        (TRAIN, Calls::Train),
                        (SOFTWARE, Calls::Train),
                    ] {
                        session.step(&format!("{step}: {subject}"))?;
                        let cut = if subject == SOFTWARE { "off" } else { "on" };
                        lab::ethtool(&["-K", SOURCE, "tx-udp-segmentation", cut])?;
                        let (measured, lost) = self.bare(&frame, calls, &receiver, session)?;
                        report.measured(&case, subject, &measured, size);
                        report.record(&case, subject, &LOSS, lost);
                    }
                    lab::ethtool(&["-K", SOURCE, "tx-udp-segmentation", "on"])?;
                    session.step(&format!("{step}: {PRODUCT}"))?;
                    self.product(&case, &capture, &receiver, session, &mut report)?;
                }
                drop(receiver);
            }
        }
        report.compare(PRODUCT, PLAIN, &CPU);
        report.compare(TRAIN, PLAIN, &RATE);
        report.compare(SOFTWARE, PLAIN, &RATE);
        report.end();
        Ok(report)
    }
}

impl Vxlan {
    fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// A new pair of interfaces, and the far end of it.
    fn meet(&self, end: End) -> Result<Receiver, BenchError> {
        lab::renew()?;
        let receiver = Receiver::make(end)?;
        let mtu = format!("link set {SOURCE} mtu 1600 arp on up");
        let address = format!("address add {NEAR}/24 dev {SOURCE}");
        let neighbour =
            format!("neighbour replace {FAR} lladdr {FAR_MAC} dev {SOURCE} nud permanent");
        for step in [mtu, address, neighbour] {
            lab::ip(&step.split(' ').collect::<Vec<_>>())?;
        }
        Ok(receiver)
    }

    /// A loop of our own. Answers with what arrived, and the share that did not, in percent.
    fn bare(
        &self,
        frame: &[u8],
        calls: Calls,
        receiver: &Receiver,
        session: &Session<'_>,
    ) -> Result<(Measured, f64), BenchError> {
        let datagram = [&header(VNI)[..], frame].concat();
        let before = receiver.frames()?;
        let sent = udp::measure(
            session.cores,
            SocketAddr::from((FAR, PORT)),
            &datagram,
            calls,
            self.length(),
            &session.interrupt,
        )?;
        let arrived = receiver.frames()? - before;
        let lost = 100.0 * (1.0 - arrived as f64 / sent.frames as f64);
        let measured = Measured {
            frames: arrived,
            ..sent
        };
        Ok((measured, lost))
    }

    fn product(
        &self,
        case: &str,
        capture: &Capture,
        receiver: &Receiver,
        session: &Session<'_>,
        report: &mut Report,
    ) -> Result<(), BenchError> {
        let product = Product::start(&dp_toml(session, capture), &session.interrupt)?;
        let core = session.cores.worker;
        let (measured, reader) = watch(session, self.length(), || {
            Ok(Seen {
                frames: receiver.frames()?,
                cpu: product.worker_time(core)?,
                helper: product.thread_time(READER_THREAD)?,
            })
        })?;
        product.stop()?;
        report.measured(case, PRODUCT, &measured, capture.mean());
        let reader = reader.as_nanos() as f64 / measured.frames as f64;
        report.record(case, PRODUCT, &READER, reader);
        Ok(())
    }
}

/// The VXLAN header (RFC 7348, section 5): a flag that the network's number is there, and that number.
fn header(vni: u32) -> [u8; 8] {
    (8 << 56 | u64::from(vni) << 8).to_be_bytes()
}

fn dp_toml(session: &Session<'_>, capture: &Capture) -> String {
    format!(
        r#"[engine]
cores = "{worker}"
hugepages = "{hugepages}"

[ports.sample]
kind = "pcap"
path = {path:?}
pace = "top"
loops = 0

[ports.far]
kind = "vxlan"
vni = {VNI}
remote = "{FAR}"
local = "{NEAR}"
port = {PORT}

[[pipelines]]
from = ["sample"]
to = ["far"]
"#,
        worker = session.cores.worker,
        hugepages = session.hugepages,
        path = capture.path(),
    )
}
