//! Suricata alerts to the same on lc0 as when it reads the file itself.

use std::{fs, path::Path, process::ExitCode, time::Duration};

use tests::{
    Daemon, Need, Netns, Theme,
    capture::{self, ETHERNET},
    daemon, frames, needs,
    suricata::{Suricata, alerts_of_file},
};

/// Rules that look at single packets, at payloads, and at what a reassembled stream says.
const RULES: &str = r#"
alert tcp any any -> any any (msg:"opening SYN"; flags:S; sid:1; rev:1;)
alert udp any any -> any any (msg:"UDP with a payload"; dsize:>0; sid:2; rev:1;)
alert icmp any any -> any any (msg:"echo request"; itype:8; sid:3; rev:1;)
alert http any any -> any any (msg:"GET"; http.method; content:"GET"; sid:4; rev:1;)
alert http any any -> any any (msg:"POST"; http.method; content:"POST"; sid:5; rev:1;)
alert dns any any -> any any (msg:"a question"; dns.query; content:"."; sid:6; rev:1;)
alert tls any any -> any any (msg:"a server's name"; tls.sni; content:"."; sid:7; rev:1;)
alert udp any any -> any any (msg:"REGISTER"; content:"REGISTER"; sid:8; rev:1;)
"#;

const LIMIT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let mut theme = Theme::new();
    const NEEDS: &[Need] = &[Need::Root, Need::Suricata7];
    theme.test("generated", NEEDS, || {
        let folder = daemon::folder();
        let file = folder.path().join("sample.pcap");
        let syn = |port| {
            let client = (frames::CLIENT, 40_000 + port);
            frames::tcp(
                client,
                (frames::SERVER, port),
                dataplane::packet::tcp_flags::SYN,
            )
        };
        let mut all = frames::mixed(100, 1514);
        all.extend((1..=50).map(syn));
        capture::write(&file, &all);
        let alerts = same_alerts(&file, all.len());
        assert_eq!((alerts[&1], alerts[&2]), (50, 100));
    });
    real_captures(&mut theme);
    theme.run()
}

fn real_captures(theme: &mut Theme) {
    const NEEDS: &[Need] = &[Need::Root, Need::Suricata7, Need::Captures];
    for name in [
        "mixed-web-browsing-large",
        "mixed-home-lan",
        "dns-udp",
        "vlan-http",
        "sip-udp-register-invite-mixed",
    ] {
        theme.test(format!("capture_{name}"), NEEDS, move || {
            let file = needs::captures()
                .expect("asked before")
                .join(format!("{name}.pcap"));
            let bytes = fs::read(&file).expect("a readable capture");
            let (link_type, records) = capture::decode(&bytes).expect("an undamaged capture");
            assert_eq!(link_type, ETHERNET);
            let alerts = same_alerts(&file, records.len());
            assert!(!alerts.is_empty(), "nothing to compare");
        });
    }
}

/// Plays a file of `frames` frames to Suricata and compares. A second source, whose next frame is due
/// in a quarter of an hour, keeps lc0 there until Suricata has said all.
fn same_alerts(file: &Path, frames: usize) -> tests::suricata::Alerts {
    let want = alerts_of_file(RULES, file);
    let ns = Netns::new();
    let folder = daemon::folder();
    let slow = folder.path().join("slow.pcap");
    capture::write(&slow, &frames::mixed(2, 60));
    let daemon = Daemon::start(
        &ns,
        &format!(
            r#"
[ports.sample]
kind = "pcap"
path = "{}"
pace = {{ pps = 5000 }}
[ports.slow]
kind = "pcap"
path = "{}"
pace = {{ pps = 0.001 }}
[ports.beside]
kind = "tap"
[ports.lc0]
kind = "tap"
mtu = 9000
wait_for_consumer = "60s"
[[pipelines]]
from = ["sample"]
to = ["lc0"]
[[pipelines]]
from = ["slow"]
to = ["beside"]
"#,
            file.display(),
            slow.display(),
        ),
    );
    let suricata = Suricata::start(&ns, "lc0", RULES);
    daemon.stats_when(LIMIT, |stats| {
        daemon::port(stats, "lc0").tx.frames == frames as u64
    });
    let got = suricata.finish(&want, Duration::from_secs(10));
    daemon.stop().explained();
    assert_eq!(got, want, "alerts on lc0 and of the file");
    got
}
