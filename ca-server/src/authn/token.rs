//! A bearer token as a secret: bounded, never printed, wiped.

use std::fmt;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

/// Longest token read, in bytes. Projected tokens have about 1,000.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// The one scheme, matched exactly, as istiod does on gRPC.
const PREFIX: &[u8] = b"Bearer ";

/// A token where it stands in a request's headers: enough for asking whether it is known already. Nothing
/// is copied that would have to be wiped.
pub struct Presented<'a> {
    header: &'a HeaderValue,
    token: &'a [u8],
}

impl<'a> Presented<'a> {
    /// The first `authorization` value with the scheme `Bearer `.
    #[must_use]
    pub fn from_headers(headers: &'a HeaderMap) -> Option<Self> {
        headers.get_all(AUTHORIZATION).iter().find_map(|header| {
            let token = header.as_bytes().strip_prefix(PREFIX)?.trim_ascii();
            Some(Self { header, token })
        })
    }

    /// The whole header.
    pub(super) fn header(&self) -> &HeaderValue {
        self.header
    }

    /// As [`BearerToken::hash`].
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(self.token)
    }

    /// The token as a secret of our own; nothing when it is not even ASCII text.
    #[must_use]
    pub fn to_token(&self) -> Option<BearerToken> {
        let text = std::str::from_utf8(self.token)
            .ok()
            .filter(|text| text.is_ascii());
        text.map(BearerToken::new)
    }
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Presented({} bytes)", self.token.len())
    }
}

/// SHA-256 of a token: how caches know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    fn of(token: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, token).as_ref());
        Self(hash)
    }
}

/// A token as sent. Its length is not checked yet; its claims are not read yet.
pub struct BearerToken(Zeroizing<String>);

impl BearerToken {
    /// Takes a token over; surrounding white space is no part of it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.trim().to_owned()))
    }

    /// Its hash.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(self.0.as_bytes())
    }

    /// The token itself: for the API server that issued it, and for checking its parts.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerToken({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presented(values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        let token = Presented::from_headers(&headers)?.to_token();
        Some(token.map_or("(no text)".into(), |token| token.expose().to_owned()))
    }

    #[test]
    fn the_first_bearer_token_counts_and_white_space_around_it_does_not() {
        assert_eq!(presented(&[]), None);
        assert_eq!(presented(&["Basic abc", "bearer x"]), None);
        assert_eq!(
            presented(&["Basic abc", "Bearer a.b.c ", "Bearer z"]),
            Some("a.b.c".into())
        );
        assert_eq!(presented(&["Bearer "]), Some(String::new()));
        assert_eq!(presented(&["Bearer a\u{e9}"]), Some("(no text)".into()));
    }

    #[test]
    fn a_token_has_one_hash_however_it_is_held() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, "Bearer  a.b.c".parse().unwrap());
        let presented = Presented::from_headers(&headers).unwrap();
        assert_eq!(presented.hash(), BearerToken::new("a.b.c").hash());
        assert_eq!(format!("{presented:?}"), "Presented(5 bytes)");
    }
}
