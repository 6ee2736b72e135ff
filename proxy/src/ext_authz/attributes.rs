//! What a provider is told, in the form in which Envoy's filter tells it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http::Version;
use http::header::{CONTENT_LENGTH, HOST};
use http::request::Parts;
use prost_types::Timestamp;
use signet_certs::UnixTime;
use signet_proto::wire::envoy::config::core::v3::{Address, SocketAddress, address, socket_address};
use signet_proto::wire::envoy::service::auth::v3::attribute_context::{
    HttpRequest, Peer, Request, TlsSession,
};
use signet_proto::wire::envoy::service::auth::v3::{AttributeContext, CheckRequest};

use crate::connection::{Accepted, Security};

/// The question about a request, or about a connection without one.
pub(super) fn question(
    accepted: &Accepted,
    request: Option<&Parts>,
    include_headers: Option<&[String]>,
    now: UnixTime,
) -> CheckRequest {
    let peer = |address: SocketAddr, principal: Option<String>| Peer {
        address: Some(ip(address)),
        principal: principal.unwrap_or_default(),
        ..Peer::default()
    };
    let time = Timestamp {
        seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        nanos: 0,
    };
    let principal = accepted.peer().map(ToString::to_string);
    let own = accepted.own_id.as_ref().map(ToString::to_string);
    let attributes = AttributeContext {
        source: Some(peer(accepted.source, principal)),
        destination: Some(peer(accepted.destination, own)),
        request: request.map(|request| Request {
            time: Some(time),
            http: Some(http(accepted, request, include_headers)),
        }),
        context_extensions: BTreeMap::new(),
        tls_session: accepted.sni.as_deref().map(|sni| TlsSession { sni: sni.into() }),
    };
    CheckRequest {
        attributes: Some(attributes),
    }
}

fn ip(address: SocketAddr) -> Address {
    let socket = SocketAddress {
        protocol: socket_address::Protocol::Tcp.into(),
        address: address.ip().to_canonical().to_string(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(address.port().into())),
    };
    Address {
        address: Some(address::Address::SocketAddress(socket)),
    }
}

fn http(accepted: &Accepted, request: &Parts, include_headers: Option<&[String]>) -> HttpRequest {
    let header = |name| {
        let value = request.headers.get(name).map(http::HeaderValue::as_bytes);
        String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
    };
    let uri = &request.uri;
    let path = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    let host = uri
        .authority()
        .map_or_else(|| header(HOST.as_str()), ToString::to_string);
    let over_tls = matches!(accepted.security, Security::Mutual(_));
    let scheme = uri
        .scheme_str()
        .unwrap_or(if over_tls { "https" } else { "http" });
    let pseudo = [
        (":method", request.method.as_str()),
        (":path", path),
        (":authority", host.as_str()),
        (":scheme", scheme),
    ];
    let size = header(CONTENT_LENGTH.as_str()).parse().unwrap_or(-1);
    HttpRequest {
        id: header("x-request-id"),
        method: request.method.as_str().into(),
        headers: headers(request, &pseudo, include_headers),
        path: path.into(),
        scheme: scheme.into(),
        size,
        protocol: protocol(request.version).into(),
        host,
        ..HttpRequest::default()
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// All headers in lower case, those that stand more than once joined, so that none is left out.
fn headers(request: &Parts, pseudo: &[(&str, &str)], include: Option<&[String]>) -> BTreeMap<String, String> {
    let wanted = |name: &str| include.is_none_or(|names| names.iter().any(|one| one == name));
    let mut all: BTreeMap<String, String> = pseudo
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    // The host is told as `:authority`, as HTTP/2 has it.
    for name in request
        .headers
        .keys()
        .filter(|name| wanted(name.as_str()) && **name != HOST)
    {
        let values = request.headers.get_all(name).iter();
        let values: Vec<_> = values
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        all.insert(name.as_str().to_owned(), values.join(","));
    }
    all
}
