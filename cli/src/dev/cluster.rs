//! The cluster of a development system: namespaces, accounts and pods, and token files kept fresh as
//! kubelet keeps them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use signet_devcluster::{Account, ApiError, DevCluster, Grants, PodSpec, TokenSpec};
use signet_runtime::files::{SECRET_MODE, write_atomic};
use signet_runtime::shutdown::Tasks;
use signet_runtime::socket::private_directory;

/// Namespace of the CA.
pub const SYSTEM_NAMESPACE: &str = "signet-system";
/// Service account of the CA.
pub const CA_ACCOUNT: &str = "signet-ca";
/// Service account of the node's agent.
pub const AGENT_ACCOUNT: &str = "signet-agent";
/// Lifetime of projected tokens, the least that TokenRequest grants by default.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// Kubelet replaces a token at 80 % of its life.
const REPLACE_AFTER: Duration = Duration::from_secs(3600 / 10 * 8);
/// How soon a token that could not be replaced is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// Creates a namespace unless it is there.
///
/// # Errors
/// What the cluster says.
pub fn ensure_namespace(cluster: &DevCluster, name: &str) -> Result<(), ApiError> {
    let namespace = signet_devcluster::ObjectRef::core("namespaces", "", name);
    if cluster.get(&namespace).is_none() {
        cluster.create_namespace(name)?;
    }
    Ok(())
}

/// A workload: account `name` in `namespace`, and its pod `name-0` on `node`.
///
/// # Errors
/// What the cluster says.
pub fn create_workload(
    cluster: &DevCluster,
    namespace: &str,
    name: &str,
    node: &str,
) -> Result<(), ApiError> {
    ensure_namespace(cluster, namespace)?;
    cluster.create_service_account(namespace, name)?;
    let pod = PodSpec::new(namespace, pod_of(name))
        .service_account(name)
        .node(node)
        .label("app", name);
    cluster.create_pod(pod).map(drop)
}

/// Everything a CA needs: its namespace, account, pod and rights.
///
/// # Errors
/// What the cluster says.
pub fn create_ca(cluster: &DevCluster, node: &str) -> Result<(), ApiError> {
    create_workload(cluster, SYSTEM_NAMESPACE, CA_ACCOUNT, node)?;
    cluster.grant(Account::new(SYSTEM_NAMESPACE, CA_ACCOUNT), ca_grants());
    Ok(())
}

/// What a CA may do.
#[must_use]
pub fn ca_grants() -> Grants {
    Grants::none()
        .allow(["create"], "authentication.k8s.io", ["tokenreviews"])
        .allow(["get", "list", "watch"], "", ["namespaces"])
        .allow(["get", "list", "watch"], "", ["pods"])
        .allow(
            ["get", "list", "watch", "create", "update", "patch", "delete"],
            "",
            ["configmaps"],
        )
        .allow_in(
            SYSTEM_NAMESPACE,
            ["get", "list", "watch", "create", "update"],
            "",
            ["secrets"],
        )
}

/// What a node's agent may do: read what concerns its workloads.
#[must_use]
pub fn agent_grants() -> Grants {
    Grants::none()
        .allow(
            ["get", "list", "watch"],
            "security.istio.io",
            [
                "authorizationpolicies",
                "peerauthentications",
                "requestauthentications",
            ],
        )
        .allow(["get", "list", "watch"], "", ["namespaces", "pods", "services"])
}

/// A token to keep in a file, as a projected volume does.
#[derive(Clone, Debug)]
pub struct Projected {
    /// Namespace of the account.
    pub namespace: String,
    /// The account; the token is bound to its pod.
    pub account: String,
    /// Its audience; nothing for the API server itself.
    pub audience: Option<String>,
    /// The file.
    pub path: PathBuf,
}

impl Projected {
    /// Mints a token and writes it.
    ///
    /// # Errors
    /// The cluster's or the system's word.
    pub fn write(&self, cluster: &DevCluster) -> io::Result<()> {
        let mut spec = TokenSpec::new(&self.namespace, &self.account)
            .pod(pod_of(&self.account))
            .lifetime(TOKEN_LIFE);
        if let Some(audience) = &self.audience {
            spec = spec.audience(audience);
        }
        let token = cluster.mint_token(&spec).map(zeroize::Zeroizing::new);
        let token = token.map_err(|e| io::Error::other(e.to_string()))?;
        private_directory(self.path.parent().unwrap_or(Path::new(".")))?;
        write_atomic(&self.path, token.as_bytes(), SECRET_MODE)
    }
}

/// Token files that are written now and replaced before they end.
#[derive(Debug)]
pub struct TokenFiles;

impl TokenFiles {
    /// Writes every file once, then keeps them fresh until `tasks` end.
    ///
    /// # Errors
    /// The first file that cannot be written.
    pub fn keep_fresh(cluster: &Arc<DevCluster>, files: Vec<Projected>, tasks: &Tasks) -> io::Result<()> {
        for file in &files {
            file.write(cluster)?;
        }
        for file in files {
            let cluster = Arc::clone(cluster);
            tasks.spawn_until_shutdown(async move {
                let mut wait = REPLACE_AFTER;
                loop {
                    tokio::time::sleep(wait).await;
                    wait = match file.write(&cluster) {
                        Ok(()) => REPLACE_AFTER,
                        Err(error) => {
                            tracing::warn!(%error, path = %file.path.display(), "token file not replaced");
                            TRY_AGAIN
                        }
                    };
                }
            });
        }
        Ok(())
    }
}

/// A kubeconfig whose user is the token in `token_file`, read again as it changes.
#[must_use]
pub fn kubeconfig(cluster: &DevCluster, token_file: &Path) -> String {
    use base64::Engine as _;
    let ca = base64::engine::general_purpose::STANDARD.encode(cluster.ca_pem());
    let named = |name: &str, value: serde_json::Value| serde_json::json!({"name": "dev", name: value});
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [named("cluster", serde_json::json!({
            "server": cluster.url(), "certificate-authority-data": ca,
        }))],
        "users": [named("user", serde_json::json!({"tokenFile": token_file}))],
        "contexts": [named("context", serde_json::json!({"cluster": "dev", "user": "dev"}))],
        "current-context": "dev",
    });
    // JSON is YAML.
    format!("{config:#}\n")
}

fn pod_of(account: &str) -> String {
    format!("{account}-0")
}

#[cfg(test)]
mod tests {
    use signet_certs::account_token::AccountClaims;

    use super::*;

    #[tokio::test]
    async fn projected_tokens_are_replaced_before_they_end() {
        let directory = tempfile::tempdir().unwrap();
        let cluster = Arc::new(DevCluster::start(signet_devcluster::Options::default()).unwrap());
        cluster.create_node("node").unwrap();
        create_workload(&cluster, "demo", "web", "node").unwrap();
        let path = directory.path().join("t/token");
        let file = Projected {
            namespace: "demo".into(),
            account: "web".into(),
            audience: Some("signet-ca".into()),
            path: path.clone(),
        };
        let tasks = Tasks::new();
        tokio::time::pause();
        TokenFiles::keep_fresh(&cluster, vec![file], &tasks).unwrap();
        let first = std::fs::read_to_string(&path).unwrap();
        let claims = AccountClaims::read(&first).unwrap();
        assert_eq!(claims.audiences, ["signet-ca"]);
        assert_eq!(claims.pod.unwrap().0, "web-0");
        tokio::time::sleep(REPLACE_AFTER + Duration::from_secs(1)).await;
        assert_ne!(std::fs::read_to_string(&path).unwrap(), first);
        assert!(tasks.drain(Duration::from_secs(5)).await);
    }
}
