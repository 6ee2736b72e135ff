//! Mistakes in single values, which would match nobody, or not all that is meant.

use signet_policy::matcher::{Glob, Pattern};
use signet_policy::model::term::PathValue;
use signet_policy::model::{Action, Attribute, ObjectKey, Term, Values};

use super::Findings;
use super::finding::Code;

/// In the first segment of a principal this means our own trust domain.
const POINTER: &str = "cluster.local";
/// Segments of a principal in which it does.
const POINTING: usize = 5;

pub(super) fn look(findings: &mut Findings<'_>) {
    for (key, policy) in findings.evidence.policies() {
        for (at, rule) in policy.rules.iter().enumerate() {
            for term in rule.terms() {
                let field = format!("spec.rules[{at}].{}", term.place);
                look_at(findings, (&key, &policy.action), (term, &field));
            }
        }
    }
}

fn look_at(findings: &mut Findings<'_>, (key, action): (&ObjectKey, &Action), (term, field): (&Term, &str)) {
    let value_at = |value: usize| format!("{field}[{value}]");
    match (&term.attribute, &term.values) {
        (Attribute::Principal, Values::Patterns(values)) => {
            for (at, value) in values.iter().enumerate() {
                principal(findings, (key, &value_at(at)), value);
            }
        }
        (Attribute::TrustDomain, Values::Patterns(values)) => {
            for (at, value) in values.iter().enumerate() {
                trust_domain(findings, (key, &value_at(at)), value);
            }
        }
        (Attribute::Host, Values::Patterns(values)) => {
            for (at, value) in values.iter().enumerate() {
                host(findings, (key, &value_at(at)), (value, values, action));
            }
        }
        (Attribute::Method, Values::Patterns(values)) => {
            for (at, value) in values.iter().enumerate() {
                method(findings, (key, &value_at(at)), value);
            }
        }
        (Attribute::Path, Values::Paths(values)) => {
            for (at, value) in values.iter().enumerate() {
                path(findings, (key, &value_at(at)), value);
            }
        }
        (Attribute::Namespace, Values::Globs(values)) => {
            for (at, value) in values.iter().enumerate() {
                namespace(findings, (key, &value_at(at)), (value, term.negated));
            }
        }
        _ => {}
    }
}

fn principal(findings: &mut Findings<'_>, at: (&ObjectKey, &str), value: &Pattern) {
    let text = value.to_string();
    if text.contains("spiffe://") {
        let right = text.replace("spiffe://", "");
        findings.add(
            Code::Scheme,
            at,
            format!("{text:?} matches nobody: principals are compared without their scheme"),
            &format!("write {right:?}"),
        );
        return;
    }
    let segments: Vec<&str> = text.split('/').collect();
    let domain = segments.first().copied().unwrap_or_default();
    let literal = segments.len() != POINTING && is_literal(findings, domain);
    let ours = domain == POINTER || findings.evidence.mesh.domains.contains(domain);
    match (value, segments.as_slice()) {
        (Pattern::Prefix(_), [_, _, ..]) if literal => findings.add(
            Code::LiteralDomain,
            at,
            format!(
                "{text:?} matches nobody: cluster.local means our trust domain in values of the form \
                 cluster.local/ns/…/sa/… only, and ours is {}",
                findings.evidence.own
            ),
            &with_own_domain(findings, segments.get(1..).unwrap_or_default()),
        ),
        // An end that is left open, or a beginning: whose it is cannot be told.
        (Pattern::Suffix(_) | Pattern::Present, _) | (Pattern::Prefix(_), [] | [_]) => {}
        (Pattern::Prefix(_), _) if ours => {}
        (Pattern::Exact(_), [_, "ns", _, "sa", _, ..]) if ours => {}
        (Pattern::Prefix(_), _) | (Pattern::Exact(_), [_, "ns", _, "sa", _, ..]) => findings.add(
            Code::ForeignDomain,
            at,
            format!("{text:?} is of trust domain {domain:?}, which is not ours"),
            "leave it if that domain is federated; for accounts of ours write cluster.local/ns/…/sa/…",
        ),
        // Other issuers of SPIFFE IDs have other forms, in domains of their own.
        _ if !ours && domain.contains('.') => {}
        _ => findings.add(
            Code::PrincipalForm,
            at,
            format!("{text:?} matches nobody: identities have the form TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT"),
            "write it out, or use serviceAccounts: [NAMESPACE/ACCOUNT]",
        ),
    }
}

