//! A client of `CreateCertificate` that can do everything right and everything wrong.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use signet_certs::{SigningKey, SvidChain, UnixTime};
use signet_proto::wire::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use signet_proto::wire::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use signet_runtime::grpc::{Timeouts, channel};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tonic::metadata::{AsciiMetadataKey, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::ca::{Ca, SERVER_NAME};

/// How to connect.
#[derive(Clone, Debug)]
pub struct Dial {
    /// TLS versions offered.
    pub versions: Vec<&'static rustls::SupportedProtocolVersion>,
    /// Protocols offered by ALPN.
    pub alpn: Vec<Vec<u8>>,
    /// The name the CA must prove.
    pub server_name: String,
    /// Chain and key to present when asked.
    pub identity: Option<Arc<Presented>>,
    /// HTTP/2 pings.
    pub timeouts: Timeouts,
}

/// A client certificate: chain and PKCS#8 key, both PEM.
#[derive(Clone)]
pub struct Presented {
    /// PEM, leaf first.
    pub chain: String,
    /// PEM.
    pub key: String,
}

impl std::fmt::Debug for Presented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Presented")
    }
}

impl Default for Dial {
    fn default() -> Self {
        Self {
            versions: vec![&rustls::version::TLS13, &rustls::version::TLS12],
            alpn: vec![b"h2".to_vec()],
            server_name: SERVER_NAME.into(),
            identity: None,
            timeouts: Timeouts::default(),
        }
    }
}

impl Dial {
    /// The rustls configuration of it, trusting `roots` (PEM).
    ///
    /// # Panics
    /// When the parts do not fit.
    #[must_use]
    pub fn config(&self, roots: &str) -> ClientConfig {
        crate::init();
        let mut store = RootCertStore::empty();
        for root in crate::tls::certificates(roots) {
            store.add(root).expect("root");
        }
        let builder =
            ClientConfig::builder_with_protocol_versions(&self.versions).with_root_certificates(store);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(presented) => {
                let chain = crate::tls::certificates(&presented.chain);
                let key = <PrivateKeyDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(
                    presented.key.as_bytes(),
                );
                builder
                    .with_client_auth_cert(chain, key.expect("key"))
                    .expect("client certificate")
            }
        };
        config.alpn_protocols.clone_from(&self.alpn);
        config
    }

    /// A channel to `ca`. Nothing is dialled yet.
    ///
    /// # Panics
    /// When the address is none.
    pub async fn channel(&self, ca: &Ca) -> Channel {
        let config = Arc::new(self.config(&ca.roots().await));
        channel(&ca.address, config, &self.server_name, self.timeouts).expect("address")
    }
}

impl Dial {
    /// As [`Dial::channel`], from this address of our own.
    ///
    /// # Panics
    /// When the address is none.
    pub async fn channel_from(&self, own: IpAddr, ca: &Ca) -> Channel {
        let connector = TlsConnector::from(Arc::new(self.config(&ca.roots().await)));
        let name = ServerName::try_from(self.server_name.clone()).expect("server name");
        let address: SocketAddr = ca.address.parse().expect("address");
        let dial = tower::service_fn(move |_: http::Uri| {
            let (connector, name) = (connector.clone(), name.clone());
            async move {
                let socket = TcpSocket::new_v4()?;
                socket.bind((own, 0).into())?;
                let tcp = socket.connect(address).await?;
                connector.connect(name, tcp).await.map(TokioIo::new)
            }
        });
        let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("address");
        endpoint.connect_with_connector_lazy(dial)
    }
}

/// One request.
#[derive(Clone, Default)]
pub struct Ask {
    request: IstioCertificateRequest,
    headers: Vec<(String, String)>,
    deadline: Option<Duration>,
}

impl Ask {
    /// Asks for `csr` to be certified.
    #[must_use]
    pub fn csr(csr: impl Into<String>) -> Self {
        Self {
            request: IstioCertificateRequest {
                csr: csr.into(),
                validity_duration: 3600,
                metadata: None,
            },
            ..Self::default()
        }
    }

    /// Asks with a new key and no names, as a good client does.
    #[must_use]
    pub fn good() -> Self {
        Self::csr(crate::csrs::plain())
    }

    /// With this token.
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// With this header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// For so many seconds.
    #[must_use]
    pub fn seconds(mut self, seconds: i64) -> Self {
        self.request.validity_duration = seconds;
        self
    }

    /// With a string in the request's metadata.
    #[must_use]
    pub fn metadata(mut self, key: &str, value: &str) -> Self {
        let kind = prost_types::value::Kind::StringValue(value.into());
        let value = prost_types::Value { kind: Some(kind) };
        let fields = &mut self.request.metadata.get_or_insert_default().fields;
        fields.insert(key.into(), value);
        self
    }

    /// Gives up after this long.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sends it.
    ///
    /// # Errors
    /// The CA's status.
    ///
    /// # Panics
    /// When a header cannot be one.
    pub async fn send(&self, channel: &Channel) -> Result<IstioCertificateResponse, Status> {
        let mut request = Request::new(self.request.clone());
        for (name, value) in &self.headers {
            let name: AsciiMetadataKey = name.parse().expect("header name");
            let value: MetadataValue<_> = value.parse().expect("header value");
            request.metadata_mut().append(name, value);
        }
        request.set_timeout(self.deadline.unwrap_or(Duration::from_secs(15)));
        let mut client = IstioCertificateServiceClient::new(channel.clone());
        client
            .create_certificate(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// Sends it over a connection of its own.
    ///
    /// # Errors
    /// The CA's status.
    pub async fn at(&self, ca: &Ca) -> Result<IstioCertificateResponse, Status> {
        self.send(&Dial::default().channel(ca).await).await
    }

    /// Sends it and expects a refusal of this code; answers its sentence.
    ///
    /// # Panics
    /// When it is not refused so.
    pub async fn refused(&self, ca: &Ca, code: Code) -> String {
        match self.at(ca).await {
            Ok(_) => panic!("it was granted; expected {code:?}"),
            Err(status) => {
                assert_eq!(status.code(), code, "{}", status.message());
                status.message().to_owned()
            }
        }
    }
}

/// The chain in an answer, leaf first, and the roots behind it.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn chain(answer: &IstioCertificateResponse) -> (SvidChain, String) {
    signet_proto::issue::read_response(answer).expect("chain")
}

/// A key, its chain and the moment: an SVID of `account` from `ca`, as PEM.
///
/// # Panics
/// When the CA refuses.
pub async fn svid(ca: &Ca, token: &str) -> Presented {
    let key = Arc::new(SigningKey::generate().expect("key"));
    let csr = signet_certs::csr::request(&key, None).expect("csr");
    let answer = Ask::csr(csr).token(token).at(ca).await.expect("issued");
    let (chain, _) = chain(&answer);
    Presented {
        chain: chain.to_pem(),
        key: key.expose_pem().to_string(),
    }
}

/// Now, as certificates count it.
#[must_use]
pub fn now() -> UnixTime {
    UnixTime::now()
}
