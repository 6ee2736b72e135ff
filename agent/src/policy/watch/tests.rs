use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Request, Response, StatusCode};
use kube::client::Body;
use serde_json::json;
use tokio::sync::mpsc;

use signet_policy::model::Kind;

use super::*;
use crate::metrics::Reason;
use crate::policy::object::GROUP;
use crate::policy::services;

/// An API server of a few answers: by path, the status and the body. A watch never says anything.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<BTreeMap<String, (u16, String)>>>);

impl Script {
    fn answers(&self, path: &str, code: u16, body: &str) {
        self.0
            .lock()
            .unwrap()
            .insert(path.to_owned(), (code, body.to_owned()));
    }

    fn serves(&self, version: &str, names: &[&str]) {
        let items: Vec<_> = names
            .iter()
            .map(|name| json!({"metadata": {"name": name, "namespace": "shop", "uid": name}, "spec": {}}))
            .collect();
        let list = json!({
            "apiVersion": format!("{GROUP}/{version}"), "kind": "AuthorizationPolicyList",
            "metadata": {"resourceVersion": "7"}, "items": items,
        });
        self.answers(&path(version), 200, &list.to_string());
    }

    fn client(&self) -> kube::Client {
        let script = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let script = script.clone();
            async move {
                if request.uri().query().unwrap_or_default().contains("watch=true") {
                    std::future::pending::<()>().await;
                }
                let known = script.0.lock().unwrap().get(request.uri().path()).cloned();
                let (code, body) = known.unwrap_or((404, status(404, "NotFound")));
                let answer = Response::builder().status(StatusCode::from_u16(code).unwrap());
                Ok::<_, Infallible>(answer.body(Body::from(body.into_bytes())).unwrap())
            }
        });
        kube::Client::new(service, "default")
    }
}

fn path(version: &str) -> String {
    format!("/apis/{GROUP}/{version}/authorizationpolicies")
}

fn status(code: u16, reason: &str) -> String {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
           "message": format!("{reason}: as scripted")})
    .to_string()
}

struct Following {
    heard: mpsc::Receiver<Heard>,
    metrics: Metrics,
    running: tokio::task::JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn follow(script: &Script) -> Following {
    follow_subject(script, Kind::AuthorizationPolicy)
}

fn follow_subject<S: Subject>(script: &Script, subject: S) -> Following {
    let (ear, heard) = mpsc::channel(8);
    let metrics = Metrics::default();
    let watch = Watch::new(script.client(), subject, ear, metrics.clone());
    let running = tokio::spawn(watch.run());
    Following {
        heard,
        metrics,
        running,
    }
}

impl Following {
    async fn next(&mut self) -> String {
        match self.heard.recv().await.unwrap() {
            Heard::Well(_, state, Event::Listed(_, all)) => format!("{state:?} {}", all.len()),
            Heard::Well(_, state, Event::Services(services::Event::Listed(all))) => {
                format!("services {state:?} {}", all.len())
            }
            Heard::Well(_, state, _) => format!("{state:?}"),
            Heard::Recovered(part) => format!("{part:?} recovered"),
            Heard::Failed(_, reason, error) => format!("{reason}: {error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_preferred_version_is_followed_and_the_older_one_where_it_is_all_there_is() {
    let script = Script::default();
    script.serves("v1beta1", &["a", "b"]);
    assert_eq!(
        follow(&script).next().await,
        "Listed { version: Some(\"v1beta1\") } 2"
    );
    script.serves("v1", &["a", "b"]);
    assert_eq!(follow(&script).next().await, "Listed { version: Some(\"v1\") } 2");
}

#[tokio::test(start_paused = true)]
async fn a_bell_brings_another_list_within_a_minute_and_two_at_once_bring_one() {
    let script = Script::default();
    script.serves("v1", &["a"]);
    let bell = Arc::new(Notify::new());
    let (ear, heard) = mpsc::channel(8);
    let watch = Watch::new(
        script.client(),
        Kind::AuthorizationPolicy,
        ear,
        Metrics::default(),
    );
    let running = tokio::spawn(watch.listing_at(Arc::clone(&bell)).run());
    let mut following = Following {
        heard,
        metrics: Metrics::default(),
        running,
    };
    assert_eq!(following.next().await, "Listed { version: Some(\"v1\") } 1");
    script.serves("v1", &["a", "b"]);
    let asked = Instant::now();
    bell.notify_one();
    bell.notify_one();
    assert_eq!(following.next().await, "Listed { version: Some(\"v1\") } 2");
    assert!(asked.elapsed() <= 2 * SPREAD, "{:?}", asked.elapsed());
    let quiet = tokio::time::timeout(SPREAD * 3, following.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_a_ready_server_does_not_have_has_no_objects_and_is_looked_for_again() {
    let script = Script::default();
    script.answers("/readyz", 200, "ok");
    let mut following = follow(&script);
    assert_eq!(following.next().await, "Absent 0");
    assert_eq!(following.next().await, "Absent 0");
    script.serves("v1", &["a"]);
    assert_eq!(following.next().await, "Listed { version: Some(\"v1\") } 1");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_ready_is_not_believed_that_it_has_no_such_kind() {
    let script = Script::default();
    script.answers("/readyz", 500, &status(500, "InternalError"));
    let mut following = follow(&script);
    for _ in 0..3 {
        let heard = following.next().await;
        assert!(heard.starts_with("not_ready: the kind is not served"), "{heard}");
    }
    let failures = following.metrics.policy_watch_failures.clone();
    assert!(failures.get_or_create(&Reason { reason: "not_ready" }).get() >= 3);
    script.serves("v1", &[]);
    loop {
        let heard = following.next().await;
        if heard == "Listed { version: Some(\"v1\") } 0" {
            break;
        }
        assert!(heard.starts_with("not_ready"), "{heard}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_is_a_failure_and_no_absence() {
    let script = Script::default();
    script.answers("/readyz", 200, "ok");
    script.answers(&path("v1"), 403, &status(403, "Forbidden"));
    let mut following = follow(&script);
    for _ in 0..3 {
        let heard = following.next().await;
        assert!(
            heard.starts_with("list: ") && heard.contains("Forbidden"),
            "{heard}"
        );
    }
    script.serves("v1", &["a"]);
    while following.next().await != "Listed { version: Some(\"v1\") } 1" {}
}

#[tokio::test(start_paused = true)]
async fn services_are_followed_and_a_server_that_does_not_know_them_is_not_believed() {
    let script = Script::default();
    script.answers("/readyz", 200, "ok");
    let mut following = follow_subject(&script, AllServices);
    let heard = following.next().await;
    assert!(
        heard.starts_with("list: the API server does not know them"),
        "{heard}"
    );
    let item = json!({"metadata": {"name": "web", "namespace": "shop"},
                      "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "name": "http", "targetPort": "x"}]}});
    let list = json!({"apiVersion": "v1", "kind": "ServiceList", "metadata": {"resourceVersion": "7"}, "items": [item]});
    script.answers("/api/v1/services", 200, &list.to_string());
    while following.next().await != "services Listed { version: Some(\"v1\") } 1" {}
}