/// Whether it says `cluster.local`, and neither our trust domain nor an alias is called so.
fn is_literal(findings: &Findings<'_>, domain: &str) -> bool {
    domain == POINTER && !findings.evidence.mesh.domains.contains(POINTER)
}

/// What to write in place of a pattern of `cluster.local`.
fn with_own_domain(findings: &Findings<'_>, rest: &[&str]) -> String {
    let own = findings.evidence.own;
    match rest {
        ["ns", namespace, "*"] => format!(
            "write namespaces: [{namespace}], or {:?}",
            format!("{own}/ns/{namespace}/*")
        ),
        rest => format!("write {:?}", format!("{own}/{}", rest.join("/"))),
    }
}

fn trust_domain(findings: &mut Findings<'_>, at: (&ObjectKey, &str), value: &Pattern) {
    let text = value.to_string();
    if is_literal(findings, &text) {
        let own = findings.evidence.own;
        findings.add(
            Code::LiteralDomain,
            at,
            format!("{text:?} is nobody's: trust domains are compared as they are called, and ours is {own}"),
            &format!("write {:?}", own.to_string()),
        );
    }
}

fn host(
    findings: &mut Findings<'_>,
    at: (&ObjectKey, &str),
    (value, all, action): (&Pattern, &[Pattern], &Action),
) {
    let name = match value {
        Pattern::Exact(name) | Pattern::Suffix(name) if !name.contains(':') && !name.is_empty() => name,
        _ => return,
    };
    let with_port = |other: &Pattern| match other {
        Pattern::Exact(other) => other
            .strip_prefix(&**name)
            .is_some_and(|rest| rest.starts_with(':')),
        Pattern::Suffix(other) => other
            .strip_prefix(&**name)
            .is_some_and(|rest| rest.starts_with(':')),
        Pattern::Prefix(other) => format!("{name}:").starts_with(&**other),
        Pattern::Present => true,
    };
    if all.iter().any(with_port) {
        return;
    }
    let effect = match action {
        Action::Deny => "passes this rule by",
        _ => "is not meant by it",
    };
    let fix = match value {
        Pattern::Suffix(_) => format!(
            "add {:?} for each port that clients name",
            format!("{value}:8080")
        ),
        _ => format!("add {:?}", format!("{value}:*")),
    };
    findings.add(
        Code::HostWithoutPort,
        at,
        format!("hosts are compared with their port: a client that sends {name}:8080 {effect}"),
        &fix,
    );
}

fn method(findings: &mut Findings<'_>, at: (&ObjectKey, &str), value: &Pattern) {
    let text = value.to_string();
    if text.bytes().any(|b| b.is_ascii_lowercase()) {
        findings.add(
            Code::LowerMethod,
            at,
            format!("{text:?} matches nothing that clients send: methods are compared as they are"),
            &format!("write {:?}", text.to_ascii_uppercase()),
        );
    }
}

fn path(findings: &mut Findings<'_>, at: (&ObjectKey, &str), value: &PathValue) {
    let (PathValue::Pattern(Pattern::Exact(text)) | PathValue::Pattern(Pattern::Prefix(text))) = value else {
        return;
    };
    if !text.starts_with('/') {
        findings.add(
            Code::PathWithoutSlash,
            at,
            format!(
                "{:?} matches no request: paths begin with a slash",
                value.to_string()
            ),
            &format!("write {:?}", format!("/{value}")),
        );
    }
}

fn namespace(findings: &mut Findings<'_>, at: (&ObjectKey, &str), (value, negated): (&Glob, bool)) {
    let inventory = findings.evidence.inventory;
    let name = value.as_str();
    if inventory.namespaces.is_empty() || name.contains('*') {
        return;
    }
    let known = inventory.namespaces.iter().any(|one| one.name == name)
        || inventory.workloads.iter().any(|one| one.meta.namespace == name);
    if !known {
        let effect = if negated { "always holds" } else { "never matches" };
        findings.add(
            Code::AbsentNamespace,
            at,
            format!("there is no namespace {name:?} here, so this {effect}"),
            "correct the name, or create the namespace first",
        );
    }
}
