//! Label and field selectors: parsing and matching, with no view of the store.

use serde_json::Value;

use crate::kinds::Kind;

/// Why a selector cannot be understood.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum SelectorError {
    #[error("unable to parse requirement: {0:?}")]
    Malformed(String),
    #[error("field label not supported: {0}")]
    UnsupportedField(String),
}

/// Labels an object must or must not carry; all requirements hold together.
#[derive(Debug, Default)]
pub(crate) struct LabelSelector(Vec<LabelRule>);

#[derive(Debug, PartialEq)]
struct LabelRule {
    key: String,
    test: LabelTest,
}

#[derive(Debug, PartialEq)]
enum LabelTest {
    Present,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
}

impl LabelSelector {
    /// Parses `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a` and `!a`, joined by commas.
    pub(crate) fn parse(text: &str) -> Result<Self, SelectorError> {
        let rules = split_outside_parentheses(text).into_iter().map(LabelRule::parse);
        Ok(LabelSelector(rules.collect::<Result<_, _>>()?))
    }

    /// Whether the object's labels satisfy every requirement.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.0.iter().all(|rule| {
            let label = labels
                .and_then(|labels| labels.get(&rule.key))
                .and_then(Value::as_str);
            let among = |values: &[String]| label.is_some_and(|label| values.iter().any(|v| v == label));
            match &rule.test {
                LabelTest::Present => label.is_some(),
                LabelTest::Absent => label.is_none(),
                LabelTest::In(values) => among(values),
                LabelTest::NotIn(values) => !among(values),
            }
        })
    }
}

impl LabelRule {
    fn parse(text: &str) -> Result<Self, SelectorError> {
        let text = text.trim();
        let malformed = || SelectorError::Malformed(text.to_owned());
        let (key, test) = if let Some((head, list)) = text.split_once('(') {
            let list = list.strip_suffix(')').ok_or_else(malformed)?;
            let values = list.split(',').map(|value| value.trim().to_owned()).collect();
            let (key, operator) = head.trim().rsplit_once(' ').ok_or_else(malformed)?;
            match operator {
                "in" => (key, LabelTest::In(values)),
                "notin" => (key, LabelTest::NotIn(values)),
                _ => return Err(malformed()),
            }
        } else if let Some((key, value)) = text.split_once("!=") {
            (key, LabelTest::NotIn(vec![value.trim().to_owned()]))
        } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
            (key, LabelTest::In(vec![value.trim().to_owned()]))
        } else if let Some(key) = text.strip_prefix('!') {
            (key, LabelTest::Absent)
        } else {
            (text, LabelTest::Present)
        };
        let key = key.trim();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        if key.is_empty() || !key.chars().all(allowed) {
            return Err(malformed());
        }
        Ok(LabelRule {
            key: key.to_owned(),
            test,
        })
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    let parts = text.split(|c| {
        match c {
            '(' => depth = depth.saturating_add(1),
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.filter(|part| !part.trim().is_empty()).collect()
}

/// Fields that must equal, or must not equal, a value; a missing field reads as the empty string.
#[derive(Debug, Default)]
pub(crate) struct FieldSelector(Vec<FieldRule>);

#[derive(Debug)]
struct FieldRule {
    pointer: String,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// Parses `a=b`, `a==b` and `a!=b`, joined by commas; only fields the kind can be selected by.
    pub(crate) fn parse(text: &str, kind: &Kind) -> Result<Self, SelectorError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        Ok(FieldSelector(
            parts
                .map(|part| FieldRule::parse(part, kind))
                .collect::<Result<_, _>>()?,
        ))
    }

    /// Whether the object's fields satisfy every requirement.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|rule| {
            let found = crate::json::text(object, &rule.pointer).unwrap_or_default();
            (found == rule.value) == rule.equal
        })
    }
}

impl FieldRule {
    fn parse(part: &str, kind: &Kind) -> Result<Self, SelectorError> {
        let (field, value, equal) = if let Some((field, value)) = part.split_once("!=") {
            (field, value, false)
        } else if let Some((field, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            (field, value, true)
        } else {
            return Err(SelectorError::Malformed(part.to_owned()));
        };
        let general = field == "metadata.name" || (kind.namespaced && field == "metadata.namespace");
        if !general && !kind.fields.contains(&field) {
            return Err(SelectorError::UnsupportedField(field.to_owned()));
        }
        let pointer = format!("/{}", field.replace('.', "/"));
        Ok(FieldRule {
            pointer,
            value: value.to_owned(),
            equal,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;
    use serde_json::json;

    fn labelled(selector: &str) -> bool {
        let pod = json!({"metadata": {"labels": {"app": "web", "tier": "front"}}});
        LabelSelector::parse(selector).unwrap().matches(&pod)
    }

    #[test]
    fn label_selectors_match_as_kubernetes_matches() {
        for yes in [
            "",
            "app",
            "app=web",
            "app==web,tier!=back",
            "app in (api, web)",
            "!gone",
            "x notin (y)",
            "x!=y",
        ] {
            assert!(labelled(yes), "{yes}");
        }
        for no in [
            "gone",
            "app=api",
            "app notin (web,api),tier",
            "!app",
            "app in (api)",
            "app!=web",
        ] {
            assert!(!labelled(no), "{no}");
        }
    }

    #[test]
    fn malformed_selectors_are_refused() {
        for bad in ["app in web)", "app within (a)", "=x", "a b", "app in (a"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn field_selectors_know_what_a_kind_can_be_selected_by() {
        let pods = kinds::by_plural("", "pods").unwrap();
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n1"}});
        let matches = |text: &str| FieldSelector::parse(text, pods).unwrap().matches(&pod);
        assert!(matches("spec.nodeName=n1,status.phase!=Failed"));
        assert!(!matches("metadata.name!=a"));
        assert_eq!(
            FieldSelector::parse("spec.hostname=a", pods).unwrap_err(),
            SelectorError::UnsupportedField("spec.hostname".to_owned())
        );
    }
}
