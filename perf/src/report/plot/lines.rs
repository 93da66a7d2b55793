//! Lines over a number that cases name: rules, a rate, workers. An axis whose numbers span more than fifty
//! times is logarithmic.

use plotters::{
    chart::ChartBuilder,
    coord::{
        combinators::IntoLogRange,
        ranged1d::{AsRangedCoord, ValueFormatter},
    },
    element::{Circle, PathElement, Text},
    series::LineSeries,
    style::{Color, text_anchor::HPos},
};

use super::{Canvas, Drawn, PALE, Plot, TEXT, WIDTH, colour, paper, scale, text};
use crate::{measure::Spread, report::Figure};

const HEAD: i32 = 44;
const CHART: u32 = 380;
const LEGEND: i32 = 22;
/// From here on an axis is logarithmic.
const WIDE: f64 = 50.0;

/// A name and its points, by number.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

pub(super) fn svg(plot: &Plot, figures: &[&Figure], over: &str) -> Drawn<String> {
    let lines = lines(figures, over);
    let height = HEAD as u32 + CHART + (LEGEND as u32) * lines.len() as u32 + 16;
    paper(height, |canvas| {
        let title = text(17, true, HPos::Left);
        canvas.draw(&Text::new(plot.title.clone(), (16, HEAD / 2), title))?;
        let (_, below) = canvas.split_vertically(HEAD);
        let (chart, legend) = below.split_vertically(CHART as i32);
        let all = || lines.iter().flat_map(|line| &line.points);
        let (left, right) = ends(all().map(|p| p.0));
        let (low, high) = ends(all().map(|p| p.1));
        let top = scale::steps(high, 6).last().copied().unwrap_or(1.0);
        let x = left..right;
        match (right / left > WIDE, high / low > WIDE) {
            (false, false) => draw(&chart, plot, over, &lines, x, 0.0..top)?,
            (true, false) => draw(&chart, plot, over, &lines, x.log_scale(), 0.0..top)?,
            (false, true) => {
                let y = (low / 1.5..high * 1.5).log_scale();
                draw(&chart, plot, over, &lines, x, y)?;
            }
            (true, true) => {
                let y = (low / 1.5..high * 1.5).log_scale();
                draw(&chart, plot, over, &lines, x.log_scale(), y)?;
            }
        }
        for (place, line) in lines.iter().enumerate() {
            let y = LEGEND * place as i32 + LEGEND / 2;
            let mark = vec![(96, y), (126, y)];
            legend.draw(&PathElement::new(mark, colour(place).stroke_width(3)))?;
            let name = text(TEXT, false, HPos::Left);
            legend.draw(&Text::new(line.name.clone(), (136, y), name))?;
        }
        Ok(())
    })
}

fn draw<X, Y>(area: &Canvas<'_>, plot: &Plot, over: &str, lines: &[Line], x: X, y: Y) -> Drawn<()>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(area)
        .margin_right(WIDTH as i32 / 16)
        .margin_top(8)
        .margin_bottom(10)
        .margin_left(16)
        .x_label_area_size(52)
        .y_label_area_size(80)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .max_light_lines(4)
        .light_line_style(PALE.mix(0.5))
        .bold_line_style(PALE)
        .x_desc(over)
        .y_desc(plot.axis())
        .x_label_formatter(&|number| scale::label(*number))
        .y_label_formatter(&|number| scale::label(*number))
        .label_style(text(12, false, HPos::Left))
        .axis_desc_style(text(TEXT, false, HPos::Left))
        .draw()?;
    for (place, line) in lines.iter().enumerate() {
        let style = colour(place).stroke_width(2);
        chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
        let dots = line.points.iter();
        chart.draw_series(dots.map(|&at| Circle::new(at, 4, colour(place).filled())))?;
    }
    Ok(())
}

/// The medians, a line for each subject and whatever else its cases say.
fn lines(figures: &[&Figure], over: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for figure in figures {
        let Some((number, rest)) = scale::number(&figure.case, over) else {
            continue;
        };
        let name = match rest.is_empty() {
            true => figure.subject.clone(),
            false => format!("{}: {rest}", figure.subject),
        };
        let median = Spread::of(figure.rounds.iter().copied()).median;
        if !median.is_finite() {
            continue;
        }
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push((number, median)),
            None => lines.push(Line {
                name,
                points: vec![(number, median)],
            }),
        }
    }
    for line in &mut lines {
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    lines
}

/// The least and the most above 0; something of some width even of one number or none.
fn ends(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    let positive = numbers.filter(|n| *n > 0.0);
    let (low, high) = positive.fold((f64::INFINITY, 0.0), |(low, high), n| {
        (n.min(low), n.max(high))
    });
    match (low, high) {
        (low, high) if low > high => (0.5, 1.0),
        (low, high) if low == high => (low / 2.0, high),
        ends => ends,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::CPU;

    #[test]
    fn a_line_is_of_a_subject_and_what_else_its_cases_say() {
        let figure = |case: &str, subject: &str, number: f64| Figure {
            case: case.into(),
            subject: subject.into(),
            quantity: CPU,
            rounds: vec![number],
        };
        let figures = [
            figure("65k rules, exact", "dataplane", 14.0),
            figure("10 rules, exact", "dataplane", 10.0),
            figure("10 rules, exact", "hash set", 9.0),
            figure("10 rules, ranges", "dataplane", 20.0),
            figure("no number", "dataplane", 1.0),
            figure("10 rules, ranges", "hash set", f64::NAN),
        ];
        let all: Vec<&Figure> = figures.iter().collect();
        let found: Vec<_> = lines(&all, "rules")
            .into_iter()
            .map(|line| (line.name, line.points))
            .collect();
        let expected = [
            ("dataplane: exact".into(), vec![(10.0, 10.0), (65e3, 14.0)]),
            ("hash set: exact".into(), vec![(10.0, 9.0)]),
            ("dataplane: ranges".into(), vec![(10.0, 20.0)]),
        ];
        assert_eq!(found, expected);
    }
}
