//! `svid request` and `bundle show --ca` against CAs that are honest, foreign, lying or absent.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use signet_certs::{Csr, SigningKey, X509Svid};
use tonic::Status;

use crate::fake_ca::{FakeCa, honest};
use crate::support::{HOUR, Pki, Ran, TestFile, file, signet, text, token};

struct Asked {
    ran: Ran,
    out: tempfile::TempDir,
}

impl Asked {
    /// Nothing but the directory itself: no file was written.
    fn wrote_nothing(&self) -> bool {
        !self.out.path().join("svid").exists()
    }
}

async fn request(ca: &str, roots: &TestFile, token: &str, more: &[&str]) -> Asked {
    let out = tempfile::tempdir().unwrap();
    let (token, directory) = (file(token), text(&out.path().join("svid")));
    let mut arguments = vec![
        "svid",
        "request",
        "--ca",
        ca,
        "--ca-root",
        &roots.path,
        "--token-file",
    ];
    arguments.extend([&*token.path, "--out", &directory, "-o", "json"]);
    arguments.extend(more);
    Asked {
        ran: signet(&arguments).await,
        out,
    }
}

#[tokio::test]
async fn an_answer_that_verifies_is_written_as_three_files() {
    let pki = Arc::new(Pki::new());
    let ca = FakeCa::of(Arc::clone(&pki), Some(pki.bundle()), |pki, asked| {
        assert_eq!(asked.validity_duration, 7200);
        Ok(honest(pki, asked, "cart"))
    })
    .await;
    let address = ca.address.to_string();
    let token = token("cart", "signet-ca");
    let asked = request(
        &address,
        &ca.pki.bundle_file(),
        &(token.clone() + "\n"),
        &["--ttl", "2h"],
    )
    .await;
    assert_eq!((asked.ran.code, asked.ran.err.as_str()), (0, ""));
    assert_eq!(
        asked.ran.json()["spiffe_id"],
        "spiffe://cluster.local/ns/shop/sa/cart"
    );
    assert_eq!(
        *ca.tokens.lock().unwrap(),
        [format!("Bearer {token}")],
        "trimmed, and sent once"
    );
    let path = |name: &str| asked.out.path().join("svid").join(name);
    let mode = |name| std::fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode("key.pem"), mode("cert-chain.pem"), mode("")),
        (0o600, 0o644, 0o700)
    );
    let chain = std::fs::read(path("cert-chain.pem")).unwrap();
    let chain = signet_certs::SvidChain::from_pem(&chain).unwrap();
    assert_eq!(
        chain.certificates().count(),
        2,
        "leaf and issuer, without the root"
    );
    let key = SigningKey::from_pem(&std::fs::read(path("key.pem")).unwrap()).unwrap();
    X509Svid::new(chain, Arc::new(key)).unwrap();
    assert_eq!(
        std::fs::read_to_string(path("root-cert.pem")).unwrap(),
        ca.pki.bundle().to_pem()
    );
    let (chain, roots) = (text(&path("cert-chain.pem")), text(&path("root-cert.pem")));
    assert_eq!(
        signet(&["svid", "verify", &chain, "--bundle", &roots]).await.code,
        0
    );
}

#[tokio::test]
async fn a_ca_without_a_bundle_service_is_served_by_the_root_file() {
    let ca = FakeCa::start(None, |pki, asked| Ok(honest(pki, asked, "cart"))).await;
    let asked = request(
        &ca.address.to_string(),
        &ca.pki.bundle_file(),
        &token("cart", "istio-ca"),
        &[],
    )
    .await;
    assert_eq!(asked.ran.code, 0, "{:?}", asked.ran);
    assert!(
        asked
            .ran
            .err
            .starts_with("note: this CA publishes no bundle of its own"),
        "{}",
        asked.ran.err
    );
}

#[tokio::test]
async fn roots_that_come_with_a_chain_are_never_believed() {
    let pki = Arc::new(Pki::new());
    let ca = FakeCa::of(Arc::clone(&pki), Some(pki.bundle()), |pki, asked| {
        let mut answer = honest(pki, asked, "cart");
        *answer.cert_chain.last_mut().unwrap() = Pki::new().bundle().to_pem();
        Ok(answer)
    })
    .await;
    let asked = request(
        &ca.address.to_string(),
        &ca.pki.bundle_file(),
        &token("cart", "signet-ca"),
        &[],
    )
    .await;
    assert_eq!(asked.ran.code, 0);
    assert!(
        asked
            .ran
            .err
            .starts_with("note: the roots sent with the chain differ"),
        "{}",
        asked.ran.err
    );
    let written = std::fs::read_to_string(asked.out.path().join("svid/root-cert.pem")).unwrap();
    assert_eq!(written, ca.pki.bundle().to_pem());
}

