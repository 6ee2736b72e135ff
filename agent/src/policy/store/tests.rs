use serde_json::{Value, json};
use signet_policy::read_text_as_json;
use signet_policy::scope::{Role, Workload};
use signet_proto::policy::parse;

use super::*;
use crate::policy::issuers::KeyFetching;
use crate::policy::object::told;
use crate::policy::snapshot::Basis;
use crate::policy::{Mesh, Settings, Source};

fn policy(namespace: &str, name: &str, spec: &Value) -> Told {
    with_uid("u", namespace, name, spec)
}

fn with_uid(uid: &str, namespace: &str, name: &str, spec: &Value) -> Told {
    let object = json!({
        "metadata": {"name": name, "namespace": namespace, "uid": uid}, "spec": spec,
    });
    told(
        Kind::AuthorizationPolicy,
        "v1",
        serde_json::from_value(object).unwrap(),
    )
    .unwrap()
}

fn deny() -> Value {
    json!({"action": "DENY", "rules": [{}]})
}

fn bad() -> Value {
    json!({"action": "DENY", "rules": [{"form": []}]})
}

fn applied(store: &mut Store, told: Told) -> Change {
    store.apply([Event::Applied(told)])
}

fn states(store: &Store) -> Vec<String> {
    let items = store.spaces().items();
    items
        .map(|(name, item)| format!("{name} {}", item.state()))
        .collect()
}

fn mesh() -> Mesh {
    Mesh {
        domain: "td".parse().unwrap(),
        settings: Settings {
            source: Source::Kubernetes { kubeconfig: None },
            root_namespace: "root".into(),
            aliases: Vec::new(),
            keys: KeyFetching::default(),
        },
    }
}

fn place(namespace: &str, app: &str) -> Workload {
    Workload {
        namespace: namespace.into(),
        labels: BTreeMap::from([("app".into(), app.into())]),
        role: Role::Sidecar,
    }
}

fn basis(store: &Store, namespace: &str, app: &str) -> Basis {
    Basis::new(store.spaces(), &mesh(), place(namespace, app))
}

/// Names in the snapshot of a workload.
fn seen(store: &Store, namespace: &str, app: &str) -> Vec<String> {
    let snapshot = basis(store, namespace, app).snapshot(&mesh()).unwrap();
    let objects = parse(snapshot).unwrap().objects;
    let name = |content: &Content| match content {
        Content::Sound(object) => object.key().to_string(),
        Content::Faulty(faulty) => faulty.key.as_ref().map_or("?".into(), ToString::to_string),
        Content::Foreign(_) => "foreign".into(),
    };
    objects
        .iter()
        .map(|object| name(&object.reading.content))
        .collect()
}

#[test]
fn a_bad_edit_keeps_the_last_good_version_and_tells_what_is_wrong() {
    let mut store = Store::default();
    applied(&mut store, policy("shop", "p", &deny()));
    let before = basis(&store, "shop", "cart").snapshot(&mesh()).unwrap();
    assert!(applied(&mut store, policy("shop", "p", &bad())).view);
    assert_eq!(states(&store), ["AuthorizationPolicy shop/p last_good"]);
    let after = basis(&store, "shop", "cart").snapshot(&mesh()).unwrap();
    assert_eq!(after.objects[0].json, before.objects[0].json);
    assert_eq!(after.objects[0].faults[0].path, "spec.rules[0].form");
    applied(&mut store, policy("shop", "p", &deny()));
    assert_eq!(basis(&store, "shop", "cart").snapshot(&mesh()).unwrap(), before);
}

#[test]
fn an_object_created_bad_counts_as_the_strictest_and_so_does_a_bad_namesake_of_a_good_one() {
    let mut store = Store::default();
    applied(&mut store, policy("shop", "p", &bad()));
    assert_eq!(states(&store), ["AuthorizationPolicy shop/p denies_all"]);
    applied(&mut store, policy("shop", "p", &deny()));
    applied(&mut store, with_uid("later", "shop", "p", &bad()));
    assert_eq!(states(&store), ["AuthorizationPolicy shop/p denies_all"]);
}

#[test]
fn an_object_that_is_gone_is_gone_good_or_bad() {
    for spec in [deny(), bad()] {
        let mut store = Store::default();
        applied(&mut store, policy("shop", "p", &spec));
        let gone = gone("shop", "p");
        assert!(store.apply([gone.clone()]).view && states(&store).is_empty());
        assert!(!store.apply([gone]).view);
        assert_eq!((store.room.used(), store.known.len()), (Used::default(), 0));
    }
}

