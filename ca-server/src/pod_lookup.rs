//! Asking the API server directly, for what the index does not know or may not be believed about.
//!
//! A hostile node can invent names for ever, so lookups are shared by identical questions, kept for two
//! seconds whatever the answer, and bounded: in rate and number for each caller, in number for all.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::future::Cache;
use moka::notification::RemovalCause;
use signet_certs::ServiceAccountId;
use signet_policy::PodFacts;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::metrics::{Metrics, Outcomes};
use crate::pod_wire::{Page, named_request, running_request, selectable, words};

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(2);
/// Most answers kept, and most callers whose shares are remembered; about 200 bytes each.
const MOST_KEPT: u64 = 20_000;
/// Lookups under way at once, for all and for one caller.
const AT_ONCE: usize = 32;
const AT_ONCE_EACH: usize = 8;
/// Lookups that one caller may cause at once and then per second. A node that starts a hundred
/// accounts while the watch is broken needs two for each.
const BURST: f64 = 256.0;
const PER_SECOND: f64 = 16.0;
/// A caller's share is forgotten once it is surely full again.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// The API server could not be asked.
    #[error("pods cannot be looked up: {0}")]
    Unavailable(String),
    /// This caller has used up its share for now.
    #[error("the caller has caused too many lookups of pods")]
    CallerShare,
    /// Too many lookups under way, in all or for this caller.
    #[error("too many lookups of pods under way")]
    Overloaded,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Question {
    Named { namespace: String, pod: String },
    Running { node: String, account: ServiceAccountId },
}

#[derive(Clone, Debug)]
enum Answer {
    Named(Option<Arc<PodFacts>>),
    Running(bool),
}

/// What one caller may still cause.
#[derive(Debug)]
struct Share {
    /// Lookups left, and when that was.
    left: Mutex<(f64, Instant)>,
    slots: Semaphore,
}

impl Share {
    fn full(now: Instant) -> Self {
        Self {
            left: Mutex::new((BURST, now)),
            slots: Semaphore::new(AT_ONCE_EACH),
        }
    }

    /// Takes one lookup out, if one is left.
    fn take(&self, now: Instant) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(left.1).as_secs_f64();
        let refilled = (left.0 + since * PER_SECOND).min(BURST);
        let granted = refilled >= 1.0;
        *left = (if granted { refilled - 1.0 } else { refilled }, now);
        granted
    }
}

/// Looks pods up. Cheap to clone.
#[derive(Clone)]
pub struct Lookups {
    client: kube::Client,
    deadline: Duration,
    answers: Cache<Question, Answer>,
    shares: Cache<String, Arc<Share>>,
    slots: Arc<Semaphore>,
    metrics: Metrics,
}

impl Lookups {
    /// Lookups at the API server behind `client`, each given up after `deadline`, waiting included.
    #[must_use]
    pub fn new(client: kube::Client, deadline: Duration, metrics: Metrics) -> Self {
        let evicted = |cause: RemovalCause, lookups: &Outcomes| {
            if cause == RemovalCause::Size {
                Metrics::count(lookups, "evicted");
            }
        };
        let (answers, shares) = (metrics.pods.lookups.clone(), metrics.pods.lookups.clone());
        Self {
            client,
            deadline,
            answers: Cache::builder()
                .max_capacity(MOST_KEPT)
                .time_to_live(KEPT)
                .eviction_listener(move |_, _, cause| evicted(cause, &answers))
                .build(),
            shares: Cache::builder()
                .max_capacity(MOST_KEPT)
                .time_to_idle(FORGOTTEN)
                .eviction_listener(move |_, _, cause| evicted(cause, &shares))
                .build(),
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            metrics,
        }
    }

    /// The pod of this name, in any phase. `caller` is who causes it: the UID of its pod.
    ///
    /// # Errors
    /// A [`LookupError`].
    pub async fn pod(
        &self,
        caller: &str,
        namespace: &str,
        pod: &str,
    ) -> Result<Option<PodFacts>, LookupError> {
        if !selectable(pod) {
            return Ok(None);
        }
        let question = Question::Named {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
        };
        match self.answer(caller, question).await? {
            Answer::Named(facts) => Ok(facts.map(Arc::unwrap_or_clone)),
            Answer::Running(_) => Ok(None),
        }
    }

    /// Whether a live pod of `account` is on `node`.
    ///
    /// # Errors
    /// A [`LookupError`].
    pub async fn runs(
        &self,
        caller: &str,
        node: &str,
        account: &ServiceAccountId,
    ) -> Result<bool, LookupError> {
        if !selectable(node) {
            return Ok(false);
        }
        let question = Question::Running {
            node: node.to_owned(),
            account: account.clone(),
        };
        let answer = self.answer(caller, question).await?;
        Ok(matches!(answer, Answer::Running(true)))
    }

    async fn answer(&self, caller: &str, question: Question) -> Result<Answer, LookupError> {
        if let Some(kept) = self.answers.get(&question).await {
            self.count("kept");
            return Ok(kept);
        }
        let now = Instant::now();
        let full = async { Arc::new(Share::full(now)) };
        let share = self.shares.get_with_by_ref(caller, full).await;
        if !share.take(now) {
            self.count("caller_share");
            return Err(LookupError::CallerShare);
        }
        let this = self.clone();
        let asked = question.clone();
        // In a task of its own: a caller who leaves does not take the answer of others along.
        let shared = self.answers.try_get_with(question, async move {
            let task = tokio::spawn(async move { this.ask(&share, &asked).await });
            let interrupted = || LookupError::Unavailable("the lookup was interrupted".into());
            task.await.unwrap_or_else(|_| Err(interrupted()))
        });
        shared.await.map_err(|e: Arc<LookupError>| LookupError::clone(&e))
    }

