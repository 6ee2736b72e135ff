//! Structured logs on stderr. Stdout belongs to data.

pub mod lines;

use std::io::IsTerminal as _;

use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::SubscriberBuilder;
use tracing_subscriber::fmt::format::{Format, Json, JsonFields};
use tracing_subscriber::util::SubscriberInitExt as _;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line, for machines.
    #[default]
    Json,
}

/// Starts logging with `filter`, which has the form `info` or `info,signet_ca=debug`.
///
/// # Errors
/// A sentence when the filter cannot be read, or logging was started before.
pub fn init(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|e| format!("log filter {filter:?}: {e}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(true)
            .finish()
            .try_init(),
        LogFormat::Json => json(builder).finish().try_init(),
    };
    started.map_err(|e| format!("logging: {e}"))
}

/// One JSON object per line: time, level and message, then the fields, then the target.
fn json<F, W>(
    builder: SubscriberBuilder<tracing_subscriber::fmt::format::DefaultFields, Format, F, W>,
) -> SubscriberBuilder<JsonFields, Format<Json>, F, W> {
    builder.json().flatten_event(true).with_current_span(false)
}
