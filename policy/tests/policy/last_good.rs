//! The unit is one object (I4): its last good version, the strictest reading, and nothing beyond it.

use signet_policy::model::Mode;
use signet_policy::model::salvage::Effect;
use signet_policy::{PolicySet, read_object, read_text};

use crate::support::{Ask, Verdict, ask, mesh, named, verdict, workload};

fn read(set: &mut PolicySet, text: &str) {
    set.replace(read_text("file", text, None));
}

fn fresh(text: &str) -> PolicySet {
    let mut set = PolicySet::default();
    read(&mut set, text);
    set
}

fn judge(set: &PolicySet, ask: &Ask) -> Verdict {
    verdict(&set.in_force(&workload(), &mesh()).program, ask)
}

fn word(set: &PolicySet, ask: &Ask) -> &'static str {
    match judge(set, ask) {
        Verdict::Allowed(_) => "allowed",
        Verdict::Asks(_) => "asks",
        Verdict::Denied(word, _) => word,
    }
}

/// An AuthorizationPolicy with this `spec`, bad or not.
fn spec(spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: shop}}\n\
         spec: {{{spec}}}\n"
    )
}

fn object(kind: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: p, namespace: shop}}\nspec: {{{spec}}}\n"
    )
}

const BAD: &str = "rules: [{to: [{operation: {ports: [http]}}]}]";

#[test]
fn a_bad_edit_leaves_the_last_good_version_in_force() {
    let good = named("shop", "p", "DENY", "[{to: [{operation: {paths: [/x]}}]}]");
    let mut set = fresh(&good);
    for bad in [
        spec(&format!("action: DENY, {BAD}")),
        spec("acton: DENY"),
        spec(BAD),
    ] {
        read(&mut set, &bad);
        assert_eq!(word(&set, &ask().path("/x")), "denied", "{bad}");
        assert_eq!(word(&set, &ask()), "allowed", "{bad}");
        let outstanding: Vec<_> = set.outstanding().collect();
        assert_eq!(outstanding.len(), 1);
        assert!(outstanding[0].last_good);
        assert_eq!(outstanding[0].name.to_string(), "AuthorizationPolicy shop/p");
    }
    read(
        &mut set,
        &named("shop", "p", "DENY", "[{to: [{operation: {paths: [/y]}}]}]"),
    );
    assert_eq!(word(&set, &ask().path("/x")), "allowed");
    assert_eq!(set.outstanding().count(), 0);
}

#[test]
fn a_bad_edit_of_one_object_through_the_api_leaves_its_last_good_version_too() {
    let object = |spec: serde_json::Value| {
        serde_json::json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "p", "namespace": "shop", "managedFields": [{}]}, "spec": spec})
    };
    let mut set = PolicySet::default();
    set.apply(read_object("api", &object(serde_json::json!({"rules": [{}]}))));
    set.apply(read_object(
        "api",
        &object(serde_json::json!({"rules": [{"from": []}]})),
    ));
    assert_eq!(word(&set, &ask()), "allowed");
    assert_eq!(set.outstanding().count(), 1);
    let key = set.objects().next().unwrap().key();
    set.remove(&key);
    assert_eq!((set.outstanding().count(), set.objects().count()), (0, 0));
}

#[test]
fn a_deleted_object_is_gone_even_if_its_last_version_was_bad() {
    let mut set = fresh(&named("shop", "p", "DENY", "[{}]"));
    read(&mut set, &spec(&format!("action: DENY, {BAD}")));
    assert_eq!(word(&set, &ask()), "denied");
    read(&mut set, "");
    assert_eq!(word(&set, &ask()), "allowed");
}

