//! The table at the end: one row per claim, with the ratio that matters, and where there is a target whether it
//! was met.

/// One measured line.
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// The figure with its unit.
    pub(crate) value: String,
    /// The ratio to its reference in the same run, or the bound it is held against.
    pub(crate) against: String,
    /// The target, and whether it was met; nothing where there is none.
    pub(crate) target: String,
}

impl Row {
    /// Held against a target.
    #[must_use]
    pub(crate) fn held(mut self, target: &str, met: bool) -> Self {
        self.target = format!("{target}: {}", if met { "met" } else { "missed" });
        self
    }
}

/// A row from its three texts.
pub(crate) fn row(what: impl Into<String>, value: impl Into<String>, against: impl Into<String>) -> Row {
    Row {
        what: what.into(),
        value: value.into(),
        against: against.into(),
        target: String::new(),
    }
}

/// Prints the rows as a Markdown table, ready for `docs/benchmarks.md`.
pub(crate) fn print(rows: &[Row]) {
    let width = |pick: fn(&Row) -> &String, head: &str| {
        rows.iter()
            .map(|r| pick(r).chars().count())
            .chain([head.len()])
            .max()
            .unwrap_or(0)
    };
    let (a, b, c, d) = (
        width(|r| &r.what, "measured"),
        width(|r| &r.value, "value"),
        width(|r| &r.against, "against"),
        width(|r| &r.target, "target"),
    );
    println!(
        "\n| {:a$} | {:b$} | {:c$} | {:d$} |",
        "measured", "value", "against", "target"
    );
    let line = [a, b, c, d].map(|width| "-".repeat(width + 2)).join("|");
    println!("|{line}|");
    for row in rows {
        println!(
            "| {:a$} | {:b$} | {:c$} | {:d$} |",
            row.what, row.value, row.against, row.target
        );
    }
}
