//! What each choice is worth: the bare loop with one thing left out, in the same run.

use super::{Audience, BARE, PRODUCT, Row};
use crate::{
    error::BenchError,
    memory,
    peer::{
        bare::{self, Options},
        raw_socket,
        writer::{BATCH, Way},
    },
    report::{CPU, Report},
    session::{HugePages, Session},
};

const NORMAL_PAGES: &str = "bare loop, normal pages";
const PRODUCT_NORMAL_PAGES: &str = "dataplane, normal pages";
const RAW_SOCKET: &str = "packet socket, write(2)";

/// The bare loop as it is but for its way of writing.
const WAYS: [(&str, Way); 6] = [
    (
        "bare loop, a frame each io_uring_enter",
        Way::Uring {
            batch: 1,
            buffer: true,
            file: true,
        },
    ),
    (
        "bare loop, buffer not registered",
        Way::Uring {
            batch: BATCH,
            buffer: false,
            file: true,
        },
    ),
    (
        "bare loop, file not registered",
        Way::Uring {
            batch: BATCH,
            buffer: true,
            file: false,
        },
    ),
    (
        "bare loop, neither registered",
        Way::Uring {
            batch: BATCH,
            buffer: false,
            file: false,
        },
    ),
    ("bare loop, write(2)", Way::Write { nonblocking: true }),
    (
        "bare loop, write(2) that may block",
        Way::Write { nonblocking: false },
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
        .map(|&(name, way)| (name, Options { way, ..best }))
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
        report.measured(&case, name, &measured, row.size);
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
        report.measured(&case, PRODUCT_NORMAL_PAGES, &measured, row.size);
    }
    session.step(&format!("{}: {RAW_SOCKET}", row.round))?;
    let measured =
        raw_socket::measure(cores, &row.traffic, row.forward.frames, &session.interrupt)?;
    report.measured(&case, RAW_SOCKET, &measured, row.size);
    Ok(())
}

/// Each beside what has all of it.
pub(super) fn compare(report: &mut Report) {
    for (name, _) in WAYS {
        report.compare(name, BARE, &CPU);
    }
    for name in [NO_PREFETCH, NORMAL_PAGES, RAW_SOCKET] {
        report.compare(name, BARE, &CPU);
    }
    report.compare(PRODUCT_NORMAL_PAGES, PRODUCT, &CPU);
}
