//! A CA in this process: real TLS and gRPC, real certificates, and behaviour a test can set.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use rustls::sign::CertifiedKey;
use signet_certs::tls::{BundleSource, IdentitySource};
use signet_certs::{
    Authority, BundleSet, Csr, LeafProfile, SigningKey, SpiffeId, TrustBundle, TrustDomain, UnixTime,
    X509Svid,
};
use signet_proto::wire::istio::v1::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use signet_proto::wire::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use signet_proto::wire::signet::ca::v1::authority_server::{Authority as Watch, AuthorityServer};
use signet_proto::wire::signet::ca::v1::{
    MintJwtSvidRequest, MintJwtSvidResponse, WatchBundleRequest, WatchBundleResponse,
};
use signet_runtime::clock::TlsTime;
use signet_runtime::{Clock, SystemClock};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// The identity the fake gives to everybody.
pub(crate) const WORKLOAD: &str = "spiffe://cluster.local/ns/shop/sa/cart";

pub(crate) fn domain() -> TrustDomain {
    "cluster.local".parse().unwrap()
}

pub(crate) fn now() -> UnixTime {
    SystemClock.now()
}

/// A root and an issuing authority below it.
pub(crate) struct Tower {
    pub(crate) root: Authority,
    pub(crate) issuing: Authority,
}

impl Tower {
    pub(crate) fn new() -> Self {
        let key = || Arc::new(SigningKey::generate().unwrap());
        let day = Duration::from_secs(86_400);
        let root = Authority::self_signed_root(&domain(), key(), 365 * day, now()).unwrap();
        let issuing = root
            .issue_intermediate(&domain(), key(), 14 * day, now())
            .unwrap();
        Self { root, issuing }
    }

    pub(crate) fn leaf(
        &self,
        id: &str,
        key: &SigningKey,
        ttl: Duration,
        dns: &[&str],
    ) -> signet_certs::SvidChain {
        let profile = LeafProfile {
            id: id.parse().unwrap(),
            ttl,
            min_left: Duration::from_secs(1),
            dns: dns.iter().map(|n| (*n).to_owned()).collect(),
        };
        signet_certs::issue(&profile, key.public_key(), &self.issuing, now()).unwrap()
    }

    pub(crate) fn svid(&self, ttl: Duration) -> X509Svid {
        let key = Arc::new(SigningKey::generate().unwrap());
        X509Svid::new(self.leaf(WORKLOAD, &key, ttl, &[]), key).unwrap()
    }
}

/// A bundle of the roots of these towers.
pub(crate) fn bundle(towers: &[&Tower], sequence: u64) -> Arc<TrustBundle> {
    let roots = towers.iter().map(|t| t.root.certificate().clone()).collect();
    Arc::new(TrustBundle::new(domain(), roots, sequence).unwrap())
}

/// What the fake does with the next requests.
#[derive(Clone)]
pub(crate) enum Mood {
    Issue {
        id: SpiffeId,
        ttl: Duration,
    },
    /// Whoever is asked for.
    Impersonate {
        ttl: Duration,
    },
    /// Whoever is asked for, but this one.
    RefuseOne {
        id: SpiffeId,
        ttl: Duration,
        status: Status,
    },
    Refuse(Status),
    Hang,
    AnotherKey,
    /// Everything right, but under a root that is not in the bundle; it comes along in the answer.
    AnotherRoot,
}

impl Mood {
    pub(crate) fn impersonate(ttl: Duration) -> Self {
        Self::Impersonate { ttl }
    }

    pub(crate) fn issue(ttl: Duration) -> Self {
        Self::Issue {
            id: WORKLOAD.parse().unwrap(),
            ttl,
        }
    }
}

pub(crate) struct State {
    pub(crate) tower: Mutex<Arc<Tower>>,
    pub(crate) mood: Mutex<Mood>,
    pub(crate) requests: AtomicUsize,
    pub(crate) tokens: Mutex<Vec<String>>,
    /// The identity each request asked for in place of the caller's own.
    pub(crate) impersonated: Mutex<Vec<Option<String>>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    pub(crate) bundles: watch::Sender<Option<Arc<TrustBundle>>>,
    /// The bundles of other trust domains; a change is sent with the next bundle.
    pub(crate) foreign: Mutex<Vec<TrustBundle>>,
    /// Streams of bundles that were opened, and a change that ends those there are.
    pub(crate) watches: AtomicUsize,
    age: watch::Sender<()>,
}

