//! What a decision is about: plain data of a connection and, where there is one, of a request.

use std::net::IpAddr;

use serde_json::{Map, Value};
use signet_certs::SpiffeId;

use crate::address::Address;
use crate::model::Attribute;
use crate::path::RequestPath;
use crate::principal::LocalDomains;
use crate::trie::ByteTrie;

const SCHEME_BYTES: usize = "spiffe://".len();
/// Claims that are always lists in one text.
const ALWAYS_SPLIT: [&str; 2] = ["scope", "permission"];

/// A connection to a listener.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// The identity of the verified client certificate; nothing for plaintext, for TLS that is passed
    /// through, and for a certificate without one.
    pub peer: Option<&'a SpiffeId>,
    /// The address at the other end.
    pub source: IpAddr,
    /// The original client's address, by a trusted `X-Forwarded-For` or PROXY protocol; else `source`.
    pub remote: IpAddr,
    /// The address that was dialled.
    pub destination: IpAddr,
    /// The workload's port.
    pub port: u16,
    /// The server name that the client's TLS asked for.
    pub sni: Option<&'a str>,
}

/// A request on an HTTP connection.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// `:authority` or `Host`, with its port if it has one.
    pub authority: &'a str,
    /// The path, in the form that the upstream will receive.
    pub path: &'a RequestPath<'a>,
    /// The other headers.
    pub headers: &'a dyn Headers,
    /// The token that was verified, if any.
    pub identity: Option<&'a RequestIdentity>,
}

/// Headers by name.
pub trait Headers {
    /// Shows `visit` every value that stands under `name`, which is in lower case, in their order.
    fn each<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&'a [u8]));
}

/// Names in any case, and values.
impl Headers for [(&str, &str)] {
    fn each<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&'a [u8])) {
        for (key, value) in self {
            if key.eq_ignore_ascii_case(name) {
                visit(value.as_bytes());
            }
        }
    }
}

impl<const N: usize> Headers for [(&str, &str); N] {
    fn each<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&'a [u8])) {
        self.as_slice().each(name, visit);
    }
}

/// So many values of one header are looked at without allocating.
const FEW_VALUES: usize = 16;

/// Gives `look` all values under a name.
pub(crate) fn with_values<R>(headers: &dyn Headers, name: &str, look: impl FnOnce(&[&[u8]]) -> R) -> R {
    let mut few: [&[u8]; FEW_VALUES] = [b""; FEW_VALUES];
    let mut many: Vec<&[u8]> = Vec::new();
    let mut count = 0;
    headers.each(name, &mut |value| {
        match few.get_mut(count) {
            Some(place) => *place = value,
            None => {
                if many.is_empty() {
                    many.extend_from_slice(&few);
                }
                many.push(value);
            }
        }
        count += 1;
    });
    if many.is_empty() {
        look(few.get(..count).unwrap_or_default())
    } else {
        look(&many)
    }
}

/// What a verified token says of the request. Its claims are not for logs, so there is no `Debug`.
#[derive(Clone)]
pub struct RequestIdentity {
    claims: Map<String, Value>,
    principal: Option<String>,
    issuer_bytes: usize,
    split: Vec<String>,
}

impl RequestIdentity {
    /// Takes the claims of a token whose signature, times, issuer and audience were checked. Of the claims in
    /// `space_delimited`, and of `scope` and `permission`, every word is a value.
    #[must_use]
    pub fn assert_verified(claims: Map<String, Value>, space_delimited: &[String]) -> Self {
        let text = |name| claims.get(name).and_then(Value::as_str);
        let (principal, issuer_bytes) = match (text("iss"), text("sub")) {
            (Some(issuer), Some(subject)) => (Some(format!("{issuer}/{subject}")), issuer.len()),
            _ => (None, 0),
        };
        let split = ALWAYS_SPLIT.into_iter().map(str::to_owned);
        Self {
            split: split.chain(space_delimited.iter().cloned()).collect(),
            claims,
            principal,
            issuer_bytes,
        }
    }

    /// `issuer/subject`, if the token names both.
    #[must_use]
    pub fn principal(&self) -> Option<&str> {
        self.principal.as_deref()
    }

    /// The claims, as signed.
    #[must_use]
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    pub(crate) fn issuer_and_subject(&self) -> Option<(&str, &str)> {
        let principal = self.principal.as_deref()?;
        let issuer = principal.get(..self.issuer_bytes)?;
        Some((issuer, principal.get(self.issuer_bytes + 1..)?))
    }

