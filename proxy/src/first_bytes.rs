//! What a connection begins with: a ClientHello, something else, or not enough to tell. Pure, over a growing buffer.
//!
//! Three bytes tell TLS from everything else. From then on there is no way back: what began as TLS and cannot be
//! read is malformed, never plaintext.

/// Most bytes of a ClientHello that are read, with the record headers between them. Browsers with post-quantum key
/// shares send about 2 KiB.
pub const MAX_HELLO: usize = 16 * 1024;
/// Longest record that may stand before the handshake (RFC 8446 §5.1).
const MAX_RECORD: usize = 16 * 1024;
/// Most records that one hello may be cut into.
const MAX_RECORDS: usize = 64;
const RECORD_HEAD: usize = 5;
/// Bytes of it each of which may be wrong by itself.
const RECORD_HEAD_CHECKED: usize = 3;
const MESSAGE_HEAD: usize = 4;
/// Longest host name, in the form in which names are written (RFC 1035 §2.3.4).
const MAX_NAME: usize = 255;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// What the bytes so far mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They may still become anything.
    Undecided,
    /// They are no TLS.
    NotTls,
    /// They are the beginning of a ClientHello. Before there are so many bytes in all, nothing more can be told.
    Partial(usize),
    /// They hold a whole ClientHello.
    Hello(Hello),
    /// They began as TLS and are none.
    Malformed(Fault),
}

/// What is wrong with something that began as TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Longer than [`MAX_HELLO`], or in too many records.
    #[error("client hello is longer than is read")]
    TooLong,
    /// A record that is no handshake, is empty, or is longer than TLS allows.
    #[error("record before the client hello is none of a handshake")]
    Record,
    /// A handshake that begins with something else.
    #[error("handshake does not begin with a client hello")]
    NoHello,
    /// Lengths inside of it that do not fit.
    #[error("client hello is broken inside")]
    Broken,
}

/// What a ClientHello asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// The server name.
    pub sni: Option<Box<str>>,
    /// The protocols offered, in their order; nothing if the extension is missing.
    pub alpn: Option<Vec<Box<[u8]>>>,
}

impl Hello {
    /// Whether one of `names` is offered.
    #[must_use]
    pub fn offers(&self, names: &[&[u8]]) -> bool {
        let mut offered = self.alpn.iter().flatten();
        offered.any(|offer| names.contains(&&**offer))
    }
}

/// Looks at the bytes that came so far, all of them.
#[must_use]
pub fn look(bytes: &[u8]) -> Verdict {
    match bytes {
        [] | [HANDSHAKE] | [HANDSHAKE, 3] => return Verdict::Undecided,
        [HANDSHAKE, 3, minor, ..] if *minor <= 4 => {}
        _ => return Verdict::NotTls,
    }
    match assemble(bytes) {
        Err(fault) => Verdict::Malformed(fault),
        Ok(Assembled::Short(_)) if bytes.len() >= MAX_HELLO => Verdict::Malformed(Fault::TooLong),
        Ok(Assembled::Short(by)) => Verdict::Partial((bytes.len() + by).min(MAX_HELLO)),
        Ok(Assembled::Whole(body)) => match parse(&body) {
            Some(hello) => Verdict::Hello(hello),
            None => Verdict::Malformed(Fault::Broken),
        },
    }
}

/// A hello out of its records.
enum Assembled {
    /// Its body.
    Whole(Vec<u8>),
    /// At least so many bytes are missing.
    Short(usize),
}

/// The body of the hello, put together from as many records as it takes.
fn assemble(mut bytes: &[u8]) -> Result<Assembled, Fault> {
    let mut message = Vec::new();
    for _ in 0..=MAX_RECORDS {
        if missing(&message)? == 0 {
            return Ok(Assembled::Whole(body(&message)));
        }
        let Some((head, rest)) = bytes.split_first_chunk::<RECORD_HEAD>() else {
            check_head(bytes)?;
            let told_by_itself = bytes.len() < RECORD_HEAD_CHECKED;
            let by = if told_by_itself {
                1
            } else {
                RECORD_HEAD - bytes.len()
            };
            return Ok(Assembled::Short(by));
        };
        check_head(head)?;
        let [_, _, _, high, low] = *head;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || length > MAX_RECORD {
            return Err(Fault::Record);
        }
        let here = rest.get(..length).unwrap_or(rest);
        message.extend_from_slice(here);
        if here.len() < length {
            return Ok(match missing(&message)? {
                0 => Assembled::Whole(body(&message)),
                missing => Assembled::Short(missing.min(length - here.len())),
            });
        }
        bytes = rest.get(length..).unwrap_or_default();
    }
    Err(Fault::TooLong)
}

