//! The three kinds at a real API server: what their schemas refuse, and the agent that follows them with the
//! rights of `deploy/agent-node`.

mod samples;

use std::sync::Arc;

use http::{Request, StatusCode};
use serde_json::{Value, json};
use signet_agent::metrics::Metrics;
use signet_agent::policy::issuers::KeyFetching;
use signet_agent::policy::{self, Mesh, Policies, Settings, Source};
use signet_policy::document::Content;
use signet_policy::read_object;
use signet_runtime::SystemClock;
use signet_runtime::http::Readiness;
use signet_runtime::shutdown::Tasks;
use signet_tests::dir::Dir;
use signet_tests::kube::api_server::{ApiServer, shared};
use signet_tests::kube::install::create;
use signet_tests::kube::manifests::of;
use signet_tests::wait::{SOON, until};
use tokio::sync::OnceCell;

use super::agent_pods::install;
use samples::{SAMPLES, Sample, Verdict};

const SPACE: &str = "policies";
/// Minor version that refuses unknown fields where that is asked for; before, they are dropped in silence.
const STRICT: u32 = 25;

/// The agent's follower of policies.
struct Follower {
    policies: Policies,
    readiness: Readiness,
    tasks: Tasks,
    _dir: Dir,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

impl Follower {
    /// With the deployed rights as `name`, the rules as `change` would have them.
    async fn start(server: &ApiServer, name: &str, change: impl Fn(&mut Vec<Value>)) -> Self {
        let (dir, kubeconfig) = install(server, name, change).await;
        let (tasks, readiness) = (Tasks::new(), Readiness::waiting_for(&[]));
        let mesh = Mesh {
            domain: "cluster.local".parse().unwrap(),
            settings: Settings {
                source: Source::Kubernetes {
                    kubeconfig: Some(kubeconfig),
                },
                root_namespace: "istio-system".into(),
                aliases: Vec::new(),
                keys: KeyFetching::default(),
            },
        };
        let parts = policy::keeper::Parts {
            clock: Arc::new(SystemClock),
            metrics: Metrics::default(),
            readiness: readiness.clone(),
        };
        let policies = policy::start(mesh, parts, &tasks).await.unwrap();
        Self {
            policies,
            readiness,
            tasks,
            _dir: dir,
        }
    }

    fn page(&self) -> Value {
        policy::status::page(&self.policies)
    }

    /// Waits until every kind is in this state, and services are listed, which are always there.
    async fn all(&self, state: &str) {
        until(&format!("all kinds {state}"), 4 * SOON, async || {
            let page = self.page();
            let sources = page["sources"].as_object().unwrap();
            let as_expected = |(name, source): (&String, &Value)| {
                let expected = if name == "Service" { "listed" } else { state };
                source["state"] == expected
            };
            sources.len() == 4 && sources.iter().all(as_expected)
        })
        .await;
    }
}

/// Follows without the kinds, then creates them. All of this once: the server is shared.
async fn with_kinds(server: &ApiServer) {
    static DONE: OnceCell<()> = OnceCell::const_new();
    DONE.get_or_init(|| async {
        let follower = Follower::start(server, "policies-absent", |_| {}).await;
        follower.all("absent").await;
        assert_eq!(follower.page()["synced"], true, "no kinds, no policies");
        let admin = server.admin().await;
        let definitions = of("deploy/crds");
        assert_eq!(definitions.len(), 3);
        for manifest in definitions {
            create(&admin, &manifest.object).await;
        }
        follower.all("listed").await;
        create(
            &admin,
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}),
        )
        .await;
        for kind in [
            "AuthorizationPolicy",
            "PeerAuthentication",
            "RequestAuthentication",
        ] {
            until(&format!("{kind} to be taken"), SOON, async || {
                post(&admin, &object(kind, "v1", &json!({})), true).await.is_ok()
            })
            .await;
        }
    })
    .await;
}

fn object(kind: &str, version: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": format!("security.istio.io/{version}"), "kind": kind,
        "metadata": {"name": "sample", "namespace": SPACE}, "spec": spec,
    })
}

