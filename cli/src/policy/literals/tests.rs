//! Questions match the rules they are made of.

use signet_policy::model::Action;
use signet_policy::scope::Role;
use signet_policy::{Mesh, Workload, read_text};

use super::super::judge::{Judge, Outcome};
use super::*;

const POLICIES: &str = r#"
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec:
  jwtRules:
  - {issuer: "https://id.example", audiences: [shop], jwksUri: "https://id.example/keys"}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: every, namespace: shop}
spec:
  rules:
  - from:
    - source: {principals: ["cluster.local/ns/web/sa/a", "cluster.local/ns/b/*", "*/sa/c", "*"]}
    - source: {namespaces: ["d", "e-*"], trustDomains: ["far.example"], notPrincipals: ["far.example/ns/d/sa/no"]}
    - source: {serviceAccounts: ["f/g", "h"], ipBlocks: ["10.0.0.0/8", "fd00::1"]}
    - source: {requestPrincipals: ["https://id.example/ann", "https://id.example/*", "*/bob", "*"]}
    to:
    - operation: {hosts: ["a.example", "*.b.example"], methods: ["GET", "PO*"], paths: ["/a", "/b/*", "*.css", "/c/{*}/d/{**}"], ports: ["80", "443"]}
    - operation: {paths: ["/only"], notMethods: ["DELETE"]}
    when:
    - {key: "request.headers[x-a]", values: ["v", "w*"]}
    - {key: "request.auth.claims[groups][inner]", values: ["admin"]}
    - {key: request.auth.audiences, values: [shop]}
"#;

#[test]
fn for_every_value_of_a_rule_there_is_a_question_that_it_matches() {
    let own: TrustDomain = "mesh.example".parse().unwrap();
    let mesh = Mesh {
        domains: signet_policy::principal::LocalDomains::new(own.clone(), []),
        root_namespace: "istio-system".to_owned(),
        providers: [].into(),
    };
    let mut set = PolicySet::default();
    set.replace(read_text("test", POLICIES, None));
    assert_eq!(set.outstanding().count(), 0);
    let workload = Workload {
        namespace: "shop".to_owned(),
        labels: [].into(),
        role: Role::Sidecar,
    };
    let in_force = set.in_force(&workload, &mesh);
    let judge = Judge {
        mesh: &mesh,
        own: &own,
        normalization: signet_policy::Normalization::Base,
        now: signet_certs::UnixTime::since_unix_epoch(std::time::Duration::ZERO),
    };
    let maker = Maker::new(&own, &[&set]);
    let objects: Vec<_> = set.objects().cloned().collect();
    let Some(Object::Authorization(policy)) = objects.iter().map(|one| &**one).next() else {
        panic!("the policy comes first");
    };
    assert_eq!(policy.action, Action::Allow);
    let questions = maker.of_rule(&policy.rules[0]);
    let refused: Vec<_> = questions
        .iter()
        .filter(|question| matches!(judge.rule(&in_force, question).outcome, Outcome::Refused(_)))
        .collect();
    // One for each excluded value and each source or operation it stands beside.
    for question in &refused {
        let excluded = question.caller == Caller::Id("spiffe://far.example/ns/d/sa/no".parse().unwrap())
            || question.http.as_ref().unwrap().method == "DELETE";
        assert!(
            excluded,
            "{question:?}: {:?}",
            judge.rule(&in_force, question).outcome
        );
    }
    // The excluded method, once per source; the excluded caller is let in by another source.
    assert_eq!(refused.len(), 4);
    assert!(questions.len() > 60, "{}", questions.len());
}
