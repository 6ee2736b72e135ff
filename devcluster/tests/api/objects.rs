//! Objects through the `kube` client.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, ServiceAccount};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use signet_devcluster::{ObjectRef, PodSpec};

use crate::support::{admin, cluster, configmaps, refusal, send, within};

pub(crate) fn configmap(name: &str, value: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.data = Some(BTreeMap::from([("key".to_owned(), value.to_owned())]));
    map
}

#[tokio::test]
async fn objects_are_created_read_listed_and_deleted() {
    let cluster = cluster();
    let maps = configmaps(&cluster).await;
    let created = within(maps.create(&PostParams::default(), &configmap("a", "1")))
        .await
        .unwrap();
    assert!(created.uid().is_some() && created.resource_version().is_some());
    assert!(created.creation_timestamp().is_some());
    assert_eq!(within(maps.get("a")).await.unwrap(), created);
    let again = within(maps.create(&PostParams::default(), &configmap("a", "2"))).await;
    assert_eq!(refusal(again).reason, "AlreadyExists");
    let listed = within(maps.list(&ListParams::default())).await.unwrap();
    assert_eq!(listed.items, [created]);
    within(maps.delete("a", &DeleteParams::default()))
        .await
        .unwrap()
        .right()
        .unwrap();
    let status = refusal(within(maps.get("a")).await);
    assert_eq!(
        (status.code, status.message.as_str()),
        (404, "configmaps \"a\" not found")
    );
    let details = status.details.unwrap();
    assert_eq!(
        (details.name.as_str(), details.kind.as_str()),
        ("a", "configmaps")
    );
}

#[tokio::test]
async fn generated_names_differ() {
    let cluster = cluster();
    let maps = configmaps(&cluster).await;
    let mut map = configmap("x", "1");
    map.metadata.name = None;
    assert_eq!(
        refusal(within(maps.create(&PostParams::default(), &map)).await).code,
        422
    );
    map.metadata.generate_name = Some("made-".to_owned());
    let first = within(maps.create(&PostParams::default(), &map))
        .await
        .unwrap()
        .name_any();
    let second = within(maps.create(&PostParams::default(), &map))
        .await
        .unwrap()
        .name_any();
    assert!(
        first.starts_with("made-") && first.len() == 10 && first != second,
        "{first} {second}"
    );
}

