//! One connection of the control socket, in its thread: lines in, lines out, within bounds of time and
//! memory. What a line asks for is [`answer`]'s business.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    protocol::{MAX_LINE, Refusal, Reply},
    server::{Shared, answer, encode},
};

/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_secs(60);
/// How long one line may take from its first byte to its last, in either direction.
const LINE: Duration = Duration::from_secs(30);
/// What all connections together may hold of unfinished requests, in bytes.
const BUDGET: usize = 4 * MAX_LINE;
/// What a connection may hold without asking the budget.
const SMALL: usize = 64 << 10;

/// One connection, in its thread. Its place is free again when it is dropped.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: Arc<UnixStream>,
    pub(super) number: u64,
    /// What it holds of the budget.
    pub(super) charged: usize,
}

impl Connection {
    /// Answers line by line until the caller goes, is too slow or sends too much.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let line = match self.read_line(&mut buffer) {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::FileTooLarge => {
                    let refusal = Reply::<()>::Error(Refusal::new(&e));
                    return self.write_line(&encode(&refusal));
                }
                Err(e) => return Err(e),
            };
            self.waiting(None);
            let reply = answer(&*self.shared.service, &buffer[..line]);
            self.waiting(Some(Instant::now()));
            self.write_line(&reply)?;
            buffer.drain(..=line);
            if buffer.capacity() > SMALL && buffer.len() <= SMALL {
                buffer.shrink_to(SMALL);
                self.charge(0)?;
            }
        }
    }

    /// Reads until `buffer` holds a line; answers with its length without the newline, or `None` when
    /// the caller ended. What follows the line stays in the buffer.
    fn read_line(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let mut chunk = vec![0; SMALL];
        let mut searched = 0;
        let mut deadline = Instant::now() + if buffer.is_empty() { IDLE } else { LINE };
        loop {
            if let Some(at) = buffer[searched..].iter().position(|&b| b == b'\n') {
                return Ok(Some(searched + at));
            }
            if buffer.len() >= MAX_LINE {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("the request is longer than {MAX_LINE} bytes; send fewer rules"),
                ));
            }
            searched = buffer.len();
            self.stream.set_read_timeout(Some(left(deadline)?))?;
            let room = chunk.len().min(MAX_LINE - buffer.len());
            let n = match (&*self.stream).read(&mut chunk[..room]) {
                Ok(0) => return Ok(None),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if buffer.is_empty() {
                deadline = Instant::now() + LINE;
            }
            self.charge(buffer.len() + n)?;
            buffer.extend_from_slice(&chunk[..n]);
        }
    }

    fn write_line(&self, mut line: &[u8]) -> io::Result<()> {
        let deadline = Instant::now() + LINE;
        while !line.is_empty() {
            self.stream.set_write_timeout(Some(left(deadline)?))?;
            match (&*self.stream).write(line) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => line = &line[n..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Says since when this connection waits for its caller.
    fn waiting(&self, since: Option<Instant>) {
        if let Some(live) = self.shared.lock().live.get_mut(&self.number) {
            live.waiting = since;
        }
    }

    /// Takes from the budget what a buffer of `bytes` needs beyond a small one, or gives it back.
    fn charge(&mut self, bytes: usize) -> io::Result<()> {
        // A growing vector doubles.
        let need = if bytes <= SMALL {
            0
        } else {
            bytes.next_power_of_two()
        };
        let held = &self.shared.held;
        if need > self.charged {
            let more = need - self.charged;
            if held.fetch_add(more, Ordering::Relaxed) + more > BUDGET {
                held.fetch_sub(more, Ordering::Relaxed);
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    "too many large requests at once; try again in a moment",
                ));
            }
        } else {
            held.fetch_sub(self.charged - need, Ordering::Relaxed);
        }
        self.charged = need;
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.held.fetch_sub(self.charged, Ordering::Relaxed);
        self.shared.lock().live.remove(&self.number);
        // The stream's last owner closes it; shut down, the caller sees the end now.
        let _ = self.stream.shutdown(Shutdown::Both);
        self.shared.ended.notify_all();
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}
