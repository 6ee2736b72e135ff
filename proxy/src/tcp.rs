//! Connections without HTTP: judged, dialled, copied, judged again whenever policies change, recorded.

pub(crate) mod copying;
mod judge;
pub(crate) mod proxy_protocol;

use std::sync::Arc;
use std::time::Duration;

use signet_runtime::clock::sleep_until;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep_until as sleep_until_instant};

use crate::access_log::{Client, Identity, Policy, Reason, Record, Upstream as Fault};
use crate::connection::{Accepted, Direction};
use crate::enforced::Policies;
use crate::keys::Trust;
use crate::metrics::TcpSeries;
use crate::outbound::{Dialed, Upstream, dial};
use crate::shared::Shared;
use crate::stream::Stream;
use copying::{Broken, Copying};
use judge::Judge;

/// Share of the drain deadline that connections have, so that their records are written before the end.
const DRAIN_SHARE: f64 = 0.8;

/// Serves a connection to the workload.
pub async fn serve_inbound(
    shared: Arc<Shared>,
    accepted: Arc<Accepted>,
    stream: Stream,
    upstream: Upstream,
    tell_client: bool,
) {
    let mut record = Record::begin(&shared, &accepted);
    let mut policies = shared.policies.clone();
    let mut judge = Judge::new(&shared, &accepted);
    // An authorizer may have taken its time: what lets it pass is what is in force by then.
    loop {
        if let Err(verdict) = judge.judge(policies.seen()).await {
            stream.reset_on_close();
            return verdict.tell(&mut record);
        }
        if !policies.has_changed() {
            break;
        }
    }
    record.policy = judge.by();
    let Some(mut dialed) = reach(&shared, &upstream, &stream, &mut record).await else {
        return;
    };
    if tell_client && let Err(error) = dialed.stream.write_all(&proxy_protocol::header(&accepted)).await {
        stream.reset_on_close();
        return record.ended(Reason::Upstream(Fault::Reset), error.to_string());
    }
    let conversation = Conversation::new(&shared, &accepted, stream, dialed);
    conversation.run(record, Some((policies, judge))).await;
}

/// Serves a connection of the workload to others. Policies of the other side are enforced there.
pub async fn serve_outbound(
    shared: Arc<Shared>,
    accepted: Arc<Accepted>,
    stream: Stream,
    upstream: Upstream,
) {
    let mut record = Record::begin(&shared, &accepted);
    let Some(dialed) = reach(&shared, &upstream, &stream, &mut record).await else {
        return;
    };
    let conversation = Conversation::new(&shared, &accepted, stream, dialed);
    conversation.run(record, None).await;
}

async fn reach(shared: &Shared, upstream: &Upstream, stream: &Stream, record: &mut Record) -> Option<Dialed> {
    let begun = Instant::now();
    match dial(shared, upstream).await {
        Ok(dialed) => {
            record.upstream = Some(dialed.address);
            record.upstream_id.clone_from(&dialed.peer);
            record.upstream_took = Some(begun.elapsed());
            Some(dialed)
        }
        Err(failure) => {
            stream.reset_on_close();
            record.ended(failure.reason(), failure.to_string());
            None
        }
    }
}

/// Two streams that talk.
struct Conversation {
    shared: Arc<Shared>,
    accepted: Arc<Accepted>,
    copying: Copying<Stream, Stream>,
    series: Arc<TcpSeries>,
    /// What the trust in the end that has an identity rests on.
    trust: Option<Arc<Trust>>,
}

/// What ends a conversation, or gives it pause.
enum Event {
    Ended(Result<(), Broken>),
    PoliciesChanged,
    Untrusted,
    Idle,
    Expired,
    Drained,
}

impl Conversation {
    fn new(shared: &Arc<Shared>, accepted: &Arc<Accepted>, stream: Stream, dialed: Dialed) -> Self {
        let peer = match accepted.direction {
            Direction::Inbound => accepted.peer(),
            Direction::Outbound => dialed.peer.as_ref(),
        };
        let series = shared.metrics.tcp_series(accepted, peer);
        series.opened.inc();
        let proof = accepted.proof().cloned();
        let trust = proof.map(|proof| shared.keys.follow(proof, shared.clock.now()));
        Self {
            trust: trust.or(dialed.trust),
            shared: Arc::clone(shared),
            accepted: Arc::clone(accepted),
            copying: Copying::new(stream, dialed.stream),
            series,
        }
    }