#[test]
fn without_a_good_version_the_strictest_reading_counts() {
    for (text, effect, expected) in [
        (spec(BAD), Effect::AllowNothing, "not_allowed"),
        (
            spec(&format!("action: ALLOW, {BAD}")),
            Effect::AllowNothing,
            "not_allowed",
        ),
        (
            spec(&format!("action: DENY, {BAD}")),
            Effect::DenyAll,
            "faulty_policy",
        ),
        (spec("action: DENY"), Effect::DenyAll, "faulty_policy"),
        (
            spec(&format!("action: CUSTOM, provider: {{name: grpc}}, {BAD}")),
            Effect::DenyAll,
            "faulty_policy",
        ),
        (spec("action: Deny"), Effect::DenyAll, "faulty_policy"),
        (spec("acton: DENY"), Effect::DenyAll, "faulty_policy"),
        (
            spec("provider: {name: grpc}, rules: [{}]"),
            Effect::DenyAll,
            "faulty_policy",
        ),
        (spec(&format!("action: AUDIT, {BAD}")), Effect::Nothing, "allowed"),
        (
            object("AuthorizationPolicy2", ""),
            Effect::DenyAll,
            "faulty_policy",
        ),
        (
            spec("").replace("spec:", "sepc:"),
            Effect::DenyAll,
            "faulty_policy",
        ),
        ("{".to_owned(), Effect::DenyAll, "faulty_policy"),
    ] {
        let set = fresh(&text);
        let outstanding: Vec<_> = set.outstanding().collect();
        assert_eq!(outstanding.len(), 1, "{text}");
        assert_eq!(outstanding[0].faulty.effect, effect, "{text}");
        assert!(!outstanding[0].last_good);
        assert_eq!(word(&set, &ask()), expected, "{text}");
        assert_eq!(word(&set, &ask().tcp()), expected, "{text}");
    }
}

#[test]
fn another_allow_still_allows_beside_a_bad_allow_but_not_beside_a_bad_deny() {
    let good = named("shop", "good", "ALLOW", "[{}]");
    assert_eq!(word(&fresh(&(spec(BAD) + &good)), &ask()), "allowed");
    let set = fresh(&(spec(&format!("action: DENY, {BAD}")) + &good));
    assert_eq!(
        judge(&set, &ask()),
        Verdict::Denied(
            "faulty_policy",
            "AuthorizationPolicy shop/p cannot be read and denies everything it reaches".to_owned()
        )
    );
}

#[test]
fn a_bad_dry_run_decides_nothing() {
    let text = spec(&format!("action: DENY, {BAD}")).replace(
        "metadata: {",
        "metadata: {annotations: {istio.io/dry-run: 'true'}, ",
    );
    assert_eq!(word(&fresh(&text), &ask()), "allowed");
    let unreadable = text.replace("'true'", "perhaps");
    assert_eq!(word(&fresh(&unreadable), &ask()), "faulty_policy");
}

#[test]
fn a_bad_object_reaches_what_it_selects_or_its_namespace_if_that_is_unreadable() {
    let deny = |more: &str| spec(&format!("action: DENY, {BAD}, {more}"));
    for (text, expected) in [
        (deny("selector: {matchLabels: {app: other}}"), "allowed"),
        (deny("selector: {matchLabels: {app: cart}}"), "faulty_policy"),
        (deny("selector: {matchLabels: {app: 'oth*'}}"), "faulty_policy"),
        (deny("selector: {matchLabel: {app: other}}"), "faulty_policy"),
        (deny("selectors: {matchLabels: {app: other}}"), "faulty_policy"),
        (deny("targetRefs: [{kind: Service, name: a}]"), "allowed"),
        (deny("targetRefs: [{kind: Srvice, name: a}]"), "faulty_policy"),
    ] {
        assert_eq!(word(&fresh(&text), &ask()), expected, "{text}");
    }
}

#[test]
fn a_bad_object_touches_no_other_namespace_unless_its_own_is_unreadable_or_the_root() {
    let bad = spec(&format!("action: DENY, {BAD}"));
    for (namespace, expected) in [
        ("namespace: bank", "allowed"),
        ("namespace: root", "faulty_policy"),
        ("namespace: Bank", "faulty_policy"),
        ("namspace: bank", "faulty_policy"),
        ("labels: {}", "faulty_policy"),
    ] {
        let text = bad.replace("namespace: shop", namespace);
        assert_eq!(word(&fresh(&text), &ask()), expected, "{namespace}");
    }
}

