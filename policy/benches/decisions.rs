//! Nanoseconds per decision, among few rules and many, on one core:
//! `cargo bench -p signet-policy --bench decisions`.
//!
//! A line is one form of rules; its figures are medians of several runs, with the slowest run beside them.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program run by hand: it measures, prints, and stops where it is wrong"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use signet_certs::SpiffeId;
use signet_policy::principal::LocalDomains;
use signet_policy::scope::Role;
use signet_policy::{
    Connection, Gate, Mesh, Normalization, PolicySet, Program, Request, RequestPath, Workload, read_text,
};

const RUNS: usize = 9;
const DECISIONS: u32 = 200_000;
/// Rules in one policy, at most.
const PER_POLICY: usize = 500;

/// A rule by its number, the question that it answers, and whether it is a request.
struct Form {
    name: &'static str,
    action: &'static str,
    rule: fn(usize) -> String,
    peer: fn(usize) -> String,
    path: fn(usize) -> String,
    http: bool,
}

const FORMS: &[Form] = &[
    Form {
        name: "principal, method and path",
        action: "ALLOW",
        rule: |n| {
            format!(
                "{{from: [{{source: {{principals: [cluster.local/ns/team-{n}/sa/frontend]}}}}], to: [{{operation: \
                 {{methods: [GET, HEAD], paths: ['/api/v1/service-{n}/*', /healthz], ports: ['8080']}}}}]}}"
            )
        },
        peer: |n| format!("spiffe://cluster.local/ns/team-{n}/sa/frontend"),
        path: |n| format!("/api/v1/service-{n}/items/42"),
        http: true,
    },
    Form {
        name: "100 namespaces times 100 paths",
        action: "ALLOW",
        rule: |n| {
            let (a, b) = (n / 100, n % 100);
            format!(
                "{{from: [{{source: {{namespaces: [team-{a}]}}}}], to: [{{operation: {{methods: [GET], paths: \
                 ['/api/v1/service-{b}/*']}}}}]}}"
            )
        },
        peer: |n| format!("spiffe://cluster.local/ns/team-{}/sa/frontend", n / 100),
        path: |n| format!("/api/v1/service-{}/items/42", n % 100),
        http: true,
    },
    Form {
        name: "paths with templates, any caller",
        action: "ALLOW",
        rule: |n| {
            format!(
                "{{to: [{{operation: {{methods: [GET], paths: ['/shop/service-{n}/{{*}}/items/{{**}}']}}}}]}}"
            )
        },
        peer: |_| "spiffe://cluster.local/ns/web/sa/frontend".to_owned(),
        path: |n| format!("/shop/service-{n}/eu/items/1/2"),
        http: true,
    },
    Form {
        name: "DENY by principal, nothing allowed",
        action: "DENY",
        rule: |n| format!("{{from: [{{source: {{principals: [cluster.local/ns/team-{n}/sa/intruder]}}}}]}}"),
        peer: |n| format!("spiffe://cluster.local/ns/team-{n}/sa/frontend"),
        path: |_| "/".to_owned(),
        http: true,
    },
    Form {
        name: "request header, any caller",
        action: "ALLOW",
        rule: |n| format!("{{when: [{{key: 'request.headers[x-service]', values: [/service-{n}]}}]}}"),
        peer: |_| "spiffe://cluster.local/ns/web/sa/frontend".to_owned(),
        path: |n| format!("/service-{n}"),
        http: true,
    },
    Form {
        name: "namespace and port, TCP",
        action: "ALLOW",
        rule: |n| {
            format!(
                "{{from: [{{source: {{namespaces: [team-{n}]}}}}], to: [{{operation: {{ports: ['8080', '8443']}}}}]}}"
            )
        },
        peer: |n| format!("spiffe://cluster.local/ns/team-{n}/sa/frontend"),
        path: |_| "/".to_owned(),
        http: false,
    },
];

fn main() {
    println!(
        "{:<36} {:>7} {:>14} {:>14} {:>14}",
        "form", "rules", "permit ns", "denial ns", "compile ms"
    );
    for form in FORMS {
        for count in [10, 1_000, 10_000] {
            let set = set(form, count);
            let before = Instant::now();
            let program = set.in_force(&workload(), &mesh()).program;
            let compiled = before.elapsed();
            let permit = measure(&program, form, count / 2);
            let denial = measure(&program, form, 2 * count + 1);
            println!(
                "{:<36} {count:>7} {permit:>14} {denial:>14} {:>14.1}",
                form.name,
                compiled.as_secs_f64() * 1e3
            );
        }
    }
}

fn mesh() -> Mesh {
    Mesh {
        domains: LocalDomains::new("cluster.local".parse().unwrap(), []),
        root_namespace: "istio-system".to_owned(),
        providers: BTreeMap::new(),
    }
}

fn workload() -> Workload {
    Workload {
        namespace: "shop".to_owned(),
        labels: BTreeMap::new(),
        role: Role::Sidecar,
    }
}

fn set(form: &Form, count: usize) -> PolicySet {
    let mut set = PolicySet::default();
    for start in (0..count).step_by(PER_POLICY) {
        let rules: Vec<String> = (start..count.min(start + PER_POLICY)).map(form.rule).collect();
        let text = format!(
            "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: p{start}, namespace: \
             shop}}, spec: {{action: {}, rules: [{}]}}}}",
            form.action,
            rules.join(", ")
        );
        for reading in read_text("bench", &text, None) {
            set.apply(reading);
        }
    }
    assert_eq!(set.outstanding().count(), 0);
    set
}

/// Nanoseconds per decision about the question of rule `number`.
fn measure(program: &Program, form: &Form, number: usize) -> String {
    let peer: SpiffeId = (form.peer)(number).parse().unwrap();
    let target = (form.path)(number);
    let path = RequestPath::new(&target, Normalization::Base).unwrap();
    let address: IpAddr = "10.1.2.3".parse().unwrap();
    let connection = Connection {
        peer: Some(&peer),
        source: address,
        remote: address,
        destination: address,
        port: 8080,
        sni: None,
    };
    let headers = [
        ("accept", "*/*"),
        ("user-agent", "bench"),
        ("x-service", path.as_str()),
    ];
    let request = Request {
        method: "GET",
        authority: "cart.shop.svc:8080",
        path: &path,
        headers: &headers,
        identity: None,
    };
    let request = form.http.then_some(&request);
    let mut runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            let before = Instant::now();
            for _ in 0..DECISIONS {
                black_box(decide(program, black_box(&connection), black_box(request)));
            }
            before.elapsed().as_secs_f64() * 1e9 / f64::from(DECISIONS)
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    let middle = runs.get(RUNS / 2).copied().unwrap_or_default();
    let slowest = runs.last().copied().unwrap_or_default();
    format!("{middle:.0} ({slowest:.0})")
}

fn decide(program: &Program, connection: &Connection<'_>, request: Option<&Request<'_>>) -> bool {
    match program.gate(connection, request) {
        Gate::Open(cleared) => cleared.decide(connection, request).is_ok(),
        Gate::Ask(_) | Gate::Shut(_) => false,
    }
}
