//! Permits that are withdrawn while what they permitted is under way: long answers, uploads, streams and upgrades end.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use signet_proxy::config::Speaks;
use signet_proxy::connection::{Accepted, Security};
use signet_proxy::outbound::Upstream;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use super::judged::DENY_POST;
use super::site::{ALLOW_ALL, Client, Site, accepted, upstream};

pub(super) const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: b}
spec: {mtls: {mode: STRICT}}
";

fn deny(path: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: no, namespace: b}}\n\
         spec: {{action: DENY, rules: [{{to: [{{operation: {{paths: [\"{path}\"]}}}}]}}]}}\n"
    )
}

/// A server that says what the test tells it to, by path, and knows when nobody listens any more.
pub(super) struct Talker {
    pub(super) address: SocketAddr,
    answers: Arc<Mutex<HashMap<String, mpsc::Sender<Bytes>>>>,
    /// Connections open.
    open: watch::Sender<usize>,
}

struct Answer(mpsc::Receiver<Bytes>);

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

impl Talker {
    /// In the clear.
    pub(super) async fn start() -> Self {
        Self::with(None).await
    }

    /// By mutual TLS, where that is given.
    pub(super) async fn with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Arc::<Mutex<HashMap<String, mpsc::Sender<Bytes>>>>::default();
        let (open, all) = (watch::Sender::new(0), Arc::clone(&answers));
        let count = open.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (all, tls, count) = (Arc::clone(&all), tls.clone(), count.clone());
                count.send_modify(|open| *open += 1);
                tokio::spawn(async move {
                    match tls {
                        None => talk(stream, all).await,
                        Some(tls) => talk(tls.accept(stream).await.unwrap(), all).await,
                    }
                    count.send_modify(|open| *open -= 1);
                });
            }
        });
        Self {
            address,
            answers,
            open,
        }
    }

    pub(super) fn upstream(&self) -> Upstream {
        upstream(self.address, Speaks::Auto)
    }

    /// The answer to the request of this path.
    pub(super) fn answer(&self, path: &str) -> mpsc::Sender<Bytes> {
        self.answers.lock().unwrap()[path].clone()
    }

    /// Ends all answers.
    pub(super) fn finish(&self) {
        self.answers.lock().unwrap().clear();
    }

    /// Waits until so many connections are open.
    pub(super) async fn has_open(&self, count: usize) {
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open == count).await.unwrap();
    }

    pub(super) async fn say(&self, path: &str, text: &'static str) {
        self.answer(path).send(text.into()).await.unwrap();
    }
}

/// Serves one connection.
async fn talk<S>(stream: S, answers: Arc<Mutex<HashMap<String, mpsc::Sender<Bytes>>>>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (sender, receiver) = mpsc::channel(4);
        sender.try_send("first".into()).unwrap();
        let path = request.uri().path().to_owned();
        answers.lock().unwrap().insert(path, sender);
        tokio::spawn(request.into_body().collect());
        async move { Ok::<_, Infallible>(Response::new(Answer(receiver))) }
    });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

pub(super) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: b\r\n\r\n")
}

pub(super) fn get2(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://b{path}"))
        .body(Full::default())
        .unwrap()
}

pub(super) async fn next(response: &mut Response<Incoming>) -> Result<Bytes, hyper::Error> {
    Ok(response.body_mut().frame().await.unwrap()?.into_data().unwrap())
}

/// HTTP/2's word for the end of a stream.
fn word(error: &hyper::Error) -> Option<h2::Reason> {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(h2) = inner.downcast_ref::<h2::Error>() {
            return h2.reason();
        }
        cause = inner.source();
    }
    None
}

#[tokio::test]
async fn a_long_answer_of_http1_breaks_off_with_its_connection() {
    let talker = Talker::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&talker.upstream());
    client.send(get("/long")).await;
    client.until("first\r\n").await;
    // A change that leaves its permit leaves it.
    site.enforce(DENY_POST);
    talker.say("/long", "second").await;
    client.until("second\r\n").await;
    site.enforce(&deny("/long"));
    assert_eq!(
        client.rest().await,
        "",
        "no last chunk, so that nobody takes it for whole"
    );
    client.task.await.unwrap();
    assert_eq!(site.refused("policy_withdrawn"), 1, "{}", site.metrics());
    talker.answer("/long").closed().await;
}