    /// Whether any text of the claim under `names` passes `test`. Numbers and truths are no texts.
    pub(crate) fn any_text(&self, names: &[impl AsRef<str>], mut test: impl FnMut(&str) -> bool) -> bool {
        let [first, rest @ ..] = names else {
            return false;
        };
        let Some(outer) = self.claims.get(first.as_ref()) else {
            return false;
        };
        let claim = rest
            .iter()
            .try_fold(outer, |value, name| value.get(name.as_ref()));
        let split = rest.is_empty() && self.split.iter().any(|name| name == first.as_ref());
        match claim {
            Some(Value::String(text)) if split => text.split(' ').filter(|word| !word.is_empty()).any(test),
            Some(Value::String(text)) => test(text),
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).any(test),
            _ => false,
        }
    }
}

/// Everything a decision looks at, taken apart once.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) principal: Option<&'a str>,
    pub(crate) namespace: Option<&'a str>,
    /// `namespace/sa/name`.
    pub(crate) account: Option<&'a str>,
    pub(crate) trust_domain: Option<&'a str>,
    /// The peer is of our trust domain or an alias of it.
    pub(crate) local: bool,
    pub(crate) source: Address,
    pub(crate) remote: Address,
    pub(crate) destination: Address,
    pub(crate) connection: &'a Connection<'a>,
    pub(crate) request: Option<&'a Request<'a>>,
}

impl<'a> Facts<'a> {
    pub(crate) fn new(
        connection: &'a Connection<'a>,
        request: Option<&'a Request<'a>>,
        local: &LocalDomains,
    ) -> Self {
        let peer = connection.peer;
        let (namespace, account) = peer.map_or((None, None), |id| names(id.path()));
        let trust_domain = peer.map(SpiffeId::trust_domain_name);
        Self {
            principal: peer.and_then(|id| id.as_str().get(SCHEME_BYTES..)),
            namespace,
            account,
            local: trust_domain.is_some_and(|domain| local.contains(domain)),
            trust_domain,
            source: Address::new(connection.source),
            remote: Address::new(connection.remote),
            destination: Address::new(connection.destination),
            connection,
            request,
        }
    }

    /// The attribute's one text, if it has one.
    pub(crate) fn text(&self, attribute: &Attribute) -> Option<&'a str> {
        match attribute {
            Attribute::Principal => self.principal,
            Attribute::Namespace => self.namespace,
            Attribute::ServiceAccount => self.account,
            Attribute::TrustDomain => self.trust_domain,
            Attribute::Sni => self.connection.sni,
            Attribute::Host => self.request.map(|request| request.authority),
            Attribute::Method => self.request.map(|request| request.method),
            Attribute::Path => self.request.map(|request| request.path.as_str()),
            Attribute::RequestPrincipal => self.request?.identity?.principal(),
            _ => None,
        }
    }

    /// Whether any text of the attribute passes `test`. Headers and claims may have several; of a header that stands
    /// several times, `lines` says what its texts are.
    pub(crate) fn any_text(
        &self,
        attribute: &Attribute,
        lines: Lines,
        test: &mut dyn FnMut(Text<'_>) -> bool,
    ) -> bool {
        let mut whole = |text: &str| test(Text::Whole(text.as_bytes()));
        let token = self.request.and_then(|request| request.identity);
        match attribute {
            Attribute::Header(name) => self.request.is_some_and(|request| {
                with_values(request.headers, name, |values| match values {
                    [] => false,
                    [_, _, ..]
                        if lines == Lines::EachAndJoined
                            && values.chunks(1).any(|one| test(Text::Header(one))) =>
                    {
                        true
                    }
                    values => test(Text::Header(values)),
                })
            }),
            Attribute::Audiences => token.is_some_and(|token| token.any_text(&["aud"], whole)),
            Attribute::Presenter => token.is_some_and(|token| token.any_text(&["azp"], whole)),
            Attribute::Claim(names) => token.is_some_and(|token| token.any_text(names, whole)),
            _ => self.text(attribute).is_some_and(&mut whole),
        }
    }

    /// The attribute's address, if it is one.
    pub(crate) fn address(&self, attribute: &Attribute) -> Option<Address> {
        match attribute {
            Attribute::SourceIp => Some(self.source),
            Attribute::RemoteIp => Some(self.remote),
            Attribute::DestinationIp => Some(self.destination),
            _ => None,
        }
    }
}

