use serde_json::{Value, json};
use signet_runtime::UnixTime;

use super::*;
use crate::metrics::Reason;

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(1_000))
    }
}

fn pod_watch() -> (PodWatch, Reader, watch::Receiver<Arc<Wanted>>) {
    let nowhere = kube::Config::new("http://127.0.0.1:9".parse().unwrap());
    PodWatch::new(Parts {
        client: kube::Client::try_from(nowhere).unwrap(),
        node: "n1".into(),
        own: None,
        domain: "cluster.local".parse().unwrap(),
        clock: Arc::new(Fixed),
        metrics: Metrics::default(),
    })
}

fn pod(uid: u8, node: &str) -> PodObject {
    let object: Value = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("p{uid}"), "namespace": "shop", "uid": format!("00000000-0000-4000-8000-{uid:012}")},
        "spec": {"nodeName": node, "serviceAccountName": "cart"},
    });
    serde_json::from_value(object).unwrap()
}

#[tokio::test]
async fn nothing_is_known_until_the_first_list_is_complete() {
    let (mut watch, reader, wanted) = pod_watch();
    let now = Instant::now();
    watch.take(watcher::Event::Init, now);
    watch.take(watcher::Event::InitApply(pod(1, "n1")), now);
    assert!(reader.view.borrow().known_as_of.is_none());
    assert!(!wanted.borrow().synced);
    watch.take(watcher::Event::InitDone, now);
    assert_eq!(reader.view.borrow().known_as_of, Some(now));
    assert_eq!((wanted.borrow().ids.len(), wanted.borrow().synced), (1, true));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_does_not_go_on_is_begun_anew_and_a_quiet_watch_is_not() {
    let (mut watch, _reader, _wanted) = pod_watch();
    let failures = watch.parts.metrics.pod_watch_failures.clone();
    let failed = || failures.get_or_create(&Reason { reason: "list" }).get();
    let stuck = |event| futures::stream::iter([Ok(event)]).chain(futures::stream::pending());
    let hour = Duration::from_secs(3_600);
    let begun = tokio::time::timeout(hour, watch.follow(stuck(watcher::Event::Init))).await;
    assert!(begun.is_ok() && failed() == 1);
    let listed = tokio::time::timeout(hour, watch.follow(stuck(watcher::Event::InitDone))).await;
    assert!(listed.is_err() && failed() == 1);
}

#[tokio::test]
async fn a_node_without_pods_is_known_to_have_none() {
    let (mut watch, _reader, mut wanted) = pod_watch();
    wanted.mark_unchanged();
    watch.take(watcher::Event::Init, Instant::now());
    watch.take(watcher::Event::InitDone, Instant::now());
    assert!(wanted.has_changed().unwrap() && wanted.borrow().synced);
}

#[tokio::test]
async fn a_list_that_broke_off_leaves_nothing_behind() {
    let (mut watch, reader, _wanted) = pod_watch();
    let now = Instant::now();
    watch.take(watcher::Event::Init, now);
    watch.take(watcher::Event::InitApply(pod(1, "n1")), now);
    watch.take(watcher::Event::Init, now);
    watch.take(watcher::Event::InitApply(pod(2, "n1")), now);
    watch.take(watcher::Event::InitDone, now);
    assert_eq!(reader.view.borrow().index.len(), 1);
}

#[tokio::test]
async fn news_that_changes_nothing_wakes_nobody_and_only_a_list_says_what_there_is_not() {
    let (mut watch, mut reader, mut wanted) = pod_watch();
    let start = Instant::now();
    watch.take(watcher::Event::Init, start);
    watch.take(watcher::Event::InitApply(pod(1, "n1")), start);
    watch.take(watcher::Event::InitDone, start);
    reader.view.mark_unchanged();
    wanted.mark_unchanged();
    let later = start + Duration::from_secs(60);
    watch.take(watcher::Event::Apply(pod(1, "n1")), later);
    assert!(!reader.view.has_changed().unwrap() && !wanted.has_changed().unwrap());
    assert_eq!(
        reader.view.borrow().known_as_of,
        Some(start),
        "an event may be of long ago"
    );
    watch.take(watcher::Event::Delete(pod(1, "n1")), later);
    assert!(reader.view.has_changed().unwrap() && wanted.borrow().ids.is_empty());
}

#[tokio::test]
async fn objects_that_cannot_be_used_are_left_out_and_counted() {
    let (mut watch, reader, _wanted) = pod_watch();
    let now = Instant::now();
    watch.take(watcher::Event::Init, now);
    watch.take(watcher::Event::InitApply(pod(1, "n2")), now);
    watch.take(watcher::Event::InitDone, now);
    assert!(reader.view.borrow().index.is_empty());
    let unusable = Outcome { outcome: "unusable" };
    assert_eq!(watch.parts.metrics.pod_events.get_or_create(&unusable).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_out_of_reach_is_asked_again_and_counted() {
    let (watch, reader, _wanted) = pod_watch();
    let metrics = watch.parts.metrics.clone();
    let running = tokio::spawn(watch.run());
    let list = Reason { reason: "list" };
    while metrics.pod_watch_failures.get_or_create(&list).get() < 3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(reader.view.borrow().known_as_of.is_none());
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_the_api_server_is_asked_again_within_seconds_however_long_it_was() {
    let (mut watch, _reader, _wanted) = pod_watch();
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let times = Arc::clone(&asked);
    let failing = futures::stream::repeat_with(move || {
        times.lock().unwrap().push(Instant::now());
        Err(watcher::Error::NoResourceVersion)
    });
    let _ = tokio::time::timeout(Duration::from_secs(3_600), watch.follow(failing)).await;
    let asked = asked.lock().unwrap();
    let waits: Vec<Duration> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        waits.iter().all(|wait| *wait <= Duration::from_millis(5_001)),
        "{waits:?}"
    );
    // Spread: half of the bound on average, and never a storm.
    let mean = waits.iter().sum::<Duration>() / u32::try_from(waits.len()).unwrap();
    assert!(
        mean > Duration::from_secs(2) && mean < Duration::from_secs(3),
        "{mean:?}"
    );
}

#[test]
fn a_failure_long_after_the_last_is_a_first_one_again() {
    let mut failures = Failures::default();
    let start = Instant::now();
    for second in 0..10 {
        failures.one_more(start + Duration::from_secs(second));
    }
    assert_eq!(failures.count, 9);
    let later = start + Duration::from_secs(9) + FORGIVEN;
    assert!(failures.one_more(later) <= BACKOFF.base);
}

#[tokio::test(start_paused = true)]
async fn under_churn_the_identities_in_use_are_told_at_once_and_then_every_few_milliseconds() {
    let (mut watch, reader, mut wanted) = pod_watch();
    let start = Instant::now();
    watch.take(watcher::Event::Init, start);
    watch.take(watcher::Event::InitDone, start);
    wanted.mark_unchanged();
    let later = start + Duration::from_secs(1);
    watch.take(watcher::Event::Apply(pod(1, "n1")), later);
    assert_eq!(
        wanted.borrow_and_update().ids.len(),
        1,
        "the first of many at once"
    );
    for uid in 2..=100 {
        watch.take(watcher::Event::Apply(pod(uid, "n1")), later);
    }
    assert!(!wanted.has_changed().unwrap());
    assert_eq!(
        reader.view.borrow().index.len(),
        100,
        "who may have what is never late"
    );
    let due = watch.announce_at.unwrap();
    assert_eq!(due, later + ANNOUNCED_EVERY);
    let nothing = futures::stream::pending();
    let waited = tokio::time::timeout(Duration::from_secs(2), watch.follow(nothing)).await;
    assert!(waited.is_err() && watch.announce_at.is_none());
    let ids = wanted.borrow_and_update().ids.clone();
    assert_eq!(ids.values().map(|by| by.pods.len()).sum::<usize>(), 100);
}
