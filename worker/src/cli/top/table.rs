//! Lines of columns that fit any width: the first column takes what is left, and the least important ones go first.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// One column but the first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) width: u16,
    /// Numbers end under each other, words begin under each other.
    pub(super) number: bool,
    /// Not shown in anything narrower.
    pub(super) from: u16,
}

/// A number's column.
pub(super) const fn number(title: &'static str, width: u16, from: u16) -> Column {
    Column { title, width, number: true, from }
}

/// A word's column.
pub(super) const fn word(title: &'static str, width: u16, from: u16) -> Column {
    Column { title, width, number: false, from }
}

/// One line: the first cell, then one for each column; or one alone, which takes the whole width.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) cells: Vec<String>,
    pub(super) style: Style,
}

impl Line {
    pub(super) fn new(cells: impl IntoIterator<Item = String>) -> Self {
        Self { cells: cells.into_iter().collect(), style: Style::new() }
    }

    pub(super) fn style(self, style: Style) -> Self {
        Self { style, ..self }
    }
}

/// Draws one line of cells into one row.
pub(super) fn draw(cells: &[String], style: Style, columns: &[Column], row: Rect, buffer: &mut Buffer) {
    let columns = if cells.len() == 1 { &[] } else { columns };
    let shown = |column: &&Column| column.from <= row.width;
    let taken: u16 = columns.iter().filter(shown).map(|column| column.width + 1).sum();
    let first = row.width.saturating_sub(taken);
    buffer.set_style(row, style);
    put(cells.first().map_or("", String::as_str), (row.x, row.y), first, false, style, buffer);
    let mut x = row.x + first;
    for (column, cell) in columns.iter().zip(cells.iter().skip(1)).filter(|(column, _)| shown(column)) {
        let width = column.width.min((row.x + row.width).saturating_sub(x + 1));
        put(cell, (x + 1, row.y), width, column.number, style, buffer);
        x += column.width + 1;
    }
}

fn put(text: &str, (x, y): (u16, u16), width: u16, to_the_right: bool, style: Style, buffer: &mut Buffer) {
    let room = usize::from(width);
    let length = text.chars().count();
    let text = match length > room {
        // What is cut says so.
        true if room > 0 => text.chars().take(room - 1).chain(['…']).collect(),
        true => return,
        false if to_the_right => format!("{}{text}", " ".repeat(room - length)),
        false => text.to_owned(),
    };
    buffer.set_stringn(x, y, text, room, style);
}