/// How much of the message is missing, at least: its head tells its length.
fn missing(message: &[u8]) -> Result<usize, Fault> {
    if let Some(kind) = message.first()
        && *kind != CLIENT_HELLO
    {
        return Err(Fault::NoHello);
    }
    let Some(length) = body_length(message) else {
        // The first byte may be wrong by itself.
        return Ok(if message.is_empty() {
            1
        } else {
            MESSAGE_HEAD - message.len()
        });
    };
    if length > MAX_HELLO {
        return Err(Fault::TooLong);
    }
    Ok((MESSAGE_HEAD + length).saturating_sub(message.len()))
}

fn body_length(message: &[u8]) -> Option<usize> {
    match message {
        [_, a, b, c, ..] => Some(usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c)),
        _ => None,
    }
}

/// Without its head, and without what follows it in its last record.
fn body(message: &[u8]) -> Vec<u8> {
    let end = body_length(message).map_or(0, |length| MESSAGE_HEAD + length);
    message.get(MESSAGE_HEAD..end).unwrap_or_default().to_vec()
}

/// As much of a record's head as is there.
fn check_head(head: &[u8]) -> Result<(), Fault> {
    match head {
        [] | [HANDSHAKE] | [HANDSHAKE, 3] => Ok(()),
        [HANDSHAKE, 3, minor, ..] if *minor <= 4 => Ok(()),
        _ => Err(Fault::Record),
    }
}

/// A cursor over lengths and what they announce.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn short(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(*self.take(1)?.first()?);
        self.take(length)
    }

    fn number(&mut self) -> Option<u16> {
        let (head, rest) = self.0.split_first_chunk::<2>()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*head))
    }

    fn long(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.number()?);
        self.take(length)
    }
}

fn parse(body: &[u8]) -> Option<Hello> {
    let mut parts = Parts(body);
    // Version and random, session, cipher suites, compression.
    parts.take(2 + 32)?;
    parts.short()?;
    parts.long()?;
    parts.short()?;
    let mut hello = Hello::default();
    if parts.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Parts(parts.long()?);
    if !parts.0.is_empty() {
        return None;
    }
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let content = extensions.long()?;
        match kind {
            // Of an extension that stands twice nothing good comes; rustls refuses it, and so do we.
            SERVER_NAME if hello.sni.is_none() => hello.sni = server_name(content)?,
            ALPN if hello.alpn.is_none() => hello.alpn = Some(protocols(content)?),
            SERVER_NAME | ALPN => return None,
            _ => {}
        }
    }
    Some(hello)
}

/// The host name; a name of another kind is passed over. What no host can be called is no name.
fn server_name(content: &[u8]) -> Option<Option<Box<str>>> {
    let mut names = Parts(Parts(content).long()?);
    let mut found = None;
    while !names.0.is_empty() {
        let kind = *names.take(1)?.first()?;
        let name = names.long()?;
        if kind == 0 && (name.is_empty() || name.len() > MAX_NAME) {
            return None;
        }
        if kind == 0 && found.is_none() {
            let text = std::str::from_utf8(name).ok().filter(|text| text.is_ascii())?;
            found = Some(text.to_ascii_lowercase().into_boxed_str());
        }
    }
    Some(found)
}

fn protocols(content: &[u8]) -> Option<Vec<Box<[u8]>>> {
    let mut names = Parts(Parts(content).long()?);
    let mut all = Vec::new();
    while !names.0.is_empty() {
        let name = names.short()?;
        if name.is_empty() {
            return None;
        }
        all.push(name.into());
    }
    Some(all)
}

#[cfg(test)]
mod tests;
