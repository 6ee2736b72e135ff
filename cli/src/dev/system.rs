//! All parts together: started in order, watched, stopped in order.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use signet_certs::{ServiceAccountId, SpiffeId};
use signet_devcluster::{ApiError, DevCluster, Options, StartError};
use signet_runtime::files::{PUBLIC_MODE, SECRET_MODE, write_atomic};
use signet_runtime::shutdown::Tasks;
use signet_runtime::socket::{MAX_SOCKET_PATH, private_directory};

use super::cluster::{self, AGENT_ACCOUNT, CA_ACCOUNT, Projected, SYSTEM_NAMESPACE, TokenFiles};
use super::configs::{AgentConfig, CaConfig};
use super::plan::{Ready, SystemOptions};
use super::process::{Process, ProcessError, Program};
use crate::admin::{Admin, AdminError};

/// Patience for each daemon to become ready. They need well under a second.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Patience for each daemon to drain. Longer than the CA's own drain.
const STOP_WITHIN: Duration = Duration::from_secs(12);
/// The one node.
const NODE: &str = "dev-node";
/// The audience the CA accepts.
const AUDIENCE: &str = "signet-ca";
/// Bytes that the longest socket path adds to the directory, with what binding adds.
const SOCKET_SUFFIX: &str = "/agent/workload/agent.sock.lock";

/// Why there is no system.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SystemError {
    /// The directory is too deep for unix sockets.
    #[error(
        "{} is too long a path: sockets in it would exceed {MAX_SOCKET_PATH} bytes; choose a --dir of at \
         most {} bytes", .0.display(), MAX_SOCKET_PATH - SOCKET_SUFFIX.len()
    )]
    DirectoryTooLong(PathBuf),
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
        }
    }

    /// Starts the cluster, the CA and the agent, each when the one before is ready. `started` hears of
    /// each process id. After an error, or when this is cancelled, [`System::stop`] ends what runs.
    ///
    /// # Errors
    /// A [`SystemError`].
    pub async fn start(&mut self, mut started: impl FnMut(u32)) -> Result<Ready, SystemError> {
        let directory = self.options.directory.clone();
        if directory.as_os_str().len() + SOCKET_SUFFIX.len() > MAX_SOCKET_PATH {
            return Err(SystemError::DirectoryTooLong(directory));
        }
        let accounts = self.options.accounts();
        let first = accounts.first().ok_or(SystemError::NoWorkload)?;
        let token = directory.join("tokens").join(first.name()).join("signet-token");
        let kubeconfig = directory.join("kubeconfig");
        let cluster = self.start_cluster(&accounts, &kubeconfig)?;
        self.keep_tokens(&cluster, first, &token)?;
        let (ca_address, ca_metrics) = self
            .start_ca(&directory.join("ca"), &cluster, &mut started)
            .await?;
        let agent = self
            .start_agent(&directory.join("agent"), &ca_address, &mut started)
            .await?;
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
            workloads: accounts.iter().map(ToString::to_string).collect(),
        })
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
        tokio::select! {
            error = end_of(&mut self.ca) => error,
            error = end_of(&mut self.agent) => error,
        }
    }

    /// Stops everything: the agent, the CA, the cluster. Nothing is left running.
    pub async fn stop(mut self) {
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
        let ca_kubeconfig = cluster::kubeconfig(cluster, &of_ca);
        let files = vec![
            projected(SYSTEM_NAMESPACE, CA_ACCOUNT, None, &of_ca),
            projected(
                SYSTEM_NAMESPACE,
                AGENT_ACCOUNT,
                Some(AUDIENCE),
                &self.agent_token(),
            ),
            projected(workload.namespace(), workload.name(), Some(AUDIENCE), token),
        ];
        private_directory(&directory.join("ca"))?;
        private_directory(&directory.join("tokens"))?;
        TokenFiles::keep_fresh(cluster, files, &self.tasks)?;
        let path = directory.join("ca/kubeconfig");
        write_atomic(&path, ca_kubeconfig.as_bytes(), SECRET_MODE)?;
        Ok(())
    }

    fn agent_token(&self) -> PathBuf {
        self.options.directory.join("tokens/signet-agent/token")
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
        config.workloads = options.workloads.iter().map(Into::into).collect();
        let ids: Vec<SpiffeId> = options
            .accounts()
            .iter()
            .map(|account| account.spiffe_id(domain))
            .collect();
        private_directory(directory)?;
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

async fn end_of(process: &mut Option<Process>) -> ProcessError {
    match process {
        Some(process) => process.end().await,
        None => std::future::pending().await,
    }
}
