//! Mistakes in rules, and in how policies combine.

use std::collections::BTreeSet;
use std::sync::Arc;

use signet_policy::model::{
    Action, Attachment, Attribute, AuthorizationPolicy, Object, ObjectKey, Rule, Term, Values,
};

use super::super::inventory::Protocol;
use super::super::judge::{Judge, Outcome};
use super::super::literals::Maker;
use super::super::question::{Question, Token};
use super::finding::Code;
use super::subject::Subject;
use super::{Evidence, Findings};

/// Labels by which pods of gateways are known.
const GATEWAY_LABELS: [&str; 3] = [
    "gateway.networking.k8s.io/gateway-name",
    "istio.io/gateway-name",
    "gateway.istio.io/managed",
];

/// Whether pods of gateways are known by it.
pub(super) fn is_gateway_label(name: &str) -> bool {
    GATEWAY_LABELS.contains(&name)
}

pub(super) fn look(findings: &mut Findings<'_>) {
    let evidence = findings.evidence;
    for object in evidence.set.objects() {
        selector(findings, object);
        let Object::Authorization(policy) = &**object else {
            continue;
        };
        let key = object.key();
        let subjects = findings.subjects(object);
        for (at, rule) in policy.rules.iter().enumerate() {
            let place = (&key, at);
            negated(findings, place, (policy, rule));
            http(findings, place, (policy, rule, &subjects));
            under_deny(findings, place, (policy, rule, &subjects));
        }
    }
    default_deny(findings);
}

fn selector(findings: &mut Findings<'_>, object: &Arc<Object>) {
    let key = object.key();
    let tree = findings.evidence.documents.tree(&key);
    let written = tree
        .and_then(|tree| tree.field("spec")?.field("selector"))
        .is_some();
    match object.attachment() {
        Attachment::Everything if written => findings.add(
            Code::EmptySelector,
            (&key, "spec.selector"),
            "a selector without labels selects the whole namespace".to_owned(),
            "add matchLabels, or remove the selector to say so openly",
        ),
        Attachment::Labels(labels) => {
            let gateway = labels.keys().find(|name| is_gateway_label(name));
            if let Some(label) = gateway {
                findings.add(
                    Code::SelectsGateway,
                    (&key, "spec.selector"),
                    format!(
                        "{label} is a label of gateways; waypoints heed no selector, gateways not for sure"
                    ),
                    "attach the policy by targetRefs to the Gateway or the Service",
                );
            }
        }
        Attachment::Everything | Attachment::Targets(_) => {}
    }
}

fn negated(
    findings: &mut Findings<'_>,
    (key, at): (&ObjectKey, usize),
    (policy, rule): (&AuthorizationPolicy, &Rule),
) {
    if policy.action != Action::Allow {
        return;
    }
    for operation in &rule.to {
        for term in operation.iter().filter(|term| term.negated) {
            let same = |other: &Term| !other.negated && other.attribute == term.attribute;
            let risky = matches!(
                term.attribute,
                Attribute::Path | Attribute::Method | Attribute::Host
            );
            if risky && !operation.iter().any(same) {
                findings.add(
                    Code::NegatedAllow,
                    (key, &format!("spec.rules[{at}].{}", term.place)),
                    format!(
                        "whatever is not listed is allowed, any {} nobody thought of included",
                        term.attribute
                    ),
                    "list what is allowed, and put what is forbidden into a DENY policy",
                );
            }
        }
    }
}

/// The ports that an operation, or the conditions, limit a rule to.
fn ports(terms: &[Term]) -> Option<Vec<u16>> {
    terms.iter().find_map(|term| match (&term.values, term.negated) {
        (Values::Ports(ports), false) => Some(ports.clone()),
        _ => None,
    })
}

