//! How the bytes of an HTTP/1 client are cut into messages: a strict second opinion beside the parser.
//!
//! The parser takes what RFC 9112 lets a lenient server take: bare line feeds, one length repeated, a length beside
//! chunks. Two servers in a row that are lenient in different ways are how requests are smuggled, so here every
//! such message ends the connection with 400, before a byte of it is acted upon. Pure: bytes in, a fault out.

/// Most bytes of one header line that are kept for a look at its name and value. A line about the framing that
/// is longer has no honest reason.
const KEPT_LINE: usize = 256;
/// Most bytes of extensions in one chunk's line.
const MAX_EXTENSION: usize = 256;
/// Most hexadecimal digits of a chunk's size: 2^60 bytes are more than any connection carries.
const MAX_SIZE_DIGITS: u8 = 15;

/// Why a message is refused for its framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum FramingFault {
    /// A line ends in LF alone.
    #[error("a line ends in a line feed without a carriage return")]
    BareLineFeed = 1,
    /// Content-Length twice, equal or not.
    #[error("Content-Length stands there twice")]
    SeveralLengths = 2,
    /// Content-Length that is not one decimal number.
    #[error("Content-Length is not a number")]
    BadLength = 3,
    /// Content-Length beside Transfer-Encoding.
    #[error("Content-Length and Transfer-Encoding stand side by side")]
    LengthAndEncoding = 4,
    /// Transfer-Encoding other than one `chunked`.
    #[error("Transfer-Encoding is not exactly chunked")]
    BadEncoding = 5,
    /// A chunk without a plain hexadecimal size, or one that does not end where it says.
    #[error("a chunk's size line or end is malformed")]
    BadChunk = 6,
    /// Bytes after a request to upgrade, before it was answered.
    #[error("bytes follow a request to upgrade before its answer")]
    BeforeUpgrade = 7,
}

impl FramingFault {
    /// A stable word for metrics and access records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BareLineFeed => "framing_bare_line_feed",
            Self::SeveralLengths => "framing_several_lengths",
            Self::BadLength => "framing_bad_length",
            Self::LengthAndEncoding => "framing_length_and_encoding",
            Self::BadEncoding => "framing_bad_encoding",
            Self::BadChunk => "framing_bad_chunk",
            Self::BeforeUpgrade => "framing_before_upgrade",
        }
    }

    /// The fault of this number, as it is kept in an atomic.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [
            Self::BareLineFeed,
            Self::SeveralLengths,
            Self::BadLength,
            Self::LengthAndEncoding,
            Self::BadEncoding,
            Self::BadChunk,
            Self::BeforeUpgrade,
        ]
        .into_iter()
        .find(|fault| *fault as u8 == number)
    }
}

/// What became of a request to upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Upgrade {
    /// It was not answered yet.
    Undecided = 0,
    /// The connection goes on as HTTP.
    Refused = 1,
    /// What follows is another protocol.
    Accepted = 2,
}

/// Where in the stream of bytes we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before or in the request line.
    Request,
    /// In the header lines.
    Headers,
    /// In a body that has so many bytes left.
    Body(u64),
    /// In the size of a chunk, after so many digits.
    Size(u8),
    /// In the extensions of a chunk.
    Extension(usize),
    /// The LF after a chunk's size.
    SizeEnd,
    /// In the data of a chunk.
    Data(u64),
    /// The CR, then the LF after a chunk's data.
    DataCr,
    DataLf,
    /// In the trailer lines.
    Trailers,
    /// After a request that asks for an upgrade.
    Upgrading,
    /// Another protocol: none of our business.
    Raw,
}

/// The machine.
#[derive(Debug)]
pub struct Framing {
    at: At,
    /// What there is of a line that began in an earlier read; at most [`KEPT_LINE`] bytes.
    line: Vec<u8>,
    /// The line was longer than what was kept.
    cut: bool,
    /// The last byte seen of the current line.
    last: u8,
    /// Any byte of the current line was seen.
    begun: bool,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    size: u64,
    /// A request to upgrade ended in the bytes that were looked at last.
    asked: bool,
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            at: At::Request,
            line: Vec::new(),
            cut: false,
            last: 0,
            begun: false,
            length: None,
            chunked: false,
            upgrade: false,
            size: 0,
            asked: false,
        }
    }
}

