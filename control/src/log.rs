//! The daemon's log: lines on standard error, written by a thread of their own, so that a reader who
//! does not read, or is gone, holds up neither the control plane nor its end.

use std::{
    io::Write,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use crate::privilege;

/// Lines that may wait for the reader. Beyond that they are lost, and counted.
const WAITING: usize = 1024;

enum Entry {
    Text(String),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

struct Log {
    entries: SyncSender<Entry>,
    lost: AtomicU64,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Starts the thread that writes. Before that, lines are written where they are logged. Refused, it
/// stays so.
pub fn start() {
    let (entries, waiting) = sync_channel(WAITING);
    let writer = thread::Builder::new().name("log".into());
    if writer.spawn(move || write_all(&waiting)).is_ok() {
        let log = Log {
            entries,
            lost: AtomicU64::new(0),
        };
        // A second start finds the first one's, and its own thread ends with its channel.
        let _ = LOG.set(log);
    }
}

fn write_all(waiting: &Receiver<Entry>) {
    // Writing to an open descriptor takes no privilege; refused, there was none to give up.
    let _ = privilege::lock_down(&[]);
    while let Ok(entry) = waiting.recv() {
        match entry {
            Entry::Text(text) => write(&text),
            Entry::Flush(done) => drop(done.send(())),
        }
        let lost = LOG
            .get()
            .map_or(0, |log| log.lost.swap(0, Ordering::Relaxed));
        if lost > 0 {
            write(&format!(
                "dataplane: {lost} lines of this log are lost: standard error was not read in time\n"
            ));
        }
    }
}

/// A log that cannot be written is no reason to end: its reader may have gone, or its disk be full.
fn write(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Logs one line.
pub fn line(text: &str) {
    self::text(format!("dataplane: {text}\n"));
}

/// Logs text as it is: a table, a plan.
pub fn text(text: String) {
    match LOG.get() {
        None => write(&text),
        Some(log) => {
            if let Err(TrySendError::Full(_)) = log.entries.try_send(Entry::Text(text)) {
                log.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Waits until all is written, but not longer than `limit`: at the end of the process.
pub fn flush(limit: Duration) {
    let Some(log) = LOG.get() else { return };
    let (done, written) = sync_channel(1);
    if log.entries.try_send(Entry::Flush(done)).is_ok() {
        let _ = written.recv_timeout(limit);
    }
}
