//! kube-apiserver and etcd as child processes, shared by the tests that run at the same time and
//! stopped with the last of them.
//!
//! Nothing survives this process, however it ends: both servers ask the kernel to be killed with the
//! thread that started them, and that thread lives as long as the process.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio::sync::Mutex;

use super::skips;
use crate::dir::Dir;
use crate::openssl::openssl;
use crate::process::Process;
use crate::{peers, wait};

/// A server that is not ready by then never will be.
const START: Duration = Duration::from_secs(90);
/// Another process may take the port between its choice and its use.
const PORT_TRIES: usize = 3;
const ADMIN_TOKEN: &str = "admin-token";

/// A running API server.
#[derive(Debug)]
pub struct ApiServer {
    url: String,
    ca_pem: String,
    // Dropped in this order: a server before its storage, the files last.
    _server: Process,
    _etcd: Process,
    dir: Dir,
}

static SHARED: Mutex<Weak<ApiServer>> = Mutex::const_new(Weak::new());

/// The server shared by all tests that run now, or nothing after the skip was noted.
pub async fn shared() -> Option<Arc<ApiServer>> {
    crate::init();
    if skips::elsewhere() {
        return None;
    }
    let assets = assets()?;
    let mut shared = SHARED.lock().await;
    if let Some(running) = shared.upgrade() {
        return Some(running);
    }
    let started = Arc::new(ApiServer::start(&assets).await);
    *shared = Arc::downgrade(&started);
    Some(started)
}

/// `KUBEBUILDER_ASSETS`, or what `scripts/build-kube-apiserver.sh` has built.
fn assets() -> Option<PathBuf> {
    let cache = || {
        let cache = skips::env("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(skips::env("HOME")?).join(".cache")))?;
        Some(cache.join("signet/kube-1.20.2"))
    };
    let assets = skips::env("KUBEBUILDER_ASSETS").map(PathBuf::from).or_else(cache);
    let found = assets.filter(|dir| {
        ["kube-apiserver", "etcd"]
            .iter()
            .all(|name| dir.join(name).is_file())
    });
    if found.is_none() {
        peers::skip(
            "no kube-apiserver and etcd: set KUBEBUILDER_ASSETS, or run scripts/build-kube-apiserver.sh once",
        );
    }
    found
}

impl ApiServer {
    async fn start(assets: &Path) -> Self {
        let dir = Dir::new();
        let ca_pem = write_credentials(&dir);
        let (etcd, endpoint) = start_etcd(assets, &dir).await;
        for _ in 0..PORT_TRIES {
            let port = free_port();
            let mut server = owned("kube-apiserver", &dir, arguments(assets, &dir, &endpoint, port));
            let url = format!("https://127.0.0.1:{port}");
            if is_ready(&kubeconfig(&url, &ca_pem, ADMIN_TOKEN), &mut server).await {
                return Self {
                    url,
                    ca_pem,
                    _server: server,
                    _etcd: etcd,
                    dir,
                };
            }
        }
        panic!("kube-apiserver ended {PORT_TRIES} times before it was ready; see its output above");
    }

    /// A kubeconfig for the user of `token`.
    #[must_use]
    pub fn kubeconfig(&self, token: &str) -> String {
        kubeconfig(&self.url, &self.ca_pem, token)
    }

    /// A client that may do everything, on the current runtime.
    pub async fn admin(&self) -> kube::Client {
        client(&self.kubeconfig(ADMIN_TOKEN)).await
    }

    /// Writes the kubeconfig of the user who may do everything.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.dir
            .write_secret("admin.kubeconfig", self.kubeconfig(ADMIN_TOKEN))
    }

    /// The minor version, as 20 in 1.20.
    ///
    /// # Panics
    /// When the server does not tell.
    pub async fn minor_version(&self) -> u32 {
        let version = self.admin().await.apiserver_version().await.expect("version");
        let digits: String = version.minor.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("minor version")
    }
}

/// A client of a kubeconfig's user, on the current runtime.
///
/// # Panics
/// When the kubeconfig is none.
pub async fn client(kubeconfig: &str) -> kube::Client {
    let file = kube::config::Kubeconfig::from_yaml(kubeconfig).expect("kubeconfig");
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(file, &options)
        .await
        .expect("config");
    kube::Client::try_from(config).expect("client")
}

