//! Capture file -> TAP -> tcpdump by an ordinary user, in a user namespace of his own.

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
    const NEEDS: &[Need] = &[
        Need::Root,
        Need::Tool("tcpdump"),
        Need::Tool("setpriv"),
        Need::UserNamespaces,
    ];
    theme.test(
        "a_capture_reaches_tcpdump",
        NEEDS,
        a_capture_reaches_tcpdump,
    );
    theme.run()
}

/// As root in a mount namespace of its own: /dev/net/tun as udev makes it, for everyone; a container may
/// have it for root alone.
const OUTER: &str = r#"
set -e
mknod tun c 10 200
chmod 666 tun
mount --bind tun /dev/net/tun
exec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs unshare -Urn sh inner
"#;

/// As the ordinary user, root of a user and network namespace.
const INNER: &str = r#"
./dataplane --config dp.toml --summary summary.json &
daemon=$!
tries=0
until ip link show dev lc0 >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || exit 97
    kill -0 $daemon || { wait $daemon; exit $?; }
    sleep 0.05
done
tcpdump -i lc0 -Z root -n -U --immediate-mode -s 9216 -B 32768 -w heard.pcap &
listening=$!
wait $daemon
code=$?
wait $listening
exit $code
"#;

fn a_capture_reaches_tcpdump() {
    let folder = daemon::folder();
    let at = |name: &str| folder.path().join(name);
    let sent = frames::mixed(500, 1514);
    capture::write(&at("sample.pcap"), &sent);
    write(&at("outer"), OUTER);
    write(&at("inner"), INNER);
    let config = format!(
        "{}\n[ports.sample]\nkind = 'pcap'\npath = 'sample.pcap'\npace = 'top'\n\
         [ports.lc0]\nkind = 'tap'\nwait_for_consumer = '20s'\n\
         [[pipelines]]\nfrom = ['sample']\nto = ['lc0']\n",
        daemon::preamble(&at("control.sock"))
    );
    write(&at("dp.toml"), &config);
    // The folder of the build may be closed to others.
    fs::copy(daemon::binary("dataplane"), at("dataplane")).expect("our own folder");
    fs::set_permissions(at("dataplane"), fs::Permissions::from_mode(0o755)).expect("our own file");
    chown(folder.path(), Some(65534), Some(65534)).expect("root");

    let output = Tool::new("unshare")
        .args(["--mount", "sh", "-c"])
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
