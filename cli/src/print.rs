//! The one place that writes to stdout: pages for people, JSON and YAML for scripts.
//!
//! A view is one serializable value; `-o json` and `-o yaml` print it as it is and are a contract. The
//! page made of it is not.

use std::io::{self, Write};

use serde::Serialize;
use signet_runtime::UnixTime;

use crate::fault::Fault;

/// How data is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Tables for people.
    #[default]
    Table,
    /// JSON, for scripts.
    Json,
    /// YAML, for scripts.
    Yaml,
}

/// Something that can be shown.
pub trait View: Serialize {
    /// Writes it as people read it; `now` is for "in 11h 58m".
    fn page(&self, page: &mut Page, now: UnixTime);
}

/// How a piece of text is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Neutral.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Needs a look.
    Warn,
    /// Wrong.
    Bad,
    /// A heading.
    Bold,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Bold => "\x1b[1m",
        }
    }
}

/// One cell of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell(String, Tone);

impl Cell {
    /// Text with a tone. Control characters are replaced: much of what is shown comes from strangers.
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self(printable(&text.into()), tone)
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Text without what could move a terminal's cursor or hide other text.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// What people see, built line by line.
#[derive(Clone, Debug, Default)]
pub struct Page {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Line(Cell),
    /// Aligned columns; the flag says whether the first row is a heading.
    Rows(Vec<Vec<Cell>>, bool),
}

impl Page {
    /// A line by itself.
    pub fn line(&mut self, line: impl Into<Cell>) {
        self.parts.push(Part::Line(line.into()));
    }

    /// An empty line.
    pub fn gap(&mut self) {
        self.parts.push(Part::Line(Cell::default()));
    }

    /// A heading.
    pub fn heading(&mut self, text: impl Into<String>) {
        self.parts.push(Part::Line(Cell::new(text, Tone::Bold)));
    }

    /// A name and its value; neighbours are aligned.
    pub fn fact(&mut self, name: &str, value: impl Into<Cell>) {
        let row = vec![Cell::from(name), value.into()];
        match self.parts.last_mut() {
            Some(Part::Rows(rows, false)) => rows.push(row),
            _ => self.parts.push(Part::Rows(vec![row], false)),
        }
    }

    /// A table under a row of headings.
    pub fn table(&mut self, headings: &[&str], rows: Vec<Vec<Cell>>) {
        let mut all = vec![headings.iter().map(|h| Cell::new(*h, Tone::Bold)).collect()];
        all.extend(rows);
        self.parts.push(Part::Rows(all, true));
    }

    /// The page as text, with or without colours.
    #[must_use]
    pub fn render(&self, colours: bool) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Line(cell) => push_row(&mut text, std::slice::from_ref(cell), &[], colours),
                Part::Rows(rows, _) => {
                    let widths = widths(rows);
                    rows.iter()
                        .for_each(|row| push_row(&mut text, row, &widths, colours));
                }
            }
        }
        text
    }
}

fn widths(rows: &[Vec<Cell>]) -> Vec<usize> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|r| r.get(column))
            .map(|c| c.0.chars().count())
            .max()
    };
    (0..columns).map(|column| width(column).unwrap_or(0)).collect()
}

/// Columns are padded but for the last, so that lines never end in blanks.
fn push_row(text: &mut String, row: &[Cell], widths: &[usize], colours: bool) {
    for (index, Cell(cell, tone)) in row.iter().enumerate() {
        let coloured = colours && *tone != Tone::Plain;
        text.push_str(if coloured { tone.code() } else { "" });
        text.push_str(cell);
        text.push_str(if coloured { "\x1b[0m" } else { "" });
        if index + 1 < row.len() {
            let pad = widths
                .get(index)
                .copied()
                .unwrap_or(0)
                .saturating_sub(cell.chars().count())
                + 2;
            text.extend(std::iter::repeat_n(' ', pad));
        }
    }
    text.push('\n');
}

/// Writes views in the format asked for.
pub struct Printer {
    out: Box<dyn Write + Send>,
    format: Format,
    colours: bool,
}

impl std::fmt::Debug for Printer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Printer({:?}, colours: {})", self.format, self.colours)
    }
}

impl Printer {
    /// Prints to `out`; colours only make sense on a terminal.
    #[must_use]
    pub fn new(out: Box<dyn Write + Send>, format: Format, colours: bool) -> Self {
        Self { out, format, colours }
    }

    /// The format asked for.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// One value.
    ///
    /// # Errors
    /// [`Fault::ReaderGone`], or what the system said.
    pub fn show(&mut self, view: &impl View, now: UnixTime) -> Result<(), Fault> {
        let text = match self.format {
            Format::Table => {
                let mut page = Page::default();
                view.page(&mut page, now);
                page.render(self.colours)
            }
            Format::Json => serde_json::to_string_pretty(view).map_err(Fault::unanswered)? + "\n",
            Format::Yaml => serde_saphyr::to_string(view).map_err(Fault::unanswered)?,
        };
        self.write(&text)
    }

    /// One value of a stream: a line of a table, a line of JSON, or a YAML document.
    ///
    /// # Errors
    /// As [`Printer::show`].
    pub fn show_next(&mut self, view: &impl View, now: UnixTime) -> Result<(), Fault> {
        match self.format {
            Format::Table => self.show(view, now),
            Format::Json => {
                let line = serde_json::to_string(view).map_err(Fault::unanswered)? + "\n";
                self.write(&line)
            }
            Format::Yaml => {
                self.write("---\n")?;
                self.show(view, now)
            }
        }
    }

    /// Text as it stands.
    ///
    /// # Errors
    /// As [`Printer::show`].
    pub fn write(&mut self, text: &str) -> Result<(), Fault> {
        let written: io::Result<()> = self
            .out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush());
        Ok(written?)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was printed.
    #[derive(Clone, Default)]
    pub(crate) struct Printed(Arc<Mutex<Vec<u8>>>);

    impl Printed {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Printed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn page() -> Page {
        let mut page = Page::default();
        page.heading("chain");
        page.fact("id", "spiffe://a/b");
        page.fact("left", Cell::new("2s", Tone::Bad));
        page.table(&["serial", "key"], vec![vec!["0a".into(), "P-256".into()]]);
        page
    }

    #[test]
    fn columns_are_aligned_and_lines_never_end_in_blanks() {
        assert_eq!(
            page().render(false),
            "chain\nid    spiffe://a/b\nleft  2s\nserial  key\n0a      P-256\n"
        );
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let coloured = page().render(true);
        assert!(coloured.contains("left  \x1b[31m2s\x1b[0m\n"), "{coloured:?}");
    }

    #[test]
    fn yaml_keeps_text_that_looks_like_a_number_as_text() {
        for serial in [
            "4e01", "0x10", "0o17", "0b01", "1_000", "12", ".5", "null", "true", "1:20", "~",
        ] {
            let text =
                serde_saphyr::to_string(&std::collections::BTreeMap::from([("serial", serial)])).unwrap();
            let back: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
            assert_eq!(back["serial"], serial, "{text}");
        }
    }

    #[test]
    fn control_characters_from_strangers_do_not_reach_the_terminal() {
        let mut page = Page::default();
        page.fact("subject", "CN=\x1b[2Jx\r\n");
        assert_eq!(page.render(true), "subject  CN=\u{fffd}[2Jx\u{fffd}\u{fffd}\n");
    }
}