/// What the texts of a header are that stands several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lines {
    /// All of them with commas between them: what Istio compares. A client that adds a line to one that a rule names says
    /// something else.
    Joined,
    /// Each of them too: joined text alone would let `a` hide behind `a,b` (CVE-2026-26308).
    EachAndJoined,
}

/// A text to compare.
#[derive(Clone, Copy)]
pub(crate) enum Text<'a> {
    /// In one piece.
    Whole(&'a [u8]),
    /// The values of a header that is there; together they are its text, with commas between them.
    Header(&'a [&'a [u8]]),
}

impl<'a> Text<'a> {
    fn pieces(&self) -> &[&'a [u8]] {
        match self {
            Self::Whole(text) => std::slice::from_ref(text),
            Self::Header(values) => values,
        }
    }

    pub(crate) fn forward(&self) -> impl Iterator<Item = u8> + Clone {
        self.pieces().iter().enumerate().flat_map(|(at, piece)| {
            let comma: &[u8] = if at == 0 { b"" } else { b"," };
            comma.iter().chain(piece.iter()).copied()
        })
    }

    fn backward(&self) -> impl Iterator<Item = u8> {
        self.pieces().iter().enumerate().rev().flat_map(|(at, piece)| {
            let comma: &[u8] = if at == 0 { b"" } else { b"," };
            piece.iter().rev().chain(comma).copied()
        })
    }

    /// Shows `visit` what stands in `trie` for how the text begins. True if it said true.
    pub(crate) fn begins_in<T>(&self, trie: &ByteTrie<T>, visit: &mut impl FnMut(&T) -> bool) -> bool {
        match self.whole() {
            Some(whole) => trie.search(whole.iter().copied(), visit),
            None => trie.search(self.forward(), visit),
        }
    }

    /// Shows `visit` what stands in `trie`, which holds texts from behind, for how the text ends.
    pub(crate) fn ends_in<T>(&self, trie: &ByteTrie<T>, visit: &mut impl FnMut(&T) -> bool) -> bool {
        match self.whole() {
            _ if trie.is_empty() => false,
            Some(whole) => trie.search(whole.iter().rev().copied(), visit),
            None => trie.search(self.backward(), visit),
        }
    }

    /// The text, if it is in one piece.
    pub(crate) fn whole(&self) -> Option<&'a [u8]> {
        match self {
            Self::Whole(text) | Self::Header([text]) => Some(text),
            Self::Header(_) => None,
        }
    }

    /// A header is present even when it is empty.
    pub(crate) fn is_present(&self) -> bool {
        match self {
            Self::Whole(text) => !text.is_empty(),
            Self::Header(values) => !values.is_empty(),
        }
    }
}

/// Namespace and account in the path of a SPIFFE ID: `/ns/<namespace>/sa/<account>`, more segments tolerated.
fn names(path: &str) -> (Option<&str>, Option<&str>) {
    let Some(inner) = path.strip_prefix("/ns/") else {
        return (None, None);
    };
    let Some((namespace, rest)) = inner.split_once('/') else {
        return (None, None);
    };
    let account = rest.strip_prefix("sa/").and_then(|rest| {
        let name = rest.split('/').next().filter(|name| !name.is_empty())?;
        inner.get(..namespace.len() + "/sa/".len() + name.len())
    });
    (Some(namespace), account)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) struct Listed(pub(crate) Vec<(&'static str, &'static str)>);

    impl Headers for Listed {
        fn each<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&'a [u8])) {
            self.0.as_slice().each(name, visit);
        }
    }

    #[test]
    fn every_value_of_a_header_is_seen_however_many_there_are() {
        for count in [0, 1, FEW_VALUES, FEW_VALUES + 1, 100] {
            let headers = Listed(vec![("X", "v"); count]);
            assert_eq!(with_values(&headers, "x", |values| values.len()), count);
        }
    }

    #[test]
    fn names_are_at_the_start_of_the_path() {
        for (path, namespace, account) in [
            ("/ns/a/sa/b", Some("a"), Some("a/sa/b")),
            ("/ns/a/sa/b/c", Some("a"), Some("a/sa/b")),
            ("/ns/a/x", Some("a"), None),
            ("/ns/a", None, None),
            ("/x/ns/a/sa/b", None, None),
            ("", None, None),
        ] {
            assert_eq!(names(path), (namespace, account), "{path}");
        }
    }
}
