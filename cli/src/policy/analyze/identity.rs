//! Rules on the identity of peers, on ports that take callers without one.

use signet_policy::matcher::{Glob, Pattern};
use signet_policy::model::{
    Action, Attribute, AuthorizationPolicy, Mode, Object, ObjectKey, Rule, Term, Values,
};

use super::Findings;
use super::finding::Code;
use super::subject::Subject;

/// What a caller without identity makes of a rule.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// It is let in, or not kept out.
    Open,
    /// It is kept out.
    Closed,
}

pub(super) fn look(findings: &mut Findings<'_>) {
    let evidence = findings.evidence;
    for object in evidence.set.objects() {
        let Object::Authorization(policy) = &**object else {
            continue;
        };
        if policy.meta.dry_run || !matches!(policy.action, Action::Allow | Action::Deny) {
            continue;
        }
        let key = object.key();
        let subjects = findings.subjects(object);
        for (at, rule) in policy.rules.iter().enumerate() {
            for source in sources(rule) {
                if let Some((shape, term)) = shape(&policy.action, &source) {
                    let field = format!("spec.rules[{at}].{}", term.place);
                    judge(findings, (&key, &field), (policy, rule, shape, &subjects));
                }
            }
        }
    }
}

/// The terms of each source, with those of the conditions.
fn sources(rule: &Rule) -> Vec<Vec<&Term>> {
    let when = || rule.when.iter();
    match rule.from.as_slice() {
        [] => vec![when().collect()],
        some => some
            .iter()
            .map(|source| source.iter().chain(when()).collect())
            .collect(),
    }
}

fn is_peer(attribute: &Attribute) -> bool {
    matches!(
        attribute,
        Attribute::Principal | Attribute::Namespace | Attribute::ServiceAccount | Attribute::TrustDomain
    )
}

/// A plaintext caller fails every positive term and passes every negated one.
fn shape<'t>(action: &Action, source: &[&'t Term]) -> Option<(Shape, &'t Term)> {
    let peer = || source.iter().copied().filter(|term| is_peer(&term.attribute));
    let positive = peer().find(|term| !term.negated);
    let negated = peer().find(|term| term.negated);
    match (action, positive, negated) {
        (Action::Deny, Some(term), _) => Some((Shape::Open, term)),
        (Action::Allow, None, Some(term)) => Some((Shape::Open, term)),
        (Action::Allow, Some(term), _) | (Action::Deny, None, Some(term)) => Some((Shape::Closed, term)),
        _ => None,
    }
}

fn judge(
    findings: &mut Findings<'_>,
    at: (&ObjectKey, &str),
    (policy, rule, shape, subjects): (&AuthorizationPolicy, &Rule, Shape, &[Subject<'_>]),
) {
    for subject in subjects {
        for port in ports(findings, rule, subject) {
            let mode = subject.in_force.peers.mode(port);
            if mode == Mode::Strict || demands_identity(findings, subject) {
                continue;
            }
            let place = match port {
                0 => subject.name(),
                port => format!("port {port} of {}", subject.name()),
            };
            say(findings, at, (policy, shape, mode, &place));
            return;
        }
    }
}

fn say(
    findings: &mut Findings<'_>,
    at: (&ObjectKey, &str),
    (policy, shape, mode, place): (&AuthorizationPolicy, Shape, Mode, &str),
) {
    let word = mode.as_str();
    let strict = "set PeerAuthentication STRICT there";
    match (mode, shape, &policy.action) {
        (Mode::Disable, Shape::Closed, Action::Allow) => findings.add(
            Code::NoIdentity,
            at,
            format!("{place} is {word}: nobody has an identity there, so the rule matches nobody"),
            strict,
        ),
        (_, Shape::Open, Action::Deny) => findings.add(
            Code::PlaintextPasses,
            at,
            format!("{place} is {word}: whom the rule denies gets in by plaintext, where nobody has an identity"),
            "set PeerAuthentication STRICT there, or turn it round: DENY by notPrincipals",
        ),
        (_, Shape::Open, _) => findings.add(
            Code::PlaintextPasses,
            at,
            format!("{place} is {word}: a caller without identity is none of those excluded, and is let in"),
            "set PeerAuthentication STRICT there, and add principals: [\"*\"] to demand an identity",
        ),
        _ => findings.add(
            Code::PlaintextRefused,
            at,
            format!("{place} is {word}: callers without mutual TLS get as far as policies, and have no identity there"),
            strict,
        ),
    }
}

/// The ports a rule is about; 0 stands for all that have no mode of their own.
fn ports(findings: &Findings<'_>, rule: &Rule, subject: &Subject<'_>) -> Vec<u16> {
    let named = rule
        .terms()
        .filter_map(|term| match (&term.values, term.negated) {
            (Values::Ports(ports), false) => Some(ports.clone()),
            _ => None,
        });
    let named: Vec<u16> = named.flatten().collect();
    if !named.is_empty() {
        return named;
    }
    let known = subject.real.map(|real| findings.evidence.inventory.ports(real));
    let known: Vec<u16> = known
        .into_iter()
        .flat_map(std::collections::BTreeMap::into_keys)
        .collect();
    if known.is_empty() { vec![0] } else { known }
}

/// Whether another policy keeps everybody out who has no identity.
fn demands_identity(findings: &Findings<'_>, subject: &Subject<'_>) -> bool {
    subject
        .objects(findings.evidence)
        .into_iter()
        .any(|object| match object {
            Object::Authorization(policy) if policy.action == Action::Deny && !policy.meta.dry_run => {
                policy.rules.iter().any(|rule| {
                    let source = sources(rule);
                    rule.to.is_empty()
                        && source
                            .iter()
                            .any(|source| matches!(source.as_slice(), [only] if is_nobody(only)))
                })
            }
            _ => false,
        })
}

/// "None that has an identity."
fn is_nobody(term: &Term) -> bool {
    let star = match &term.values {
        Values::Patterns(values) => values.contains(&Pattern::Present),
        Values::Globs(values) => values.contains(&Glob::new("*")),
        _ => false,
    };
    term.negated && is_peer(&term.attribute) && star
}