/// The running fake.
pub(crate) struct FakeCa {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<State>,
    /// A runtime of its own, so that ending it ends every connection as a killed process would.
    runtime: Option<tokio::runtime::Runtime>,
}

struct Service(Arc<State>);

impl FakeCa {
    pub(crate) async fn start(mood: Mood) -> Self {
        Self::of(Arc::new(Tower::new()), mood).await
    }

    /// Another one of the same authority.
    pub(crate) async fn replica(&self, mood: Mood) -> Self {
        Self::of(self.tower(), mood).await
    }

    async fn of(tower: Arc<Tower>, mood: Mood) -> Self {
        let (bundles, _) = watch::channel(Some(bundle(&[&tower], 1)));
        let state = Arc::new(State {
            tower: Mutex::new(tower),
            mood: Mutex::new(mood),
            requests: AtomicUsize::new(0),
            tokens: Mutex::default(),
            impersonated: Mutex::default(),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            bundles,
            foreign: Mutex::default(),
            watches: AtomicUsize::new(0),
            age: watch::Sender::new(()),
        });
        Self::serve("127.0.0.1:0".parse().unwrap(), state).await
    }

    async fn serve(address: SocketAddr, state: Arc<State>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (bound, address_of) = tokio::sync::oneshot::channel();
        let served = Arc::clone(&state);
        runtime.spawn(async move {
            let listener = loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            bound.send(listener.local_addr().unwrap()).unwrap();
            serve(listener, served).await;
        });
        Self {
            address: address_of.await.unwrap(),
            state,
            runtime: Some(runtime),
        }
    }

    /// Ends it with all its connections, keeping what it knows.
    pub(crate) fn stop(self) -> Stopped {
        Stopped {
            address: self.address,
            state: Arc::clone(&self.state),
        }
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.state.mood.lock().unwrap() = mood;
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Most requests that were under way at once.
    pub(crate) fn most_at_once(&self) -> usize {
        self.state.most_at_once.load(Ordering::SeqCst)
    }

    pub(crate) fn tower(&self) -> Arc<Tower> {
        Arc::clone(&self.state.tower.lock().unwrap())
    }

    pub(crate) fn publish(&self, bundle: Arc<TrustBundle>) {
        self.state.bundles.send_replace(Some(bundle));
    }

    /// Ends all streams of bundles, as a CA does whose connections have their age.
    pub(crate) fn end_watches(&self) {
        self.state.age.send_replace(());
    }

    /// Federates with exactly the domains of these bundles.
    pub(crate) fn federate(&self, foreign: Vec<TrustBundle>) {
        *self.state.foreign.lock().unwrap() = foreign;
        self.state.bundles.send_modify(|_| {});
    }

    pub(crate) fn root_pem(&self) -> String {
        self.tower().root.certificate().to_pem()
    }
}

impl Drop for FakeCa {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(tls(&state)));
    let accepted = futures::stream::unfold(listener, |listener| async move {
        Some((listener.accept().await.map(|(tcp, _)| tcp), listener))
    });
    let incoming = accepted
        .map(move |tcp| {
            let tls = tls.clone();
            async move { tls.accept(tcp?).await }
        })
        .buffer_unordered(64)
        .filter_map(async |accepted| accepted.ok().map(Ok::<_, std::io::Error>));
    tonic::transport::Server::builder()
        .add_service(IstioCertificateServiceServer::new(Service(Arc::clone(&state))))
        .add_service(AuthorityServer::new(Service(state)))
        .serve_with_incoming(Box::pin(incoming))
        .await
        .unwrap();
}

/// A fake that is down.
pub(crate) struct Stopped {
    address: SocketAddr,
    state: Arc<State>,
}

impl Stopped {
    pub(crate) async fn restart(self) -> FakeCa {
        FakeCa::serve(self.address, self.state).await
    }
}

struct Serving(Arc<CertifiedKey>);

