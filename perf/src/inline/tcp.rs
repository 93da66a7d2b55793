//! One TCP connection between two network namespaces, as fast as what is between them carries it.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use control::link::netns::{in_netns, on_core_in_netns};

use crate::{
    error::BenchError,
    generator::frame,
    lab::{Interrupt, Line},
};

/// How long a connection may take, or stand still.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes written and read at a time.
const PIECE: usize = 256 << 10;

/// What arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    bytes: u64,
    elapsed: Duration,
}

impl Transfer {
    /// Payload bits a second, in Gbit/s.
    pub(super) fn gbit(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.elapsed.as_secs_f64() / 1e9
    }
}

/// The client sends on core `from`, the server reads on core `to`, for `time`.
pub(super) fn transfer(
    line: &Line,
    (from, to): (usize, usize),
    time: Duration,
    interrupt: &Interrupt,
) -> Result<Transfer, BenchError> {
    let failed = |error: io::Error| {
        BenchError::peer(
            "TCP between the ends",
            format!("{error}; does what is between them let it pass?"),
        )
    };
    let at = SocketAddr::from((frame::TO, frame::TO_PORT));
    let listener = in_netns(&line.server, || TcpListener::bind(at))?.map_err(failed)?;
    let mut client =
        in_netns(&line.client, || TcpStream::connect_timeout(&at, PATIENCE))?.map_err(failed)?;
    let (mut server, _) = listener.accept().map_err(failed)?;
    client.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    server.set_read_timeout(Some(PATIENCE)).map_err(failed)?;

    let end = &AtomicBool::new(false);
    let transfer = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            on_core_in_netns(from, &line.client, move || -> io::Result<()> {
                let piece = vec![0x5a; PIECE];
                let began = Instant::now();
                while began.elapsed() < time && !interrupt.is_set() && !end.load(Ordering::Relaxed)
                {
                    client.write_all(&piece)?;
                }
                Ok(())
            })
        });
        let read = on_core_in_netns(to, &line.server, move || -> io::Result<Transfer> {
            let mut piece = vec![0; PIECE];
            let mut bytes = server.read(&mut piece)? as u64;
            let began = Instant::now();
            loop {
                match server.read(&mut piece)? {
                    0 => break,
                    n => bytes += n as u64,
                }
            }
            Ok(Transfer {
                bytes,
                elapsed: began.elapsed(),
            })
        });
        end.store(true, Ordering::Relaxed);
        let sent = sender
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        sent?.map_err(failed)?;
        read?.map_err(failed)
    })?;
    interrupt.check()?;
    Ok(transfer)
}