    async fn run(mut self, mut record: Record, mut judged: Option<(Policies, Judge)>) {
        let (shared, accepted) = (Arc::clone(&self.shared), Arc::clone(&self.accepted));
        let idle = shared.config.limits.tcp_idle;
        let drained = drained(&shared);
        let expired = expired(&shared, &accepted);
        let silence = sleep_until_instant(Instant::now() + idle);
        let trust = self.trust.take();
        tokio::pin!(drained, expired, silence);
        let (reason, detail) = loop {
            let event = tokio::select! {
                // What may end it comes first: nothing moves on a permit that may be gone.
                biased;
                () = changed(&mut judged) => Event::PoliciesChanged,
                () = untrusted(trust.as_deref()) => Event::Untrusted,
                ended = &mut self.copying => Event::Ended(ended),
                () = &mut silence => Event::Idle,
                () = &mut expired => Event::Expired,
                () = &mut drained => Event::Drained,
            };
            match event {
                Event::Ended(ended) => break outcome(ended),
                Event::PoliciesChanged => {
                    let Some((policies, judge)) = &mut judged else {
                        continue;
                    };
                    // The bytes wait: nothing moves on a permit that may be gone.
                    if let Err(verdict) = judge.judge(policies.seen()).await {
                        record.policy = verdict.policy;
                        let reason = match verdict.reason {
                            Reason::Policy(Policy::Denied | Policy::NotAllowed | Policy::Faulty) => {
                                Reason::Policy(Policy::Withdrawn)
                            }
                            other => other,
                        };
                        break (reason, Some(verdict.detail));
                    }
                    record.policy = judge.by();
                }
                Event::Untrusted => {
                    let fault = trust.as_deref().and_then(Trust::fault);
                    let detail = fault.map(|fault| format!("the other end is no longer trusted: {fault}"));
                    break (Reason::Identity(Identity::TrustWithdrawn), detail);
                }
                Event::Idle => {
                    let end = self.copying.last() + idle;
                    if end <= Instant::now() {
                        break (Reason::Client(Client::Idle), None);
                    }
                    silence.as_mut().reset(end);
                }
                Event::Expired => break (Reason::Policy(Policy::Expired), None),
                Event::Drained => break (Reason::Drained, None),
            }
        };
        self.end(&mut record, reason, detail);
    }

    fn end(self, record: &mut Record, reason: Reason, detail: Option<String>) {
        (record.received, record.sent) = self.copying.bytes();
        self.series.received.inc_by(record.received);
        self.series.sent.inc_by(record.sent);
        self.series.closed.inc();
        let (downstream, upstream) = self.copying.ends();
        if !matches!(reason, Reason::Ok) {
            downstream.reset_on_close();
            upstream.reset_on_close();
        }
        record.ended(reason, detail);
    }
}

fn outcome(ended: Result<(), Broken>) -> (Reason, Option<String>) {
    match ended {
        Ok(()) => (Reason::Ok, None),
        Err(Broken::Downstream(error)) => (Reason::Client(Client::Gone), Some(error.to_string())),
        Err(Broken::Upstream(error)) => (Reason::Upstream(Fault::Reset), Some(error.to_string())),
    }
}

async fn untrusted(trust: Option<&Trust>) {
    match trust {
        Some(trust) => trust.withdrawn().await,
        None => std::future::pending().await,
    }
}

async fn changed(judged: &mut Option<(Policies, Judge)>) {
    match judged {
        Some((policies, _)) => policies.changed().await,
        None => std::future::pending().await,
    }
}

/// The end of the time that connections have after the word to drain was given.
async fn drained(shared: &Shared) {
    shared.drain.cancelled().await;
    tokio::time::sleep(shared.config.drain.mul_f64(DRAIN_SHARE)).await;
}

/// The end of the SVID that the connection was opened with, where that counts.
pub(crate) async fn expired(shared: &Shared, accepted: &Accepted) {
    match accepted.own_not_after {
        Some(end) if shared.config.close_on_expiry => {
            let after = signet_runtime::UnixTime::since_unix_epoch(Duration::from_secs(end.as_secs() + 1));
            sleep_until(&*shared.clock, after).await;
        }
        _ => std::future::pending().await,
    }
}