impl IdentitySource for Serving {
    fn identity(&self) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

struct Nobody;

impl BundleSource for Nobody {
    fn bundles(&self) -> Arc<BundleSet> {
        Arc::default()
    }
}

fn tls(state: &State) -> rustls::ServerConfig {
    let tower = Arc::clone(&state.tower.lock().unwrap());
    let key = Arc::new(SigningKey::generate().unwrap());
    let id = "spiffe://cluster.local/ns/signet-system/sa/signet-ca";
    let chain = tower.leaf(id, &key, Duration::from_secs(3_600), &["localhost"]);
    let serving = Serving(X509Svid::new(chain, key).unwrap().certified_key());
    let time = Arc::new(TlsTime(Arc::new(SystemClock)));
    signet_certs::tls::server_config(Arc::new(serving), Arc::new(Nobody), false, &[b"h2"], time).unwrap()
}

#[tonic::async_trait]
impl IstioCertificateService for Service {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let state = &self.0;
        state.requests.fetch_add(1, Ordering::SeqCst);
        let at_once = state.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        state.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        // Whoever is asked at the same time gets as far as this before the first answer.
        tokio::task::yield_now().await;
        let answer = self.answer(request).await;
        state.at_once.fetch_sub(1, Ordering::SeqCst);
        answer
    }
}

impl Service {
    async fn answer(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let state = &self.0;
        let token = request
            .metadata()
            .get("authorization")
            .map(|v| v.to_str().unwrap().to_owned());
        state.tokens.lock().unwrap().push(token.unwrap_or_default());
        let asked = signet_proto::issue::parse(request.get_ref().clone()).unwrap();
        state
            .impersonated
            .lock()
            .unwrap()
            .push(asked.impersonated.clone());
        let named = || {
            let asked = asked.impersonated.as_deref().unwrap_or(WORKLOAD);
            asked
                .parse::<SpiffeId>()
                .map_err(|e| Status::invalid_argument(e.to_string()))
        };
        let csr =
            Csr::from_pem(&request.get_ref().csr).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let mood = state.mood.lock().unwrap().clone();
        let mut tower = Arc::clone(&state.tower.lock().unwrap());
        let mut roots = state
            .bundles
            .borrow()
            .clone()
            .unwrap_or_else(|| bundle(&[&tower], 1));
        let (id, ttl, key) = match mood {
            Mood::Refuse(status) => return Err(status),
            Mood::RefuseOne { id, status, .. } if named()? == id => return Err(status),
            Mood::Impersonate { ttl } | Mood::RefuseOne { ttl, .. } => {
                (named()?, ttl, csr.public_key().clone())
            }
            Mood::Hang => std::future::pending().await,
            Mood::Issue { id, ttl } => (id, ttl, csr.public_key().clone()),
            Mood::AnotherRoot => {
                tower = Arc::new(Tower::new());
                roots = bundle(&[&tower], 2);
                let id = WORKLOAD.parse().unwrap();
                (id, Duration::from_secs(60), csr.public_key().clone())
            }
            Mood::AnotherKey => {
                let other = SigningKey::generate().unwrap();
                (
                    WORKLOAD.parse().unwrap(),
                    Duration::from_secs(60),
                    other.public_key().clone(),
                )
            }
        };
        let profile = LeafProfile {
            id,
            ttl,
            min_left: Duration::from_secs(1),
            dns: Vec::new(),
        };
        let chain = signet_certs::issue(&profile, &key, &tower.issuing, now()).unwrap();
        Ok(Response::new(signet_proto::issue::respond(&chain, &roots)))
    }
}

#[tonic::async_trait]
impl Watch for Service {
    type WatchBundleStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<WatchBundleResponse, Status>> + Send>>;

    async fn watch_bundle(
        &self,
        _request: Request<WatchBundleRequest>,
    ) -> Result<Response<Self::WatchBundleStream>, Status> {
        let mut bundles = self.0.bundles.subscribe();
        bundles.mark_changed();
        let (state, age) = (Arc::clone(&self.0), self.0.age.subscribe());
        state.watches.fetch_add(1, Ordering::SeqCst);
        let stream = futures::stream::unfold(
            (bundles, age, state),
            |(mut bundles, mut age, state)| async move {
                loop {
                    tokio::select! {
                        changed = bundles.changed() => changed.ok()?,
                        _ = age.changed() => return None,
                    }
                    let newest = bundles.borrow_and_update().clone();
                    if let Some(bundle) = newest {
                        let foreign = state.foreign.lock().unwrap().clone();
                        let message = signet_proto::authority::to_wire(&bundle, &foreign);
                        return Some((Ok(message), (bundles, age, state)));
                    }
                }
            },
        );
        Ok(Response::new(Box::pin(stream)))
    }

    async fn mint_jwt_svid(
        &self,
        _request: Request<MintJwtSvidRequest>,
    ) -> Result<Response<MintJwtSvidResponse>, Status> {
        Err(Status::unimplemented("this CA mints no tokens"))
    }
}
