//! Tokens: fetched from a workload socket that answers as a test tells it to, inspected, validated by a
//! bundle in a file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use signet_certs::jwt::JwtProfile;
use signet_certs::{JwtAuthority, ServiceAccountId, SigningKey};
use signet_proto::wire::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use signet_proto::wire::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse, WitsvidRequest, WitsvidResponse,
    X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse,
};
use signet_proto::workload::{SECURITY_KEY, SECURITY_VALUE, claims, jwt_svid};
use tokio::net::UnixListener;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status};

use crate::support::{Pki, TestFile, domain, file, now, signet, signet_with, text};

/// A trust domain that signs tokens.
struct Issuer {
    authority: JwtAuthority,
    bundle: TestFile,
}

impl Issuer {
    fn new() -> Self {
        let authority = JwtAuthority::new(Arc::new(SigningKey::generate().unwrap())).unwrap();
        let bundle = Pki::new()
            .bundle()
            .with_jwt_keys(vec![authority.public().clone()])
            .unwrap();
        Self {
            bundle: file(bundle.to_jwks()),
            authority,
        }
    }

    fn token(&self, account: &str, audience: &[&str], ttl: u64) -> String {
        let profile = JwtProfile {
            id: ServiceAccountId::new("shop", account)
                .unwrap()
                .spiffe_id(&domain()),
            audience: audience.iter().map(|one| (*one).to_owned()).collect(),
            ttl: Duration::from_secs(ttl),
            issuer: None,
        };
        self.authority
            .mint(&profile, now())
            .unwrap()
            .expose_token()
            .to_owned()
    }
}

