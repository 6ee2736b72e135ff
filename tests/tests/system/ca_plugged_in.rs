//! CAs that operators bring.

use serde_json::Value;
use signet_tests::ca::{Ca, CaSetup};
use signet_tests::client::{Ask, Dial, chain, now};
use signet_tests::cluster::Cluster;
use signet_tests::openssl;
use signet_tests::plugged::{Files, KeyForm, Kind, TestCa};
use signet_tests::wait::{SOON, until};

struct Plugged {
    cluster: Cluster,
    setup: CaSetup,
    files: Files,
}

impl Plugged {
    fn new() -> Self {
        let cluster = Cluster::start();
        let setup = CaSetup::new(&cluster);
        let files = Files::at(setup.dir().join("cacerts"));
        let setup = setup.set("plugged_in_ca", files.path().display().to_string());
        Self {
            cluster,
            setup,
            files,
        }
    }

    /// Starts the CA and issues: the answer has to verify, for us and for OpenSSL.
    async fn issues(self, elements: usize, source: &str, issuer_key: &str) -> Running {
        let ca = self.setup.start().await;
        let running = Running {
            ca,
            cluster: self.cluster,
            files: self.files,
        };
        let answer = running.issue().await;
        assert_eq!(answer.len(), elements, "{answer:#?}");
        let page = running.ca.admin().get("/v1/authorities").await;
        assert_eq!(page["issuing"]["source"], source, "{page}");
        assert_eq!(page["issuing"]["key"], issuer_key, "{page}");
        running
    }

    async fn refused(&self, parts: &[&str]) {
        let said = self.setup.refused().await;
        for part in parts {
            assert!(said.contains(part), "{part:?} in {said}");
        }
    }
}

struct Running {
    ca: Ca,
    cluster: Cluster,
    files: Files,
}

impl Running {
    async fn issue(&self) -> Vec<String> {
        let token = self.cluster.token("shop", "cart");
        let answer = Ask::good()
            .token(&token)
            .send(&Dial::default().channel(&self.ca).await)
            .await
            .unwrap();
        let (chain, roots) = chain(&answer);
        assert_eq!(roots, self.ca.roots().await);
        let bundle = self.ca.bundle().await;
        signet_certs::verify::verify_chain(&chain, &bundle, signet_certs::verify::Role::Server, now())
            .unwrap();
        let (good, words) = openssl::verifies(self.ca.setup.dir().path(), &chain.to_pem(), &roots);
        assert!(good, "{words}");
        answer.cert_chain
    }

    async fn rotations(&self, outcome: &str) -> u64 {
        self.ca
            .scrape()
            .await
            .outcome("signet_ca_rotations_total", outcome)
    }

