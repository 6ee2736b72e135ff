//! What strangers can make the CA do is bounded: calls, reviews, connections, bytes, time.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use signet_devcluster::{Fault, FaultScope};
use signet_tests::ca::{Ca, CaSetup};
use signet_tests::client::{Ask, Dial};
use signet_tests::cluster::Cluster;
use signet_tests::tls;
use signet_tests::wait::{SOON, until, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn calls_past_the_bound_are_refused_at_once_with_a_hint_when_to_come_back() {
    let cluster = Cluster::start();
    let ca = CaSetup::new(&cluster).set("requests_in_flight", 4).start().await;
    let tokens: Vec<String> = (0..12)
        .map(|n| cluster.token("shop", &format!("cart-{n}")))
        .collect();
    cluster
        .api
        .set_fault(FaultScope::TokenReviews, Fault::Delay(Duration::from_secs(1)));
    let channel = Dial::default().channel(&ca).await;
    let asks: Vec<Ask> = tokens.iter().map(|token| Ask::good().token(token)).collect();
    let answers = join_all(asks.iter().map(|ask| ask.send(&channel))).await;
    let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 8);
    for status in &refused {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert_eq!(status.message(), "the CA is busy; try again shortly");
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "500");
    }
    assert_eq!(ca.scrape().await.outcome("signet_ca_csrs_total", "overloaded"), 8);
    // Places are given back.
    Ask::good().token(&tokens[11]).send(&channel).await.unwrap();
    assert_eq!(ca.scrape().await.value("signet_ca_requests_in_flight", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_strangers_are_all_counted_but_recorded_at_a_bounded_rate() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let channel = Dial::default().channel(&ca).await;
    let began = signet_tests::client::now().as_secs();
    let asks: Vec<Ask> = (0..300).map(|_| Ask::csr("none").token("junk")).collect();
    for answer in join_all(asks.iter().map(|ask| ask.send(&channel))).await {
        assert_eq!(answer.unwrap_err().code(), Code::Unauthenticated);
    }
    let seconds = signet_tests::client::now().as_secs() - began + 1;
    let scrape = ca.scrape().await;
    let counted: f64 = scrape
        .text()
        .lines()
        .filter(|line| line.starts_with("signet_ca_csrs_total{") && !line.contains("\"issued\""))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert_eq!(counted, 300.0, "{}", scrape.text());
    let log = ca.process.output();
    let recorded = log
        .lines()
        .filter(|line| line.contains("\"target\":\"audit\"") && line.contains("\"outcome\":\"refused\""))
        .count() as u64;
    assert!(
        (20..=20 * seconds).contains(&recorded),
        "{recorded} records in {seconds} s"
    );
    let suppressed = scrape.value("signet_ca_audit_suppressed_total", &[]);
    assert_eq!(suppressed, 300.0 - recorded as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_past_the_bound_are_closed_and_counted() {
    let cluster = Cluster::start();
    let ca = CaSetup::new(&cluster)
        .set("connections", 3)
        .set("connections_per_address", 4)
        .start()
        .await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(tls::connect(&ca.address, None).await.unwrap());
    }
    until("three connections", SOON, async || {
        ca.scrape().await.value("signet_ca_connections", &[]) >= 3.0
    })
    .await;
    tls::connect(&ca.address, None).await.unwrap_err();
    assert!(
        ca.scrape()
            .await
            .outcome("signet_ca_connection_faults_total", "too_many")
            >= 1
    );
    held.clear();
    until("a free place", SOON, async || {
        tls::connect(&ca.address, None).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn issuance_works_beside_two_thousand_idle_connections() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let mut idle = tokio::task::JoinSet::new();
    while idle.len() < 2_000 {
        // Each speaks as soon as it can: the CA lets go of who is silent.
        let speaking = (0..50).map(async |_| {
            let mut stream = tls::connect(&ca.address, None).await.unwrap();
            stream.write_all(tls::PREFACE).await.unwrap();
            stream
        });
        for stream in join_all(speaking).await {
            // They answer pings, or the CA would let go of the first before the last are there.
            idle.spawn(answer_pings(stream));
        }
    }
    let scrape = ca.scrape().await;
    let open = scrape.value("signet_ca_connections", &[]);
    assert!(open >= 2_000.0, "{open} open: {}", scrape.text());
    let token = cluster.token("shop", "cart");
    for _ in 0..3 {
        within("an answer", SOON, Ask::good().token(&token).at(&ca))
            .await
            .unwrap();
    }
    drop(idle);
}

/// A client that does nothing but answer pings (RFC 9113 §6.7), until the connection ends.
async fn answer_pings(mut stream: TlsStream<TcpStream>) -> std::io::Result<()> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await?;
        if kind == 6 && flags & 1 == 0 {
            head[4] = 1;
            stream.write_all(&[&head[..], &payload].concat()).await?;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_do_not_get_to_speaking_http2_are_let_go() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let mut silent = TcpStream::connect(&ca.address).await.unwrap();
    let mut mute = tls::connect(&ca.address, None).await.unwrap();
    let mut other = tls::connect(&ca.address, None).await.unwrap();
    other
        .write_all(b"GET / HTTP/1.1\r\nhost: signet-ca\r\n\r\n")
        .await
        .unwrap();
    let ended = async {
        let mut rest = Vec::new();
        let reads = (
            silent.read_to_end(&mut rest).await,
            mute.read_u8().await,
            other.read_u8().await,
        );
        assert_eq!(reads.0.unwrap_or(0), 0);
        assert!(reads.1.is_err() && reads.2.is_err());
    };
    within("the end of the connections", SOON * 4, ended).await;
    let scrape = ca.scrape().await;
    for reason in ["handshake_deadline", "silent", "not_http2"] {
        assert_eq!(
            scrape.outcome("signet_ca_connection_faults_total", reason),
            1,
            "{reason}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_never_ends_is_given_up_and_holds_up_nobody() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let config = std::sync::Arc::new(Dial::default().config(&ca.roots().await));
    let tcp = TcpStream::connect(&ca.address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from(signet_tests::ca::SERVER_NAME).unwrap();
    let stream = tokio_rustls::TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    // A frame that promises a thousand bytes and brings three.
    let (body, queue) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
    body.send(Ok(Frame::data(Bytes::from_static(&[
        0, 0, 0, 3, 232, 10, 200, 7,
    ]))))
    .await
    .unwrap();
    let request = http::Request::post(format!(
        "https://{}/istio.v1.auth.IstioCertificateService/CreateCertificate",
        signet_tests::ca::SERVER_NAME
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .header(
        "authorization",
        format!("Bearer {}", cluster.token("shop", "cart")),
    )
    .body(StreamBody::new(ReceiverStream::new(queue)))
    .unwrap();
    let slow = tokio::spawn(async move {
        let answer = sender.send_request(request).await.unwrap();
        let (parts, rest) = answer.into_parts();
        let trailers = rest
            .collect()
            .await
            .unwrap()
            .trailers()
            .cloned()
            .unwrap_or_default();
        let status = parts
            .headers
            .get("grpc-status")
            .or(trailers.get("grpc-status"))
            .cloned();
        status.unwrap().to_str().unwrap().to_owned()
    });
    Ask::good()
        .token(&cluster.token("shop", "bank"))
        .at(&ca)
        .await
        .unwrap();
    let status = within("the end of the slow call", SOON * 4, slow).await.unwrap();
    assert!(
        ["1", "4"].contains(&status.as_str()),
        "cancelled or past its deadline, not {status}"
    );
    drop(body);
    connection.abort();
    assert_eq!(ca.scrape().await.value("signet_ca_requests_in_flight", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_headers_are_refused() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let good = Ask::good().token(&cluster.token("shop", "cart"));
    let with = |part: usize| {
        (0..5).fold(good.clone(), |ask, n| {
            ask.header(&format!("x-junk-{n}"), &"x".repeat(part))
        })
    };
    let channel = Dial::default().channel(&ca).await;
    // Below 24 KiB they are let through.
    with(4 * 1024).send(&channel).await.unwrap();
    // A little too many end the call, far too many the connection.
    let status = with(5 * 1024).send(&channel).await.unwrap_err();
    assert_eq!(status.code(), Code::Unknown, "{status:?}");
    assert!(status.message().contains("431"), "{status:?}");
    good.send(&channel).await.unwrap();
    let status = with(200 * 1024).send(&channel).await.unwrap_err();
    // Told so by GOAWAY, or found closed while still sending.
    assert!(
        matches!(status.code(), Code::ResourceExhausted | Code::Unknown),
        "{status:?}"
    );
    assert!(std::error::Error::source(&status).is_some(), "{status:?}");
    good.at(&ca).await.unwrap();
    let scrape = ca.scrape().await;
    assert_eq!(scrape.outcome("signet_ca_csrs_total", "issued"), 3);
}
