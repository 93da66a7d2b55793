//! A namespace beyond a wire: the other host of a benchmark. A thread of its own lives there; both end together.

use std::{
    fs,
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::gettid,
};

use crate::{
    error::BenchError,
    lab::{self, LabError},
};

type Work = Box<dyn FnOnce() + Send>;

/// The other host.
pub(crate) struct Far {
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
    id: i32,
}

impl Far {
    /// Makes a namespace and moves an interface of the calling thread's there.
    pub(crate) fn beyond(interface: &str) -> Result<Self, BenchError> {
        let (work, inbox) = channel::<Work>();
        let (answer, made) = channel();
        let thread = thread::spawn(move || {
            let result = unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| LabError::NetNs(errno.into()))
                .map(|()| {
                    lab::without_ipv6();
                    gettid().as_raw()
                });
            if answer.send(result).is_ok() {
                inbox.into_iter().for_each(|work| work());
            }
        });
        let id = made.recv().map_err(|e| BenchError::peer("far end", e))??;
        let far = Self {
            work: Some(work),
            thread: Some(thread),
            id,
        };
        lab::ip(&["link", "set", interface, "netns", &id.to_string()])?;
        Ok(far)
    }

    /// Does something there.
    pub(crate) fn there<R: Send + 'static>(
        &self,
        what: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, BenchError> {
        let (answer, done) = channel();
        let work: Work = Box::new(move || {
            let _ = answer.send(what());
        });
        self.work
            .as_ref()
            .and_then(|to| to.send(work).ok())
            .and_then(|()| done.recv().ok())
            .ok_or_else(|| BenchError::peer("far end", "its thread is gone"))
    }

    /// ip(8), there.
    pub(crate) fn ip(&self, arguments: &str) -> Result<(), BenchError> {
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        self.there(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            lab::ip(&arguments)
        })?
        .map_err(BenchError::from)
    }

    /// Its interfaces' counters, without waking its thread.
    pub(crate) fn counters(&self) -> Result<String, BenchError> {
        let file = format!("/proc/{}/net/dev", self.id);
        fs::read_to_string(&file).map_err(|e| BenchError::peer("far end", format!("{file}: {e}")))
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
