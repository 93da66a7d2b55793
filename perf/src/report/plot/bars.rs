//! Bars that lie: a row for each subject of each case, so that names of any length can be read.

use plotters::{
    element::{PathElement, Rectangle, Text},
    style::{Color, text_anchor::HPos},
};

use super::{Drawn, INK, PALE, Plot, TEXT, WIDTH, colour, paper, scale, text};
use crate::{
    measure::Spread,
    report::{Figure, distinct},
};

/// Where names end and bars begin, and where the axis ends; values are written behind the bars.
const LEFT: i32 = 250;
const RIGHT: i32 = WIDTH as i32 - 90;
const HEAD: i32 = 44;
const BAR: i32 = 22;
/// The line that names a case, and the space above it.
const CASE: i32 = 30;
const FOOT: i32 = 52;

pub(super) fn svg(plot: &Plot, figures: &[&Figure]) -> Drawn<String> {
    let spread = |figure: &Figure| Spread::of(figure.rounds.iter().copied());
    let most = figures.iter().map(|f| spread(f).max).fold(0.0, f64::max);
    let steps = scale::steps(most, 6);
    let end = steps.last().copied().unwrap_or(1.0);
    let x = |number: f64| LEFT + ((number / end) * f64::from(RIGHT - LEFT)).round() as i32;
    let subjects = distinct(figures.iter().map(|f| f.subject.as_str()));
    let cases = distinct(figures.iter().map(|f| f.case.as_str()));
    let bottom = HEAD + CASE * cases.len() as i32 + BAR * figures.len() as i32 + 8;

    paper((bottom + FOOT) as u32, |canvas| {
        let title = text(17, true, HPos::Left);
        canvas.draw(&Text::new(plot.title.clone(), (16, HEAD / 2), title))?;
        for &step in &steps {
            let line = vec![(x(step), HEAD), (x(step), bottom)];
            canvas.draw(&PathElement::new(line, PALE))?;
            let at = (x(step), bottom + 14);
            canvas.draw(&Text::new(
                scale::label(step),
                at,
                text(12, false, HPos::Center),
            ))?;
        }
        let at = ((LEFT + RIGHT) / 2, bottom + 36);
        canvas.draw(&Text::new(plot.axis(), at, text(TEXT, false, HPos::Center)))?;

        let mut y = HEAD;
        for case in cases {
            let at = (16, y + CASE / 2 + 3);
            canvas.draw(&Text::new(
                case.to_owned(),
                at,
                text(TEXT, true, HPos::Left),
            ))?;
            y += CASE;
            for figure in figures.iter().filter(|f| f.case == case) {
                let place = subjects.iter().position(|s| *s == figure.subject);
                let spread = spread(figure);
                let middle = y + BAR / 2;
                let name = text(TEXT, false, HPos::Right);
                canvas.draw(&Text::new(figure.subject.clone(), (LEFT - 8, middle), name))?;
                let bar = [(LEFT, y + 3), (x(spread.median), y + BAR - 3)];
                canvas.draw(&Rectangle::new(bar, colour(place.unwrap_or(0)).filled()))?;
                if spread.min < spread.max {
                    let line = vec![(x(spread.min), middle), (x(spread.max), middle)];
                    canvas.draw(&PathElement::new(line, INK.stroke_width(2)))?;
                }
                let value = plot.quantity.show(spread.median);
                let at = (x(spread.max) + 6, middle);
                canvas.draw(&Text::new(value, at, text(12, false, HPos::Left)))?;
                y += BAR;
            }
        }
        Ok(())
    })
}
