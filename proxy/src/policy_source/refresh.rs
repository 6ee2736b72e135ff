//! Tokens name keys that are missing from the sets here: the agent is asked for newer ones, once at a time for each
//! set, and not again at once. What comes of it is in a snapshot.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use signet_policy::KeyAddress;
use signet_proto::policy::keys::{Digest, address_message};
use signet_proto::wire::signet::policy::v1::RefreshKeysRequest;
use signet_proto::wire::signet::policy::v1::policy_discovery_client::PolicyDiscoveryClient;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::transport::Channel;

use super::metrics::PolicyMetrics;
use crate::jwt::given::Miss;

/// Shortest time between two questions about one set. Strangers can make us ask, and the agent is everybody's.
const GAP: Duration = Duration::from_secs(1);
/// How long the agent may take: a fetch, and some.
const DEADLINE: Duration = Duration::from_secs(8);
/// Most questions at once.
const MAX_CALLS: usize = 16;
/// Most of those who wait for one answer.
const MAX_WAITING: usize = 256;
/// Most answers that are remembered.
const MAX_REMEMBERED: usize = 256;

type Call = BoxFuture<'static, (KeyAddress, Option<bool>)>;

/// Asks the agent.
pub(super) struct Desk {
    client: PolicyDiscoveryClient<Channel>,
    metrics: PolicyMetrics,
    calls: FuturesUnordered<Call>,
    waiting: HashMap<KeyAddress, Vec<oneshot::Sender<bool>>>,
    answered: HashMap<KeyAddress, Instant>,
}

impl Desk {
    /// Asks over `channel`.
    pub(super) fn new(channel: Channel, metrics: PolicyMetrics) -> Self {
        Self {
            client: PolicyDiscoveryClient::new(channel),
            metrics,
            calls: FuturesUnordered::new(),
            waiting: HashMap::new(),
            answered: HashMap::new(),
        }
    }

    /// Until nobody can miss anything any more.
    pub(super) async fn run(mut self, mut misses: mpsc::Receiver<Miss>) {
        loop {
            tokio::select! {
                miss = misses.recv() => match miss {
                    Some(miss) => self.take(miss, Instant::now()),
                    None => return,
                },
                Some((address, newer)) = self.calls.next(), if !self.calls.is_empty() => {
                    self.answer(address, newer, Instant::now());
                }
            }
        }
    }

    /// Who is not kept waiting is told so by the end of their channel.
    fn take(&mut self, miss: Miss, now: Instant) {
        let Miss { address, held, told } = miss;
        if let Some(waiting) = self.waiting.get_mut(&address) {
            if waiting.len() < MAX_WAITING {
                waiting.push(told);
            } else {
                self.metrics.refreshed("too_many");
            }
            return;
        }
        let lately = |last: &Instant| now.duration_since(*last) < GAP;
        if self.answered.get(&address).is_some_and(lately) {
            self.metrics.refreshed("too_soon");
            return;
        }
        if self.calls.len() >= MAX_CALLS {
            self.metrics.refreshed("too_many");
            return;
        }
        self.waiting.insert(address.clone(), vec![told]);
        self.calls
            .push(Box::pin(call(self.client.clone(), address, held)));
    }

    fn answer(&mut self, address: KeyAddress, newer: Option<bool>, now: Instant) {
        self.metrics.refreshed(match newer {
            Some(true) => "newer",
            Some(false) => "not_newer",
            None => "failed",
        });
        for one in self.waiting.remove(&address).unwrap_or_default() {
            // Whoever does not wait any more does not need it.
            let _gone = one.send(newer == Some(true));
        }
        if self.answered.len() >= MAX_REMEMBERED {
            self.answered.clear();
        }
        self.answered.insert(address, now);
    }
}

async fn call(
    mut client: PolicyDiscoveryClient<Channel>,
    address: KeyAddress,
    held: Digest,
) -> (KeyAddress, Option<bool>) {
    let request = RefreshKeysRequest {
        address: Some(address_message(&address)),
        held: held.to_vec().into(),
    };
    let newer = match tokio::time::timeout(DEADLINE, client.refresh_keys(request)).await {
        Ok(Ok(answer)) => Some(answer.into_inner().newer),
        Ok(Err(status)) => {
            tracing::debug!(document = %address, code = ?status.code(), error = status.message(), "the agent has no newer keys");
            None
        }
        Err(_) => None,
    };
    (address, newer)
}

#[cfg(test)]
mod tests {
    use signet_proto::policy::keys::digest;
    use signet_runtime::grpc::{Timeouts, unix_channel};

    use super::*;

    fn miss(name: &str) -> (Miss, oneshot::Receiver<bool>) {
        let (told, answer) = oneshot::channel();
        let (address, held) = (KeyAddress::Uri(name.into()), digest(b"held"));
        (Miss { address, held, told }, answer)
    }

    #[tokio::test(start_paused = true)]
    async fn one_question_at_a_time_is_asked_for_a_set_and_not_again_at_once() {
        let channel = unix_channel("/nowhere/agent.sock".into(), Timeouts::default());
        let metrics = PolicyMetrics::default();
        let mut desk = Desk::new(channel, metrics.clone());
        let now = Instant::now();
        let mut answers = Vec::new();
        for _ in 0..=MAX_WAITING {
            let (miss, answer) = miss("a");
            desk.take(miss, now);
            answers.push(answer);
        }
        assert_eq!((desk.calls.len(), desk.waiting.len()), (1, 1));
        assert!(answers.pop().unwrap().try_recv().is_err(), "one too many");
        desk.answer(KeyAddress::Uri("a".into()), Some(true), now);
        for answer in &mut answers {
            assert_eq!(answer.try_recv(), Ok(true));
        }
        let (soon, mut told) = miss("a");
        desk.take(soon, now + GAP / 2);
        assert!(told.try_recv().is_err() && desk.waiting.is_empty());
        let (later, _told) = miss("a");
        desk.take(later, now + GAP);
        assert_eq!(desk.waiting.len(), 1);
        for number in 0..=MAX_CALLS {
            desk.take(miss(&number.to_string()).0, now);
        }
        assert_eq!(desk.calls.len(), MAX_CALLS);
        let counted = ["too_many", "too_soon", "newer"].map(|outcome| metrics.refreshes(outcome));
        assert_eq!(counted, [1 + 3, 1, 1]);
    }
}
