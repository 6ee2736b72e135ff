//! What is spoken on a port, by the words of those who describe it: whether requests can be judged there.

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// Something else than HTTP.
    Tcp,
    /// HTTP of any version.
    Http,
    /// HTTP/2 only.
    Http2,
}

impl Spoken {
    /// A stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Http2 => "http2",
        }
    }

    /// What a port says of itself, as Istio reads it: its `appProtocol` counts, then its name. An `appProtocol` that is
    /// no word for HTTP says that it is something else; a name that is no known word says nothing.
    #[must_use]
    pub fn said(app_protocol: Option<&str>, name: Option<&str>) -> Option<Self> {
        match app_protocol.filter(|text| !text.is_empty()) {
            Some("kubernetes.io/h2c") => Some(Self::Http2),
            Some("kubernetes.io/ws") => Some(Self::Http),
            Some(other) => Some(Self::of_name(other).unwrap_or(Self::Tcp)),
            None => Self::of_name(name?),
        }
    }

    /// By the word before the first hyphen, in any case.
    fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        if name.starts_with("grpc-web") {
            return Some(Self::Http);
        }
        match name.split('-').next().unwrap_or_default() {
            "http" => Some(Self::Http),
            "http2" | "grpc" => Some(Self::Http2),
            // TLS is the application's own: what is inside cannot be read.
            "https" | "tls" | "tcp" | "udp" | "mongo" | "mysql" | "redis" => Some(Self::Tcp),
            _ => None,
        }
    }

    /// What counts where another one says `other` of the same port, and whether they disagree. What one of them calls
    /// HTTP is judged as HTTP: rules about requests and tokens hold then, and what is not HTTP is refused. As TCP tokens
    /// would not be looked at, nor headers cleaned, and anyone who may describe the port could turn that off.
    #[must_use]
    pub fn beside(self, other: Self) -> (Self, bool) {
        match (self, other) {
            (one, other) if one == other => (one, false),
            (Self::Tcp, http) | (http, Self::Tcp) => (http, true),
            _ => (Self::Http, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_what_its_app_protocol_says_then_what_its_name_begins_with() {
        for (name, app, expected) in [
            ("http", None, Some("http")),
            ("HTTP-web", None, Some("http")),
            ("http2", None, Some("http2")),
            ("grpc-api", None, Some("http2")),
            ("grpc-web", None, Some("http")),
            ("grpc-web-x", None, Some("http")),
            ("https", None, Some("tcp")),
            ("tls-x", None, Some("tcp")),
            ("redis", None, Some("tcp")),
            ("web", None, None),
            ("", None, None),
            ("httpx", None, None),
            ("http", Some(""), Some("http")),
            ("tcp", Some("http"), Some("http")),
            ("http", Some("tcp"), Some("tcp")),
            ("http", Some("example.com/own"), Some("tcp")),
            ("", Some("kubernetes.io/h2c"), Some("http2")),
            ("", Some("kubernetes.io/ws"), Some("http")),
            ("", Some("kubernetes.io/wss"), Some("tcp")),
            ("", Some("grpc"), Some("http2")),
        ] {
            let said = Spoken::said(app, Some(name)).map(Spoken::as_str);
            assert_eq!(said, expected, "{name} {app:?}");
        }
        assert_eq!(Spoken::said(None, None), None);
    }

    #[test]
    fn of_two_words_http_counts_and_of_its_versions_what_reads_both() {
        use Spoken::{Http, Http2, Tcp};
        for (one, other, expected) in [
            (Http, Http, (Http, false)),
            (Http, Http2, (Http, false)),
            (Tcp, Tcp, (Tcp, false)),
            (Http, Tcp, (Http, true)),
            (Http2, Tcp, (Http2, true)),
        ] {
            assert_eq!((one.beside(other), other.beside(one)), (expected, expected));
        }
    }

    #[test]
    fn the_order_in_which_words_come_does_not_matter() {
        use Spoken::{Http, Http2, Tcp};
        let all = [Tcp, Http, Http2];
        for (a, b, c) in all
            .iter()
            .flat_map(|a| all.iter().flat_map(move |b| all.map(|c| (*a, *b, c))))
        {
            let (ab, bc) = (a.beside(b).0, b.beside(c).0);
            assert_eq!(ab.beside(c).0, a.beside(bc).0, "{a:?} {b:?} {c:?}");
        }
    }
}
