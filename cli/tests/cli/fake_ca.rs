//! A CA on the wire that answers as a test tells it to, honest or not.

use std::net::SocketAddr;
use std::sync::Arc;

use signet_certs::tls::{BundleSource, IdentitySource, server_config};
use signet_certs::{BundleSet, Csr, SigningKey, TrustBundle, X509Svid};
use signet_proto::wire::istio::v1::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use signet_proto::wire::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use signet_proto::wire::signet::ca::v1::authority_server::{Authority, AuthorityServer};
use signet_proto::wire::signet::ca::v1::{
    MintJwtSvidRequest, MintJwtSvidResponse, WatchBundleRequest, WatchBundleResponse,
};
use signet_runtime::SystemClock;
use signet_runtime::clock::TlsTime;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::support::{HOUR, Pki};

/// The name in the CA's serving certificate.
pub(crate) const NAME: &str = "signet-ca.signet-system.svc";

type Answer =
    dyn Fn(&Pki, &IstioCertificateRequest) -> Result<IstioCertificateResponse, Status> + Send + Sync;

pub(crate) struct FakeCa {
    pub(crate) pki: Arc<Pki>,
    pub(crate) address: SocketAddr,
    /// Tokens as received.
    pub(crate) tokens: Arc<std::sync::Mutex<Vec<String>>>,
    _ended: tokio::task::AbortHandle,
}

impl Drop for FakeCa {
    fn drop(&mut self) {
        self._ended.abort();
    }
}

/// The chain an honest CA makes for `shop/<account>`.
pub(crate) fn honest(
    pki: &Pki,
    request: &IstioCertificateRequest,
    account: &str,
) -> IstioCertificateResponse {
    let csr = Csr::from_pem(&request.csr).unwrap();
    let chain = pki.leaf(account, csr.public_key(), &[], HOUR);
    signet_proto::issue::respond(&chain, &pki.bundle())
}

impl FakeCa {
    /// Answers requests with `answer`; serves `bundle`, or has no bundle service.
    pub(crate) async fn start(
        bundle: Option<TrustBundle>,
        answer: impl Fn(&Pki, &IstioCertificateRequest) -> Result<IstioCertificateResponse, Status>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self::of(Arc::new(Pki::new()), bundle, answer).await
    }

    pub(crate) async fn of(
        pki: Arc<Pki>,
        bundle: Option<TrustBundle>,
        answer: impl Fn(&Pki, &IstioCertificateRequest) -> Result<IstioCertificateResponse, Status>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = tokio_rustls::TlsAcceptor::from(serving(&pki));
        let (connections, incoming) = tokio::sync::mpsc::channel(4);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = tls.accept(stream).await
                    && connections.send(Ok::<_, std::io::Error>(stream)).await.is_err()
                {
                    return;
                }
            }
        });
        let tokens = Arc::default();
        let service = Service {
            pki: Arc::clone(&pki),
            answer: Box::new(answer),
            tokens: Arc::clone(&tokens),
        };
        let router = tonic::transport::Server::builder()
            .add_service(IstioCertificateServiceServer::new(service))
            .add_optional_service(bundle.map(|bundle| AuthorityServer::new(Bundles(bundle))));
        let served = tokio::spawn(router.serve_with_incoming(ReceiverStream::new(incoming)));
        Self {
            pki,
            address,
            tokens,
            _ended: served.abort_handle(),
        }
    }
}

struct Own(Arc<X509Svid>);

impl IdentitySource for Own {
    fn identity(&self) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.certified_key())
    }
}

struct Nobody;

impl BundleSource for Nobody {
    fn bundles(&self) -> Arc<BundleSet> {
        Arc::new(BundleSet::default())
    }
}

fn serving(pki: &Pki) -> Arc<rustls::ServerConfig> {
    let key = Arc::new(SigningKey::generate().unwrap());
    let svid = X509Svid::new(pki.leaf("ca", key.public_key(), &[NAME], HOUR), key).unwrap();
    let time = Arc::new(TlsTime(Arc::new(SystemClock)));
    Arc::new(
        server_config(
            Arc::new(Own(Arc::new(svid))),
            Arc::new(Nobody),
            false,
            &[b"h2"],
            time,
        )
        .unwrap(),
    )
}

struct Service {
    pki: Arc<Pki>,
    answer: Box<Answer>,
    tokens: Arc<std::sync::Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl IstioCertificateService for Service {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let bearer = request
            .metadata()
            .get("authorization")
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        self.tokens.lock().unwrap().push(bearer);
        (self.answer)(&self.pki, request.get_ref()).map(Response::new)
    }
}

struct Bundles(TrustBundle);

#[tonic::async_trait]
impl Authority for Bundles {
    type WatchBundleStream = ReceiverStream<Result<WatchBundleResponse, Status>>;

    async fn watch_bundle(
        &self,
        _: Request<WatchBundleRequest>,
    ) -> Result<Response<Self::WatchBundleStream>, Status> {
        let (sender, stream) = tokio::sync::mpsc::channel(1);
        sender
            .send(Ok(signet_proto::authority::to_wire(&self.0, [])))
            .await
            .unwrap();
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn mint_jwt_svid(
        &self,
        _: Request<MintJwtSvidRequest>,
    ) -> Result<Response<MintJwtSvidResponse>, Status> {
        Err(Status::unimplemented("this CA mints no tokens"))
    }
}
