//! The key sets of the issuers, one per rule.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use signet_certs::jws::{KeySet, KeySetError};
use signet_policy::KeyAddress;
use signet_policy::model::JwtRule;
use signet_policy::model::request::KeySource;
use signet_policy::tokens::TokenRules;
use signet_runtime::kept::Kept;

use super::Given;

/// The keys of one rule.
#[derive(Clone, Debug)]
pub enum IssuerKeys {
    /// They are in the rule, and never change.
    Inline(Arc<KeySet>),
    /// The rule holds keys, of which none can be used.
    Unusable(KeySetError),
    /// This process fetches them.
    Fetched(Arc<Kept<KeySet>>),
    /// Somebody else holds them: the agent, or a file.
    Given(Given),
}

/// Why there are no keys to judge by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// They were never fetched; the log says why.
    #[error("the keys of the token's issuer have not been fetched yet")]
    NotYet,
    /// The rule's own keys cannot be used.
    #[error("the rule's own keys cannot be used")]
    Unusable,
}

impl Lack {
    /// A stable word for metrics and access records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotYet => "keys_not_fetched",
            Self::Unusable => "keys_unusable",
        }
    }
}

/// The keys of all rules of a workload, by the numbers of the rules.
#[derive(Clone, Debug, Default)]
pub struct KeySets(Vec<IssuerKeys>);

impl KeySets {
    /// Those of `rules`: inline sets are read here, for others `elsewhere` is asked.
    #[must_use]
    pub fn new(rules: &TokenRules, mut elsewhere: impl FnMut(&JwtRule, KeyAddress) -> IssuerKeys) -> Self {
        let keys = rules.rules().iter().map(|rule| {
            let inline = match &rule.keys {
                KeySource::Inline(text) => text.as_str(),
                KeySource::Uri(_) | KeySource::Discovery => "",
            };
            match KeyAddress::of(rule) {
                Some(address) => elsewhere(rule, address),
                None => match KeySet::parse(inline.as_bytes()) {
                    Ok(keys) => IssuerKeys::Inline(Arc::new(keys)),
                    Err(fault) => IssuerKeys::Unusable(fault),
                },
            }
        });
        Self(keys.collect())
    }

    /// Waits until every set that this process fetches was fetched once, or could not be.
    pub async fn settled(&self) {
        for keys in &self.0 {
            if let IssuerKeys::Fetched(kept) = keys {
                kept.settled().await;
            }
        }
    }

    /// What is known of each rule's keys, in the order of the rules, for people.
    pub fn states(&self) -> impl Iterator<Item = KeyState<'_>> {
        self.0.iter().map(KeyState)
    }

    /// The keys of the rule of that number.
    pub(super) fn of(&self, rule: usize) -> Result<Arc<KeySet>, Lack> {
        match self.0.get(rule) {
            Some(IssuerKeys::Inline(keys)) => Ok(Arc::clone(keys)),
            Some(IssuerKeys::Fetched(kept)) => kept.current().ok_or(Lack::NotYet),
            Some(IssuerKeys::Given(given)) => given.current().ok_or(Lack::NotYet),
            Some(IssuerKeys::Unusable(_)) => Err(Lack::Unusable),
            None => Err(Lack::NotYet),
        }
    }

    /// Asks for a newer set than `missed`. Whether there is one now.
    pub(super) async fn newer(&self, rule: usize, missed: &Arc<KeySet>, patience: Duration) -> bool {
        match self.0.get(rule) {
            Some(IssuerKeys::Fetched(kept)) => kept.newer(missed, patience).await,
            Some(IssuerKeys::Given(given)) => given.newer(missed, patience).await,
            _ => false,
        }
    }
}

/// What is known of one rule's keys.
#[derive(Clone, Copy, Debug)]
pub struct KeyState<'k>(&'k IssuerKeys);

impl KeyState<'_> {
    /// How many keys can be used now.
    #[must_use]
    pub fn usable(&self) -> usize {
        match self.0 {
            IssuerKeys::Inline(keys) => keys.usable(),
            IssuerKeys::Fetched(kept) => kept.current().map_or(0, |keys| keys.usable()),
            IssuerKeys::Given(given) => given.current().map_or(0, |keys| keys.usable()),
            IssuerKeys::Unusable(_) => 0,
        }
    }
}

impl fmt::Display for KeyState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usable = self.usable();
        match self.0 {
            IssuerKeys::Inline(_) => write!(f, "{usable} keys in the rule"),
            IssuerKeys::Unusable(fault) => fault.fmt(f),
            IssuerKeys::Given(given) if given.current().is_none() => f.write_str("not there yet"),
            IssuerKeys::Given(_) => write!(f, "{usable} keys"),
            IssuerKeys::Fetched(kept) => match (kept.current(), kept.fault()) {
                (None, None) => f.write_str("being fetched for the first time"),
                (None, Some(fault)) => write!(f, "never fetched: {fault}"),
                (Some(_), None) => write!(f, "{usable} keys"),
                (Some(_), Some(fault)) => write!(f, "{usable} keys, the last good ones: {fault}"),
            },
        }
    }
}
