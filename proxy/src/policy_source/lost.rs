//! What of the policies in force this proxy cannot enforce, and on which ports. Pure.

use serde::Serialize;
use signet_policy::InForce;

use crate::spoken::{Blind, Judged};

/// A field that cannot be enforced, and counts on the safe side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostField {
    /// The policy.
    pub policy: String,
    /// The rule in it, from 0.
    pub rule: usize,
    /// The field.
    pub field: String,
    /// Whether nothing can enforce it; else listeners without HTTP cannot.
    pub everywhere: bool,
    /// Whether the rule then matches nothing, or the field counts as matched.
    pub never_matches: bool,
    /// The ports; none for all.
    pub ports: Vec<u16>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Fields of AuthorizationPolicies.
    pub fields: Vec<LostField>,
    /// Where tokens are not looked at though a RequestAuthentication says how; empty for all ports.
    pub tokens: Option<Vec<u16>>,
}

impl Lost {
    /// Of what is in force, where the ports are judged so.
    #[must_use]
    pub fn of(in_force: &InForce, judged: &Judged) -> Self {
        let mut fields = Vec::new();
        for field in in_force.program.unenforceable() {
            let ports = match judged.blind(&field.ports) {
                _ if field.everywhere => field.ports.clone(),
                Blind::On(ports) => ports,
                Blind::Everywhere => Vec::new(),
                Blind::Nowhere => continue,
            };
            fields.push(LostField {
                policy: field.policy.to_string(),
                rule: field.rule,
                field: field.field.to_string(),
                everywhere: field.everywhere,
                never_matches: field.never_matches,
                ports,
            });
        }
        let tokens = match judged.blind(&[]) {
            _ if in_force.tokens.is_empty() => None,
            Blind::On(ports) => Some(ports),
            Blind::Everywhere => Some(Vec::new()),
            Blind::Nowhere => None,
        };
        Self { fields, tokens }
    }

    /// How much it is: every field is one, and so are the rules for tokens.
    #[must_use]
    pub fn count(&self) -> usize {
        self.fields.len() + usize::from(self.tokens.is_some())
    }
}

#[cfg(test)]
mod tests {
    use signet_policy::{PolicySet, read_text};
    use signet_proto::policy::Ports;

    use super::*;
    use crate::config::{Config, PolicySource};
    use crate::spoken::Listeners;

    const POLICIES: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: writes}
spec:
  action: DENY
  rules:
  - to: [{operation: {methods: [POST]}}]
  - to: [{operation: {ports: ['90'], paths: [/admin]}}]
  - from: [{source: {namespaces: [a]}}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens}
spec: {jwtRules: [{issuer: i, jwksUri: 'https://i/keys'}]}
";

    fn lost(inbound: &str) -> Lost {
        let text = format!("policies: {{directory: /p, namespace: shop}}\n{inbound}");
        let config = Config::from_text(&text).unwrap();
        let PolicySource::Files { workload, .. } = &config.policies else {
            panic!("a directory is configured")
        };
        let mut set = PolicySet::default();
        set.replace(read_text("p.yaml", POLICIES, Some("shop")));
        let in_force = set.in_force(workload, &config.mesh);
        Lost::of(&in_force, &Listeners::of(&config).judged(&Ports::new()))
    }

    fn listener(port: u16, protocol: &str) -> String {
        format!("{{listen: '127.0.0.1:{port}', upstream: '127.0.0.1:{port}', protocol: {protocol}}}")
    }

    #[test]
    fn only_what_meets_a_port_without_http_is_lost() {
        let rules = |lost: &Lost| -> Vec<(usize, Vec<u16>)> {
            let fields = lost.fields.iter();
            fields.map(|field| (field.rule, field.ports.clone())).collect()
        };
        let (http, tcp) = (listener(80, "http"), listener(80, "tcp"));
        let (other, raw) = (listener(90, "grpc"), listener(90, "tcp"));

        let none = lost(&format!("inbound: [{http}, {other}]"));
        assert_eq!((none.clone(), none.count()), (Lost::default(), 0));

        let both = lost(&format!("inbound: [{tcp}, {raw}]"));
        assert_eq!(rules(&both), [(0, vec![80, 90]), (1, vec![90])]);
        assert_eq!((both.tokens.clone(), both.count()), (Some(vec![80, 90]), 3));

        let one = lost(&format!("inbound: [{tcp}, {other}]"));
        assert_eq!(rules(&one), [(0, vec![80])]);
        assert_eq!((one.tokens.clone(), one.count()), (Some(vec![80]), 2));

        let captured = lost("capture: {inbound: '127.0.0.1:15006'}");
        assert_eq!(rules(&captured), [(0, vec![]), (1, vec![90])]);
        assert_eq!(captured.tokens, Some(vec![]));
    }
}