#[tokio::test]
async fn an_answer_that_does_not_hold_is_exit_2_and_nothing_is_written() {
    type Lie = fn(
        &Pki,
        &signet_proto::wire::istio::v1::auth::IstioCertificateRequest,
    ) -> Result<signet_proto::wire::istio::v1::auth::IstioCertificateResponse, Status>;
    let lies: [(Lie, &str); 4] = [
        (
            |pki, asked| Ok(honest(pki, asked, "admin")),
            "it names spiffe://cluster.local/ns/shop/sa/admin, the token speaks for \
             spiffe://cluster.local/ns/shop/sa/cart",
        ),
        (
            |pki, _| Ok(signet_proto::issue::respond(&pki.chain("cart"), &pki.bundle())),
            "private key does not match the leaf's public key",
        ),
        (
            |_, asked| Ok(honest(&Pki::new(), asked, "cart")),
            "no authority in the bundle of cluster.local signed this chain",
        ),
        (
            |pki, asked| {
                let csr = Csr::from_pem(&asked.csr).unwrap();
                let mut answer = signet_proto::issue::respond(
                    &pki.leaf("cart", csr.public_key(), &[], HOUR),
                    &pki.bundle(),
                );
                answer.cert_chain.truncate(1);
                Ok(answer)
            },
            "the CA answered with 1 elements; a leaf and the roots are the least",
        ),
    ];
    for (lie, sentence) in lies {
        let pki = Arc::new(Pki::new());
        let ca = FakeCa::of(Arc::clone(&pki), Some(pki.bundle()), lie).await;
        let asked = request(
            &ca.address.to_string(),
            &ca.pki.bundle_file(),
            &token("cart", "signet-ca"),
            &[],
        )
        .await;
        let expected = format!("signet: the CA's answer is not used, and nothing was written: {sentence}\n");
        assert_eq!((asked.ran.code, &asked.ran.err), (2, &expected));
        assert!(asked.wrote_nothing());
    }
}

#[tokio::test]
async fn a_refusal_is_exit_1_and_the_token_is_never_printed() {
    for (status, code, sentence) in [
        (
            Status::unauthenticated("request authenticate failure"),
            1,
            "`signet token check --token-file FILE",
        ),
        (
            Status::invalid_argument("csr names x, the permit y"),
            1,
            "refused: csr names x, the permit y",
        ),
        (
            Status::resource_exhausted("queue is full"),
            2,
            "(overloaded; ask again later)",
        ),
        (
            Status::unavailable("api server is away"),
            2,
            "could not answer: api server is away (Unavailable)",
        ),
    ] {
        let ca = FakeCa::start(None, move |_, _| Err(status.clone())).await;
        let token = token("cart", "signet-ca");
        let asked = request(&ca.address.to_string(), &ca.pki.bundle_file(), &token, &[]).await;
        assert_eq!(asked.ran.code, code, "{:?}", asked.ran);
        assert!(
            asked.ran.err.contains(sentence) && asked.wrote_nothing(),
            "{}",
            asked.ran.err
        );
        assert!(!asked.ran.err.contains(&token) && !asked.ran.out.contains(&token));
    }
}

#[tokio::test]
async fn a_ca_that_cannot_be_trusted_or_reached_is_told_with_the_fix() {
    let ca = FakeCa::start(None, |pki, asked| Ok(honest(pki, asked, "cart"))).await;
    let (address, roots, token) = (
        ca.address.to_string(),
        ca.pki.bundle_file(),
        token("cart", "signet-ca"),
    );
    let strange = Pki::new().bundle_file();
    let asked = request(&address, &strange, &token, &[]).await;
    assert_eq!(asked.ran.code, 2);
    let sentence = format!("; {} does not hold the root of this CA\n", strange.path);
    assert!(asked.ran.err.ends_with(&sentence), "{}", asked.ran.err);
    let asked = request(&address, &roots, &token, &["--server-name", "elsewhere.svc"]).await;
    let sentence = "; the CA does not go by elsewhere.svc; name it with --server-name\n";
    assert!(asked.ran.err.ends_with(sentence), "{}", asked.ran.err);
    let free = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let asked = request(&free, &roots, &token, &[]).await;
    assert_eq!(
        asked.ran.err,
        format!("signet: connect to {free}: Connection refused (os error 111)\n")
    );
    let asked = request("nowhere", &roots, &token, &[]).await;
    let sentence = "signet: --ca: address \"nowhere\" is not host:port, as in \"ca.example.svc:15012\"\n";
    assert_eq!((asked.ran.code, asked.ran.err.as_str()), (2, sentence));
}

#[tokio::test]
async fn a_token_file_without_a_token_is_exit_2() {
    let roots = Pki::new().bundle_file();
    let asked = request("127.0.0.1:1", &roots, " \n", &[]).await;
    assert!(
        asked
            .ran
            .err
            .ends_with("is empty; it should hold a service-account token\n"),
        "{}",
        asked.ran.err
    );
    let asked = request("127.0.0.1:1", &roots, &"x".repeat(20_000), &[]).await;
    assert!(
        asked.ran.err.ends_with("is larger than 16384 bytes\n"),
        "{}",
        asked.ran.err
    );
}

#[tokio::test]
async fn a_cas_bundle_is_shown_over_its_own_service() {
    let pki = Arc::new(Pki::new());
    let ca = FakeCa::of(Arc::clone(&pki), Some(pki.bundle()), |_, _| {
        Err(Status::internal("unused"))
    })
    .await;
    let (address, roots) = (ca.address.to_string(), ca.pki.bundle_file());
    let arguments = [
        "bundle",
        "show",
        "--ca",
        &address,
        "--ca-root",
        &roots.path,
        "-o",
        "json",
    ];
    let shown = signet(&arguments).await;
    assert_eq!(shown.code, 0, "{}", shown.err);
    assert_eq!(shown.json()["sequence"], 7);
    let foreign = FakeCa::start(None, |_, _| Err(Status::internal("unused"))).await;
    let (address, roots) = (foreign.address.to_string(), foreign.pki.bundle_file());
    let shown = signet(&["bundle", "show", "--ca", &address, "--ca-root", &roots.path]).await;
    assert_eq!(shown.code, 2);
    assert!(
        shown.err.ends_with("has no bundle service; it is no signet-ca\n"),
        "{}",
        shown.err
    );
}
