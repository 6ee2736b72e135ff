//! Getting an SVID, keeping it, and getting the next one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tonic::Status;

use crate::fake_ca::{FakeCa, Mood, Tower, WORKLOAD, bundle};
use crate::harness::{Agent, Sotw, eventually, token_of};

const HOUR: Duration = Duration::from_secs(3_600);
const SHORT: Duration = Duration::from_secs(4);

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} in {value}"))
}

async fn last_failure(agent: &Agent, reason: &str) -> String {
    eventually(reason, || async {
        if !agent.path("admin/admin.sock").exists() {
            return None;
        }
        let metrics = agent.metrics().await;
        let wanted = format!("signet_agent_svid_renewal_failures_total{{reason=\"{reason}\"}} ");
        let count = metrics.lines().find_map(|l| l.strip_prefix(&wanted))?;
        if count == "0" {
            return None;
        }
        let (_, status) = agent.get("/v1/status").await;
        Some(status["missing"].to_string())
    })
    .await
}

#[tokio::test]
async fn an_svid_is_there_soon_after_the_start_and_says_everything_but_its_key() {
    let ca = FakeCa::start(Mood::issue(HOUR)).await;
    let agent = Agent::start(&ca, "");
    let svid = agent.svid(|_| true).await;
    assert_eq!(text(&svid, "spiffe_id"), WORKLOAD);
    assert_eq!(text(&svid, "key"), "P-256");
    assert_eq!(text(&svid, "authority_id"), ca.tower().issuing.id());
    assert_eq!(svid["renewals"], 0);
    assert!(text(&svid, "chain_pem").starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(!svid.to_string().contains("PRIVATE"));
    let (_, status) = agent.get("/v1/status").await;
    assert_eq!(status["ready"], true);
    agent.stop().await;
}

#[tokio::test]
async fn the_svid_is_renewed_with_a_new_key_before_it_ends() {
    let ca = FakeCa::start(Mood::issue(SHORT)).await;
    let agent = Agent::start(&ca, "");
    let first = agent.svid(|_| true).await;
    let next = agent.svid(|svid| svid["renewals"].as_u64() >= Some(2)).await;
    assert_ne!(text(&first, "serial"), text(&next, "serial"));
    assert_eq!(text(&next, "spiffe_id"), WORKLOAD);
    agent.stop().await;
}

#[tokio::test]
async fn the_token_is_read_again_for_every_request_and_trimmed() {
    let ca = FakeCa::start(Mood::issue(SHORT)).await;
    let agent = Agent::start(&ca, "");
    agent.svid(|_| true).await;
    std::fs::write(agent.path("token"), "  second.token.here \n").unwrap();
    agent.svid(|svid| svid["renewals"].as_u64() >= Some(1)).await;
    let tokens = ca.state.tokens.lock().unwrap().clone();
    assert_eq!(
        tokens.first().unwrap(),
        &format!("Bearer {}", token_of("shop/cart"))
    );
    assert_eq!(tokens.last().unwrap(), "Bearer second.token.here");
    agent.stop().await;
}

#[tokio::test]
async fn an_outage_of_the_ca_costs_nothing_while_the_svid_lasts_and_heals_by_itself() {
    let ca = FakeCa::start(Mood::issue(Duration::from_secs(10))).await;
    let agent = Agent::start(&ca, "");
    let held = agent.svid(|_| true).await;
    let down = ca.stop();
    let (code, body) = eventually("the floor to pass", || async {
        let (code, body) = agent.post("/v1/svids/rotate").await;
        (code != 429).then_some((code, body))
    })
    .await;
    assert_eq!((code, text(&body, "reason")), (502, "unavailable"));
    let still = agent.svid(|_| true).await;
    assert_eq!(text(&still, "serial"), text(&held, "serial"));
    assert_eq!(text(&still["last_failure"], "reason"), "unavailable");
    let ca = down.restart().await;
    agent.svid(|svid| svid["renewals"].as_u64() >= Some(1)).await;
    drop(ca);
    agent.stop().await;
}

#[tokio::test]
async fn every_kind_of_failure_has_its_reason() {
    for (mood, reason) in [
        (
            Mood::Refuse(Status::unauthenticated("request authenticate failure")),
            "refused",
        ),
        (Mood::Refuse(Status::invalid_argument("csr")), "malformed"),
        (Mood::Refuse(Status::resource_exhausted("queue")), "overloaded"),
        (Mood::Refuse(Status::unavailable("api server")), "unavailable"),
        (Mood::Refuse(Status::internal("bug")), "internal"),
        (Mood::AnotherKey, "bad_answer"),
        (
            Mood::Issue {
                id: "spiffe://cluster.local/ns/shop/sa/other".parse().unwrap(),
                ttl: HOUR,
            },
            "bad_answer",
        ),
        (Mood::Hang, "deadline"),
    ] {
        let ca = FakeCa::start(mood).await;
        let agent = Agent::start(&ca, "");
        let missing = last_failure(&agent, reason).await;
        assert!(missing.contains("no SVID yet: "), "{missing}");
        agent.stop().await;
    }
}

#[tokio::test]
async fn an_answer_that_does_not_verify_under_the_bundle_is_refused_and_nothing_of_it_is_served() {
    let ca = FakeCa::start(Mood::issue(Duration::from_secs(60))).await;
    let agent = Agent::start(&ca, "");
    let held = agent.svid(|_| true).await;
    let channel = agent.channel().await;
    let names = ["default", "ROOTCA"];
    let mut sotw = Sotw::ask(&channel, &names).await;
    let first = sotw.next().await.unwrap();
    assert_eq!(first.resources.len(), 2);
    sotw.ack(&first, &names).await;

    ca.set(Mood::AnotherRoot);
    let rotate = || async {
        let (code, body) = agent.post("/v1/svids/rotate").await;
        (code != 429).then_some((code, body))
    };
    let (code, body) = eventually("the floor to pass", rotate).await;
    assert_eq!((code, text(&body, "reason")), (502, "not_verified"), "{body}");
    let still = agent.svid(|_| true).await;
    assert_eq!(text(&still, "serial"), text(&held, "serial"));
    assert_eq!(text(&still["last_failure"], "reason"), "not_verified");
    let (_, roots) = agent.get("/v1/bundle").await;
    assert_eq!(roots["sequence"], 1);
    assert_eq!(text(&roots, "pem"), ca.root_pem());

    // The next push is the next good SVID, without roots: nothing came between.
    ca.set(Mood::issue(HOUR));
    let (code, _) = eventually("the renewal", rotate).await;
    assert_eq!(code, 200);
    let second = sotw.next().await.unwrap();
    let good = agent.svid(|svid| svid["renewals"] == 1).await;
    assert_eq!(second.resources.len(), 1);
    let pushed = String::from_utf8_lossy(&second.resources[0].value).into_owned();
    let leaf = text(&good, "chain_pem")
        .split_inclusive("-----END CERTIFICATE-----")
        .next();
    assert!(pushed.contains(leaf.unwrap()), "the good leaf is what was pushed");
    agent.stop().await;
}

#[tokio::test]
async fn an_answer_without_any_bundle_is_not_served_until_the_bundle_comes() {
    let ca = FakeCa::start(Mood::issue(HOUR)).await;
    let roots = bundle(&[&ca.tower()], 1);
    ca.state.bundles.send_replace(None);
    let agent = Agent::start(&ca, "");
    let missing = last_failure(&agent, "no_bundle").await;
    assert!(missing.contains("no SVID yet: "), "{missing}");
    let (_, page) = agent.get("/v1/svids").await;
    assert_eq!(page["svids"].as_array().map(Vec::len), Some(0), "{page}");
    ca.publish(roots);
    agent.svid(|_| true).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_ca_under_another_root_is_refused_saying_which_roots_judged() {
    let ca = FakeCa::start(Mood::issue(HOUR)).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("root.pem"),
        Tower::new().root.certificate().to_pem(),
    )
    .unwrap();
    std::fs::write(dir.path().join("token"), token_of("shop/cart")).unwrap();
    let agent = Agent::start_in(dir, &format!("ca_address: 127.0.0.1:{}\n", ca.address.port()));
    let missing = last_failure(&agent, "tls_untrusted").await;
    assert!(
        missing.contains("its certificate is not accepted as localhost under the roots in "),
        "{missing}"
    );
    // Kubelet swaps the file, and nothing needs a restart.
    std::fs::write(agent.path("root.pem"), ca.root_pem()).unwrap();
    agent.svid(|_| true).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_missing_token_or_root_file_is_named_and_its_arrival_is_enough() {
    let ca = FakeCa::start(Mood::issue(HOUR)).await;
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start_in(dir, &format!("ca_address: 127.0.0.1:{}\n", ca.address.port()));
    let missing = last_failure(&agent, "token_unreadable").await;
    assert!(missing.contains("/token: "), "{missing}");
    std::fs::write(agent.path("token"), token_of("shop/cart")).unwrap();
    let missing = last_failure(&agent, "roots_unreadable").await;
    assert!(missing.contains("/root.pem: "), "{missing}");
    std::fs::write(agent.path("root.pem"), ca.root_pem()).unwrap();
    agent.svid(|_| true).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_new_root_reaches_clients_before_the_leaf_that_needs_it() {
    let ca = FakeCa::start(Mood::issue(Duration::from_secs(5))).await;
    let agent = Agent::start(&ca, "");
    agent.svid(|_| true).await;
    let channel = agent.channel().await;
    let mut roots = Sotw::ask(&channel, &["ROOTCA"]).await;
    let mut pair = Sotw::ask(&channel, &["default"]).await;
    let narrow = roots.next().await.unwrap();
    roots.ack(&narrow, &["ROOTCA"]).await;
    let first = pair.next().await.unwrap();
    pair.ack(&first, &["default"]).await;
    let (old, new) = (ca.tower(), std::sync::Arc::new(Tower::new()));
    ca.publish(bundle(&[&old, &new], 2));
    let wide = roots.next().await.unwrap();
    assert_ne!(wide.version_info, narrow.version_info);
    *ca.state.tower.lock().unwrap() = std::sync::Arc::clone(&new);
    let second = pair.next().await.unwrap();
    assert_ne!(second.version_info, first.version_info);
    let svid = agent.svid(|svid| svid["renewals"].as_u64() >= Some(1)).await;
    assert!(!text(&svid, "serial").is_empty());
    agent.stop().await;
}

/// The machine's clock, moved.
#[derive(Default)]
struct Moved(std::sync::atomic::AtomicU64);

impl signet_runtime::Clock for Moved {
    fn now(&self) -> signet_certs::UnixTime {
        let by = Duration::from_secs(self.0.load(std::sync::atomic::Ordering::SeqCst));
        signet_certs::lifetime::plus(crate::fake_ca::now(), by)
    }
}

#[tokio::test]
async fn a_clock_that_jumps_is_noticed_within_seconds() {
    let ca = FakeCa::start(Mood::issue(HOUR)).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("root.pem"), ca.root_pem()).unwrap();
    std::fs::write(dir.path().join("token"), token_of("shop/cart")).unwrap();
    let clock = std::sync::Arc::new(Moved::default());
    let address = format!("ca_address: 127.0.0.1:{}\n", ca.address.port());
    let agent = Agent::start_by(std::sync::Arc::clone(&clock) as _, dir, &address);
    agent.svid(|_| true).await;
    clock.0.store(40 * 60, std::sync::atomic::Ordering::SeqCst);
    agent.svid(|svid| svid["renewals"] == 1).await;
    assert_eq!(ca.requests(), 2);
    agent.stop().await;
}

#[tokio::test]
async fn a_bundle_that_drops_the_issuer_brings_a_new_svid_at_once() {
    let ca = FakeCa::start(Mood::issue(Duration::from_secs(10))).await;
    let agent = Agent::start(&ca, "");
    let held = agent.svid(|_| true).await;
    let new = std::sync::Arc::new(Tower::new());
    *ca.state.tower.lock().unwrap() = std::sync::Arc::clone(&new);
    ca.publish(bundle(&[&new], 2));
    let next = agent.svid(|svid| svid["serial"] != held["serial"]).await;
    assert_eq!(text(&next, "authority_id"), new.issuing.id());
    agent.stop().await;
}

#[tokio::test]
async fn an_older_bundle_changes_nothing_and_is_counted() {
    let ca = FakeCa::start(Mood::issue(HOUR)).await;
    let agent = Agent::start(&ca, "");
    ca.publish(bundle(&[&ca.tower()], 7));
    agent.svid(|_| true).await;
    eventually("sequence 7", || async {
        let (_, body) = agent.get("/v1/bundle").await;
        (body["sequence"] == 7).then_some(())
    })
    .await;
    ca.publish(bundle(&[&Tower::new()], 6));
    eventually("the older bundle to be counted", || async {
        let metrics = agent.metrics().await;
        metrics
            .contains("signet_agent_bundles_total{outcome=\"older\"} 1")
            .then_some(())
    })
    .await;
    ca.publish(bundle(&[&Tower::new()], 7));
    eventually("the conflicting bundle to be counted", || async {
        let metrics = agent.metrics().await;
        metrics
            .contains("signet_agent_bundles_total{outcome=\"conflicting\"} 1")
            .then_some(())
    })
    .await;
    let (_, body) = agent.get("/v1/bundle").await;
    assert_eq!(body["sequence"], 7);
    assert_eq!(text(&body, "pem"), ca.root_pem());
    agent.stop().await;
}

/// Whether ends of the stream of bundles were counted, by this reason so often and by no other.
async fn watch_failures(agent: &Agent, unavailable: u32) -> bool {
    let metrics = agent.metrics().await;
    let counts = metrics.lines().filter_map(|line| {
        line.strip_prefix("signet_agent_bundle_watch_failures_total{reason=\"")?
            .split_once("\"} ")
    });
    let counted: Vec<_> = counts.filter(|(_, count)| *count != "0").collect();
    counted.len() == usize::from(unavailable > 0)
        && counted
            .iter()
            .all(|counted| *counted == ("unavailable", unavailable.to_string().as_str()))
}

#[tokio::test]
async fn a_stream_of_bundles_that_the_ca_ends_in_good_order_is_opened_again_and_counted_as_no_failure() {
    let ca = FakeCa::start(Mood::issue(HOUR)).await;
    let agent = Agent::start(&ca, "");
    for sequence in 1..=3 {
        ca.publish(bundle(&[&ca.tower()], sequence));
        agent.svid(|_| true).await;
        eventually("the bundle", || async {
            let (_, body) = agent.get("/v1/bundle").await;
            (body["sequence"] == sequence).then_some(())
        })
        .await;
        let opened = ca.state.watches.load(Ordering::SeqCst);
        assert_eq!(opened as u64, sequence);
        assert!(watch_failures(&agent, 0).await, "of {opened} streams");
        ca.end_watches();
        eventually("the next stream", || async {
            (ca.state.watches.load(Ordering::SeqCst) > opened).then_some(())
        })
        .await;
    }
    assert!(watch_failures(&agent, 0).await);
    agent.stop().await;
}

#[tokio::test]
async fn a_stream_of_bundles_that_ends_without_one_is_a_failure() {
    let ca = FakeCa::start(Mood::issue(HOUR)).await;
    ca.state.bundles.send_replace(None);
    let agent = Agent::start(&ca, "");
    eventually("a stream", || async {
        (ca.state.watches.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    ca.end_watches();
    eventually("the failure", || async {
        watch_failures(&agent, 1).await.then_some(())
    })
    .await;
    agent.stop().await;
}