#[tokio::test]
async fn a_token_is_judged_by_a_bundle_with_the_reason_why_not() {
    let issuer = Issuer::new();
    let token = file(issuer.token("cart", &["vault"], 300));
    let ask = |audience: &'static str, bundle: String, more: &'static [&'static str]| {
        let path = token.path.clone();
        async move {
            let known = [
                "jwt",
                "validate",
                &path,
                "--audience",
                audience,
                "--bundle",
                &bundle,
                "-o",
                "json",
            ];
            signet(&[&known[..], more].concat()).await
        }
    };
    let own = issuer.bundle.path.clone();
    let good = ask("vault", own.clone(), &[]).await;
    assert_eq!(
        (good.code, &good.json()["accepted"]),
        (0, &json!(true)),
        "{}",
        good.err
    );
    assert_eq!(good.json()["spiffe_id"], "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(good.json()["trust_domain_from"], "chain");
    let other = Issuer::new();
    for (answer, reason) in [
        (ask("db", own.clone(), &[]).await, "audience"),
        (
            ask("vault", own.clone(), &["--at", "2099-01-01T00:00:00Z"]).await,
            "expired",
        ),
        (
            ask("vault", own.clone(), &["--trust-domain", "other.example"]).await,
            "unknown_trust_domain",
        ),
        (
            ask("vault", own, &["--id", "spiffe://cluster.local/ns/shop/sa/bank"]).await,
            "other_id",
        ),
        (ask("vault", other.bundle.path.clone(), &[]).await, "unknown_key"),
    ] {
        assert_eq!(
            (answer.code, &answer.json()["reason"]),
            (1, &json!(reason)),
            "{}",
            answer.err
        );
    }
    let unreadable = ask("vault", "/nonexistent".into(), &[]).await;
    assert_eq!(unreadable.code, 2);
    let roots_only = Pki::new().bundle_file();
    let ran = ask("vault", roots_only.path.clone(), &[]).await;
    assert!(
        ran.code == 1 && ran.err.contains("holds no jwt-svid key"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn inspecting_verifies_nothing_says_so_and_shows_no_signature() {
    let token = Issuer::new().token("cart", &["vault", "db"], 300);
    let ran = signet_with(&["jwt", "inspect", "-"], &[], token.as_bytes()).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.starts_with("nothing of this is verified"), "{}", ran.out);
    let json = signet_with(&["jwt", "inspect", "-", "-o", "json"], &[], token.as_bytes()).await;
    assert_eq!(
        (&json.json()["verified"], &json.json()["audiences"]),
        (&json!(false), &json!(["vault", "db"]))
    );
    let signature = token.rsplit('.').next().unwrap();
    for shown in [ran, json] {
        assert!(!shown.out.contains(signature));
        for word in ["accepted", "is valid", "\"valid\""] {
            assert!(!shown.out.contains(word), "{word}: {}", shown.out);
        }
    }
    let ran = signet_with(&["jwt", "inspect", "-"], &[], b"no token").await;
    assert_eq!(ran.code, 2);
    assert!(
        ran.err
            .ends_with("token has 1 parts; a JWS in compact form has three\n"),
        "{}",
        ran.err
    );
}

/// Answers every question in one way.
struct Agent(Result<Vec<String>, Status>);

type Stream<T> = Result<Response<ReceiverStream<Result<T, Status>>>, Status>;

#[tonic::async_trait]
impl SpiffeWorkloadApi for Agent {
    type FetchX509SVIDStream = ReceiverStream<Result<X509svidResponse, Status>>;
    type FetchX509BundlesStream = ReceiverStream<Result<X509BundlesResponse, Status>>;
    type FetchJWTBundlesStream = ReceiverStream<Result<JwtBundlesResponse, Status>>;
    type FetchWITSVIDStream = ReceiverStream<Result<WitsvidResponse, Status>>;
    type FetchWITBundlesStream = ReceiverStream<Result<WitBundlesResponse, Status>>;

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        let header = request
            .metadata()
            .get(SECURITY_KEY)
            .and_then(|value| value.to_str().ok());
        assert_eq!(header, Some(SECURITY_VALUE), "every call carries the header");
        let tokens = self.0.clone()?;
        let names =
            ["cart", "bank"].map(|name| ServiceAccountId::new("shop", name).unwrap().spiffe_id(&domain()));
        let svids = names
            .iter()
            .zip(&tokens)
            .map(|(id, token)| jwt_svid(id, token, None))
            .collect();
        Ok(Response::new(JwtsvidResponse { svids }))
    }

    async fn validate_jwtsvid(
        &self,
        _: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        self.0.clone()?;
        Ok(Response::new(ValidateJwtsvidResponse {
            spiffe_id: "spiffe://cluster.local/ns/shop/sa/cart".into(),
            claims: Some(claims(&serde_json::Map::new())),
        }))
    }

    async fn fetch_x509svid(&self, _: Request<X509svidRequest>) -> Stream<X509svidResponse> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn fetch_x509_bundles(&self, _: Request<X509BundlesRequest>) -> Stream<X509BundlesResponse> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn fetch_jwt_bundles(&self, _: Request<JwtBundlesRequest>) -> Stream<JwtBundlesResponse> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn fetch_witsvid(&self, _: Request<WitsvidRequest>) -> Stream<WitsvidResponse> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn fetch_wit_bundles(&self, _: Request<WitBundlesRequest>) -> Stream<WitBundlesResponse> {
        Err(Status::unimplemented("not asked for"))
    }
}

fn serve(answer: Result<Vec<String>, Status>) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.sock");
    let incoming = UnixListenerStream::new(UnixListener::bind(&path).unwrap());
    let router = tonic::transport::Server::builder().add_service(SpiffeWorkloadApiServer::new(Agent(answer)));
    tokio::spawn(router.serve_with_incoming(incoming));
    (directory, path)
}

#[tokio::test]
async fn a_token_goes_to_a_private_file_or_on_purpose_to_stdout_and_nowhere_else() {
    let issuer = Issuer::new();
    let tokens = vec![
        issuer.token("cart", &["vault"], 300),
        issuer.token("bank", &["vault"], 300),
    ];
    let (directory, socket) = serve(Ok(tokens.clone()));
    let out = text(&directory.path().join("token"));
    let fetch = [
        "jwt",
        "fetch",
        "--socket",
        &text(&socket),
        "--audience",
        "vault",
        "--out",
    ];
    let ran = signet(&[&fetch[..], &[&out, "-o", "json"]].concat()).await;
    assert_eq!(
        (ran.code, &ran.json()["audiences"]),
        (0, &json!(["vault"])),
        "{}",
        ran.err
    );
    assert_eq!(
        std::fs::read_to_string(&out).unwrap(),
        tokens[0],
        "the default identity is the first"
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&out).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(
        ran.err
            .contains("--spiffe-id chooses one of spiffe://cluster.local/ns/shop/sa/bank"),
        "{}",
        ran.err
    );
    assert!(!(ran.out + &ran.err).contains(&tokens[0]));
    let ran = signet(&[&fetch[..], &["-"]].concat()).await;
    assert_eq!((ran.code, ran.out), (0, format!("{}\n", tokens[0])));
    assert!(!ran.err.contains(&tokens[0]));
}

#[tokio::test]
async fn a_token_that_is_not_what_was_asked_for_is_not_used() {
    let (directory, socket) = serve(Ok(vec![Issuer::new().token("cart", &["db"], 300)]));
    let out = text(&directory.path().join("token"));
    let fetch = [
        "jwt",
        "fetch",
        "--socket",
        &text(&socket),
        "--out",
        &out,
        "--audience",
    ];
    let ran = signet(&[&fetch[..], &["vault"]].concat()).await;
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.ends_with("its token is not for audience \"vault\"\n"),
        "{}",
        ran.err
    );
    let ran = signet(
        &[
            &fetch[..],
            &["db", "--spiffe-id", "spiffe://cluster.local/ns/shop/sa/bank"],
        ]
        .concat(),
    )
    .await;
    assert_eq!(ran.code, 2);
    assert!(!std::path::Path::new(&out).exists(), "nothing was written");
}

