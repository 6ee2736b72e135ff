//! Walking a document strictly: every step knows its path, every field is asked for or is a fault.

use crate::fault::{Fault, Problem, Shape};
use crate::node::{Node, Tree};

/// Entries of any list; those with a bound of their own in the reference have less.
const MAX_LIST: usize = 4096;

/// A place in a document.
#[derive(Clone)]
pub(crate) struct Cursor<'n> {
    node: &'n Node,
    path: String,
}

/// What was found wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(crate) fn into_inner(self) -> Vec<Fault> {
        self.0
    }
}

impl<'n> Cursor<'n> {
    pub(crate) fn root(node: &'n Node) -> Self {
        Self {
            node,
            path: String::new(),
        }
    }

    pub(crate) fn node(&self) -> &'n Node {
        self.node
    }

    /// Records a fault of this place.
    pub(crate) fn fault(&self, faults: &mut Faults, problem: impl Into<Problem>) {
        faults.push(Fault {
            path: self.path.clone(),
            line: self.node.line,
            problem: problem.into(),
        });
    }

    fn wrong(&self, faults: &mut Faults, wanted: &'static str) {
        let shape = match &self.node.value {
            Tree::Null => Shape::Null,
            other => Shape::WrongType {
                wanted,
                found: other.type_name(),
            },
        };
        self.fault(faults, shape);
    }

    fn step(&self, name: &str, node: &'n Node) -> Self {
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
        let path = match (self.path.is_empty(), plain) {
            (true, true) => name.to_owned(),
            (false, true) => format!("{}.{name}", self.path),
            (_, false) => format!("{}[{}]", self.path, crate::fault::Excerpt::of(name)),
        };
        Self { node, path }
    }

    /// The object here, with only the fields in `known`.
    pub(crate) fn object(&self, known: &'static [&'static str], faults: &mut Faults) -> Option<Object<'n>> {
        let Tree::Map(fields) = &self.node.value else {
            self.wrong(faults, "an object");
            return None;
        };
        for (name, node) in fields {
            if !known.contains(&name.as_str()) {
                let meant = meant(name, known);
                self.step(name, node).fault(faults, Shape::UnknownField { meant });
            }
        }
        Some(Object {
            at: self.clone(),
            fields,
        })
    }

    /// The entries of an object whose keys are data.
    pub(crate) fn entries(&self, faults: &mut Faults) -> Option<Vec<(&'n str, Self)>> {
        let Tree::Map(fields) = &self.node.value else {
            self.wrong(faults, "an object");
            return None;
        };
        self.bounded(fields.len(), MAX_LIST, faults)?;
        Some(
            fields
                .iter()
                .map(|(name, node)| (name.as_str(), self.step(name, node)))
                .collect(),
        )
    }

    /// The list here, which may be empty, of at most `most` entries.
    pub(crate) fn list(&self, most: usize, faults: &mut Faults) -> Option<Vec<Self>> {
        let Tree::List(items) = &self.node.value else {
            self.wrong(faults, "a list");
            return None;
        };
        self.bounded(items.len(), most, faults)?;
        let item = |(at, node)| Self {
            node,
            path: format!("{}[{at}]", self.path),
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// The list here, which says something.
    pub(crate) fn filled_list(&self, most: usize, faults: &mut Faults) -> Option<Vec<Self>> {
        let list = self.list(most, faults)?;
        if list.is_empty() {
            self.fault(faults, Shape::Empty);
            return None;
        }
        Some(list)
    }

    fn bounded(&self, found: usize, most: usize, faults: &mut Faults) -> Option<()> {
        if found <= most {
            return Some(());
        }
        let unit = "entries";
        self.fault(faults, Shape::TooMany { found, unit, most });
        None
    }

    /// The text here, which is not empty.
    pub(crate) fn text(&self, faults: &mut Faults) -> Option<&'n str> {
        match &self.node.value {
            Tree::Text(text) if text.is_empty() => {
                self.fault(faults, Shape::Empty);
                None
            }
            Tree::Text(text) => Some(text),
            _ => {
                self.wrong(faults, "text");
                None
            }
        }
    }

    /// True or false.
    pub(crate) fn truth(&self, faults: &mut Faults) -> Option<bool> {
        if let Tree::Bool(truth) = self.node.value {
            return Some(truth);
        }
        self.wrong(faults, "true or false");
        None
    }

    /// The text here, read.
    pub(crate) fn parse<T, P: Into<Problem>>(
        &self,
        faults: &mut Faults,
        parse: impl FnOnce(&'n str) -> Result<T, P>,
    ) -> Option<T> {
        match parse(self.text(faults)?) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.fault(faults, problem);
                None
            }
        }
    }

    /// The texts of the list here, each read.
    pub(crate) fn parse_all<T, P: Into<Problem>>(
        &self,
        faults: &mut Faults,
        parse: impl Fn(&'n str) -> Result<T, P>,
    ) -> Option<Vec<T>> {
        let items = self.filled_list(MAX_LIST, faults)?;
        let count = items.len();
        let values: Vec<T> = items
            .iter()
            .filter_map(|item| item.parse(faults, &parse))
            .collect();
        (values.len() == count).then_some(values)
    }
}

/// An object whose fields were checked for being known.
pub(crate) struct Object<'n> {
    at: Cursor<'n>,
    fields: &'n [(String, Node)],
}

impl<'n> Object<'n> {
    pub(crate) fn at(&self) -> &Cursor<'n> {
        &self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The fields in the order of the document.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'n str, Cursor<'n>)> + '_ {
        self.fields
            .iter()
            .map(|(name, node)| (name.as_str(), self.at.step(name, node)))
    }

    pub(crate) fn get(&self, name: &str) -> Option<Cursor<'n>> {
        let (_, node) = self.fields.iter().find(|(key, _)| key == name)?;
        Some(self.at.step(name, node))
    }

    /// The field, or a fault that it is missing.
    pub(crate) fn require(&self, name: &'static str, faults: &mut Faults) -> Option<Cursor<'n>> {
        let found = self.get(name);
        if found.is_none() {
            self.at.step(name, self.at.node).fault(faults, Shape::Missing);
        }
        found
    }
}

/// The known field that is nearest to what was written, if it is near.
pub(crate) fn meant(written: &str, known: &[&'static str]) -> Option<&'static str> {
    let written = written.get(..written.len().min(64))?.to_ascii_lowercase();
    known
        .iter()
        .map(|name| (distance(&written, &name.to_ascii_lowercase()), *name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min()
        .map(|(_, name)| name)
}

/// How many letters must be added, removed or changed to turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut last = i + 1;
        for (cell, right) in row.iter_mut().skip(1).zip(&b) {
            let change = diagonal + usize::from(left != *right);
            diagonal = *cell;
            last = change.min(*cell + 1).min(last + 1);
            *cell = last;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
