//! The heads of requests on their way to the application: what a client says in them, and what is left of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, request};
use signet_certs::{SpiffeId, UnixTime};
use signet_policy::Normalization;
use signet_proxy::connection::{Accepted, Direction, Peer, Security};
use signet_proxy::http::exchange::settle_head;
use signet_proxy::http::headers::aliases;
use signet_proxy::http::told;

/// Headers that only we may set or leave out, by names of which an application tells letters and digits alone.
const OURS: [&str; 16] = [
    "x-forwarded-client-cert",
    "x-forwarded-proto",
    "x-request-id",
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "http2-settings",
];
/// Of these, what ends at this hop.
const HOP: [&str; 9] = [
    "connection",
    "transfer-encoding",
    "upgrade",
    "expect",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "http2-settings",
];

/// A name as an application sees it to which all signs are one.
fn seen(name: &str) -> String {
    let sign = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        }
    };
    name.chars().map(sign).collect()
}

/// Lines of `name: value`; what is no header is left out.
fn headers<'d>(lines: impl Iterator<Item = &'d [u8]>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in lines.take(64) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.trim_ascii()),
            HeaderValue::from_bytes(value.trim_ascii()),
        ) {
            map.append(name, value);
        }
    }
    map
}

fn listed(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let pair = |(name, value): (&HeaderName, &HeaderValue)| (name.clone(), value.clone());
    headers.iter().map(pair).collect()
}

/// Headers after a line with a name. Taken out is what an application may take for it, and nothing else.
pub fn header_aliases(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let Ok(name) = HeaderName::from_bytes(lines.next().unwrap_or_default().trim_ascii()) else {
        return;
    };
    let before = headers(lines);
    let without = |meant: &dyn Fn(&HeaderName) -> bool| {
        let mut left = listed(&before);
        left.retain(|(other, _)| !meant(other));
        left
    };
    let after = |take: &dyn Fn(&mut HeaderMap)| {
        let mut headers = before.clone();
        take(&mut headers);
        listed(&headers)
    };
    let same = |found: Vec<(HeaderName, HeaderValue)>, expected: Vec<(HeaderName, HeaderValue)>| {
        // Names may have moved, which says nothing; the values of one have an order.
        let sorted = |mut list: Vec<(HeaderName, HeaderValue)>| {
            list.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
            list
        };
        assert_eq!(sorted(found), sorted(expected), "{name}");
    };
    let alike = |other: &HeaderName| seen(other.as_str()) == seen(name.as_str());
    same(after(&|headers| aliases::take(headers, &name)), without(&alike));
    let others = |other: &HeaderName| *other != name && alike(other);
    same(
        after(&|headers| aliases::take_others(headers, &name)),
        without(&others),
    );
    let forged = |other: &HeaderName| {
        let ours = OURS.iter().any(|ours| seen(ours) == seen(other.as_str()));
        ours && !OURS.contains(&other.as_str())
    };
    same(after(&|headers| aliases::strip(headers)), without(&forged));
}

/// A request: a byte that says how it came, its method and target, and lines of headers. What goes on says nothing of
/// the client but what it proved, nothing twice, and nothing that was between it and us; and it would go on as it is.
pub fn request_head(data: &[u8]) {
    let _ = goes_on(data);
}

/// Whether it goes on; see [`request_head`].
#[must_use]
pub fn goes_on(data: &[u8]) -> bool {
    let Some((how, text)) = data.split_first() else {
        return false;
    };
    let Some((mut head, accepted)) = request(*how, text) else {
        return false;
    };
    let came = head.headers.clone();
    let xfcc = told(&accepted);
    if settle_head(Normalization::Base, &accepted, xfcc.as_ref(), &mut head).is_err() {
        return false;
    }
    forged_by_nobody(&head, &accepted, xfcc.as_ref());
    untouched(&came, &head.headers);
    let once = (head.uri.clone(), head.headers.clone());
    let again = settle_head(Normalization::Base, &accepted, xfcc.as_ref(), &mut head);
    assert!(again.is_ok(), "{again:?}");
    assert_eq!((head.uri, head.headers), once);
    true
}

