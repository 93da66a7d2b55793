//! A table of texts, for a terminal or for a page.

/// A table: a head and rows of as many cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Columns from here on are numbers: to the right.
    numbers: usize,
}

impl Table {
    /// A table whose first columns are these texts; columns of numbers follow.
    pub fn new<const N: usize>(texts: [&str; N]) -> Self {
        Self {
            head: texts.map(str::to_owned).to_vec(),
            rows: Vec::new(),
            numbers: N,
        }
    }

    /// Adds a column of numbers.
    pub fn column(&mut self, head: &str) {
        self.head.push(head.into());
    }

    /// Adds a row. Missing cells are empty.
    pub fn row(&mut self, mut cells: Vec<String>) {
        cells.resize(self.head.len(), String::new());
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// In columns of equal width.
    pub fn text(&self) -> String {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let width = |at: usize| all().map(|row| row[at].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        for row in all() {
            let mut line = String::new();
            for (at, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let gap = if at == 0 { "" } else { "  " };
                line += &match at < self.numbers {
                    true => format!("{gap}{cell:<width$}"),
                    false => format!("{gap}{cell:>width$}"),
                };
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = line(&self.head);
        let rule: Vec<String> = (0..self.head.len())
            .map(|at| if at < self.numbers { "---" } else { "---:" }.into())
            .collect();
        text += &line(&rule);
        for row in &self.rows {
            text += &line(row);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let mut table = Table::new(["who"]);
        table.column("µs");
        table.row(vec!["floor".into(), "7".into()]);
        table.row(vec!["x".into()]);
        assert_eq!(table.text(), "who    µs\nfloor   7\nx\n");
        assert_eq!(
            table.markdown(),
            "| who | µs |\n| --- | ---: |\n| floor | 7 |\n| x |  |\n"
        );
    }
}
