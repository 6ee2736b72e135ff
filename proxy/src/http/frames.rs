//! What an HTTP/2 client may send besides requests: a budget for frames that cost us and bring nothing.
//!
//! The parser bounds what it keeps; it does not bound how often it is made to work for nothing. Here the frames
//! of a connection are counted by their nine-byte heads: floods of pings, settings, priorities, windows, empty data or
//! resets end it. What we send is counted too, because honest clients answer it: with windows for what they took, and
//! with pings by which some measure how fast it comes. Pure: bytes and a time in, a fault out.

mod heads;

use std::time::Duration;

use heads::{DATA, Head, Heads};

/// Length of the preface that a client begins with.
const PREFACE_BYTES: usize = 24;
/// So many idle frames may come at once…
const IDLE_BURST: u32 = 200;
/// …and one more in each of these. A client that measures latency pings a few times a second.
const IDLE_EVERY: Duration = Duration::from_millis(50);
/// So many frames of upkeep come with each stream: a window and a priority, each told twice at most.
const UPKEEP_OF_STREAM: u64 = 4;
/// So many answer each DATA frame of ours: a window for the stream, one for the connection, a ping…
const UPKEEP_OF_DATA: u64 = 4;
/// …and two more each of so many bytes of it: some clients open their windows by what they have read, not by frames.
const UPKEEP_BYTES: usize = 1024;
/// So many resets are let pass whatever their share.
const FREE_RESETS: u64 = 200;
/// CONTINUATION frames of one header block. The list is bounded in bytes as well; empty ones are not.
const MAX_CONTINUATIONS: u32 = 32;

const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
/// END_STREAM of DATA and HEADERS, ACK of SETTINGS and PING.
const LAST: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// Why a connection is ended for its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum FrameFault {
    /// Frames of upkeep, unknown ones or DATA without data, too often.
    #[error("frames that bring nothing come too fast")]
    Flood = 32,
    /// More than half of many streams were reset by the client before they were answered to the end.
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
    received: Heads,
    sent: Heads,
    idle: u32,
    /// When `idle` was last made smaller.
    eased: Duration,
    /// Frames of upkeep that are still owed to what came and went.
    upkeep: u64,
    streams: u64,
    /// Of the streams so far.
    highest: u32,
    /// Header blocks that began no stream.
    trailers: u64,
    resets: u64,
    /// Streams of which the whole answer was sent.
    answered: u64,
    continuations: u32,
    /// Bytes of the last header block, or of the last frame that is none.
    kept: usize,
    /// More of the header block is to follow in frames of its own.
    in_block: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            received: Heads::after(PREFACE_BYTES),
            sent: Heads::after(0),
            idle: 0,
            eased: Duration::ZERO,
            upkeep: 0,
            streams: 0,
            highest: 0,
            trailers: 0,
            resets: 0,
            answered: 0,
            continuations: 0,
            kept: 0,
            in_block: false,
        }
    }
}

impl Frames {
    /// Looks at the next bytes. `now` is the time since the connection began, asked for only where it matters.
    ///
    /// # Errors
    /// [`FrameFault`].
    pub fn feed(&mut self, mut bytes: &[u8], now: impl Fn() -> Duration) -> Result<(), FrameFault> {
        while let Some(head) = self.received.next(&mut bytes) {
            self.frame(head, &now)?;
        }
        Ok(())
    }

    /// These are the next bytes that go to the client.
    pub fn sent(&mut self, mut bytes: &[u8]) {
        while let Some(head) = self.sent.next(&mut bytes) {
            if head.kind == DATA {
                let pieces = u64::try_from(head.carries / UPKEEP_BYTES).unwrap_or(u64::MAX);
                let owed = UPKEEP_OF_DATA.saturating_add(pieces.saturating_mul(2));
                self.upkeep = self.upkeep.saturating_add(owed);
            }
            if matches!(head.kind, DATA | HEADERS) && head.flags & LAST != 0 {
                self.answered = self.answered.saturating_add(1);
            }
        }
    }

    /// Bytes that came and cannot be acted upon, because the rest of their header block or frame is missing. DATA
    /// does not count.
    #[must_use]
    pub fn unread(&self) -> usize {
        let missing = self.received.missing();
        if self.in_block || missing > 0 {
            self.kept.saturating_sub(missing)
        } else {
            0
        }
    }

    fn frame(&mut self, head: Head, now: &impl Fn() -> Duration) -> Result<(), FrameFault> {
        let last = head.flags & LAST != 0;
        self.keep(head);
        match head.kind {
            // DATA: empty ones are honest only where they end a stream.
            DATA if head.carries > 0 || last => Ok(()),
            HEADERS => {
                self.continuations = 0;
                self.headers(head.stream, now)
            }
            // RST_STREAM
            0x3 => self.reset(),
            // PRIORITY, WINDOW_UPDATE, PRIORITY_UPDATE, and PING that is no answer
            0x2 | 0x8 | 0x10 => self.upkeep(now),
            0x6 if !last => self.upkeep(now),
            CONTINUATION => {
                self.continuations += 1;
                if self.continuations > MAX_CONTINUATIONS {
                    return Err(FrameFault::Continuations);
                }
                Ok(())
            }
            // Answers to our SETTINGS and PING among them, of which there are few.
            _ => self.idle(now()),
        }
    }

    /// What the parser keeps until the rest is there: a header block until it is whole, any other frame until it is.
    /// DATA is left to the windows.
    fn keep(&mut self, head: Head) {
        self.kept = match head.kind {
            DATA => 0,
            CONTINUATION => self.kept.saturating_add(head.carries),
            _ => head.carries,
        };
        self.in_block = matches!(head.kind, HEADERS | CONTINUATION) && head.flags & END_HEADERS == 0;
    }

    fn headers(&mut self, stream: u32, now: &impl Fn() -> Duration) -> Result<(), FrameFault> {
        if stream > self.highest {
            self.highest = stream;
            self.streams += 1;
            self.upkeep = self.upkeep.saturating_add(UPKEEP_OF_STREAM);
            return Ok(());
        }
        self.trailers += 1;
        // Each stream has them once.
        if self.trailers > self.streams {
            return self.idle(now());
        }
        Ok(())
    }

    /// Who resets what was answered to its end is not in haste: clients of gRPC do when they are refused before they
    /// have said all.
    fn reset(&mut self) -> Result<(), FrameFault> {
        self.resets += 1;
        let let_pass = self.streams.saturating_add(self.answered.saturating_mul(2));
        let most = self.resets > FREE_RESETS && self.resets.saturating_mul(2) > let_pass;
        if most { Err(FrameFault::RapidReset) } else { Ok(()) }
    }

    fn upkeep(&mut self, now: &impl Fn() -> Duration) -> Result<(), FrameFault> {
        match self.upkeep.checked_sub(1) {
            Some(left) => self.upkeep = left,
            None => return self.idle(now()),
        }
        Ok(())
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
mod tests;