fn request(how: u8, text: &[u8]) -> Option<(request::Parts, Accepted)> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let mut first = lines.next()?.splitn(2, |byte| *byte == b' ');
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = Method::from_bytes(first.next()?).ok()?;
    head.uri = Uri::try_from(first.next()?).ok()?;
    head.version = if how & 1 == 0 {
        Version::HTTP_11
    } else {
        Version::HTTP_2
    };
    head.headers = headers(lines);
    // The HTTP/2 stack lets none of these through (RFC 9113 §8.2.2).
    let between = [
        "connection",
        "transfer-encoding",
        "upgrade",
        "keep-alive",
        "proxy-connection",
    ];
    if head.version == Version::HTTP_2 && between.iter().any(|name| head.headers.contains_key(*name)) {
        return None;
    }
    let id = |text: &str| text.parse::<SpiffeId>().ok();
    let peer = Peer {
        id: id("spiffe://cluster.local/ns/web/sa/front")?,
        leaf_sha256: [7; 32],
        not_after: UnixTime::since_unix_epoch(Duration::from_secs(9)),
        proof: None,
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
    let accepted = Accepted {
        id: 1,
        direction: if how & 4 == 0 {
            Direction::Inbound
        } else {
            Direction::Outbound
        },
        security: if how & 2 == 0 {
            Security::Mutual(peer)
        } else {
            Security::Plaintext
        },
        source: address,
        remote: IpAddr::from(Ipv4Addr::LOCALHOST),
        destination: address,
        port: 80,
        sni: None,
        alpn: None,
        own_not_after: None,
        own_id: id("spiffe://cluster.local/ns/data/sa/back"),
    };
    Some((head, accepted))
}

/// What names the client, the authority and the request is there once, and is ours.
fn forged_by_nobody(head: &request::Parts, accepted: &Accepted, xfcc: Option<&HeaderValue>) {
    let all = |name: &str| -> Vec<&HeaderValue> {
        let meant = |(other, _): &(&HeaderName, &HeaderValue)| seen(other.as_str()) == seen(name);
        let found = head.headers.iter().filter(meant);
        found.map(|(_, value)| value).collect()
    };
    let inbound = accepted.direction == Direction::Inbound;
    let expected: Vec<&HeaderValue> = xfcc.into_iter().filter(|_| inbound).collect();
    assert_eq!(all("x-forwarded-client-cert"), expected);
    let proto = all("x-forwarded-proto");
    let believed = accepted.peer().is_some();
    if inbound {
        assert!(
            matches!(proto.as_slice(), [one] if *one == "http" || believed && *one == "https"),
            "{proto:?}"
        );
    }
    let id = all("x-request-id");
    let sane = |id: &HeaderValue| {
        id.len() <= 128 && !id.is_empty() && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    assert!(matches!(id.as_slice(), [one] if sane(one)), "{id:?}");
    assert_eq!(all("host").len(), 1);
    assert!(all("content-length").len() <= 1);
    assert!(all("te").iter().all(|te| *te == "trailers"));
    for name in HOP {
        assert!(all(name).is_empty(), "{name}");
    }
    assert!(head.uri.authority().is_none(), "{}", head.uri);
}

fn in_one(cookies: &[HeaderValue]) -> Vec<u8> {
    let pieces: Vec<&[u8]> = cookies.iter().map(HeaderValue::as_bytes).collect();
    pieces.join(&b"; "[..])
}

/// Everything else arrives as it came, but for what `Connection` takes away.
fn untouched(came: &HeaderMap, left: &HeaderMap) {
    let ours = |name: &str| OURS.iter().any(|ours| seen(ours) == seen(name));
    let named: Vec<Vec<u8>> = came
        .get_all("connection")
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|name| name.trim_ascii().to_ascii_lowercase())
        .collect();
    for name in left.keys().filter(|name| !ours(name.as_str())) {
        assert!(came.contains_key(name), "{name} is nobody's");
    }
    for name in came.keys().filter(|name| !ours(name.as_str())) {
        let values = |map: &HeaderMap| -> Vec<HeaderValue> { map.get_all(name).iter().cloned().collect() };
        let expected = if named.iter().any(|gone| gone == name.as_str().as_bytes()) {
            Vec::new()
        } else {
            values(came)
        };
        // RFC 9113 §8.2.3: over HTTP/2 cookies may come in pieces, and are judged and go on as one.
        if name == "cookie" {
            assert_eq!(in_one(&values(left)), in_one(&expected), "{name}");
        } else {
            assert_eq!(values(left), expected, "{name}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORGED: &[u8] = include_bytes!("../corpus/request_head/forged");

    #[test]
    #[should_panic(expected = "By=spiffe://td/x")]
    fn what_a_client_says_of_itself_would_be_noticed() {
        let (head, accepted) = request(0, FORGED.split_first().unwrap().1).unwrap();
        forged_by_nobody(&head, &accepted, told(&accepted).as_ref());
    }

    #[test]
    #[should_panic(expected = "accept")]
    fn what_is_lost_on_the_way_would_be_noticed() {
        let came = headers(b"Host: a\nAccept: b".split(|byte| *byte == b'\n'));
        untouched(&came, &HeaderMap::new());
    }
}
