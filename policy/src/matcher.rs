//! Istio's string rule: `*` is presence, a leading star a suffix, a trailing star a prefix, anything else
//! is compared whole. Nothing is a regular expression and nothing is trimmed.

use std::fmt;

use crate::connection::Text;
use crate::trie::{ByteTrie, Fold};

/// Up to this many patterns are compared one by one.
const FEW: usize = 8;

/// One value of a string rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// The whole text.
    Exact(Box<str>),
    /// How the text begins.
    Prefix(Box<str>),
    /// How the text ends.
    Suffix(Box<str>),
    /// Any text but the empty one.
    Present,
}

impl Pattern {
    /// Reads a value. A star that is neither alone, first nor last is a star; after a leading one, so is a
    /// trailing one.
    #[must_use]
    pub fn new(value: &str) -> Self {
        if value == "*" {
            Self::Present
        } else if let Some(suffix) = value.strip_prefix('*') {
            Self::Suffix(suffix.into())
        } else if let Some(prefix) = value.strip_suffix('*') {
            Self::Prefix(prefix.into())
        } else {
            Self::Exact(value.into())
        }
    }

    /// Whether `text` is meant.
    #[must_use]
    pub fn matches(&self, text: &[u8], fold: Fold) -> bool {
        match self {
            Self::Exact(exact) => fold.equal(exact.as_bytes(), text),
            Self::Prefix(prefix) => text
                .get(..prefix.len())
                .is_some_and(|head| fold.equal(prefix.as_bytes(), head)),
            Self::Suffix(suffix) => text
                .len()
                .checked_sub(suffix.len())
                .and_then(|at| text.get(at..))
                .is_some_and(|tail| fold.equal(suffix.as_bytes(), tail)),
            Self::Present => !text.is_empty(),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => f.write_str(exact),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Present => f.write_str("*"),
        }
    }
}

/// Patterns of which any suffices, so built that many cost hardly more than few.
#[derive(Clone, Debug)]
pub(crate) struct TextSet {
    patterns: Box<[Pattern]>,
    many: Option<Box<Many>>,
    fold: Fold,
}

#[derive(Clone, Debug)]
struct Many {
    forward: ByteTrie<()>,
    backward: ByteTrie<()>,
    present: bool,
}

impl TextSet {
    pub(crate) fn new(patterns: Vec<Pattern>, fold: Fold) -> Self {
        let many = (patterns.len() > FEW).then(|| Box::new(Many::new(&patterns, fold)));
        Self {
            patterns: patterns.into(),
            many,
            fold,
        }
    }

    pub(crate) fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        self.matches_text(Text::Whole(text))
    }

    pub(crate) fn matches_text(&self, text: Text<'_>) -> bool {
        if let Some(many) = &self.many {
            return many.matches(text);
        }
        let mut patterns = self.patterns.iter();
        match text.whole() {
            Some(whole) => patterns.any(|pattern| match pattern {
                Pattern::Present => text.is_present(),
                pattern => pattern.matches(whole, self.fold),
            }),
            None => patterns.any(|pattern| joined_matches(pattern, text, self.fold)),
        }
    }
}

impl Many {
    fn new(patterns: &[Pattern], fold: Fold) -> Self {
        let mut many = Self {
            forward: ByteTrie::new(fold),
            backward: ByteTrie::new(fold),
            present: false,
        };
        for pattern in patterns {
            match pattern {
                Pattern::Exact(exact) => *many.forward.exact(exact.bytes()) = Some(()),
                Pattern::Prefix(prefix) => *many.forward.prefix(prefix.bytes()) = Some(()),
                Pattern::Suffix(suffix) => *many.backward.prefix(suffix.bytes().rev()) = Some(()),
                Pattern::Present => many.present = true,
            }
        }
        many
    }

    fn matches(&self, text: Text<'_>) -> bool {
        self.present && text.is_present()
            || text.begins_in(&self.forward, &mut |()| true)
            || text.ends_in(&self.backward, &mut |()| true)
    }
}

/// Whether a text in several pieces matches.
fn joined_matches(pattern: &Pattern, text: Text<'_>, fold: Fold) -> bool {
    let length = text.forward().count();
    let same = |wanted: &str, part: &mut dyn Iterator<Item = u8>| {
        let wanted = wanted.bytes().map(|b| fold.byte(b));
        wanted.eq(part.map(|b| fold.byte(b)))
    };
    match pattern {
        Pattern::Present => text.is_present(),
        Pattern::Exact(exact) => exact.len() == length && same(exact, &mut text.forward()),
        Pattern::Prefix(prefix) => same(prefix, &mut text.forward().take(prefix.len())),
        Pattern::Suffix(suffix) => length
            .checked_sub(suffix.len())
            .is_some_and(|skip| same(suffix, &mut text.forward().skip(skip))),
    }
}

/// A pattern in which every star stands for any run of characters: Istio's form for `namespaces`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob(Box<str>);

impl Glob {
    /// Takes the pattern as written.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text`, which is not empty, is meant.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let Some((head, rest)) = self.0.split_once('*') else {
            return *self.0 == *text;
        };
        let Some(mut text) = text.strip_prefix(head) else {
            return false;
        };
        let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
        for part in middle.split('*') {
            let Some(at) = text.find(part) else {
                return false;
            };
            text = text.get(at + part.len()..).unwrap_or_default();
        }
        text.ends_with(tail)
    }

    /// The string rule that means the same, if one does.
    pub(crate) fn as_pattern(&self) -> Option<Pattern> {
        let stars = self.0.bytes().filter(|b| *b == b'*').count();
        match stars {
            0 => Some(Pattern::Exact(self.0.clone())),
            1 if self.0.starts_with('*') || self.0.ends_with('*') => Some(Pattern::new(&self.0)),
            _ => None,
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
