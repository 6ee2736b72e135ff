//! signet with the rights of `deploy/ca` at a real API server.

mod agent_pods;
mod dry_run;
mod end_to_end;
mod node_rule;
mod policies;
mod rbac;
mod reviews;
mod roots;
mod secrets;

use std::sync::Arc;
use std::time::Duration;

use signet_certs::{Authority, SigningKey};
use signet_runtime::{Clock as _, SystemClock};

/// A root as the CA makes them.
pub(crate) fn root(domain: &str) -> Authority {
    let key = Arc::new(SigningKey::generate().unwrap());
    let life = Duration::from_secs(3650 * 86_400);
    Authority::self_signed_root(&domain.parse().unwrap(), key, life, SystemClock.now()).unwrap()
}
