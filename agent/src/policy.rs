//! Policies for local proxies (`signet.policy.v1`): followed once per node, and to each attested workload what
//! concerns it.
//!
//! | module | owns |
//! |---|---|
//! | [`object`] | an object of the API server, cut down to what travels: pure |
//! | [`store`] | all objects, each in its last good version: pure |
//! | [`space`] | what there is in each namespace, shared by all who look: pure |
//! | [`snapshot`] | what concerns one workload, and its version: pure |
//! | [`services`] | Services, cut down to selectors and ports: pure |
//! | [`protocols`] | what is spoken on a workload's ports: pure |
//! | [`issuers`] | key sets of token issuers, fetched once for the node |
//! | [`watch`] | the watch of one kind at the API server |
//! | [`directory`] | a directory of YAML in its place |
//! | [`keeper`] | the loop that feeds the store and publishes its view |
//! | [`serve`] | the service: one stream for each proxy |
//! | `refresh` | its call for proxies that miss a key of an issuer |
//! | [`status`] | what an operator sees of it |
//!
//! Nothing is sent before everything is known: a policy that was not listed yet may be the one that denies.

pub mod directory;
pub mod issuers;
pub mod keeper;
pub mod object;
pub mod protocols;
mod refresh;
pub mod serve;
pub mod services;
pub mod snapshot;
pub mod space;
pub mod status;
pub mod store;
pub mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use signet_certs::TrustDomain;
use signet_policy::model::Kind;
use signet_runtime::shutdown::Tasks;
use tokio::sync::watch::Receiver;

use crate::attest::pods::api::watch_client;
use issuers::{Issuers, KeyFetching};
use status::Sources;
use store::View;

/// Every kind.
pub const KINDS: [Kind; 3] = [
    Kind::AuthorizationPolicy,
    Kind::PeerAuthentication,
    Kind::RequestAuthentication,
];

/// Where policies come from, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The source.
    pub source: Source,
    /// The namespace whose policies reach every namespace.
    pub root_namespace: String,
    /// Other names of our trust domain.
    pub aliases: Vec<TrustDomain>,
    /// How key sets of token issuers are fetched.
    pub keys: KeyFetching,
}

/// The source of policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The API server, reached as pods are.
    Kubernetes {
        /// How to reach it; in-cluster by default.
        kubeconfig: Option<PathBuf>,
    },
    /// A directory of YAML.
    Directory(PathBuf),
}

impl Source {
    /// What the file calls it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kubernetes { .. } => "kubernetes",
            Self::Directory(_) => "directory",
        }
    }
}

/// What the mesh agrees on, as it is told to every proxy.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// Our trust domain.
    pub domain: TrustDomain,
    /// From the configuration.
    pub settings: Settings,
}

/// Starts the configured source.
///
/// # Errors
/// A sentence when there is no way to the API server, or the CAs of token issuers cannot be read.
pub async fn start(mesh: Mesh, parts: keeper::Parts, tasks: &Tasks) -> Result<Policies, String> {
    let source = mesh.settings.source.clone();
    let metrics = parts.metrics.clone();
    let issuers = Issuers::start(
        (&mesh.settings.keys, &mesh.settings.root_namespace),
        &parts.clock,
        &metrics,
        tasks,
    )?;
    let (keeper, ear, policies) = keeper::Keeper::new(mesh, parts);
    match source {
        Source::Kubernetes { kubeconfig } => {
            let client = watch_client(kubeconfig.as_deref()).await?;
            for kind in KINDS {
                let watch = watch::Watch::new(client.clone(), kind, ear.clone(), metrics.clone())
                    .listing_at(keeper.bell(kind));
                tasks.spawn_essential("policy watch", watch.run());
            }
            let watch = watch::Watch::new(client, watch::AllServices, ear, metrics);
            tasks.spawn_essential("service watch", watch.run());
        }
        Source::Directory(path) => {
            tasks.spawn_essential("policy directory", directory::follow(path, ear, metrics));
        }
    }
    tasks.spawn_essential("policy keeper", keeper.run());
    let issuers = Some(issuers);
    Ok(Policies { issuers, ..policies })
}

/// The readers' end. Clones see the same.
#[derive(Clone, Debug)]
pub struct Policies {
    /// What the mesh agrees on.
    pub mesh: Arc<Mesh>,
    /// What there is; nothing before everything is known.
    pub view: Receiver<Option<View>>,
    /// How the sources are.
    pub sources: Receiver<Arc<Sources>>,
    /// The key sets of token issuers; nothing where none are fetched.
    pub issuers: Option<Issuers>,
}