#[test]
fn a_list_replaces_its_kind_and_no_other_and_keeps_last_good_versions() {
    let mut store = Store::default();
    let peer = json!({"metadata": {"name": "m", "namespace": "shop"}, "spec": {}});
    let peer = told(
        Kind::PeerAuthentication,
        "v1",
        serde_json::from_value(peer).unwrap(),
    )
    .unwrap();
    applied(&mut store, peer);
    applied(&mut store, policy("shop", "gone", &deny()));
    applied(&mut store, policy("shop", "edited", &deny()));
    let list = vec![policy("shop", "edited", &bad()), policy("bank", "new", &deny())];
    store.apply([Event::Listed(Kind::AuthorizationPolicy, list)]);
    assert_eq!(
        states(&store),
        [
            "AuthorizationPolicy bank/new sound",
            "AuthorizationPolicy shop/edited last_good",
            "PeerAuthentication shop/m sound"
        ]
    );
}

#[test]
fn a_workload_is_shown_what_concerns_it_and_nothing_else() {
    let mut store = Store::default();
    let cart = json!({"selector": {"matchLabels": {"app": "cart"}}});
    for (namespace, name, spec) in [
        ("shop", "all", json!({})),
        ("shop", "cart", cart.clone()),
        ("bank", "all", json!({})),
        ("root", "mesh", json!({})),
        ("root", "carts", cart),
        (
            "shop",
            "gateway",
            json!({"targetRefs": [{"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "g"}]}),
        ),
    ] {
        applied(&mut store, policy(namespace, name, &spec));
    }
    let named = |names: &[&str]| -> Vec<String> {
        names
            .iter()
            .map(|name| format!("AuthorizationPolicy {name}"))
            .collect()
    };
    assert_eq!(
        seen(&store, "shop", "cart"),
        named(&["root/carts", "root/mesh", "shop/all", "shop/cart"])
    );
    assert_eq!(seen(&store, "shop", "web"), named(&["root/mesh", "shop/all"]));
    assert_eq!(seen(&store, "bank", "web"), named(&["root/mesh", "bank/all"]));
    assert_eq!(seen(&store, "root", "web"), named(&["root/mesh"]));
}

#[test]
fn a_mesh_wide_deny_arrives_while_another_namespace_holds_a_bad_object() {
    let mut store = Store::default();
    applied(&mut store, policy("bank", "bad", &bad()));
    applied(&mut store, policy("root", "deny", &deny()));
    assert_eq!(seen(&store, "shop", "cart"), ["AuthorizationPolicy root/deny"]);
}

#[test]
fn only_changes_that_concern_a_workload_make_its_snapshot_anew() {
    let mut store = Store::default();
    applied(&mut store, policy("shop", "p", &deny()));
    let before = basis(&store, "shop", "cart");
    applied(&mut store, policy("bank", "q", &deny()));
    assert!(
        basis(&store, "shop", "cart").is_that_of(&before),
        "another namespace"
    );
    assert!(
        !applied(&mut store, policy("shop", "p", &deny())).view,
        "the same again"
    );
    assert!(
        !basis(&store, "shop", "web").is_that_of(&before),
        "another workload"
    );
    let other = json!({"selector": {"matchLabels": {"app": "web"}}});
    applied(&mut store, policy("shop", "r", &other));
    let after = basis(&store, "shop", "cart");
    assert!(!after.is_that_of(&before));
    let version = |basis: &Basis| basis.snapshot(&mesh()).unwrap().version;
    assert_eq!(version(&after), version(&before), "looked at, and found the same");
    applied(&mut store, policy("root", "s", &json!({})));
    assert_ne!(version(&basis(&store, "shop", "cart")), version(&before));
}

/// Of 16 objects and 40,000 bytes a namespace has a quarter, and all but the root namespace three.
fn small() -> Store {
    let bounds = Bounds {
        of_one: 3,
        objects: 16,
        bytes: 40_000,
    };
    Store::bounded(bounds, "root".to_owned())
}

fn sound(namespace: &str, count: usize) -> Vec<Told> {
    let one = |n| policy(namespace, &format!("p{n}"), &deny());
    (0..count).map(one).collect()
}

/// A policy of a bit more than so many bytes.
fn large(namespace: &str, name: &str, bytes: usize) -> Told {
    let paths = json!({"rules": [{"to": [{"operation": {"paths": ["/x".repeat(bytes / 2)]}}]}]});
    policy(namespace, name, &paths)
}

fn gone(namespace: &str, name: &str) -> Event {
    Event::Deleted(key(Kind::AuthorizationPolicy, namespace, name))
}

fn of_policies(change: &Change) -> bool {
    change.list_again.contains(&Kind::AuthorizationPolicy)
}

fn left_out(store: &Store) -> Vec<String> {
    let stars = |state: &String| state.contains('*');
    states(store).into_iter().filter(stars).collect()
}

#[test]
fn what_there_is_no_room_for_denies_in_its_own_namespace_until_a_list_shows_room() {
    let mut store = small();
    for told in sound("shop", 4) {
        applied(&mut store, told);
    }
    assert_eq!(seen(&store, "bank", "a"), Vec::<String>::new());
    assert_eq!(left_out(&store), ["AuthorizationPolicy shop/* denies_all"]);
    let told = store
        .spaces()
        .items()
        .map(|(_, item)| item.faults())
        .collect::<Vec<_>>();
    let hint = "of one kind it keeps 3 policies in a namespace; remove some of this namespace";
    assert!(
        told.iter().flatten().any(|fault| fault.contains(hint)),
        "{told:?}"
    );
    assert_eq!(applied(&mut store, sound("bank", 1).remove(0)).no_room, 0);
    store.apply([Event::Listed(Kind::AuthorizationPolicy, sound("shop", 3))]);
    assert_eq!(left_out(&store), Vec::<String>::new());
    assert_eq!(applied(&mut store, large("shop", "p0", 10_000)).no_room, 1);
    assert!(states(&store).contains(&"AuthorizationPolicy shop/p0 last_good".to_owned()));
}

#[test]
fn where_a_deletion_frees_a_place_a_list_is_asked_for_once_and_lifts_the_denial() {
    let mut store = small();
    let change = store.apply(sound("shop", 4).into_iter().map(Event::Applied));
    assert!(!of_policies(&change), "there is no room yet");
    assert!(!of_policies(&applied(&mut store, sound("bank", 1).remove(0))));
    assert!(
        !of_policies(&store.apply([gone("bank", "p0")])),
        "nor by another's"
    );
    assert!(of_policies(&store.apply([gone("shop", "p0")])));
    assert!(!of_policies(&store.apply([])), "once");
    let rest = sound("shop", 4).split_off(1);
    let change = store.apply([Event::Listed(Kind::AuthorizationPolicy, rest)]);
    assert!(!of_policies(&change));
    assert_eq!(left_out(&store), Vec::<String>::new());
    assert_eq!(seen(&store, "shop", "a").len(), 3);
}

#[test]
fn where_the_object_that_was_left_out_is_gone_itself_a_list_is_asked_for() {
    let mut store = small();
    store.apply(sound("shop", 4).into_iter().map(Event::Applied));
    assert!(of_policies(&store.apply([gone("shop", "p3")])));
    store.apply([Event::Listed(Kind::AuthorizationPolicy, sound("shop", 3))]);
    assert_eq!(left_out(&store), Vec::<String>::new());
    assert!(!of_policies(&store.apply([gone("shop", "never-there")])));
}

#[test]
fn a_version_that_had_no_room_is_asked_for_again_when_others_are_shortened_or_gone() {
    for event in [Event::Applied(policy("shop", "a", &deny())), gone("shop", "a")] {
        let mut store = small();
        applied(&mut store, large("shop", "a", 8_000));
        assert_eq!(applied(&mut store, large("shop", "b", 8_000)).no_room, 1);
        assert!(states(&store).contains(&"AuthorizationPolicy shop/b denies_all".to_owned()));
        assert!(!of_policies(&applied(&mut store, policy("bank", "c", &deny()))));
        assert!(of_policies(&store.apply([event])));
        let change = applied(&mut store, large("shop", "b", 8_000));
        assert_eq!((change.no_room, of_policies(&change)), (0, false));
        assert!(states(&store).contains(&"AuthorizationPolicy shop/b sound".to_owned()));
    }
}

#[test]
fn a_list_frees_room_for_other_kinds_and_asks_for_no_list_of_its_own() {
    let mut store = small();
    let peer = |name: &str| {
        let object = json!({"metadata": {"name": name, "namespace": "shop", "uid": name}, "spec": {}});
        let object = serde_json::from_value(object).unwrap();
        Event::Applied(told(Kind::PeerAuthentication, "v1", object).unwrap())
    };
    store.apply(sound("shop", 3).into_iter().map(Event::Applied));
    assert_eq!(
        store.apply([peer("a"), peer("b")]).no_room,
        1,
        "four in a namespace"
    );
    let change = store.apply([Event::Listed(Kind::AuthorizationPolicy, sound("shop", 1))]);
    assert_eq!(change.list_again, BTreeSet::from([Kind::PeerAuthentication]));
}

#[test]
fn one_namespace_takes_its_share_and_all_of_them_leave_the_root_namespace_its_own() {
    let mut store = small();
    let fill = |store: &mut Store, namespace: &str| -> usize {
        let all = (0..4).map(|n| large(namespace, &format!("p{n}"), 3_000));
        all.map(|told| 1 - applied(store, told).no_room).sum()
    };
    assert_eq!(
        fill(&mut store, "hostile"),
        3,
        "the fourth would be more than its share"
    );
    assert_eq!(fill(&mut store, "shop"), 3);
    let before = states(&store);
    assert!(
        before.contains(&"AuthorizationPolicy shop/p0 sound".to_owned()),
        "{before:?}"
    );
    assert_eq!(fill(&mut store, "other"), 3);
    assert_eq!(fill(&mut store, "late"), 0, "they took what is theirs");
    assert_eq!(fill(&mut store, "root"), 3, "which is not the root namespace's");
    assert_eq!(
        seen(&store, "calm", "a").len(),
        4,
        "its three and what stands for the fourth"
    );
    let mesh_wide = states(&store);
    assert!(
        mesh_wide.contains(&"AuthorizationPolicy root/p2 sound".to_owned()),
        "{mesh_wide:?}"
    );
}

fn files(store: &mut Store, text: &str) -> Change {
    let documents = read_text_as_json("a.yaml", text);
    let bytes = |json: Value| Bytes::from(json.to_string());
    let documents = documents
        .into_iter()
        .map(|(reading, json)| (reading, json.map(bytes)));
    store.apply([Event::Files(documents.collect())])
}

fn document(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {spec}\n"
    )
}

#[test]
fn a_directory_keeps_last_good_versions_and_what_its_broken_files_said() {
    let mut store = Store::default();
    let (good, edited) = (document("p", "{}"), document("q", "{action: DENY, rules: [{}]}"));
    files(&mut store, &(good.clone() + &edited));
    let before = basis(&store, "shop", "a").snapshot(&mesh()).unwrap();
    assert!(!files(&mut store, &(good.clone() + &edited)).view);
    files(&mut store, &(good.clone() + &document("q", "{acton: DENY}")));
    assert_eq!(
        states(&store),
        [
            "AuthorizationPolicy shop/p sound",
            "AuthorizationPolicy shop/q last_good"
        ]
    );
    files(&mut store, &(good.clone() + "---\n{\n"));
    let broken = basis(&store, "shop", "a").snapshot(&mesh()).unwrap();
    let jsons = |snapshot: &signet_proto::wire::signet::policy::v1::PolicySnapshot| {
        snapshot
            .objects
            .iter()
            .map(|object| object.json.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(jsons(&broken), jsons(&before));
    files(&mut store, &good);
    assert_eq!(states(&store), ["AuthorizationPolicy shop/p sound"]);
    files(&mut store, "{");
    let mut fresh = Store::default();
    files(&mut fresh, "{");
    assert_eq!(states(&fresh), ["the document at a.yaml:1 denies_all"]);
    assert_eq!(seen(&fresh, "anywhere", "a"), ["?"]);
}

#[test]
fn two_versions_of_one_object_in_a_directory_are_none() {
    let mut store = Store::default();
    files(
        &mut store,
        &(document("p", "{}") + &document("p", "{rules: [{}]}")),
    );
    assert_eq!(states(&store), ["AuthorizationPolicy shop/p denies_all"]);
    files(&mut store, &document("p", "{}"));
    files(
        &mut store,
        &(document("p", "{}") + &document("p", "{rules: [{}]}")),
    );
    assert_eq!(states(&store), ["AuthorizationPolicy shop/p last_good"]);
}
