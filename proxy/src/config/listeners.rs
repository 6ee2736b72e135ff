//! Listeners and destinations, as written and as checked.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use signet_certs::SpiffeId;
use signet_runtime::config::Faults;

use super::block::Block;
use crate::outbound::Address;

/// Most identities that one destination may have.
const MAX_EXPECTED: usize = 64;

/// An inbound listener as written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawInbound {
    listen: String,
    upstream: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_protocol: Option<bool>,
}

/// An outbound listener as written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawOutbound {
    listen: String,
    upstream: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtls: Option<RawMutual>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_remote_clients: Option<bool>,
}

/// `mtls` as written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawMutual {
    expected: Vec<String>,
}

/// A destination of redirected traffic as written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawDestination {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cidr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtls: Option<RawMutual>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<bool>,
}

/// `capture` as written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawCapture {
    #[serde(skip_serializing_if = "Option::is_none")]
    inbound: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outbound: Option<String>,
    /// Ports of the workload that speak HTTP; all others are judged as TCP.
    #[serde(default)]
    http_ports: Vec<u16>,
    /// Ports on which any TLS is terminated, whatever its ALPN.
    #[serde(default)]
    terminate_ports: Vec<u16>,
}

/// What HTTP an upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Speaks {
    /// What the client speaks.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP, the upstream as given.
    Http(Speaks),
    /// Anything; judged by connection.
    Tcp,
}

/// Which TLS a PERMISSIVE port terminates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminates {
    /// What offers the mesh's ALPN; other TLS passes through.
    Mesh,
    /// Any.
    Any,
}

/// A listener towards the workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where the workload listens.
    pub upstream: SocketAddr,
    /// The port that policies mean.
    pub port: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// Whether the protocol is not said here: then others say it, if they know.
    pub auto: bool,
    /// Which TLS is terminated where it is not demanded.
    pub terminates: Terminates,
    /// Whether the workload is told the client's address by PROXY protocol version 2.
    pub proxy_protocol: bool,
}

impl Inbound {
    /// The protocol, where it is said here.
    #[must_use]
    pub fn said(&self) -> Option<Protocol> {
        (!self.auto).then_some(self.protocol)
    }
}

/// How a destination is met.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outgoing {
    /// By mutual TLS, as one of these.
    Mutual(Arc<[SpiffeId]>),
    /// As it comes, by choice.
    Plaintext,
}

/// A listener of the workload towards others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who is dialled.
    pub upstream: Address,
    /// What is spoken.
    pub protocol: Protocol,
    /// How it is met.
    pub outgoing: Outgoing,
}

/// A destination of redirected traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its addresses.
    pub block: Block,
    /// Its port; nothing is all.
    pub port: Option<u16>,
    /// What is spoken.
    pub protocol: Protocol,
    /// How it is met.
    pub outgoing: Outgoing,
}

impl Destination {
    /// Whether `address` is meant.
    #[must_use]
    pub fn holds(&self, address: SocketAddr) -> bool {
        self.block.contains(address.ip()) && self.port.is_none_or(|port| port == address.port())
    }
}

/// What happens to redirected traffic to unknown destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It is refused.
    Refuse,
    /// It goes out as it comes.
    Plaintext,
}

/// Listeners for redirected traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// For traffic to the workload.
    pub inbound: Option<SocketAddr>,
    /// For traffic of the workload.
    pub outbound: Option<SocketAddr>,
    /// Ports of the workload that speak HTTP.
    pub http_ports: Vec<u16>,
    /// Ports on which any TLS is terminated.
    pub terminate_ports: Vec<u16>,
}

pub(super) fn protocol(key: &str, text: Option<&str>, faults: &mut Faults) -> Protocol {
    match text {
        Some("http") => Protocol::Http(Speaks::Auto),
        Some("http1") => Protocol::Http(Speaks::Http1),
        Some("http2" | "grpc") => Protocol::Http(Speaks::Http2),
        None | Some("tcp" | "auto") => Protocol::Tcp,
        Some(other) => {
            let text = format!("{other:?} is none of http, http1, http2, grpc, tcp and auto");
            faults.add(key, text);
            Protocol::Tcp
        }
    }
}

fn outgoing(
    key: &str,
    mtls: Option<&RawMutual>,
    plaintext: Option<bool>,
    faults: &mut Faults,
) -> Option<Outgoing> {
    match (mtls, plaintext) {
        (Some(mutual), None | Some(false)) => {
            let key = format!("{key}.mtls.expected");
            if mutual.expected.is_empty() || mutual.expected.len() > MAX_EXPECTED {
                faults.add(&key, format!("must name 1 to {MAX_EXPECTED} SPIFFE IDs"));
            }
            let ids: Option<Vec<SpiffeId>> =
                mutual.expected.iter().map(|id| faults.parse(&key, id)).collect();
            Some(Outgoing::Mutual(ids?.into()))
        }
        (None, Some(true)) => Some(Outgoing::Plaintext),
        _ => {
            faults.add(
                key,
                "write either mtls with its expected identities, or plaintext: true",
            );
            None
        }
    }
}