/// HTTP fields where there may be no HTTP.
fn http(
    findings: &mut Findings<'_>,
    (key, at): (&ObjectKey, usize),
    (policy, rule, subjects): (&AuthorizationPolicy, &Rule, &[Subject<'_>]),
) {
    let Some(term) = rule.terms().find(|term| term.attribute.is_http()) else {
        return;
    };
    let field = format!("spec.rules[{at}].{}", term.place);
    let limited = ports(&rule.when).or_else(|| {
        let all: Option<Vec<_>> = rule.to.iter().map(|operation| ports(operation)).collect();
        all.filter(|all| !all.is_empty()).map(|all| all.concat())
    });
    let mut known = false;
    for subject in subjects {
        let Some(real) = subject.real else {
            continue;
        };
        let carried = findings.evidence.inventory.ports(real);
        known |= !carried.is_empty();
        let meant = |port: &u16| limited.as_ref().is_none_or(|ports| ports.contains(port));
        for (port, protocol) in carried.iter().filter(|(port, _)| meant(port)) {
            if *protocol != Protocol::Http {
                on_tcp(
                    findings,
                    (key, &field),
                    (policy, limited.is_some(), &subject.name(), *port, *protocol),
                );
            }
        }
    }
    if !known && limited.is_none() && policy.action == Action::Deny {
        findings.add(
            Code::BroadDeny,
            (key, &field),
            format!(
                "on ports without HTTP the {} counts as matched, so the rule denies every TCP connection that its \
                 other fields match",
                term.attribute
            ),
            "name the ports that carry HTTP in to.operation.ports",
        );
    }
}

fn on_tcp(
    findings: &mut Findings<'_>,
    at: (&ObjectKey, &str),
    (policy, limited, subject, port, protocol): (&AuthorizationPolicy, bool, &str, u16, Protocol),
) {
    let (effect, code) = match policy.action {
        Action::Allow => ("the whole rule matches nothing there", Code::HttpOnTcp),
        Action::Deny => (
            "the field counts as matched there, so the rule denies whatever its other fields match",
            if limited { Code::HttpOnTcp } else { Code::BroadDeny },
        ),
        Action::Audit | Action::Custom(_) => ("the field counts as matched there", Code::HttpOnTcp),
    };
    let (why, fix) = match protocol {
        Protocol::Tcp => (
            "carries no HTTP",
            "limit the rule to ports with HTTP in to.operation.ports",
        ),
        _ => (
            "is not known to carry HTTP",
            "name the port http-… or set appProtocol: http if it does; else limit the rule by to.operation.ports",
        ),
    };
    findings.add(code, at, format!("port {port} of {subject} {why}: {effect}"), fix);
}

/// ALLOW rules of which nothing is left.
fn under_deny(
    findings: &mut Findings<'_>,
    (key, at): (&ObjectKey, usize),
    (policy, rule, subjects): (&AuthorizationPolicy, &Rule, &[Subject<'_>]),
) {
    if policy.action != Action::Allow || policy.meta.dry_run {
        return;
    }
    let mesh = findings.evidence.mesh;
    let maker = Maker::new(findings.evidence.own, &[findings.evidence.set]);
    let judge = Judge {
        mesh,
        own: findings.evidence.own,
        normalization: signet_policy::Normalization::Base,
        now: signet_certs::UnixTime::since_unix_epoch(std::time::Duration::ZERO),
    };
    for subject in subjects {
        let mut by = BTreeSet::new();
        let questions = with_tokens(&maker, maker.of_rule(rule));
        let all = questions
            .iter()
            .all(|question| match judge.rule(&subject.in_force, question).outcome {
                Outcome::Refused(refusal) if refusal.reason == "denied" => {
                    by.extend(refusal.by.map(|by| format!("{} {}", by.policy, by.path())));
                    true
                }
                _ => false,
            });
        if let (true, Some(deny)) = (all, by.first()) {
            findings.add(
                Code::AllowUnderDeny,
                (key, &format!("spec.rules[{at}]")),
                format!("all that it allows is denied by {deny}: DENY comes first, however narrow the ALLOW"),
                "narrow the DENY, for instance by notPrincipals or notPaths",
            );
            return;
        }
    }
}

/// The questions, and those without a token also with a good one: a DENY of whoever has none leaves these.
fn with_tokens(maker: &Maker, mut questions: Vec<Question>) -> Vec<Question> {
    let bare = questions
        .iter()
        .filter(|one| one.http.is_some() && matches!(one.token, Token::None));
    let tokens = maker.tokens();
    let with: Vec<Question> = bare
        .flat_map(|question| {
            tokens.iter().map(|claims| Question {
                token: Token::Claims(claims.clone()),
                ..question.clone()
            })
        })
        .collect();
    questions.extend(with);
    questions
}

/// Namespaces in which whatever no policy speaks of passes.
fn default_deny(findings: &mut Findings<'_>) {
    let evidence = findings.evidence;
    let root = &evidence.mesh.root_namespace;
    if evidence.policies().next().is_none() {
        return;
    }
    let denying = |namespace: &str| {
        evidence.policies().any(|(key, policy)| {
            policy.action == Action::Allow
                && !policy.meta.dry_run
                && policy.attachment == Attachment::Everything
                && (key.namespace == namespace || key.namespace == *root)
        })
    };
    for namespace in namespaces(evidence) {
        if namespace == *root || denying(&namespace) {
            continue;
        }
        let declared = evidence
            .inventory
            .namespaces
            .iter()
            .find(|one| one.name == namespace);
        let first = evidence.policies().find(|(key, _)| key.namespace == namespace);
        let place = declared
            .map(|one| one.place.clone())
            .or_else(|| evidence.at(&first?.0, ""));
        findings.put(
            Code::NoDefaultDeny,
            (format!("Namespace {namespace}"), String::new(), place),
            (
                "workloads that no ALLOW policy selects let everybody in".to_owned(),
                "give the namespace an AuthorizationPolicy with an empty spec (spec: {}), and allow what is needed",
            ),
        );
    }
}

/// Namespaces with policies or workloads.
fn namespaces(evidence: Evidence<'_>) -> BTreeSet<String> {
    let policies = evidence.policies().map(|(key, _)| key.namespace);
    let workloads = evidence.inventory.real().map(|one| one.meta.namespace.clone());
    policies.chain(workloads).collect()
}
