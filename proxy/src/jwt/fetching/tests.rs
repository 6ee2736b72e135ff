//! Keys of issuers over real HTTPS, and what becomes of tokens while they come, change and fail.

use std::net::{Ipv4Addr, SocketAddr};

use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use signet_runtime::SystemClock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::super::tests::{A, ALICE, B, get, in_force, rules, word_of};
use super::super::{TokenMetrics, Tokens};
use super::*;

/// An issuer's web server: pages by path, and how many answers it gave.
struct Web {
    address: SocketAddr,
    pages: watch::Sender<Vec<(&'static str, String)>>,
    served: watch::Receiver<usize>,
    tls: Arc<ClientConfig>,
}

impl Web {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let roots = signet_certs::tls::web_roots(certificate.pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        let (pages, shown) = watch::channel(Vec::new());
        let (count, served) = watch::channel(0);
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(server)), shown, count));
        let time = Arc::new(signet_runtime::clock::TlsTime(Arc::new(SystemClock)));
        let tls = signet_certs::tls::web_client_config(roots, &[b"http/1.1"], time).unwrap();
        Self {
            address,
            pages,
            served,
            tls: Arc::new(tls),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    fn fetcher(&self, dial: DialRules, plan: Plan) -> (KeyFetcher, Tokens) {
        let metrics = TokenMetrics::default();
        let when: (Plan, Arc<dyn Clock>) = (plan, Arc::new(SystemClock));
        let fetcher = KeyFetcher::with_plan(Arc::clone(&self.tls), dial, when, Tasks::new(), &metrics);
        (fetcher, Tokens::new(metrics))
    }
}

async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    pages: watch::Receiver<Vec<(&'static str, String)>>,
    count: watch::Sender<usize>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = tls.accept(stream).await else {
            continue;
        };
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        let request = String::from_utf8(request).unwrap();
        let path = request.split(' ').nth(1).unwrap();
        let page = pages.borrow().iter().find(|(at, _)| *at == path).cloned();
        let (status, body) = page.map_or((404, String::new()), |(_, body)| (200, body));
        let head = format!("HTTP/1.1 {status} Word\r\nContent-Length: {}\r\n\r\n", body.len());
        stream
            .write_all(format!("{head}{body}").as_bytes())
            .await
            .unwrap();
        let _gone = stream.shutdown().await;
        count.send_modify(|count| *count += 1);
    }
}

fn loopback() -> DialRules {
    DialRules {
        blocked: Vec::new(),
        allowed: vec!["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()],
    }
}

/// No time has to pass between what is asked for.
const AT_ONCE: Plan = Plan {
    refresh: std::time::Duration::from_secs(3600),
    first_retry: std::time::Duration::from_secs(3600),
    longest_retry: std::time::Duration::from_secs(3600),
    ask_gap: std::time::Duration::ZERO,
};

fn bearer(token: &str) -> http::request::Parts {
    get("/", &[("authorization", &format!("Bearer {token}"))])
}

#[tokio::test]
async fn an_issuer_that_describes_itself_is_believed_and_a_new_key_is_fetched_when_it_is_missed() {
    let web = Web::start().await;
    let issuer = web.url("");
    let described = format!(r#"{{"issuer":"{issuer}","jwks_uri":"{}"}}"#, web.url("/keys"));
    let pages = |keys: String| {
        vec![
            ("/.well-known/openid-configuration", described.clone()),
            ("/keys", keys),
        ]
    };
    web.pages.send_replace(pages(A.jwks()));
    let (fetcher, tokens) = web.fetcher(loopback(), AT_ONCE);
    let rules = rules(&[format!("issuer: {issuer}")]);
    let keys = fetcher.key_sets(&rules);
    keys.settled().await;
    let claims = format!(r#"{{"iss":"{issuer}","sub":"s"}}"#);
    assert_eq!(
        word_of(&tokens, &rules, &keys, &bearer(&A.token(&claims))).await,
        "accepted"
    );
    let of_b = bearer(&B.token(&claims));
    assert_eq!(word_of(&tokens, &rules, &keys, &of_b).await, "unknown_key");

    web.pages.send_replace(pages(B.jwks()));
    assert_eq!(
        word_of(&tokens, &rules, &keys, &of_b).await,
        "accepted",
        "it waited for the key"
    );
    let of_a = bearer(&A.token(&claims));
    assert_eq!(
        word_of(&tokens, &rules, &keys, &of_a).await,
        "unknown_key",
        "the old key is gone"
    );
    // A failure leaves the last good keys in use.
    web.pages.send_replace(Vec::new());
    assert_eq!(word_of(&tokens, &rules, &keys, &of_a).await, "unknown_key");
    assert_eq!(word_of(&tokens, &rules, &keys, &of_b).await, "accepted");
    let state = keys.states().next().unwrap().to_string();
    assert_eq!(
        state,
        "1 keys, the last good ones: the server answers with status 404 Not Found"
    );
}

#[tokio::test]
async fn strangers_cannot_make_us_fetch_more_often_than_planned() {
    let web = Web::start().await;
    web.pages.send_replace(vec![("/keys", A.jwks())]);
    let (fetcher, tokens) = web.fetcher(loopback(), Plan::default());
    let rules = rules(&[format!("issuer: https://a.test\njwksUri: {}", web.url("/keys"))]);
    let keys = fetcher.key_sets(&rules);
    keys.settled().await;
    for _ in 0..20 {
        assert_eq!(
            word_of(&tokens, &rules, &keys, &bearer(&B.token(ALICE))).await,
            "unknown_key"
        );
    }
    assert_eq!(
        *web.served.borrow(),
        2,
        "once because it was due, once for all of them"
    );
    let again = fetcher.key_sets(&rules);
    again.settled().await;
    assert_eq!(
        *web.served.borrow(),
        2,
        "rules that are read again share what was fetched"
    );
}

#[tokio::test]
async fn inside_addresses_are_not_dialled_and_the_issuers_tokens_are_refused_for_that() {
    let web = Web::start().await;
    web.pages.send_replace(vec![("/keys", A.jwks())]);
    let (fetcher, tokens) = web.fetcher(DialRules::default(), AT_ONCE);
    let rules = in_force(&format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: r, namespace: n}}\n\
         spec: {{jwtRules: [{{issuer: 'https://a.test', jwksUri: '{}'}}]}}\n",
        web.url("/keys")
    ));
    let keys = fetcher.key_sets(&rules);
    keys.settled().await;
    assert_eq!(
        word_of(&tokens, &rules, &keys, &bearer(&A.token(ALICE))).await,
        "keys_not_fetched"
    );
    let state = keys.states().next().unwrap().to_string();
    assert!(
        state.starts_with("never fetched: localhost is at ") && state.ends_with(", which may not be dialled")
    );
    assert_eq!(*web.served.borrow(), 0);
}

#[tokio::test]
async fn keys_of_a_server_that_does_not_prove_its_name_are_not_taken() {
    let web = Web::start().await;
    web.pages.send_replace(vec![("/keys", A.jwks())]);
    let (fetcher, _) = Web::start().await.fetcher(loopback(), AT_ONCE);
    let rules = rules(&[format!("issuer: https://a.test\njwksUri: {}", web.url("/keys"))]);
    let keys = fetcher.key_sets(&rules);
    keys.settled().await;
    let state = keys.states().next().unwrap().to_string();
    assert!(
        state.starts_with("never fetched: tls handshake with localhost"),
        "{state}"
    );
}
