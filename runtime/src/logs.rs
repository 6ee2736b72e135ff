//! Structured logs on stderr. Stdout belongs to data.

pub mod lines;

use std::io::IsTerminal as _;

use serde::Deserialize;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Format, Json, JsonFields};
use tracing_subscriber::fmt::{Layer, layer};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry;
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

/// Starts logging with `filter`, which has the form `info` or `info,signet_ca=debug`: levels by target and nothing
/// else, so that no program carries an engine for regular expressions.
///
/// # Errors
/// A sentence when the filter cannot be read, or logging was started before.
pub fn init(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter: Targets = filter
        .parse()
        .map_err(|e| format!("log filter {filter:?}: {e}"))?;
    let started = match format {
        LogFormat::Text => {
            let lines = layer().with_writer(std::io::stderr);
            let lines = lines.with_ansi(std::io::stderr().is_terminal());
            registry().with(lines.with_target(true)).with(filter).try_init()
        }
        LogFormat::Json => {
            let lines = json().with_writer(std::io::stderr);
            registry().with(lines).with(filter).try_init()
        }
    };
    started.map_err(|e| format!("logging: {e}"))
}

/// Time, level and message, then the fields, then the target.
fn json<S>() -> Layer<S, JsonFields, Format<Json>> {
    layer().json().flatten_event(true).with_current_span(false)
}