    async fn issuing(&self) -> Value {
        self.ca.admin().get("/v1/authorities").await["issuing"].take()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_p256_root_in_istios_layout_signs_our_own_intermediate() {
    let plugged = Plugged::new();
    let root = TestCa::root("Root", Kind::P256);
    plugged.files.istio(&root, KeyForm::Pkcs8, &[], &[&root]);
    let running = plugged.issues(3, "plugged_in", "P-256").await;
    assert_eq!(
        running.ca.roots().await.trim(),
        root.pem.replace("\r\n", "\n").trim()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_rsa_intermediate_in_istios_layout_signs_our_own_intermediate() {
    let plugged = Plugged::new();
    let root = TestCa::root("Root", Kind::Rsa);
    let ca = root.below("Istio CA", Kind::Rsa, None);
    plugged.files.istio(&ca, KeyForm::Traditional, &[], &[&root]);
    let running = plugged.issues(4, "plugged_in", "P-256").await;
    assert!(
        !running.issue().await[..3].contains(&running.ca.roots().await),
        "roots come last only"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_ends_with_the_root_gives_intermediates_only() {
    let plugged = Plugged::new();
    let root = TestCa::root("Root", Kind::P256);
    let middle = root.below("Middle", Kind::P384, None);
    let ca = middle.below("Istio CA", Kind::P384, Some(1));
    plugged
        .files
        .istio(&ca, KeyForm::Traditional, &[&middle, &root], &[&root]);
    plugged.issues(5, "plugged_in", "P-256").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_p384_intermediate_in_kubernetes_layout_signs_our_own_intermediate() {
    let plugged = Plugged::new();
    let root = TestCa::root("Root", Kind::P384);
    let ca = root.below("CA", Kind::P384, Some(1));
    plugged.files.kubernetes(&ca, KeyForm::Traditional, &[], &[&root]);
    plugged.issues(4, "plugged_in", "P-256").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_p256_intermediate_issues_directly() {
    let plugged = Plugged::new();
    let root = TestCa::root("Root", Kind::Rsa);
    let ca = root.below("CA", Kind::P256, None);
    plugged.files.kubernetes(&ca, KeyForm::Pkcs8, &[], &[&root]);
    let running = plugged.issues(3, "direct", "P-256").await;
    assert!(
        !running.ca.process.output().contains("leaves no room"),
        "nothing to warn of"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn path_length_zero_issues_directly_and_warns_of_the_cost() {
    let plugged = Plugged::new();
    let root = TestCa::root("Root", Kind::Rsa);
    let ca = root.below("CA", Kind::Rsa, Some(0));
    plugged.files.istio(&ca, KeyForm::Pkcs8, &[], &[&root]);
    let running = plugged.issues(3, "direct", "RSA-2048").await;
    let log = running.ca.process.output();
    assert!(
        log.contains("leaves no room for an intermediate; issuing from it directly"),
        "{log}"
    );
    assert!(
        log.contains("each signature costs about 30 times one of P-256"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_set_is_refused_naming_the_files() {
    let plugged = Plugged::new();
    plugged
        .refused(&["has none of the files but not ca-cert.pem, ca-key.pem, root-cert.pem"])
        .await;
    let root = TestCa::root("Root", Kind::P256);
    plugged.files.write("ca-cert.pem", &root.pem);
    plugged.files.write("root-cert.pem", &root.pem);
    plugged
        .refused(&["has ca-cert.pem, root-cert.pem but not ca-key.pem; give all of"])
        .await;
    plugged.files.write("tls.crt", &root.pem);
    plugged
        .refused(&["has tls.crt but not tls.key, ca.crt; give all of"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_do_not_fit_are_refused() {
    let plugged = Plugged::new();
    let (root, other) = (
        TestCa::root("Root", Kind::P256),
        TestCa::root("Other", Kind::P256),
    );
    plugged.files.istio(&root, KeyForm::Pkcs8, &[], &[&root]);
    plugged.files.write("ca-key.pem", &other.key(KeyForm::Pkcs8));
    plugged.refused(&["key"]).await;
    plugged.files.istio(&root, KeyForm::Pkcs8, &[], &[&other]);
    plugged
        .refused(&["the new issuing authority does not verify: "])
        .await;
    plugged.files.write("ca-key.pem", "junk");
    plugged.refused(&["ca-key.pem"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_intermediate_under_the_same_root_is_followed_without_a_restart() {
    let plugged = Plugged::new();
    let root = TestCa::root("Root", Kind::P256);
    let first = root.below("First", Kind::P256, None);
    plugged.files.istio(&first, KeyForm::Pkcs8, &[], &[&root]);
    let running = plugged.issues(3, "direct", "P-256").await;
    assert!(
        running.issuing().await["subject"]
            .as_str()
            .unwrap()
            .contains("First")
    );
    let second = root.below("Second", Kind::P256, None);
    running.files.istio(&second, KeyForm::Pkcs8, &[], &[&root]);
    until("the second CA", SOON, async || {
        running.issuing().await["subject"]
            .as_str()
            .unwrap()
            .contains("Second")
    })
    .await;
    running.issue().await;
    assert_eq!(running.ca.bundle().await.sequence(), 1, "the same roots");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_roots_are_refused_and_wider_ones_followed_step_by_step() {
    let plugged = Plugged::new();
    let (old, new) = (TestCa::root("Old", Kind::P256), TestCa::root("New", Kind::P256));
    plugged.files.istio(&old, KeyForm::Pkcs8, &[], &[&old]);
    let mut running = plugged.issues(3, "plugged_in", "P-256").await;
    let first = running.ca.roots().await;

    running.files.istio(&new, KeyForm::Pkcs8, &[], &[&new]);
    until("a refusal", SOON, async || running.rotations("failed").await >= 1).await;
    // What was half written is looked at again; once all files are there, the refusal is about the roots.
    until("its reason", SOON, async || {
        running.ca.process.output().contains("share no root")
    })
    .await;
    assert_eq!(running.ca.roots().await, first);
    running.issue().await;

    running.files.istio(&old, KeyForm::Pkcs8, &[], &[&old, &new]);
    until("both roots", SOON, async || {
        running.ca.bundle().await.roots().len() == 2
    })
    .await;
    running.issue().await;
    running.files.istio(&new, KeyForm::Pkcs8, &[], &[&old, &new]);
    until("the new CA", SOON, async || {
        let first = running.issue().await.remove(1);
        openssl::openssl(&["x509", "-noout", "-issuer"], &first).contains("New")
    })
    .await;
    running.files.istio(&new, KeyForm::Pkcs8, &[], &[&new]);
    until("the new root alone", SOON, async || {
        running.ca.bundle().await.roots().len() == 1
    })
    .await;
    running.issue().await;
    assert_eq!(running.ca.bundle().await.sequence(), 3);

    // The sequence survives, and so does the refusal of other roots.
    running.ca.process.terminate().await;
    running.ca.start_again().await;
    assert_eq!(running.ca.bundle().await.sequence(), 3);
    running.ca.process.terminate().await;
    running.files.istio(&old, KeyForm::Pkcs8, &[], &[&old]);
    let said = running.ca.setup.refused().await;
    assert!(
        said.contains("the plugged-in roots share no root with those in force"),
        "{said}"
    );
}
