//! What is logged of the policies in force: each thing once, for as long as it stands.

use std::collections::{BTreeMap, BTreeSet};

use super::held::Outstanding;
use super::lost::{Lost, LostField};
use super::status::PortView;

/// What was logged and still stands.
#[derive(Debug, Default)]
pub(super) struct News {
    faults: BTreeSet<(String, String)>,
    /// Policy, rule, whether nothing can enforce it, and port; port 0 stands for all.
    lost: BTreeSet<(String, usize, bool, u16)>,
    /// Ports on which tokens are not looked at.
    tokens: BTreeSet<u16>,
    disputes: BTreeMap<u16, String>,
}

impl News {
    /// Logs what is wrong with objects.
    pub(super) fn faults(&mut self, outstanding: &[Outstanding]) {
        let mut standing = BTreeSet::new();
        for object in outstanding {
            let name = object.name.to_string();
            for fault in &object.faults {
                let thing = (name.clone(), fault.clone());
                if !self.faults.contains(&thing) {
                    tracing::warn!(
                        policy = %name, origin = %object.origin, error = %fault, outcome = object.state(),
                        "a policy cannot be read"
                    );
                }
                standing.insert(thing);
            }
        }
        self.faults = standing;
    }

    /// Who disagrees on a port makes it HTTP; who speaks something else there is refused, and has to know why.
    pub(super) fn ports(&mut self, ports: &BTreeMap<u16, PortView>) {
        let disputed = ports.iter().filter(|(_, view)| view.disputed);
        let standing: BTreeMap<u16, String> = disputed
            .map(|(port, view)| (*port, view.origin.clone()))
            .collect();
        for (port, origin) in &standing {
            if self.disputes.get(port) != Some(origin) {
                tracing::warn!(
                    port, %origin,
                    "there is disagreement on the protocol of a port; it is judged as HTTP"
                );
            }
        }
        self.disputes = standing;
    }

    /// Logs what cannot be enforced, by rule, where a port is new.
    pub(super) fn lost(&mut self, lost: &Lost) {
        for rule in self.new_rules(&lost.fields) {
            let (policy, number, field) = (rule.policy, rule.rule, rule.fields.join(", "));
            if rule.everywhere {
                tracing::warn!(
                    policy,
                    rule = number,
                    field,
                    "a field cannot be enforced; it counts on the safe side"
                );
            } else {
                tracing::warn!(
                    policy,
                    rule = number,
                    field,
                    ports = listed(&rule.ports),
                    "a field about requests counts on the safe side, since a port is judged as TCP"
                );
            }
        }
        // Rules for tokens hold where requests are read, which whoever wrote them has to know.
        if let Some(ports) = self.new_tokens(lost.tokens.as_deref()) {
            tracing::warn!(
                ports = listed(&ports),
                "a RequestAuthentication cannot be enforced where a port is judged as TCP"
            );
        }
    }

    /// The rules that lose fields, but for those of which that is known for all their ports.
    fn new_rules<'l>(&mut self, fields: &'l [LostField]) -> Vec<LostRule<'l>> {
        let mut rules: BTreeMap<(&str, usize, bool), LostRule<'_>> = BTreeMap::new();
        for field in fields {
            let (policy, rule, everywhere) = (&*field.policy, field.rule, field.everywhere);
            let rule = rules
                .entry((policy, rule, everywhere))
                .or_insert_with(|| LostRule {
                    policy,
                    rule,
                    everywhere,
                    fields: Vec::new(),
                    ports: BTreeSet::new(),
                });
            rule.fields.push(&field.field);
            rule.ports.extend(marks(&field.ports));
        }
        let places = |rule: &LostRule<'_>| {
            let (policy, number) = (rule.policy.to_owned(), rule.rule);
            let place = |port: &u16| (policy.clone(), number, rule.everywhere, *port);
            rule.ports.iter().map(place).collect::<BTreeSet<_>>()
        };
        let standing = rules.values().flat_map(places).collect();
        let known = std::mem::replace(&mut self.lost, standing);
        let mut rules: Vec<LostRule<'_>> = rules.into_values().collect();
        rules.retain(|rule| !places(rule).is_subset(&known));
        rules
    }

    fn new_tokens(&mut self, lost: Option<&[u16]>) -> Option<BTreeSet<u16>> {
        let standing: BTreeSet<u16> = lost.into_iter().flat_map(marks).collect();
        let known = std::mem::replace(&mut self.tokens, standing.clone());
        (!standing.is_subset(&known)).then_some(standing)
    }
}

/// What one rule loses.
#[derive(Debug, PartialEq, Eq)]
struct LostRule<'l> {
    policy: &'l str,
    rule: usize,
    everywhere: bool,
    fields: Vec<&'l str>,
    ports: BTreeSet<u16>,
}

/// All ports together have a mark of their own.
fn marks(ports: &[u16]) -> Vec<u16> {
    if ports.is_empty() { vec![0] } else { ports.to_vec() }
}

fn listed(ports: &BTreeSet<u16>) -> String {
    let word = |port: &u16| match port {
        0 => "all".to_owned(),
        port => port.to_string(),
    };
    ports.iter().map(word).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(policy: &str, rule: usize, field: &str, ports: &[u16]) -> LostField {
        LostField {
            policy: policy.to_owned(),
            rule,
            field: field.to_owned(),
            everywhere: false,
            never_matches: false,
            ports: ports.to_vec(),
        }
    }

    #[test]
    fn a_rule_is_news_once_for_each_port_and_again_when_it_comes_back() {
        let mut news = News::default();
        let mut told = |fields: &[LostField]| -> Vec<(usize, String, String)> {
            let rules = news.new_rules(fields);
            let told = rules
                .iter()
                .map(|rule| (rule.rule, rule.fields.join("+"), listed(&rule.ports)));
            told.collect()
        };
        let is = |rule: usize, fields: &str, ports: &str| (rule, fields.to_owned(), ports.to_owned());
        let two = [field("p", 0, "paths", &[80]), field("p", 0, "methods", &[80])];
        assert_eq!(told(&two), [is(0, "paths+methods", "80")]);
        assert_eq!(told(&two), []);
        let more = [field("p", 0, "paths", &[80, 90]), field("p", 1, "paths", &[])];
        assert_eq!(told(&more), [is(0, "paths", "80, 90"), is(1, "paths", "all")]);
        assert_eq!(told(&two), [], "one port less is no news");
        assert_eq!(told(&[]), []);
        assert_eq!(told(&two[..1]), [is(0, "paths", "80")]);
        let everywhere = LostField {
            everywhere: true,
            ..two[0].clone()
        };
        assert_eq!(told(&[everywhere]).len(), 1, "that is another matter");
    }

    #[test]
    fn ports_without_tokens_are_news_once() {
        let mut news = News::default();
        let on = |ports: &[u16]| Some(ports.iter().copied().collect::<BTreeSet<u16>>());
        assert_eq!(news.new_tokens(Some(&[80])), on(&[80]));
        assert_eq!(news.new_tokens(Some(&[80])), None);
        assert_eq!(news.new_tokens(Some(&[80, 90])), on(&[80, 90]));
        assert_eq!(news.new_tokens(None), None);
        assert_eq!(news.new_tokens(Some(&[])), on(&[0]));
    }
}
