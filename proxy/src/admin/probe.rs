//! One real handshake with a configured destination, by our own SVID, and all that can be told of it. The key never
//! leaves; nothing is sent but the handshake and its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde::Serialize;
use serde_json::Value;
use signet_certs::SpiffeId;
use signet_certs::certificate::Certificate;
use signet_certs::tls::{Presented, Terms, peer_id, recording_client_config};
use signet_certs::verify::Expected;
use signet_runtime::clock::TlsTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::destinations::{Listed, Lookup, default_outbound, find};
use super::fault::{Found, of_dial, of_handshake, of_last_word};
use super::{Pages, patience, view};
use crate::config::Protocol;
use crate::outbound::{ALPN, Address, DialFailure, Dialed, Upstream, dial};
use crate::shared::Shared;
use crate::stream::Stream;

/// So long the other side may object to our certificate, which TLS 1.3 lets it do after our side is done.
const OBJECTION: Duration = Duration::from_millis(300);
/// So long it may take to end after we did.
const FAREWELL: Duration = Duration::from_secs(1);
/// Both.
#[cfg(test)]
pub(super) const LAST_WORD: Duration = OBJECTION.saturating_add(FAREWELL);
/// Bytes of an application that speaks first which are read and thrown away.
const MOST_READ: usize = 64 * 1024;

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Probed {
    /// What was asked for.
    destination: String,
    /// A stable word.
    pub(super) outcome: &'static str,
    /// The same as a sentence, where it did not go well.
    error: Option<String>,
    /// The alert by which the other side ended it.
    alert: Option<String>,
    /// What the configuration says of the destination; nothing where it is not there.
    listed: Option<ListedView>,
    /// What becomes of destinations that are not there.
    default_outbound: &'static str,
    /// What we present.
    own: Option<Value>,
    /// Our chain, leaf first, in PEM.
    own_chain_pem: Option<String>,
    /// Who answered.
    address: Option<SocketAddr>,
    /// Where we called from.
    source: Option<SocketAddr>,
    /// What is known of the TLS.
    tls: Option<TlsView>,
}

#[derive(Debug, Serialize)]
struct ListedView {
    by: String,
    upstream: String,
    mode: &'static str,
    expected: Vec<String>,
    protocol: &'static str,
}

/// What was settled on, and who was there.
#[derive(Debug, Default, Serialize)]
struct TlsView {
    version: Option<String>,
    cipher: Option<String>,
    alpn: Option<String>,
    presented: Option<String>,
    chain: Vec<Value>,
}

/// Makes the handshake.
pub(super) async fn probe(pages: &Pages, to: &Address) -> Probed {
    let shared = &pages.shared;
    let mut probed = begin(shared, to);
    let listed = match find(&shared.config, &pages.listeners, to).await {
        Lookup::Listed(listed) => listed,
        Lookup::Unlisted => return probed,
        Lookup::Unresolved(error) => return probed.ended(Found::new("unresolved", error)),
    };
    let expected = listed.way.upstream.expected.clone();
    let upstream = Upstream {
        expected: None,
        ..listed.way.upstream.clone()
    };
    probed.listed = Some(ListedView::of(&listed));
    let dialed = match reach(shared, &upstream).await {
        Ok(dialed) => dialed,
        Err(failure) => return probed.ended(of_dial(&failure)),
    };
    probed.address = Some(dialed.address);
    probed.source = dialed.stream.tcp().local_addr().ok();
    let Some(expected) = expected else {
        probed.outcome = "plaintext";
        return probed;
    };
    if let Some(lacking) = lacking(shared) {
        return probed.ended(lacking);
    }
    meet(shared, expected, dialed, probed).await
}

/// What is known before anything is tried.
fn begin(shared: &Shared, to: &Address) -> Probed {
    let snapshot = shared.keys.current();
    let own = snapshot.as_ref().and_then(|snapshot| snapshot.own());
    let default_outbound = default_outbound(&shared.config);
    Probed {
        destination: to.to_string(),
        outcome: "unlisted",
        error: None,
        alert: None,
        listed: None,
        default_outbound,
        own: own.map(|own| view::svid(own, shared.clock.now())),
        own_chain_pem: own.map(|own| own.svid().chain().to_pem()),
        address: None,
        source: None,
        tls: None,
    }
}

