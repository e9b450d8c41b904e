//! The report: sections of rows, as tables for people and as JSON; and every figure that has a limit, beside it.

use std::fmt;

use serde_json::{Map, Value, json};

use super::stats::Spread;

/// One field of a row.
#[derive(Debug, Clone)]
pub enum Cell {
    /// A word.
    Text(String),
    /// A number of things.
    Count(u64),
    /// One measurement.
    Number(f64),
    /// Several of them.
    Spread(Spread),
    /// Why it was not, or cannot be, measured.
    None(&'static str),
}

impl Cell {
    fn json(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Count(count) => json!(count),
            Self::Number(number) => json!(number),
            Self::Spread(Spread { median, least, most }) => {
                json!({"median": median, "least": least, "most": most})
            }
            Self::None(why) => json!({"none": why}),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Count(count) => f.write_str(&grouped(*count)),
            Self::Number(number) => f.write_str(&short(*number)),
            Self::Spread(Spread { median, least, most }) => {
                write!(f, "{} ({}-{})", short(*median), short(*least), short(*most))
            }
            Self::None(why) => write!(f, "– ({why})"),
        }
    }
}

/// The same columns in every row, by name.
pub type Row = Vec<(&'static str, Cell)>;

/// A figure and the limit that it is held against.
#[derive(Debug, Clone)]
pub struct Check {
    /// The measurement.
    pub what: String,
    /// The figure.
    pub value: f64,
    /// The limit.
    pub limit: f64,
    /// Whether the limit is the most, not the least, that is right.
    pub at_most: bool,
}

impl Check {
    /// A figure that should not be more than this.
    #[must_use]
    pub fn at_most(what: &str, value: f64, limit: f64) -> Self {
        Self { what: what.to_owned(), value, limit, at_most: true }
    }

    /// A figure that should not be less than this.
    #[must_use]
    pub fn at_least(what: &str, value: f64, limit: f64) -> Self {
        Self { what: what.to_owned(), value, limit, at_most: false }
    }

    /// Whether it is within its limit.
    #[must_use]
    pub fn holds(&self) -> bool {
        if self.at_most { self.value <= self.limit } else { self.value >= self.limit }
    }

    fn json(&self) -> Value {
        let sense = if self.at_most { "at most" } else { "at least" };
        json!({"what": self.what, "value": self.value, "limit": self.limit, "sense": sense, "holds": self.holds()})
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, sense) =
            (if self.holds() { '✓' } else { '✗' }, if self.at_most { "at most" } else { "at least" });
        write!(f, "{mark} {}: {} ({sense} {})", self.what, short(self.value), short(self.limit))
    }
}

/// One table.
#[derive(Debug, Clone)]
pub struct Section {
    /// Its name in the JSON.
    pub name: String,
    /// Its subject, for people.
    pub title: String,
    /// Its rows.
    pub rows: Vec<Row>,
    /// What must be known to read it.
    pub notes: Vec<String>,
}

impl Section {
    /// An empty one.
    #[must_use]
    pub fn new(name: &str, title: &str) -> Self {
        Self { name: name.to_owned(), title: title.to_owned(), rows: Vec::new(), notes: Vec::new() }
    }

    /// Adds a sentence below the table.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    fn json(&self) -> Value {
        let object = |row: &Row| -> Map<String, Value> {
            row.iter().map(|(name, cell)| ((*name).to_owned(), cell.json())).collect()
        };
        let rows: Vec<_> = self.rows.iter().map(object).collect();
        json!({"title": self.title, "rows": rows, "notes": self.notes})
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n## {}\n", self.title)?;
        let Some(first) = self.rows.first() else { return Ok(()) };
        let names: Vec<String> = first.iter().map(|(name, _)| name.replace('_', " ")).collect();
        let rows = self.rows.iter().map(|row| row.iter().map(|(_, cell)| cell.to_string()).collect());
        let lines: Vec<Vec<String>> = std::iter::once(names).chain(rows).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        for (number, line) in lines.iter().enumerate() {
            let cells: Vec<String> =
                line.iter().enumerate().map(|(at, text)| format!("{text:<0$}", width(at))).collect();
            writeln!(f, "| {} |", cells.join(" | "))?;
            if number == 0 {
                let rules: Vec<String> = (0..line.len()).map(|at| "-".repeat(width(at))).collect();
                writeln!(f, "| {} |", rules.join(" | "))?;
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The machine and its load.
    pub machine: Map<String, Value>,
    /// The tables.
    pub sections: Vec<Section>,
    /// The figures that have a limit.
    pub checks: Vec<Check>,
}

impl Report {
    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let sections: Map<String, Value> =
            self.sections.iter().map(|section| (section.name.clone(), section.json())).collect();
        let checks: Vec<Value> = self.checks.iter().map(Check::json).collect();
        json!({"machine": self.machine, "sections": sections, "limits": checks})
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.machine {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            writeln!(f, "{}: {value}", name.replace('_', " "))?;
        }
        self.sections.iter().try_for_each(|section| section.fmt(f))?;
        writeln!(f, "\n## Limits\n")?;
        self.checks.iter().try_for_each(|check| writeln!(f, "{check}"))
    }
}

/// Three digits of it, and no more than it has.
fn short(number: f64) -> String {
    match number.abs() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is that large")]
        size if size >= 1000.0 => grouped(number.round() as u64),
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up_and_a_figure_beyond_its_limit_is_marked() {
        let mut section = Section::new("hits", "Hits");
        let spread = Spread { median: 1234.5, least: 9.87, most: 20_000.0 };
        section.rows.push(vec![("name", Cell::Text("one".to_owned())), ("rate", Cell::Spread(spread))]);
        section.rows.push(vec![("name", Cell::Text("another".to_owned())), ("rate", Cell::Count(1_000_000))]);
        let table = section.to_string();
        let widths: Vec<usize> = table.lines().skip(3).map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
        assert!(table.contains("1,235 (9.87-20,000)") && table.contains("1,000,000"), "{table}");
        let checks = [Check::at_most("a", 2.0, 1.0), Check::at_least("b", 2.0, 1.0)];
        assert_eq!(
            checks.map(|check| check.to_string()),
            ["✗ a: 2.00 (at most 1.00)", "✓ b: 2.00 (at least 1.00)"]
        );
    }
}
