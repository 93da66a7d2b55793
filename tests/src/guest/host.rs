//! What a test may ask of the machine around the guest (tests/vm/src/broker.rs): to take a card out, to put it in, and
//! to pull its cable.

use std::{
    env,
    fs::OpenOptions,
    io::{BufRead, BufReader, Write},
    os::fd::AsFd,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Card;

/// Names the serial port on which it answers.
pub(super) const PORT: &str = "DATAPLANE_VM_CONTROL";

fn ask(request: &str) {
    let port = env::var_os(PORT).expect("the guest of scripts/vm");
    let mut port = OpenOptions::new()
        .read(true)
        .write(true)
        .open(port)
        .expect("a serial port");
    writeln!(port, "{request}").expect("somebody listens");
    let mut answer = String::new();
    // Whoever is asked has half a minute for a card; one who does not answer is not waited for.
    let patience = PollTimeout::from(60_000_u16);
    let mut waiting = [PollFd::new(port.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut waiting, patience).expect("a serial port");
    assert_eq!(ready, 1, "{request}: no answer");
    BufReader::new(port)
        .read_line(&mut answer)
        .expect("an answer");
    assert_eq!(answer.trim(), "done", "{request}");
}

/// Takes a card out of the machine; answers when the guest has let go of it.
pub fn unplug(card: Card) {
    ask(&format!("unplug {}", card.name));
}

/// Puts a card into the machine.
pub fn plug(card: Card) {
    ask(&format!("plug {}", card.name));
}

/// Pulls a card's cable, or puts it back.
pub fn cable(card: Card, is_in: bool) {
    ask(&format!(
        "cable {} {}",
        card.name,
        if is_in { "in" } else { "out" }
    ));
}
