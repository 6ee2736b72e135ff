//! The proxy under load while something breaks: policies, upstreams and agents come and go, and clients misbehave.

mod crowd;
mod half_open;
mod malformed;
mod strangers;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use signet_tests::client::svid;
use signet_tests::cluster::Cluster;
use signet_tests::echo::{Echo, says};
use signet_tests::mesh::{BACKEND, short_lived_ca};
use signet_tests::nodes::{trusting, with_policies};
use signet_tests::proxy::{Proxy, ProxySetup};
use signet_tests::wait::{SOON, until};
use tokio::time::{Instant, MissedTickBehavior};

use self::traffic::{Callers, Door, Upstream};
use super::proxy_tls::{STRICT, World, connect};

const X: (&str, &str) = ("web", "frontend");
const Y: (&str, &str) = ("other", "intruder");

/// A policy of X alone, said in one of two ways.
fn only_x(way: bool) -> Value {
    let x = ["cluster.local/ns/web/sa/frontend"];
    let spec = if way {
        json!({"rules": [{"from": [{"source": {"principals": x}}]}]})
    } else {
        json!({"action": "DENY", "rules": [{"from": [{"source": {"notPrincipals": x}}]}]})
    };
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"namespace": "data", "name": "only-x"}, "spec": spec,
    })
}

/// Fails the test if the process ended or a task of it panicked.
fn sound(proxy: &mut Proxy) {
    assert_eq!(proxy.process.ended(), None, "{}", proxy.process.tail());
    let said = proxy.process.stderr();
    assert!(!said.contains("panicked"), "{}", proxy.process.tail());
}

