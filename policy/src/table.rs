//! The clauses of one action, and what the search among them found.

use crate::clause::Clause;
use crate::connection::Facts;
use crate::index::Index;
use crate::model::{Attribute, Place};

/// Clauses of policies of one action.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    clauses: Box<[Clause]>,
    index: Index,
}

/// The outcome of a search that found no match.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NoMatch<'t> {
    /// This clause came furthest, up to this place.
    Near(&'t Clause, Place),
    /// All clauses demand something else of this attribute.
    Attribute(&'t Attribute),
    /// There are clauses, none of them near.
    Far,
    /// There are none.
    Empty,
}

impl Table {
    pub(crate) fn new(clauses: Vec<Clause>) -> Self {
        Self {
            index: Index::new(&clauses),
            clauses: clauses.into(),
        }
    }

    pub(crate) fn clauses(&self) -> &[Clause] {
        &self.clauses
    }

    /// The clauses of one policy. They stand in the order of the policies.
    pub(crate) fn clauses_of(&self, policy: u32) -> impl Iterator<Item = &Clause> {
        let from = self.clauses.partition_point(|clause| clause.policy < policy);
        let rest = self.clauses.iter().skip(from);
        rest.take_while(move |clause| clause.policy == policy)
    }

    fn clause(&self, number: u32) -> Option<&Clause> {
        self.clauses.get(usize::try_from(number).ok()?)
    }

    /// A clause that matches.
    pub(crate) fn first(&self, facts: &Facts<'_>) -> Result<&Clause, NoMatch<'_>> {
        let mut found = None;
        let mut nearest: Option<(usize, u32, Place)> = None;
        self.index.search(facts, &mut |number| {
            let Some(clause) = self.clause(number) else {
                return false;
            };
            match clause.miss(facts) {
                None => {
                    found = Some(clause);
                    return true;
                }
                Some(miss) => {
                    if nearest.is_none_or(|(passed, ..)| miss.passed > passed) {
                        nearest = Some((miss.passed, number, miss.check.place));
                    }
                }
            }
            false
        });
        found.ok_or_else(|| self.no_match(nearest))
    }

    fn no_match(&self, nearest: Option<(usize, u32, Place)>) -> NoMatch<'_> {
        if let Some((_, number, place)) = nearest
            && let Some(clause) = self.clause(number)
        {
            return NoMatch::Near(clause, place);
        }
        match self.index.demands() {
            Some(attribute) => NoMatch::Attribute(attribute),
            None if self.clauses.is_empty() => NoMatch::Empty,
            None => NoMatch::Far,
        }
    }

    /// Shows every clause that matches.
    pub(crate) fn each<'t>(&'t self, facts: &Facts<'_>, visit: &mut impl FnMut(&'t Clause)) {
        self.index.search(facts, &mut |number| {
            if let Some(clause) = self.clause(number)
                && clause.miss(facts).is_none()
            {
                visit(clause);
            }
            false
        });
    }
}