pub(super) fn inbound(raw: &[RawInbound], faults: &mut Faults) -> Vec<Inbound> {
    let mut all = Vec::with_capacity(raw.len());
    for (at, one) in raw.iter().enumerate() {
        let key = |name: &str| format!("inbound[{at}].{name}");
        let listen = faults.parse(&key("listen"), &one.listen);
        let upstream: Option<SocketAddr> = faults.parse(&key("upstream"), &one.upstream);
        let protocol = protocol(&key("protocol"), one.protocol.as_deref(), faults);
        let terminates = match one.tls.as_deref() {
            None | Some("auto") => Terminates::Mesh,
            Some("terminate") => Terminates::Any,
            Some(other) => {
                faults.add(&key("tls"), format!("{other:?} is neither auto nor terminate"));
                Terminates::Mesh
            }
        };
        let (Some(listen), Some(upstream)) = (listen, upstream) else {
            continue;
        };
        let port = one.port.unwrap_or_else(|| upstream.port());
        if port == 0 || upstream.port() == 0 {
            faults.add(&key("upstream"), "must have a port other than 0");
        }
        all.push(Inbound {
            listen,
            upstream,
            port,
            protocol,
            auto: matches!(one.protocol.as_deref(), None | Some("auto")),
            terminates,
            proxy_protocol: one.proxy_protocol.unwrap_or(false),
        });
    }
    all
}

pub(super) fn outbound(raw: &[RawOutbound], faults: &mut Faults) -> Vec<Outbound> {
    let mut all = Vec::with_capacity(raw.len());
    for (at, one) in raw.iter().enumerate() {
        let key = |name: &str| format!("outbound[{at}].{name}");
        let listen = faults.parse(&key("listen"), &one.listen);
        if !one.allow_remote_clients.unwrap_or(false) {
            local_clients(&key("listen"), listen, faults);
        }
        let upstream = faults.parse(&key("upstream"), &one.upstream);
        let protocol = protocol(&key("protocol"), one.protocol.as_deref(), faults);
        let outgoing = outgoing(
            &format!("outbound[{at}]"),
            one.mtls.as_ref(),
            one.plaintext,
            faults,
        );
        if let (Some(listen), Some(upstream), Some(outgoing)) = (listen, upstream, outgoing) {
            all.push(Outbound {
                listen,
                upstream,
                protocol,
                outgoing,
            });
        }
    }
    all
}

/// Whoever reaches an outbound listener speaks as the workload does.
fn local_clients(key: &str, listen: Option<SocketAddr>, faults: &mut Faults) {
    if let Some(listen) = listen.filter(|listen| !listen.ip().to_canonical().is_loopback()) {
        let text = format!(
            "{listen} can be reached from other machines, and whoever reaches it speaks with this workload's \
             identity: listen on loopback, as 127.0.0.1:{}, or write allow_remote_clients: true",
            listen.port()
        );
        faults.add(key, text);
    }
}

pub(super) fn destinations(raw: &[RawDestination], faults: &mut Faults) -> Vec<Destination> {
    let mut all = Vec::with_capacity(raw.len());
    for (at, one) in raw.iter().enumerate() {
        let key = format!("destinations[{at}]");
        let block = match (&one.host, &one.cidr) {
            (Some(host), None) => {
                let address: Option<IpAddr> = faults.parse(&format!("{key}.host"), host);
                address.and_then(|address| faults.parse(&format!("{key}.host"), &address.to_string()))
            }
            (None, Some(cidr)) => faults.parse(&format!("{key}.cidr"), cidr),
            _ => {
                faults.add(
                    &key,
                    "write either host, an address, or cidr, a block of addresses",
                );
                None
            }
        };
        let protocol = protocol(&format!("{key}.protocol"), one.protocol.as_deref(), faults);
        let outgoing = outgoing(&key, one.mtls.as_ref(), one.plaintext, faults);
        if let (Some(block), Some(outgoing)) = (block, outgoing) {
            let port = one.port;
            all.push(Destination {
                block,
                port,
                protocol,
                outgoing,
            });
        }
    }
    all
}

pub(super) fn capture(raw: &RawCapture, faults: &mut Faults) -> Capture {
    let mut address = |key: &str, text: &Option<String>| {
        let text = text.as_deref()?;
        faults.parse(key, text)
    };
    Capture {
        inbound: address("capture.inbound", &raw.inbound),
        outbound: address("capture.outbound", &raw.outbound),
        http_ports: raw.http_ports.clone(),
        terminate_ports: raw.terminate_ports.clone(),
    }
}
