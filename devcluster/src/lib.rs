//! A small in-memory Kubernetes API over real HTTPS, for `signet dev` and for tests.
//!
//! It owns one process' worth of cluster: typed objects with resource versions, list and watch, service-account
//! tokens that are really signed, and TokenReview answers shaped after what a real API server said. It leaves
//! out everything that makes a cluster run: no scheduler, no kubelet, no controllers, no persistence. It is a peer
//! on the wire, so it imports nothing else of the workspace, and no server of ours links it.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use signet_devcluster::{DevCluster, Options, PodSpec, TokenSpec};
//!
//! let cluster = DevCluster::start(Options::default())?;
//! cluster.create_namespace("billing")?;
//! cluster.create_service_account("billing", "api")?;
//! cluster.create_pod(PodSpec::new("billing", "api-0").service_account("api"))?;
//! let token = cluster.mint_token(&TokenSpec::new("billing", "api").audience("signet-ca").pod("api-0"))?;
//! cluster.write_kubeconfig("kubeconfig")?;
//! # drop(token);
//! cluster.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod access;
mod apply;
mod body;
mod cluster;
mod counts;
mod defaults;
mod discovery;
mod dispatch;
mod endpoint;
mod fault;
mod grants;
mod helpers;
mod json;
mod keys;
mod kinds;
mod kubeconfig;
mod options;
mod pages;
mod patch;
mod protobuf;
mod query;
mod random;
mod review;
mod route;
mod selector;
mod server;
mod shared;
mod specs;
mod status;
mod store;
mod time;
mod tls;
mod token;
mod verbs;
mod watch;

pub use cluster::{DevCluster, StartError};
pub use counts::Counts;
pub use fault::{Fault, FaultScope};
pub use grants::{Account, Grants, Rule};
pub use keys::{KeyError, OldKey};
pub use options::{Clock, Options};
pub use specs::{ObjectRef, PodSpec, TokenSpec};
pub use status::ApiError;
pub use token::API_AUDIENCE;
