//! Roots that are removed while connections are open that rest on them: those of clients, and those to upstreams.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use signet_certs::tls::{Terms, mutual_server_config};
use signet_certs::verify::Role;
use signet_certs::{Authority, X509Svid};
use signet_proto::sds::Content;
use signet_proxy::config::Speaks;
use signet_proxy::connection::{Accepted, Direction, Peer, Security};
use signet_proxy::outbound::{Address, Upstream};
use signet_runtime::Clock as _;
use signet_runtime::clock::TlsTime;
use tokio_rustls::TlsAcceptor;

use super::site::{ALLOW_ALL, BACK, FRONT, Site, accepted};
use super::withdrawn::{Talker, get, get2, next, served};
use crate::handshake::{Client as Party, Still, bundles, root, svid};

/// A proxy of the first authority that also trusts the second.
struct World {
    site: Site,
    own: Authority,
    other: Authority,
}

impl World {
    fn new() -> Self {
        let (site, own, other) = (Site::new("", ALLOW_ALL), root(), root());
        site.clock.0.store(Still.now().as_secs(), Ordering::SeqCst);
        let world = Self { site, own, other };
        world.trust(&[&world.own, &world.other]);
        let pair = Content::Pair(svid(&world.own, BACK));
        world.site.shelf.lock().unwrap().take(pair, Still.now()).unwrap();
        world
    }

    fn trust(&self, roots: &[&Authority]) {
        let bundles = Content::Bundles(bundles(roots));
        self.site
            .shelf
            .lock()
            .unwrap()
            .take(bundles, Still.now())
            .unwrap();
    }

    /// A connection of a client with an SVID of `issuer`.
    fn client_of(&self, issuer: &Authority) -> Accepted {
        let chain = svid(issuer, FRONT).chain().to_der();
        let proof = self.site.shared.keys.prove(&chain, Role::Client, Still.now());
        let peer = Peer {
            id: FRONT.parse().unwrap(),
            leaf_sha256: [1; 32],
            not_after: proof.as_ref().unwrap().verified().leaf_not_after,
            proof: Some(proof.unwrap()),
        };
        Accepted {
            security: Security::Mutual(peer),
            ..accepted()
        }
    }

    /// A server with an SVID of `issuer`.
    async fn server_of(&self, issuer: &Authority) -> Talker {
        let own: X509Svid = svid(issuer, FRONT);
        let party = Arc::new(Party(own, Arc::new(bundles(&[&self.own]))));
        let terms = Terms {
            alpn: &[b"signet"],
            tls12: false,
            time: Arc::new(TlsTime(Arc::new(Still))),
        };
        let config = mutual_server_config(party.clone(), party, terms).unwrap();
        Talker::with(Some(TlsAcceptor::from(Arc::new(config)))).await
    }
}

fn mutual(talker: &Talker, speaks: Speaks) -> Upstream {
    Upstream {
        address: Address::Socket(talker.address),
        expected: Some(Arc::from([FRONT.parse().unwrap()])),
        speaks,
    }
}

fn outbound() -> Accepted {
    Accepted {
        direction: Direction::Outbound,
        security: Security::Plaintext,
        ..accepted()
    }
}

#[tokio::test(start_paused = true)]
async fn clients_of_a_removed_root_are_closed_parked_idle_and_busy_and_others_stay() {
    let (world, talker) = (World::new(), Talker::start().await);
    let site = &world.site;
    let mut parked = served(site, world.client_of(&world.other), &talker).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let mut idle = served(site, world.client_of(&world.other), &talker).await;
    let mut stays = served(site, world.client_of(&world.own), &talker).await;
    let mut busy = site.connect_as(world.client_of(&world.other), &talker.upstream());
    busy.send(get("/long")).await;
    busy.until("first\r\n").await;
    let mut http2 = site
        .connect_as(world.client_of(&world.other), &talker.upstream())
        .http2()
        .await;
    let mut stream = http2.send_request(get2("/stream")).await.unwrap();
    next(&mut stream).await.unwrap();

    // A further root changes nothing, and neither does the same again.
    let third = root();
    world.trust(&[&world.own, &world.other, &third]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(site.refused("trust_withdrawn"), 0);

    let since = tokio::time::Instant::now();
    world.trust(&[&world.own, &third]);
    for ends in [&mut parked, &mut idle, &mut busy] {
        assert_eq!(ends.rest().await, "");
    }
    next(&mut stream).await.unwrap_err();
    http2.ready().await.unwrap_err();
    assert!(since.elapsed() <= Duration::from_secs(1), "{:?}", since.elapsed());
    busy.task.await.unwrap();
    assert_eq!(site.refused("trust_withdrawn"), 4, "{}", site.metrics());
    assert!(site.metrics().contains("signet_proxy_trust_withdrawn_total 4\n"));
    stays.send(get("/again")).await;
    stays.until("first\r\n").await;
}

#[tokio::test]
async fn a_root_removed_between_handshake_and_service_counts() {
    let (world, talker) = (World::new(), Talker::start().await);
    let late = world.client_of(&world.other);
    world.trust(&[&world.own]);
    let mut client = world.site.connect_as(late, &talker.upstream());
    client.send(get("/long")).await;
    let answer = client.rest().await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 403 "),
        "{answer}"
    );
    talker.has_open(0).await;
    assert_eq!(
        world.site.refused("trust_withdrawn"),
        1,
        "{}",
        world.site.metrics()
    );
}

#[tokio::test]
async fn a_client_whose_svid_has_ended_is_not_closed_for_that_when_bundles_change() {
    let (world, talker) = (World::new(), Talker::start().await);
    let mut client = served(&world.site, world.client_of(&world.other), &talker).await;
    world.site.clock.0.fetch_add(7_200, Ordering::SeqCst);
    world.trust(&[&world.own, &world.other, &root()]);
    client.send(get("/again")).await;
    client.until("first\r\n").await;
    assert_eq!(world.site.refused("trust_withdrawn"), 0);
}

#[tokio::test]
async fn upstreams_of_a_removed_root_are_left_idle_and_busy() {
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let world = World::new();
        let (site, talker) = (&world.site, world.server_of(&world.other).await);
        let way = mutual(&talker, speaks);
        // One connection waits for a request, another one has it; on HTTP/2 both are the same.
        let mut idle = site.connect_as(outbound(), &way);
        let mut busy = site.connect_as(outbound(), &way);
        idle.send(get("/short")).await;
        idle.until("first\r\n").await;
        busy.send(get("/long")).await;
        busy.until("first\r\n").await;
        let long = talker.answer("/long");
        let short = talker.answer("/short");
        talker.finish();
        drop(short);
        idle.until("0\r\n\r\n").await;
        talker.has_open(if speaks == Speaks::Http1 { 2 } else { 1 }).await;

        world.trust(&[&world.own]);
        assert_eq!(busy.rest().await, "", "it broke off");
        busy.task.await.unwrap();
        long.closed().await;
        talker.has_open(0).await;
        assert_eq!(
            site.refused("trust_withdrawn"),
            1,
            "{speaks:?} {}",
            site.metrics()
        );
        idle.send(get("/short")).await;
        let (head, body) = idle.answer().await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert_eq!(body, "identity_upstream_refused");
    }
}