fn kubeconfig(url: &str, ca_pem: &str, token: &str) -> String {
    let ca = STANDARD.encode(ca_pem);
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters: [{{name: test, cluster: {{server: \"{url}\", certificate-authority-data: \"{ca}\"}}}}]\n\
         users: [{{name: test, user: {{token: \"{token}\"}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n"
    )
}

/// The serving certificate, the key that signs service-account tokens (RSA, as most clusters have), and
/// the one user.
fn write_credentials(dir: &Dir) -> String {
    let ca_key = KeyPair::generate().expect("key");
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_pem = ca.self_signed(&ca_key).expect("ca").pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().expect("key");
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let serving = CertificateParams::new(names).expect("names");
    let serving = serving.signed_by(&key, &issuer).expect("certificate");
    dir.write_secret("tls.key", key.serialize_pem());
    dir.write("tls.crt", serving.pem());
    let accounts = openssl(&["genrsa", "2048"], "");
    dir.write("sa.pub", openssl(&["rsa", "-pubout"], &accounts));
    dir.write_secret("sa.key", accounts);
    dir.write_secret(
        "tokens.csv",
        format!("{ADMIN_TOKEN},admin,admin-uid,\"system:masters\"\n"),
    );
    ca_pem
}

/// etcd on unix sockets in `dir`; a version that cannot do that gets loopback ports.
async fn start_etcd(assets: &Path, dir: &Dir) -> (Process, String) {
    let (client, peer) = ("unix://localhost:1".to_owned(), "unix://localhost:2".to_owned());
    let mut etcd = owned("etcd", dir, etcd_command(assets, dir, &client, &peer));
    let socket = dir.join("localhost:1");
    let there = wait::until_some("etcd", START, async || {
        if etcd.ended().is_some() {
            Some(false)
        } else {
            socket.exists().then_some(true)
        }
    });
    if there.await {
        return (etcd, format!("unix://{}", socket.display()));
    }
    let at = |port: u16| format!("http://127.0.0.1:{port}");
    let (client, peer) = (at(free_port()), at(free_port()));
    (
        owned("etcd-tcp", dir, etcd_command(assets, dir, &client, &peer)),
        client,
    )
}

fn etcd_command(assets: &Path, dir: &Dir, client: &str, peer: &str) -> Command {
    let mut command = dying_with_us(&assets.join("etcd"));
    command
        .current_dir(dir.path())
        .args(["--name", "default", "--data-dir", "etcd", "--unsafe-no-fsync"])
        .args(["--listen-client-urls", client, "--advertise-client-urls", client])
        .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
        .args(["--initial-cluster", &format!("default={peer}")]);
    command
}

fn arguments(assets: &Path, dir: &Dir, endpoint: &str, port: u16) -> Command {
    let file = |name: &str| dir.join(name).display().to_string();
    let mut command = dying_with_us(&assets.join("kube-apiserver"));
    command.current_dir(dir.path());
    for (flag, value) in [
        ("etcd-servers", endpoint.to_owned()),
        ("bind-address", "127.0.0.1".into()),
        ("advertise-address", "127.0.0.1".into()),
        ("secure-port", port.to_string()),
        ("tls-cert-file", file("tls.crt")),
        ("tls-private-key-file", file("tls.key")),
        ("token-auth-file", file("tokens.csv")),
        ("authorization-mode", "RBAC".into()),
        ("service-account-issuer", "https://kubernetes.default.svc".into()),
        ("service-account-key-file", file("sa.pub")),
        ("service-account-signing-key-file", file("sa.key")),
        ("service-cluster-ip-range", "10.0.0.0/24".into()),
        ("disable-admission-plugins", "ServiceAccount".into()),
        ("endpoint-reconciler-type", "none".into()),
        // As every cluster has it: drivers of volumes need it.
        ("allow-privileged", "true".into()),
    ] {
        command.arg(format!("--{flag}={value}"));
    }
    command
}

/// Whether the server became ready before it ended.
async fn is_ready(kubeconfig: &str, server: &mut Process) -> bool {
    let client = client(kubeconfig).await;
    wait::until_some("kube-apiserver to be ready", START, async || {
        if server.ended().is_some() {
            return Some(false);
        }
        let request = http::Request::get("/readyz").body(Vec::new()).expect("request");
        let answer = client.request_text(request).await;
        answer.is_ok_and(|text| text == "ok").then_some(true)
    })
    .await
}

/// A port nobody listens on at this moment.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    listener.local_addr().expect("address").port()
}

/// `program`, to be killed by the kernel when the thread that starts it ends.
fn dying_with_us(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Starts `command` on the thread that lives as long as this process.
fn owned(name: &str, dir: &Dir, mut command: Command) -> Process {
    type Job = Box<dyn FnOnce() + Send>;
    static OWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let owner = OWNER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::spawn(move || queue.into_iter().for_each(|job| job()));
        jobs
    });
    let (answer, started) = mpsc::channel();
    let (name, logs) = (name.to_owned(), dir.path().to_owned());
    let job = Box::new(move || drop(answer.send(Process::spawn(&name, &logs, &mut command))));
    owner.send(job).expect("the thread that owns servers");
    started.recv().expect("a started process")
}
