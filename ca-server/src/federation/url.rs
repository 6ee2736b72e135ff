//! The URL of a bundle endpoint (SPIFFE Federation §5.2.1.1): `https`, no userinfo.

use std::fmt;
use std::str::FromStr;

use http::Uri;

/// Longest URL read.
const MAX_BYTES: usize = 2048;
const DEFAULT_PORT: u16 = 443;

/// A checked URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointUrl {
    uri: Uri,
    host: String,
    port: u16,
}

/// Why a text is no URL of a bundle endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlFault {
    /// No URL at all, or one with characters that none may have.
    #[error("is no URL")]
    Malformed,
    /// Another scheme than `https`, or none.
    #[error("must begin with https://")]
    Scheme,
    /// A user or password in it.
    #[error("may not hold a user name or password")]
    Userinfo,
    /// A `#`, which no server ever sees.
    #[error("may not have a fragment")]
    Fragment,
}

impl FromStr for EndpointUrl {
    type Err = UrlFault;

    fn from_str(text: &str) -> Result<Self, UrlFault> {
        if text.len() > MAX_BYTES {
            return Err(UrlFault::Malformed);
        }
        if text.contains('#') {
            return Err(UrlFault::Fragment);
        }
        let uri: Uri = text.parse().map_err(|_| UrlFault::Malformed)?;
        if uri.scheme_str() != Some("https") {
            return Err(UrlFault::Scheme);
        }
        let authority = uri.authority().ok_or(UrlFault::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(UrlFault::Userinfo);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let explicit = authority.as_str().len() > authority.host().len();
        let port = authority.port_u16();
        if host.is_empty() || (explicit && port.is_none_or(|port| port == 0)) {
            return Err(UrlFault::Malformed);
        }
        Ok(Self {
            host: host.to_owned(),
            port: port.unwrap_or(DEFAULT_PORT),
            uri,
        })
    }
}

impl EndpointUrl {
    /// Host name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as the header `host` wants them.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.uri.authority().map_or("", http::uri::Authority::as_str)
    }

    /// Path and query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.path_and_query().map_or("/", |path| path.as_str())
    }

    /// Where a redirect from here leads: an absolute URL, or a path on the same host.
    ///
    /// # Errors
    /// A [`UrlFault`] when that is no URL of a bundle endpoint.
    pub fn redirected(&self, location: &str) -> Result<Self, UrlFault> {
        if location.starts_with("//") {
            return format!("https:{location}").parse();
        }
        if location.starts_with('/') {
            return format!("https://{}{location}", self.authority()).parse();
        }
        if location.contains("://") {
            return location.parse();
        }
        let path = self.uri.path();
        let directory = path.rfind('/').and_then(|end| path.get(..=end)).unwrap_or("/");
        format!("https://{}{directory}{location}", self.authority()).parse()
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> EndpointUrl {
        text.parse().unwrap()
    }

    #[test]
    fn only_https_without_userinfo_is_an_endpoint() {
        for (text, fault) in [
            ("http://a.test/", UrlFault::Scheme),
            ("a.test/x", UrlFault::Malformed),
            ("/x", UrlFault::Scheme),
            ("https://u@a.test/", UrlFault::Userinfo),
            ("https://u:p@a.test/", UrlFault::Userinfo),
            ("https://a.test/#x", UrlFault::Fragment),
            ("https://a.test:x/", UrlFault::Malformed),
            ("https://a.test:0/", UrlFault::Malformed),
            ("https://a b/", UrlFault::Malformed),
            ("", UrlFault::Malformed),
        ] {
            assert_eq!(text.parse::<EndpointUrl>(), Err(fault), "{text:?}");
        }
        let found = url("https://[::1]:8443/a/b?c=d");
        assert_eq!(
            (found.host(), found.port(), found.path()),
            ("::1", 8443, "/a/b?c=d")
        );
        assert_eq!(
            (url("https://a.test").path(), url("https://a.test").port()),
            ("/", 443)
        );
    }

    #[test]
    fn a_redirect_stays_an_endpoint() {
        let from = url("https://a.test:8443/x/y?q");
        for (location, target) in [
            ("https://b.test/z", "https://b.test/z"),
            ("/z?r", "https://a.test:8443/z?r"),
            ("//b.test/z", "https://b.test/z"),
            ("z", "https://a.test:8443/x/z"),
        ] {
            assert_eq!(from.redirected(location), Ok(url(target)), "{location}");
        }
        assert_eq!(from.redirected("http://a.test/"), Err(UrlFault::Scheme));
        assert_eq!(from.redirected("https://u@a.test/"), Err(UrlFault::Userinfo));
    }
}
