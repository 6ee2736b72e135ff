//! `docs/policy.md` has every sentence that a fault or a denial can say.

use signet_policy::fault::{BadValue, Conflict, Excerpt, Problem, Shape};

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy.md");
    std::fs::read_to_string(path).unwrap()
}

fn problems() -> Vec<Problem> {
    let x = || Excerpt::of("X");
    let shapes = [
        Shape::NotYaml(x()),
        Shape::TooLarge { bytes: 0, most: 0 },
        Shape::UnknownField { meant: None },
        Shape::WrongType {
            wanted: "text",
            found: "a list",
        },
        Shape::Null,
        Shape::Missing,
        Shape::Empty,
        Shape::TooMany {
            found: 0,
            unit: "entries",
            most: 0,
        },
        Shape::Version(x()),
        Shape::Kind(x()),
    ];
    let values = [
        BadValue::Action(x()),
        BadValue::Mode(x()),
        BadValue::Address(x()),
        BadValue::Port(x()),
        BadValue::Template(x(), "it has an empty segment"),
        BadValue::Account(x()),
        BadValue::TrustDomain(x()),
        BadValue::Key(x()),
        BadValue::OldKey(x()),
        BadValue::KeyForm(x()),
        BadValue::PseudoHeader(x()),
        BadValue::LabelStar(x()),
        BadValue::Name(x()),
        BadValue::Header(x()),
        BadValue::Url(x()),
        BadValue::Duration(x()),
        BadValue::Jwks("it is no JSON"),
        BadValue::Time(x()),
        BadValue::Bool(x()),
        BadValue::Target(x()),
    ];
    let conflicts = [
        Conflict::SelectorAndTargets,
        Conflict::TargetTwice,
        Conflict::TargetElsewhere,
        Conflict::ProviderWithoutCustom,
        Conflict::CustomWithoutProvider,
        Conflict::NoRules("DENY"),
        Conflict::CustomIdentity,
        Conflict::AccountsBeside,
        Conflict::NoValues,
        Conflict::PortsWithoutSelector,
        Conflict::TwoKeySources,
        Conflict::NoIssuer,
        Conflict::Twice,
    ];
    let shapes = shapes.into_iter().map(Problem::Shape);
    let values = values.into_iter().map(Problem::Value);
    shapes
        .chain(values)
        .chain(conflicts.into_iter().map(Problem::Conflict))
        .collect()
}

#[test]
fn every_fault_is_documented_with_its_hint() {
    let page = page();
    for problem in problems() {
        let sentence = problem.to_string().replace("\"X\"", "…").replace(" 0 ", " … ");
        assert!(page.contains(&sentence), "docs/policy.md has no {sentence:?}");
        let hint = problem.hint();
        assert!(page.contains(&hint), "docs/policy.md has no {hint:?}");
    }
}

#[test]
fn every_reason_of_a_denial_is_documented() {
    let page = page();
    for word in [
        "denied",
        "not_allowed",
        "faulty_policy",
        "provider_refused",
        "provider_unknown",
        "provider_http_only",
        "token_invalid",
        "token_ambiguous",
        "token_faulty_policy",
        "path_not_absolute",
        "path_nul",
        "path_control",
        "path_broken_encoding",
        "path_dot_parameters",
    ] {
        assert!(
            page.contains(&format!("`{word}`")),
            "docs/policy.md has no `{word}`"
        );
    }
}
