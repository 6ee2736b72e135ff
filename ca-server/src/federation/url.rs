//! The URL of a bundle endpoint (SPIFFE Federation §5.2.1.1): `https`, no userinfo.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use signet_runtime::fetch::{UrlFault, WebUrl};

/// A checked URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointUrl(WebUrl);

/// Why a text is no URL of a bundle endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointFault {
    /// It has no TLS.
    #[error("must begin with https://")]
    Scheme,
    /// No URL, or one with parts that it may not have.
    #[error(transparent)]
    Url(UrlFault),
}

impl From<UrlFault> for EndpointFault {
    fn from(fault: UrlFault) -> Self {
        match fault {
            UrlFault::Scheme => Self::Scheme,
            other => Self::Url(other),
        }
    }
}

impl TryFrom<WebUrl> for EndpointUrl {
    type Error = EndpointFault;

    fn try_from(url: WebUrl) -> Result<Self, EndpointFault> {
        if url.is_https() {
            Ok(Self(url))
        } else {
            Err(EndpointFault::Scheme)
        }
    }
}

impl FromStr for EndpointUrl {
    type Err = EndpointFault;

    fn from_str(text: &str) -> Result<Self, EndpointFault> {
        text.parse::<WebUrl>()?.try_into()
    }
}

impl Deref for EndpointUrl {
    type Target = WebUrl;

    fn deref(&self) -> &WebUrl {
        &self.0
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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
            ("http://a.test/", EndpointFault::Scheme),
            ("a.test/x", UrlFault::Malformed.into()),
            ("/x", EndpointFault::Scheme),
            ("https://u@a.test/", UrlFault::Userinfo.into()),
            ("https://u:p@a.test/", UrlFault::Userinfo.into()),
            ("https://a.test/#x", UrlFault::Fragment.into()),
            ("https://a.test:x/", UrlFault::Malformed.into()),
            ("https://a.test:0/", UrlFault::Malformed.into()),
            ("https://a b/", UrlFault::Malformed.into()),
            ("", UrlFault::Malformed.into()),
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
}
