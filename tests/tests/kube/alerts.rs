//! The alert rules speak of metrics, outcomes and runbooks that exist.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use signet_tests::dir::files_below;
use signet_tests::kube::manifests::{repository, text};

use crate::registered::{mentioned, metrics};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    r#for: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: Annotations,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Annotations {
    summary: String,
    description: String,
    runbook: String,
}

fn rules() -> Vec<Rule> {
    let rules: Rules = serde_saphyr::from_str(&text("deploy/alerts/rules.yaml")).unwrap();
    let names: Vec<&str> = rules.groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(names, ["signet-ca", "signet-agent", "signet-proxy"]);
    rules.groups.into_iter().flat_map(|group| group.rules).collect()
}

#[test]
fn every_metric_in_a_rule_is_registered_by_a_binary() {
    let samples: BTreeSet<String> = metrics().iter().flat_map(|metric| metric.samples()).collect();
    for rule in rules() {
        let used = mentioned(&rule.expr);
        assert!(!used.is_empty(), "{} looks at something of ours", rule.alert);
        for name in used {
            assert!(
                samples.contains(&name),
                "{}: nothing has samples named {name}",
                rule.alert
            );
        }
    }
}

#[test]
fn every_outcome_in_a_rule_is_a_word_of_the_programs() {
    let sources =
        ["ca-server/src", "agent/src", "proxy/src"].map(|folder| files_below(&repository().join(folder)));
    let code: String = sources
        .iter()
        .flatten()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    for rule in rules() {
        let quoted = rule.expr.split('"').skip(1).step_by(2);
        for word in quoted.flat_map(|choice| choice.split('|')) {
            assert!(
                code.contains(&format!("\"{word}\"")),
                "{}: no program says {word:?}",
                rule.alert
            );
        }
    }
}

#[test]
fn every_rule_is_whole_and_leads_to_what_to_do() {
    let troubleshooting = text("docs/troubleshooting.md");
    let anchors: BTreeSet<String> = crate::documents::anchors(&troubleshooting);
    let mut names = BTreeSet::new();
    for rule in rules() {
        assert!(names.insert(rule.alert.clone()), "{} is there twice", rule.alert);
        assert!(rule.alert.starts_with("Signet"), "{}", rule.alert);
        assert!(
            matches!(rule.labels["severity"].as_str(), "warning" | "critical"),
            "{}",
            rule.alert
        );
        let count = |c| rule.expr.matches(c).count();
        assert_eq!(count('('), count(')'), "{}: {}", rule.alert, rule.expr);
        let wait: Option<signet_runtime::config::HumanDuration> =
            rule.r#for.map(|wait| wait.parse().unwrap());
        assert!(wait.is_none_or(|wait| wait.0.as_secs() >= 60), "{}", rule.alert);
        assert!(
            !rule.annotations.summary.is_empty() && rule.annotations.description.ends_with('.'),
            "{}",
            rule.alert
        );
        let anchor = rule.annotations.runbook.strip_prefix("docs/troubleshooting.md#");
        assert!(
            anchor.is_some_and(|a| anchors.contains(a)),
            "{}: {}",
            rule.alert,
            rule.annotations.runbook
        );
        assert!(
            troubleshooting.contains(&format!("`{}`", rule.alert)),
            "{} is not in the text",
            rule.alert
        );
    }
}
