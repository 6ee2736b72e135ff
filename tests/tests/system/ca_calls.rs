//! Calls as they share connections: many at once, taken back, malformed, too slow; and what is on record
//! when an answer has left.

use bytes::Bytes;
use futures::future::join_all;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use signet_devcluster::{Fault, FaultScope};
use signet_tests::ca::{Ca, SERVER_NAME};
use signet_tests::client::{Ask, Dial, chain};
use signet_tests::cluster::Cluster;
use signet_tests::csrs;
use signet_tests::wait::{SOON, until};
use tokio::net::TcpStream;
use tonic::Code;

const CREATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// What the CA says, by code and text, to these bytes sent to this path.
async fn said(ca: &Ca, path: &str, body: Vec<u8>) -> (String, String) {
    said_with(ca, path, &[], body).await
}

async fn said_with(ca: &Ca, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (String, String) {
    let config = std::sync::Arc::new(Dial::default().config(&ca.roots().await));
    let tcp = TcpStream::connect(&ca.address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from(SERVER_NAME).unwrap();
    let stream = tokio_rustls::TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let mut request = http::Request::post(format!("https://{SERVER_NAME}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    assert_eq!(head.status, 200);
    let trailers = body.collect().await.unwrap().trailers().cloned();
    let fields = [head.headers, trailers.unwrap_or_default()];
    let field = |name: &str| {
        let value = fields.iter().find_map(|fields| fields.get(name));
        value.map_or_else(String::new, |v| v.to_str().unwrap().replace("%20", " "))
    };
    connection.abort();
    (field("grpc-status"), field("grpc-message"))
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag], &len[..], message].concat()
}

fn code(code: Code) -> String {
    i32::from(code).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_are_refused_counted_and_recorded() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let two = [framed(0, b""), framed(0, b"")].concat();
    for (body, status, part) in [
        (Vec::new(), Code::InvalidArgument, "request is not one message"),
        (vec![0, 0, 0], Code::InvalidArgument, "request is not one message"),
        (
            framed(0, b"abc")[..7].to_vec(),
            Code::InvalidArgument,
            "request is not one message",
        ),
        (two, Code::InvalidArgument, "request is not one message"),
        (
            framed(1, b"abc"),
            Code::Unimplemented,
            "compressed messages are not read here",
        ),
        (
            framed(0, &[0xff; 40]),
            Code::InvalidArgument,
            "message cannot be read",
        ),
        (
            framed(0, &vec![0; 200_000]),
            Code::OutOfRange,
            "message length too large",
        ),
    ] {
        let (got, text) = said(&ca, CREATE, body).await;
        assert_eq!(got, code(status), "{text}");
        assert!(text.starts_with(part), "{text}");
    }
    assert_eq!(ca.scrape().await.outcome("signet_ca_csrs_total", "malformed"), 7);
    let log = ca.process.output();
    let recorded = log
        .lines()
        .filter(|line| line.contains("\"reason\":\"malformed\""));
    assert_eq!(recorded.count(), 7);
    // The CA is none the worse for it.
    Ask::good()
        .token(&cluster.token("shop", "cart"))
        .at(&ca)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_tokens_that_cannot_be_read_or_answered_in_time_are_counted_and_recorded() {
    const MINT: &str = "/signet.ca.v1.Authority/MintJwtSvid";
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    for (body, status) in [
        (Vec::new(), Code::InvalidArgument),
        (framed(1, b"abc"), Code::Unimplemented),
        (framed(0, &[0xff; 40]), Code::InvalidArgument),
        (framed(0, &vec![0; 60_000]), Code::OutOfRange),
    ] {
        let (got, text) = said(&ca, MINT, body).await;
        assert_eq!(got, code(status), "{text}");
    }
    cluster.api.set_fault(FaultScope::TokenReviews, Fault::Hang);
    let request = signet_proto::wire::signet::ca::v1::MintJwtSvidRequest {
        audience: vec!["a".into()],
        ..Default::default()
    };
    let token = format!("Bearer {}", cluster.token("shop", "cart"));
    let headers = [("authorization", token.as_str()), ("grpc-timeout", "200m")];
    let (got, _) = said_with(&ca, MINT, &headers, framed(0, &request.encode_to_vec())).await;
    assert_eq!(got, code(Code::DeadlineExceeded));
    let scrape = ca.scrape().await;
    let count = |outcome| scrape.outcome("signet_ca_jwt_svids_total", outcome);
    assert_eq!((count("malformed"), count("deadline")), (4, 1));
    let log = ca.process.output();
    let records = log
        .lines()
        .filter(|line| line.contains("\"jwt request answered\""));
    assert_eq!(records.count(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_that_are_not_served_are_unimplemented() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    for path in [
        "/",
        "/istio.v1.auth.IstioCertificateService/Other",
        "/signet.ca.v1.Authority/Other",
        "/signet.ca.v1.AuthorityX/WatchBundle",
        "/grpc.health.v1.Health/Check",
    ] {
        let (got, _) = said(&ca, path, vec![0; 5]).await;
        assert_eq!(got, code(Code::Unimplemented), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_calls_at_once_on_one_connection_are_all_answered_each_with_its_own() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let channel = Dial::default().channel(&ca).await;
    let tokens: Vec<String> = (0..3)
        .map(|n| cluster.token("shop", &format!("cart-{n}")))
        .collect();
    // Known from now on.
    for token in &tokens {
        Ask::good().token(token).send(&channel).await.unwrap();
    }
    let csr = csrs::plain();
    let asks: Vec<Ask> = (0..600).map(|n| Ask::csr(&csr).token(&tokens[n % 3])).collect();
    let answers = join_all(asks.iter().map(|ask| ask.send(&channel))).await;
    let mut serials = std::collections::HashSet::new();
    for (n, answer) in answers.into_iter().enumerate() {
        let (chain, _) = chain(&answer.unwrap());
        let own = format!("spiffe://cluster.local/ns/shop/sa/cart-{}", n % 3);
        assert_eq!(chain.id().as_str(), own);
        assert!(serials.insert(chain.serial()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_taken_back_gives_its_place_back() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    cluster.api.set_fault(FaultScope::TokenReviews, Fault::Hang);
    let channel = Dial::default().channel(&ca).await;
    let ask = Ask::good().token(&cluster.token("shop", "cart"));
    let in_flight = async || ca.scrape().await.value("signet_ca_requests_in_flight", &[]);
    let call = {
        let channel = channel.clone();
        tokio::spawn(async move { ask.send(&channel).await })
    };
    until("the call to be under way", SOON, async || {
        in_flight().await == 1.0
    })
    .await;
    call.abort();
    until("the place to be free", SOON, async || in_flight().await == 0.0).await;
    // Neither the review nor the call ended by itself.
    let scrape = ca.scrape().await;
    for outcome in ["review_unavailable", "deadline"] {
        assert_eq!(scrape.outcome("signet_ca_csrs_total", outcome), 0, "{outcome}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_when_its_caller_no_longer_waits() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    cluster.api.set_fault(FaultScope::TokenReviews, Fault::Hang);
    let request = signet_proto::issue::request(csrs::plain(), 0).encode_to_vec();
    let token = format!("Bearer {}", cluster.token("shop", "cart"));
    let headers = [("authorization", token.as_str()), ("grpc-timeout", "200m")];
    let (got, text) = said_with(&ca, CREATE, &headers, framed(0, &request)).await;
    assert_eq!(got, code(Code::DeadlineExceeded));
    assert_eq!(text, "the call was not finished in time");
    assert_eq!(ca.scrape().await.outcome("signet_ca_csrs_total", "deadline"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_answered_is_on_record_when_the_ca_is_killed() {
    let cluster = Cluster::start();
    let mut ca = Ca::start(&cluster).await;
    let token = cluster.token("shop", "cart");
    let (serials, mut answered) = tokio::sync::mpsc::unbounded_channel();
    let csr = csrs::plain();
    let mut callers = Vec::new();
    for _ in 0..4 {
        let channel = Dial::default().channel(&ca).await;
        for _ in 0..8 {
            let ask = Ask::csr(&csr).token(&token);
            let (channel, serials) = (channel.clone(), serials.clone());
            callers.push(tokio::spawn(async move {
                while let Ok(answer) = ask.send(&channel).await {
                    let _ = serials.send(chain(&answer).0.serial());
                }
            }));
        }
    }
    drop(serials);
    let mut known = Vec::new();
    while known.len() < 300 {
        known.push(answered.recv().await.unwrap());
    }
    ca.process.kill();
    while let Some(serial) = answered.recv().await {
        known.push(serial);
    }
    join_all(callers).await;
    let log = ca.process.output();
    for serial in &known {
        assert!(
            log.contains(&format!("\"serial\":\"{serial}\"")),
            "{serial} has no record"
        );
    }
}
