//! A compressed trie over bytes: every pattern that a text begins with, in one walk along the text.
//!
//! The walk costs what the text is long, whatever the patterns are; that is what keeps a decision among ten
//! thousand rules near one among ten.

use std::ops::Range;

/// How bytes are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// As they are.
    Exact,
    /// ASCII letters without regard to case.
    Ascii,
}

impl Fold {
    pub(crate) fn byte(self, byte: u8) -> u8 {
        match self {
            Self::Exact => byte,
            Self::Ascii => byte.to_ascii_lowercase(),
        }
    }

    pub(crate) fn equal(self, a: &[u8], b: &[u8]) -> bool {
        match self {
            Self::Exact => a == b,
            Self::Ascii => a.eq_ignore_ascii_case(b),
        }
    }
}

/// Values under whole texts and under prefixes. Suffixes are prefixes of reversed texts.
#[derive(Clone, Debug)]
pub(crate) struct ByteTrie<T> {
    nodes: Vec<Node<T>>,
    labels: Vec<u8>,
    fold: Fold,
}

#[derive(Clone, Debug)]
struct Node<T> {
    label: Range<usize>,
    /// First byte of each child's label, sorted, beside the child.
    children: Vec<(u8, usize)>,
    exact: Option<T>,
    prefix: Option<T>,
}

impl<T> Node<T> {
    fn new(label: Range<usize>) -> Self {
        Self {
            label,
            children: Vec::new(),
            exact: None,
            prefix: None,
        }
    }
}

impl<T> ByteTrie<T> {
    pub(crate) fn new(fold: Fold) -> Self {
        Self {
            nodes: vec![Node::new(0..0)],
            labels: Vec::new(),
            fold,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        let root = self.nodes.first();
        root.is_none_or(|root| root.children.is_empty() && root.exact.is_none() && root.prefix.is_none())
    }

    /// The value for exactly this text.
    #[expect(
        clippy::indexing_slicing,
        reason = "the trie's own node numbers, made at load from its own vector"
    )]
    pub(crate) fn exact(&mut self, key: impl Iterator<Item = u8>) -> &mut Option<T> {
        let node = self.insert(key);
        &mut self.nodes[node].exact
    }

    /// The value for every text that begins so.
    #[expect(
        clippy::indexing_slicing,
        reason = "the trie's own node numbers, made at load from its own vector"
    )]
    pub(crate) fn prefix(&mut self, key: impl Iterator<Item = u8>) -> &mut Option<T> {
        let node = self.insert(key);
        &mut self.nodes[node].prefix
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "the trie's own node numbers and label ranges, made at load from its own vectors"
    )]
    fn insert(&mut self, key: impl Iterator<Item = u8>) -> usize {
        let key: Vec<u8> = key.map(|byte| self.fold.byte(byte)).collect();
        let (mut node, mut at) = (0, 0);
        while let Some(&first) = key.get(at) {
            match self.nodes[node]
                .children
                .binary_search_by_key(&first, |(b, _)| *b)
            {
                Err(place) => {
                    let start = self.labels.len();
                    self.labels.extend_from_slice(&key[at..]);
                    let child = self.push(Node::new(start..self.labels.len()));
                    self.nodes[node].children.insert(place, (first, child));
                    return child;
                }
                Ok(place) => {
                    let child = self.nodes[node].children[place].1;
                    let label = self.nodes[child].label.clone();
                    let common = self.labels[label.clone()]
                        .iter()
                        .zip(&key[at..])
                        .take_while(|(a, b)| a == b)
                        .count();
                    at += common;
                    node = if common == label.len() {
                        child
                    } else {
                        let upper = self.split(child, label.start + common);
                        self.nodes[node].children[place].1 = upper;
                        upper
                    };
                }
            }
        }
        node
    }

    /// Cuts the label of `child` at `cut` and gives the new node above it.
    #[expect(
        clippy::indexing_slicing,
        reason = "called by insert with a node and a place inside its label"
    )]
    fn split(&mut self, child: usize, cut: usize) -> usize {
        let label = self.nodes[child].label.clone();
        let upper = self.push(Node::new(label.start..cut));
        self.nodes[child].label = cut..label.end;
        let first = self.labels[cut];
        self.nodes[upper].children.push((first, child));
        upper
    }

    fn push(&mut self, node: Node<T>) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Shows `visit` the values of all keys that `text` begins with or is, until it says true. True if it did.
    pub(crate) fn search(
        &self,
        mut text: impl Iterator<Item = u8>,
        visit: &mut impl FnMut(&T) -> bool,
    ) -> bool {
        let mut node = self.nodes.first();
        while let Some(here) = node {
            if here.prefix.as_ref().is_some_and(&mut *visit) {
                return true;
            }
            let Some(first) = text.next() else {
                return here.exact.as_ref().is_some_and(visit);
            };
            node = self.child(here, self.fold.byte(first));
            let label = node.and_then(|child| self.labels.get(child.label.start + 1..child.label.end));
            for byte in label.unwrap_or_default() {
                if text.next().map(|b| self.fold.byte(b)) != Some(*byte) {
                    return false;
                }
            }
        }
        false
    }

    fn child(&self, node: &Node<T>, first: u8) -> Option<&Node<T>> {
        let place = match node.children.as_slice() {
            [(byte, child)] if *byte == first => return self.nodes.get(*child),
            children => children.binary_search_by_key(&first, |(byte, _)| *byte).ok()?,
        };
        node.children
            .get(place)
            .and_then(|(_, child)| self.nodes.get(*child))
    }

    /// The trie with other values.
    pub(crate) fn map<U>(self, mut change: impl FnMut(T) -> U) -> ByteTrie<U> {
        let nodes = self.nodes.into_iter().map(|node| Node {
            label: node.label,
            children: node.children,
            exact: node.exact.map(&mut change),
            prefix: node.prefix.map(&mut change),
        });
        ByteTrie {
            nodes: nodes.collect(),
            labels: self.labels,
            fold: self.fold,
        }
    }
}
