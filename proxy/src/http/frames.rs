//! What an HTTP/2 client may send besides requests: a budget for frames that cost us and bring nothing.
//!
//! The parser bounds what it keeps; it does not bound how often it is made to work for nothing. Here the frames
//! of a connection are counted by their nine-byte heads: floods of pings, settings, priorities, empty data or
//! resets end it. Pure: bytes and a time in, a fault out.

use std::time::Duration;

/// Length of the preface that a client begins with.
const PREFACE_BYTES: usize = 24;
/// Length of a frame's head (RFC 9113 §4.1).
const HEAD_BYTES: usize = 9;
/// So many idle frames may come at once…
const IDLE_BURST: u32 = 200;
/// …and one more in each of these. A client that measures latency pings a few times a second.
const IDLE_EVERY: Duration = Duration::from_millis(50);
/// So many resets are let pass whatever their share.
const FREE_RESETS: u64 = 200;
/// CONTINUATION frames of one header block. The list is bounded in bytes as well; empty ones are not.
const MAX_CONTINUATIONS: u32 = 32;

/// Why a connection is ended for its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum FrameFault {
    /// PING, SETTINGS, PRIORITY, unknown frames or DATA without data, too often.
    #[error("frames that bring nothing come too fast")]
    Flood = 32,
    /// More than half of many streams were reset by the client.
    #[error("the client resets most of its requests")]
    RapidReset = 33,
    /// A header block in too many pieces.
    #[error("a header block comes in too many CONTINUATION frames")]
    Continuations = 34,
}

impl FrameFault {
    /// A stable word for metrics and access records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flood => "http2_flood",
            Self::RapidReset => "http2_rapid_reset",
            Self::Continuations => "http2_continuations",
        }
    }

    /// The fault of this number, as it is kept in an atomic.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Flood, Self::RapidReset, Self::Continuations]
            .into_iter()
            .find(|fault| *fault as u8 == number)
    }
}

/// The machine.
#[derive(Debug)]
pub struct Frames {
    /// Bytes to pass over before the next head: the preface, or a frame's payload.
    skip: usize,
    head: [u8; HEAD_BYTES],
    filled: usize,
    idle: u32,
    /// When `idle` was last made smaller.
    eased: Duration,
    streams: u64,
    resets: u64,
    continuations: u32,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            skip: PREFACE_BYTES,
            head: [0; HEAD_BYTES],
            filled: 0,
            idle: 0,
            eased: Duration::ZERO,
            streams: 0,
            resets: 0,
            continuations: 0,
        }
    }
}

