//! A document as a tree that remembers its lines, so that a fault can say where it is.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::fault::{Excerpt, Fault, Shape};

/// Largest document that is read. Kubernetes itself stores no object this large.
const MAX_DOCUMENT_BYTES: usize = 4 << 20;

/// Lists and objects within one another. Policies have about ten levels.
const MAX_DEPTH: usize = 64;

/// A value and the line it begins on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) line: Option<u64>,
    pub(crate) value: Tree,
}

/// A value of a document. Numbers keep no value: no field of a policy is one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Number,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Tree {
    /// The type, for people.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "an object",
        }
    }
}

impl Node {
    /// Reads one document, the first line of which is line `first` of its file.
    pub(crate) fn read(text: &str, first: u64) -> Result<Self, Fault> {
        let fault = |line, shape: Shape| Fault {
            path: String::new(),
            line: Some(line),
            problem: shape.into(),
        };
        if text.len() > MAX_DOCUMENT_BYTES {
            let (bytes, most) = (text.len(), MAX_DOCUMENT_BYTES);
            return Err(fault(first, Shape::TooLarge { bytes, most }));
        }
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
            with_snippet: false,
            strict_booleans: true,
        };
        match serde_saphyr::from_str_with_options::<Node>(text, options) {
            Ok(mut node) => {
                node.shift(first - 1);
                Ok(node)
            }
            Err(error) => {
                let line = error.location().map_or(1, |at| at.line().max(1));
                let text = error.without_snippet().to_string();
                let text = text.lines().next().unwrap_or_default();
                Err(fault(first - 1 + line, Shape::NotYaml(Excerpt::of(text))))
            }
        }
    }

    /// An object as the API server gave it: no lines.
    pub(crate) fn from_json(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        let value = match value {
            Value::Null => Tree::Null,
            Value::Bool(truth) => Tree::Bool(*truth),
            Value::Number(_) => Tree::Number,
            Value::String(text) => Tree::Text(text.clone()),
            Value::Array(items) => Tree::List(items.iter().map(Self::from_json).collect()),
            Value::Object(fields) => Tree::Map(
                fields
                    .iter()
                    .map(|(name, value)| (name.clone(), Self::from_json(value)))
                    .collect(),
            ),
        };
        Self { line: None, value }
    }

    /// As JSON that reads the same. Numbers come out as 0.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.value {
            Tree::Null => Value::Null,
            Tree::Bool(truth) => Value::Bool(*truth),
            Tree::Number => Value::from(0),
            Tree::Text(text) => Value::String(text.clone()),
            Tree::List(items) => items.iter().map(Self::to_json).collect(),
            Tree::Map(fields) => fields
                .iter()
                .map(|(name, node)| (name.clone(), node.to_json()))
                .collect(),
        }
    }

    /// The field of that name, if this is an object that has it.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Tree::Map(fields) => fields.iter().find(|(key, _)| key == name).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The text, if this is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Tree::Text(text) => Some(text),
            _ => None,
        }
    }

    fn shift(&mut self, lines: u64) {
        if let Some(line) = &mut self.line {
            *line += lines;
        }
        match &mut self.value {
            Tree::List(items) => items.iter_mut().for_each(|item| item.shift(lines)),
            Tree::Map(fields) => fields.iter_mut().for_each(|(_, node)| node.shift(lines)),
            Tree::Null | Tree::Bool(_) | Tree::Number | Tree::Text(_) => {}
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Tree>::deserialize(deserializer)?;
        Ok(Self {
            line: Some(spanned.referenced.line()).filter(|line| *line > 0),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(truth))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Number)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Tree, E> {
        Ok(Tree::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Number)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Tree, E> {
        Ok(Tree::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Tree, E> {
        Ok(Tree::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut fields: Vec<(String, Node)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        while let Some((name, value)) = entries.next_entry::<String, Node>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom("a field stands twice"));
            }
            fields.push((name, value));
        }
        Ok(Tree::Map(fields))
    }
}
