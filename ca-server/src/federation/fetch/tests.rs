use super::*;
use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::get;
use signet_certs::tls::{IdentitySource, public_server_config, web_client_config, web_identity, web_roots};
use signet_runtime::Clock;
use signet_runtime::clock::{SystemClock, TlsTime};
use signet_runtime::fetch::UrlFault;
use signet_runtime::shutdown::Tasks;

use crate::metrics::Metrics;

struct Fixed(Arc<rustls::sign::CertifiedKey>);

impl IdentitySource for Fixed {
    fn identity(&self) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn time() -> Arc<TlsTime> {
    Arc::new(TlsTime(Arc::new(SystemClock) as Arc<dyn Clock>))
}

/// An endpoint on 127.0.0.1 with these pages, and a client that accepts it.
async fn endpoint(router: Router) -> (EndpointUrl, Arc<ClientConfig>, Tasks) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::IpAddress("127.0.0.1".parse().unwrap())];
    let pem = params.self_signed(&key).unwrap().pem();
    let identity = web_identity(pem.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let tls = public_server_config(Arc::new(Fixed(Arc::new(identity))), &[b"http/1.1"], time()).unwrap();
    let tasks = Tasks::new();
    let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
    let address = "127.0.0.1:0".parse().unwrap();
    let bound = crate::endpoint::serve("test", address, Some(Arc::new(tls)), router, (&tasks, &metrics))
        .await
        .unwrap();
    let roots = web_roots(pem.as_bytes()).unwrap();
    let client = web_client_config(roots, &[b"http/1.1"], time()).unwrap();
    let url = format!("https://{bound}/start").parse().unwrap();
    (url, Arc::new(client), tasks)
}

/// A page that redirects by `status`.
fn to(status: StatusCode, location: &'static str) -> Router {
    Router::new().route(
        "/start",
        get(move || async move { (status, [(header::LOCATION, location)]).into_response() }),
    )
}

#[tokio::test]
async fn a_body_is_fetched_as_it_is_whatever_its_content_type() {
    let page = |headers: HeaderMap| async move {
        let agent = headers.get(header::USER_AGENT).cloned();
        assert!(agent.is_some_and(|agent| agent.as_bytes().starts_with(b"signet-ca/")));
        ([(header::CONTENT_TYPE, "text/plain")], "{\"keys\":[]}")
    };
    let (url, client, _tasks) = endpoint(Router::new().route("/start", get(page))).await;
    assert_eq!(fetch(&url, client).await.unwrap(), "{\"keys\":[]}");
}

#[tokio::test]
async fn redirects_of_every_kind_are_followed_to_endpoints_only() {
    for code in [301, 302, 303, 307, 308] {
        let status = StatusCode::from_u16(code).unwrap();
        let router = to(status, "/there").route("/there", get(async || "found"));
        let (url, client, _tasks) = endpoint(router).await;
        assert_eq!(fetch(&url, client).await.unwrap(), "found", "{code}");
    }
    for (location, fault) in [
        ("http://127.0.0.1/", UrlFault::Downgrade),
        ("https://u@127.0.0.1/", UrlFault::Userinfo),
    ] {
        let (url, client, _tasks) = endpoint(to(StatusCode::FOUND, location)).await;
        let refused = fetch(&url, client).await.unwrap_err();
        assert!(
            matches!(refused, EndpointError::Fetch(FetchError::Redirect(found)) if found == fault),
            "{refused}"
        );
    }
    let (url, client, _tasks) = endpoint(to(StatusCode::FOUND, "/start")).await;
    assert!(matches!(
        fetch(&url, client).await,
        Err(EndpointError::Fetch(FetchError::Redirects))
    ));
    let bare = Router::new().route("/start", get(async || StatusCode::FOUND));
    let (url, client, _tasks) = endpoint(bare).await;
    assert!(matches!(
        fetch(&url, client).await,
        Err(EndpointError::Fetch(FetchError::NoLocation))
    ));
}

/// The name in the new URL is checked as the first one was: this certificate is for an address alone.
#[tokio::test]
async fn a_redirect_to_a_host_that_proves_nothing_is_refused() {
    let redirect = |headers: HeaderMap| async move {
        let host = headers[header::HOST]
            .to_str()
            .unwrap()
            .replace("127.0.0.1", "localhost");
        (
            StatusCode::FOUND,
            [(header::LOCATION, format!("https://{host}/there"))],
        )
    };
    let router = Router::new()
        .route("/start", get(redirect))
        .route("/there", get(async || "found"));
    let (url, client, _tasks) = endpoint(router).await;
    let refused = fetch(&url, client).await.unwrap_err();
    assert!(
        matches!(&refused, EndpointError::Unproven { host, .. } if host == "localhost"),
        "{refused}"
    );
}

#[tokio::test]
async fn what_is_no_bundle_by_its_status_or_size_is_refused() {
    let router = Router::new().route("/start", get(async || StatusCode::NOT_FOUND));
    let (url, client, _tasks) = endpoint(router).await;
    let refused = fetch(&url, client).await.unwrap_err();
    assert!(
        matches!(
            refused,
            EndpointError::Fetch(FetchError::Status(StatusCode::NOT_FOUND))
        ),
        "{refused}"
    );

    let most = Router::new().route("/start", get(async || "x".repeat(MAX_BODY_BYTES)));
    let (url, client, _tasks) = endpoint(most).await;
    assert_eq!(fetch(&url, client).await.unwrap().len(), MAX_BODY_BYTES);
    let more = Router::new().route("/start", get(async || "x".repeat(MAX_BODY_BYTES + 1)));
    let (url, client, _tasks) = endpoint(more).await;
    assert!(matches!(
        fetch(&url, client).await,
        Err(EndpointError::Fetch(FetchError::Body(_)))
    ));
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_or_proves_nothing_is_told_apart() {
    let (url, client, tasks) = endpoint(Router::new().route("/start", get(async || "x"))).await;
    let strange = web_client_config(rustls::RootCertStore::empty(), &[b"http/1.1"], time()).unwrap();
    let refused = fetch(&url, Arc::new(strange)).await.unwrap_err();
    assert!(matches!(refused, EndpointError::Unproven { .. }), "{refused}");
    assert!(tasks.drain(Duration::from_secs(5)).await);
    let gone = fetch(&url, client).await.unwrap_err();
    assert!(
        matches!(gone, EndpointError::Fetch(FetchError::Unreachable { .. })),
        "{gone}"
    );
}
