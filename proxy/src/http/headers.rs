//! Headers on their way through: what belongs to one hop ends here, what names the client is ours to say.

pub mod aliases;
mod fixed;

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Version};
use signet_policy::Headers;

pub use fixed::is_fixed;

/// `X-Forwarded-Client-Cert`.
pub const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// `X-Forwarded-Proto`.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `X-Request-Id`.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// What the names of all headers about the way that a request took begin with.
const FORWARDED: &str = "x-forwarded-";

/// Longest request id that is taken from a client.
const MAX_REQUEST_ID: usize = 128;
/// Most names that one `Connection` may list.
const MAX_NAMED: usize = 16;

/// A request's headers as policy looks at them: every value in its order, as bytes.
#[derive(Debug)]
pub struct Seen<'a>(pub &'a HeaderMap);

impl Headers for Seen<'_> {
    fn each<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&'a [u8])) {
        for value in self.0.get_all(name) {
            visit(value.as_bytes());
        }
    }
}

/// What a message's hop-by-hop headers asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// `Upgrade`, where `Connection` names it and it is one protocol that we pass on.
    pub upgrade: Option<HeaderValue>,
}

/// `Connection` lists more, or other, than a header's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HopFault {
    /// Not a list of names, or too long a list.
    #[error("Connection is not a short list of header names")]
    Malformed,
    /// It names a header that every hop needs, which would take it from the upstream.
    #[error("Connection names a header that is not its to remove")]
    Protected,
    /// An expectation other than 100-continue.
    #[error("the expectation is not 100-continue")]
    Expectation,
}

impl HopFault {
    /// A stable word for metrics and access records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "connection_malformed",
            Self::Protected => "connection_protected",
            Self::Expectation => "expectation",
        }
    }
}

/// Takes the hop-by-hop headers out of a message (RFC 9110 §7.6.1), and those that its `Connection` names.
/// `TE: trailers` stays, since we pass trailers on.
///
/// # Errors
/// [`HopFault`]; for a response, the caller takes it for an upstream that broke the protocol.
pub fn end_hop(headers: &mut HeaderMap, version: Version) -> Result<Hop, HopFault> {
    let mut hop = Hop::default();
    if let Some(expect) = headers.remove(EXPECT)
        && !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(HopFault::Expectation);
    }
    let trailers = headers
        .get(TE)
        .is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    if version != Version::HTTP_2 {
        let named = named(headers)?;
        for name in named.iter().flatten() {
            if *name == UPGRADE {
                let mut values = headers.get_all(UPGRADE).iter();
                hop.upgrade = values.next().cloned();
                if values.next().is_some() {
                    return Err(HopFault::Malformed);
                }
            }
        }
        for name in named.into_iter().flatten() {
            headers.remove(name);
        }
        for name in [
            CONNECTION,
            KEEP_ALIVE,
            PROXY_CONNECTION,
            UPGRADE,
            HTTP2_SETTINGS,
            TRANSFER_ENCODING,
        ] {
            if headers.contains_key(&name) {
                headers.remove(name);
            }
        }
    }
    for name in [TE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION] {
        if headers.contains_key(&name) {
            headers.remove(name);
        }
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    Ok(hop)
}

/// The headers that `Connection` names.
fn named(headers: &HeaderMap) -> Result<[Option<HeaderName>; MAX_NAMED], HopFault> {
    let mut named = [const { None }; MAX_NAMED];
    let mut count = 0;
    for value in headers.get_all(CONNECTION) {
        for token in value.as_bytes().split(|byte| *byte == b',') {
            let token = token.trim_ascii();
            if token.is_empty()
                || token.eq_ignore_ascii_case(b"close")
                || token.eq_ignore_ascii_case(b"keep-alive")
            {
                continue;
            }
            let name = HeaderName::from_bytes(token).map_err(|_| HopFault::Malformed)?;
            if is_protected(&name) {
                return Err(HopFault::Protected);
            }
            *named.get_mut(count).ok_or(HopFault::Malformed)? = Some(name);
            count += 1;
        }
    }
    Ok(named)
}

