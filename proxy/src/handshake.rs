//! From an accepted socket to what the connection is: TLS of ours, TLS of others, or none.
//!
//! What a port demands comes from policy; what the client says, from its first bytes. Where mutual TLS is
//! demanded, everything else is reset. Where it is not, a client that offers the mesh's ALPN is met by mutual
//! TLS; other TLS passes through unread, and what is no TLS is plaintext. Once a byte of TLS was seen there is
//! no way back to plaintext.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::sign::CertifiedKey;
use signet_certs::tls::{Terms, mutual_server_config, refusal};
use signet_certs::verify::{Role, VerifyError};
use signet_policy::model::Mode;
use signet_runtime::Clock;
use signet_runtime::clock::TlsTime;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use crate::access_log::{Client, Identity, Limit, Reason, Tls};
use crate::config::Terminates;
use crate::connection::Peer;
use crate::first_bytes::{Fault, Hello, MAX_HELLO, Verdict, look};
use crate::keys::{Fixed, Keys, Own};
use crate::stream::{Prefixed, Stream};
use crate::waiting::{Crowded, Held};

/// What clients of the mesh offer.
pub const MESH_ALPN: &[&[u8]] = &[
    b"signet",
    b"istio",
    b"istio-peer-exchange",
    b"istio-http/1.0",
    b"istio-http/1.1",
    b"istio-h2",
];
/// What we settle on where HTTP is spoken, by preference. Never the peer exchange, whose bytes we do not speak.
const HTTP_ALPN: &[&[u8]] = &[
    b"h2",
    b"http/1.1",
    b"istio-h2",
    b"istio-http/1.1",
    b"istio-http/1.0",
    b"signet",
    b"istio",
];
/// The same where anything is spoken.
const TCP_ALPN: &[&[u8]] = &[b"signet", b"istio"];
/// First reading of what a client says; a hello seldom needs more.
const FIRST_READ: usize = 2_048;

/// What a connection turned out to be.
#[derive(Debug)]
pub struct Settled {
    /// Its bytes.
    pub stream: Stream,
    /// Whose it is.
    pub kind: Kind,
    /// The server name that the client asked for.
    pub sni: Option<Box<str>>,
    /// The protocol that was settled on.
    pub alpn: Option<Box<[u8]>>,
}

/// How it is secured.
#[derive(Debug)]
pub enum Kind {
    /// Mutual TLS with this peer, by this SVID of ours.
    Mutual(Peer, Own),
    /// TLS of others.
    PassedThrough,
    /// None.
    Plaintext,
}

/// Why a connection ends before it began.
#[derive(Debug, thiserror::Error)]
pub enum Unsettled {
    /// Plaintext where mutual TLS is demanded.
    #[error("the client speaks no TLS, and mutual TLS is demanded")]
    PlaintextRefused,
    /// Not enough in time.
    #[error("the handshake was not done within {} ms", .0.as_millis())]
    Stalled(Duration),
    /// It began as TLS.
    #[error("the client's first bytes are no TLS: {0}")]
    Malformed(#[from] Fault),
    /// The client went away, or its socket failed.
    #[error("the client went away: {0}")]
    Gone(io::Error),
    /// Others have something waiting as well.
    #[error(transparent)]
    Crowded(#[from] Crowded),
    /// We have no SVID to present.
    #[error("there is no SVID to present yet")]
    NoIdentity,
    /// The client has no certificate, though one was asked for.
    #[error("the client presented no certificate")]
    NoCertificate,
    /// Its certificate is not accepted.
    #[error("the client's certificate is refused: {0}")]
    Refused(VerifyError),
    /// TLS 1.2 at most.
    #[error("the client speaks TLS 1.2 at most, which tls12: true would admit")]
    OldTls,
    /// Anything else of TLS.
    #[error("tls handshake: {0}")]
    Handshake(String),
}

impl Unsettled {
    /// For records and metrics.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::PlaintextRefused => Reason::Tls(Tls::PlaintextRefused),
            Self::Stalled(_) => Reason::Tls(Tls::Stalled),
            Self::Malformed(_) => Reason::Tls(Tls::Malformed),
            Self::Gone(_) => Reason::Client(Client::Gone),
            Self::Crowded(_) => Reason::Limit(Limit::Waiting),
            Self::NoIdentity => Reason::Identity(Identity::NoneOfOurs),
            Self::NoCertificate => Reason::Tls(Tls::NoCertificate),
            Self::Refused(_) => Reason::Tls(Tls::CertificateRefused),
            Self::OldTls | Self::Handshake(_) => Reason::Tls(Tls::Handshake),
        }
    }
}

