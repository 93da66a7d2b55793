//! Makes the device lc0 and writes each line of standard input to it, as a UDP datagram.
//!
//!     cargo build -p dataplane --example inject && sudo target/debug/examples/inject
//!     sudo tcpdump -n -X -i lc0        # in another terminal, before the first line
//!
//! At the end of the input (Ctrl-D) the device goes.

use std::{error::Error, io, process};

use dataplane::{
    lc::Lc,
    packet::build::{FrameBuilder, Ipv4},
};

fn inject() -> Result<(), Box<dyn Error>> {
    let mut lc = Lc::create("lc0")?;
    eprintln!("{} is there: listen on it, then type lines", lc.name());
    let ip = Ipv4::new("10.0.0.1".parse()?, "10.0.0.2".parse()?);
    for line in io::stdin().lines() {
        let line = line?;
        let datagram = FrameBuilder::new().ipv4(ip).udp(40_000, 9);
        lc.write(&datagram.payload(line.as_bytes()).to_vec()?)?;
        lc.flush()?;
    }
    eprintln!("{} frames written", lc.counters().frames);
    Ok(())
}

fn main() {
    if let Err(error) = inject() {
        eprintln!("inject: {error}");
        process::exit(1);
    }
}
