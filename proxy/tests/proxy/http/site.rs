//! A proxy around one connection, with policies that a test sets, in front of a real upstream.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use signet_certs::UnixTime;
use signet_policy::scope::Role;
use signet_policy::{PolicySet, read_text};
use signet_proxy::Shared;
use signet_proxy::config::{Config, PolicySource, Speaks};
use signet_proxy::connection::{Accepted, Direction, Peer, Security};
use signet_proxy::connections::Connections;
use signet_proxy::enforced::{Enforced, Policies};
use signet_proxy::ext_authz::{AskMetrics, Asker};
use signet_proxy::handshake::Acceptor;
use signet_proxy::http::metrics::HttpMetrics;
use signet_proxy::http::pool::Pools;
use signet_proxy::http::{serve_inbound, serve_outbound};
use signet_proxy::jwt::{Given, IssuerKeys, KeySets, TokenMetrics, Tokens};
use signet_proxy::keys::Shelf;
use signet_proxy::metrics::Metrics;
use signet_proxy::outbound::{Address, Dialer, Upstream};
use signet_runtime::Clock;
use signet_runtime::clock::TlsTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) const FRONT: &str = "spiffe://cluster.local/ns/a/sa/front";
pub(crate) const BACK: &str = "spiffe://cluster.local/ns/b/sa/back";

/// A clock that a test sets.
#[derive(Debug, Default)]
pub(crate) struct Hands(pub(crate) AtomicU64);

impl Clock for Hands {
    fn now(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::SeqCst)))
    }
}

/// Paused time goes on when nobody has anything to do, and by as much as it takes for somebody to have something again.
/// What the kernel still carries between sockets is nothing to it: on a busy machine a deadline of minutes may be over
/// before an answer that was written has arrived. So time takes small steps here, and before each of them bytes of our
/// own that arrive tell that others have, and so do answers to them.
fn pace() {
    const STEP: Duration = Duration::from_millis(200);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    near.set_nodelay(true).unwrap();
    far.set_nonblocking(true).unwrap();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(STEP).await;
            for _ in 0..3 {
                near.write_all(b"x").unwrap();
                while far.read(&mut [0]).is_err() {
                    tokio::task::yield_now().await;
                }
                for _ in 0..50 {
                    tokio::task::yield_now().await;
                }
            }
        }
    });
}

/// The proxy.
pub(crate) struct Site {
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Arc<Hands>,
    pub(crate) shelf: Mutex<Shelf>,
    policies: watch::Sender<Option<Arc<Enforced>>>,
    registry: prometheus_client::registry::Registry,
}

impl Site {
    /// With further lines of configuration and these policies.
    pub(crate) fn new(config: &str, policies: &str) -> Self {
        let site = Self::unready(config);
        site.enforce(policies);
        site
    }

    /// Without policies.
    pub(crate) fn unready(config: &str) -> Self {
        pace();
        let text = format!(
            "policies: {{directory: /nowhere, namespace: b, labels: {{app: back}}}}\naccess_log: all\n{config}"
        );
        let config = Arc::new(Config::from_text(&text).unwrap());
        let mut registry = prometheus_client::registry::Registry::default();
        let metrics = Metrics::new(&mut registry, &config.local);
        let http = Pools::new(HttpMetrics::new(&mut registry, &metrics.census));
        let clock = Arc::new(Hands(AtomicU64::new(1_000_000)));
        let (sender, receiver) = watch::channel(None);
        let (shelf, keys) = Shelf::new("cluster.local".parse().unwrap());
        let time = TlsTime(Arc::<Hands>::clone(&clock));
        let wall: Arc<dyn Clock> = Arc::<Hands>::clone(&clock);
        let providers = signet_proxy::servers::providers(&config.ext_authz, &wall).unwrap();
        let shared = Arc::new(Shared {
            policies: Policies::new(receiver),
            dialer: Dialer::new(keys.clone(), time, false),
            acceptor: Acceptor::new(keys.clone(), Arc::<Hands>::clone(&clock), false),
            connections: Connections::new(metrics.connections_open.clone()),
            asker: Asker::new(&providers, Arc::<Hands>::clone(&clock), AskMetrics::default()).unwrap(),
            tokens: Tokens::new(TokenMetrics::default()),
            keys,
            http,
            metrics,
            clock: Arc::<Hands>::clone(&clock),
            drain: CancellationToken::new(),
            config,
        });
        tokio::spawn(signet_proxy::vigil::keep(Arc::clone(&shared)));
        Self {
            shared,
            clock,
            shelf: Mutex::new(shelf),
            policies: sender,
            registry,
        }
    }

