//! All parts together: started in order, watched, stopped in order.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use signet_certs::{ServiceAccountId, SpiffeId};
use signet_devcluster::{Account, ApiError, DevCluster, Options, StartError};
use signet_runtime::files::{PUBLIC_MODE, SECRET_MODE, write_atomic};
use signet_runtime::shutdown::Tasks;
use signet_runtime::socket::{MAX_SOCKET_PATH, private_directory};

use super::cluster::{self, AGENT_ACCOUNT, CA_ACCOUNT, Projected, SYSTEM_NAMESPACE, TokenFiles};
use super::configs::{AgentConfig, CaConfig, PolicySource};
use super::plan::{Ready, SystemOptions};
use super::process::{Process, ProcessError, Program};
use super::proxies::{self, Common, MAX_APPS, Proxies};
use super::sample;
use crate::admin::{Admin, AdminError};

/// Patience for each daemon to become ready. They need well under a second.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Patience for each daemon to drain. Longer than the CA's own drain.
const STOP_WITHIN: Duration = Duration::from_secs(12);
/// The one node.
const NODE: &str = "dev-node";
/// The audience the CA accepts.
const AUDIENCE: &str = "signet-ca";
/// The namespace whose policies reach every namespace.
const ROOT_NAMESPACE: &str = "istio-system";
/// The agent's socket.
const AGENT_SOCKET: &str = "agent/workload/agent.sock";
/// What binding a socket adds to its path, and the separator before it.
const SOCKET_EXTRA: &str = "/.lock";

