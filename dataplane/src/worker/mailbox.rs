//! What travels between a worker and the control plane: commands in, messages out, both over bounded
//! queues that nobody waits for.

use std::{os::fd::AsFd, sync::Arc};

use crossbeam_queue::ArrayQueue;
use nix::sys::eventfd::EventFd;

use super::{report::Report, wake::Waker};
use crate::{
    frame::Region,
    policy::Reason,
    port::{Port, PortFailure, PortIndex},
};

/// To a worker.
pub(crate) enum Command {
    /// Begin to receive.
    Go,
    /// End a port; it comes back as [`Message::Retired`].
    Close {
        /// Which.
        port: PortIndex,
        /// What its frames on the way are counted as.
        reason: Reason,
    },
    /// Put a port where one was closed.
    Open {
        /// Where.
        index: PortIndex,
        /// The port.
        port: Box<dyn Port>,
    },
    /// Fill this report at the end of a batch and send it back.
    Report(Box<Report>),
    /// Write or count everything, and end.
    Stop,
}

/// From a worker.
pub(crate) enum Message {
    /// The report that was asked for.
    Report(Box<Report>),
    /// A port that was closed, to be dropped where it delays no frame.
    Retired(Box<dyn Port>),
    /// Memory that nothing uses any more, to be unmapped where it delays no frame.
    Region(Region),
    /// A port could not be opened, or can do no more.
    Failed {
        /// Which.
        port: PortIndex,
        /// Why.
        failure: PortFailure,
    },
    /// All sources have ended and everything they brought is written or counted.
    Finished,
}

/// The two queues of one worker, in cache lines of their own.
#[repr(align(128))]
pub(crate) struct Mailbox {
    commands: ArrayQueue<Command>,
    messages: ArrayQueue<Message>,
    waker: Arc<Waker>,
    /// Readable when a message is there; shared by all workers of an engine.
    notice: Arc<EventFd>,
}

impl Mailbox {
    /// Empty queues. `notice` is written after each message.
    pub(crate) fn new(waker: Arc<Waker>, notice: Arc<EventFd>) -> Self {
        Self {
            commands: ArrayQueue::new(64),
            messages: ArrayQueue::new(256),
            waker,
            notice,
        }
    }

    /// Control's: sends a command. It comes back when the queue is full.
    pub(crate) fn send(&self, command: Command) -> Result<(), Command> {
        self.commands.push(command)?;
        self.waker.wake();
        Ok(())
    }

    /// Control's: what wakes the worker.
    pub(crate) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Control's: the oldest message.
    pub(crate) fn receive(&self) -> Option<Message> {
        self.messages.pop()
    }

    /// The worker's: the oldest command.
    #[inline]
    pub(super) fn command(&self) -> Option<Command> {
        self.commands.pop()
    }

    /// The worker's: whether a command waits.
    #[inline]
    pub(super) fn has_command(&self) -> bool {
        !self.commands.is_empty()
    }

    /// The worker's: sends a message. A control plane that leaves 256 unread is gone; what it does
    /// not take is dropped here.
    pub(super) fn tell(&self, message: Message) {
        let _ = self.messages.push(message);
        let _ = nix::unistd::write(self.notice.as_fd(), &1u64.to_ne_bytes());
    }
}