async fn open(proxy: &Proxy) -> f64 {
    let scrape = proxy.scrape().await;
    scrape.value("signet_proxy_connections_open", &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_replaced_ten_times_a_second_never_fail_the_allowed_nor_let_the_denied_pass() {
    const CHANGES: u32 = 50;
    // Ten times what they take.
    const LONG: Duration = Duration::from_secs(50);
    let cluster = Cluster::start();
    let ca = trusting(&cluster).start().await;
    cluster.workload("data", "backend");
    cluster.api.put(only_x(true)).unwrap();
    let agent = with_policies(&cluster, &ca).await;
    let (upstream, echo) = (Upstream::start().await, Echo::start().await);
    let mut proxy = ProxySetup::new(&agent.socket(), "data", "backend")
        .set("policies", "agent")
        .inbound(&upstream.address(), json!({"protocol": "http"}))
        .inbound(&echo.address, json!({"protocol": "tcp"}))
        .start()
        .await;
    let x = svid(&ca, &cluster.token(X.0, X.1)).await;
    let y = svid(&ca, &cluster.token(Y.0, Y.1)).await;
    let mut kept = connect(&proxy.inbound(1), Some(&x), &["istio"]).await.unwrap();

    let address = proxy.inbound(0);
    let allowed = Callers::start("x", 3, &Door::of(&address, Some(&x)));
    let denied = Callers::start("y", 2, &Door::of(&address, Some(&y)));
    let nobody = Callers::start("nobody", 1, &Door::of(&address, None));
    let in_force = async || {
        let scrape = proxy.scrape().await;
        scrape.outcome("signet_proxy_policy_snapshots_total", "in_force")
    };
    let before = in_force().await;
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (began, mut changes, mut replaced) = (Instant::now(), 0, 0);
    // Changes that come faster than a snapshot travels become one.
    while changes < CHANGES || replaced < u64::from(CHANGES) / 2 {
        assert!(began.elapsed() < LONG, "{replaced} of {changes}");
        tick.tick().await;
        cluster.api.put(only_x(changes % 2 == 1)).unwrap();
        says(&mut kept, "still here").await.unwrap();
        changes += 1;
        if changes >= CHANGES {
            replaced = in_force().await - before;
        }
    }

    let only = |said: &str| BTreeSet::from([said.to_owned()]);
    let (allowed, denied, nobody) = (allowed.stop().await, denied.stop().await, nobody.stop().await);
    assert_eq!(traffic::said(&allowed), only("200"));
    for outcomes in [&denied, &nobody] {
        assert_eq!(traffic::said(outcomes), only("403 RBAC: access denied"));
    }
    for outcomes in [&allowed, &denied, &nobody] {
        let enough = usize::try_from(replaced).unwrap();
        assert!(outcomes.len() > enough, "{} requests", outcomes.len());
    }
    let passed = upstream.seen();
    assert!(passed.iter().all(|path| path.starts_with("/x-")), "{passed:?}");
    sound(&mut proxy);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_dies_and_returns_costs_503_while_it_is_away_and_no_request_twice() {
    let world = World::start().await;
    let mut upstream = Upstream::start().await;
    let mut proxy = world
        .backend_proxy()
        .inbound(&upstream.address(), json!({"protocol": "http1"}))
        .inbound(&upstream.address(), json!({"protocol": "http2"}))
        .start()
        .await;
    let callers = [
        Callers::start("one", 4, &Door::of(&proxy.inbound(0), None)),
        Callers::start("two", 4, &Door::of(&proxy.inbound(1), None)),
    ];
    let mut away = Vec::new();
    for _ in 0..4 {
        for one in &callers {
            one.wait("answers", "200", 40).await;
        }
        let from = Instant::now();
        upstream.stop().await;
        for one in &callers {
            one.wait("refusals", "503 upstream_connect", 40).await;
        }
        upstream.start_again().await;
        away.push((from, Instant::now()));
    }
    let mut told = BTreeMap::new();
    for callers in callers {
        callers.wait("answers", "200", 40).await;
        for outcome in callers.stop().await {
            *told.entry(outcome.said.clone()).or_insert(0_u32) += 1;
            let was_away = away
                .iter()
                .any(|(from, to)| outcome.began <= *to && outcome.ended >= *from);
            assert!(
                outcome.said == "200" || was_away,
                "while it was there: {outcome:?}"
            );
        }
    }
    let reasons = ["upstream_connect", "upstream_reset"];
    let mut words: BTreeSet<String> = told.keys().cloned().collect();
    for reason in reasons {
        let counted = proxy.scrape().await.value(
            "signet_proxy_refusals_total",
            &[("direction", "inbound"), ("reason", reason)],
        );
        let word = format!("503 {reason}");
        let said = told.get(&word).copied().unwrap_or(0);
        assert_eq!(counted, f64::from(said), "{reason}");
        words.remove(&word);
    }
    assert_eq!(words, BTreeSet::from(["200".to_owned()]), "{told:?}");
    let seen = upstream.seen();
    let once: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(once.len(), seen.len(), "a request came twice");
    sound(&mut proxy);
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_killed_and_svids_rotated_under_load_fail_no_request() {
    // SVIDs of 30 seconds, renewed at half of that and more: what is left of one that was renewed must last for as long as
    // the agents are away.
    const RENEWED: Duration = Duration::from_secs(60);
    let cluster = Cluster::start();
    let ca = short_lived_ca(&cluster).start().await;
    let mut world = World::on(cluster, ca, "30s").await;
    let upstream = Upstream::start().await;
    let mut backend = world
        .backend_proxy()
        .policy("strict.yaml", STRICT)
        .inbound(&upstream.address(), json!({"protocol": "http"}))
        .start()
        .await;
    let expected = json!({"protocol": "http", "mtls": {"expected": [BACKEND]}});
    let mut frontend = world
        .frontend_proxy()
        .outbound(&backend.inbound(0), expected)
        .start()
        .await;
    let serial = async |proxy: &Proxy| proxy.page("/secrets").await["svid"]["serial"].take();
    let door = Door::of(&frontend.outbound(0), None);
    let (callers, seldom) = (
        Callers::start("caller", 4, &door),
        Callers::seldom("seldom", 8, &door),
    );
    callers.wait("requests", "200", 50).await;
    // Just renewed, so that what the agents leave behind lasts for as long as they are away.
    world.backend.wait_renewals(1, RENEWED).await;
    world.frontend.wait_renewals(1, RENEWED).await;
    world.backend.process.kill();
    world.frontend.process.kill();
    let before = [serial(&backend).await, serial(&frontend).await];
    callers.wait("requests without an agent", "200", 100).await;
    world.backend.start_again().await;
    world.frontend.start_again().await;
    world.backend.wait_renewals(1, RENEWED).await;
    world.frontend.wait_renewals(1, RENEWED).await;
    until("the SVIDs of the new agents", SOON, async || {
        serial(&backend).await != before[0] && serial(&frontend).await != before[1]
    })
    .await;
    callers.wait("requests with the new SVIDs", "200", 100).await;
    for callers in [callers, seldom] {
        let outcomes = callers.stop().await;
        assert_eq!(traffic::said(&outcomes), BTreeSet::from(["200".to_owned()]));
    }
    sound(&mut backend);
    sound(&mut frontend);
}
