//! A table, as text for terminals and as HTML.

use std::fmt::Write;

use crate::format::{escaped, printable};

#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) head: Vec<String>,
    /// Each as long as the head. First cells are names and to the left, others are to the right.
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    /// Nothing if it has no rows.
    pub(super) fn text(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let lines = [&self.head].into_iter().chain(&self.rows);
        let lines: Vec<Vec<String>> = lines.map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
        let width =
            |column| lines.iter().filter_map(|line| line.get(column)).map(|cell: &String| cell.chars().count()).max();
        let widths: Vec<usize> = (0..self.head.len()).map_while(width).collect();
        let mut text = String::new();
        for line in &lines {
            let mut aligned = String::new();
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let _ =
                    if column == 0 { write!(aligned, "{cell:<width$}") } else { write!(aligned, "  {cell:>width$}") };
            }
            text += aligned.trim_end();
            text.push('\n');
        }
        text
    }

    /// Nothing if it has no rows.
    pub(super) fn html(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let cells = |row: &[String], tag: &str| -> String {
            row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect()
        };
        let rows: String = self.rows.iter().map(|row| format!("<tr>{}</tr>\n", cells(row, "td"))).collect();
        format!("<div class=\"table\"><table><tr>{}</tr>\n{rows}</table></div>\n", cells(&self.head, "th"))
    }
}