/// Creates an object, or only asks whether it would be taken; the server's words if not.
async fn post(client: &kube::Client, object: &Value, dry: bool) -> Result<(), (u16, String)> {
    let plural = format!("{}s", object["kind"].as_str().unwrap().to_lowercase());
    let plural = plural.replace("policys", "policies");
    let version = object["apiVersion"].as_str().unwrap();
    let query = if dry {
        "?dryRun=All&fieldValidation=Strict"
    } else {
        ""
    };
    let request = Request::post(format!("/apis/{version}/namespaces/{SPACE}/{plural}{query}"))
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())
        .unwrap();
    match client.request::<Value>(request).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => Err((status.code, status.message.clone())),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn the_schemas_refuse_what_the_engine_refuses_as_far_as_they_can_and_nothing_that_it_takes() {
    let Some(server) = shared().await else { return };
    with_kinds(&server).await;
    let (client, minor) = (server.admin().await, server.minor_version().await);
    let mut surprises = Vec::new();
    for sample in SAMPLES {
        let Sample { kind, spec, verdict } = sample;
        let spec: Value = signet_tests::kube::manifests::yaml(spec);
        for version in ["v1", "v1beta1"] {
            let object = object(kind, version, &spec);
            let sound = matches!(read_object("sample", &object).content, Content::Sound(_));
            if sound != matches!(verdict, Verdict::Good | Verdict::GoodEmpty) {
                surprises.push(format!("the engine on {kind} {spec}"));
            }
            if *verdict == Verdict::GoodEmpty && minor < STRICT {
                continue;
            }
            let answer = post(&client, &object, true).await;
            let refused = answer.as_ref().err().map(|(code, _)| *code);
            let expected = match verdict {
                Verdict::Good | Verdict::GoodEmpty | Verdict::OnlyHere => None,
                Verdict::Bad => Some(StatusCode::UNPROCESSABLE_ENTITY.as_u16()),
                Verdict::Unknown if minor >= STRICT => Some(StatusCode::BAD_REQUEST.as_u16()),
                Verdict::Unknown => None,
            };
            if refused != expected {
                surprises.push(format!("the server on {kind} {version} {spec}: {answer:?}"));
            }
        }
    }
    assert_eq!(surprises, Vec::<String>::new());
}

#[tokio::test]
async fn with_the_deployed_rights_the_agent_follows_the_kinds() {
    let Some(server) = shared().await else { return };
    with_kinds(&server).await;
    let client = server.admin().await;
    let follower = Follower::start(&server, "policies-rights", |_| {}).await;
    follower.all("listed").await;
    let spec = json!({"rules": [{"to": [{"operation": {"ports": ["80"], "paths": ["/a/{*}b"]}}]}]});
    let mut bad = object("AuthorizationPolicy", "v1", &spec);
    bad["metadata"]["name"] = json!("followed");
    post(&client, &bad, false).await.unwrap();
    until("the object with its fault", SOON, async || {
        let page = follower.page();
        let mut policies = page["policies"].as_array().unwrap().iter();
        policies.any(|policy| {
            policy["policy"] == "AuthorizationPolicy policies/followed"
                && policy["state"] == "allows_nothing"
                && policy["faults"][0]
                    .as_str()
                    .unwrap()
                    .contains("is not a path template")
        })
    })
    .await;
    assert!(follower.readiness.missing().is_empty());
}

#[tokio::test]
async fn without_any_one_of_the_deployed_rights_the_kind_and_the_verb_are_named() {
    let Some(server) = shared().await else { return };
    with_kinds(&server).await;
    let resources = [
        ("authorizationpolicies", "AuthorizationPolicy"),
        ("peerauthentications", "PeerAuthentication"),
        ("requestauthentications", "RequestAuthentication"),
        ("services", "Service"),
    ];
    for (resource, kind) in resources {
        for (verb, reason) in [("list", "list"), ("watch", "start")] {
            let follower = Follower::start(&server, &format!("without-{verb}-{resource}"), |rules| {
                let rule = rules
                    .iter_mut()
                    .find(|rule| rule["resources"].as_array().unwrap().contains(&json!(resource)));
                let rule = rule.unwrap();
                let named = rule["resources"].as_array_mut().unwrap();
                named.retain(|named| named != resource);
                let mut less = rule.clone();
                less["resources"] = json!([resource]);
                less["verbs"]
                    .as_array_mut()
                    .unwrap()
                    .retain(|granted| granted != verb);
                rules.push(less);
                rules.retain(|rule| rule["resources"] != json!([]));
            })
            .await;
            let cannot = format!("cannot {verb} resource \"{resource}\"");
            until(&cannot, 2 * SOON, async || {
                let failure = &follower.page()["sources"][kind]["failure"];
                failure[0] == reason && failure[1].as_str().unwrap().contains(&cannot)
            })
            .await;
            assert_eq!(
                follower.page()["synced"],
                verb == "watch",
                "a list alone is complete"
            );
        }
    }
}
