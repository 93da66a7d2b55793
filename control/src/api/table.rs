//! A table of plain text: columns as wide as they need be, and texts that are too wide on several lines.

use std::fmt::Write as _;

/// What a column of texts is not made narrower than.
const NARROW: usize = 8;

/// Columns as wide as their widest cell, two spaces apart.
pub(super) struct Table {
    /// Which columns are numbers, and stand to the right.
    right: Vec<bool>,
    /// The headings, then a row each.
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    /// Headings with a space between, `_` for a space within, `>` before those of numbers.
    pub(super) fn new(headings: &str) -> Self {
        Self {
            right: headings.split(' ').map(|h| h.starts_with('>')).collect(),
            rows: vec![
                headings
                    .split(' ')
                    .map(|h| h.trim_start_matches('>').replace('_', " "))
                    .collect(),
            ],
        }
    }

    pub(super) fn print(&self) -> String {
        self.print_within(usize::MAX)
    }

    /// In so many columns, where texts that are too wide go on in the next line.
    pub(super) fn print_within(&self, columns: usize) -> String {
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(|cell| clean(cell)).collect())
            .collect();
        let width = |column: usize| {
            let widths = rows.iter().map(|row| row[column].chars().count());
            widths.max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        self.narrow(&mut widths, columns);
        let mut text = String::new();
        for row in &rows {
            let cells = row.iter().zip(&widths);
            let mut cells: Vec<_> = cells
                .map(|(cell, &width)| wrap(cell, width).into_iter())
                .collect();
            while cells.iter().any(|cell| cell.len() > 0) {
                let mut line = String::new();
                for ((cell, &width), &right) in cells.iter_mut().zip(&widths).zip(&self.right) {
                    let cell = cell.next().unwrap_or_default();
                    let _ = if right {
                        write!(line, "{cell:>width$}  ")
                    } else {
                        write!(line, "{cell:<width$}  ")
                    };
                }
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        text
    }

    /// Takes from the widest columns of texts until all fit, as far as that goes.
    fn narrow(&self, widths: &mut [usize], columns: usize) {
        let between = 2 * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + between > columns {
            let texts = widths.iter_mut().zip(&self.right);
            let texts = texts.filter(|(width, right)| !**right && **width > NARROW);
            let Some((widest, _)) = texts.max_by_key(|(width, _)| **width) else {
                return;
            };
            *widest -= 1;
        }
    }
}

/// A text in lines of at most `width` letters, broken between words where there are any.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut length = 0;
    for word in text.split(' ') {
        let letters: Vec<char> = word.chars().collect();
        let space = usize::from(length > 0);
        if length > 0 && length + space + letters.len() > width {
            lines.push(String::new());
            length = 0;
        } else if let (1, Some(line)) = (space, lines.last_mut()) {
            line.push(' ');
            length += 1;
        }
        // A path, or a name, that has no place to break.
        for (i, part) in letters.chunks(width.max(1)).enumerate() {
            if i > 0 {
                lines.push(String::new());
                length = 0;
            }
            if let Some(line) = lines.last_mut() {
                line.extend(part);
                length += part.len();
            }
        }
    }
    lines
}

/// Text without control characters, so that no name moves the cursor or colours the screen.
pub fn clean(text: &str) -> String {
    text.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_wide_goes_on_in_the_next_line() {
        for (text, width, lines) in [
            ("", 8, &[""][..]),
            ("2:0 3:1 4:2 5:3", 8, &["2:0 3:1", "4:2 5:3"]),
            ("a/path/without/end", 8, &["a/path/w", "ithout/e", "nd"]),
            ("to a/path/without", 8, &["to", "a/path/w", "ithout"]),
            ("äöü äöü", 3, &["äöü", "äöü"]),
            ("exactly", 7, &["exactly"]),
        ] {
            assert_eq!(wrap(text, width), lines, "{text:?}");
        }
    }
}