    /// Puts policies in force.
    pub(crate) fn enforce(&self, yaml: &str) {
        self.policies.send_replace(Some(self.compiled(yaml)));
    }

    /// What puts policies in force later, from wherever.
    pub(crate) fn enforcing(&self, yaml: &str) -> impl Fn() + Send + Sync + use<> {
        let (policies, compiled) = (self.policies.clone(), self.compiled(yaml));
        move || drop(policies.send_replace(Some(Arc::clone(&compiled))))
    }

    fn compiled(&self, yaml: &str) -> Arc<Enforced> {
        let mut set = PolicySet::default();
        set.replace(read_text("test", yaml, Some("b")));
        assert_eq!(set.outstanding().count(), 0, "the test's policies are sound");
        let PolicySource::Files { workload, .. } = &self.shared.config.policies else {
            panic!("files");
        };
        assert_eq!(workload.role, Role::Sidecar);
        let in_force = set.in_force(workload, &self.shared.config.mesh);
        // Those that are not in the rules have not come.
        let keys = KeySets::new(&in_force.tokens, |_, _| IssuerKeys::Given(Given::fixed(None)));
        Arc::new(Enforced {
            ports: signet_proto::policy::Ports::new(),
            in_force,
            keys: Arc::new(keys),
            version: "1".into(),
        })
    }

    /// A client's connection over mutual TLS, as far as the proxy is concerned.
    pub(crate) fn connect(&self, upstream: &Upstream) -> Client {
        self.connect_as(accepted(), upstream)
    }

    pub(crate) fn connect_as(&self, accepted: Accepted, upstream: &Upstream) -> Client {
        let (client, server) = tokio::io::duplex(256 * 1024);
        let shared = Arc::clone(&self.shared);
        let outbound = accepted.direction == Direction::Outbound;
        let (accepted, upstream) = (Arc::new(accepted), upstream.clone());
        let task = tokio::spawn(async move {
            if outbound {
                serve_outbound(shared, accepted, server, upstream).await;
            } else {
                serve_inbound(shared, accepted, server, upstream).await;
            }
        });
        Client { stream: client, task }
    }

    /// The metrics as they are scraped.
    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    /// How often this reason was counted.
    pub(crate) fn refused(&self, reason: &str) -> u64 {
        let label = format!("reason=\"{reason}\"");
        let metrics = self.metrics();
        let lines = metrics
            .lines()
            .filter(|line| line.starts_with("signet_proxy_refusals_total{"));
        let counts = lines.filter(|line| line.contains(&label));
        counts
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }
}

/// As it looks after a handshake of `front`.
pub(crate) fn accepted() -> Accepted {
    Accepted {
        id: 7,
        direction: Direction::Inbound,
        security: Security::Mutual(Peer {
            id: FRONT.parse().unwrap(),
            leaf_sha256: [0xab; 32],
            not_after: UnixTime::since_unix_epoch(Duration::from_secs(2_000_000)),
            proof: None,
        }),
        source: "10.0.0.1:4000".parse().unwrap(),
        remote: "10.0.0.1".parse().unwrap(),
        destination: "10.0.0.2:8080".parse().unwrap(),
        port: 8080,
        sni: None,
        alpn: None,
        own_not_after: None,
        own_id: Some(BACK.parse().unwrap()),
    }
}