#[tokio::test]
async fn selectors_choose() {
    let cluster = cluster();
    for (name, node, phase, app) in [
        ("a", "n1", "Running", "web"),
        ("b", "n1", "Failed", "web"),
        ("c", "n2", "Running", "db"),
    ] {
        let pod = PodSpec::new("billing", name)
            .node(node)
            .phase(phase)
            .label("app", app);
        cluster.create_pod(pod).unwrap();
    }
    cluster.create_pod(PodSpec::new("shop", "a")).unwrap();
    let client = admin(&cluster).await;
    let names = async |params: &ListParams| {
        let pods: Api<Pod> = Api::all(client.clone());
        let listed = within(pods.list(params)).await.unwrap();
        listed
            .iter()
            .map(|p| format!("{}/{}", p.namespace().unwrap(), p.name_any()))
            .collect::<Vec<_>>()
    };
    let params = ListParams::default();
    assert_eq!(
        names(&params).await,
        ["billing/a", "billing/b", "billing/c", "shop/a"]
    );
    let running_on_n1 = params.clone().fields("spec.nodeName=n1,status.phase!=Failed");
    assert_eq!(names(&running_on_n1).await, ["billing/a"]);
    assert_eq!(
        names(&params.clone().labels("app in (web, x),app!=db")).await,
        ["billing/a", "billing/b"]
    );
    assert_eq!(names(&params.clone().labels("!app")).await, ["shop/a"]);
    assert_eq!(
        names(&params.clone().fields("metadata.namespace=shop,metadata.name=a")).await,
        ["shop/a"]
    );
    let pods: Api<Pod> = Api::all(client.clone());
    let unknown = within(pods.list(&params.fields("spec.hostname=x"))).await;
    assert_eq!(refusal(unknown).code, 400);
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let cluster = cluster();
    let maps = configmaps(&cluster).await;
    for name in ["a", "b"] {
        let mut map = configmap(name, "1");
        map.metadata.labels = Some(BTreeMap::from([("name".to_owned(), name.to_owned())]));
        within(maps.create(&PostParams::default(), &map)).await.unwrap();
    }
    let chosen = ListParams::default().labels("name=a");
    within(maps.delete_collection(&DeleteParams::default(), &chosen))
        .await
        .unwrap();
    let left = within(maps.list(&ListParams::default())).await.unwrap();
    assert_eq!(left.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn namespaces_bring_an_account_and_take_everything_along() {
    let cluster = cluster();
    let client = admin(&cluster).await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some("new".to_owned());
    let made = within(namespaces.create(&PostParams::default(), &namespace))
        .await
        .unwrap();
    assert_eq!(made.labels()["kubernetes.io/metadata.name"], "new");
    assert_eq!(made.status.unwrap().phase.as_deref(), Some("Active"));
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "new");
    within(accounts.get("default")).await.unwrap();
    within(namespaces.delete("new", &DeleteParams::default()))
        .await
        .unwrap();
    assert_eq!(refusal(within(accounts.get("default")).await).code, 404);
    let maps: Api<ConfigMap> = Api::namespaced(client, "new");
    let status = refusal(within(maps.create(&PostParams::default(), &configmap("a", "1"))).await);
    assert_eq!(status.message, "namespaces \"new\" not found");
}

#[tokio::test]
async fn pods_need_their_account_and_secrets_keep_their_type() {
    let cluster = cluster();
    let refused = cluster
        .create_pod(PodSpec::new("billing", "a").service_account("none"))
        .unwrap_err();
    assert_eq!((refused.code(), refused.reason()), (403, "Forbidden"));
    let secrets: Api<Secret> = Api::namespaced(admin(&cluster).await, "billing");
    let mut secret = Secret::default();
    secret.metadata.name = Some("s".to_owned());
    secret.string_data = Some(BTreeMap::from([("k".to_owned(), "v".to_owned())]));
    let mut made = within(secrets.create(&PostParams::default(), &secret))
        .await
        .unwrap();
    assert_eq!(made.type_.as_deref(), Some("Opaque"));
    assert_eq!(made.data.as_ref().unwrap()["k"].0, b"v");
    made.type_ = Some("kubernetes.io/tls".to_owned());
    assert_eq!(
        refusal(within(secrets.replace("s", &PostParams::default(), &made)).await).code,
        422
    );
    made.type_ = Some("Opaque".to_owned());
    made.immutable = Some(true);
    let mut frozen = within(secrets.replace("s", &PostParams::default(), &made))
        .await
        .unwrap();
    frozen.data = None;
    assert_eq!(
        refusal(within(secrets.replace("s", &PostParams::default(), &frozen)).await).code,
        422
    );
}

#[tokio::test]
async fn policies_show_in_each_version_and_count_their_generations() {
    let cluster = cluster();
    let client = admin(&cluster).await;
    let policies = |version: &str| {
        let kind = GroupVersionKind::gvk("security.istio.io", version, "AuthorizationPolicy");
        let resource = ApiResource::from_gvk(&kind);
        (
            Api::<DynamicObject>::namespaced_with(client.clone(), "billing", &resource),
            resource,
        )
    };
    let (newer, resource) = policies("v1");
    let (older, _) = policies("v1beta1");
    let policy = DynamicObject::new("deny", &resource).data(json!({"spec": {"action": "DENY"}}));
    let made = within(newer.create(&PostParams::default(), &policy))
        .await
        .unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    let seen = within(older.get("deny")).await.unwrap();
    assert_eq!(seen.types.unwrap().api_version, "security.istio.io/v1beta1");
    let change = json!({"spec": {"action": "ALLOW"}});
    let changed = within(older.patch("deny", &PatchParams::default(), &Patch::Merge(&change)))
        .await
        .unwrap();
    assert_eq!(changed.metadata.generation, Some(2));
    assert_eq!(
        within(newer.get("deny")).await.unwrap().data["spec"]["action"],
        "ALLOW"
    );
}

#[tokio::test]
async fn discovery_lists_what_is_served() {
    let cluster = cluster();
    let client = admin(&cluster).await;
    let found = within(kube::discovery::Discovery::new(client.clone()).run())
        .await
        .unwrap();
    assert!(found.has_group("security.istio.io") && found.has_group("coordination.k8s.io"));
    assert_eq!(within(client.apiserver_version()).await.unwrap().minor, "33");
    for path in [
        "/apis/apps/v1",
        "/apis/apps/v1/deployments",
        "/openapi/v3",
        "/api/v1/pods/a/b/c",
    ] {
        let (status, answer) = send(&client, "GET", path, "").await;
        assert_eq!(
            (status.as_u16(), &answer["kind"]),
            (404, &json!("Status")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn raw_objects_go_in_and_out_in_process() {
    let cluster = cluster();
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "billing"},
        "data": {"k": "1"},
    });
    let first = cluster.put(object.clone()).unwrap();
    let mut second = object;
    second["data"]["k"] = Value::from("2");
    assert_eq!(
        cluster.put(second.clone()).unwrap()["metadata"]["uid"],
        first["metadata"]["uid"]
    );
    second["metadata"]["resourceVersion"] = first["metadata"]["resourceVersion"].clone();
    second["data"]["k"] = Value::from("3");
    assert_eq!(cluster.put(second).unwrap_err().reason(), "Conflict");
    let place = ObjectRef::core("configmaps", "billing", "a");
    cluster.delete(&place).unwrap();
    assert_eq!(cluster.get(&place), None);
    assert_eq!(cluster.delete(&place).unwrap_err().reason(), "NotFound");
}
