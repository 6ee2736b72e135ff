//! A URL that documents are fetched from: `http` or `https`, no userinfo, no fragment.

use std::fmt;
use std::str::FromStr;

use http::Uri;

/// Longest URL read.
const MAX_BYTES: usize = 2048;

/// A checked URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebUrl {
    uri: Uri,
    host: String,
    port: u16,
    https: bool,
}

/// Why a text is no such URL, or not one to be led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlFault {
    /// No URL at all, or one with characters that none may have.
    #[error("is no URL")]
    Malformed,
    /// Another scheme, or none.
    #[error("begins with neither https:// nor http://")]
    Scheme,
    /// A user or password in it.
    #[error("holds a user name or password")]
    Userinfo,
    /// A `#`, which no server ever sees.
    #[error("has a fragment")]
    Fragment,
    /// A redirect to somebody else.
    #[error("is on another host or port")]
    OtherHost,
    /// A redirect from `https` to `http`.
    #[error("has no TLS, although the address before it had")]
    Downgrade,
}

impl FromStr for WebUrl {
    type Err = UrlFault;

    fn from_str(text: &str) -> Result<Self, UrlFault> {
        if text.len() > MAX_BYTES {
            return Err(UrlFault::Malformed);
        }
        if text.contains('#') {
            return Err(UrlFault::Fragment);
        }
        let uri: Uri = text.parse().map_err(|_| UrlFault::Malformed)?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(UrlFault::Scheme),
        };
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
            host: host.to_ascii_lowercase(),
            port: port.unwrap_or(if https { 443 } else { 80 }),
            https,
            uri,
        })
    }
}

impl WebUrl {
    /// Host name or address, in lower case and without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is fetched over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.https
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

    /// The same, if it is fetched over TLS.
    ///
    /// # Errors
    /// [`UrlFault::Downgrade`] if not.
    pub fn with_tls(self) -> Result<Self, UrlFault> {
        if self.https {
            Ok(self)
        } else {
            Err(UrlFault::Downgrade)
        }
    }

    /// Where a redirect from here leads: on this host and port, or from port 80 to TLS on port 443.
    ///
    /// # Errors
    /// A [`UrlFault`].
    pub fn redirected(&self, location: &str) -> Result<Self, UrlFault> {
        let to = self.joined(location)?;
        if self.https && !to.https {
            return Err(UrlFault::Downgrade);
        }
        let upgraded = (self.port, to.port) == (80, 443) && to.https && !self.https;
        if to.host != self.host || (to.port != self.port && !upgraded) {
            return Err(UrlFault::OtherHost);
        }
        Ok(to)
    }

    /// The URL that `location` means on a page of this one (RFC 3986 §5.2, without dot segments), wherever it is.
    ///
    /// # Errors
    /// A [`UrlFault`].
    pub fn joined(&self, location: &str) -> Result<Self, UrlFault> {
        let scheme = if self.https { "https" } else { "http" };
        if location.starts_with("//") {
            return format!("{scheme}:{location}").parse();
        }
        if location.starts_with('/') {
            return format!("{scheme}://{}{location}", self.authority()).parse();
        }
        if location.contains("://") {
            return location.parse();
        }
        let path = self.uri.path();
        let directory = path.rfind('/').and_then(|end| path.get(..=end)).unwrap_or("/");
        format!("{scheme}://{}{directory}{location}", self.authority()).parse()
    }
}

impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}
