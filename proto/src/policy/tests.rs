use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;
use signet_policy::{PolicySet, read_text};

use super::*;

fn message() -> wire::PolicySnapshot {
    wire::PolicySnapshot {
        version: "v".into(),
        namespace: "shop".into(),
        labels: BTreeMap::from([("app".into(), "cart".into())]),
        mesh: Some(wire::Mesh {
            root_namespace: "root".into(),
            trust_domain: "td".into(),
            trust_domain_aliases: vec!["old".into()],
        }),
        objects: Vec::new(),
        faulty: Vec::new(),
        keys: Vec::new(),
        ports: Vec::new(),
    }
}

fn faulty_of(text: &str) -> Arc<Faulty> {
    match read_text("f", text, None).remove(0).content {
        Content::Faulty(faulty) => faulty,
        other => panic!("{other:?}"),
    }
}

const HEAD: &str = "apiVersion: security.istio.io/v1\nmetadata: {name: p, namespace: shop}\n";

#[test]
fn a_sound_object_reads_the_same_at_the_other_end() {
    let object = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"rules": [{"to": [{"operation": {"ports": ["80"]}}]}]},
    });
    let reading = read_object("api", &object);
    let Content::Sound(sent) = reading.content else {
        panic!()
    };
    let bytes = Bytes::from(object.to_string());
    let snapshot = wire::PolicySnapshot {
        objects: vec![sound_object(&sent.key(), "u1", "api", bytes, &[])],
        ..message()
    };
    let read = parse(snapshot).unwrap();
    assert_eq!(read.objects[0].uid, "u1");
    let Content::Sound(received) = &read.objects[0].reading.content else {
        panic!()
    };
    assert_eq!(*received, sent);
    assert_eq!(read.aliases, ["old".parse().unwrap()]);
}

#[test]
fn a_faulty_object_counts_the_same_at_the_other_end_and_keeps_its_words() {
    for text in [
        format!(
            "{HEAD}kind: AuthorizationPolicy\nspec: {{action: DENY, rules: [{{form: 1}}], selector: {{matchLabels: {{a: b}}}}}}"
        ),
        format!("{HEAD}kind: AuthorizationPolicy\nspec: {{acton: DENY}}"),
        format!("{HEAD}kind: PeerAuthentication\nspec: {{mtls: {{mode: strict}}}}"),
        format!(
            "{HEAD}kind: RequestAuthentication\nspec: {{jwtRules: [{{}}], targetRefs: [{{kind: Service, name: a}}]}}"
        ),
        format!(
            "{HEAD}kind: RequestAuthentication\nspec: {{jwtRules: [{{isuer: i, fromHeaders: [{{name: x-t, prefix: 'T '}}, \
             {{name: x-u}}], fromParams: [t], fromCookies: [c], outputPayloadToHeader: x-user}}]}}"
        ),
        format!("{HEAD}kind: AuthorizationPolicy\nspec: {{action: AUDIT, rules: 1}}"),
        "{".to_owned(),
    ] {
        let sent = faulty_of(&text);
        let snapshot = wire::PolicySnapshot {
            faulty: vec![faulty_object(&sent, "", "f", 7)],
            ..message()
        };
        let read = parse(snapshot).unwrap().objects.remove(0).reading;
        assert_eq!((&*read.origin, read.line), ("f", 7));
        let Content::Faulty(received) = read.content else {
            panic!()
        };
        let words = |faulty: &Faulty| faulty.faults.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(words(&received), words(&sent), "{text}");
        let with_their_faults = Faulty {
            faults: sent.faults.clone(),
            ..(*received).clone()
        };
        assert_eq!(with_their_faults, *sent, "{text}");
    }
}

#[test]
fn a_snapshot_with_one_part_that_cannot_be_read_is_refused_whole() {
    let faulty = || faulty_object(&faulty_of("{"), "", "f", 1);
    let foreign = json!({"apiVersion": "apps/v1", "kind": "Deployment"}).to_string();
    let object = |json: String| wire::SoundObject {
        json: json.into(),
        ..wire::SoundObject::default()
    };
    let with = |change: &dyn Fn(&mut wire::PolicySnapshot)| {
        let mut message = message();
        change(&mut message);
        parse(message).unwrap_err()
    };
    let unknown = |what| SnapshotError::Unknown { object: 0, what };
    for (found, expected) in [
        (with(&|m| m.version.clear()), SnapshotError::Version(0)),
        (
            with(&|m| m.version = "v".repeat(200)),
            SnapshotError::Version(200),
        ),
        (with(&|m| m.namespace.clear()), SnapshotError::Namespace),
        (with(&|m| m.mesh = None), SnapshotError::Mesh),
        (
            with(&|m| m.objects.push(object("{".into()))),
            SnapshotError::Json(0),
        ),
        (
            with(&|m| m.objects.push(object(foreign.clone()))),
            SnapshotError::Foreign(0),
        ),
        (
            with(&|m| {
                m.faulty.push(wire::FaultyObject {
                    effect: 99,
                    ..faulty()
                })
            }),
            unknown("effect"),
        ),
        (
            with(&|m| {
                m.faulty.push(wire::FaultyObject {
                    faults: Vec::new(),
                    ..faulty()
                })
            }),
            SnapshotError::NoFault(0),
        ),
        (
            with(&|m| {
                let mut new = faulty();
                new.name.as_mut().unwrap().kind = "Waypoint".into();
                m.faulty.push(new);
            }),
            unknown("kind"),
        ),
        (
            with(&|m| {
                let remains = wire::Remains {
                    params: vec!["p".repeat(MAX_REMAINS_BYTES), "q".into()],
                    ..wire::Remains::default()
                };
                m.faulty.push(wire::FaultyObject {
                    remains: Some(remains),
                    ..faulty()
                });
            }),
            SnapshotError::TooMany {
                what: "remains",
                found: MAX_REMAINS_BYTES + 1,
                most: MAX_REMAINS_BYTES,
            },
        ),
        (
            with(&|m| {
                let targets = vec![wire::Target {
                    kind: 9,
                    name: "a".into(),
                }];
                let attachment = wire::Attachment {
                    targets,
                    ..wire::Attachment::default()
                };
                m.faulty.push(wire::FaultyObject {
                    attachment: Some(attachment),
                    ..faulty()
                });
            }),
            unknown("target"),
        ),
    ] {
        assert_eq!(found, expected);
    }
    let wrong = with(&|m| m.mesh.as_mut().unwrap().trust_domain = "Not One".into());
    assert!(matches!(wrong, SnapshotError::TrustDomain(_)), "{wrong}");
}

#[test]
fn an_object_that_only_the_other_end_can_read_fails_alone() {
    let newer = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "shop"}, "spec": {"invented": true},
    });
    let snapshot = wire::PolicySnapshot {
        objects: vec![wire::SoundObject {
            json: newer.to_string().into(),
            ..wire::SoundObject::default()
        }],
        ..message()
    };
    let mut set = PolicySet::default();
    set.replace(
        parse(snapshot)
            .unwrap()
            .objects
            .into_iter()
            .map(|one| one.reading)
            .collect(),
    );
    assert_eq!(set.outstanding().count(), 1);
}
