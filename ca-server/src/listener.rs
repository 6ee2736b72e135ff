//! Connections: TCP accept, TLS handshake with a deadline, bounds; served with what is known of the peer,
//! each by a task of its own.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use signet_certs::SpiffeId;
use signet_certs::tls::{peer_id, refusal};
use signet_runtime::shutdown::Tasks;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::ahead::Ahead;
use crate::authn::Recent;
use crate::gather::{Gather, Records, Turns};
use crate::metrics::Metrics;
use crate::serve::Server;
use crate::shares::{Share, Shares, Taken};

/// A peer that has not finished its handshake by then, or not begun to speak HTTP/2 as long after it, is
/// let go.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// What every HTTP/2 client says first (RFC 9113 §3.4). It is read here, since a connection that waits
/// for it can neither be pinged nor drained.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Wait after an accept that failed, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the connection tells of the peer.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Its address.
    pub address: Option<SocketAddr>,
    /// The identity in its verified client certificate, if it gave one.
    pub certificate: Option<SpiffeId>,
    /// Whose token its calls of this moment carry.
    pub recent: Arc<Recent>,
    /// Cancelled when the connection is to end: what would go on as long as it ends.
    pub retired: CancellationToken,
}

impl Peer {
    /// The address without port.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.map(|address| address.ip())
    }
}

/// A connection past its handshake and the preface, which it gives again to its reader. Its place among
/// the bounded number is given back on drop.
pub struct Connection {
    preface: &'static [u8],
    stream: Gather<TlsStream<Ahead<TcpStream>>>,
    peer: Peer,
    _place: Place,
}

struct Place {
    _share: Share,
    metrics: Metrics,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

impl Connection {
    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// For its driver.
    #[must_use]
    pub fn turns(&self) -> Turns {
        self.stream.turns()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.preface.is_empty() {
            let (now, later) = self.preface.split_at(self.preface.len().min(buf.remaining()));
            buf.put_slice(now);
            self.preface = later;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Accepts until shutdown, as many connections at once as `places` has room for. Each has a task of its own from its
/// handshake to its end, so a slow peer holds up nobody; on shutdown it ends with its last call.
pub fn accept(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    places: Shares,
    server: Arc<Server>,
    tasks: &Tasks,
    metrics: Metrics,
) {
    let acceptor = TlsAcceptor::from(tls);
    let shared = tasks.clone();
    let records = server.records();
    tasks.spawn_essential("listener", async move {
        loop {
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    Metrics::count(&metrics.connection_faults, "accept");
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let share = match places.take(Some(address.ip())) {
                Ok(share) => share,
                Err(taken) => {
                    refuse(taken, address, &metrics);
                    continue;
                }
            };
            metrics.connections.inc();
            let place = Place {
                _share: share,
                metrics: metrics.clone(),
            };
            let handshake = handshake(acceptor.clone(), stream, address, (place, Arc::clone(&records)));
            shared.spawn(connection(
                handshake,
                address,
                Arc::clone(&server),
                shared.token(),
                metrics.clone(),
            ));
        }
    });
}

/// Counts a connection there is no place for; at most one warning a minute.
fn refuse(taken: Taken, address: SocketAddr, metrics: &Metrics) {
    let reason = taken.full.as_str();
    Metrics::count(&metrics.connection_faults, reason);
    if taken.tell {
        tracing::warn!(peer.addr = %address, reason, "too many connections; closed");
    } else {
        tracing::debug!(peer.addr = %address, reason, "too many connections; closed");
    }
}

/// One connection from handshake to end.
async fn connection(
    handshake: impl Future<Output = Result<Connection, (&'static str, io::Error)>>,
    address: SocketAddr,
    server: Arc<Server>,
    ended: CancellationToken,
    metrics: Metrics,
) {
    let done = tokio::select! {
        done = handshake => done,
        () = ended.cancelled() => return,
    };
    let connection = match done {
        Ok(connection) => connection,
        Err((reason, error)) => {
            Metrics::count(&metrics.connection_faults, reason);
            tracing::debug!(peer.addr = %address, reason, %error, "handshake ended");
            return;
        }
    };
    if let Err(end) = server.serve(connection, &ended).await {
        if let Some(reason) = end.as_str() {
            Metrics::count(&metrics.connection_faults, reason);
        }
        tracing::debug!(peer.addr = %address, error = %end, "connection ended");
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    (place, records): (Place, Arc<dyn Records>),
) -> Result<Connection, (&'static str, io::Error)> {
    stream.set_nodelay(true).map_err(|e| ("socket", e))?;
    let done = tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(Ahead::new(stream))).await;
    let mut stream = match done {
        Err(_) => return Err(("handshake_deadline", io::ErrorKind::TimedOut.into())),
        Ok(Err(error)) => return Err((tls_reason(&error), error)),
        Ok(Ok(stream)) => stream,
    };
    let mut said = [0; PREFACE.len()];
    match tokio::time::timeout(HANDSHAKE_DEADLINE, stream.read_exact(&mut said)).await {
        Err(_) => return Err(("silent", io::ErrorKind::TimedOut.into())),
        Ok(Err(error)) => return Err((tls_reason(&error), error)),
        Ok(Ok(_)) if said != *PREFACE => return Err(("not_http2", io::ErrorKind::InvalidData.into())),
        Ok(Ok(_)) => {}
    }
    let certificate = peer_id(stream.get_ref().1.peer_certificates());
    Ok(Connection {
        preface: PREFACE,
        stream: Gather::new(stream, records),
        peer: Peer {
            address: Some(address),
            certificate,
            recent: Arc::default(),
            retired: CancellationToken::new(),
        },
        _place: place,
    })
}

fn tls_reason(error: &io::Error) -> &'static str {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(tls) if refusal(tls).is_some() => "client_certificate",
        Some(_) => "tls",
        None => "closed",
    }
}