#[test]
fn a_mesh_wide_deny_applies_while_another_namespace_holds_a_bad_object() {
    let bad = spec(&format!("action: DENY, {BAD}")).replace("namespace: shop", "namespace: bank");
    let mut set = fresh(&bad);
    assert_eq!(word(&set, &ask()), "allowed");
    read(&mut set, &(bad + &named("root", "all", "DENY", "[{}]")));
    assert_eq!(word(&set, &ask()), "denied");
}

#[test]
fn a_bad_peer_authentication_is_strict_where_it_would_have_counted() {
    let set = |text: &str| fresh(text).in_force(&workload(), &mesh()).peers;
    let bad = |more: &str| object("PeerAuthentication", &format!("mtls: {{mode: strict}}{more}"));
    let named_strict = |text: &str| set(text).mode(80) == Mode::Strict;
    assert!(named_strict(&bad("")));
    assert!(named_strict(&bad(", selector: {matchLabels: {app: cart}}")));
    assert!(!named_strict(&bad(", selector: {matchLabels: {app: other}}")));
    let permissive = object(
        "PeerAuthentication",
        "selector: {matchLabels: {app: cart}}, mtls: {mode: PERMISSIVE}",
    )
    .replace("name: p,", "name: q,");
    assert!(!named_strict(&(bad("") + &permissive)));
    assert!(named_strict(
        &(bad(", selector: {matchLabels: {app: cart}}") + &permissive)
    ));
    assert!(named_strict(
        &(bad(", selector: {matchLabels: {app: '*'}}") + &permissive)
    ));
}

#[test]
fn a_bad_request_authentication_refuses_tokens() {
    let bad = object("RequestAuthentication", "jwtRules: [{}]");
    let tokens = fresh(&bad).in_force(&workload(), &mesh()).tokens;
    assert_eq!(
        tokens.refused_by().unwrap().to_string(),
        "RequestAuthentication shop/p"
    );
    let elsewhere = bad.replace("namespace: shop", "namespace: bank");
    assert!(fresh(&elsewhere).in_force(&workload(), &mesh()).tokens.is_empty());
}

/// What a program refuses tokens at, and which headers are ours alone.
fn guarded(set: &PolicySet) -> (Vec<String>, Vec<String>) {
    let tokens = set.in_force(&workload(), &mesh()).tokens;
    let places = tokens.refused_at().cloned().unwrap();
    let headers = places
        .headers
        .into_iter()
        .map(|(name, prefix)| name + "=" + &prefix);
    let places = headers.chain(places.params).chain(places.cookies).collect();
    (places, tokens.reserved().map(str::to_owned).collect())
}

#[test]
fn a_bad_request_authentication_still_guards_what_it_names() {
    let rule = "isuer: i, fromHeaders: [{name: X-T, prefix: 'T '}], fromParams: [p], fromCookies: [c], \
                outputPayloadToHeader: X-Payload, outputClaimToHeaders: [{header: x-user, claim: sub}]";
    let bad = object("RequestAuthentication", &format!("jwtRules: [{{{rule}}}]"));
    let places = ["authorization=Bearer ", "x-t=T ", "access_token", "p", "c"].map(str::to_owned);
    let outputs = ["x-payload", "x-user"].map(str::to_owned);
    assert_eq!(guarded(&fresh(&bad)), (places.to_vec(), outputs.to_vec()));
    // All of them together, and a sound one beside them.
    let other = "{isuer: i, fromCookies: [d], outputPayloadToHeader: x-other}";
    let other =
        object("RequestAuthentication", &format!("jwtRules: [{other}]")).replace("name: p,", "name: q,");
    let sound = object(
        "RequestAuthentication",
        "jwtRules: [{issuer: i, outputPayloadToHeader: x-sound}]",
    );
    let sound = sound.replace("name: p,", "name: r,");
    let (places, outputs) = guarded(&fresh(&(bad + &other + &sound)));
    assert!(places.ends_with(&["c".to_owned(), "d".to_owned()]), "{places:?}");
    assert_eq!(outputs, ["x-sound", "x-other", "x-payload", "x-user"]);
}

