//! The proxies of a development system: one for each application, each a copy of `signet-proxy`, since the agent
//! tells workloads apart by the file they run. Between processes of one user this is no boundary.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use signet_certs::{ServiceAccountId, TrustDomain};
use signet_runtime::shutdown::Tasks;
use signet_runtime::socket::{own_uid, private_directory};

use super::app::{App, Application};
use super::configs::{Inbound, Mutual, Outbound, ProxyConfig, UnixRule};
use super::echo;
use super::plan::ReadyProxy;
use super::ports::HeldPort;
use super::process::{Process, ProcessError, Program, find};
use crate::proxy::address::AdminAddress;
use crate::proxy::client::ProxyPages;

/// The program.
const PROGRAM: &str = "signet-proxy";
/// Its admin socket, in its directory.
const ADMIN_SOCKET: &str = "admin/admin.sock";
/// Most applications: everyone has a listener for every other, and a proxy has at most 256 of them.
pub const MAX_APPS: usize = 16;

/// A proxy that can be started.
#[derive(Debug)]
struct Planned {
    account: ServiceAccountId,
    directory: PathBuf,
    config: ProxyConfig,
    shown: ReadyProxy,
}

/// All proxies, planned and then running.
#[derive(Debug, Default)]
pub struct Proxies {
    planned: Vec<Planned>,
    running: Vec<Process>,
    /// Held for as long as they run.
    ports: Vec<HeldPort>,
}

/// What all proxies have in common.
#[derive(Clone, Copy, Debug)]
pub struct Common<'a> {
    /// The directory of the system.
    pub directory: &'a Path,
    /// Its trust domain.
    pub trust_domain: &'a TrustDomain,
    /// The socket of its agent.
    pub agent_socket: &'a Path,
}

/// An application that others can ask.
struct Server<'a> {
    account: &'a ServiceAccountId,
    application: Application,
    listens: SocketAddr,
    inbound: SocketAddr,
}

impl Proxies {
    /// Starts the applications that are brought along, copies the program for each proxy, and chooses every
    /// port: who calls whom is known before the first proxy runs.
    ///
    /// # Errors
    /// When there is no program to copy, no port, or no room.
    pub async fn plan(apps: &[App], common: Common<'_>, tasks: &Tasks) -> Result<Self, ProcessError> {
        let mut proxies = Self::default();
        if apps.is_empty() {
            return Ok(proxies);
        }
        let program = find(PROGRAM)?;
        let named = |source: io::Error| ProcessError::Start {
            name: PROGRAM.into(),
            source,
        };
        let servers = proxies.servers(apps, tasks).await.map_err(named)?;
        for app in apps {
            let planned = proxies.planned(app, &servers, common).map_err(named)?;
            private_directory(&planned.directory).map_err(named)?;
            std::fs::copy(&program, planned.executable()).map_err(named)?;
            proxies.planned.push(planned);
        }
        Ok(proxies)
    }

