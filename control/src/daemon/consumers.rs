//! Those who listen on a device of ours: sources wait for them at the start, the device waits for them
//! at the end.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use nix::sys::eventfd::EventFd;

use super::Daemon;
use crate::link::listeners::{self, Waited};

/// How long a device's set of listeners must stay the same before it counts as complete: Suricata
/// opens one socket a thread, one after the other, and discards what comes before the last.
const SETTLE: Duration = Duration::from_millis(200);

/// How waiting on one device ended: a line for the log, or a warning.
pub(super) type Waiting = Result<String, String>;

impl Daemon {
    /// Takes the sources off hold once every device that waits for a listener has one, or has waited
    /// long enough. `ready` is closed then.
    pub(super) fn wait_for_consumers(&self, ready: &mpsc::Sender<Waiting>, wake: &Arc<EventFd>) {
        for live in self.shared.ports().iter() {
            let Some(listened) = live.device.listened() else {
                continue;
            };
            let Some(limit) = listened.wait else { continue };
            self.say(&format!(
                "{}: sources wait up to {limit:?} for something to listen on {}",
                live.name, listened.name
            ));
            let (sockets, name, ifindex) = (
                Arc::clone(listened.sockets),
                listened.name.to_owned(),
                listened.ifindex,
            );
            let (ready, wake, ending) = (ready.clone(), Arc::clone(wake), Arc::clone(&self.ending));
            thread::spawn(move || {
                let waited =
                    listeners::wait_for_listener(&sockets, ifindex, limit, SETTLE, &ending);
                let end = match waited {
                    Ok(Waited::Listening(sockets)) if sockets.len() == 1 => {
                        Ok(format!("{name}: a packet socket listens"))
                    }
                    Ok(Waited::Listening(sockets)) => {
                        Ok(format!("{name}: {} packet sockets listen", sockets.len()))
                    }
                    Ok(Waited::TimedOut(sockets)) if sockets.is_empty() => Err(format!(
                        "{name}: nothing listened within {limit:?}; going on, what is sent now nobody sees"
                    )),
                    Ok(Waited::TimedOut(_)) => {
                        Ok(format!("{name}: listeners still come; going on"))
                    }
                    Ok(Waited::Stopped) => return,
                    Err(e) => Err(format!("{name}: cannot see who listens: {e}; going on")),
                };
                let _ = ready.send(end);
                drop(ready);
                let _ = wake.write(1);
            });
        }
    }

    /// Whether somebody listens on a device of ours.
    pub(super) fn listened(&self) -> bool {
        self.shared.ports().iter().any(|live| {
            live.device.listened().is_some_and(|device| {
                let sockets = device.sockets.on(device.ifindex);
                sockets.is_ok_and(|sockets| !sockets.is_empty())
            })
        })
    }
}
