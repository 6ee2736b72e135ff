use std::net::IpAddr;

use super::*;
use crate::clause::Making;
use crate::connection::Connection;
use crate::document::{Content, read_text};
use crate::model::Object;
use crate::principal::LocalDomains;

fn local() -> LocalDomains {
    LocalDomains::new("td".parse().unwrap(), [])
}

/// The clauses of one ALLOW policy with a rule of this form for each number.
fn clauses(count: usize, rule: impl Fn(usize) -> String) -> Vec<Clause> {
    let mut clauses = Vec::new();
    for (policy, start) in (0..).zip((0..count).step_by(500)) {
        let rules: Vec<String> = (start..count.min(start + 500)).map(&rule).collect();
        let text = format!(
            "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: p, namespace: n}}, \
             spec: {{rules: [{}]}}}}",
            rules.join(", ")
        );
        let object = match read_text("test", &text, None).remove(0).content {
            Content::Sound(object) => object,
            other => panic!("{other:?}"),
        };
        let Object::Authorization(object) = &*object else {
            panic!("{object}");
        };
        for (number, rule) in (0..).zip(&object.rules) {
            clauses.extend(Making::new(policy, number, &object.action, &local()).clauses(rule));
        }
    }
    clauses
}

/// How many clauses are tried for a connection from this peer to this port.
fn tried(index: &Index, peer: &str, source: &str, port: u16) -> usize {
    let peer = peer.parse().unwrap();
    let source: IpAddr = source.parse().unwrap();
    let connection = Connection {
        peer: Some(&peer),
        source,
        remote: source,
        destination: source,
        port,
        sni: None,
    };
    let mut tried = 0;
    index.search(&Facts::new(&connection, None, &local()), &mut |_| {
        tried += 1;
        false
    });
    tried
}

#[test]
fn rules_that_cannot_match_are_not_tried() {
    type Form = fn(usize) -> String;
    let forms: [(&str, Form); 5] = [
        ("principal", |n| {
            format!("{{from: [{{source: {{principals: [td/ns/n{n}/sa/a]}}}}]}}")
        }),
        ("account", |n| {
            format!("{{from: [{{source: {{serviceAccounts: [n{n}/a]}}}}]}}")
        }),
        ("namespace", |n| {
            format!("{{from: [{{source: {{namespaces: [n{n}, 'x{n}-*']}}}}]}}")
        }),
        ("address", |n| {
            format!(
                "{{from: [{{source: {{ipBlocks: [10.{}.{}.0/24]}}}}]}}",
                n / 250,
                n % 250
            )
        }),
        ("port", |n| format!("{{to: [{{operation: {{ports: ['{n}']}}}}]}}")),
    ];
    for (name, form) in forms {
        let index = Index::new(&clauses(5000, form));
        let tried = tried(&index, "spiffe://td/ns/n77/sa/a", "10.0.77.9", 77);
        assert!((1..=LEAF).contains(&tried), "{name}: {tried}");
    }
}

#[test]
fn rules_that_share_each_value_are_told_apart_by_all_of_them_together() {
    let index = Index::new(&clauses(10_000, |n| {
        let (a, b) = (n / 100, n % 100);
        format!("{{from: [{{source: {{namespaces: [n{a}]}}}}], to: [{{operation: {{ports: ['{b}']}}}}]}}")
    }));
    assert_eq!(tried(&index, "spiffe://td/ns/n7/sa/a", "10.0.0.1", 8), 1);
    assert_eq!(tried(&index, "spiffe://td/ns/n7/sa/a", "10.0.0.1", 100), 0);
}

#[test]
fn rules_that_demand_headers_are_filed_by_them() {
    let index = Index::new(&clauses(3000, |n| {
        format!("{{when: [{{key: 'request.headers[x-team]', values: [team-{n}, '*-{n}-x']}}]}}")
    }));
    let address: IpAddr = "10.0.0.1".parse().unwrap();
    let connection = Connection {
        peer: None,
        source: address,
        remote: address,
        destination: address,
        port: 1,
        sni: None,
    };
    let path = crate::path::RequestPath::new("/", crate::path::Normalization::Base).unwrap();
    for (values, expected) in [
        (vec![("x-team", "team-7")], 1),
        // Found by the second value alone, and by both joined.
        (vec![("x-team", "a"), ("x-team", "b-9-x")], 2),
        (vec![("x-team", "team-7"), ("x-team", "b")], 1),
        (vec![("x-team", "other")], 0),
        (vec![], 0),
    ] {
        let headers = crate::connection::tests::Listed(values);
        let request = crate::connection::Request {
            method: "GET",
            authority: "a",
            path: &path,
            headers: &headers,
            identity: None,
        };
        let mut tried = 0;
        index.search(&Facts::new(&connection, Some(&request), &local()), &mut |_| {
            tried += 1;
            false
        });
        assert_eq!(tried, expected);
    }
}

#[test]
fn rules_of_different_forms_are_filed_side_by_side() {
    let index = Index::new(&clauses(6000, |n| match n % 3 {
        0 => format!("{{from: [{{source: {{principals: [td/ns/n{n}/sa/a]}}}}]}}"),
        1 => format!("{{from: [{{source: {{namespaces: [m{n}]}}}}]}}"),
        _ => format!("{{to: [{{operation: {{ports: ['{n}']}}}}]}}"),
    }));
    assert_eq!(tried(&index, "spiffe://td/ns/n3/sa/a", "10.0.0.1", 5), 2);
    assert_eq!(tried(&index, "spiffe://td/ns/m4/sa/b", "10.0.0.1", 1), 1);
}

#[test]
fn nested_prefixes_cost_what_matches() {
    let index = Index::new(&clauses(2000, |n| {
        format!(
            "{{from: [{{source: {{principals: ['td/ns/{}*']}}}}]}}",
            "a".repeat(n % 200)
        )
    }));
    assert_eq!(tried(&index, "spiffe://td/ns/b/sa/a", "10.0.0.1", 1), 10);
}

#[test]
fn an_index_is_not_much_larger_than_its_rules() {
    let all = clauses(300, |n| {
        let many: Vec<String> = (0..40).map(|k| format!("td/ns/n{}/sa/a", (n + k) % 60)).collect();
        let ports: Vec<String> = (0..40).map(|k| format!("'{}'", (n * 7 + k) % 60)).collect();
        format!(
            "{{from: [{{source: {{principals: [{}]}}}}], to: [{{operation: {{ports: [{}]}}}}]}}",
            many.join(", "),
            ports.join(", ")
        )
    });
    assert!(filed(&Index::new(&all)) <= COPIES * (300 * 80 + LEAF));
}

fn filed(index: &Index) -> usize {
    match index {
        Index::Leaf(numbers) => numbers.len(),
        Index::Split(split) => {
            let mut sum = filed(&split.rest);
            match &split.filed {
                Filed::Ports(ports) => sum += ports.iter().map(|(_, child)| filed(child)).sum::<usize>(),
                Filed::Texts(texts) => {
                    texts.clone().map(|child| sum += filed(&child));
                }
                Filed::Blocks(_) => {}
            }
            sum
        }
    }
}