    /// Those that can be asked, each on a port of its proxy.
    async fn servers<'a>(&mut self, apps: &'a [App], tasks: &Tasks) -> io::Result<Vec<Server<'a>>> {
        let mut servers = Vec::new();
        for app in apps {
            let Some(application) = app.application else {
                continue;
            };
            let listens = match application {
                Application::Echo => echo::serve(&app.account, tasks).await?,
                Application::At(address, _) => address,
            };
            servers.push(Server {
                account: &app.account,
                application,
                listens,
                inbound: self.port()?,
            });
        }
        Ok(servers)
    }

    fn planned(&mut self, app: &App, servers: &[Server<'_>], common: Common<'_>) -> io::Result<Planned> {
        let account = &app.account;
        let places = (self.port()?, self.port()?);
        let mut config = ProxyConfig::new(account, common.trust_domain, common.agent_socket, places);
        let directory = common.directory.join(below(account));
        config.admin_socket = directory.join(ADMIN_SOCKET);
        let mut asks = BTreeMap::new();
        for server in servers {
            let protocol = server.application.speaks().as_str().to_owned();
            if server.account == account {
                config.inbound.push(Inbound {
                    listen: server.inbound,
                    upstream: server.listens,
                    port: server.application.port(),
                    protocol,
                });
                continue;
            }
            let listen = self.port()?;
            asks.insert(server.account.to_string(), listen.to_string());
            config.outbound.push(Outbound {
                listen,
                upstream: server.inbound,
                protocol,
                mtls: Mutual {
                    expected: vec![server.account.spiffe_id(common.trust_domain).to_string()],
                },
            });
        }
        let inbound = config.inbound.first();
        Ok(Planned {
            shown: ReadyProxy {
                service_account: account.to_string(),
                application: inbound.map(|one| one.upstream.to_string()),
                port: inbound.map(|one| one.port),
                inbound: inbound.map(|one| one.listen.to_string()),
                outbound: asks,
                admin_socket: config.admin_socket.clone(),
                admin_address: config.admin_listen.to_string(),
                metrics: format!("http://{}", config.metrics_listen),
                log: directory.join("log"),
            },
            account: account.clone(),
            directory,
            config,
        })
    }

    fn port(&mut self) -> io::Result<SocketAddr> {
        let port = HeldPort::hold()?;
        let address = port.address();
        self.ports.push(port);
        Ok(address)
    }

    /// The agent's rules for them.
    pub fn rules(&self) -> impl Iterator<Item = UnixRule> {
        self.planned
            .iter()
            .map(|one| UnixRule::of_file(&one.account, own_uid(), one.executable()))
    }

    /// Starts all of them; `started` hears of each process id. Then waits until each has its SVID and policies.
    ///
    /// # Errors
    /// The first that does not run.
    pub async fn start(
        &mut self,
        patience: Duration,
        started: &mut impl FnMut(u32),
    ) -> Result<Vec<ReadyProxy>, ProcessError> {
        for planned in &self.planned {
            let process = planned.program().start(&planned.config)?;
            process.pid().into_iter().for_each(&mut *started);
            self.running.push(process);
        }
        for (planned, process) in self.planned.iter().zip(&mut self.running) {
            let address: Result<AdminAddress, _> = planned.shown.admin_address.parse();
            let pages = address.map(|address| ProxyPages::at(&address));
            process
                .until(patience, async || match &pages {
                    Ok(pages) => served(pages).await,
                    Err(error) => Err(error.to_string()),
                })
                .await?;
        }
        Ok(self.planned.iter().map(|one| one.shown.clone()).collect())
    }

    /// Those that run.
    pub fn running(&mut self) -> &mut [Process] {
        &mut self.running
    }

    /// Stops all of them at once.
    pub async fn stop(self, patience: Duration) {
        let mut ending = tokio::task::JoinSet::new();
        for process in self.running {
            ending.spawn(process.stop(patience));
        }
        ending.join_all().await;
    }
}

impl Planned {
    fn executable(&self) -> PathBuf {
        self.directory.join(PROGRAM)
    }

    fn program(&self) -> Program {
        Program {
            name: format!("{PROGRAM} of {}", self.account),
            path: self.executable(),
            directory: self.directory.clone(),
            admin_socket: self.config.admin_socket.clone(),
            arguments: Vec::new(),
        }
    }
}

/// The directory of a proxy, below that of the system: its program, configuration, log and admin socket.
fn below(account: &ServiceAccountId) -> PathBuf {
    Path::new("proxies")
        .join(account.namespace())
        .join(account.name())
}

/// The admin socket of a proxy, below the directory of the system.
pub(super) fn socket_below(account: &ServiceAccountId) -> PathBuf {
    below(account).join(ADMIN_SOCKET)
}

/// Whether it has what it needs to serve.
async fn served(pages: &ProxyPages) -> Result<(), String> {
    let secrets = pages.secrets().await.map_err(|e| e.to_string())?;
    if !secrets.svid.is_some_and(|svid| svid.valid) {
        return Err("an SVID".into());
    }
    let policies = pages.policies().await.map_err(|e| e.to_string())?;
    match policies.in_force {
        Some(_) => Ok(()),
        None => Err("policies".into()),
    }
}