/// A client's end.
pub(crate) struct Client {
    pub(crate) stream: DuplexStream,
    pub(crate) task: tokio::task::JoinHandle<()>,
}

impl Client {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Everything until the proxy closes the connection.
    pub(crate) async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads until `end` has come.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains(end) {
            let byte = self.stream.read_u8().await;
            text.push(byte.unwrap_or_else(|_| panic!("{:?} ends", String::from_utf8_lossy(&text))));
        }
        String::from_utf8(text).unwrap()
    }

    /// One answer with a Content-Length: its head and its body.
    pub(crate) async fn answer(&mut self) -> (String, String) {
        let head = self.until("\r\n\r\n").await;
        let length = head.lines().find_map(|line| {
            line.to_lowercase()
                .strip_prefix("content-length: ")?
                .parse::<usize>()
                .ok()
        });
        let mut body = vec![0; length.unwrap_or_else(|| panic!("no length in {head}"))];
        self.stream.read_exact(&mut body).await.unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    /// Reads until the upstream was asked so often. False if the proxy closes before.
    pub(crate) async fn until_asked(&mut self, echo: &Echo, times: usize) -> bool {
        let mut bytes = [0; 4096];
        while echo.count() < times {
            if self.stream.read(&mut bytes).await.unwrap_or(0) == 0 {
                return false;
            }
        }
        true
    }

    /// An HTTP/2 client on it.
    pub(crate) async fn http2(self) -> hyper::client::conn::http2::SendRequest<Full<bytes::Bytes>> {
        let io = TokioIo::new(self.stream);
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .unwrap();
        tokio::spawn(connection);
        sender
    }
}

/// A server that tells what it was asked.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
}

impl Echo {
    /// Over HTTP/1 and HTTP/2 alike.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let (count, log) = (Arc::clone(&connections), Arc::clone(&seen));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let log = Arc::clone(&log);
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| tell(request, Arc::clone(&log)));
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self {
            address,
            connections,
            seen,
        }
    }

    pub(crate) fn upstream(&self) -> Upstream {
        upstream(self.address, Speaks::Auto)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn last(&self) -> String {
        self.seen.lock().unwrap().last().cloned().unwrap_or_default()
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

pub(crate) fn upstream(address: SocketAddr, speaks: Speaks) -> Upstream {
    Upstream {
        address: Address::Socket(address),
        expected: None,
        speaks,
    }
}

/// Answers with what it saw: a line for the request, one for each header, one for each of the trailers, the body.
async fn tell(
    request: Request<Incoming>,
    log: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Full<bytes::Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let mut lines = vec![format!("{} {} {:?}", head.method, head.uri, head.version)];
    for (name, value) in &head.headers {
        lines.push(format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
    }
    let body = body.collect().await?;
    for (name, value) in body.trailers().into_iter().flatten() {
        lines.push(format!("trailer {name}: {}", value.to_str().unwrap()));
    }
    lines.push(format!("body {}", String::from_utf8_lossy(&body.to_bytes())));
    let text = lines.join("\n");
    log.lock().unwrap().push(text.clone());
    Ok(Response::new(Full::new(text.into())))
}

/// A server that writes the same bytes whatever it is asked, and tells how many connections it had. With `close`
/// it ends each connection after an answer.
pub(crate) async fn scripted(answer: &'static [u8], close: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut text = Vec::new();
                loop {
                    let mut bytes = [0; 4096];
                    let read = stream.read(&mut bytes).await.unwrap_or(0);
                    if read == 0 {
                        return;
                    }
                    text.extend_from_slice(&bytes[..read]);
                    if text.windows(4).any(|four| four == b"\r\n\r\n") {
                        text.clear();
                        stream.write_all(answer).await.unwrap();
                        if close {
                            return;
                        }
                    }
                }
            });
        }
    });
    (address, connections)
}

pub(crate) const ALLOW_ALL: &str = "";
