//! One comparison, ready to be made without allocating.

use std::sync::Arc;

use crate::address::{Block, BlockMap};
use crate::connection::{Facts, Lines, RequestIdentity};
use crate::matcher::{Glob, Pattern, TextSet};
use crate::model::{Attribute, Place, Term, Values, term::PathValue};
use crate::path::template::Template;
use crate::principal::{LocalDomains, RequestPrincipal};
use crate::trie::{ByteTrie, Fold};

/// How a comparison is read where there are two ways: on the safe side of what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reading {
    /// A peer of a foreign trust domain cannot match, because no `trustDomains` stands beside the names.
    pub(crate) local_only: bool,
    /// What a header says that stands several times.
    pub(crate) lines: Lines,
}

/// A term, compiled.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) attribute: Attribute,
    pub(crate) negated: bool,
    pub(crate) lines: Lines,
    local_only: bool,
    want: Want,
    pub(crate) place: Place,
    /// The values as written, for people.
    pub(crate) written: Arc<Values>,
}

#[derive(Clone, Debug)]
enum Want {
    Text(TextSet),
    Globs(Box<[Glob]>, TextSet),
    Paths(PathSet),
    RequestPrincipals(Box<[RequestPrincipal]>),
    Blocks(BlockMap<()>),
    Ports(Box<[u16]>),
}

impl Check {
    pub(crate) fn new(term: &Term, reading: Reading, local: &LocalDomains) -> Self {
        let names_workload = matches!(term.attribute, Attribute::Namespace | Attribute::ServiceAccount);
        Self {
            attribute: term.attribute.clone(),
            negated: term.negated,
            lines: reading.lines,
            local_only: names_workload && reading.local_only,
            want: Want::new(term, local),
            place: term.place,
            written: Arc::new(term.values.clone()),
        }
    }

    /// Whether the term is true of `facts`: for an attribute that is absent, a negated one is.
    pub(crate) fn holds(&self, facts: &Facts<'_>) -> bool {
        self.matches(facts) != self.negated
    }

    fn matches(&self, facts: &Facts<'_>) -> bool {
        if self.local_only && !facts.local {
            return false;
        }
        let attribute = &self.attribute;
        match &self.want {
            Want::Text(set) => facts.any_text(attribute, self.lines, &mut |text| set.matches_text(text)),
            Want::Globs(globs, set) => facts.text(attribute).is_some_and(|text| {
                set.matches(text.as_bytes()) || globs.iter().any(|glob| glob.matches(text))
            }),
            Want::Paths(set) => facts.text(attribute).is_some_and(|path| set.matches(path)),
            Want::RequestPrincipals(all) => {
                let pair = identity(facts).and_then(RequestIdentity::issuer_and_subject);
                pair.is_some_and(|(issuer, subject)| all.iter().any(|one| one.matches(issuer, subject)))
            }
            Want::Blocks(blocks) => facts
                .address(attribute)
                .is_some_and(|address| blocks.search(address, &mut |()| true)),
            Want::Ports(ports) => ports.binary_search(&facts.connection.port).is_ok(),
        }
    }

    /// What a value that matches is like: all that an index needs to know. More may be like it than match.
    pub(crate) fn keys(&self) -> Keys {
        match &self.want {
            Want::Text(set) => Keys::Texts(set.patterns().to_vec()),
            Want::Globs(globs, set) => {
                let heads = globs.iter().map(|glob| {
                    let (head, _) = glob.as_str().split_once('*').unwrap_or_default();
                    if head.is_empty() {
                        Pattern::Present
                    } else {
                        Pattern::Prefix(head.into())
                    }
                });
                Keys::Texts(heads.chain(set.patterns().iter().cloned()).collect())
            }
            Want::Paths(set) => {
                let heads = set.templates.iter().map(|one| Pattern::Prefix(one.head().into()));
                Keys::Texts(heads.chain(set.texts.patterns().iter().cloned()).collect())
            }
            Want::RequestPrincipals(all) => Keys::Texts(all.iter().map(RequestPrincipal::joined).collect()),
            Want::Blocks(_) => match &*self.written {
                Values::Blocks(blocks) => Keys::Blocks(blocks.clone()),
                _ => Keys::Blocks(Vec::new()),
            },
            Want::Ports(ports) => Keys::Ports(ports.to_vec()),
        }
    }
}

