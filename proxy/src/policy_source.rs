//! Where policies come from: the agent's stream, or a directory. Whichever it is, it is the one writer of
//! [`Policies`], and what it said last stays enforced whatever becomes of it.
//!
//! | module | owns |
//! |---|---|
//! | [`held`] | all objects this proxy was told of, each in its last good version: pure |
//! | [`agent`] | the stream of the local agent |
//! | `refresh` | asking the agent for keys that are missed |
//! | [`files`] | a directory of YAML |
//! | [`lost`] | what of it cannot be enforced here: pure |
//! | `news` | what is logged of it |
//! | [`status`] | what an operator sees of it |
//! | [`metrics`] | the metrics of it |

pub mod agent;
pub mod files;
pub mod held;
pub mod lost;
pub mod metrics;
mod news;
mod refresh;
pub mod status;

use std::sync::Arc;

use signet_policy::tokens::TokenRules;
use signet_policy::{InForce, Mesh, Workload};
use signet_proto::policy::Ports;
use signet_runtime::Clock;
use signet_runtime::grpc::{Timeouts, unix_channel};
use signet_runtime::http::Readiness;
use signet_runtime::shutdown::Tasks;
use tokio::sync::watch;

use crate::config::{Config, PolicySource};
use crate::enforced::{Enforced, Policies};
use crate::jwt::KeySets;
use crate::jwt::fetching::KeyFetcher;
use crate::jwt::given::GivenKeys;
use crate::spoken::Listeners;
use held::Held;
use lost::Lost;
use metrics::PolicyMetrics;
use news::News;
use status::{PolicyStatus, Source};

/// Name of the readiness condition.
pub const READY: &str = "policies";

/// What a source works with.
#[derive(Clone)]
pub struct Parts {
    /// For status.
    pub clock: Arc<dyn Clock>,
    /// The metrics.
    pub metrics: PolicyMetrics,
    /// Who fetches the keys of token issuers.
    pub issuers: Arc<KeyFetcher>,
    /// Where [`READY`] holds once there was a snapshot.
    pub readiness: Readiness,
}

/// The readers' ends.
#[derive(Clone, Debug)]
pub struct Readers {
    /// What is enforced.
    pub policies: Policies,
    /// How the source is.
    pub status: watch::Receiver<Arc<PolicyStatus>>,
}

/// Starts the configured source.
#[must_use]
pub fn start(config: &Config, parts: Parts, tasks: &Tasks) -> Readers {
    let parts_metrics = parts.metrics.clone();
    let (writer, readers) = Writer::new(parts, config);
    match &config.policies {
        PolicySource::Agent => {
            let expected = agent::Expected {
                trust_domain: config.trust_domain.clone(),
                providers: config.mesh.providers.clone(),
            };
            let channel = unix_channel(config.agent_socket.clone(), Timeouts::default());
            let (given, misses) = GivenKeys::new();
            let desk = refresh::Desk::new(channel.clone(), parts_metrics);
            tasks.spawn_until_shutdown(desk.run(misses));
            let following = agent::follow(writer, expected, channel, given);
            tasks.spawn_essential("policy stream", following);
        }
        PolicySource::Files { directory, workload } => {
            let files = files::Files::new(directory.clone(), workload.clone(), config.mesh.clone());
            tasks.spawn_essential("policy files", files.follow(writer));
        }
    }
    readers
}

/// The writer's end, whatever the source.
pub struct Writer {
    parts: Parts,
    enforced: watch::Sender<Option<Arc<Enforced>>>,
    status: watch::Sender<Arc<PolicyStatus>>,
    listeners: Listeners,
    news: News,
}

/// A program and the objects it was made of.
#[derive(Debug)]
pub struct Compiled {
    held: Held,
    workload: Workload,
    in_force: InForce,
}

/// Compiles what is in force for `workload`, apart from the threads that serve connections.
///
/// # Errors
/// When compiling panicked; the objects are lost with it.
pub async fn compile(
    take: impl FnOnce() -> Held + Send + 'static,
    workload: Workload,
    mesh: Mesh,
) -> Result<Compiled, String> {
    let compiling = tokio::task::spawn_blocking(move || {
        let held = take();
        let in_force = held.set().in_force(&workload, &mesh);
        Compiled {
            held,
            workload,
            in_force,
        }
    });
    compiling
        .await
        .map_err(|e| format!("policies cannot be compiled: {e}"))
}

impl Writer {
    fn new(parts: Parts, config: &Config) -> (Self, Readers) {
        let (enforced, policies) = watch::channel(None);
        let source = match config.policies {
            PolicySource::Agent => Source::Agent,
            PolicySource::Files { .. } => Source::Files,
        };
        let (status, statuses) = watch::channel(Arc::new(PolicyStatus::new(source)));
        let readers = Readers {
            policies: Policies::new(policies),
            status: statuses,
        };
        let writer = Self {
            parts,
            enforced,
            status,
            listeners: Listeners::of(config),
            news: News::default(),
        };
        (writer, readers)
    }

    /// The version in force.
    fn version(&self) -> Option<String> {
        self.enforced
            .borrow()
            .as_ref()
            .map(|enforced| enforced.version.clone())
    }

    /// Puts a snapshot in force, with the keys of its token rules; what it was made of comes back.
    fn publish(
        &mut self,
        compiled: Compiled,
        version: String,
        ports: Ports,
        keys: impl FnOnce(&Self, &TokenRules) -> KeySets,
    ) -> Held {
        let Compiled {
            held,
            workload,
            in_force,
        } = compiled;
        let outstanding = held.outstanding();
        let policies = in_force.program.policies().count();
        let lost = Lost::of(&in_force, &self.listeners.judged(&ports));
        let now = self.parts.clock.now();
        self.parts.metrics.in_force(policies, lost.count(), &outstanding);
        self.parts.metrics.changed_at(now);
        tracing::info!(
            version, namespace = %workload.namespace, policies, faults = outstanding.len(),
            "policies are in force"
        );
        self.news.faults(&outstanding);
        self.news.lost(&lost);
        self.status.send_modify(|status| {
            let status = Arc::make_mut(status);
            status.in_force(&version, &workload, &outstanding, now);
            status.ports(&ports, &self.listeners);
            status.lost = lost;
        });
        self.news.ports(&self.status.borrow().ports);
        // The former snapshot is still held, so what both want is not fetched twice.
        let keys = Arc::new(keys(self, &in_force.tokens));
        let enforced = Enforced {
            in_force,
            keys,
            ports,
            version,
        };
        self.enforced.send_replace(Some(Arc::new(enforced)));
        self.parts.readiness.holds(READY);
        held
    }

    /// Notes that the source fails; what is enforced stays.
    fn failing(&mut self, reason: &'static str, error: &str) {
        self.parts.metrics.failed(reason);
        let fresh = self.status.borrow().failure.as_ref().map(|(reason, _)| *reason) != Some(reason);
        let enforced = self.enforced.borrow().is_some();
        if fresh && enforced {
            tracing::warn!(reason, error, "no news of policies; what is enforced stays");
        } else if fresh {
            tracing::warn!(reason, error, "no policies yet; connections are refused");
        }
        if !enforced {
            self.parts.readiness.lacks(READY, error);
        }
        self.status.send_modify(|status| {
            Arc::make_mut(status).failure = Some((reason, error.to_owned()));
        });
    }

    /// Notes that the source is well.
    fn well(&mut self) {
        if self.status.borrow().failure.is_some() {
            self.status
                .send_modify(|status| Arc::make_mut(status).failure = None);
        }
    }
}