#[tokio::test]
async fn a_stream_of_http2_is_reset_and_the_others_go_on() {
    let talker = Talker::start().await;
    for speaks in [Speaks::Auto, Speaks::Http1] {
        let site = Site::new("", ALLOW_ALL);
        let mut sender = site.connect(&upstream(talker.address, speaks)).http2().await;
        let mut ends = sender.send_request(get2("/ends")).await.unwrap();
        let mut stays = sender.send_request(get2("/stays")).await.unwrap();
        assert_eq!(next(&mut ends).await.unwrap(), "first");
        assert_eq!(next(&mut stays).await.unwrap(), "first");
        site.enforce(&deny("/ends"));
        let fault = next(&mut ends).await.unwrap_err();
        assert_eq!(word(&fault), Some(h2::Reason::CANCEL), "{fault:?}");
        talker.answer("/ends").closed().await;
        talker.say("/stays", "more").await;
        assert_eq!(next(&mut stays).await.unwrap(), "more");
        assert_eq!(site.refused("policy_withdrawn"), 1);
        // A new request is refused as ever.
        let refused = sender.send_request(get2("/ends")).await.unwrap();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        talker.finish();
        let rest = stays.into_body().collect().await.expect("it ends in order");
        assert!(rest.to_bytes().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_does_not_keep_what_was_withdrawn() {
    let talker = Talker::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&talker.upstream());
    client.send(get("/long")).await;
    client.until("first\r\n").await;
    let answer = talker.answer("/long");
    let much = Bytes::from(vec![b'x'; 8 * 1024 * 1024]);
    answer.send(much.clone()).await.unwrap();
    answer.send(much).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    site.enforce(&deny("/long"));
    let since = tokio::time::Instant::now();
    answer.closed().await;
    assert!(since.elapsed() <= Duration::from_secs(1), "{:?}", since.elapsed());
    assert_eq!(site.refused("policy_withdrawn"), 1, "{}", site.metrics());
}

#[tokio::test]
async fn a_request_that_waits_for_its_answer_is_refused() {
    let (address, _) = super::site::scripted(b"", false).await;
    let site = Site::new("", ALLOW_ALL);
    let mut client = site.connect(&upstream(address, Speaks::Http1));
    client
        .send("POST /up HTTP/1.1\r\nHost: b\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n")
        .await;
    client.until("100 Continue\r\n\r\n").await;
    client.send("some of it").await;
    site.enforce(DENY_POST);
    let (head, _) = client.answer().await;
    assert!(
        head.starts_with("HTTP/1.1 403 ") && head.contains("connection: close"),
        "{head}"
    );
    client.send([b'x'; 90]).await;
    assert_eq!(client.rest().await, "");
    assert_eq!(site.refused("policy_withdrawn"), 1);
}

fn plaintext() -> Accepted {
    Accepted {
        security: Security::Plaintext,
        ..accepted()
    }
}

pub(super) async fn served(site: &Site, accepted: Accepted, talker: &Talker) -> Client {
    let mut client = site.connect_as(accepted, &talker.upstream());
    client.send(get("/short")).await;
    client.until("first\r\n").await;
    talker.finish();
    client.until("0\r\n\r\n").await;
    client
}

#[tokio::test(start_paused = true)]
async fn strict_ends_plaintext_connections_that_idle_and_those_that_do_not() {
    let talker = Talker::start().await;
    let site = Site::new("", ALLOW_ALL);
    let mut parked = served(&site, plaintext(), &talker).await;
    let mut mutual = served(&site, accepted(), &talker).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let mut idle = served(&site, plaintext(), &talker).await;
    let mut busy = site.connect_as(plaintext(), &talker.upstream());
    busy.send(get("/long")).await;
    busy.until("first\r\n").await;
    let since = tokio::time::Instant::now();
    site.enforce(STRICT);
    for ends in [&mut parked, &mut idle, &mut busy] {
        assert_eq!(ends.rest().await, "");
    }
    assert!(since.elapsed() <= Duration::from_secs(1), "{:?}", since.elapsed());
    busy.task.await.unwrap();
    assert_eq!(site.refused("tls_plaintext_refused"), 3, "{}", site.metrics());
    mutual.send(get("/again")).await;
    mutual.until("first\r\n").await;
}

#[tokio::test]
async fn an_authorizer_that_was_not_asked_is_not_taken_for_one_that_said_yes() {
    let talker = Talker::start().await;
    let site = Site::new(
        "ext_authz: [{name: desk, protocol: grpc, address: \"127.0.0.1:9\"}]\n",
        ALLOW_ALL,
    );
    let mut client = site.connect(&talker.upstream());
    client.send(get("/long")).await;
    client.until("first\r\n").await;
    site.enforce(&custom("/other"));
    talker.say("/long", "second").await;
    client.until("second\r\n").await;
    site.enforce(&custom("/long"));
    assert_eq!(client.rest().await, "");
    client.task.await.unwrap();
    assert_eq!(site.refused("policy_withdrawn"), 1, "{}", site.metrics());
}

pub(super) fn custom(path: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: ask, namespace: b}}\n\
         spec: {{action: CUSTOM, provider: {{name: desk}}, rules: [{{to: [{{operation: {{paths: [\"{path}\"]}}}}]}}]}}\n"
    )
}

mod asked {
    //! What changes while an authorizer thinks.

    use signet_proto::wire::envoy::service::auth::v3::authorization_server::{
        Authorization, AuthorizationServer,
    };
    use signet_proto::wire::envoy::service::auth::v3::check_response::HttpResponse;
    use signet_proto::wire::envoy::service::auth::v3::{CheckRequest, CheckResponse, OkHttpResponse};
    use signet_proto::wire::google::rpc;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::Status;

    use super::*;

    /// Says yes, after the test had its moment.
    struct Desk(Moments);

    type Moments = Arc<Mutex<Vec<Box<dyn Fn() + Send + Sync>>>>;

    #[tonic::async_trait]
    impl Authorization for Desk {
        async fn check(
            &self,
            _: tonic::Request<CheckRequest>,
        ) -> Result<tonic::Response<CheckResponse>, Status> {
            self.0.lock().unwrap().pop().expect("asked once for each request")();
            Ok(tonic::Response::new(CheckResponse {
                status: Some(rpc::Status::default()),
                http_response: Some(HttpResponse::OkResponse(OkHttpResponse::default())),
            }))
        }
    }

    #[tokio::test]
    async fn what_policies_say_by_then_counts_and_who_said_yes_is_not_asked_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let moments = Moments::default();
        let server = AuthorizationServer::new(Desk(Arc::clone(&moments)));
        let server = tonic::transport::Server::builder().add_service(server);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let config = format!("ext_authz: [{{name: desk, protocol: grpc, address: \"{address}\"}}]\n");
        let talker = Talker::start().await;
        let site = Site::new(&config, &custom("/long"));
        let mut client = site.connect(&talker.upstream());
        let denying = format!("{}---\n{}", custom("/long"), deny("/long"));
        let allowing = format!("{}---\n{}", custom("/long"), deny("/other"));
        for (policies, status) in [(&denying, "403"), (&allowing, "200")] {
            site.enforce(&custom("/long"));
            moments.lock().unwrap().push(Box::new(site.enforcing(policies)));
            client.send(get("/long")).await;
            let head = client.until("\r\n\r\n").await;
            assert_eq!(head.split(' ').nth(1), Some(status), "{head}");
            if status == "403" {
                client.until("denied").await;
                assert_eq!(site.refused("policy_denied"), 1);
            }
        }
        // It was asked, so another change does not end it.
        client.until("first\r\n").await;
        site.enforce(&custom("/long"));
        talker.say("/long", "second").await;
        client.until("second\r\n").await;
    }
}

pub(super) mod tokens {
    //! What a token permitted ends with it.

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

    use super::*;

    pub(crate) struct Issuer(EcdsaKeyPair);

    impl Issuer {
        pub(crate) fn new() -> Self {
            let (random, form) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(form, &random).unwrap();
            Self(EcdsaKeyPair::from_pkcs8(form, pkcs8.as_ref(), &random).unwrap())
        }

        pub(crate) fn authentication(&self) -> String {
            let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
            let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
            let jwks = format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","kid":"k","x":"{x}","y":"{y}"}}]}}"#);
            format!(
                "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
                 metadata: {{name: tokens, namespace: b}}\nspec: {{jwtRules: [{{issuer: i, jwks: '{jwks}'}}]}}\n"
            )
        }

        pub(crate) fn token(&self, ends: u64) -> String {
            let claims = format!(r#"{{"iss":"i","sub":"alice","exp":{ends}}}"#);
            let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"k"}"#);
            let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
            let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    }

    pub(crate) const ONLY_ALICE: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: alice, namespace: b}
spec: {rules: [{from: [{source: {requestPrincipals: [i/alice]}}]}]}
";

    fn get(path: &str, token: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {token}\r\n\r\n")
    }

    /// A request under way, whose answer has begun.
    async fn begun(site: &Site, talker: &Talker, path: &str, token: &str) -> Client {
        let mut client = site.connect(&talker.upstream());
        client.send(get(path, token)).await;
        client.until("first\r\n").await;
        client
    }

    /// Alice, who hears a long answer.
    struct Alice {
        talker: Talker,
        issuer: Issuer,
        site: Site,
        now: u64,
        client: Client,
    }

    impl Alice {
        /// With a token for so many seconds.
        async fn hears(seconds: u64) -> Self {
            let (talker, issuer) = (Talker::start().await, Issuer::new());
            let site = Site::new("", &(issuer.authentication() + ONLY_ALICE));
            let now = site.clock.0.load(Ordering::SeqCst);
            let client = begun(&site, &talker, "/long", &issuer.token(now + seconds)).await;
            Self {
                talker,
                issuer,
                site,
                now,
                client,
            }
        }

        /// One more request under way. What is under way is looked at all together: when this one has ended, so has that
        /// look.
        async fn canary(&self, path: &str, seconds: u64) -> Client {
            let token = self.issuer.token(self.now + seconds);
            begun(&self.site, &self.talker, path, &token).await
        }

        fn pass_to(&self, second: u64) {
            self.site.clock.0.store(self.now + second, Ordering::SeqCst);
        }

        async fn hears_more(&mut self, word: &'static str) {
            self.talker.say("/long", word).await;
            self.client.until(&format!("{word}\r\n")).await;
        }

        /// The answer breaks off, one of so many for this reason.
        async fn ends_cut_off(mut self, reason: &str, times: u64) {
            assert_eq!(self.client.rest().await, "");
            self.client.task.await.unwrap();
            assert_eq!(self.site.refused(reason), times, "{}", self.site.metrics());
        }
    }

    #[tokio::test]
    async fn a_long_answer_ends_with_its_token_and_the_leeway() {
        let mut alice = Alice::hears(100).await;
        let mut sooner = alice.canary("/sooner", 10).await;
        // Its leeway is a minute.
        alice.pass_to(150);
        assert_eq!(sooner.rest().await, "");
        alice.hears_more("second").await;
        alice.pass_to(162);
        alice.ends_cut_off("token_withdrawn", 2).await;
    }

    #[tokio::test]
    async fn it_ends_when_its_issuer_is_no_longer_believed_and_not_when_others_are_added() {
        let (mut alice, other) = (Alice::hears(100).await, Issuer::new());
        let policies = alice.issuer.authentication() + ONLY_ALICE;
        let further = other.authentication().replace("issuer: i", "issuer: j");
        alice.site.enforce(&format!(
            "{policies}---\n{}",
            further.replace("name: tokens", "name: more")
        ));
        alice.hears_more("second").await;
        // The same issuer with another key.
        alice.site.enforce(&(other.authentication() + ONLY_ALICE));
        alice.ends_cut_off("token_withdrawn", 1).await;
    }

    /// A rule for the issuer whose keys have not come.
    const NO_KEYS: &str = "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: later, namespace: b}
spec: {jwtRules: [{issuer: i, jwksUri: 'https://i.test/keys'}]}
";

    const DENY_PATH: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: b}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/PATH]}}]}]}
";

    #[tokio::test]
    async fn while_keys_of_a_new_rule_are_on_their_way_it_goes_on_for_half_a_minute_and_no_longer() {
        let mut alice = Alice::hears(1000).await;
        let changes = [(0, "", "second"), (20, STRICT, "third"), (29, "", "fourth")];
        let mut canaries = Vec::new();
        for (.., word) in &changes {
            canaries.push(alice.canary(&format!("/{word}"), 1000).await);
        }
        for ((passed, more, word), mut canary) in changes.into_iter().zip(canaries) {
            alice.pass_to(passed);
            // Another change of the rules begins no other half minute.
            let deny = DENY_PATH.replace("PATH", word);
            alice
                .site
                .enforce(&format!("{NO_KEYS}{ONLY_ALICE}{deny}---{more}"));
            assert_eq!(canary.rest().await, "");
            alice.hears_more(word).await;
        }
        alice.pass_to(30);
        alice.ends_cut_off("token_withdrawn", 1).await;
    }

    #[tokio::test]
    async fn a_rule_without_keys_keeps_nothing_that_one_with_keys_refuses() {
        let (alice, other) = (Alice::hears(1000).await, Issuer::new());
        // The key that signed it is gone.
        alice
            .site
            .enforce(&format!("{}---{NO_KEYS}{ONLY_ALICE}", other.authentication()));
        alice.ends_cut_off("token_withdrawn", 1).await;
    }

    #[tokio::test]
    async fn without_any_rule_for_tokens_nobody_is_alice() {
        let alice = Alice::hears(100).await;
        alice.site.enforce(ONLY_ALICE.trim_start_matches("---\n"));
        alice.ends_cut_off("policy_withdrawn", 1).await;
    }
}
