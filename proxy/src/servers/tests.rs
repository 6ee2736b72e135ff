//! A provider over TLS: under the CAs of its file and its own name, and otherwise not asked.

use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use signet_proto::wire::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use signet_proto::wire::envoy::service::auth::v3::check_response::HttpResponse;
use signet_proto::wire::envoy::service::auth::v3::{CheckRequest, CheckResponse, OkHttpResponse};
use signet_runtime::SystemClock;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status};

use super::*;

/// Says yes to everything.
struct Yes;

#[tonic::async_trait]
impl Authorization for Yes {
    async fn check(&self, _: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        Ok(Response::new(CheckResponse {
            http_response: Some(HttpResponse::OkResponse(OkHttpResponse::default())),
            ..CheckResponse::default()
        }))
    }
}

/// A provider for `localhost`: its address and its CA in PEM.
async fn serve() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (streams, incoming) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(tls) = acceptor.accept(tcp).await {
                let _ended = streams.send(Ok::<_, std::io::Error>(tls)).await;
            }
        }
    });
    let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming);
    let server = tonic::transport::Server::builder().add_service(AuthorizationServer::new(Yes));
    tokio::spawn(server.serve_with_incoming(incoming));
    (format!("localhost:{port}"), certificate.pem())
}

fn config(text: &str) -> Config {
    let head = "policies: {directory: /nonexistent, namespace: data}\n";
    Config::from_text(&format!("{head}{text}")).unwrap()
}

async fn asked(text: &str) -> Result<&'static str, String> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let servers = Servers::new(&config(text), &mut Registry::default(), &clock, &Tasks::new())?;
    let accepted = crate::ext_authz::tests::accepted();
    Ok(servers.asker.ask("p", &accepted, None).await.as_str())
}

#[tokio::test]
async fn a_provider_proves_its_name_under_the_cas_it_is_configured_with() {
    let (address, pem) = serve().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, pem).unwrap();
    let file = file.display();
    let provider =
        |tls: &str| format!("ext_authz: [{{name: p, timeout: 5s, address: '{address}', tls: {tls}}}]");
    let of_file = provider(&format!("{{ca_file: '{file}'}}"));
    assert_eq!(asked(&of_file).await, Ok("allowed"));
    let other_name = provider(&format!("{{ca_file: '{file}', server_name: other.test}}"));
    assert_eq!(asked(&other_name).await, Ok("unreachable"));
    assert_eq!(
        asked(&provider("{}")).await,
        Ok("unreachable"),
        "the machine does not vouch for it"
    );
    let missing = asked(&provider("{ca_file: /nonexistent/ca.pem}"))
        .await
        .unwrap_err();
    assert!(
        missing.starts_with("ext_authz p: the CAs of /nonexistent/ca.pem: No such file"),
        "{missing}"
    );
    let keys = asked("jwt: {ca_file: /nonexistent/ca.pem}").await.unwrap_err();
    assert!(keys.starts_with("the CAs of /nonexistent/ca.pem"), "{keys}");
}
