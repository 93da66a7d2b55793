//! QEMU's monitor protocol: a request, and its answer among the events that come in between.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// A connection that has been greeted.
pub(crate) struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    events: Vec<Value>,
}

impl Qmp {
    /// Greets QEMU.
    pub(crate) fn new(stream: UnixStream) -> Result<Self, String> {
        let writer = stream.try_clone().map_err(|e| e.to_string())?;
        let mut qmp = Self {
            reader: BufReader::new(stream),
            writer,
            events: Vec::new(),
        };
        qmp.read(Duration::from_secs(10))?;
        qmp.call("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    fn read(&mut self, limit: Duration) -> Result<Value, String> {
        let limit = limit.max(Duration::from_millis(1));
        self.reader
            .get_ref()
            .set_read_timeout(Some(limit))
            .map_err(|e| e.to_string())?;
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Err("QEMU has ended".into()),
            Ok(_) => serde_json::from_str(&line).map_err(|e| format!("QEMU says {line:?}: {e}")),
            Err(e) => Err(format!("no answer of QEMU: {e}")),
        }
    }

    /// A command and its answer.
    pub(crate) fn call(&mut self, command: &str, arguments: &Value) -> Result<Value, String> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.writer, "{request}").map_err(|e| e.to_string())?;
        loop {
            let mut answer = self.read(Duration::from_secs(30))?;
            if answer.get("event").is_some() {
                self.events.push(answer);
            } else if let Some(error) = answer.get("error") {
                return Err(error["desc"].as_str().unwrap_or("refused").to_owned());
            } else {
                return Ok(answer["return"].take());
            }
        }
    }

    /// Waits for an event about a device.
    pub(crate) fn wait_for(
        &mut self,
        event: &str,
        device: &str,
        limit: Duration,
    ) -> Result<(), String> {
        let is_it = |said: &Value| said["event"] == event && said["data"]["device"] == device;
        let end = Instant::now() + limit;
        loop {
            if let Some(at) = self.events.iter().position(is_it) {
                self.events.remove(at);
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("no {event} of {device} within {limit:?}"));
            }
            let said = self.read(left)?;
            self.events.push(said);
        }
    }

    /// Forgets the events that came so far.
    pub(crate) fn forget(&mut self) {
        self.events.clear();
    }
}
