//! Quantities: what is measured, in which unit, and whether more of it is better.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::measure::Spread;

/// Which of two numbers is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// The lower: costs.
    Lower,
    /// The higher: speeds.
    Higher,
}

impl Better {
    /// How `own` does beside `other`: above 1 it does better.
    pub fn ratio(self, own: f64, other: f64) -> f64 {
        match self {
            Better::Lower => other / own,
            Better::Higher => own / other,
        }
    }
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantity {
    /// Its name, in a table's head.
    pub name: Cow<'static, str>,
    /// Its unit.
    pub unit: Cow<'static, str>,
    /// Which way is better.
    pub better: Better,
    /// Digits behind the point.
    pub digits: usize,
}

impl Quantity {
    /// A quantity of which less is better.
    pub const fn cost(name: &'static str, unit: &'static str, digits: usize) -> Self {
        Self {
            name: Cow::Borrowed(name),
            unit: Cow::Borrowed(unit),
            better: Better::Lower,
            digits,
        }
    }

    /// A quantity of which more is better.
    pub const fn speed(name: &'static str, unit: &'static str, digits: usize) -> Self {
        Self {
            name: Cow::Borrowed(name),
            unit: Cow::Borrowed(unit),
            better: Better::Higher,
            digits,
        }
    }

    /// The number as it is shown.
    pub fn show(&self, number: f64) -> String {
        format!("{number:.*}", self.digits)
    }

    /// Median (least – most), or the number alone where there is one.
    pub fn show_spread(&self, rounds: &[f64]) -> String {
        let spread = Spread::of(rounds.iter().copied());
        let median = self.show(spread.median);
        match rounds.len() {
            0 => String::new(),
            1 => median,
            _ => format!(
                "{median} ({} – {})",
                self.show(spread.min),
                self.show(spread.max)
            ),
        }
    }
}

/// Processor time of the worker per frame.
pub const CPU: Quantity = Quantity::cost("cpu", "ns/frame", 1);
/// Frames a second.
pub const RATE: Quantity = Quantity::speed("rate", "Mframes/s", 2);
/// Bits of frames a second, from the Ethernet header on.
pub const THROUGHPUT: Quantity = Quantity::speed("throughput", "Gbit/s", 2);
/// The share of frames that did not arrive. Few of many are a loss as well: so many digits that one in a million shows.
pub const LOSS: Quantity = Quantity::cost("lost", "%", 4);