/// What is demanded of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Demands {
    /// What policy says.
    pub mode: Mode,
    /// Which TLS is ours to terminate where policy leaves it open.
    pub terminates: Terminates,
    /// Whether HTTP is spoken.
    pub http: bool,
    /// When the handshake must be done.
    pub deadline: Instant,
    /// How long the handshake may take in all, for the record.
    pub patience: Duration,
    /// When silence counts as plaintext, where that is allowed.
    pub silence: Instant,
}

/// Terminates TLS by our SVID. Its configurations are made once for each SVID.
pub struct Acceptor {
    keys: Keys,
    clock: Arc<dyn Clock>,
    tls12: bool,
    made: Mutex<Option<(Arc<CertifiedKey>, Made)>>,
}

#[derive(Clone)]
struct Made {
    http: Arc<ServerConfig>,
    tcp: Arc<ServerConfig>,
    /// For clients whose protocols are none of ours: none is settled on.
    none: Arc<ServerConfig>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

impl Acceptor {
    /// Presents what is in `keys`, and judges clients by its bundles.
    #[must_use]
    pub fn new(keys: Keys, clock: Arc<dyn Clock>, tls12: bool) -> Self {
        Self {
            keys,
            clock,
            tls12,
            made: Mutex::default(),
        }
    }

    fn config(&self, own: &Own, hello: &Hello, http: bool) -> Result<Arc<ServerConfig>, Unsettled> {
        let made = self.made(own.certified())?;
        let (ours, config) = if http {
            (HTTP_ALPN, made.http)
        } else {
            (TCP_ALPN, made.tcp)
        };
        Ok(if hello.offers(ours) { config } else { made.none })
    }

    fn made(&self, certified: &Arc<CertifiedKey>) -> Result<Made, Unsettled> {
        let mut slot = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, made)) = &*slot
            && Arc::ptr_eq(of, certified)
        {
            return Ok(made.clone());
        }
        let config = |alpn: &[&[u8]]| {
            let terms = Terms {
                alpn,
                tls12: self.tls12,
                time: Arc::new(TlsTime(Arc::clone(&self.clock))),
            };
            let identity = Arc::new(Fixed(Arc::clone(certified)));
            mutual_server_config(identity, Arc::new(self.keys.clone()), terms)
                .map(Arc::new)
                .map_err(|error| Unsettled::Handshake(error.to_string()))
        };
        let made = Made {
            http: config(HTTP_ALPN)?,
            tcp: config(TCP_ALPN)?,
            none: config(&[])?,
        };
        *slot = Some((Arc::clone(certified), made.clone()));
        Ok(made)
    }

    /// Finds out what the client speaks, and meets it. What came and cannot be acted upon yet is `held`.
    ///
    /// # Errors
    /// [`Unsettled`], with the socket if it should be reset rather than closed: a failed handshake has sent its
    /// alert, which a reset would overtake.
    pub async fn settle(
        &self,
        tcp: TcpStream,
        demands: &Demands,
        held: &mut Held,
    ) -> Result<Settled, (Unsettled, Option<TcpStream>)> {
        if demands.mode == Mode::Disable {
            return Ok(plain(Vec::new(), tcp, Kind::Plaintext, None));
        }
        let mut tcp = tcp;
        let mut bytes = Vec::new();
        let verdict = match first(&mut tcp, &mut bytes, demands, held).await {
            Ok(verdict) => verdict,
            Err(fault) => return Err((fault, Some(tcp))),
        };
        let strict = demands.mode == Mode::Strict;
        let hello = match verdict {
            First::NotTls if strict => return Err((Unsettled::PlaintextRefused, Some(tcp))),
            First::NotTls => return Ok(plain(bytes, tcp, Kind::Plaintext, None)),
            First::Malformed(fault) => return Err((fault.into(), Some(tcp))),
            First::Hello(hello) => hello,
        };
        let ours = strict || demands.terminates == Terminates::Any || hello.offers(MESH_ALPN);
        if !ours {
            return Ok(plain(bytes, tcp, Kind::PassedThrough, hello.sni));
        }
        let Some(own) = self.keys.usable(self.clock.now()) else {
            return Err((Unsettled::NoIdentity, Some(tcp)));
        };
        // On the heap, so that a connection that says nothing yet costs little.
        let terminated = Box::pin(self.terminate(Prefixed::new(bytes, tcp), (&own, &hello), demands, held));
        let (tls, peer) = terminated.await.map_err(|fault| (fault, None))?;
        let alpn = tls.get_ref().1.alpn_protocol().map(Into::into);
        Ok(Settled {
            stream: Stream::Server(Box::new(tls)),
            kind: Kind::Mutual(peer, own),
            sni: hello.sni,
            alpn,
        })
    }

    async fn terminate(
        &self,
        tcp: Prefixed,
        (own, hello): (&Own, &Hello),
        demands: &Demands,
        held: &mut Held,
    ) -> Result<(TlsStream<Prefixed>, Peer), Unsettled> {
        let config = self.config(own, hello, demands.http)?;
        let accepted = accept(TlsAcceptor::from(config).accept(tcp), held);
        let done = timeout_at(demands.deadline, accepted).await;
        let tls = done.map_err(|_| Unsettled::Stalled(demands.patience))??;
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        // The bundles may have changed since the verifier looked.
        let proven = self
            .keys
            .prove(chain, Role::Client, self.clock.now())
            .map_err(Unsettled::Refused)?;
        let verified = proven.verified();
        let peer = Peer {
            id: verified.id.clone(),
            leaf_sha256: verified.leaf_sha256,
            not_after: verified.leaf_not_after,
            proof: Some(proven),
        };
        Ok((tls, peer))
    }
}