/// Why there is no system.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SystemError {
    /// The directory is too deep for unix sockets.
    #[error(
        "{} is too long a path: sockets in it would exceed {MAX_SOCKET_PATH} bytes; choose a --dir of at \
         most {most} bytes", directory.display()
    )]
    DirectoryTooLong {
        /// The directory.
        directory: PathBuf,
        /// The longest that would do, in bytes.
        most: usize,
    },
    /// Files cannot be written.
    #[error(transparent)]
    Files(#[from] io::Error),
    /// The cluster does not start.
    #[error("start the in-memory cluster: {0}")]
    Cluster(#[from] StartError),
    /// The cluster refuses its first objects.
    #[error("fill the in-memory cluster: {0}")]
    Objects(#[from] ApiError),
    /// There is nobody to serve.
    #[error("no workload is named, so there is nobody to serve")]
    NoWorkload,
    /// A workload under an account that the system itself uses.
    #[error("{0} is an account of signet itself; name another one")]
    OwnAccount(ServiceAccountId),
    /// More applications than listeners for all of them.
    #[error("{0} applications are more than {MAX_APPS}: each gets a listener for each other")]
    TooManyApps(usize),
    /// An application twice.
    #[error("{0} is named by --app twice; a workload has one proxy")]
    TwiceApp(ServiceAccountId),
    /// A daemon does not run.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A daemon does not answer.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// A running system, or as much of it as was started.
#[derive(Debug)]
pub struct System {
    options: SystemOptions,
    tasks: Tasks,
    cluster: Option<Arc<DevCluster>>,
    ca: Option<Process>,
    agent: Option<Process>,
    proxies: Proxies,
}

impl System {
    /// Nothing is started yet.
    #[must_use]
    pub fn new(options: SystemOptions) -> Self {
        Self {
            options,
            tasks: Tasks::new(),
            cluster: None,
            ca: None,
            agent: None,
            proxies: Proxies::default(),
        }
    }

    /// Starts the cluster, the CA, the agent and the proxies, each when the one before is ready. `started` hears of
    /// each process id. After an error, or when this is cancelled, [`System::stop`] ends what runs.
    ///
    /// # Errors
    /// A [`SystemError`].
    pub async fn start(&mut self, mut started: impl FnMut(u32)) -> Result<Ready, SystemError> {
        self.check()?;
        let directory = self.options.directory.clone();
        let accounts = self.options.accounts();
        let first = accounts.first().ok_or(SystemError::NoWorkload)?;
        let token = directory.join("tokens").join(first.name()).join("signet-token");
        let kubeconfig = directory.join("kubeconfig");
        let cluster = self.start_cluster(&accounts, &kubeconfig)?;
        self.keep_tokens(&cluster, first, &token)?;
        // Programs are copied before anything runs: a file that is being written must not be inherited by a child.
        self.plan_proxies().await?;
        let (ca_address, ca_metrics) = self
            .start_ca(&directory.join("ca"), &cluster, &mut started)
            .await?;
        let agent = self
            .start_agent(&directory.join("agent"), &ca_address, &mut started)
            .await?;
        let samples = self.options.samples;
        let samples = samples.then(|| sample::write_policies(&directory, &self.options.trust_domain));
        Ok(Ready {
            kubeconfig,
            ca_address,
            ca_root: agent.ca_root_file,
            agent_socket: agent.socket,
            admin_socket: agent.admin_socket,
            ca_admin_socket: directory.join("ca/admin/admin.sock"),
            token,
            ca_metrics: format!("http://{ca_metrics}"),
            agent_metrics: format!("http://{}", agent.metrics_listen),
            proxies: self.proxies.start(READY_WITHIN, &mut started).await?,
            samples: samples.transpose()?,
            workloads: accounts.iter().map(ToString::to_string).collect(),
        })
    }

    /// What cannot be started, before anything is.
    fn check(&self) -> Result<(), SystemError> {
        let SystemOptions { directory, apps, .. } = &self.options;
        let of_proxies = apps.iter().map(|app| proxies::socket_below(&app.account));
        let sockets = of_proxies.chain([PathBuf::from(AGENT_SOCKET)]);
        let longest = sockets.map(|socket| socket.as_os_str().len()).max().unwrap_or(0);
        let most = MAX_SOCKET_PATH.saturating_sub(longest + SOCKET_EXTRA.len());
        if directory.as_os_str().len() > most {
            return Err(SystemError::DirectoryTooLong {
                directory: directory.clone(),
                most,
            });
        }
        if apps.len() > MAX_APPS {
            return Err(SystemError::TooManyApps(apps.len()));
        }
        let mut known = std::collections::BTreeSet::new();
        match apps.iter().find(|app| !known.insert(app.account.to_string())) {
            Some(twice) => Err(SystemError::TwiceApp(twice.account.clone())),
            None => Ok(()),
        }
    }

    async fn plan_proxies(&mut self) -> Result<(), SystemError> {
        let common = Common {
            directory: &self.options.directory,
            trust_domain: &self.options.trust_domain,
            agent_socket: &self.options.directory.join(AGENT_SOCKET),
        };
        self.proxies = Proxies::plan(&self.options.apps, common, &self.tasks).await?;
        Ok(())
    }

    /// The cluster, once started.
    #[must_use]
    pub fn cluster(&self) -> Option<&Arc<DevCluster>> {
        self.cluster.as_ref()
    }

    /// The CA, once started.
    pub fn ca(&mut self) -> &mut Option<Process> {
        &mut self.ca
    }

    /// The agent, once started.
    pub fn agent(&mut self) -> &mut Option<Process> {
        &mut self.agent
    }

    /// Waits until a daemon ends by itself, and says which and how.
    pub async fn end(&mut self) -> ProcessError {
        let daemons = self.ca.iter_mut().chain(&mut self.agent);
        let all = daemons.chain(self.proxies.running());
        let mut ends: Vec<_> = all.map(|process| Box::pin(process.end())).collect();
        std::future::poll_fn(|context| {
            let ended = ends.iter_mut().map(|end| end.as_mut().poll(context));
            ended.into_iter().find(Poll::is_ready).unwrap_or(Poll::Pending)
        })
        .await
    }

    /// Stops everything: the proxies, the agent, the CA, the cluster. Nothing is left running.
    pub async fn stop(mut self) {
        self.proxies.stop(STOP_WITHIN).await;
        for process in [self.agent.take(), self.ca.take()].into_iter().flatten() {
            process.stop(STOP_WITHIN).await;
        }
        self.tasks.drain(STOP_WITHIN).await;
        if let Some(cluster) = self.cluster.take() {
            cluster.shutdown().await;
        }
    }

    /// The cluster with one node, on which everything runs.
    fn start_cluster(
        &mut self,
        accounts: &[ServiceAccountId],
        kubeconfig: &Path,
    ) -> Result<Arc<DevCluster>, SystemError> {
        let own = |account: &&ServiceAccountId| {
            account.namespace() == SYSTEM_NAMESPACE && [CA_ACCOUNT, AGENT_ACCOUNT].contains(&account.name())
        };
        if let Some(own) = accounts.iter().find(own) {
            return Err(SystemError::OwnAccount(own.clone()));
        }
        let cluster = Arc::new(DevCluster::start(Options::default())?);
        self.cluster = Some(Arc::clone(&cluster));
        cluster.create_node(NODE)?;
        cluster::create_ca(&cluster, NODE)?;
        cluster::create_workload(&cluster, SYSTEM_NAMESPACE, AGENT_ACCOUNT, NODE)?;
        cluster.grant(
            Account::new(SYSTEM_NAMESPACE, AGENT_ACCOUNT),
            cluster::agent_grants(),
        );
        cluster::ensure_namespace(&cluster, ROOT_NAMESPACE)?;
        for account in accounts {
            cluster::create_workload(&cluster, account.namespace(), account.name(), NODE)?;
        }
        cluster.write_kubeconfig(kubeconfig)?;
        Ok(cluster)
    }

    /// The tokens of the CA, the agent and the first workload, as kubelet mounts them.
    fn keep_tokens(
        &self,
        cluster: &Arc<DevCluster>,
        workload: &ServiceAccountId,
        token: &Path,
    ) -> Result<(), SystemError> {
        let directory = &self.options.directory;
        let projected = |namespace: &str, account: &str, audience: Option<&str>, path: &Path| Projected {
            namespace: namespace.into(),
            account: account.into(),
            audience: audience.map(Into::into),
            path: path.to_owned(),
        };
        let of_ca = directory.join("tokens/signet-ca/token");
        let of_agent = directory.join("tokens/signet-agent/token");
        let files = vec![
            projected(SYSTEM_NAMESPACE, CA_ACCOUNT, None, &of_ca),
            projected(SYSTEM_NAMESPACE, AGENT_ACCOUNT, None, &of_agent),
            projected(
                SYSTEM_NAMESPACE,
                AGENT_ACCOUNT,
                Some(AUDIENCE),
                &self.agent_token(),
            ),
            projected(workload.namespace(), workload.name(), Some(AUDIENCE), token),
        ];
        private_directory(&directory.join("tokens"))?;
        TokenFiles::keep_fresh(cluster, files, &self.tasks)?;
        for (daemon, token) in [("ca", of_ca), ("agent", of_agent)] {
            private_directory(&directory.join(daemon))?;
            let path = directory.join(daemon).join("kubeconfig");
            write_atomic(
                &path,
                cluster::kubeconfig(cluster, &token).as_bytes(),
                SECRET_MODE,
            )?;
        }
        Ok(())
    }

    /// For the CA.
    fn agent_token(&self) -> PathBuf {
        self.options.directory.join("tokens/signet-agent/signet-token")
    }

    /// Returns the addresses bound: certificates, metrics.
    async fn start_ca(
        &mut self,
        directory: &Path,
        cluster: &DevCluster,
        started: &mut impl FnMut(u32),
    ) -> Result<(String, String), SystemError> {
        tracing::debug!(cluster = %cluster.url(), "starting the ca");
        let options = &self.options;
        let kubeconfig = directory.join("kubeconfig");
        let mut config = CaConfig::new(directory, &kubeconfig, &options.trust_domain, options.svid_ttl);
        config.trusted_node_accounts = vec![format!("{SYSTEM_NAMESPACE}/{AGENT_ACCOUNT}")];
        config.federation = options.foreign.iter().map(Into::into).collect();
        let program = Program::beside("signet-ca", directory, &config.admin_socket)?;
        let process = self.ca.insert(program.start(&config)?);
        process.pid().into_iter().for_each(started);
        process.ready(READY_WITHIN).await?;
        let status = process.admin().ca_status().await?;
        Ok((status.ca_address, status.metrics_address))
    }

    /// Returns its configuration, with the address of its metrics as bound.
    async fn start_agent(
        &mut self,
        directory: &Path,
        ca_address: &str,
        started: &mut impl FnMut(u32),
    ) -> Result<AgentConfig, SystemError> {
        let options = &self.options;
        let (domain, token) = (&options.trust_domain, self.agent_token());
        let mut config = AgentConfig::new(directory, ca_address, &token, domain, options.svid_ttl);
        // A proxy is its application's before it is anybody else of the same user.
        let of_users = options.workloads.iter().map(Into::into);
        config.workloads = self.proxies.rules().chain(of_users).collect();
        config.kubeconfig = Some(directory.join("kubeconfig"));
        config.policies = Some(PolicySource {
            source: "kubernetes".into(),
        });
        let ids: Vec<SpiffeId> = options
            .accounts()
            .iter()
            .map(|account| account.spiffe_id(domain))
            .collect();
        private_directory(&directory.join("workload"))?;
        if let Some(ca) = &self.ca {
            // In a cluster kubelet mounts this from the ConfigMap the CA publishes.
            let roots = ca.admin().bundle().await?.pem;
            write_atomic(&config.ca_root_file, roots.as_bytes(), PUBLIC_MODE)?;
        }
        let program = Program::beside("signet-agent", directory, &config.admin_socket)?;
        let process = self.agent.insert(program.start(&config)?);
        process.pid().into_iter().for_each(started);
        process.ready(READY_WITHIN).await?;
        let admin = process.admin();
        process
            .until(READY_WITHIN, async || every_svid(&admin, &ids).await)
            .await?;
        config.metrics_listen = process.admin().agent_status().await?.metrics_address;
        Ok(config)
    }
}

/// Whether the agent holds an SVID of each of `ids`.
async fn every_svid(admin: &Admin, ids: &[SpiffeId]) -> Result<(), String> {
    let held = admin.svids().await.map_err(|e| e.to_string())?;
    match ids
        .iter()
        .find(|id| !held.iter().any(|svid| svid.spiffe_id == id.as_str()))
    {
        None => Ok(()),
        Some(missing) => Err(format!("an SVID of {missing}")),
    }
}