#[tokio::test]
async fn a_decision_of_the_agent_is_exit_1_and_anything_else_is_exit_2() {
    let token = file(Issuer::new().token("cart", &["vault"], 300));
    for (status, fetched, validated) in [
        (Status::permission_denied("no identity issued: by no rule"), 1, 1),
        (Status::invalid_argument("token expired 3 s ago"), 1, 1),
        (Status::unavailable("no SVID yet"), 2, 2),
        (Status::resource_exhausted("too many requests"), 2, 2),
        (Status::unimplemented(""), 2, 2),
    ] {
        let (directory, socket) = serve(Err(status.clone()));
        let (socket, out) = (text(&socket), text(&directory.path().join("token")));
        let ran = signet(&[
            "jwt",
            "fetch",
            "--socket",
            &socket,
            "--audience",
            "a",
            "--out",
            &out,
        ])
        .await;
        assert_eq!(ran.code, fetched, "{status:?}: {}", ran.err);
        assert!(ran.err.contains(status.message()), "{}", ran.err);
        let validate = [
            "jwt",
            "validate",
            &token.path,
            "--socket",
            &socket,
            "--audience",
            "vault",
        ];
        let ran = signet(&validate).await;
        assert_eq!(ran.code, validated, "{status:?}: {}", ran.err);
        assert!((ran.out + &ran.err).contains(status.message()));
    }
    let nobody = [
        "jwt",
        "fetch",
        "--socket",
        "/nowhere/agent.sock",
        "--audience",
        "a",
        "--out",
        "/dev/null",
    ];
    let ran = signet(&nobody).await;
    assert_eq!(ran.code, 2);
    assert!(
        ran.err
            .ends_with("is the agent running, and is this its socket?\n"),
        "{}",
        ran.err
    );
    let (_directory, socket) = serve(Ok(Vec::new()));
    let validate = [
        "jwt",
        "validate",
        &token.path,
        "--socket",
        &text(&socket),
        "--audience",
        "vault",
        "-o",
        "json",
    ];
    let good = signet(&validate).await;
    assert_eq!(
        (good.code, &good.json()["judged_by"]),
        (0, &json!("agent")),
        "{}",
        good.err
    );
}
