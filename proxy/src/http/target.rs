//! Where a request goes: its path and its authority, each in one reading, or 400.

use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Uri, Version, request};
use signet_policy::path::PathFault;
use signet_policy::{Normalization, RequestPath};

/// Longest authority: a DNS name, brackets and a port.
const MAX_AUTHORITY: usize = 300;

/// Why a request's target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetFault {
    /// A path that two servers may understand in two ways.
    #[error("{0}")]
    Path(#[from] PathFault),
    /// CONNECT.
    #[error("CONNECT is not served here")]
    Connect,
    /// `*` with another method than OPTIONS, or no path at all.
    #[error("the target has no path")]
    NoPath,
    /// A scheme that is neither http nor https.
    #[error("the target's scheme is neither http nor https")]
    Scheme,
    /// No Host, or an empty one.
    #[error("there is no Host")]
    NoHost,
    /// Host twice.
    #[error("Host stands there twice")]
    SeveralHosts,
    /// Host and the target disagree.
    #[error("Host and the target name two authorities")]
    HostConflict,
    /// Host is no host with an optional port.
    #[error("Host is not a host with an optional port")]
    BadHost,
    /// A method that is not in capital letters.
    #[error("the method is not in capital letters")]
    Method,
    /// A version that is not served.
    #[error("the version of HTTP is not served")]
    Version,
}

impl TargetFault {
    /// A stable word for metrics and access records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Path(fault) => fault.as_str(),
            Self::Connect => "method_connect",
            Self::NoPath => "target_no_path",
            Self::Scheme => "target_scheme",
            Self::NoHost => "host_missing",
            Self::SeveralHosts => "host_several",
            Self::HostConflict => "host_conflict",
            Self::BadHost => "host_malformed",
            Self::Method => "method_malformed",
            Self::Version => "version",
        }
    }
}

/// Makes the head say where it goes in one way only: `Host` is there once, the target is a path and a query, and
/// the path is in the form that policy sees and the upstream receives. Fragments were cut by the parser.
///
/// # Errors
/// [`TargetFault`].
pub fn settle(head: &mut request::Parts, normalization: Normalization) -> Result<(), TargetFault> {
    if head.method == Method::CONNECT {
        return Err(TargetFault::Connect);
    }
    if !head
        .method
        .as_str()
        .bytes()
        .all(|byte| !byte.is_ascii_lowercase())
    {
        return Err(TargetFault::Method);
    }
    if !matches!(
        head.version,
        Version::HTTP_10 | Version::HTTP_11 | Version::HTTP_2
    ) {
        return Err(TargetFault::Version);
    }
    one_host(head)?;
    one_path(head, normalization)
}

