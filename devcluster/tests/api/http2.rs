//! HTTP/2, which `kubectl` speaks and the `kube` client does not: many requests on one connection, and its end.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use signet_devcluster::{DevCluster, Fault, FaultScope};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{cluster, within};

/// Connects by one of the names of the serving certificate.
async fn connect(cluster: &DevCluster, name: &'static str) -> SendRequest<Empty<Bytes>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(cluster.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(cluster.address()).await.unwrap();
    let name = ServerName::try_from(name).unwrap();
    let tls = within(TlsConnector::from(Arc::new(config)).connect(name, tcp))
        .await
        .unwrap();
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

fn get(cluster: &DevCluster, path: &str) -> Request<Empty<Bytes>> {
    let token = cluster.admin_token();
    let request = Request::get(format!("https://kubernetes.default.svc{path}"));
    request
        .header("authorization", format!("Bearer {token}"))
        .body(Empty::new())
        .unwrap()
}

#[tokio::test]
async fn requests_share_a_connection_under_every_name() {
    let cluster = cluster();
    for name in ["kubernetes.default.svc", "localhost", "127.0.0.1"] {
        let mut sender = connect(&cluster, name).await;
        let watch = within(sender.send_request(get(&cluster, "/api/v1/namespaces?watch=1")))
            .await
            .unwrap();
        let list = within(sender.send_request(get(&cluster, "/api/v1/namespaces")))
            .await
            .unwrap();
        assert_eq!((watch.status(), list.status()), (StatusCode::OK, StatusCode::OK));
        let first = within(watch.into_body().frame()).await.unwrap().unwrap();
        assert!(first.into_data().unwrap().starts_with(b"{\"object\":"));
    }
}

#[tokio::test]
async fn closing_takes_the_whole_connection() {
    let cluster = cluster();
    let mut sender = connect(&cluster, "localhost").await;
    let watch = within(sender.send_request(get(&cluster, "/api/v1/pods?watch=1")))
        .await
        .unwrap();
    cluster.set_fault(FaultScope::AllRequests, Fault::CloseConnection);
    assert!(
        within(sender.send_request(get(&cluster, "/version")))
            .await
            .is_err()
    );
    assert!(
        within(watch.into_body().frame()).await.unwrap().is_err(),
        "the watch was cut, not ended"
    );
}

#[tokio::test]
async fn shutdown_does_not_wait_for_requests_that_hang() {
    let cluster = cluster();
    cluster.set_fault(FaultScope::AllRequests, Fault::Hang);
    let mut sender = connect(&cluster, "localhost").await;
    let hanging = tokio::spawn(sender.send_request(get(&cluster, "/version")));
    within(async {
        while cluster.counts().total() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    within(cluster.shutdown()).await;
    assert!(within(hanging).await.unwrap().is_err());
}
