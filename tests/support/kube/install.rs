//! signet as `deploy/ca` installs it, under names of a test's own, so that tests share one API server.
//! The CA runs here and not in a pod, yet with the token and so with the rights of the deployed account.

use std::path::PathBuf;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use serde_json::{Value, json};

use super::api_server::ApiServer;
use super::manifests;
use crate::ca::CaSetup;
use crate::dir::Dir;
use crate::wait::{SOON, until};

/// What is needed to run; the rest of `deploy/ca` belongs to pods.
const NEEDED: [&str; 6] = [
    "Namespace",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
];

/// The deployed accounts and roles under one test's names.
#[derive(Debug)]
pub struct Installed {
    /// Namespace, trust domain and prefix of everything.
    pub name: String,
    /// The kubeconfig of the CA's account.
    pub kubeconfig: PathBuf,
    config: Value,
    _dir: Dir,
}

/// One thing a role allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// `Role` or `ClusterRole`.
    pub role: String,
    /// API group; empty for the core.
    pub group: String,
    /// Resource.
    pub resource: String,
    /// Verb.
    pub verb: String,
    /// The one object it is for, if it is for one.
    pub object: Option<String>,
}

impl Right {
    /// As an operator would say it.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{} {}", self.verb, self.resource)
    }
}

/// Every single right in the roles of `deploy/ca`, as written there.
///
/// # Panics
/// When a rule is not of the form used there.
#[must_use]
pub fn rights() -> Vec<Right> {
    let roles = manifests::of("deploy/ca")
        .into_iter()
        .filter(|m| m.kind().ends_with("Role"));
    roles.flat_map(|role| rights_of(&role.object)).collect()
}

fn rights_of(role: &Value) -> Vec<Right> {
    let list = |value: &Value| -> Vec<String> {
        let items = value.as_array().cloned().unwrap_or_default();
        items
            .iter()
            .map(|item| item.as_str().expect("text").to_owned())
            .collect()
    };
    let kind = role["kind"].as_str().expect("kind");
    let mut rights = Vec::new();
    for rule in role["rules"].as_array().expect("rules") {
        let object = list(&rule["resourceNames"]).first().cloned();
        for (group, resource) in list(&rule["apiGroups"]).into_iter().zip(list(&rule["resources"])) {
            for verb in list(&rule["verbs"]) {
                let (group, resource, object) = (group.clone(), resource.clone(), object.clone());
                rights.push(Right {
                    role: kind.into(),
                    group,
                    resource,
                    verb,
                    object,
                });
            }
        }
    }
    rights
}

/// Installs under `name`, without `missing`, and waits until the rights are in force.
///
/// # Panics
/// When the server refuses.
pub async fn install(server: &ApiServer, name: &str, missing: Option<&Right>) -> Installed {
    let admin = server.admin().await;
    let mut granted = Vec::new();
    for manifest in manifests::of("deploy/ca")
        .iter()
        .filter(|m| NEEDED.contains(&m.kind()))
    {
        let mut object = manifests::yaml(&renamed(&manifest.text, name));
        if manifest.kind().starts_with("ClusterRole") {
            object["metadata"]["name"] = json!(name);
            if manifest.kind() == "ClusterRoleBinding" {
                object["roleRef"]["name"] = json!(name);
            }
        }
        if let Some(missing) = missing.filter(|right| right.role == manifest.kind()) {
            take_out(&mut object, missing);
        }
        if manifest.kind().ends_with("Role") {
            granted.extend(rights_of(&object));
        }
        create(&admin, &object).await;
    }
    for right in &granted {
        in_force(&admin, name, right).await;
    }
    let token = token(&admin, name, "signet-ca", &[], None).await;
    let dir = Dir::new();
    let kubeconfig = dir.write_secret("kubeconfig", server.kubeconfig(&token));
    Installed {
        name: name.into(),
        kubeconfig,
        config: deployed_config(name),
        _dir: dir,
    }
}