impl Framing {
    /// Looks at the next bytes. `upgrade` says what became of the last request to upgrade, when that is asked.
    ///
    /// # Errors
    /// The offset of the byte at which the message is refused, and why.
    pub fn feed(&mut self, bytes: &[u8], upgrade: impl Fn() -> Upgrade) -> Result<(), (usize, FramingFault)> {
        let mut at = 0;
        self.asked = false;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let step = match self.at {
                At::Raw => return Ok(()),
                At::Request | At::Headers | At::Trailers => self.lines(rest),
                At::Body(left) | At::Data(left) => Ok(self.skip(left, rest.len())),
                At::Upgrading => self.upgraded(if self.asked { Upgrade::Undecided } else { upgrade() }),
                _ => rest
                    .first()
                    .map_or(Ok(0), |byte| self.chunk_byte(*byte).map(|()| 1)),
            };
            match step {
                Ok(taken) => at += taken,
                Err((offset, fault)) => return Err((at + offset, fault)),
            }
        }
        Ok(())
    }

    /// Whether a head has begun and is not complete.
    #[must_use]
    pub fn mid_head(&self) -> bool {
        self.at == At::Headers || (self.at == At::Request && self.begun)
    }

    /// Whether the bytes that were looked at last ended a request to upgrade: what was said of an earlier one
    /// does not hold for it.
    #[must_use]
    pub fn asks_to_upgrade(&self) -> bool {
        self.asked
    }

    /// One line, or what there is of it. Returns how many bytes were taken.
    fn lines(&mut self, rest: &[u8]) -> Result<usize, (usize, FramingFault)> {
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            self.keep(rest);
            return Ok(rest.len());
        };
        let here = rest.get(..end).unwrap_or_default();
        if here.last().copied().unwrap_or(self.last) != b'\r' {
            return Err((end, FramingFault::BareLineFeed));
        }
        let verdict = if self.begun {
            self.keep(here);
            let line = std::mem::take(&mut self.line);
            let verdict = self.line(without_cr(&line));
            self.line = line;
            verdict
        } else {
            self.line(without_cr(here))
        };
        self.line.clear();
        (self.cut, self.begun, self.last) = (false, false, 0);
        verdict.map(|()| end + 1).map_err(|fault| (end, fault))
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = KEPT_LINE - self.line.len().min(KEPT_LINE);
        self.cut |= bytes.len() > room;
        self.line
            .extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
        if let Some(last) = bytes.last() {
            self.last = *last;
            self.begun = true;
        }
    }

    /// A whole line, without its end.
    fn line(&mut self, line: &[u8]) -> Result<(), FramingFault> {
        match self.at {
            // An empty line before a request is what some clients send after a body.
            At::Request if line.is_empty() => Ok(()),
            At::Request => {
                self.at = At::Headers;
                Ok(())
            }
            At::Headers if line.is_empty() => {
                self.end_of_head();
                Ok(())
            }
            At::Headers => self.header(line),
            _ => {
                if line.is_empty() {
                    self.end_of_message();
                }
                Ok(())
            }
        }
    }

    fn header(&mut self, line: &[u8]) -> Result<(), FramingFault> {
        // Nearly every header is told apart by its first byte.
        if !matches!(line.first(), Some(b'c' | b'C' | b't' | b'T' | b'u' | b'U')) {
            return Ok(());
        }
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().unwrap_or_default().trim_ascii();
        let value = parts.next().unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.is_some() {
                return Err(FramingFault::SeveralLengths);
            }
            if self.chunked {
                return Err(FramingFault::LengthAndEncoding);
            }
            let length = decimal(value).filter(|_| !self.cut);
            self.length = Some(length.ok_or(FramingFault::BadLength)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.length.is_some() {
                return Err(FramingFault::LengthAndEncoding);
            }
            if self.chunked || self.cut || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(FramingFault::BadEncoding);
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        }
        Ok(())
    }

    fn end_of_head(&mut self) {
        match self.length.take() {
            Some(length) if length > 0 => self.at = At::Body(length),
            _ if self.chunked => {
                (self.chunked, self.size) = (false, 0);
                self.at = At::Size(0);
            }
            _ => self.end_of_message(),
        }
    }

    fn end_of_message(&mut self) {
        let upgrade = std::mem::take(&mut self.upgrade);
        self.asked |= upgrade;
        self.at = if upgrade { At::Upgrading } else { At::Request };
    }

    /// The next byte comes after a request to upgrade.
    fn upgraded(&mut self, verdict: Upgrade) -> Result<usize, (usize, FramingFault)> {
        self.at = match verdict {
            Upgrade::Undecided => return Err((0, FramingFault::BeforeUpgrade)),
            Upgrade::Refused => At::Request,
            Upgrade::Accepted => At::Raw,
        };
        Ok(0)
    }

    /// Passes over bytes of a body.
    fn skip(&mut self, left: u64, there: usize) -> usize {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(there);
        let left = left.saturating_sub(u64::try_from(taken).unwrap_or(u64::MAX));
        match self.at {
            At::Body(_) if left == 0 => self.end_of_message(),
            At::Body(_) => self.at = At::Body(left),
            _ if left == 0 => self.at = At::DataCr,
            _ => self.at = At::Data(left),
        }
        taken
    }

    fn chunk_byte(&mut self, byte: u8) -> Result<(), (usize, FramingFault)> {
        let bad = Err((0, FramingFault::BadChunk));
        self.at = match (self.at, byte) {
            (At::Size(digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < MAX_SIZE_DIGITS => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                self.size = (self.size << 4) | digit;
                At::Size(digits + 1)
            }
            (At::Size(1..), b'\r') | (At::Extension(_), b'\r') => At::SizeEnd,
            (At::Size(1..), b';') => At::Extension(0),
            (At::Extension(bytes), b'\t' | b' '..=b'~') if bytes < MAX_EXTENSION => At::Extension(bytes + 1),
            (At::SizeEnd, b'\n') if self.size == 0 => At::Trailers,
            (At::SizeEnd, b'\n') => At::Data(std::mem::take(&mut self.size)),
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size(0),
            _ => return bad,
        };
        Ok(())
    }
}

/// What there is of the next request: empty lines before it are none of it (RFC 9112 §2.2).
#[must_use]
pub fn without_empty_lines(mut bytes: &[u8]) -> &[u8] {
    while let Some(rest) = bytes.strip_prefix(b"\r\n") {
        bytes = rest;
    }
    bytes
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