/// What a client may not have removed on the way: it frames, routes, or tells the upstream who the client is.
fn is_protected(name: &HeaderName) -> bool {
    let name = name.as_str();
    [
        HOST,
        CONTENT_LENGTH,
        TRANSFER_ENCODING,
        http::header::AUTHORIZATION,
        COOKIE,
        REQUEST_ID,
    ]
    .iter()
    .any(|ours| aliases::alike(ours.as_str(), name))
        || name
            .get(..FORWARDED.len())
            .is_some_and(|start| aliases::alike(FORWARDED, start))
}

/// Takes out of trailers what must not come after a body (RFC 9110 §6.5.1).
pub fn sane_trailers(trailers: &mut HeaderMap) {
    for name in [
        CONNECTION,
        CONTENT_LENGTH,
        EXPECT,
        HOST,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        XFCC,
        FORWARDED_PROTO,
        REQUEST_ID,
        http::header::AUTHORIZATION,
        COOKIE,
        http::header::SET_COOKIE,
        http::header::CONTENT_ENCODING,
        http::header::CONTENT_TYPE,
        http::header::CONTENT_RANGE,
    ] {
        trailers.remove(name);
    }
    aliases::strip(trailers);
}

/// HTTP/2 may send the cookies apart; HTTP/1 has one line for them (RFC 9113 §8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for cookie in std::iter::once(second).chain(cookies) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        headers.insert(COOKIE, joined);
    }
}

/// Whether an `Upgrade` is one that is passed on: a single protocol, and not HTTP/2, whose clear-text upgrade is
/// obsolete (RFC 9113 §3.1) and a known way around the checks of a proxy.
#[must_use]
pub fn passes_on(upgrade: &HeaderValue) -> bool {
    let name = upgrade.as_bytes();
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(byte);
    let http = name.len() >= 3
        && name
            .get(..3)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"h2c"))
        || name
            .get(..4)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"http"));
    !name.is_empty() && name.iter().all(token) && !http
}

/// Leaves one sane request id: the client's, or one of our own.
pub fn settle_request_id(headers: &mut HeaderMap) {
    let mut values = headers.get_all(&REQUEST_ID).iter();
    let sane = match (values.next(), values.next()) {
        (Some(one), None) => {
            let id = one.as_bytes();
            !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.iter().all(u8::is_ascii_graphic)
        }
        _ => false,
    };
    if !sane {
        headers.insert(REQUEST_ID, new_request_id());
    }
}

/// A number that is not guessed, in the form of a UUID of version 4.
#[must_use]
pub fn new_request_id() -> HeaderValue {
    static KEYS: LazyLock<(RandomState, RandomState)> = LazyLock::new(Default::default);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let halves = [KEYS.0.hash_one(count), KEYS.1.hash_one(count)];
    let mut bits = u128::from(halves[0]) << 64 | u128::from(halves[1]);
    bits = bits & !(0xf << 76) | (0x4 << 76);
    bits = bits & !(0x3 << 62) | (0x2 << 62);
    let mut text = [b'-'; 36];
    let mut shift = 128_u32;
    for (at, place) in text.iter_mut().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            continue;
        }
        shift -= 4;
        let digit = usize::try_from(bits >> shift & 0xf).unwrap_or(0);
        *place = HEX.get(digit).copied().unwrap_or(b'0');
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// Says by which scheme the client spoke to the first proxy: what a peer with an identity says of its own client
/// is kept, everybody else is told apart by the transport.
pub fn settle_forwarded_proto(headers: &mut HeaderMap, has_identity: bool) {
    if has_identity {
        let mut values = headers.get_all(&FORWARDED_PROTO).iter();
        let first = values.next().map(HeaderValue::as_bytes);
        if values.next().is_none() && matches!(first, Some(b"http" | b"https")) {
            return;
        }
    }
    let scheme = if has_identity { "https" } else { "http" };
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
}

#[cfg(test)]
mod tests;
