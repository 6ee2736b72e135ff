//! What a change of policies costs a node: a thousand policies, 250 workloads.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use signet_agent::policy::issuers::KeyFetching;
use signet_agent::policy::object::{Told, told};
use signet_agent::policy::snapshot::Basis;
use signet_agent::policy::store::{Event, Store};
use signet_agent::policy::{Mesh, Settings, Source};
use signet_policy::Workload;
use signet_policy::model::Kind;
use signet_policy::scope::Role;
use tokio::time::Instant;

const NAMESPACES: usize = 50;
const POLICIES: usize = 1_000;
const WORKLOADS: usize = 250;

fn policy(namespace: &str, name: &str, app: Option<usize>, path: &str) -> Told {
    let selector = app.map_or(
        json!({}),
        |app| json!({"matchLabels": {"app": format!("a{app}")}}),
    );
    let spec: Value = json!({
        "selector": selector, "action": "ALLOW",
        "rules": [{
            "from": [{"source": {"principals": [format!("cluster.local/ns/{namespace}/sa/front")]}}],
            "to": [{"operation": {"methods": ["GET"], "paths": [path]}}],
        }],
    });
    let object = json!({"metadata": {"name": name, "namespace": namespace, "uid": name}, "spec": spec});
    told(
        Kind::AuthorizationPolicy,
        "v1",
        serde_json::from_value(object).unwrap(),
    )
    .unwrap()
}

struct Node {
    store: Store,
    mesh: Mesh,
    workloads: Vec<Workload>,
    bases: Vec<Basis>,
}

/// What every stream does when it is woken: how many look closer, how many send, and how long all of it took.
struct Cost {
    looked: usize,
    sent: usize,
    took: Duration,
}

impl Node {
    fn new() -> Self {
        let all = (0..POLICIES).map(|n| {
            let namespace = format!("n{}", n % NAMESPACES);
            policy(&namespace, &format!("p{n}"), Some(n / NAMESPACES % 5), "/api/*")
        });
        let mut store = Store::default();
        store.apply([Event::Listed(Kind::AuthorizationPolicy, all.collect())]);
        let mesh = Mesh {
            domain: "cluster.local".parse().unwrap(),
            settings: Settings {
                source: Source::Kubernetes { kubeconfig: None },
                root_namespace: "istio-system".into(),
                aliases: Vec::new(),
                keys: KeyFetching::default(),
            },
        };
        let workload = |n: usize| Workload {
            namespace: format!("n{}", n % NAMESPACES),
            labels: BTreeMap::from([("app".to_owned(), format!("a{}", n / NAMESPACES))]),
            role: Role::Sidecar,
        };
        let workloads: Vec<Workload> = (0..WORKLOADS).map(workload).collect();
        let bases = workloads
            .iter()
            .map(|one| Basis::new(store.spaces(), &mesh, one.clone()));
        let bases = bases.collect();
        Self {
            store,
            mesh,
            workloads,
            bases,
        }
    }

    fn version(&self, basis: &Basis) -> String {
        basis.snapshot(&self.mesh).unwrap().version
    }

    fn change(&mut self, told: Told) -> Cost {
        let before: Vec<String> = self.bases.iter().map(|basis| self.version(basis)).collect();
        let began = Instant::now();
        self.store.apply([Event::Applied(told)]);
        let (mut looked, mut sent) = (0, 0);
        for (n, workload) in self.workloads.iter().enumerate() {
            let basis = Basis::new(self.store.spaces(), &self.mesh, workload.clone());
            if !basis.is_that_of(&self.bases[n]) {
                looked += 1;
                sent += usize::from(self.version(&basis) != before[n]);
            }
            self.bases[n] = basis;
        }
        let took = began.elapsed();
        Cost { looked, sent, took }
    }
}

#[test]
fn a_change_is_looked_at_by_those_in_its_namespace_and_sent_to_those_it_concerns() {
    let mut node = Node::new();
    for (what, told, looked, sent) in [
        ("of one workload", policy("n7", "p7", Some(0), "/new/*"), 5, 1),
        ("of one namespace", policy("n7", "all", None, "/new/*"), 5, 5),
        (
            "of the whole mesh",
            policy("istio-system", "mesh", None, "/new/*"),
            250,
            250,
        ),
        ("of nobody here", policy("elsewhere", "p", None, "/new/*"), 0, 0),
        ("the same again", policy("n7", "p7", Some(0), "/new/*"), 0, 0),
    ] {
        let cost = node.change(told);
        assert_eq!((cost.looked, cost.sent), (looked, sent), "{what}");
        eprintln!(
            "{POLICIES} policies, {WORKLOADS} workloads, a change {what}: {} looked closer, {} snapshots, {:?} in all",
            cost.looked, cost.sent, cost.took
        );
    }
}
