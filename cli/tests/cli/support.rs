//! Certificates of a test CA in files, and the binary run with them.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use signet_certs::svid::SvidChain;
use signet_certs::{
    Authority, LeafProfile, PublicKey, ServiceAccountId, SigningKey, TrustBundle, TrustDomain, UnixTime,
    issue,
};
use signet_runtime::{Clock as _, SystemClock};
use tokio::io::AsyncWriteExt as _;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// What one run left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Its stdout as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

pub(crate) async fn signet(arguments: &[&str]) -> Ran {
    signet_with(arguments, &[], b"").await
}

pub(crate) async fn signet_with(arguments: &[&str], env: &[(&str, &str)], stdin: &[u8]) -> Ran {
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_signet"))
        .args(arguments)
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let _ = pipe.write_all(stdin).await;
    drop(pipe);
    let ended = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    Ran {
        code: ended.status.code().unwrap(),
        out: String::from_utf8(ended.stdout).unwrap(),
        err: String::from_utf8(ended.stderr).unwrap(),
    }
}

pub(crate) fn now() -> UnixTime {
    SystemClock.now()
}

pub(crate) fn domain() -> TrustDomain {
    "cluster.local".parse().unwrap()
}

/// A file in a directory of its own.
pub(crate) struct TestFile {
    pub(crate) path: String,
    _directory: tempfile::TempDir,
}

pub(crate) fn file(contents: impl AsRef<[u8]>) -> TestFile {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, contents).unwrap();
    TestFile {
        path: text(&path),
        _directory: directory,
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A root and an issuing authority.
pub(crate) struct Pki {
    pub(crate) root: Authority,
    pub(crate) issuing: Authority,
}

impl Pki {
    pub(crate) fn new() -> Self {
        Self::of(&domain())
    }

    pub(crate) fn of(domain: &TrustDomain) -> Self {
        let key = || Arc::new(SigningKey::generate().unwrap());
        let root = Authority::self_signed_root(domain, key(), HOUR * 240, now()).unwrap();
        let issuing = root.issue_intermediate(domain, key(), HOUR * 48, now()).unwrap();
        Self { root, issuing }
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        TrustBundle::new(domain(), vec![self.root.certificate().clone()], 7).unwrap()
    }

    /// A leaf for `shop/<account>`.
    pub(crate) fn leaf(&self, account: &str, key: &PublicKey, dns: &[&str], ttl: Duration) -> SvidChain {
        let profile = LeafProfile {
            id: ServiceAccountId::new("shop", account)
                .unwrap()
                .spiffe_id(&domain()),
            ttl,
            min_left: Duration::from_secs(1),
            dns: dns.iter().map(|name| (*name).to_owned()).collect(),
        };
        issue(&profile, key, &self.issuing, now()).unwrap()
    }

    pub(crate) fn chain(&self, account: &str) -> SvidChain {
        self.leaf(account, SigningKey::generate().unwrap().public_key(), &[], HOUR)
    }

    pub(crate) fn chain_file(&self, account: &str) -> TestFile {
        file(self.chain(account).to_pem())
    }

    pub(crate) fn bundle_file(&self) -> TestFile {
        file(self.bundle().to_pem())
    }
}

/// An unsigned token of `shop/<account>` with these audiences.
pub(crate) fn token(account: &str, audience: &str) -> String {
    use base64::Engine as _;
    let part = |v: serde_json::Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(v.to_string());
    let claims = serde_json::json!({
        "iss": "https://kubernetes.default.svc", "aud": [audience], "exp": now().as_secs() + 3600,
        "sub": format!("system:serviceaccount:shop:{account}"),
    });
    format!(
        "{}.{}.c2ln",
        part(serde_json::json!({"alg": "ES256"})),
        part(claims)
    )
}
