//! Which clauses can match at all: a decision tree over what peers and requests are like.
//!
//! A node asks for one attribute and files every clause that demands something of it under the values it
//! demands; clauses that demand nothing of it stay beside them. What a decision costs depends on the clauses
//! that agree with everything asked on the way, not on how many there are.

use std::collections::HashMap;

use crate::address::{Block, BlockMap};
use crate::check::Keys;
use crate::clause::Clause;
use crate::connection::{Facts, Lines, Text};
use crate::matcher::Pattern;
use crate::model::Attribute;
use crate::trie::{ByteTrie, Fold};

/// Up to this many clauses are tried one by one.
const LEAF: usize = 8;
/// A clause is filed at most so many times as its values are many, all levels together.
const COPIES: usize = 16;

/// Headers and claims by which clauses are filed, at most: those that most clauses ask for.
const MAX_NAMED: usize = 16;

/// What clauses are filed by, besides headers and claims. Where two split equally well the first one is taken.
const DIMENSIONS: &[Attribute] = &[
    Attribute::Principal,
    Attribute::ServiceAccount,
    Attribute::Namespace,
    Attribute::Path,
    Attribute::DestinationPort,
    Attribute::Host,
    Attribute::RequestPrincipal,
    Attribute::SourceIp,
    Attribute::RemoteIp,
    Attribute::DestinationIp,
    Attribute::Method,
    Attribute::TrustDomain,
    Attribute::Sni,
    Attribute::Audiences,
    Attribute::Presenter,
];

/// Clauses by number, filed.
#[derive(Clone, Debug)]
pub(crate) enum Index {
    /// To be tried one by one.
    Leaf(Box<[u32]>),
    /// By one attribute.
    Split(Box<Split>),
}

#[derive(Clone, Debug)]
pub(crate) struct Split {
    attribute: Attribute,
    filed: Filed,
    /// Those that demand nothing of the attribute.
    rest: Index,
}

#[derive(Clone, Debug)]
enum Filed {
    Texts(Box<Texts<Index>>),
    Blocks(BlockMap<Index>),
    /// Sorted.
    Ports(Vec<(u16, Index)>),
}

#[derive(Clone, Debug)]
struct Texts<T> {
    forward: ByteTrie<T>,
    backward: ByteTrie<T>,
    present: Option<T>,
}

impl Index {
    pub(crate) fn new(clauses: &[Clause]) -> Self {
        let all: Vec<u32> = (0..).zip(clauses).map(|(number, _)| number).collect();
        let dimensions: Vec<Attribute> = DIMENSIONS.iter().cloned().chain(named(clauses)).collect();
        let values: usize = dimensions
            .iter()
            .flat_map(|dimension| clauses.iter().filter_map(move |clause| clause.keys(dimension)))
            .map(|keys| keys.len())
            .sum();
        let mut builder = Builder {
            clauses,
            dimensions: &dimensions,
            budget: COPIES * (values + LEAF),
        };
        builder.node(all, &mut Vec::new())
    }

    /// Shows `visit` every clause that could match, until it says true. True if it did.
    pub(crate) fn search<V: FnMut(u32) -> bool>(&self, facts: &Facts<'_>, visit: &mut V) -> bool {
        match self {
            Self::Leaf(numbers) => numbers.iter().any(|number| visit(*number)),
            Self::Split(split) => split.filed(facts, visit) || split.rest.search(facts, visit),
        }
    }

    /// The first attribute that is asked for, if every clause demands something of it.
    pub(crate) fn demands(&self) -> Option<&Attribute> {
        match self {
            Self::Split(split) if matches!(&split.rest, Self::Leaf(rest) if rest.is_empty()) => {
                Some(&split.attribute)
            }
            _ => None,
        }
    }
}

impl Split {
    fn filed<V: FnMut(u32) -> bool>(&self, facts: &Facts<'_>, visit: &mut V) -> bool {
        let visit = &mut |child: &Index| child.search(facts, visit);
        match &self.filed {
            // More clauses than match: which lines of a header count is up to each.
            Filed::Texts(texts) => facts.any_text(&self.attribute, Lines::EachAndJoined, &mut |text| {
                texts.search(text, visit)
            }),
            Filed::Blocks(blocks) => facts
                .address(&self.attribute)
                .is_some_and(|address| blocks.search(address, visit)),
            Filed::Ports(ports) => {
                let place = ports.binary_search_by_key(&facts.connection.port, |(port, _)| *port);
                place
                    .ok()
                    .and_then(|place| ports.get(place))
                    .is_some_and(|(_, child)| visit(child))
            }
        }
    }
}

impl<T> Texts<T> {
    fn search(&self, text: Text<'_>, visit: &mut impl FnMut(&T) -> bool) -> bool {
        text.begins_in(&self.forward, visit)
            || text.ends_in(&self.backward, visit)
            || text.is_present() && self.present.as_ref().is_some_and(visit)
    }

    fn map<U>(self, mut change: impl FnMut(T) -> U) -> Texts<U> {
        Texts {
            forward: self.forward.map(&mut change),
            backward: self.backward.map(&mut change),
            present: self.present.map(change),
        }
    }
}

