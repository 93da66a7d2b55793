//! Whether somebody wants us to end: Ctrl-C, the end of the terminal, kill(1). Whoever waits looks here.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicBool, Ordering},
};

use signal_hook::{
    consts::{SIGHUP, TERM_SIGNALS},
    flag,
};

static WANTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on these signals are remembered, and end nothing by themselves.
pub(crate) fn listen() -> std::io::Result<()> {
    for signal in TERM_SIGNALS.iter().chain([&SIGHUP]) {
        flag::register(*signal, Arc::clone(&WANTED))?;
    }
    Ok(())
}

/// Whether one has come.
pub(crate) fn wanted() -> bool {
    WANTED.load(Ordering::Relaxed)
}
