//! Names that an application may not tell apart.
//!
//! Many servers hand headers to applications as variables, in which every sign that is no letter and no digit is the
//! same one: to them `X_Forwarded_Client_Cert` is `X-Forwarded-Client-Cert`. What must not be forged under its own
//! name must not be forged under such a one either.

use http::HeaderMap;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use super::{FORWARDED_PROTO, HTTP2_SETTINGS, KEEP_ALIVE, PROXY_CONNECTION, REQUEST_ID, XFCC};

/// What this hop takes away, frames by, or says itself.
const OURS: [HeaderName; 16] = [
    XFCC,
    FORWARDED_PROTO,
    REQUEST_ID,
    HOST,
    CONNECTION,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    TE,
    TRAILER,
    UPGRADE,
    EXPECT,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HTTP2_SETTINGS,
];

/// Whether two names are one to somebody who does not tell signs apart. Both are in small letters, as names of
/// headers are here.
#[must_use]
pub fn alike(one: &str, other: &str) -> bool {
    let sign = |byte: u8| if byte.is_ascii_alphanumeric() { byte } else { b'-' };
    one.len() == other.len() && one.bytes().map(sign).eq(other.bytes().map(sign))
}

/// Whether a name has signs that a sound one does without.
fn is_odd(name: &HeaderName) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !name.as_str().bytes().all(sound)
}

/// Takes out what an application may take for a header that is ours.
pub fn strip(headers: &mut HeaderMap) {
    strip_if(headers, |name| OURS.iter().any(|ours| alike(ours.as_str(), name)));
}

/// Takes out `name`, and what an application may take for it.
pub fn take(headers: &mut HeaderMap, name: &HeaderName) {
    headers.remove(name);
    take_others(headers, name);
}

/// Takes out what an application may take for `name`; `name` itself stays.
pub fn take_others(headers: &mut HeaderMap, name: &HeaderName) {
    // One that has such signs itself may be written without them.
    if is_odd(name) {
        let others: Vec<HeaderName> = headers
            .keys()
            .filter(|other| *other != name && alike(name.as_str(), other.as_str()))
            .cloned()
            .collect();
        for other in others {
            headers.remove(other);
        }
    } else {
        strip_if(headers, |other| alike(name.as_str(), other));
    }
}

/// Takes out headers with odd names, where they are meant. Hardly any message has one.
fn strip_if(headers: &mut HeaderMap, meant: impl Fn(&str) -> bool) {
    while let Some(name) = headers.keys().find(|name| is_odd(name) && meant(name.as_str())) {
        let name = name.clone();
        headers.remove(name);
    }
}