/// The headers and claims that most clauses ask for.
fn named(clauses: &[Clause]) -> Vec<Attribute> {
    let mut counts: HashMap<&Attribute, usize> = HashMap::new();
    for attribute in clauses.iter().flat_map(Clause::demanded) {
        if matches!(attribute, Attribute::Header(_) | Attribute::Claim(_)) {
            *counts.entry(attribute).or_default() += 1;
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
    let most = counts.into_iter().take(MAX_NAMED);
    most.map(|(attribute, _)| attribute.clone()).collect()
}

struct Builder<'c> {
    clauses: &'c [Clause],
    dimensions: &'c [Attribute],
    /// How often clauses may still be filed.
    budget: usize,
}

/// How well an attribute splits some clauses.
struct Candidate<'c> {
    attribute: &'c Attribute,
    keys: Vec<(u32, Keys)>,
    rest: Vec<u32>,
    /// Clauses that a decision is spared, at the least.
    spared: usize,
    filings: usize,
}

impl<'c> Builder<'c> {
    fn node(&mut self, numbers: Vec<u32>, asked: &mut Vec<&'c Attribute>) -> Index {
        if numbers.len() <= LEAF {
            return Index::Leaf(numbers.into());
        }
        let fresh: Vec<_> = self
            .dimensions
            .iter()
            .filter(|attribute| !asked.contains(attribute))
            .collect();
        let best = fresh
            .into_iter()
            .map(|attribute| self.candidate(attribute, &numbers))
            .filter(|candidate| candidate.filings <= self.budget && candidate.spared > LEAF / 2)
            // The last of equals would win, the first shall.
            .rev()
            .max_by_key(|candidate| candidate.spared);
        let Some(best) = best else {
            return Index::Leaf(numbers.into());
        };
        self.budget -= best.filings;
        asked.push(best.attribute);
        let filed = self.file(best.attribute, best.keys, asked);
        let rest = self.node(best.rest, asked);
        asked.pop();
        Index::Split(Box::new(Split {
            attribute: best.attribute.clone(),
            filed,
            rest,
        }))
    }

    fn candidate(&self, attribute: &'c Attribute, numbers: &[u32]) -> Candidate<'c> {
        let (mut keys, mut rest) = (Vec::new(), Vec::new());
        let mut sizes: HashMap<String, usize> = HashMap::new();
        let mut filings = 0;
        for number in numbers {
            let clause = usize::try_from(*number).ok().and_then(|at| self.clauses.get(at));
            match clause.and_then(|clause| clause.keys(attribute)) {
                None => rest.push(*number),
                Some(demanded) => {
                    for name in names(&demanded) {
                        *sizes.entry(name).or_default() += 1;
                        filings += 1;
                    }
                    keys.push((*number, demanded));
                }
            }
        }
        let largest = sizes.values().max().copied().unwrap_or_default();
        Candidate {
            attribute,
            spared: keys.len().saturating_sub(largest),
            keys,
            rest,
            filings,
        }
    }

    fn file(
        &mut self,
        attribute: &Attribute,
        keys: Vec<(u32, Keys)>,
        asked: &mut Vec<&'c Attribute>,
    ) -> Filed {
        let mut texts = new_texts(attribute);
        let mut blocks: HashMap<Block, Vec<u32>> = HashMap::new();
        let mut ports: HashMap<u16, Vec<u32>> = HashMap::new();
        let mut textual = true;
        for (number, keys) in keys {
            match keys {
                Keys::Texts(patterns) => patterns.iter().for_each(|one| file_text(&mut texts, one, number)),
                Keys::Blocks(demanded) => {
                    textual = false;
                    for block in demanded {
                        push(blocks.entry(block).or_default(), number);
                    }
                }
                Keys::Ports(demanded) => {
                    textual = false;
                    for port in demanded {
                        push(ports.entry(port).or_default(), number);
                    }
                }
            }
        }
        if textual {
            return Filed::Texts(Box::new(texts.map(|numbers| self.node(numbers, asked))));
        }
        if ports.is_empty() {
            let mut blocks: Vec<_> = blocks.into_iter().collect();
            blocks.sort_by_key(|(block, _)| *block);
            let children = blocks
                .into_iter()
                .map(|(block, numbers)| (block, self.node(numbers, asked)));
            return Filed::Blocks(BlockMap::new(children.collect()));
        }
        let mut ports: Vec<_> = ports.into_iter().collect();
        ports.sort_by_key(|(port, _)| *port);
        let children = ports
            .into_iter()
            .map(|(port, numbers)| (port, self.node(numbers, asked)));
        Filed::Ports(children.collect())
    }
}

fn new_texts(attribute: &Attribute) -> Texts<Vec<u32>> {
    let fold = match attribute {
        Attribute::Host => Fold::Ascii,
        _ => Fold::Exact,
    };
    Texts {
        forward: ByteTrie::new(fold),
        backward: ByteTrie::new(fold),
        present: None,
    }
}

fn file_text(texts: &mut Texts<Vec<u32>>, pattern: &Pattern, number: u32) {
    let place = match pattern {
        Pattern::Exact(exact) => texts.forward.exact(exact.bytes()),
        Pattern::Prefix(prefix) => texts.forward.prefix(prefix.bytes()),
        Pattern::Suffix(suffix) => texts.backward.prefix(suffix.bytes().rev()),
        Pattern::Present => &mut texts.present,
    };
    push(place.get_or_insert_with(Vec::new), number);
}

/// Clauses are filed in their order, so a second filing follows the first.
fn push(numbers: &mut Vec<u32>, number: u32) {
    if numbers.last() != Some(&number) {
        numbers.push(number);
    }
}

/// The keys, told apart.
fn names(keys: &Keys) -> Vec<String> {
    match keys {
        Keys::Texts(keys) => keys.iter().map(ToString::to_string).collect(),
        Keys::Blocks(keys) => keys.iter().map(ToString::to_string).collect(),
        Keys::Ports(keys) => keys.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests;
