//! Capture file -> TAP -> a tool, by an ordinary user in a user namespace of his own: as its root, and
//! under his own number with its capabilities (tcpdump, as root, wants to become another user, of which
//! there is none).

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use control::stats::Stats;
use tests::{Need, Theme, Tool, capture, daemon, frames};

fn main() -> ExitCode {
    let mut theme = Theme::new();
    // Root makes the ordinary user and his /dev/net/tun; he himself has no privilege.
    const NEEDS_DUMPCAP: &[Need] = &[Need::Root, Need::Tool("dumpcap"), Need::UserNamespaces];
    const NEEDS_TCPDUMP: &[Need] = &[Need::Root, Need::Tool("tcpdump"), Need::UserNamespaces];
    theme.test("as_its_root_to_dumpcap", NEEDS_DUMPCAP, || {
        a_capture_reaches("unshare -Urn", "dumpcap -q -i lc0 -P -B 32 -w heard.pcap");
    });
    theme.test("as_himself_to_tcpdump", NEEDS_TCPDUMP, || {
        a_capture_reaches(
            "unshare --user --net --map-current-user --keep-caps",
            "tcpdump -i lc0 -n -U --immediate-mode -s 9216 -B 32768 -w heard.pcap",
        );
    });
    theme.run()
}

/// As root in a mount namespace of its own: /dev/net/tun as udev makes it, for everyone; a container may
/// have it for root alone.
const OUTER: &str = r#"
set -e
mknod tun c 10 200
chmod 666 tun
mount --bind tun /dev/net/tun
exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs $UNSHARE sh ./inner
"#;

/// As the ordinary user, in a user and a network namespace.
const INNER: &str = r#"
./dataplane --config dp.toml --summary summary.json &
daemon=$!
tries=0
until ip link show dev lc0 up 2>/dev/null | grep -q lc0; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || exit 97
    kill -0 $daemon || { wait $daemon; exit $?; }
    sleep 0.05
done
timeout 30 $LISTEN -c $COUNT || echo "the listener: $?"
kill -TERM $daemon
wait $daemon
"#;

fn a_capture_reaches(unshare: &str, listen: &str) {
    let folder = daemon::folder();
    let at = |name: &str| folder.path().join(name);
    let sent = frames::mixed(500, 1514);
    capture::write(&at("sample.pcap"), &sent);
    write(&at("outer"), OUTER);
    write(&at("inner"), INNER);
    let config = format!(
        "{}\n[ports.sample]\nkind = 'pcap'\npath = 'sample.pcap'\npace = 'top'\n\
         [ports.lc0]\nkind = 'tap'\nwait_for_consumer = '20s'\n\
         [[pipelines]]\nfrom = ['sample']\nto = ['lc0']\n\
         # Its second frame is due after the test: until then lc0 stays, and what listens loses nothing.\n\
         [ports.slow]\nkind = 'pcap'\npath = 'sample.pcap'\npace = {{ pps = 0.001 }}\n\
         [ports.beside]\nkind = 'tap'\n\
         [[pipelines]]\nfrom = ['slow']\nto = ['beside']\n",
        daemon::preamble(&at("control.sock"))
    );
    write(&at("dp.toml"), &config);
    // The folder of the build may be closed to others.
    fs::copy(daemon::binary("dataplane"), at("dataplane")).expect("our own folder");
    fs::set_permissions(at("dataplane"), fs::Permissions::from_mode(0o755)).expect("our own file");
    chown(folder.path(), Some(65534), Some(65534)).expect("root");

    let output = Tool::new("unshare")
        .args(["--mount", "env"])
        .arg(format!("UNSHARE={unshare}"))
        .arg(format!("LISTEN={listen}"))
        .arg(format!("COUNT={}", sent.len()))
        .args(["sh", "-c"])
        .arg(format!("cd {} && . ./outer", folder.path().display()))
        .limit(Duration::from_secs(60))
        .output();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let heard = fs::read(at("heard.pcap")).unwrap_or_else(|e| panic!("{e}\n{said}"));
    let (_, records) = capture::decode(&heard).unwrap_or_else(|(e, _)| panic!("{e}\n{said}"));
    let heard: Vec<_> = records.into_iter().map(|record| record.frame).collect();
    capture::assert_same(&heard, &sent);
    let summary = fs::read_to_string(at("summary.json")).expect("a summary");
    let stats: Stats = serde_json::from_str(&summary).expect("statistics");
    daemon::assert_explained(&stats);
    assert_eq!(daemon::port(&stats, "lc0").tx.frames, sent.len() as u64);
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("our own folder");
}
