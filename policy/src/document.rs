//! From the text of a file, or an object of the API server, to objects and faults. One object is the unit: a
//! bad one does not touch its neighbours.

use std::sync::Arc;

use crate::cursor::{Cursor, Faults};
use crate::fault::{Excerpt, Fault, Problem, Shape};
use crate::model::meta::{Kind, Meta};
use crate::model::salvage::Faulty;
use crate::model::{Object, authorization, peer, request};
use crate::node::{Node, Tree};

const GROUP: &str = "security.istio.io";
const VERSIONS: &[&str] = &["v1", "v1beta1"];
pub(crate) const DOCUMENT: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];

/// What one document turned out to be.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The file, or whatever else the document came from.
    pub origin: Arc<str>,
    /// The line of the file it begins on, from 1; 0 for an object that came without a text.
    pub line: u64,
    /// What was read.
    pub content: Content,
}

/// What a document holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// A sound object.
    Sound(Arc<Object>),
    /// One of ours, or what may be one, that cannot be used.
    Faulty(Arc<Faulty>),
    /// An object of another group, by its version and kind.
    Foreign(String),
}

/// Reads the documents of a text, YAML or JSON. Objects without a namespace lie in `default_namespace`; without
/// that, they are faulty.
#[must_use]
pub fn read_text(origin: &str, text: &str, default_namespace: Option<&str>) -> Vec<Reading> {
    let mut readings = Vec::new();
    each_object(origin, text, default_namespace, |reading, _| {
        readings.push(reading)
    });
    readings
}

/// As [`read_text`], each reading with its object as JSON for those who pass it on: read again, it says the
/// same. Lines are lost, and so are numbers, of which no field of a policy is one. Without a default namespace.
#[must_use]
pub fn read_text_as_json(origin: &str, text: &str) -> Vec<(Reading, Option<serde_json::Value>)> {
    let mut readings = Vec::new();
    each_object(origin, text, None, |reading, node| {
        readings.push((reading, node.map(Node::to_json)));
    });
    readings
}

/// A file whose text cannot be had, which may hold any object.
#[must_use]
pub fn unreadable(origin: &str, why: &str) -> Reading {
    let fault = Fault {
        path: String::new(),
        line: None,
        problem: Problem::Told {
            problem: why.to_owned(),
            hint: "make it a readable text, or remove it".to_owned(),
        },
    };
    Reading {
        origin: origin.into(),
        line: 1,
        content: Content::Faulty(Arc::new(Faulty::unreadable(vec![fault]))),
    }
}

fn each_object(
    origin: &str,
    text: &str,
    default_namespace: Option<&str>,
    mut take: impl FnMut(Reading, Option<&Node>),
) {
    let origin: Arc<str> = origin.into();
    for (line, document) in documents(text) {
        let reading = |content| Reading {
            origin: origin.clone(),
            line,
            content,
        };
        match Node::read(document, line) {
            Ok(node) => {
                for item in items(&node) {
                    take(reading(content(item, default_namespace)), Some(item));
                }
            }
            Err(fault) => {
                let faulty = Arc::new(Faulty::unreadable(vec![fault]));
                take(reading(Content::Faulty(faulty)), None);
            }
        }
    }
}

/// Reads an object as the API server sends it.
#[must_use]
pub fn read_object(origin: &str, object: &serde_json::Value) -> Reading {
    Reading {
        origin: origin.into(),
        line: 0,
        content: content(&Node::from_json(object), None),
    }
}

/// Splits at the marker lines, which YAML allows nowhere else, and drops what holds comments only. Each
/// document comes with its first line.
fn documents(text: &str) -> Vec<(u64, &str)> {
    let mut starts = vec![(1, 0)];
    let mut at = 0;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        if is_marker(line) && at > 0 {
            starts.push((number, at));
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).map(|(_, at)| *at).chain([text.len()]);
    starts
        .iter()
        .zip(ends)
        .filter_map(|((line, start), end)| Some((*line, text.get(*start..end)?)))
        .filter(|(_, document)| !is_blank(document))
        .collect()
}

fn is_marker(line: &str) -> bool {
    let rest = line.strip_prefix("---");
    rest.is_some_and(|rest| rest.trim_end().is_empty() || rest.starts_with([' ', '\t']))
}

fn is_blank(document: &str) -> bool {
    let comment = |line: &str| line.is_empty() || line.starts_with('#');
    document.trim_start_matches('\u{feff}').lines().all(|line| {
        let line = if is_marker(line) {
            line.get(3..).unwrap_or_default()
        } else {
            line
        };
        comment(line.trim()) || line.trim_end() == "..."
    })
}

/// The objects of a document: itself, or those of a `List`.
fn items(node: &Node) -> Vec<&Node> {
    let text = |field| node.field(field).and_then(Node::text);
    if let (Some("v1"), Some("List")) = (text("apiVersion"), text("kind"))
        && let Some(Node {
            value: Tree::List(items),
            ..
        }) = node.field("items")
    {
        return items.iter().collect();
    }
    vec![node]
}

fn content(node: &Node, default_namespace: Option<&str>) -> Content {
    let text = |field| node.field(field).and_then(Node::text);
    let version = text("apiVersion").unwrap_or_default();
    let elsewhere = !version.is_empty() && version.split('/').next() != Some(GROUP);
    match text("kind") {
        // A kind of ours in another group is more likely a slip of the pen than somebody else's kind.
        Some(kind) if elsewhere && Kind::named(kind).is_none() => {
            return Content::Foreign(format!("{version} {kind}"));
        }
        None if is_no_object(node) => return Content::Foreign("no Kubernetes object".to_owned()),
        _ => {}
    }
    match object(node, default_namespace) {
        Ok(object) => Content::Sound(Arc::new(object)),
        Err(faults) => Content::Faulty(Arc::new(Faulty::of(node, default_namespace, faults))),
    }
}

/// An object without a single field that objects of Kubernetes have.
fn is_no_object(node: &Node) -> bool {
    match &node.value {
        Tree::Map(fields) => !fields.iter().any(|(name, _)| DOCUMENT.contains(&name.as_str())),
        _ => false,
    }
}

fn object(node: &Node, default_namespace: Option<&str>) -> Result<Object, Vec<Fault>> {
    let mut faults = Faults::default();
    match read(node, default_namespace, &mut faults) {
        Some(object) if faults.is_empty() => Ok(object),
        _ => Err(faults.into_inner()),
    }
}

fn read(node: &Node, default_namespace: Option<&str>, faults: &mut Faults) -> Option<Object> {
    let root = Cursor::root(node);
    let document = root.object(DOCUMENT, faults)?;
    document
        .require("apiVersion", faults)?
        .parse(faults, |version| match version.split_once('/') {
            Some((GROUP, version)) if VERSIONS.contains(&version) => Ok(()),
            _ => Err(Shape::Version(Excerpt::of(version))),
        })?;
    let kind = document.require("kind", faults)?.parse(faults, |kind| {
        Kind::named(kind).ok_or_else(|| Shape::Kind(Excerpt::of(kind)))
    })?;
    let meta = Meta::read(&document, default_namespace, faults)?;
    let spec = document
        .get("spec")
        .filter(|spec| spec.node().value != Tree::Null);
    let spec = spec.as_ref();
    match kind {
        Kind::AuthorizationPolicy => authorization::read(meta, spec, faults).map(Object::Authorization),
        Kind::PeerAuthentication => peer::read(meta, spec, faults).map(Object::Peer),
        Kind::RequestAuthentication => request::read(meta, spec, faults).map(Object::Request),
    }
}

#[cfg(test)]
mod tests;
