//! Plots of a report, as SVG: which there are, and what they have in common. Dark on white, whatever the
//! background of the page, and the same bytes for the same report.

mod bars;
mod lines;
mod scale;

use plotters::{
    backend::SVGBackend,
    coord::Shift,
    drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea},
    style::{
        FontStyle, IntoTextStyle, RGBColor, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};
use serde::{Deserialize, Serialize};

use super::{Figure, Quantity, Report};

/// One plot of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plot {
    /// Its heading.
    pub title: String,
    /// What is drawn.
    pub quantity: Quantity,
    /// How.
    pub form: Form,
    /// Only cases that contain this text.
    #[serde(default)]
    pub cases: String,
    /// Only these subjects; all, when there are none.
    #[serde(default)]
    pub subjects: Vec<String>,
}

/// How figures are drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A bar for each subject of each case.
    Bars,
    /// A line for each subject, over a number that cases name.
    Lines {
        /// The unit of that number, as in a case: `rules`, as in `1000 rules, exact`. What else the case says belongs
        /// to the line.
        over: String,
    },
}

impl Plot {
    /// A bar for each subject of each case.
    pub fn bars(title: &str, quantity: &Quantity) -> Self {
        Self {
            title: title.into(),
            quantity: quantity.clone(),
            form: Form::Bars,
            cases: String::new(),
            subjects: Vec::new(),
        }
    }

    /// A line for each subject over the number before the word `over` in each case.
    pub fn lines(title: &str, quantity: &Quantity, over: &str) -> Self {
        Self {
            form: Form::Lines { over: over.into() },
            ..Self::bars(title, quantity)
        }
    }

    /// Only of cases that contain a text.
    #[must_use]
    pub fn of_cases(mut self, text: &str) -> Self {
        self.cases = text.into();
        self
    }

    /// Only of these subjects.
    #[must_use]
    pub fn of_subjects(mut self, subjects: &[&str]) -> Self {
        self.subjects = subjects.iter().map(|&s| s.to_owned()).collect();
        self
    }

    /// The plot as a file's content; none when the report has no figure for it.
    ///
    /// # Errors
    ///
    /// When it cannot be drawn.
    pub fn svg(&self, report: &Report) -> Result<Option<String>, PlotError> {
        let figures: Vec<&Figure> = report
            .figures
            .iter()
            .filter(|figure| self.wants(figure))
            .collect();
        if figures.is_empty() {
            return Ok(None);
        }
        let drawn = match &self.form {
            Form::Bars => bars::svg(self, &figures),
            Form::Lines { over } => lines::svg(self, &figures, over),
        };
        let failed = |reason: String| PlotError {
            title: self.title.clone(),
            reason,
        };
        drawn.map(Some).map_err(|e| failed(e.to_string()))
    }

    fn wants(&self, figure: &Figure) -> bool {
        figure.quantity == self.quantity
            && figure.rounds.iter().any(|number| number.is_finite())
            && figure.case.contains(&self.cases)
            && (self.subjects.is_empty() || self.subjects.contains(&figure.subject))
    }

    /// The quantity with its unit.
    fn axis(&self) -> String {
        format!("{}, {}", self.quantity.name, self.quantity.unit)
    }
}

/// A plot that could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error(
    "the plot {title:?} cannot be drawn: {reason}; leave --svg out, or report it with the file of --json"
)]
pub struct PlotError {
    title: String,
    reason: String,
}

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T> = Result<T, DrawingAreaErrorKind<std::io::Error>>;

const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const PALE: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xff);
/// Told apart by all eyes (Okabe and Ito); the last ones for plots with many lines.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x66, 0x66, 0x66),
    RGBColor(0x88, 0x22, 0x55),
];

/// The colour of the subject at a place.
fn colour(place: usize) -> RGBColor {
    COLOURS[place % COLOURS.len()]
}

const WIDTH: u32 = 860;
const TEXT: i32 = 14;

/// A text style whose anchor is at the left, the middle or the right, in the middle of its height.
fn text(size: i32, bold: bool, anchor: HPos) -> TextStyle<'static> {
    let style = if bold {
        FontStyle::Bold
    } else {
        FontStyle::Normal
    };
    ("sans-serif", size, style, &INK)
        .into_text_style(&(WIDTH, WIDTH))
        .pos(Pos::new(anchor, VPos::Center))
}

/// Draws on white paper of this height.
fn paper(height: u32, draw: impl FnOnce(&Canvas<'_>) -> Drawn<()>) -> Drawn<String> {
    let mut svg = String::new();
    {
        let canvas = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        canvas.fill(&PAPER)?;
        draw(&canvas)?;
        canvas.present()?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{CPU, RATE, tests::report};

    #[test]
    fn a_plot_names_what_it_shows_and_is_the_same_each_time() {
        let mut report = report();
        report.record("1500 bytes", "dataplane", &CPU, 900.0);
        for (plot, named) in [
            (
                Plot::bars("Cost & speed", &CPU),
                &[
                    "Cost &amp; speed",
                    "64 bytes",
                    "1500 bytes",
                    "floor",
                    "600.0",
                ][..],
            ),
            (
                Plot::lines("Cost", &CPU, "bytes"),
                &["floor", "dataplane", "cpu, ns/frame", "polyline"],
            ),
        ] {
            let svg = || {
                plot.svg(&report)
                    .expect("it can be drawn")
                    .expect("figures")
            };
            let drawn = svg();
            assert_eq!(drawn, svg());
            for name in named {
                assert!(drawn.contains(name), "{name}: {drawn}");
            }
        }
        let only = Plot::bars("Cost", &CPU)
            .of_cases("1500")
            .of_subjects(&["dataplane"]);
        let svg = only.svg(&report).expect("drawn").expect("figures");
        assert!(!svg.contains("64 bytes") && !svg.contains("floor"));
        // No subject has a rate in this case: no plot.
        let none = Plot::bars("Rate", &RATE).of_cases("1500");
        assert_eq!(none.svg(&report).expect("drawn"), None);
    }

    #[test]
    fn lines_are_drawn_on_any_axis() {
        for numbers in [
            &[(1.0, 1.0)][..],
            &[(1.0, 1.0), (4.0, 4.0)],
            &[(10.0, 5.0), (1e6, 30.0)],
            &[(1.0, 5.0), (2.0, 3000.0)],
            &[(10.0, 0.01), (1e6, 3000.0)],
            &[(10.0, 0.0), (20.0, 0.0)],
        ] {
            let mut report = report();
            for (rules, cost) in numbers {
                report.record(&format!("{rules} rules"), "dataplane", &CPU, *cost);
            }
            let plot = Plot::lines("Verdict", &CPU, "rules");
            assert!(plot.svg(&report).expect("drawn").is_some(), "{numbers:?}");
        }
    }
}
