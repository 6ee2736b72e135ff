//! A YAML document with its lines, so that a finding can say where it is. Faults of policies come from the
//! policy engine with lines of their own; this is for everything else.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;

/// Lists and objects within one another; pods have about fifteen levels.
const MAX_DEPTH: usize = 64;

/// A value and the line it begins on.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    line: u64,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Plain(Value),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// Reads one document; nothing for what is no YAML, about which the policy engine has its own words.
    pub(super) fn read(document: &str) -> Option<Self> {
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
            with_snippet: false,
            strict_booleans: true,
        };
        serde_saphyr::from_str_with_options::<Self>(document, options).ok()
    }

    /// The objects of the document: itself, or those of a `List`.
    pub(super) fn objects(self) -> Vec<Self> {
        let is = |name, wanted| self.field(name).and_then(Self::text) == Some(wanted);
        if is("apiVersion", "v1")
            && is("kind", "List")
            && let Some(items) = self.field("items").and_then(Self::list)
        {
            return items.to_vec();
        }
        vec![self]
    }

    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        match &self.content {
            Content::Map(fields) => fields.iter().find(|(key, _)| key == name).map(|(_, tree)| tree),
            Content::Plain(_) | Content::List(_) => None,
        }
    }

    fn list(&self) -> Option<&[Self]> {
        match &self.content {
            Content::List(items) => Some(items),
            Content::Plain(_) | Content::Map(_) => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Plain(value) => value.as_str(),
            Content::List(_) | Content::Map(_) => None,
        }
    }

    /// The line of the field at `path`, as in `spec.rules[0].to[1].operation.hosts`, or of the nearest one
    /// around it; counted from 1 within the document.
    pub(super) fn line_of(&self, path: &str) -> u64 {
        let mut here = self;
        for step in path.split('.') {
            let (name, indices) = step.split_once('[').unwrap_or((step, ""));
            let Some(next) = here.field(name) else {
                break;
            };
            here = next;
            for index in indices.split('[').filter_map(|index| index.strip_suffix(']')) {
                let items = here.list().unwrap_or_default();
                let Some(next) = index.parse().ok().and_then(|at: usize| items.get(at)) else {
                    break;
                };
                here = next;
            }
        }
        here.line
    }

    /// The value, without lines.
    pub(super) fn to_json(&self) -> Value {
        match &self.content {
            Content::Plain(value) => value.clone(),
            Content::List(items) => items.iter().map(Self::to_json).collect(),
            Content::Map(fields) => {
                let field = |(name, tree): &(String, Self)| (name.clone(), tree.to_json());
                fields.iter().map(field).collect()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Self {
            line: spanned.referenced.line().max(1),
            content: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Plain(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Plain(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Content, E> {
        Ok(Content::Plain(truth.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Content, E> {
        Ok(Content::Plain(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Content, E> {
        Ok(Content::Plain(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Content, E> {
        Ok(Content::Plain(number.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Plain(text.into()))
    }

    fn visit_string<E>(self, text: String) -> Result<Content, E> {
        Ok(Content::Plain(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Content::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Content, A::Error> {
        let mut fields = Vec::new();
        while let Some(entry) = entries.next_entry::<String, Tree>()? {
            fields.push(entry);
        }
        Ok(Content::Map(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "kind: X\nspec:\n  rules:\n  - from:\n    - source:\n        principals:\n        - a\n        - b\n  ports: {a: 1}\n";

    #[test]
    fn a_path_leads_to_its_line_and_a_broken_one_to_the_nearest_around_it() {
        let tree = Tree::read(TEXT).unwrap();
        for (path, line) in [
            ("kind", 1),
            ("spec.rules[0].from[0].source.principals[1]", 8),
            ("spec.rules[0].to[0].operation", 4),
            ("spec.rules[7]", 4),
            ("", 1),
        ] {
            assert_eq!(tree.line_of(path), line, "{path}");
        }
    }

    #[test]
    fn numbers_keep_their_values() {
        let json = Tree::read(TEXT).unwrap().to_json();
        assert_eq!(json["spec"]["ports"]["a"], 1);
    }
}
