//! The stream of the local agent: it sends what concerns the workload that the kernel says we are.
//!
//! While the agent is away, what it said last stays enforced. A snapshot that cannot be read is refused whole,
//! and the agent is told why.

use std::collections::BTreeMap;
use std::time::Duration;

use signet_certs::TrustDomain;
use signet_policy::Mesh;
use signet_policy::principal::LocalDomains;
use signet_policy::scope::ProviderKind;
use signet_policy::tokens::TokenRules;
use signet_proto::policy::{MAX_SNAPSHOT_BYTES, Snapshot, parse};
use signet_proto::wire::signet::policy::v1::policy_discovery_client::PolicyDiscoveryClient;
use signet_proto::wire::signet::policy::v1::{PolicySnapshot, StreamPoliciesRequest};
use signet_runtime::backoff::{Backoff, random_share};
use signet_runtime::grpc::dial_error;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::held::Held;
use super::{Writer, compile};
use crate::jwt::given::GivenKeys;

/// Waits between two streams. All proxies of a node lose its agent at once.
const BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(250),
    cap: Duration::from_secs(10),
};
/// Answers on their way. One snapshot is answered at a time.
const ANSWERS: usize = 4;
/// How long an answer may take to leave before the stream counts as lost.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// How long the agent may take until it says anything. It holds a stream for five seconds for what is on its
/// way, and attests before that.
const FIRST_DEADLINE: Duration = Duration::from_secs(30);
/// Longest text of a status that is repeated.
const MAX_TEXT_BYTES: usize = 512;

/// What the configuration says beside what the agent says.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Our trust domain; snapshots of another one are refused.
    pub trust_domain: TrustDomain,
    /// Providers that CUSTOM policies may name.
    pub providers: BTreeMap<String, ProviderKind>,
}

/// Why a stream is over.
#[derive(Debug)]
struct Over {
    reason: &'static str,
    error: String,
}

impl Over {
    fn new(reason: &'static str, error: impl Into<String>) -> Self {
        let mut error = error.into();
        error.truncate(error.floor_char_boundary(MAX_TEXT_BYTES));
        Self { reason, error }
    }
}

impl From<Status> for Over {
    fn from(status: Status) -> Self {
        if let Some(dial) = dial_error(&status) {
            return Self::new("dial", dial.to_string());
        }
        let reason = match status.code() {
            Code::Unimplemented | Code::FailedPrecondition => "not_served",
            Code::PermissionDenied => "denied",
            Code::Unavailable => "unavailable",
            Code::ResourceExhausted | Code::OutOfRange => "too_large",
            _ => "broken",
        };
        Self::new(reason, status.message())
    }
}

/// Follows the agent until dropped.
pub async fn follow(writer: Writer, expected: Expected, channel: Channel, given: GivenKeys) {
    let mut this = Following {
        writer,
        expected,
        held: Held::default(),
        given,
        attempt: 0,
    };
    loop {
        let Err(over) = this.stream(channel.clone()).await;
        this.writer.failing(over.reason, &over.error);
        tokio::time::sleep(BACKOFF.delay(this.attempt, random_share())).await;
        this.attempt = this.attempt.saturating_add(1);
    }
}

struct Following {
    writer: Writer,
    expected: Expected,
    held: Held,
    given: GivenKeys,
    attempt: u32,
}

impl Following {
    async fn stream(&mut self, channel: Channel) -> Result<std::convert::Infallible, Over> {
        let (answers, mut queue) = mpsc::channel(ANSWERS);
        let hello = StreamPoliciesRequest {
            proxy: concat!("signet-proxy/", env!("CARGO_PKG_VERSION")).to_owned(),
            ..StreamPoliciesRequest::default()
        };
        let requests = futures::stream::poll_fn(move |cx| queue.poll_recv(cx));
        answer(&answers, hello).await?;
        let mut client = PolicyDiscoveryClient::new(channel).max_decoding_message_size(MAX_SNAPSHOT_BYTES);
        let opened = tokio::time::timeout(FIRST_DEADLINE, client.stream_policies(requests)).await;
        let mut stream = opened.map_err(|_| silent())??.into_inner();
        let mut next = tokio::time::timeout(FIRST_DEADLINE, stream.message())
            .await
            .map_err(|_| silent())??;
        loop {
            let message = next.ok_or_else(|| Over::new("ended", "the agent ended the stream"))?;
            self.attempt = 0;
            let reply = self.take(message).await?;
            answer(&answers, reply).await?;
            next = message_of(&mut stream).await?;
        }
    }

    /// Puts a snapshot in force, or says why not.
    async fn take(&mut self, message: PolicySnapshot) -> Result<StreamPoliciesRequest, Over> {
        let version = message.version.clone();
        let error = match self.read(message) {
            Ok(snapshot) if self.writer.version().as_ref() == Some(&version) => {
                drop(snapshot);
                self.writer.parts.metrics.snapshot("unchanged");
                self.writer.well();
                String::new()
            }
            Ok(snapshot) => {
                self.enforce(snapshot).await?;
                String::new()
            }
            Err(error) => {
                self.writer.parts.metrics.snapshot("refused");
                self.writer.failing("refused", &error);
                error
            }
        };
        Ok(StreamPoliciesRequest {
            proxy: String::new(),
            version,
            error,
        })
    }

    fn read(&self, message: PolicySnapshot) -> Result<Snapshot, String> {
        let snapshot = parse(message).map_err(|e| e.to_string())?;
        let ours = &self.expected.trust_domain;
        if snapshot.trust_domain != *ours {
            let theirs = &snapshot.trust_domain;
            return Err(format!(
                "the agent is of trust domain {theirs}, this proxy of {ours}"
            ));
        }
        Ok(snapshot)
    }

    async fn enforce(&mut self, snapshot: Snapshot) -> Result<(), Over> {
        let Snapshot {
            version,
            workload,
            trust_domain,
            aliases,
            root_namespace,
            objects,
            keys,
            ports,
        } = snapshot;
        let mesh = Mesh {
            domains: LocalDomains::new(trust_domain, aliases),
            root_namespace,
            providers: self.expected.providers.clone(),
        };
        let mut held = self.held.clone();
        let take = move || {
            held.take_snapshot(objects);
            held
        };
        let compiled = compile(take, workload, mesh)
            .await
            .map_err(|e| Over::new("broken", e))?;
        for (address, fault) in self.given.take(keys) {
            self.writer.parts.metrics.failed("keys");
            tracing::warn!(
                document = %address, error = fault,
                "the agent sent keys of an issuer that cannot be read; the last good ones stay"
            );
        }
        let given = &mut self.given;
        let keys = |_: &Writer, rules: &TokenRules| given.key_sets(rules);
        self.held = self.writer.publish(compiled, version, ports, keys);
        Ok(())
    }
}

async fn message_of(stream: &mut Streaming<PolicySnapshot>) -> Result<Option<PolicySnapshot>, Over> {
    Ok(stream.message().await?)
}

fn silent() -> Over {
    Over::new("silent", "the agent does not answer")
}

async fn answer(
    answers: &mpsc::Sender<StreamPoliciesRequest>,
    reply: StreamPoliciesRequest,
) -> Result<(), Over> {
    match tokio::time::timeout(ANSWER_DEADLINE, answers.send(reply)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Over::new("ended", "the agent ended the stream")),
        Err(_) => Err(Over::new("silent", "the agent takes no answers")),
    }
}