/// Drives a handshake. All that came of it counts as waiting while it is not done: how much of it TLS keeps is not told.
async fn accept(mut tls: Accept<Prefixed>, held: &mut Held) -> Result<TlsStream<Prefixed>, Unsettled> {
    poll_fn(|cx| {
        if let Poll::Ready(done) = Pin::new(&mut tls).poll(cx) {
            return Poll::Ready(done.map_err(handshake_failure));
        }
        held.hold(tls.get_ref().map_or(0, Prefixed::came))?;
        held.poll_crowded(cx).map(|crowded| Err(crowded.into()))
    })
    .await
}

fn plain(bytes: Vec<u8>, tcp: TcpStream, kind: Kind, sni: Option<Box<str>>) -> Settled {
    Settled {
        stream: Stream::Plain(Prefixed::new(bytes, tcp)),
        kind,
        sni,
        alpn: None,
    }
}

fn handshake_failure(error: io::Error) -> Unsettled {
    use rustls::{Error as R, PeerIncompatible as P};
    let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<R>()) else {
        return Unsettled::Gone(error);
    };
    match (refusal(inner), inner) {
        (Some(fault), _) => Unsettled::Refused(fault.clone()),
        (None, R::NoCertificatesPresented) => Unsettled::NoCertificate,
        (None, R::PeerIncompatible(P::SupportedVersionsExtensionRequired | P::Tls12NotOfferedOrEnabled)) => {
            Unsettled::OldTls
        }
        (None, other) => Unsettled::Handshake(other.to_string()),
    }
}

/// What the first bytes say for good.
enum First {
    NotTls,
    Hello(Hello),
    Malformed(Fault),
}

/// Reads until it is told what the client speaks; `bytes` are what was read.
async fn first(
    tcp: &mut TcpStream,
    bytes: &mut Vec<u8>,
    demands: &Demands,
    held: &mut Held,
) -> Result<First, Unsettled> {
    let permissive = demands.mode == Mode::Permissive;
    let mut needed = 1;
    loop {
        let silent = permissive && bytes.is_empty();
        let deadline = if silent {
            demands.silence.min(demands.deadline)
        } else {
            demands.deadline
        };
        held.hold(bytes.len())?;
        let read = tokio::select! {
            biased;
            crowded = held.crowded() => return Err(crowded.into()),
            read = timeout_at(deadline, more(tcp, bytes)) => read,
        };
        match read {
            // A server that speaks first has a client that waits for it.
            Err(_) if silent => return Ok(First::NotTls),
            Err(_) => return Err(Unsettled::Stalled(demands.patience)),
            Ok(Err(error)) => return Err(Unsettled::Gone(error)),
            Ok(Ok(0)) => return Err(Unsettled::Gone(io::ErrorKind::UnexpectedEof.into())),
            Ok(Ok(_)) if bytes.len() < needed => continue,
            Ok(Ok(_)) => {}
        }
        match look(bytes) {
            Verdict::Undecided => needed = bytes.len() + 1,
            Verdict::Partial(at_least) => needed = at_least,
            Verdict::NotTls => return Ok(First::NotTls),
            Verdict::Hello(hello) => return Ok(First::Hello(hello)),
            Verdict::Malformed(fault) => return Ok(First::Malformed(fault)),
        }
    }
}

/// Reads some more, after waiting without a buffer: thousands of connections may be silent.
async fn more(tcp: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<usize> {
    if bytes.is_empty() {
        tcp.readable().await?;
        bytes.reserve(FIRST_READ);
    }
    if bytes.capacity() - bytes.len() < FIRST_READ / 2 {
        bytes.reserve(MAX_HELLO / 4);
    }
    tcp.read_buf(bytes).await
}
