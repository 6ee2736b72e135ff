//! The table at the end: one row per claim, with the ratio that matters.

/// One measured line.
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// The figure with its unit.
    pub(crate) value: String,
    /// The ratio to its reference in the same run, or the bound it is held against.
    pub(crate) against: String,
}

/// A row from its three texts.
pub(crate) fn row(what: impl Into<String>, value: impl Into<String>, against: impl Into<String>) -> Row {
    Row {
        what: what.into(),
        value: value.into(),
        against: against.into(),
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
    let (a, b, c) = (
        width(|r| &r.what, "measured"),
        width(|r| &r.value, "value"),
        width(|r| &r.against, "against"),
    );
    println!("\n| {:a$} | {:b$} | {:c$} |", "measured", "value", "against");
    println!(
        "|{}|{}|{}|",
        "-".repeat(a + 2),
        "-".repeat(b + 2),
        "-".repeat(c + 2)
    );
    for row in rows {
        println!("| {:a$} | {:b$} | {:c$} |", row.what, row.value, row.against);
    }
}
