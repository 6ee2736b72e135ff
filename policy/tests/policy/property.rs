//! The compiled, indexed program means what the naive evaluator means; and a fault never widens.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};
use signet_policy::document::Content;
use signet_policy::{PolicySet, read_object};

use crate::naive::{self, Naive};
use crate::support::{Ask, Http, Verdict, mesh, verdict, workload};

type Vocabulary = (&'static str, &'static [&'static str]);

const PRINCIPALS: &[&str] = &[
    "td/ns/web/sa/front",
    "old/ns/web/sa/front",
    "cluster.local/ns/ops/sa/job",
    "partner/ns/web/sa/front",
    "td/ns/web/*",
    "*/sa/front",
    "*d/ns/web/sa/front",
    "*",
    "spiffe://td/ns/web/sa/front",
    "partner/*",
];
const NAMESPACES: &[&str] = &["web", "ops", "shop", "w*", "*s", "*", "w*b", "*e*"];
const ACCOUNTS: &[&str] = &["front", "web/front", "ops/job", "shop/job"];
const DOMAINS: &[&str] = &["td", "old", "partner", "*", "par*", "*d", "cluster.local"];
const TOKENS: &[&str] = &[
    "*",
    "idp/bob",
    "idp/*",
    "*/bob",
    "idp/b*",
    "*ob",
    "id*",
    "bob",
    "x.idp/amy",
];
const BLOCKS: &[&str] = &[
    "10.0.0.0/8",
    "10.1.2.3",
    "::ffff:10.1.0.0/112",
    "fd00::/8",
    "192.0.2.0/24",
    "0.0.0.0/0",
];
const HOSTS: &[&str] = &["cart.shop", "CART.shop:*", "*.shop", "*", "other"];
const METHODS: &[&str] = &["GET", "POST", "P*", "*T", "*"];
const PATHS: &[&str] = &[
    "/a",
    "/a/*",
    "*/b",
    "/a/{*}",
    "/a/{**}",
    "/{*}/b",
    "/a/{**}/b",
    "*",
    "/",
    "/a/b/c",
    "/{*}/{*}/c",
];
const PORTS: &[&str] = &["80", "8080", "9090"];
const TEXTS: &[&str] = &["one", "two", "one,two", "o*", "*o", "*", "admin"];

const SOURCE: &[Vocabulary] = &[
    ("principals", PRINCIPALS),
    ("notPrincipals", PRINCIPALS),
    ("namespaces", NAMESPACES),
    ("notNamespaces", NAMESPACES),
    ("serviceAccounts", ACCOUNTS),
    ("notServiceAccounts", ACCOUNTS),
    ("trustDomains", DOMAINS),
    ("notTrustDomains", DOMAINS),
    ("requestPrincipals", TOKENS),
    ("notRequestPrincipals", TOKENS),
    ("ipBlocks", BLOCKS),
    ("notIpBlocks", BLOCKS),
    ("remoteIpBlocks", BLOCKS),
    ("notRemoteIpBlocks", BLOCKS),
];
const CUSTOM_SOURCE: &[Vocabulary] = &[
    ("ipBlocks", BLOCKS),
    ("notIpBlocks", BLOCKS),
    ("remoteIpBlocks", BLOCKS),
];
const OPERATION: &[Vocabulary] = &[
    ("hosts", HOSTS),
    ("notHosts", HOSTS),
    ("methods", METHODS),
    ("notMethods", METHODS),
    ("paths", PATHS),
    ("notPaths", PATHS),
    ("ports", PORTS),
    ("notPorts", PORTS),
];
const WHEN: &[Vocabulary] = &[
    ("request.headers[X-A]", TEXTS),
    ("source.ip", BLOCKS),
    ("remote.ip", BLOCKS),
    ("source.namespace", NAMESPACES),
    ("source.serviceAccount", ACCOUNTS),
    ("source.trustDomain", DOMAINS),
    ("source.principal", PRINCIPALS),
    ("request.auth.principal", TOKENS),
    ("request.auth.audiences", TEXTS),
    ("request.auth.presenter", TEXTS),
    ("request.auth.claims[scope]", TEXTS),
    ("request.auth.claims[realm][roles]", TEXTS),
    ("destination.ip", BLOCKS),
    ("destination.port", PORTS),
    ("connection.sni", TEXTS),
    ("experimental.envoy.filters.a[b]", TEXTS),
];
const CUSTOM_WHEN: &[Vocabulary] = &[
    ("request.headers[x-a]", TEXTS),
    ("source.ip", BLOCKS),
    ("destination.port", PORTS),
    ("connection.sni", TEXTS),
];

fn values(vocabulary: &'static [&'static str]) -> impl Strategy<Value = Value> {
    vec(select(vocabulary), 1..3).prop_map(|values| json!(values))
}

/// Some of the fields.
fn fields(all: &'static [Vocabulary]) -> impl Strategy<Value = Value> {
    subsequence(all, 1..=2)
        .prop_flat_map(|fields| {
            let each: Vec<_> = fields
                .into_iter()
                .map(|(name, vocabulary)| {
                    values(vocabulary).prop_map(move |values| (name.to_owned(), values))
                })
                .collect();
            each
        })
        .prop_map(|fields| {
            let mut fields: Map<String, Value> = fields.into_iter().collect();
            if fields.keys().any(|name| name.ends_with("erviceAccounts")) {
                for name in ["principals", "notPrincipals", "namespaces", "notNamespaces"] {
                    fields.remove(name);
                }
            }
            Value::Object(fields)
        })
}

fn condition(keys: &'static [Vocabulary]) -> impl Strategy<Value = Value> {
    select(keys).prop_flat_map(|(key, vocabulary)| {
        (values(vocabulary), values(vocabulary), 0..3).prop_map(move |(yes, no, which)| match which {
            0 => json!({"key": key, "values": yes}),
            1 => json!({"key": key, "notValues": no}),
            _ => json!({"key": key, "values": yes, "notValues": no}),
        })
    })
}

fn rule(custom: bool) -> impl Strategy<Value = Value> {
    let (source, keys) = if custom {
        (CUSTOM_SOURCE, CUSTOM_WHEN)
    } else {
        (SOURCE, WHEN)
    };
    let from = vec(fields(source).prop_map(|source| json!({"source": source})), 0..3);
    let to = vec(
        fields(OPERATION).prop_map(|operation| json!({"operation": operation})),
        0..3,
    );
    let when = vec(condition(keys), 0..2);
    (from, to, when).prop_map(|(from, to, when)| {
        let mut rule = Map::new();
        for (part, entries) in [("from", from), ("to", to), ("when", when)] {
            if !entries.is_empty() {
                rule.insert(part.to_owned(), json!(entries));
            }
        }
        Value::Object(rule)
    })
}

fn object() -> impl Strategy<Value = Value> {
    let action = prop_oneof![
        4 => Just("ALLOW"),
        3 => Just("DENY"),
        1 => Just("AUDIT"),
        1 => Just("CUSTOM"),
    ];
    action.prop_flat_map(|action| {
        (
            vec(rule(action == "CUSTOM"), 1..4),
            select(vec!["shop", "root", "bank"]),
            select(vec![json!(null), json!({"app": "cart"}), json!({"app": "other"})]),
            prop::bool::weighted(0.1),
            select(vec!["grpc", "grpc2", "http", "nobody"]),
        )
            .prop_map(move |(rules, namespace, labels, dry_run, provider)| {
                let mut object = json!({
                    "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
                    "metadata": {"name": "p", "namespace": namespace},
                    "spec": {"action": action, "rules": rules},
                });
                if labels.is_object() {
                    object["spec"]["selector"] = json!({"matchLabels": labels});
                }
                if dry_run {
                    object["metadata"]["annotations"] = json!({"istio.io/dry-run": "true"});
                }
                if action == "CUSTOM" {
                    object["spec"]["provider"] = json!({"name": provider});
                }
                object
            })
    })
}

fn objects(most: usize) -> impl Strategy<Value = Vec<Value>> {
    vec(object(), 0..most).prop_map(|mut objects| {
        for (at, object) in objects.iter_mut().enumerate() {
            object["metadata"]["name"] = json!(format!("p{at}"));
        }
        objects
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    let peers = vec![
        None,
        Some("spiffe://td/ns/web/sa/front"),
        Some("spiffe://old/ns/web/sa/front"),
        Some("spiffe://partner/ns/web/sa/front"),
        Some("spiffe://td/ns/ops/sa/job"),
        Some("spiffe://partner/ns/shop/sa/job/more"),
        Some("spiffe://td/other"),
        Some("spiffe://cluster.local/ns/web/sa/front"),
    ];
    let ips = || select(vec!["10.1.2.3", "::ffff:10.1.9.9", "192.0.2.1", "fd00::1"]);
    let claims = select(vec![
        json!(null),
        json!({"iss": "idp", "sub": "bob", "aud": "one", "scope": "admin one"}),
        json!({"iss": "x.idp", "sub": "amy", "aud": ["two", "admin"], "azp": "one"}),
        json!({"iss": "idp", "realm": {"roles": ["admin", 1]}, "scope": "two"}),
        json!({"iss": "bob", "sub": "", "realm": {"roles": "one"}}),
    ]);
    let headers = select(vec![
        vec![],
        vec!["one"],
        vec!["one", "two"],
        vec![""],
        vec!["admin"],
    ]);
    let http = (
        select(vec!["GET", "POST", "PUT"]),
        select(vec!["cart.shop", "Cart.Shop:8080", "other"]),
        select(vec!["/", "/a", "/a/b", "/a/b/c", "/x/b", "/a/", "/a/x/b?q", "/b"]),
        headers,
        claims,
    );
    let http = http.prop_map(|(method, host, path, headers, claims)| Http {
        method: method.to_owned(),
        host: host.to_owned(),
        path: path.to_owned(),
        headers: headers
            .into_iter()
            .map(|value| ("x-a".to_owned(), value.to_owned()))
            .collect(),
        claims: Some(claims).filter(Value::is_object),
    });
    let sni = select(vec![None, Some("one"), Some("two")]);
    (
        select(peers),
        ips(),
        prop::option::of(ips()),
        ips(),
        select(vec![80, 8080, 1]),
        sni,
        prop::option::weighted(0.7, http),
    )
        .prop_map(|(peer, source, remote, destination, port, sni, http)| Ask {
            peer: peer.map(str::to_owned),
            source: source.to_owned(),
            remote: remote.map(str::to_owned),
            destination: destination.to_owned(),
            port,
            sni: sni.map(str::to_owned),
            http,
        })
}

fn set(objects: &[Value]) -> PolicySet {
    let mut set = PolicySet::default();
    for object in objects {
        let reading = read_object("test", object);
        if let Content::Faulty(faulty) = &reading.content {
            panic!("{}\n{object:#}", faulty.faults[0]);
        }
        set.apply(reading);
    }
    set
}

fn judged(set: &PolicySet, ask: &Ask) -> Verdict {
    verdict(&set.in_force(&workload(), &mesh()).program, ask)
}

fn plain(verdict: &Verdict) -> Naive {
    match verdict {
        Verdict::Allowed(_) => Naive::Allowed,
        Verdict::Asks(providers) => Naive::Asks(providers.iter().cloned().collect()),
        Verdict::Denied(..) => Naive::Denied,
    }
}

/// The rule a permit names matches; the sentence of a denial names a rule that does.
fn check_reason(objects: &[Value], ask: &Ask, verdict: &Verdict) {
    if let Verdict::Allowed(Some((policy, rule))) = verdict {
        let named = |object: &&Value| {
            let meta = &object["metadata"];
            let (namespace, name) = (
                meta["namespace"].as_str().unwrap(),
                meta["name"].as_str().unwrap(),
            );
            *policy == format!("AuthorizationPolicy {namespace}/{name}")
        };
        let object = objects.iter().find(named).unwrap();
        assert!(naive::rule_matches(object, *rule, ask), "{policy} rules[{rule}]");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 768, ..ProptestConfig::default() })]

    #[test]
    fn the_program_means_what_the_naive_evaluator_means(objects in objects(8), asks in vec(ask(), 8)) {
        let program = set(&objects).in_force(&workload(), &mesh()).program;
        for ask in &asks {
            let verdict = verdict(&program, ask);
            prop_assert_eq!(plain(&verdict), naive::judge(&objects, ask), "{:?}", ask);
            check_reason(&objects, ask, &verdict);
        }
    }

    #[test]
    fn so_does_a_program_of_many_rules(objects in objects(60), asks in vec(ask(), 4)) {
        let program = set(&objects).in_force(&workload(), &mesh()).program;
        for ask in &asks {
            let verdict = verdict(&program, ask);
            prop_assert_eq!(plain(&verdict), naive::judge(&objects, ask), "{:?}", ask);
            check_reason(&objects, ask, &verdict);
        }
    }

    #[test]
    fn the_trace_agrees_with_the_verdict_and_with_the_rules(objects in objects(8), ask in ask()) {
        let program = set(&objects).in_force(&workload(), &mesh()).program;
        let trace = ask.with(|connection, request| program.explain(connection, request));
        match verdict(&program, &ask) {
            Verdict::Allowed(_) => prop_assert!(trace.verdict.is_ok()),
            Verdict::Asks(asked) => prop_assert_eq!(trace.asks, asked),
            Verdict::Denied(_, sentence) => prop_assert_eq!(trace.verdict, Err(sentence)),
        }
        for vote in trace.votes {
            let signet_policy::decision::PolicyName::Object(key) = &vote.policy else {
                panic!("{}", vote.policy);
            };
            let object = objects.iter().find(|object| object["metadata"]["name"] == key.name).unwrap();
            let count = object["spec"]["rules"].as_array().unwrap().len();
            let any = (0..count).any(|rule| naive::rule_matches(object, rule, &ask));
            let says = matches!(vote.says, signet_policy::program::Says::Matches(_));
            prop_assert_eq!(says, any, "{}", key);
        }
    }

    #[test]
    fn a_fault_never_widens_and_the_last_good_version_stays_exactly(
        objects in objects(5),
        object in object(),
        place in any::<prop::sample::Index>(),
        damage in damage(),
        asks in vec(ask(), 6),
    ) {
        let mut bad = object.clone();
        let places = pointers(&bad["spec"], "/spec");
        apply(&mut bad, &places[place.index(places.len())], &damage);
        let reading = read_object("test", &bad);
        prop_assume!(matches!(reading.content, Content::Faulty(_)));

        let mut good = set(&objects);
        good.apply(read_object("test", &object));
        let mut never_good = set(&objects);
        never_good.apply(reading.clone());
        let mut last_good = good.clone();
        last_good.apply(reading);
        for ask in &asks {
            let before = judged(&good, ask);
            prop_assert_eq!(&judged(&last_good, ask), &before);
            match plain(&judged(&never_good, ask)) {
                Naive::Allowed => prop_assert!(before.is_allowed(), "{:?}\n{:#}", ask, bad),
                Naive::Asks(_) => prop_assert!(!matches!(before, Verdict::Denied(..)), "{:?}\n{:#}", ask, bad),
                Naive::Denied => {}
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Damage {
    Put(Value),
    Rename,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        select(vec![
            json!(null),
            json!({}),
            json!([]),
            json!(""),
            json!(17),
            json!(["", 1]),
            json!({"zzz": 1})
        ])
        .prop_map(Damage::Put),
        Just(Damage::Rename),
    ]
}

/// JSON pointers to everything below a value.
fn pointers(value: &Value, at: &str) -> Vec<String> {
    let mut found = vec![at.to_owned()];
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                found.extend(pointers(value, &format!("{at}/{name}")));
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                found.extend(pointers(item, &format!("{at}/{index}")));
            }
        }
        _ => {}
    }
    found
}

fn apply(object: &mut Value, pointer: &str, damage: &Damage) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match (damage, object.pointer_mut(parent)) {
        (Damage::Rename, Some(Value::Object(fields))) => {
            if let Some(value) = fields.remove(name) {
                fields.insert(format!("{name}x"), value);
            }
        }
        (Damage::Put(value), _) => *object.pointer_mut(pointer).unwrap() = value.clone(),
        (Damage::Rename, _) => {}
    }
}