impl Installed {
    /// A CA of the deployed configuration and rights.
    #[must_use]
    pub fn ca(&self) -> CaSetup {
        let mut setup = CaSetup::with_kubeconfig(&self.kubeconfig).set("state_directory", Value::Null);
        for (key, value) in self.config.as_object().expect("a map") {
            setup.change(key, value.clone());
        }
        // A trust domain per test: a CA refuses to start beside the roots of its own domain.
        setup
            .set("trust_domain", self.trust_domain())
            .set("roots_configmap", self.roots())
            .set("log_format", "text")
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> String {
        format!("{}.test", self.name)
    }

    /// Name of the ConfigMap with the roots.
    #[must_use]
    pub fn roots(&self) -> String {
        format!("{}-roots", self.name)
    }
}

fn renamed(text: &str, name: &str) -> String {
    text.replace("signet-system", name)
        .replace("signet-ca-root-cert", &format!("{name}-roots"))
}

fn deployed_config(name: &str) -> Value {
    let manifests = manifests::of("deploy/ca");
    let map = manifests
        .iter()
        .find(|m| m.kind() == "ConfigMap")
        .expect("a ConfigMap");
    manifests::yaml(&renamed(
        map.object["data"]["ca.yaml"].as_str().expect("ca.yaml"),
        name,
    ))
}

/// Takes one verb out of the one rule that has it; a rule without verbs goes as well.
fn take_out(role: &mut Value, missing: &Right) {
    let rules = role["rules"].as_array_mut().expect("rules");
    let mut found = 0;
    for rule in rules
        .iter_mut()
        .filter(|rule| rule["resources"] == json!([missing.resource]))
    {
        let verbs = rule["verbs"].as_array_mut().expect("verbs");
        let before = verbs.len();
        verbs.retain(|verb| *verb != json!(missing.verb));
        found += before - verbs.len();
    }
    assert_eq!(found, 1, "{missing:?} is granted exactly once");
    rules.retain(|rule| rule["verbs"] != json!([]));
}

/// Creates any object, as `kubectl create` would.
///
/// # Panics
/// When the server refuses.
pub async fn create(client: &kube::Client, object: &Value) {
    let typed: DynamicObject = serde_json::from_value(object.clone()).expect("an object");
    let kind = kind_of(object);
    let api: Api<DynamicObject> = match &typed.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
        None => Api::all_with(client.clone(), &kind),
    };
    let created = api.create(&PostParams::default(), &typed).await;
    created.unwrap_or_else(|e| panic!("create {object}: {e}"));
}

/// The API resource of an object.
///
/// # Panics
/// When it names none.
#[must_use]
pub fn kind_of(object: &Value) -> ApiResource {
    let (version, kind) = (object["apiVersion"].as_str(), object["kind"].as_str());
    let (version, kind) = (version.expect("apiVersion"), kind.expect("kind"));
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// Roles reach the authorizer a moment after they are written.
async fn in_force(admin: &kube::Client, namespace: &str, right: &Right) {
    let groups = ["system:serviceaccounts", "system:authenticated"].map(str::to_owned);
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{namespace}:signet-ca")),
            groups: Some(groups.to_vec()),
            resource_attributes: Some(ResourceAttributes {
                group: Some(right.group.clone()),
                resource: Some(right.resource.clone()),
                verb: Some(right.verb.clone()),
                namespace: (right.role == "Role").then(|| namespace.to_owned()),
                name: right.object.clone(),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(admin.clone());
    until(&right.short(), SOON, async || {
        let answer = api
            .create(&PostParams::default(), &review)
            .await
            .expect("access review");
        answer.status.is_some_and(|status| status.allowed)
    })
    .await;
}

/// A token of an account; without audiences for the API server itself; bound to a pod if one is named.
///
/// # Panics
/// When the server refuses.
pub async fn token(
    admin: &kube::Client,
    namespace: &str,
    account: &str,
    audiences: &[&str],
    pod: Option<&str>,
) -> String {
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
            expiration_seconds: Some(3600),
            bound_object_ref: pod.map(|pod| BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(pod.into()),
                uid: None,
            }),
        },
        ..TokenRequest::default()
    };
    let api: Api<ServiceAccount> = Api::namespaced(admin.clone(), namespace);
    let answer = api
        .create_token_request(account, &PostParams::default(), &request)
        .await;
    answer
        .expect("token")
        .status
        .expect("a token request's status")
        .token
}

/// A namespace with an account and a pod `{account}-0` of it, as nothing would run there otherwise.
///
/// # Panics
/// When the server refuses.
pub async fn workload(admin: &kube::Client, namespace: &str, account: &str) {
    let namespaces: Api<Namespace> = Api::all(admin.clone());
    if namespaces.get_opt(namespace).await.expect("namespaces").is_none() {
        create(
            admin,
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        )
        .await;
    }
    let named = json!({"name": account, "namespace": namespace});
    create(
        admin,
        &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named}),
    )
    .await;
    pod(admin, namespace, account).await;
}

/// The pod of [`workload`].
///
/// # Panics
/// When the server refuses.
pub async fn pod(admin: &kube::Client, namespace: &str, account: &str) {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": format!("{account}-0")},
        "spec": {"serviceAccountName": account, "containers": [{"name": "app", "image": "app"}]},
    }))
    .expect("a pod");
    let pods: Api<Pod> = Api::namespaced(admin.clone(), namespace);
    pods.create(&PostParams::default(), &pod).await.expect("pod");
}
