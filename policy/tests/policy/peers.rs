//! PeerAuthentication (§9): levels, ports, ages.

use signet_policy::model::Mode;

use crate::support::{faults, mesh, sound, workload};

fn peer(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
    )
}

const CART: &str = "selector: {matchLabels: {app: cart}}";

fn mode(text: &str, port: u16) -> Mode {
    sound(text).in_force(&workload(), &mesh()).peers.mode(port)
}

#[test]
fn the_default_is_permissive() {
    assert_eq!(mode("", 80), Mode::Permissive);
    assert_eq!(
        mode(&peer("bank", "a", "mtls: {mode: STRICT}"), 80),
        Mode::Permissive
    );
}

#[test]
fn the_more_specific_level_counts() {
    let mesh_wide = peer("root", "a", "mtls: {mode: STRICT}");
    assert_eq!(mode(&mesh_wide, 80), Mode::Strict);
    let namespace = mesh_wide + &peer("shop", "b", "mtls: {mode: PERMISSIVE}");
    assert_eq!(mode(&namespace, 80), Mode::Permissive);
    let workload = namespace
        + &peer(
            "shop",
            "c",
            &format!("{CART}, mtls: {{mode: DISABLE}}, portLevelMtls: {{8080: {{mode: STRICT}}}}"),
        );
    assert_eq!(mode(&workload, 80), Mode::Disable);
    assert_eq!(mode(&workload, 8080), Mode::Strict);
}

#[test]
fn unset_inherits_the_level_above() {
    let mesh_wide = peer("root", "a", "mtls: {mode: STRICT}");
    for spec in ["", "mtls: {}", "mtls: {mode: UNSET}"] {
        assert_eq!(
            mode(&(mesh_wide.clone() + &peer("shop", "b", spec)), 80),
            Mode::Strict,
            "{spec}"
        );
        assert_eq!(mode(&peer("root", "a", spec), 80), Mode::Permissive, "{spec}");
    }
    let port =
        format!("{CART}, mtls: {{mode: DISABLE}}, portLevelMtls: {{'8080': {{mode: UNSET}}, '81': {{}}}}");
    assert_eq!(
        mode(&(mesh_wide.clone() + &peer("shop", "b", &port)), 8080),
        Mode::Disable
    );
    let port = format!("{CART}, portLevelMtls: {{8080: {{mode: PERMISSIVE}}}}");
    let text = mesh_wide + &peer("shop", "b", &port);
    assert_eq!(
        (mode(&text, 8080), mode(&text, 80)),
        (Mode::Permissive, Mode::Strict)
    );
}

#[test]
fn several_strict_ports_are_each_strict() {
    let ports = "portLevelMtls: {80: {mode: STRICT}, 81: {mode: STRICT}}";
    let text = peer("root", "m", "mtls: {mode: STRICT}")
        + &peer(
            "shop",
            "b",
            &format!("{CART}, mtls: {{mode: PERMISSIVE}}, {ports}"),
        );
    assert_eq!(
        [80, 81, 82].map(|port| mode(&text, port)),
        [Mode::Strict, Mode::Strict, Mode::Permissive]
    );
}

#[test]
fn of_two_on_one_level_the_older_counts_whole() {
    let aged = |name: &str, created: &str, spec: &str| {
        peer("shop", name, spec).replace(
            "metadata: {",
            &format!("metadata: {{creationTimestamp: '{created}', "),
        )
    };
    let text = aged(
        "a",
        "2026-02-01T00:00:00Z",
        &format!("{CART}, portLevelMtls: {{80: {{mode: DISABLE}}}}"),
    ) + &aged(
        "b",
        "2026-01-01T00:00:00Z",
        &format!("{CART}, mtls: {{mode: STRICT}}"),
    );
    assert_eq!(mode(&text, 80), Mode::Strict);
    let without_age = peer("shop", "b", "mtls: {mode: DISABLE}") + &peer("shop", "a", "mtls: {mode: STRICT}");
    assert_eq!(mode(&without_age, 80), Mode::Strict);
}

#[test]
fn an_empty_selector_is_the_namespace_and_one_in_the_root_namespace_counts_nowhere() {
    let empty = peer("shop", "a", "selector: {}, mtls: {mode: STRICT}");
    assert_eq!(mode(&empty, 80), Mode::Strict);
    let workload = empty + &peer("shop", "b", &format!("{CART}, mtls: {{mode: PERMISSIVE}}"));
    assert_eq!(mode(&workload, 80), Mode::Permissive);
    assert_eq!(
        mode(&peer("root", "a", &format!("{CART}, mtls: {{mode: STRICT}}")), 80),
        Mode::Permissive
    );
}

#[test]
fn a_ruling_names_its_object() {
    let set = sound(&peer("shop", "b", &format!("{CART}, mtls: {{mode: STRICT}}")));
    let peers = set.in_force(&workload(), &mesh()).peers;
    assert_eq!(
        peers.ruling(80).by.as_ref().unwrap().to_string(),
        "PeerAuthentication shop/b"
    );
}

#[test]
fn what_cannot_be_used_is_refused() {
    for (spec, expected) in [
        (
            "mtls: {mode: strict}".to_owned(),
            "spec.mtls.mode: \"strict\" is not a mode",
        ),
        ("mtls: null".to_owned(), "has no value"),
        (
            "portLevelMtls: {80: {mode: STRICT}}".to_owned(),
            "portLevelMtls needs a selector with labels",
        ),
        (
            "selector: {}, portLevelMtls: {80: {mode: STRICT}}".to_owned(),
            "needs a selector with labels",
        ),
        (format!("{CART}, portLevelMtls: {{}}"), "portLevelMtls: is empty"),
        (
            format!("{CART}, portLevelMtls: {{0: {{mode: STRICT}}}}"),
            "\"0\" is not a port",
        ),
        (
            format!("{CART}, portLevelMtls: {{http: {{mode: STRICT}}}}"),
            "\"http\" is not a port",
        ),
        (
            format!("{CART}, portLevelMtls: {{65536: {{mode: STRICT}}}}"),
            "is not a port",
        ),
        (
            "targetRefs: [{kind: Service, name: a}]".to_owned(),
            "spec.targetRefs: unknown field",
        ),
    ] {
        let found = faults(&peer("shop", "a", &spec));
        assert_eq!(found.len(), 1, "{spec}: {found:?}");
        assert!(found[0].contains(expected), "{spec}: {found:?}");
    }
}
