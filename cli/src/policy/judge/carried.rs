//! Tokens in the head of a question. They are secrets, and come in by file: a head that has one where proxies look
//! for tokens is refused rather than judged as if it had none.

use signet_policy::model::request::Locations;
use signet_policy::tokens::TokenRules;

use super::super::question::Http;

/// What `Authorization` begins with, in any case (RFC 9110 §11.1).
const BEARER: &str = "Bearer ";

/// Where the head carries what a proxy takes for a token.
///
/// The text is for people, and says nothing of the token.
#[must_use]
pub fn carried(rules: &TokenRules, http: &Http) -> Option<String> {
    if is_preflight(http) {
        return None;
    }
    let of_rules = rules.rules().iter().map(|rule| &rule.locations);
    of_rules.chain(rules.refused_at()).find_map(|locations| {
        in_headers(locations, http)
            .or_else(|| in_query(locations, http))
            .or_else(|| in_cookies(locations, http))
    })
}

/// A browser's question before a request of another origin, of whose token proxies take no notice.
pub(super) fn is_preflight(http: &Http) -> bool {
    let filled = |name: &str| first(http, name).is_some_and(|value| !value.is_empty());
    http.method == "OPTIONS" && filled("origin") && filled("access-control-request-method")
}

fn all<'h>(http: &'h Http, name: &str) -> impl Iterator<Item = &'h str> {
    let named = http.headers.iter().filter(move |(own, _)| own == name);
    named.map(|(_, value)| value.as_str())
}

fn first<'h>(http: &'h Http, name: &str) -> Option<&'h str> {
    let mut headers = http.headers.iter();
    headers
        .find(|(own, _)| own == name)
        .map(|(_, value)| value.as_str())
}

fn in_headers(locations: &Locations, http: &Http) -> Option<String> {
    let begins = |name: &str, prefix: &str, value: &str| {
        let beginning = value.get(..prefix.len()).unwrap_or_default();
        let any_case = name == "authorization" && prefix == BEARER;
        beginning == prefix || (any_case && beginning.eq_ignore_ascii_case(prefix))
    };
    let mut places = locations.headers.iter();
    let found = places.find(|(name, prefix)| {
        let name = name.to_ascii_lowercase();
        all(http, &name).any(|value| begins(&name, prefix, value))
    });
    found.map(|(name, _)| format!("the header {name}"))
}

fn in_query(locations: &Locations, http: &Http) -> Option<String> {
    let (_, query) = http.path.split_once('?')?;
    let query = query.split('#').next().unwrap_or_default();
    let keys = query
        .split('&')
        .map(|pair| pair.split('=').next().unwrap_or_default());
    let mut keys = keys.map(decoded);
    let found = keys.find(|key| locations.params.iter().any(|param| param.as_bytes() == key))?;
    Some(format!("the query parameter {}", String::from_utf8_lossy(&found)))
}

fn in_cookies(locations: &Locations, http: &Http) -> Option<String> {
    let pairs = all(http, "cookie").flat_map(|header| header.split(';'));
    let mut names = pairs.filter_map(|pair| Some(pair.split_once('=')?.0.trim()));
    let found = names.find(|name| locations.cookies.iter().any(|cookie| cookie == name))?;
    Some(format!("the cookie {found}"))
}

/// Percent-encoding undone (URL Standard, `application/x-www-form-urlencoded`).
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digit = |at: usize| tail.get(at).and_then(|b| char::from(*b).to_digit(16));
        let encoded = digit(0).zip(digit(1)).filter(|_| *first == b'%');
        let byte = encoded.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        bytes.push(byte.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = tail.get(encoded.map_or(0, |_| 2)..).unwrap_or_default();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(path: &str, headers: &[(&str, &str)]) -> Http {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Http {
            method: "OPTIONS".to_owned(),
            path: path.to_owned(),
            host: "cart".to_owned(),
            headers: headers.iter().map(own).collect(),
        }
    }

    #[test]
    fn tokens_are_seen_wherever_a_location_is_and_nowhere_else() {
        let locations = Locations {
            headers: vec![
                ("authorization".to_owned(), BEARER.to_owned()),
                ("x-token".to_owned(), String::new()),
            ],
            params: vec!["access_token".to_owned()],
            cookies: vec!["session".to_owned()],
        };
        let found = |http: &Http| {
            in_headers(&locations, http)
                .or_else(|| in_query(&locations, http))
                .or_else(|| in_cookies(&locations, http))
        };
        for (path, headers, place) in [
            ("/", &[("authorization", "bearer x")][..], "authorization"),
            ("/", &[("x-token", "")][..], "x-token"),
            ("/?a=b&access%5Ftoken=x#f", &[][..], "access_token"),
            (
                "/",
                &[("cookie", "a=b"), ("cookie", "c=d; session=x")][..],
                "session",
            ),
        ] {
            let found = found(&http(path, headers));
            assert!(
                found.as_ref().is_some_and(|text| text.ends_with(place)),
                "{found:?}"
            );
        }
        for (path, headers) in [
            ("/", &[("authorization", "Basic x"), ("cookie", "sessions=x")][..]),
            ("/access_token?b=access_token#?access_token=x", &[][..]),
        ] {
            assert_eq!(found(&http(path, headers)), None);
        }
    }

    #[test]
    fn a_preflight_is_one_only_with_both_headers_filled() {
        let both = [
            ("origin", "https://a.example"),
            ("access-control-request-method", "GET"),
        ];
        assert!(is_preflight(&http("/", &both)));
        assert!(!is_preflight(&http("/", &both[..1])));
        assert!(!is_preflight(&http(
            "/",
            &[both[0], ("access-control-request-method", "")]
        )));
        let get = Http {
            method: "GET".to_owned(),
            ..http("/", &both)
        };
        assert!(!is_preflight(&get));
    }
}