fn one_host(head: &mut request::Parts) -> Result<(), TargetFault> {
    let scheme = head.uri.scheme();
    if scheme.is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS) {
        return Err(TargetFault::Scheme);
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(TargetFault::SeveralHosts);
    }
    match (host, head.uri.authority()) {
        (None, None) => Err(TargetFault::NoHost),
        (Some(host), None) => check_host(host.as_bytes()),
        (Some(host), Some(authority)) => {
            if !host
                .as_bytes()
                .eq_ignore_ascii_case(authority.as_str().as_bytes())
            {
                return Err(TargetFault::HostConflict);
            }
            check_host(host.as_bytes())
        }
        (None, Some(authority)) => {
            check_host(authority.as_str().as_bytes())?;
            let value = HeaderValue::from_str(authority.as_str()).map_err(|_| TargetFault::BadHost)?;
            head.headers.insert(HOST, value);
            Ok(())
        }
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`. No user, nothing that any reader might cut differently.
fn check_host(host: &[u8]) -> Result<(), TargetFault> {
    if host.is_empty() {
        return Err(TargetFault::NoHost);
    }
    if host.len() > MAX_AUTHORITY || host.first() == Some(&b':') {
        return Err(TargetFault::BadHost);
    }
    let (name, port) = match host.iter().rposition(|byte| *byte == b':') {
        Some(at) if host.last() != Some(&b']') => host.split_at(at),
        _ => (host, &b""[..]),
    };
    let digits = port.get(1..).unwrap_or_default();
    let port_is_sound = digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit);
    let inner = name.strip_prefix(b"[").and_then(|inner| inner.strip_suffix(b"]"));
    let name_is_sound = match inner {
        Some(v6) => {
            !v6.is_empty()
                && v6
                    .iter()
                    .all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'))
        }
        None => name
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(b)),
    };
    if port_is_sound && name_is_sound {
        Ok(())
    } else {
        Err(TargetFault::BadHost)
    }
}

fn one_path(head: &mut request::Parts, normalization: Normalization) -> Result<(), TargetFault> {
    let target = head.uri.path_and_query().ok_or(TargetFault::NoPath)?;
    let text = target.as_str();
    if text == "*" {
        if head.method != Method::OPTIONS {
            return Err(TargetFault::NoPath);
        }
    } else if text.starts_with('*') || text.is_empty() {
        return Err(TargetFault::NoPath);
    }
    let path = RequestPath::new(text, normalization)?;
    let origin_form = head.uri.scheme().is_none() && head.uri.authority().is_none();
    if path.is_unchanged() && origin_form {
        return Ok(());
    }
    let settled = if path.is_unchanged() {
        target.clone()
    } else {
        let text = match path.query() {
            Some(query) => format!("{}?{query}", path.as_str()),
            None => path.as_str().to_owned(),
        };
        PathAndQuery::from_maybe_shared(text).map_err(|_| PathFault::Control)?
    };
    head.uri = Uri::from(settled);
    Ok(())
}

/// The path of a head that was settled.
#[must_use]
pub fn path(head: &request::Parts) -> RequestPath<'_> {
    let text = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
    // It has the form already; nothing is done twice.
    RequestPath::new(text, Normalization::None).unwrap_or_else(|_| RequestPath::absent())
}

/// The authority of a head that was settled.
#[must_use]
pub fn authority(head: &request::Parts) -> &str {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    host.unwrap_or_default()
}

/// The target with scheme and authority, as HTTP/2 wants it.
///
/// # Errors
/// [`TargetFault::BadHost`].
pub fn absolute(head: &request::Parts, scheme: Scheme) -> Result<Uri, TargetFault> {
    let host = head.headers.get(HOST).ok_or(TargetFault::NoHost)?;
    let authority = Authority::try_from(host.as_bytes()).map_err(|_| TargetFault::BadHost)?;
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(authority);
    parts.path_and_query = head.uri.path_and_query().cloned();
    Uri::from_parts(parts).map_err(|_| TargetFault::NoPath)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, target: &str, hosts: &[&str]) -> request::Parts {
        let mut builder = http::Request::builder().method(method).uri(target);
        for host in hosts {
            builder = builder.header(HOST, *host);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[track_caller]
    fn settled(method: &str, target: &str, hosts: &[&str]) -> Result<(String, String), TargetFault> {
        let mut head = head(method, target, hosts);
        settle(&mut head, Normalization::Base)?;
        assert_eq!(head.headers.get_all(HOST).iter().count(), 1);
        assert_eq!(
            path(&head).as_str(),
            head.uri.path(),
            "what policy sees is what goes on"
        );
        Ok((head.uri.to_string(), authority(&head).to_owned()))
    }

    #[test]
    fn every_form_of_a_target_becomes_a_path_and_one_host() {
        for (method, target, hosts, uri) in [
            ("GET", "/a?b=c", &["h"][..], "/a?b=c"),
            ("GET", "/", &["h"], "/"),
            ("GET", "http://h/a?b", &["h"], "/a?b"),
            ("GET", "http://h", &["H"], "/"),
            ("GET", "https://h/x", &[], "/x"),
            ("GET", "/a/../b?x=/../y", &["h"], "/b?x=/../y"),
            ("GET", "/%61%2fb", &["h"], "/a%2fb"),
            ("GET", "/.//x", &["h"], "//x"),
            ("GET", "//h2/x", &["h"], "//h2/x"),
            ("GET", "/a#b?c", &["h"], "/a"),
            ("OPTIONS", "*", &["h"], "*"),
        ] {
            let (got, host) = settled(method, target, hosts).unwrap();
            assert_eq!(
                (got.as_str(), host.to_lowercase().as_str()),
                (uri, "h"),
                "{target}"
            );
        }
    }

    #[test]
    fn targets_with_two_readings_are_refused() {
        use TargetFault::*;
        for (method, target, hosts, fault) in [
            ("GET", "/", &[][..], NoHost),
            ("GET", "/", &[""], NoHost),
            ("GET", "/", &["a", "b"], SeveralHosts),
            ("GET", "/", &["a", "a"], SeveralHosts),
            ("GET", "http://a/", &["b"], HostConflict),
            ("GET", "http://a:80/", &["a"], HostConflict),
            ("GET", "http://u@a/", &["u@a"], BadHost),
            ("GET", "http://u@a/", &["a"], HostConflict),
            ("GET", "/", &["a b"], BadHost),
            ("GET", "/", &["a/b"], BadHost),
            ("GET", "/", &["a?b"], BadHost),
            ("GET", "/", &["a:b"], BadHost),
            ("GET", "/", &["a:80:80"], BadHost),
            ("GET", "/", &["[::1"], BadHost),
            ("GET", "/", &[":80"], BadHost),
            ("GET", "ftp://a/", &["a"], Scheme),
            ("GET", "a:80", &["a:80"], NoPath),
            ("GET", "*", &["a"], NoPath),
            ("CONNECT", "a:80", &["a:80"], Connect),
            ("get", "/", &["a"], Method),
            ("GET", "/%00", &["a"], Path(PathFault::Nul)),
            ("GET", "/a/..;x/b", &["a"], Path(PathFault::DotWithParameters)),
            ("GET", "/%zz", &["a"], Path(PathFault::BrokenEncoding)),
        ] {
            assert_eq!(
                settled(method, target, hosts),
                Err(fault),
                "{method} {target} {hosts:?}"
            );
        }
        for host in ["a", "a.b:8080", "[::1]", "[::1]:80", "10.0.0.1:1", "a_b", "a."] {
            assert!(settled("GET", "/", &[host]).is_ok(), "{host}");
        }
    }

    #[test]
    fn for_http2_the_authority_is_the_host() {
        let mut head = head("GET", "/a/./b?c", &["h:81"]);
        settle(&mut head, Normalization::Base).unwrap();
        assert_eq!(absolute(&head, Scheme::HTTP).unwrap(), "http://h:81/a/b?c");
    }
}
