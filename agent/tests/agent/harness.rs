//! A whole agent in this process, in a directory of its own, and clients that speak to it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use signet_agent::config::{Config, Raw};
use signet_proto::wire::envoy::config::core::v3::Node;
use signet_proto::wire::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use signet_proto::wire::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use signet_proto::wire::google::rpc::Status as RpcStatus;
use signet_runtime::{Clock, SystemClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::fake_ca::FakeCa;

/// Bound of every wait for something that must come.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Waits until `ready` gives a value, by asking again and again.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ready: impl FnMut() -> F,
) -> T {
    let asked = async {
        loop {
            if let Some(value) = ready().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, asked)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {SOON:?}"))
}

pub(crate) struct Agent {
    pub(crate) dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    running: tokio::task::JoinHandle<Result<(), String>>,
}

/// A token whose payload claims to be of `account`, with a signature nobody checks here.
pub(crate) fn token_of(account: &str) -> String {
    use base64::Engine as _;
    let (namespace, name) = account.split_once('/').unwrap();
    let claims = format!(r#"{{"sub":"system:serviceaccount:{namespace}:{name}"}}"#);
    format!(
        "e30.{}.c2ln",
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims)
    )
}

impl Agent {
    /// Starts an agent of `ca` in a fresh directory, with `more` lines of configuration.
    pub(crate) fn start(ca: &FakeCa, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("root.pem"), ca.root_pem()).unwrap();
        std::fs::write(dir.path().join("token"), token_of("shop/cart") + "\n").unwrap();
        Self::start_in(
            dir,
            &format!("ca_address: 127.0.0.1:{}\n{more}", ca.address.port()),
        )
    }

    pub(crate) fn start_in(dir: tempfile::TempDir, more: &str) -> Self {
        Self::start_by(Arc::new(SystemClock), dir, more)
    }

    pub(crate) fn start_by(clock: Arc<dyn Clock>, dir: tempfile::TempDir, more: &str) -> Self {
        let at = dir.path().display();
        let drain = if more.contains("drain:") {
            ""
        } else {
            "drain: 2s\n"
        };
        let yaml = format!(
            "ca_server_name: localhost\nca_root_file: {at}/root.pem\ntoken_file: {at}/token\n\
             socket: {at}/work/agent.sock\nadmin_socket: {at}/admin/admin.sock\n\
             metrics_listen: 127.0.0.1:0\nca_deadline: 2s\n{drain}{more}"
        );
        let raw: Raw = signet_runtime::config::from_text(&yaml).unwrap();
        let config = Config::check(raw).unwrap();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(signet_agent::run::run(config, clock, async {
            let _ = stopped.await;
        }));
        Self {
            dir,
            stop: Some(stop),
            running,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Gives the word, waits for the end and hands the directory back.
    pub(crate) async fn stop(mut self) -> tempfile::TempDir {
        drop(self.stop.take());
        tokio::time::timeout(SOON, self.running)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        self.dir
    }

    pub(crate) async fn get(&self, page: &str) -> (u16, Value) {
        http(&self.path("admin/admin.sock"), "GET", page, "").await
    }

    pub(crate) async fn post(&self, page: &str) -> (u16, Value) {
        http(&self.path("admin/admin.sock"), "POST", page, "").await
    }

    pub(crate) async fn post_json(&self, page: &str, body: Value) -> (u16, Value) {
        http(&self.path("admin/admin.sock"), "POST", page, &body.to_string()).await
    }

    /// The SVID served, once there is one that `fits`.
    pub(crate) async fn svid(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let fits = &fits;
        eventually("an svid that fits", || async move {
            if !self.path("admin/admin.sock").exists() {
                return None;
            }
            let (_, body) = self.get("/v1/svids").await;
            body["svids"].get(0).filter(|svid| fits(svid)).cloned()
        })
        .await
    }

    pub(crate) async fn metrics(&self) -> String {
        let (_, status) = self.get("/v1/status").await;
        let address = status["metrics_address"].as_str().unwrap().to_owned();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    pub(crate) async fn channel(&self) -> Channel {
        channel(&self.path("work/agent.sock")).await
    }
}

pub(crate) async fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let dial = move || {
        let socket = socket.clone();
        async move {
            let connector = tower::service_fn({
                let socket = socket.clone();
                move |_| {
                    let socket = socket.clone();
                    async move {
                        UnixStream::connect(socket)
                            .await
                            .map(hyper_util::rt::TokioIo::new)
                    }
                }
            });
            Endpoint::from_static("http://agent")
                .connect_with_connector(connector)
                .await
                .ok()
        }
    };
    eventually("a connection to the workload socket", dial).await
}

async fn http(socket: &Path, method: &str, page: &str, body: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let request = format!(
        "{method} {page} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// A client of `StreamSecrets`.
pub(crate) struct Sotw {
    pub(crate) requests: mpsc::Sender<DiscoveryRequest>,
    pub(crate) responses: Streaming<DiscoveryResponse>,
}

pub(crate) fn node(id: &str) -> Option<Node> {
    Some(Node {
        id: id.into(),
        cluster: "tests".into(),
    })
}

impl Sotw {
    pub(crate) async fn open(channel: &Channel, first: DiscoveryRequest) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(8);
        requests.send(first).await.unwrap();
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let responses = SecretDiscoveryServiceClient::new(channel.clone())
            .stream_secrets(stream)
            .await?
            .into_inner();
        Ok(Self { requests, responses })
    }

    pub(crate) async fn ask(channel: &Channel, names: &[&str]) -> Self {
        let first = DiscoveryRequest {
            node: node("web-1"),
            resource_names: names.iter().map(|n| (*n).to_owned()).collect(),
            type_url: signet_proto::sds::SECRET_TYPE_URL.into(),
            ..Default::default()
        };
        Self::open(channel, first).await.unwrap()
    }

    pub(crate) async fn next(&mut self) -> Result<DiscoveryResponse, Status> {
        let message = tokio::time::timeout(SOON, self.responses.message())
            .await
            .expect("an answer in time");
        message.map(|m| m.expect("a message before the end"))
    }

    pub(crate) async fn ack(&self, response: &DiscoveryResponse, names: &[&str]) {
        self.answer(response, names, None).await;
    }

    pub(crate) async fn answer(&self, response: &DiscoveryResponse, names: &[&str], error: Option<&str>) {
        let request = DiscoveryRequest {
            version_info: response.version_info.clone(),
            resource_names: names.iter().map(|n| (*n).to_owned()).collect(),
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error.map(|text| RpcStatus {
                code: 13,
                message: text.into(),
            }),
            ..Default::default()
        };
        self.requests.send(request).await.unwrap();
    }
}

/// A client of `DeltaSecrets`.
pub(crate) struct Delta {
    pub(crate) requests: mpsc::Sender<DeltaDiscoveryRequest>,
    pub(crate) responses: Streaming<DeltaDiscoveryResponse>,
}

impl Delta {
    pub(crate) async fn ask(channel: &Channel, names: &[&str], held: &[(&str, &str)]) -> Self {
        let (requests, receiver) = mpsc::channel(8);
        let first = DeltaDiscoveryRequest {
            node: node("web-2"),
            type_url: signet_proto::sds::SECRET_TYPE_URL.into(),
            resource_names_subscribe: names.iter().map(|n| (*n).to_owned()).collect(),
            initial_resource_versions: held
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
            ..Default::default()
        };
        requests.send(first).await.unwrap();
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut client = SecretDiscoveryServiceClient::new(channel.clone());
        let responses = client.delta_secrets(stream).await.unwrap().into_inner();
        Self { requests, responses }
    }

    pub(crate) async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let message = tokio::time::timeout(SOON, self.responses.message())
            .await
            .expect("an answer in time");
        message.map(|m| m.expect("a message before the end"))
    }

    pub(crate) async fn ack(&self, response: &DeltaDiscoveryResponse) {
        let request = DeltaDiscoveryRequest {
            response_nonce: response.nonce.clone(),
            ..Default::default()
        };
        self.requests.send(request).await.unwrap();
    }
}
