//! A web server of one page, in a namespace, and curl.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use control::link::netns::{NetNs, in_netns};

use crate::Netns;

/// A server that answers every GET with the same page. Dropped, it ends.
pub struct Server {
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens in a namespace, on all its addresses.
    pub fn start(ns: &Netns, port: u16, page: Arc<Vec<u8>>) -> Self {
        let there = NetNs::open(ns.name()).expect("our own namespace");
        // A socket stays in the namespace where it was made, whatever thread uses it.
        let listener = in_netns(&there, || TcpListener::bind(("0.0.0.0", port)))
            .expect("our own namespace")
            .unwrap_or_else(|e| panic!("port {port} in {}: {e}", ns.name()));
        listener.set_nonblocking(true).expect("our own socket");
        let ending = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let ending = Arc::clone(&ending);
            move || {
                while !ending.load(Ordering::Relaxed) {
                    match listener.accept() {
                        // A client that hangs up is not our affair: it tells what it got.
                        Ok((stream, _)) => drop(answer(stream, &page)),
                        Err(_) => thread::sleep(Duration::from_millis(5)),
                    }
                }
            }
        });
        Self {
            ending,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, page: &[u8]) -> io::Result<()> {
    let limit = Some(Duration::from_secs(10));
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        page.len()
    )?;
    stream.write_all(page)
}

/// Gets a page with curl, in a namespace, into a file; `limit` is for all of it.
pub fn get(ns: &Netns, url: &str, into: &Path, limit: Duration) -> Output {
    ns.tool("curl")
        .args(["--silent", "--show-error", "--max-time"])
        .arg(limit.as_secs_f64().to_string())
        .arg("--output")
        .args([into.as_os_str(), url.as_ref()])
        .limit(limit + Duration::from_secs(5))
        .output()
}

/// A page of so many bytes, none of which compresses.
pub fn page(bytes: usize) -> Arc<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut page = Vec::with_capacity(bytes + 8);
    while page.len() < bytes {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        page.extend(state.to_le_bytes());
    }
    page.truncate(bytes);
    Arc::new(page)
}
