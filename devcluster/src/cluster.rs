//! The handle of a running cluster: start and stop, where it is, who may what, faults and counts.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::counts::{Counters, Counts};
use crate::fault::{Fault, FaultScope, Faults};
use crate::grants::{Account, Grants};
use crate::keys::{KeyError, Keyring, OldKey};
use crate::options::Options;
use crate::random::{self, NoRandom};
use crate::review::ReviewCache;
use crate::shared::{Settings, Shared, Watches};
use crate::status::ApiError;
use crate::store::Store;
use crate::{kubeconfig, server, tls};

/// Namespaces a new cluster has, each with its `default` account.
const FIRST_NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// Why a cluster did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// `start` was called outside of a tokio runtime.
    #[error("a cluster needs a tokio runtime to run in")]
    NoRuntime,
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The certificates cannot be made.
    #[error("the serving certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    /// The certificates cannot be served.
    #[error("the serving certificate cannot be used")]
    Tls(#[from] rustls::Error),
    /// No signing key, no random numbers, or no first objects.
    #[error("the first state of the cluster cannot be made: {0}")]
    FirstState(String),
}

impl From<KeyError> for StartError {
    fn from(fault: KeyError) -> Self {
        StartError::FirstState(fault.to_string())
    }
}

impl From<NoRandom> for StartError {
    fn from(fault: NoRandom) -> Self {
        StartError::FirstState(fault.to_string())
    }
}

impl From<ApiError> for StartError {
    fn from(fault: ApiError) -> Self {
        StartError::FirstState(fault.to_string())
    }
}

/// A running in-memory cluster. It stops when it is dropped; [`DevCluster::shutdown`] also waits for the end.
pub struct DevCluster {
    pub(crate) shared: Arc<Shared>,
    ca_pem: String,
    tasks: TaskTracker,
}

impl fmt::Debug for DevCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevCluster")
            .field("address", &self.shared.address)
            .finish_non_exhaustive()
    }
}

impl Drop for DevCluster {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl DevCluster {
    /// Starts a cluster on the current tokio runtime. When this returns, connections are accepted.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        let listen = |source| StartError::Listen {
            address: options.listen,
            source,
        };
        let listener = TcpListener::bind(options.listen).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(listen)?;
        let serving = tls::generate(address.ip())?;

        let Options {
            clock,
            grants,
            jwks_readable,
            node_extras,
            token_leeway,
            ..
        } = options;
        let shared = Arc::new(Shared {
            address,
            store: Store::new(options.history),
            keys: Keyring::generate()?,
            reviews: ReviewCache::default(),
            admin_token: random::secret()?,
            grants: RwLock::new(grants.into_iter().collect()),
            faults: Faults::none(),
            counters: Counters::default(),
            clock,
            settings: Settings {
                jwks_readable,
                node_extras,
                token_leeway,
            },
            watches: Watches {
                slots: Arc::new(Semaphore::new(options.max_watches.min(Semaphore::MAX_PERMITS))),
                generation: watch::Sender::new(0),
            },
            stop: CancellationToken::new(),
        });
        let tasks = TaskTracker::new();
        let cluster = DevCluster {
            shared,
            ca_pem: serving.ca_pem,
            tasks,
        };
        for namespace in FIRST_NAMESPACES {
            cluster.create_namespace(namespace)?;
        }
        let shared = Arc::clone(&cluster.shared);
        let serve = server::run(listener, serving.config, shared, cluster.tasks.clone());
        cluster.tasks.spawn_on(serve, &runtime);
        tracing::debug!(address = %address, "in-memory cluster started");
        Ok(cluster)
    }

    /// Stops at once: closes every connection, ends every watch, and returns when the last task has ended.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// `https://<address>:<port>`.
    pub fn url(&self) -> String {
        format!("https://{}", self.shared.address)
    }

    /// The address listened on.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// The certificate of the CA that signed the serving certificate, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The bearer token that may do everything.
    pub fn admin_token(&self) -> &str {
        &self.shared.admin_token
    }

    /// A kubeconfig, as YAML, for the user of `token`.
    pub fn kubeconfig(&self, token: &str) -> String {
        kubeconfig::render(&self.url(), &self.ca_pem, token)
    }

    /// Writes the admin's kubeconfig to `path`, readable by the owner only.
    pub fn write_kubeconfig(&self, path: impl AsRef<Path>) -> io::Result<()> {
        kubeconfig::write(path.as_ref(), &self.kubeconfig(self.admin_token()))
    }

    /// Sets what an account may do, in place of what it could do before.
    pub fn grant(&self, account: Account, grants: Grants) {
        self.shared
            .grants
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(account, grants);
    }

    /// Switches a fault on, in place of one of the same scope.
    pub fn set_fault(&self, scope: FaultScope, fault: Fault) {
        self.shared.faults.set(scope, Some(fault));
    }

    /// Switches the faults of a scope off; requests that hang are served.
    pub fn clear_fault(&self, scope: FaultScope) {
        self.shared.faults.set(scope, None);
    }

    /// Requests so far.
    pub fn counts(&self) -> Counts {
        self.shared.counters.snapshot()
    }

    /// Ends every watch stream that runs now, cleanly and without a last word. Later watches are not touched.
    pub fn break_watches(&self) {
        self.shared
            .watches
            .generation
            .send_modify(|generation| *generation = generation.wrapping_add(1));
    }

    /// Puts a new token signing key in use and returns its id.
    pub fn rotate_signing_key(&self, old: OldKey) -> Result<String, KeyError> {
        self.shared.keys.rotate(old)
    }

    /// The JSON Web Key Set, whether or not it is readable over the wire.
    pub fn jwks(&self) -> Value {
        self.shared.keys.jwks()
    }

    /// Signs any claims with the token signing key, for tokens no honest issuer would make.
    pub fn sign_claims(&self, claims: &Value) -> Result<String, KeyError> {
        self.shared.keys.sign(claims)
    }
}
