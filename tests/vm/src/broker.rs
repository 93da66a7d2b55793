//! What a guest may ask of the machine around it: to take a network card out or put it in, and to pull a card's
//! cable. A line a request, a line the answer: `done`, or `failed: REASON`.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::json;

use crate::{lab::Card, qmp::Qmp};

/// How long a guest may take to let go of a card.
const LET_GO: Duration = Duration::from_secs(30);

/// A request.
#[derive(Debug, PartialEq, Eq)]
enum Request<'a> {
    Unplug(&'a str),
    Plug(&'a str),
    Cable(&'a str, bool),
}

impl<'a> Request<'a> {
    fn read(line: &'a str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["unplug", card] => Ok(Request::Unplug(card)),
            ["plug", card] => Ok(Request::Plug(card)),
            ["cable", card, "in"] => Ok(Request::Cable(card, true)),
            ["cable", card, "out"] => Ok(Request::Cable(card, false)),
            _ => Err(format!(
                "{line:?} is none of: unplug CARD, plug CARD, cable CARD in|out"
            )),
        }
    }
}

/// Serves the guest's requests in a thread of its own, as long as the guest is there.
pub(crate) fn serve(control: UnixStream, qmp: Arc<Mutex<Qmp>>, cards: Vec<Card>) -> JoinHandle<()> {
    thread::spawn(move || {
        let Ok(mut answers) = control.try_clone() else {
            return;
        };
        for line in BufReader::new(control).lines() {
            let Ok(line) = line else { return };
            let done = Request::read(&line).and_then(|request| {
                let mut qmp = qmp.lock().map_err(|_| "the monitor is gone".to_owned())?;
                carry_out(&request, &mut qmp, &cards)
            });
            let answer = match done {
                Ok(()) => "done".to_owned(),
                Err(why) => format!("failed: {why}"),
            };
            if writeln!(answers, "{answer}").is_err() {
                return;
            }
        }
    })
}

fn carry_out(request: &Request<'_>, qmp: &mut Qmp, cards: &[Card]) -> Result<(), String> {
    let card = |name: &str| {
        let found = cards.iter().find(|card| card.name == name);
        found.ok_or_else(|| format!("there is no card {name}"))
    };
    qmp.forget();
    match *request {
        Request::Unplug(name) => {
            card(name)?;
            qmp.call("device_del", &json!({ "id": name }))?;
            qmp.wait_for("DEVICE_DELETED", name, LET_GO)
        }
        Request::Plug(name) => qmp.call("device_add", &card(name)?.device()).map(drop),
        Request::Cable(name, up) => {
            card(name)?;
            qmp.call("set_link", &json!({ "name": name, "up": up }))
                .map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        assert_eq!(Request::read("unplug nic0"), Ok(Request::Unplug("nic0")));
        assert_eq!(Request::read("plug nic0"), Ok(Request::Plug("nic0")));
        assert_eq!(
            Request::read("cable nic0 out"),
            Ok(Request::Cable("nic0", false))
        );
        for wrong in [
            "",
            "unplug",
            "cable nic0",
            "cable nic0 up",
            "quit",
            "unplug a b",
        ] {
            assert!(Request::read(wrong).is_err(), "{wrong}");
        }
    }
}
