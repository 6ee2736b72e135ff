//! Two workloads in two namespaces, an agent each, an Envoy each, mutual TLS between the Envoys.

use crate::agent::{Agent, AgentSetup};
use crate::ca::{Ca, CaSetup};
use crate::cluster::Cluster;
use crate::envoy::{Envoy, EnvoySetup, Subscription};

/// Identity of the calling workload.
pub const FRONTEND: &str = "spiffe://cluster.local/ns/web/sa/frontend";
/// Identity of the workload that is called.
pub const BACKEND: &str = "spiffe://cluster.local/ns/data/sa/backend";
/// Name of the listeners of either Envoy.
pub const LISTENER: &str = "main";

/// Everything, running. Envoys end first, the cluster last.
#[derive(Debug)]
pub struct Mesh {
    /// The Envoy that forwards to the other.
    pub frontend: Envoy,
    /// The Envoy that answers.
    pub backend: Envoy,
    /// Agent of the calling workload.
    pub frontend_agent: Agent,
    /// Agent of the workload that is called.
    pub backend_agent: Agent,
    /// The CA.
    pub ca: Ca,
    /// The cluster.
    pub cluster: Cluster,
    /// Where plain requests enter, `host:port`.
    pub entry: String,
}

/// A CA whose SVIDs may be as short as the shortest that are allowed.
#[must_use]
pub fn short_lived_ca(cluster: &Cluster) -> CaSetup {
    CaSetup::new(cluster).set("min_svid_ttl", "10s")
}

impl Mesh {
    /// Starts it with SVIDs of this life; every request makes a connection of its own between the
    /// Envoys.
    pub async fn start(envoy: &std::path::Path, ttl: &str, subscription: Subscription) -> Self {
        let cluster = Cluster::start();
        let ca = short_lived_ca(&cluster).start().await;
        Self::on(cluster, ca, envoy, ttl, subscription).await
    }

    /// As [`Mesh::start`], on a CA that runs.
    pub async fn on(
        cluster: Cluster,
        ca: Ca,
        envoy: &std::path::Path,
        ttl: &str,
        subscription: Subscription,
    ) -> Self {
        let backend_agent = agent(&cluster, &ca, "data", "backend", ttl).await;
        let frontend_agent = agent(&cluster, &ca, "web", "frontend", ttl).await;
        let backend = EnvoySetup::new(envoy, "backend", backend_agent.socket())
            .subscription(subscription)
            .server(LISTENER, Some(FRONTEND))
            .start()
            .await;
        let frontend = EnvoySetup::new(envoy, "frontend", frontend_agent.socket())
            .subscription(subscription)
            .client(LISTENER, &backend.listener(LISTENER).await, Some(BACKEND))
            .start()
            .await;
        let entry = frontend.listener(LISTENER).await;
        Self {
            frontend,
            backend,
            frontend_agent,
            backend_agent,
            ca,
            cluster,
            entry,
        }
    }

    /// Secrets rejected so far by either Envoy.
    pub async fn rejected(&self) -> u64 {
        self.frontend.rejected().await + self.backend.rejected().await
    }
}

async fn agent(cluster: &Cluster, ca: &Ca, namespace: &str, account: &str, ttl: &str) -> Agent {
    AgentSetup::new(cluster, ca, namespace, account)
        .await
        .set("svid_ttl", ttl)
        .start()
        .await
}