impl Frames {
    /// Looks at the next bytes. `now` is the time since the connection began, asked for only where it matters.
    ///
    /// # Errors
    /// [`FrameFault`].
    pub fn feed(&mut self, mut bytes: &[u8], now: impl Fn() -> Duration) -> Result<(), FrameFault> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let wanted = self.head.get_mut(self.filled..).unwrap_or_default();
            let taken = if self.skip > 0 {
                0
            } else {
                wanted.len().min(bytes.len())
            };
            let (some, rest) = bytes.split_at(taken);
            for (place, byte) in wanted.iter_mut().zip(some) {
                *place = *byte;
            }
            self.filled += taken;
            bytes = rest;
            if self.filled == HEAD_BYTES {
                self.filled = 0;
                self.frame(&now)?;
            }
        }
        Ok(())
    }

    fn frame(&mut self, now: &impl Fn() -> Duration) -> Result<(), FrameFault> {
        let [high, middle, low, kind, flags, ..] = self.head;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.skip = length;
        let last = flags & 0x1 != 0;
        match kind {
            // DATA: empty ones are honest only where they end a stream.
            0x0 if length > 0 || last => Ok(()),
            // HEADERS
            0x1 => {
                self.streams += 1;
                self.continuations = 0;
                Ok(())
            }
            // RST_STREAM
            0x3 => {
                self.resets += 1;
                let most = self.resets > FREE_RESETS && self.resets * 2 > self.streams;
                if most { Err(FrameFault::RapidReset) } else { Ok(()) }
            }
            // Answers to our own SETTINGS and PING are as many as we asked for.
            0x4 | 0x6 if last => Ok(()),
            // GOAWAY, WINDOW_UPDATE: the latter follow the data that we send.
            0x7 | 0x8 => Ok(()),
            // CONTINUATION
            0x9 => {
                self.continuations += 1;
                if self.continuations > MAX_CONTINUATIONS {
                    return Err(FrameFault::Continuations);
                }
                Ok(())
            }
            _ => self.idle(now()),
        }
    }

    fn idle(&mut self, now: Duration) -> Result<(), FrameFault> {
        let since = now.saturating_sub(self.eased);
        let eased = since.as_millis() / IDLE_EVERY.as_millis();
        if eased > 0 {
            self.idle = self.idle.saturating_sub(u32::try_from(eased).unwrap_or(u32::MAX));
            self.eased = now;
        }
        self.idle += 1;
        if self.idle > IDLE_BURST {
            Err(FrameFault::Flood)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u8::try_from(payload).unwrap();
        let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        bytes.extend(std::iter::repeat_n(0xff, payload));
        bytes
    }

    fn begun() -> Frames {
        let mut frames = Frames::default();
        frames
            .feed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", || Duration::ZERO)
            .unwrap();
        frames
    }

    fn many(count: usize, one: &[u8]) -> Result<(), FrameFault> {
        begun().feed(&one.repeat(count), || Duration::ZERO)
    }

    #[test]
    fn frames_that_bring_nothing_are_let_pass_in_a_burst_and_not_in_a_flood() {
        for (name, one) in [
            ("ping", frame(0x6, 0, 8)),
            ("settings", frame(0x4, 0, 6)),
            ("priority", frame(0x2, 0, 5)),
            ("empty data", frame(0x0, 0, 0)),
            ("unknown", frame(0xee, 0, 3)),
        ] {
            assert_eq!(many(200, &one), Ok(()), "{name}");
            assert_eq!(many(201, &one), Err(FrameFault::Flood), "{name}");
        }
    }

    #[test]
    fn what_a_busy_honest_client_sends_is_no_flood() {
        for (name, one) in [
            ("data", frame(0x0, 0, 10)),
            ("end of data", frame(0x0, 1, 0)),
            ("requests", frame(0x1, 0x5, 20)),
            ("window updates", frame(0x8, 0, 4)),
            ("answers to pings", frame(0x6, 1, 8)),
            ("answers to settings", frame(0x4, 1, 0)),
            (
                "one request in two reset",
                [frame(0x1, 5, 9), frame(0x1, 5, 9), frame(0x3, 0, 4)].concat(),
            ),
        ] {
            assert_eq!(many(10_000, &one), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_ping_now_and_then_goes_on_for_ever() {
        let mut frames = begun();
        for second in 0..100_000 {
            frames
                .feed(&frame(0x6, 0, 8), || Duration::from_millis(60 * second))
                .unwrap();
        }
    }

    #[test]
    fn requests_that_are_reset_at_once_end_the_connection() {
        let one = [frame(0x1, 5, 9), frame(0x3, 0, 4)].concat();
        assert_eq!(many(200, &one), Ok(()));
        assert_eq!(many(201, &one), Err(FrameFault::RapidReset));
    }

    #[test]
    fn a_header_block_has_so_many_pieces() {
        let pieces = |count: usize| [frame(0x1, 0, 1), frame(0x9, 0, 0).repeat(count)].concat();
        assert_eq!(many(10, &pieces(32)), Ok(()));
        assert_eq!(many(1, &pieces(33)), Err(FrameFault::Continuations));
    }

    #[test]
    fn how_bytes_are_cut_into_reads_changes_nothing() {
        let bytes = [frame(0x1, 5, 30), frame(0x6, 0, 8).repeat(201)].concat();
        let mut frames = begun();
        let cut = bytes
            .iter()
            .position(|byte| frames.feed(&[*byte], || Duration::ZERO).is_err());
        let last_head = bytes.len() - 8 - 1;
        assert_eq!(
            cut,
            Some(last_head),
            "at the head of the ping that is one too many"
        );
    }
}
