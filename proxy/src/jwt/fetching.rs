//! Keys that this process fetches itself, where no agent does.

use std::sync::Arc;

use rustls::ClientConfig;
use signet_certs::jws::{KeySet, MAX_KEY_SET_BYTES};
use signet_policy::model::JwtRule;
use signet_policy::tokens::TokenRules;
use signet_policy::{DialRules, KeyAddress};
use signet_runtime::Clock;
use signet_runtime::fetch::{Fetcher, Redirects};
use signet_runtime::kept::schedule::Plan;
use signet_runtime::kept::{Document, Keeper, Observer, Read};
use signet_runtime::shutdown::Tasks;

use super::files::KeyFiles;
use super::{IssuerKeys, KeySets, TokenMetrics};

/// Fetches key sets and keeps them fresh, each once however many rules name it.
pub struct KeyFetcher {
    keeper: Keeper<KeySet>,
    files: KeyFiles,
}

impl KeyFetcher {
    /// One that dials as `rules` permit, and meets servers by their names as `tls` says.
    #[must_use]
    pub fn new(
        tls: Arc<ClientConfig>,
        rules: DialRules,
        clock: Arc<dyn Clock>,
        tasks: Tasks,
        metrics: &TokenMetrics,
    ) -> Self {
        Self::with_plan(tls, rules, (Plan::default(), clock), tasks, metrics)
    }

    /// The same, at other times.
    #[must_use]
    pub fn with_plan(
        tls: Arc<ClientConfig>,
        rules: DialRules,
        (plan, clock): (Plan, Arc<dyn Clock>),
        tasks: Tasks,
        metrics: &TokenMetrics,
    ) -> Self {
        let fetcher = Fetcher {
            tls,
            permit: Arc::new(move |address| rules.permit(address)),
            max_body: MAX_KEY_SET_BYTES,
            redirects: Redirects::SameHost,
            user_agent: concat!("signet-proxy/", env!("CARGO_PKG_VERSION")),
        };
        let fetches = metrics.fetches.clone();
        let observer: Observer = Arc::new(move |outcome| TokenMetrics::count(&fetches, outcome.as_str()));
        Self {
            keeper: Keeper::new(fetcher, plan, clock, tasks, observer),
            files: KeyFiles::default(),
        }
    }

    /// The same, but for issuers whose keys lie in files: theirs are not fetched, wherever a rule says they are.
    #[must_use]
    pub fn with_files(mut self, files: KeyFiles) -> Self {
        self.files = files;
        self
    }

    /// The keys of all rules. Sets that other rules wanted before are shared, so make these before letting go
    /// of the former.
    #[must_use]
    pub fn key_sets(&self, rules: &TokenRules) -> KeySets {
        KeySets::new(rules, |rule, address| {
            match self.files.of(rule.issuer.as_deref()) {
                Some(given) => IssuerKeys::Given(given),
                None => IssuerKeys::Fetched(self.keeper.keep(document(rule, address))),
            }
        })
    }
}

fn document(rule: &JwtRule, address: KeyAddress) -> Document<KeySet> {
    Document {
        name: address.to_string(),
        address: address.first(),
        patience: rule.timeout,
        read: reader(address),
    }
}

/// What an issuer describes leads to its keys; keys are read as such, and lead no further.
fn reader(address: KeyAddress) -> signet_runtime::kept::Reader<KeySet> {
    Box::new(move |step, body| {
        if step == 0 {
            match address.next(body) {
                Ok(Some(next)) => return Read::Elsewhere(next),
                Ok(None) => {}
                Err(fault) => return Read::Fault(fault.to_string()),
            }
        }
        match KeySet::parse(body) {
            Ok(keys) => Read::Value(keys),
            Err(fault) => Read::Fault(fault.to_string()),
        }
    })
}

impl std::fmt::Debug for KeyFetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyFetcher")
    }
}

#[cfg(test)]
mod tests;
