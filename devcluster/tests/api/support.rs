//! Clients, a clock that is set by hand, and waiting with an end.

use std::future::Future;
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, SystemTime};

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::Value;
use signet_devcluster::{DevCluster, Options};

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster with the namespaces `billing` and `shop`, and the account `api` in `billing`.
pub(crate) fn cluster() -> DevCluster {
    cluster_with(Options::default())
}

pub(crate) fn cluster_with(options: Options) -> DevCluster {
    let cluster = DevCluster::start(options).unwrap();
    for namespace in ["billing", "shop"] {
        cluster.create_namespace(namespace).unwrap();
    }
    cluster.create_service_account("billing", "api").unwrap();
    cluster
}

/// The admin's client, made from the kubeconfig.
pub(crate) async fn admin(cluster: &DevCluster) -> Client {
    client(cluster, cluster.admin_token()).await
}

/// A client with any token.
pub(crate) async fn client(cluster: &DevCluster, token: &str) -> Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Another test binary cannot have been here first: the provider is per process.
        rustls::crypto::ring::default_provider()
            .install_default()
            .unwrap();
    });
    let kubeconfig = Kubeconfig::from_yaml(&cluster.kubeconfig(token)).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    // A refusal is what a test wants to see, and at once.
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

pub(crate) async fn configmaps(cluster: &DevCluster) -> Api<ConfigMap> {
    Api::namespaced(admin(cluster).await, "billing")
}

/// Sends one request as it is; the answer comes back with its status and its body as JSON, or as a string.
pub(crate) async fn send(client: &Client, method: &str, path: &str, body: &str) -> (StatusCode, Value) {
    let (status, text) = send_typed(client, method, path, "application/json", body).await;
    let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (status, value)
}

pub(crate) async fn send_typed(
    client: &Client,
    method: &str,
    path: &str,
    media: &str,
    body: &str,
) -> (StatusCode, String) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", media);
    let request = request.body(Body::from(body.as_bytes().to_vec())).unwrap();
    let response = within(client.send(request)).await.unwrap();
    let status = response.status();
    let bytes = within(response.into_body().collect()).await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

/// The `Status` an API error carries.
pub(crate) fn refusal<T: std::fmt::Debug>(outcome: Result<T, kube::Error>) -> kube::core::Status {
    match outcome {
        Err(kube::Error::Api(status)) => *status,
        other => panic!("not a refusal: {other:?}"),
    }
}

/// Waits, and fails the test when it takes too long.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("this took too long")
}

/// A clock that stands still until it is moved.
#[derive(Clone)]
pub(crate) struct HandClock(Arc<Mutex<SystemTime>>);

impl HandClock {
    pub(crate) fn new() -> Self {
        HandClock(Arc::new(Mutex::new(
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_294_391),
        )))
    }

    pub(crate) fn advance(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }

    pub(crate) fn options(&self) -> Options {
        let clock = self.clone();
        let now = move || *clock.0.lock().unwrap();
        Options {
            clock: Arc::new(now),
            ..Options::default()
        }
    }
}
