//! Crowds at the CA's door: unfinished messages, connections of one address, connections that grow old.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use signet_devcluster::{Fault, FaultScope};
use signet_proto::wire::istio::v1::auth::IstioCertificateRequest;
use signet_tests::ca::{Ca, CaSetup, SERVER_NAME};
use signet_tests::client::{Ask, Dial};
use signet_tests::cluster::Cluster;
use signet_tests::process::resident;
use signet_tests::trust::Watch;
use signet_tests::wait::{SOON, until, within};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

const CREATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// Where connections come from that do not say otherwise.
const HOST: [u8; 4] = [127, 0, 0, 1];

/// A body that comes piece by piece.
type Pieces = mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>;
type Stream = StreamBody<ReceiverStream<Result<Frame<Bytes>, std::io::Error>>>;

/// A connection from an address of this machine, driven by a task among `tasks`.
async fn speaking(own: [u8; 4], ca: &Ca, roots: &str, tasks: &mut JoinSet<()>) -> SendRequest<Stream> {
    let config = Arc::new(Dial::default().config(roots));
    let name = rustls::pki_types::ServerName::try_from(SERVER_NAME).unwrap();
    let stream = tokio_rustls::TlsConnector::from(config)
        .connect(name, from(own, ca).await)
        .await
        .unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tasks.spawn(async move { drop(connection.await) });
    sender
}

