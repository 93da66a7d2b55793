//! The socket's file: its place, its owner, its mode, and who may take its place.

use std::os::unix::net::UnixDatagram;

use nix::unistd::{getgid, getpid};

use super::*;

#[test]
fn a_socket_has_mode_0660_and_goes_with_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/control.sock");
    let own_group = Group::from_gid(getgid()).unwrap().map(|group| group.name);
    let socket = ControlSocket::listen(&path, own_group.as_deref()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o660);
    assert_eq!(mode(path.parent().unwrap()), 0o755);
    assert_eq!(fs::metadata(&path).unwrap().gid(), getgid().as_raw());
    drop(socket);
    assert!(!path.exists());
    assert!(!path.parent().unwrap().exists());
    assert!(dir.path().exists());
}

#[test]
fn a_stale_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let _socket = ControlSocket::listen(&path, None).unwrap();
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_stale_socket_is_told_from_others_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    drop(UnixListener::bind(at("stale")).unwrap());
    let _live = ControlSocket::listen(&at("live"), None).unwrap();
    fs::write(at("file"), "").unwrap();
    for (name, stale, removed) in [
        ("stale", true, true),
        ("stale", false, true),
        ("live", false, false),
        ("file", false, false),
        ("none", false, true),
    ] {
        assert_eq!(is_stale(&at(name)), stale, "{name}");
        assert_eq!(remove_if_stale(&at(name)).is_ok(), removed, "{name}");
    }
    assert!(!at("stale").exists() && at("file").exists());
    UnixStream::connect(at("live")).unwrap();
}

#[test]
fn what_is_in_use_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let _live = ControlSocket::listen(&at("live"), None).unwrap();
    let _datagram = UnixDatagram::bind(at("datagram")).unwrap();
    fs::write(at("file"), "").unwrap();
    std::os::unix::fs::symlink(at("live"), at("link")).unwrap();
    let cases = [
        (
            at("live"),
            None,
            format!("another dataplane is running (pid {})", getpid()),
        ),
        (at("live"), None, "--socket PATH".to_owned()),
        (at("file"), None, "is no socket; remove it".to_owned()),
        (at("link"), None, "is no socket; remove it".to_owned()),
        (at("datagram"), None, "cannot replace".to_owned()),
        (
            at("file/control.sock"),
            None,
            "check its directory".to_owned(),
        ),
        (
            at("a/b/control.sock"),
            None,
            "cannot make the directory".to_owned(),
        ),
        (at(&"x".repeat(108)), None, "107 bytes".to_owned()),
        (
            at("new"),
            Some("no-such-group"),
            "socket_group: there is no group".to_owned(),
        ),
    ];
    for (path, group, expected) in cases {
        let message = ControlSocket::listen(&path, group).unwrap_err().to_string();
        assert!(message.contains(&expected), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
    assert!(!at("new").exists());
    UnixStream::connect(at("live")).unwrap();
    assert_eq!(fs::read(at("file")).unwrap(), b"");
}

#[test]
fn what_takes_the_place_of_a_new_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let _own = UnixListener::bind(at("own")).unwrap();
    let _shared = UnixListener::bind(at("shared")).unwrap();
    fs::hard_link(at("shared"), at("hard-link")).unwrap();
    fs::write(at("file"), "").unwrap();
    std::os::unix::fs::symlink(at("own"), at("link")).unwrap();
    std::os::unix::fs::symlink(at("file"), at("link-to-file")).unwrap();
    for (name, accepted) in [
        ("own", true),
        ("link", false),
        ("link-to-file", false),
        ("file", false),
        ("hard-link", false),
        ("none", false),
    ] {
        assert_eq!(made(&at(name)).is_ok(), accepted, "{name}");
    }
    let message = made(&at("link")).unwrap_err().to_string();
    assert!(message.contains("nobody else may write to"), "{message}");
}

#[test]
fn a_successor_keeps_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let first = ControlSocket::listen(&path, None).unwrap();
    fs::remove_file(&path).unwrap();
    let second = ControlSocket::listen(&path, None).unwrap();
    drop(first);
    UnixStream::connect(&path).unwrap();
    drop(second);
    assert!(!path.exists());
}

#[test]
fn of_many_that_start_at_once_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    drop(UnixListener::bind(&path).unwrap());
    let started: Vec<_> = thread::scope(|scope| {
        let all: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| ControlSocket::listen(&path, None)))
            .collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(started.iter().filter(|s| s.is_ok()).count(), 1);
    UnixStream::connect(&path).unwrap();
}

#[test]
fn the_default_is_the_systems_or_the_users_own() {
    let system = PathBuf::from(SYSTEM_SOCKET);
    assert_eq!(candidates().last(), Some(&system));
    match default_path() {
        Ok(path) if path == system => assert!(getuid().is_root()),
        Ok(path) => {
            assert!(path.ends_with("dataplane.sock"), "{}", path.display());
            assert_eq!(candidates(), [path, system]);
        }
        Err(e) => assert!(e.to_string().contains("--socket PATH"), "{e}"),
    }
}

#[test]
fn users_are_looked_up_in_their_map() {
    let cases = [
        ("         0          0 4294967295\n", 1000, Some(1000)),
        ("0 1000 1\n", 0, Some(1000)),
        ("0 1000 1\n1 100000 65536\n", 7, Some(100_006)),
        ("0 1000 1\n", 7, None),
        ("", 7, None),
        ("garbage\n5", 7, None),
        ("0 4294967295 9\n", 8, None),
    ];
    for (map, uid, outer) in cases {
        assert_eq!(map_uid(map, uid), outer, "{map:?} {uid}");
    }
}
