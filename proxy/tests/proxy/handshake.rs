//! Real TLS over real sockets against the proxy's acceptor, with secrets that change under it.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use signet_certs::tls::{BundleSource, IdentitySource, Terms, mutual_client_config};
use signet_certs::verify::Expected;
use signet_certs::{
    Authority, BundleSet, LeafProfile, SigningKey, TrustBundle, TrustDomain, UnixTime, X509Svid, issue,
};
use signet_policy::model::Mode;
use signet_proto::sds::Content;
use signet_proxy::config::Terminates;
use signet_proxy::handshake::{Acceptor, Demands, Kind, Settled, Unsettled};
use signet_proxy::keys::{Keys, Shelf, Taken};
use signet_proxy::waiting::Waiting;
use signet_runtime::Clock;
use signet_runtime::clock::TlsTime;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

const SERVER: &str = "spiffe://cluster.local/ns/data/sa/backend";
const CLIENT: &str = "spiffe://cluster.local/ns/web/sa/frontend";

pub(crate) struct Still;

impl Clock for Still {
    fn now(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000))
    }
}

fn domain() -> TrustDomain {
    "cluster.local".parse().unwrap()
}

pub(crate) fn root() -> Authority {
    let key = Arc::new(SigningKey::generate().unwrap());
    Authority::self_signed_root(&domain(), key, Duration::from_secs(86_400), Still.now()).unwrap()
}

pub(crate) fn bundles(roots: &[&Authority]) -> BundleSet {
    let roots = roots.iter().map(|root| root.certificate().clone()).collect();
    BundleSet::of(Arc::new(TrustBundle::new(domain(), roots, 0).unwrap()))
}

pub(crate) fn svid(root: &Authority, id: &str) -> X509Svid {
    let key = Arc::new(SigningKey::generate().unwrap());
    let profile = LeafProfile {
        id: id.parse().unwrap(),
        ttl: Duration::from_secs(3_600),
        min_left: Duration::ZERO,
        dns: Vec::new(),
    };
    let chain = issue(&profile, key.public_key(), root, Still.now()).unwrap();
    X509Svid::new(chain, key).unwrap()
}

/// A client with secrets of its own.
pub(crate) struct Client(pub(crate) X509Svid, pub(crate) Arc<BundleSet>);

impl IdentitySource for Client {
    fn identity(&self) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.certified_key())
    }
}

impl BundleSource for Client {
    fn bundles(&self) -> Arc<BundleSet> {
        Arc::clone(&self.1)
    }
}

/// The proxy's side, and a client of it.
struct Sides {
    shelf: Shelf,
    keys: Keys,
    acceptor: Acceptor,
    client: Arc<Client>,
}

fn sides(own: &Authority, clients: &Authority) -> Sides {
    let (mut shelf, keys) = Shelf::new(domain());
    let now = Still.now();
    shelf
        .take(Content::Bundles(bundles(&[own, clients])), now)
        .unwrap();
    assert_eq!(shelf.take(Content::Pair(svid(own, SERVER)), now), Ok(Taken::Svid));
    let client = Client(svid(clients, CLIENT), Arc::new(bundles(&[own])));
    Sides {
        shelf,
        acceptor: Acceptor::new(keys.clone(), Arc::new(Still), false),
        keys,
        client: Arc::new(client),
    }
}

fn strict() -> Demands {
    let now = Instant::now();
    Demands {
        mode: Mode::Strict,
        terminates: Terminates::Mesh,
        http: false,
        deadline: now + Duration::from_secs(20),
        patience: Duration::from_secs(20),
        silence: now + Duration::from_secs(20),
    }
}

impl Sides {
    /// One handshake; what the proxy makes of it.
    async fn meet(&self) -> Result<Settled, Unsettled> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = Arc::clone(&self.client);
        let dialling = tokio::spawn(async move {
            let terms = Terms {
                alpn: &[b"signet"],
                tls12: false,
                time: Arc::new(TlsTime(Arc::new(Still))),
            };
            let expected = Expected::Id(SERVER.parse().unwrap());
            let config = mutual_client_config(client.clone(), client, expected, terms).unwrap();
            let tcp = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from("any.invalid").unwrap();
            if let Ok(mut tls) = TlsConnector::from(Arc::new(config)).connect(name, tcp).await {
                // Until the other side has judged us as well.
                let _ = tls.write_all(b"x").await;
                let _ = tokio::io::AsyncReadExt::read(&mut tls, &mut [0]).await;
            }
        });
        let (tcp, _) = listener.accept().await.unwrap();
        let settled = self
            .acceptor
            .settle(tcp, &strict(), &mut Waiting::default().begin(usize::MAX))
            .await
            .map_err(|(fault, _)| fault);
        if settled.is_err() {
            dialling.abort();
        }
        settled
    }
}

#[tokio::test]
async fn a_removed_root_is_refused_at_once_though_its_chain_was_known() {
    let (own, old) = (root(), root());
    let mut sides = sides(&own, &old);
    for _ in 0..3 {
        let settled = sides.meet().await.unwrap();
        match settled.kind {
            Kind::Mutual(peer, ours) => {
                assert_eq!(peer.id.as_str(), CLIENT);
                assert_eq!(ours.id().as_str(), SERVER);
            }
            other => panic!("{other:?}"),
        }
    }
    let (hits, misses) = sides.keys.chains().served();
    assert_eq!((hits, misses), (2, 1));
    let taken = sides.shelf.take(Content::Bundles(bundles(&[&own])), Still.now());
    assert_eq!(taken, Ok(Taken::Bundles));
    let refused = sides.meet().await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the client's certificate is refused: no authority in the bundle of cluster.local signed this chain"
    );
}

#[tokio::test]
async fn a_new_svid_is_presented_from_the_next_handshake_on() {
    let (own, clients) = (root(), root());
    let mut sides = sides(&own, &clients);
    let serial = |settled: Settled| match settled.kind {
        Kind::Mutual(_, ours) => ours.svid().chain().serial(),
        other => panic!("{other:?}"),
    };
    let first = serial(sides.meet().await.unwrap());
    assert_eq!(serial(sides.meet().await.unwrap()), first);
    let next = svid(&own, SERVER);
    let expected = next.chain().serial();
    sides.shelf.take(Content::Pair(next), Still.now()).unwrap();
    assert_eq!(serial(sides.meet().await.unwrap()), expected);
}