    async fn ask(&self, share: &Share, question: &Question) -> Result<Answer, LookupError> {
        let end = Instant::now() + self.deadline;
        let waited = tokio::time::timeout_at(end, async {
            let own = share.slots.acquire().await?;
            Ok::<_, tokio::sync::AcquireError>((own, self.slots.acquire().await?))
        });
        let Ok(Ok(_slots)) = waited.await else {
            self.count("overloaded");
            return Err(LookupError::Overloaded);
        };
        let answer = self.list(question, end).await;
        let outcome = match &answer {
            Ok(Answer::Named(Some(_)) | Answer::Running(true)) => "found",
            Ok(_) => "none",
            Err(_) => "failed",
        };
        self.count(outcome);
        answer
    }

    async fn list(&self, question: &Question, end: Instant) -> Result<Answer, LookupError> {
        let request = match question {
            Question::Named { namespace, pod } => named_request(namespace, pod),
            Question::Running { node, account } => running_request(node, account.namespace(), account.name()),
        };
        let failed = |text: String| LookupError::Unavailable(text);
        let request = request.map_err(|e| failed(e.to_string()))?;
        let answered = tokio::time::timeout_at(end, self.client.request_text(request)).await;
        let text = answered
            .map_err(|_| failed(format!("no answer within {:?}", self.deadline)))?
            .map_err(|e| failed(words(&e)))?;
        let page: Page = serde_json::from_str(&text).map_err(|_| failed("the answer is no list".into()))?;
        judge(question, page).map_err(failed)
    }

    fn count(&self, outcome: &'static str) {
        Metrics::count(&self.metrics.pods.lookups, outcome);
    }
}

/// What the API server found. Its selector is not relied upon.
fn judge(question: &Question, page: Page) -> Result<Answer, String> {
    if page.version().is_empty() {
        return Err("the answer is no list".into());
    }
    let more = page.next().is_some();
    match question {
        Question::Named { namespace, pod } => {
            let found = page.items.into_iter().find(|found| found.is(namespace, pod));
            match found {
                None if more => Err("the answer is not complete".into()),
                found => Ok(Answer::Named(found.map(|pod| Arc::new(pod.into_facts())))),
            }
        }
        Question::Running { node, account } => {
            let wanted = (account.namespace(), account.name(), node.as_str());
            let runs = page.items.iter().filter_map(|pod| pod.live());
            let mut runs = runs.map(|pod| (pod.namespace, pod.account, pod.node));
            match runs.any(|found| found == wanted) {
                false if more => Err("the answer is not complete".into()),
                runs => Ok(Answer::Running(runs)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn page(items: &serde_json::Value, more: &str) -> Page {
        let metadata = json!({"resourceVersion": "9", "continue": more});
        serde_json::from_value(json!({"metadata": metadata, "items": items})).unwrap()
    }

    fn pod(name: &str, node: &str, phase: &str) -> serde_json::Value {
        json!({
            "metadata": {"namespace": "shop", "name": name, "uid": "u1"},
            "spec": {"nodeName": node, "serviceAccountName": "cart"},
            "status": {"phase": phase},
        })
    }

    fn running() -> Question {
        Question::Running {
            node: "n1".into(),
            account: ServiceAccountId::new("shop", "cart").unwrap(),
        }
    }

    #[test]
    fn only_a_live_pod_of_that_account_on_that_node_counts_whatever_was_selected() {
        let table = [
            (json!([]), false),
            (json!([pod("a", "n1", "Running")]), true),
            (json!([pod("a", "n2", "Running")]), false),
            (json!([pod("a", "n1", "Succeeded")]), false),
            (json!([pod("a", "n1", "Failed"), pod("b", "n1", "Pending")]), true),
        ];
        for (items, runs) in table {
            let answer = judge(&running(), page(&items, "")).unwrap();
            assert!(
                matches!(answer, Answer::Running(found) if found == runs),
                "{items}"
            );
        }
    }

    #[test]
    fn an_answer_that_may_lack_something_is_no_answer() {
        assert!(judge(&running(), page(&json!([]), "more")).is_err());
        assert!(judge(&running(), page(&json!([pod("a", "n1", "Running")]), "more")).is_ok());
        let named = Question::Named {
            namespace: "shop".into(),
            pod: "a".into(),
        };
        assert!(judge(&named, page(&json!([]), "more")).is_err());
        assert!(judge(&named, Page::default()).is_err());
    }

    #[test]
    fn a_pod_of_another_name_is_not_the_one_asked_for() {
        let named = |pod: &str| Question::Named {
            namespace: "shop".into(),
            pod: pod.into(),
        };
        let items = json!([pod("a", "n1", "Succeeded")]);
        let found = judge(&named("a"), page(&items, "")).unwrap();
        assert!(matches!(found, Answer::Named(Some(facts)) if facts.ended && facts.uid == "u1"));
        let found = judge(&named("b"), page(&items, "")).unwrap();
        assert!(matches!(found, Answer::Named(None)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_has_a_burst_and_then_a_rate_and_a_clock_that_stands_gives_nothing() {
        let share = Share::full(Instant::now());
        let granted = |share: &Share| (0..1_000).filter(|_| share.take(Instant::now())).count();
        assert_eq!(granted(&share), 256);
        assert_eq!(granted(&share), 0);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(granted(&share), 8);
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(granted(&share), 256);
    }
}