/// The values of a check, as an index files them.
#[derive(Clone, Debug)]
pub(crate) enum Keys {
    Texts(Vec<Pattern>),
    Blocks(Vec<Block>),
    Ports(Vec<u16>),
}

impl Keys {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Texts(keys) => keys.len(),
            Self::Blocks(keys) => keys.len(),
            Self::Ports(keys) => keys.len(),
        }
    }

    /// Both together, if they are of one kind.
    pub(crate) fn and(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Texts(a), Self::Texts(b)) => Some(Self::Texts([a, b].concat())),
            (Self::Blocks(a), Self::Blocks(b)) => Some(Self::Blocks([a, b].concat())),
            (Self::Ports(a), Self::Ports(b)) => Some(Self::Ports([a, b].concat())),
            _ => None,
        }
    }
}

fn identity<'a>(facts: &Facts<'a>) -> Option<&'a RequestIdentity> {
    facts.request?.identity
}

impl Want {
    fn new(term: &Term, local: &LocalDomains) -> Self {
        let fold = match term.attribute {
            Attribute::Host => Fold::Ascii,
            _ => Fold::Exact,
        };
        match &term.values {
            Values::Patterns(patterns) => {
                let expanded = match term.attribute {
                    Attribute::Principal => patterns
                        .iter()
                        .flat_map(|one| local.expand_principal(one))
                        .collect(),
                    Attribute::TrustDomain => {
                        patterns.iter().flat_map(|one| local.expand_domain(one)).collect()
                    }
                    _ => patterns.clone(),
                };
                Self::Text(TextSet::new(expanded, fold))
            }
            Values::Globs(globs) => {
                let plain = globs.iter().filter_map(Glob::as_pattern).collect();
                let rest = globs.iter().filter(|glob| glob.as_pattern().is_none()).cloned();
                Self::Globs(rest.collect(), TextSet::new(plain, fold))
            }
            Values::Accounts(accounts) => {
                let exact = |account: &crate::principal::Account| Pattern::Exact(account.in_path().into());
                Self::Text(TextSet::new(accounts.iter().map(exact).collect(), fold))
            }
            Values::RequestPrincipals(all) => Self::RequestPrincipals(all.clone().into()),
            Values::Paths(paths) => Self::Paths(PathSet::new(paths)),
            Values::Blocks(blocks) => {
                Self::Blocks(BlockMap::new(blocks.iter().map(|block| (*block, ())).collect()))
            }
            Values::Ports(ports) => {
                let mut ports = ports.clone();
                ports.sort_unstable();
                Self::Ports(ports.into())
            }
        }
    }
}

/// Paths of which any suffices.
#[derive(Clone, Debug)]
struct PathSet {
    texts: TextSet,
    templates: Box<[Template]>,
    /// Templates by what their paths begin with.
    by_head: ByteTrie<Vec<usize>>,
}

impl PathSet {
    fn new(values: &[PathValue]) -> Self {
        let mut texts = Vec::new();
        let mut templates: Vec<Template> = Vec::new();
        let mut by_head = ByteTrie::new(Fold::Exact);
        for value in values {
            match value {
                PathValue::Pattern(pattern) => texts.push(pattern.clone()),
                PathValue::Template(template) => {
                    let at = by_head.prefix(template.head().bytes());
                    at.get_or_insert_with(Vec::new).push(templates.len());
                    templates.push(template.clone());
                }
            }
        }
        Self {
            texts: TextSet::new(texts, Fold::Exact),
            templates: templates.into(),
            by_head,
        }
    }

    fn matches(&self, path: &str) -> bool {
        let one = |at: &usize| self.templates.get(*at).is_some_and(|one| one.matches(path));
        self.texts.matches(path.as_bytes())
            || !self.templates.is_empty()
                && self
                    .by_head
                    .search(path.bytes(), &mut |all: &Vec<usize>| all.iter().any(one))
    }
}
