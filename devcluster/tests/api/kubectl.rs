//! `kubectl` itself, where the machine has it.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::support::{cluster, within};

/// Whether kubectl is here. When it is not, the test is skipped and says so, or fails where peers are required.
#[expect(
    clippy::disallowed_methods,
    reason = "the two variables that steer skipping are read here only"
)]
fn kubectl_is_here(test: &str) -> bool {
    let search = std::env::var("PATH").unwrap_or_default();
    if std::env::split_paths(&search).any(|directory| directory.join("kubectl").is_file()) {
        return true;
    }
    let line = format!("SIGNET-SKIP {test}: kubectl not found");
    if let Ok(log) = std::env::var("SIGNET_SKIP_LOG") {
        let mut log = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(log)
            .unwrap();
        writeln!(log, "{line}").unwrap();
    }
    #[expect(
        clippy::print_stdout,
        reason = "the line that names the skip is part of a run's output"
    )]
    {
        println!("{line}");
    }
    assert_ne!(std::env::var("SIGNET_PEERS").as_deref(), Ok("required"), "{line}");
    false
}

struct Kubectl {
    home: TempDir,
}

impl Kubectl {
    fn new(cluster: &signet_devcluster::DevCluster) -> Self {
        let home = tempfile::tempdir().unwrap();
        cluster.write_kubeconfig(home.path().join("config")).unwrap();
        Kubectl { home }
    }

    fn config(&self) -> std::path::PathBuf {
        self.home.path().join("config")
    }

    fn spawn(&self, words: &str) -> Child {
        let mut command = Command::new("kubectl");
        command
            .env("KUBECONFIG", self.config())
            .env("HOME", self.home.path())
            .args(words.split(' '));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command.spawn().unwrap()
    }

    async fn output(&self, words: &str, input: &str) -> Output {
        let mut child = self.spawn(words);
        // Dropped at the end of the statement, which closes it; a command that reads nothing may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
        within(child.wait_with_output()).await.unwrap()
    }

    /// Runs a command that has to succeed; returns what it printed.
    async fn run(&self, words: &str, input: &str) -> String {
        let output = self.output(words, input).await;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "kubectl {words}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }
}

const MANIFEST: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: applied, namespace: billing}
data: {colour: "COLOUR"}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: billing, labels: {app: web}}
spec: {containers: [{name: main, image: none}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: billing}
spec: {mtls: {mode: STRICT}}
"#;

#[tokio::test]
async fn kubectl_gets_creates_applies_and_deletes() {
    if !kubectl_is_here("kubectl_gets_creates_applies_and_deletes") {
        return;
    }
    let cluster = cluster();
    let kubectl = Kubectl::new(&cluster);
    let table = kubectl.run("get namespaces", "").await;
    assert!(table.contains("NAME") && table.contains("billing"), "{table}");
    kubectl
        .run("create configmap made --from-literal=a=1 -n billing", "")
        .await;
    assert_eq!(
        kubectl.run("get cm -n billing -o name", "").await,
        "configmap/made\n"
    );
    let applied = kubectl
        .run("apply -f -", &MANIFEST.replace("COLOUR", "red"))
        .await;
    assert_eq!(applied.matches(" created").count(), 3, "{applied}");
    let again = kubectl
        .run("apply -f -", &MANIFEST.replace("COLOUR", "blue"))
        .await;
    assert_eq!(
        (
            again.matches(" configured").count(),
            again.matches(" unchanged").count()
        ),
        (1, 2),
        "{again}"
    );
    let read = kubectl
        .run("get cm applied -n billing -o jsonpath={.data.colour}", "")
        .await;
    assert_eq!(read, "blue");
    kubectl
        .run("apply --server-side -f -", &MANIFEST.replace("COLOUR", "green"))
        .await;
    let pods = kubectl.run("get pods -A -l app=web -o name", "").await;
    assert_eq!(pods, "pod/web\n");
    kubectl.run("label pod web -n billing tier=front", "").await;
    kubectl.run("delete -f -", MANIFEST).await;
    kubectl.run("delete namespace shop", "").await;
    let gone = kubectl.output("get cm applied -n billing", "").await;
    assert!(
        String::from_utf8_lossy(&gone.stderr).contains("NotFound"),
        "{gone:?}"
    );
}

#[tokio::test]
async fn kubectl_asks_about_itself_and_requests_tokens() {
    if !kubectl_is_here("kubectl_asks_about_itself_and_requests_tokens") {
        return;
    }
    let cluster = cluster();
    let kubectl = Kubectl::new(&cluster);
    assert_eq!(kubectl.run("auth can-i create pods", "").await, "yes\n");
    assert!(kubectl.run("auth whoami", "").await.contains("kubernetes-admin"));
    let token = kubectl
        .run("create token api -n billing --audience=signet-ca", "")
        .await;
    assert_eq!(token.trim().split('.').count(), 3);
    let version: Value = serde_json::from_str(&kubectl.run("version -o json", "").await).unwrap();
    assert_eq!(
        version["serverVersion"]["gitVersion"],
        "v1.33.0+signet-devcluster"
    );
    let resources = kubectl.run("api-resources -o name", "").await;
    assert!(
        resources.contains("authorizationpolicies.security.istio.io"),
        "{resources}"
    );
}

#[tokio::test]
async fn kubectl_watches() {
    if !kubectl_is_here("kubectl_watches") {
        return;
    }
    let cluster = cluster();
    let kubectl = Kubectl::new(&cluster);
    let mut watching = kubectl.spawn("get cm -n billing -w -o name");
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    // The watch is there once it is counted; what comes after it has to be seen.
    within(async {
        while cluster.counts().get("watch", "configmaps") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    kubectl.run("create configmap seen -n billing", "").await;
    assert_eq!(
        within(lines.next_line()).await.unwrap().as_deref(),
        Some("configmap/seen")
    );
    watching.kill().await.unwrap();
}

#[tokio::test]
async fn the_kubeconfig_is_for_its_owner_only() {
    let cluster = cluster();
    let kubectl = Kubectl::new(&cluster);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&kubectl.config()), 0o600);
    cluster.write_kubeconfig(kubectl.config()).unwrap();
    assert_eq!(
        std::fs::read_dir(kubectl.home.path()).unwrap().count(),
        1,
        "nothing is left beside it"
    );
}