/// Why we have nothing to present.
fn lacking(shared: &Shared) -> Option<Found> {
    if shared.keys.usable(shared.clock.now()).is_some() {
        return None;
    }
    let snapshot = shared.keys.current();
    Some(match snapshot.as_ref().and_then(|snapshot| snapshot.own()) {
        Some(own) => Found::new("svid_expired", format!("the SVID of {} has ended", own.id())),
        None => Found::new("no_svid", "there is no SVID to present yet".to_owned()),
    })
}

/// As a real connection does it, but for the patience.
async fn reach(shared: &Shared, upstream: &Upstream) -> Result<Dialed, DialFailure> {
    let after = patience(&shared.config);
    let dialed = tokio::time::timeout(after, dial(shared, upstream)).await;
    dialed.unwrap_or_else(|_| {
        let address = upstream.address.to_string();
        Err(DialFailure::Slow { address, after })
    })
}

async fn meet(shared: &Shared, expected: Arc<[SpiffeId]>, dialed: Dialed, mut probed: Probed) -> Probed {
    let keys = Arc::new(shared.keys.clone());
    let terms = Terms {
        alpn: ALPN,
        tls12: shared.config.tls12,
        time: Arc::new(TlsTime(Arc::clone(&shared.clock))),
    };
    let made = recording_client_config(keys.clone(), keys, Expected::AnyOf(expected), terms);
    let (config, presented) = match made {
        Ok(made) => made,
        Err(error) => return probed.ended(Found::new("handshake", error.to_string())),
    };
    let name = ServerName::IpAddress(dialed.address.ip().into());
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, dialed.stream);
    let connected = tokio::time::timeout(patience(&shared.config), connecting).await;
    let tls = match connected {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            probed.tls = Some(TlsView::of(shared, &presented, None));
            return probed.ended(of_handshake(&error));
        }
        Err(_) => {
            let error = "the handshake was not answered in time".to_owned();
            return probed.ended(Found::new("handshake_slow", error));
        }
    };
    probed.tls = Some(TlsView::of(shared, &presented, Some(tls.get_ref().1)));
    match last_word(tls).await {
        Ok(()) => {
            probed.outcome = "ok";
            probed
        }
        Err(error) => probed.ended(of_last_word(&error)),
    }
}

/// Ends the connection, and hears whether the other side objects.
async fn last_word(mut tls: TlsStream<Stream>) -> std::io::Result<()> {
    let mut bytes = vec![0; 4096];
    let mut left = MOST_READ;
    if let Ok(read) = tokio::time::timeout(OBJECTION, tls.read(&mut bytes)).await {
        match read? {
            0 => return Ok(()),
            read => left = left.saturating_sub(read),
        }
    }
    let farewell = async {
        tls.shutdown().await?;
        while left > 0 {
            match tls.read(&mut bytes).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        Ok(())
    };
    // Who says nothing for so long does not object.
    tokio::time::timeout(FAREWELL, farewell).await.unwrap_or(Ok(()))
}

impl Probed {
    fn ended(mut self, found: Found) -> Self {
        self.outcome = found.word;
        self.error = Some(found.error);
        self.alert = found.alert;
        self
    }
}

impl ListedView {
    fn of(listed: &Listed) -> Self {
        let upstream = &listed.way.upstream;
        let expected = upstream.expected.iter().flat_map(|ids| ids.iter());
        Self {
            by: listed.by.clone(),
            upstream: upstream.address.to_string(),
            mode: if upstream.expected.is_some() {
                "mtls"
            } else {
                "plaintext"
            },
            expected: expected.map(ToString::to_string).collect(),
            protocol: match listed.way.protocol {
                Protocol::Http(_) => "http",
                Protocol::Tcp => "tcp",
            },
        }
    }
}

impl TlsView {
    fn of(shared: &Shared, presented: &Presented, session: Option<&rustls::ClientConnection>) -> Self {
        let chain: Vec<Certificate> = presented
            .chain()
            .iter()
            .filter_map(|der| Certificate::from_der(der.clone()).ok())
            .collect();
        let version = session.and_then(|session| session.protocol_version());
        let cipher = session.and_then(|session| session.negotiated_cipher_suite());
        let alpn = session.and_then(|session| session.alpn_protocol());
        Self {
            version: version.map(|version| format!("{version:?}")),
            cipher: cipher.map(|cipher| format!("{:?}", cipher.suite())),
            alpn: alpn.map(|alpn| String::from_utf8_lossy(alpn).into_owned()),
            presented: peer_id(Some(presented.chain())).map(|id| id.to_string()),
            chain: view::chain(shared, &chain),
        }
    }
}