/// A call whose body is still to come.
fn call(path: &str, token: &str) -> (Pieces, http::Request<Stream>) {
    let (body, queue) = mpsc::channel(1);
    let request = http::Request::post(format!("https://{SERVER_NAME}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .body(StreamBody::new(ReceiverStream::new(queue)))
        .unwrap();
    (body, request)
}

/// One connection of unfinished calls; they last as long as it is held.
struct Crowd {
    _bodies: Vec<Pieces>,
    tasks: JoinSet<()>,
}

impl Crowd {
    /// So many calls that send a third of a message and then nothing.
    async fn come(own: [u8; 4], ca: &Ca, roots: &str, path: &str, halves: usize) -> Self {
        let mut tasks = JoinSet::new();
        let sender = speaking(own, ca, roots, &mut tasks).await;
        let mut bodies = Vec::new();
        for _ in 0..halves {
            let (body, request) = call(path, &"x".repeat(4_000));
            // 48,000 bytes promised, a third of them there.
            let half = [&[0, 0, 0, 0xbb, 0x80][..], &[0; 16_000]].concat();
            body.try_send(Ok(Frame::data(Bytes::from(half)))).unwrap();
            bodies.push(body);
            let mut sender = sender.clone();
            tasks.spawn(async move { drop(sender.send_request(request).await) });
        }
        Self {
            _bodies: bodies,
            tasks,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_messages_of_one_address_take_bounded_memory_and_no_place_of_others() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let roots = ca.roots().await;
    let (cart, bank) = (cluster.token("shop", "cart"), cluster.token("shop", "bank"));
    Ask::good().token(&cart).at(&ca).await.unwrap();
    let before = resident(ca.process.pid());
    let mut crowds = Vec::new();
    for path in [
        CREATE,
        CREATE,
        "/signet.ca.v1.Authority/MintJwtSvid",
        "/signet.ca.v1.Authority/WatchBundle",
    ] {
        crowds.push(Crowd::come(HOST, &ca, &roots, path, 256).await);
    }
    // 128 of one address wait, each for 20 s at most; those that came before them are refused, of all kinds.
    until("the refusals", SOON * 4, async || {
        let scrape = ca.scrape().await;
        let overloaded = |metric: &str| scrape.outcome(metric, "overloaded");
        scrape.outcome("signet_ca_unfinished_calls_refused_total", "too_many_of_one") >= 256
            && overloaded("signet_ca_csrs_total") > 0
            && overloaded("signet_ca_jwt_svids_total") > 0
    })
    .await;
    let grown = resident(ca.process.pid()) - before;
    assert!(grown < 40.0, "{grown} MiB more");
    // Others have places of their own.
    let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    let channel = Dial::default().channel_from(other, &ca).await;
    Ask::good().token(&bank).send(&channel).await.unwrap();
    for crowd in &mut crowds {
        crowd.tasks.abort_all();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_headers_and_a_moment_later_the_message_is_served_beside_crowds_of_half_messages() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let roots = ca.roots().await;
    let refused = async |least: (u64, u64)| {
        until("the refusals", SOON, async || {
            let scrape = ca.scrape().await;
            let count = |outcome| scrape.outcome("signet_ca_unfinished_calls_refused_total", outcome);
            let counts = (count("too_many"), count("too_many_of_one"));
            assert!(counts.0 <= least.0 && counts.1 <= least.1, "{counts:?}");
            counts == least
        })
        .await;
    };
    // Four addresses have all places, 128 each: the last of their calls took those of the first. A connection
    // has no more than a hundred at once.
    let mut crowds = Vec::new();
    for last in 1..=4 {
        let own = [127, 0, 1, last];
        for _ in 0..2 {
            crowds.push(Crowd::come(own, &ca, &roots, CREATE, 100).await);
        }
        refused((0, 72 * u64::from(last))).await;
    }
    // One of another address, and one behind the address of the last crowd.
    let cart = cluster.token("shop", "cart");
    for (own, least) in [([127, 0, 1, 5], (1, 288)), ([127, 0, 1, 4], (1, 289))] {
        let mut tasks = JoinSet::new();
        let mut sender = speaking(own, &ca, &roots, &mut tasks).await;
        let (body, request) = call(CREATE, &cart);
        let answer = tokio::spawn(sender.send_request(request));
        // The headers alone are there: another's place is this call's.
        refused(least).await;
        body.send(Ok(Frame::data(message()))).await.unwrap();
        drop(body);
        let answer = within("the answer", SOON, answer).await.unwrap().unwrap();
        let whole = answer.into_body().collect().await.unwrap();
        let status = whole.trailers().and_then(|trailers| trailers.get("grpc-status"));
        assert_eq!(status.unwrap(), "0", "from {own:?}");
    }
    for crowd in &mut crowds {
        crowd.tasks.abort_all();
    }
}

/// A good client's request, with the head that gRPC gives a message.
fn message() -> Bytes {
    let request = IstioCertificateRequest {
        csr: signet_tests::csrs::plain(),
        validity_duration: 3600,
        metadata: None,
    };
    let message = request.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    Bytes::from([&[0][..], &length, &message].concat())
}

/// A plain connection from an address of this machine.
async fn from(own: [u8; 4], ca: &Ca) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((own, 0))).unwrap();
    let address: SocketAddr = ca.address.parse().unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_never_takes_all_connections() {
    let cluster = Cluster::start();
    let ca = CaSetup::new(&cluster).set("connections", 8).start().await;
    let open = async |most: f64| {
        until("the connections", SOON, async || {
            ca.scrape().await.value("signet_ca_connections", &[]) >= most
        })
        .await;
    };
    let _share = [from([127, 0, 0, 3], &ca).await, from([127, 0, 0, 3], &ca).await];
    open(2.0).await;
    let mut above = from([127, 0, 0, 3], &ca).await;
    let read = within("the end of it", SOON, above.read_u8()).await;
    read.expect_err("it is closed");
    let _other = from([127, 0, 0, 4], &ca).await;
    open(3.0).await;
    let scrape = ca.scrape().await;
    let faults = |outcome| scrape.outcome("signet_ca_connection_faults_total", outcome);
    assert_eq!((faults("too_many_of_one"), faults("too_many")), (1, 0));
    let log = ca.process.output();
    assert_eq!(log.matches("\"reason\":\"too_many_of_one\"").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_grew_old_ends_with_its_last_call_and_its_streams_end_cleanly() {
    let cluster = Cluster::start();
    let ca = CaSetup::new(&cluster)
        .set("connection_age", "5s")
        .set("review_timeout", "9s")
        .start()
        .await;
    let mut watch = Watch::open(&ca).await;
    watch.next(SOON).await;
    // Answered long after the connection it came over was told to end.
    cluster
        .api
        .set_fault(FaultScope::TokenReviews, Fault::Delay(Duration::from_secs(7)));
    let slow = Ask::good().token(&cluster.token("shop", "cart"));
    let channel = Dial::default().channel(&ca).await;
    let (answer, ended) = tokio::join!(slow.send(&channel), watch.end(SOON));
    assert!(answer.is_ok(), "a call is not cut: {answer:?}");
    ended.expect("an end that is no fault");
    let retired = ca
        .scrape()
        .await
        .value("signet_ca_connections_retired_total", &[]);
    assert!(retired >= 2.0, "{retired}");
    drop((watch, channel));
    until("the connections to be gone", SOON, async || {
        ca.scrape().await.value("signet_ca_connections", &[]) == 0.0
    })
    .await;
}
