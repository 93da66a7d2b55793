//! What each choice is worth: the bare loop with one thing left out, in the same run.

use super::{Audience, BARE, FLOOR, PRODUCT, Row};
use crate::{
    error::BenchError,
    memory,
    peer::{
        bare::{self, Options},
        raw_socket, tap_floor,
        writer::{BATCH, Way},
    },
    report::{CPU, Report},
    session::{HugePages, Session},
};

const NORMAL_PAGES: &str = "bare loop, normal pages";
const PRODUCT_NORMAL_PAGES: &str = "dataplane, normal pages";
const RAW_SOCKET: &str = "packet socket, write(2)";

const FLOOR_URING: &str = "TAP floor, io_uring";
const URING: &str = "bare loop, io_uring";

/// All that io_uring has for a write.
const ALL_OF_URING: Way = Way::Uring {
    batch: BATCH,
    buffer: true,
    file: true,
};

/// The bare loop as it is but for its way of writing, and beside which it is compared.
const WAYS: [(&str, Way, &str); 6] = [
    (
        "bare loop, write(2) that may block",
        Way::Write { nonblocking: false },
        BARE,
    ),
    (URING, ALL_OF_URING, BARE),
    (
        "bare loop, io_uring, a frame a call",
        Way::Uring {
            batch: 1,
            buffer: true,
            file: true,
        },
        URING,
    ),
    (
        "bare loop, io_uring, buffer not registered",
        Way::Uring {
            batch: BATCH,
            buffer: false,
            file: true,
        },
        URING,
    ),
    (
        "bare loop, io_uring, file not registered",
        Way::Uring {
            batch: BATCH,
            buffer: true,
            file: false,
        },
        URING,
    ),
    (
        "bare loop, io_uring, neither registered",
        Way::Uring {
            batch: BATCH,
            buffer: false,
            file: false,
        },
        URING,
    ),
];
const NO_PREFETCH: &str = "bare loop, no prefetch";

/// Measures all of them once.
pub(super) fn measure(
    row: &Row<'_>,
    session: &mut Session<'_>,
    report: &mut Report,
) -> Result<(), BenchError> {
    let best = Options::best(session.hugepages);
    let mut loops: Vec<(&str, Options)> = WAYS
        .iter()
        .map(|&(name, way, _)| (name, Options { way, ..best }))
        .collect();
    loops.push((
        NO_PREFETCH,
        Options {
            prefetch: false,
            ..best
        },
    ));
    let huge = session.hugepages != HugePages::Off && memory::huge_pages_free() > 0;
    if huge {
        let hugepages = HugePages::Off;
        loops.push((NORMAL_PAGES, Options { hugepages, ..best }));
    } else {
        report.note(
            "all of it is in normal pages: to see what huge ones are worth, --reserve-hugepages",
        );
    }
    let (case, cores) = (row.case(0), session.cores);
    let nobody = Audience::of(0, cores);
    session.step(&format!("{}: {FLOOR_URING}", row.round))?;
    let (floor, _) = tap_floor::measure(
        cores,
        &row.traffic.frame,
        &row.size.lengths(),
        row.forward.frames,
        ALL_OF_URING,
        nobody,
        &session.interrupt,
    )?;
    report.measured(&case, FLOOR_URING, &floor, row.size.bytes());
    let mut time = None;
    for (name, options) in loops {
        session.step(&format!("{}: {name}", row.round))?;
        let interrupt = &session.interrupt;
        let (measured, _) = bare::measure(
            cores,
            &row.traffic,
            row.forward.frames,
            options,
            nobody,
            interrupt,
        )?;
        report.measured(&case, name, &measured, row.size.bytes());
        time = Some(measured.elapsed);
    }
    if let Some(time) = time.filter(|_| huge) {
        session.step(&format!("{}: {PRODUCT_NORMAL_PAGES}", row.round))?;
        let (measured, _) = row.product(
            HugePages::Off,
            nobody,
            time,
            &case,
            PRODUCT_NORMAL_PAGES,
            session,
            report,
        )?;
        report.measured(&case, PRODUCT_NORMAL_PAGES, &measured, row.size.bytes());
    }
    session.step(&format!("{}: {RAW_SOCKET}", row.round))?;
    let measured =
        raw_socket::measure(cores, &row.traffic, row.forward.frames, &session.interrupt)?;
    report.measured(&case, RAW_SOCKET, &measured, row.size.bytes());
    Ok(())
}

/// Each beside what has all of it.
pub(super) fn compare(report: &mut Report) {
    report.compare(FLOOR_URING, FLOOR, &CPU);
    for (name, _, beside) in WAYS {
        report.compare(name, beside, &CPU);
    }
    for name in [NO_PREFETCH, NORMAL_PAGES, RAW_SOCKET] {
        report.compare(name, BARE, &CPU);
    }
    report.compare(PRODUCT_NORMAL_PAGES, PRODUCT, &CPU);
}
