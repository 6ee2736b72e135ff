//! Log lines written several at a time, for events that come by the thousand a second and must be on
//! record before somebody is answered. They look as the lines of [`super::init`] in JSON.

use std::io::{self, Write as _};
use std::time::Duration;

use rustls_pki_types::UnixTime;
use tracing::Level;

use crate::clock::{rfc3339, wall};

/// How much room is kept between writes; one audit record needs about 500 bytes.
const KEPT: usize = 16 * 1024;

/// Lines that wait to be written together. What waits when it is dropped is written then.
#[derive(Debug, Default)]
pub struct Lines {
    text: Vec<u8>,
    /// The text of the second in which the last line was made.
    second: Moment,
    /// The text of the time that stood last in a field.
    field: Moment,
}

/// A second and its text, since the next line most often needs the same.
#[derive(Debug, Default)]
struct Moment {
    at: u64,
    text: String,
}

impl Moment {
    fn text(&mut self, at: u64) -> &str {
        if self.at != at || self.text.is_empty() {
            self.at = at;
            self.text = rfc3339(UnixTime::since_unix_epoch(Duration::from_secs(at)));
        }
        &self.text
    }
}

impl Lines {
    /// Begins a line, made now.
    pub fn begin(&mut self, level: Level, message: &'static str) -> Line<'_> {
        let now = wall();
        let second = self.second.text(now.as_secs()).trim_end_matches('Z');
        self.text.extend_from_slice(b"{\"timestamp\":\"");
        self.text.extend_from_slice(second.as_bytes());
        // Writing to memory does not fail.
        let _ = write!(
            self.text,
            ".{:06}Z\",\"level\":\"{level}\",\"message\":",
            now.subsec_micros()
        );
        escaped(&mut self.text, message);
        Line(self)
    }

    /// Writes what waits to stderr, in one call. As for every log line, a stderr that takes nothing is no
    /// reason to stop.
    pub fn write(&mut self) {
        if !self.text.is_empty() {
            let _ = io::stderr().lock().write_all(&self.text);
            self.text.clear();
            self.text.shrink_to(KEPT);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.write();
    }
}

/// A line that is being made; fields stand in the order they are added.
#[derive(Debug)]
pub struct Line<'a>(&'a mut Lines);

impl Line<'_> {
    /// Adds a field of text.
    #[must_use]
    pub fn text(self, name: &'static str, value: &str) -> Self {
        named(&mut self.0.text, name);
        escaped(&mut self.0.text, value);
        self
    }

    /// Adds a field of anything that can be shown.
    #[must_use]
    pub fn shown(self, name: &'static str, value: &dyn std::fmt::Display) -> Self {
        use std::fmt::Write as _;
        named(&mut self.0.text, name);
        self.0.text.push(b'"');
        // Writing to memory does not fail.
        let _ = write!(Escaping(&mut self.0.text), "{value}");
        self.0.text.push(b'"');
        self
    }

    /// Adds a time, as RFC 3339.
    #[must_use]
    pub fn time(self, name: &'static str, value: UnixTime) -> Self {
        named(&mut self.0.text, name);
        let text = self.0.field.text(value.as_secs());
        self.0.text.push(b'"');
        self.0.text.extend_from_slice(text.as_bytes());
        self.0.text.push(b'"');
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, name: &'static str, value: u64) -> Self {
        named(&mut self.0.text, name);
        let _ = write!(self.0.text, "{value}");
        self
    }

    /// Ends the line. It is written with the next [`Lines::write`].
    pub fn end(self, target: &'static str) {
        let line = self.text("target", target);
        line.0.text.extend_from_slice(b"}\n");
    }
}

fn named(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn escaped(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escape(out, text);
    out.push(b'"');
}

/// RFC 8259 §7: quotes, backslashes and control characters; the rest stands as it is.
fn escape(out: &mut Vec<u8>, text: &str) {
    let plain = |b: u8| b >= 0x20 && b != b'"' && b != b'\\';
    if text.bytes().all(plain) {
        return out.extend_from_slice(text.as_bytes());
    }
    for b in text.bytes() {
        match b {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => drop(write!(out, "\\u{b:04x}")),
            _ => out.push(b),
        }
    }
}

struct Escaping<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        escape(self.0, text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// What `tracing` writes in the form of [`crate::logs::init`].
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Everything behind the timestamp, byte for byte.
    fn behind_the_time(line: &[u8]) -> String {
        let text = String::from_utf8(line.to_vec()).unwrap();
        let (head, rest) = text.split_at(text.find(",\"level\"").unwrap());
        let stamp = head
            .strip_prefix("{\"timestamp\":\"")
            .unwrap()
            .strip_suffix('"')
            .unwrap();
        assert_eq!(stamp.len(), "2027-01-15T08:00:00.000000Z".len(), "{stamp}");
        stamp.parse::<jiff::Timestamp>().unwrap();
        rest.to_owned()
    }

    #[test]
    fn a_line_is_what_tracing_would_have_written() {
        let hostile = "a \"quote\", a \\ and\na line\r\t\u{1}\u{7f} é";
        let written = Written::default();
        let make = written.clone();
        let lines = crate::logs::json().with_writer(move || make.clone());
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(
                target: "audit",
                outcome = "issued",
                reason = hostile,
                error = %hostile,
                not_after = rfc3339(UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000))),
                elapsed_ms = 7_u64,
                "csr answered"
            );
        });
        let mut lines = Lines::default();
        lines
            .begin(Level::INFO, "csr answered")
            .text("outcome", "issued")
            .text("reason", hostile)
            .shown("error", &hostile)
            .time(
                "not_after",
                UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000)),
            )
            .number("elapsed_ms", 7)
            .end("audit");
        let theirs = written.0.lock().unwrap().clone();
        assert_eq!(behind_the_time(&lines.text), behind_the_time(&theirs));
        lines.text.clear();
    }

    #[test]
    fn times_follow_their_second() {
        let mut moment = Moment::default();
        for (at, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1, "1970-01-01T00:00:01Z"),
            (0, "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(moment.text(at), text);
        }
    }
}