#[test]
fn two_versions_of_a_request_authentication_guard_what_either_names() {
    let version = |rule: &str| object("RequestAuthentication", &format!("jwtRules: [{{{rule}}}]"));
    let good = version("issuer: i, outputPayloadToHeader: x-a");
    let second = version("issuer: i, outputPayloadToHeader: x-b, fromParams: [b]");
    let bad = version("isuer: i, outputPayloadToHeader: x-c");
    let (places, outputs) = guarded(&fresh(&(good.clone() + &second + &bad)));
    assert_eq!(outputs, ["x-a", "x-b", "x-c"]);
    assert!(places.contains(&"b".to_owned()), "{places:?}");
    let names: Vec<String> = (0..2_000).map(|n| format!("parameter-{n}")).collect();
    let large = version(&format!("isuer: i, fromParams: [{}]", names.join(", ")));
    assert_eq!(word(&fresh(&(good + &large)), &ask()), "faulty_policy");
}

#[test]
fn a_bad_request_authentication_that_names_too_much_refuses_every_request() {
    let word = |names: usize| {
        let names: Vec<String> = (0..names).map(|n| format!("parameter-{n}")).collect();
        let rule = format!("jwtRules: [{{isuer: i, fromParams: [{}]}}]", names.join(", "));
        word(&fresh(&object("RequestAuthentication", &rule)), &ask())
    };
    assert_eq!((word(1_000), word(2_000)), ("allowed", "faulty_policy"));
}

#[test]
fn an_unreadable_document_keeps_what_its_file_said_before() {
    let good = named("shop", "p", "DENY", "[{to: [{operation: {paths: [/x]}}]}]");
    let other = named("shop", "q", "DENY", "[{to: [{operation: {paths: [/y]}}]}]");
    let mut set = fresh(&(good.clone() + &other));
    let broken = good.replace("rules: [", "rules: [[");
    read(&mut set, &(broken.clone() + &other));
    assert_eq!(word(&set, &ask().path("/x")), "denied");
    assert_eq!(word(&set, &ask().path("/y")), "denied");
    assert_eq!(word(&set, &ask()), "allowed");
    assert_eq!(set.outstanding().count(), 1);
    read(&mut set, &(broken.clone() + &other));
    assert_eq!(word(&set, &ask()), "allowed");
    assert_eq!(word(&fresh(&broken), &ask()), "faulty_policy");
}

#[test]
fn two_versions_of_one_object_are_none() {
    let a = named("shop", "p", "ALLOW", "[{}]");
    let b = named("shop", "p", "ALLOW", "[]");
    assert_eq!(word(&fresh(&(a.clone() + &a)), &ask()), "allowed");
    let both = fresh(&(a.clone() + &b));
    assert_eq!(word(&both, &ask()), "faulty_policy");
    let mut set = fresh(&a);
    read(&mut set, &(a.clone() + &b));
    assert_eq!(word(&set, &ask()), "allowed");
    assert_eq!(set.outstanding().count(), 1);
    read(&mut set, &b);
    assert_eq!(word(&set, &ask()), "not_allowed");
}

#[test]
fn other_kinds_are_left_alone() {
    let text =
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n---\nimage: x\n---\n# nothing\n---\n";
    let set = fresh(text);
    assert_eq!((set.outstanding().count(), word(&set, &ask())), (0, "allowed"));
}

#[test]
fn bad_rules_of_tokens_that_name_too_much_together_deny_everything() {
    let bad = |name: usize| {
        let headers: Vec<String> = (0..100).map(|n| format!("x-{name}-{n:060}")).collect();
        let header = format!("[{}]", headers.join(", "));
        object(
            "RequestAuthentication",
            &format!("jwtRules: [{{isuer: i, outputPayloadToHeader: {header}}}]"),
        )
        .replace("name: p", &format!("name: p{name}"))
    };
    let few: String = (0..2).map(bad).collect();
    assert_eq!(word(&fresh(&few), &ask()), "allowed");
    let many: String = (0..3).map(bad).collect();
    assert_eq!(word(&fresh(&many), &ask()), "faulty_policy");
}
