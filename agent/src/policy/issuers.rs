//! Key sets of token issuers: fetched once for the node, however many proxies want them, and kept fresh while one does.
//!
//! A set outlives its last user by a while: proxies that come and go in a row make no fetch each. A namespace whose
//! policies ask for sets has a share of those that are kept, and the root namespace one that is its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rustls::ClientConfig;
use serde_json::{Value, json};
use signet_certs::jws::{KeySet, MAX_KEY_SET_BYTES};
use signet_certs::tls::{web_client_config, web_roots};
use signet_policy::{DialRules, KeyAddress};
use signet_proto::policy::keys::{Digest, MAX_SETS, MAX_SETS_BYTES, digest};
use signet_runtime::Clock;
use signet_runtime::clock::TlsTime;
use signet_runtime::fetch::{Fetcher, Redirects, machine_roots};
use signet_runtime::files::read_bounded;
use signet_runtime::kept::schedule::Plan;
use signet_runtime::kept::{Document, Keeper, Kept, Outcome, Read, Reader};
use signet_runtime::shutdown::Tasks;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::quiet::Quiet;

/// Most sets kept for a node. Each is bounded by [`MAX_KEY_SET_BYTES`].
pub const MAX_KEPT: usize = 512;
/// A namespace may take this part of them.
const SHARES: usize = 4;
/// How long a set is kept that nobody wants any more.
const LINGER: Duration = Duration::from_secs(600);
/// How often it is looked which those are.
const SWEEP: Duration = Duration::from_secs(60);
/// Longest wait of one who misses a key.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest file of CAs, in bytes.
const MAX_CA_FILE_BYTES: usize = 1024 * 1024;

/// How key sets are fetched, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFetching {
    /// CAs of the servers, in PEM; nothing for those of the machine.
    pub ca_file: Option<PathBuf>,
    /// Which addresses may be dialled.
    pub dial: DialRules,
}

/// A set that a token rule asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Issuer {
    /// Where it is.
    pub address: KeyAddress,
    /// How long a fetch may take.
    pub patience: Duration,
}

/// Sets that are asked for, with the namespace of a policy that asks.
pub type Wanted = BTreeMap<Issuer, String>;

/// A set as it was fetched.
#[derive(Debug)]
pub struct Fetched {
    keys: KeySet,
    /// As it came.
    pub jwks: Bytes,
    /// Which one it is.
    pub digest: Digest,
}

impl PartialEq for Fetched {
    /// Keys that are written otherwise are the same keys.
    fn eq(&self, other: &Self) -> bool {
        self.keys == other.keys
    }
}

struct Entry {
    kept: Arc<Kept<Fetched>>,
    wanted: Instant,
    /// The namespace whose share it is of.
    of: String,
}

struct Inner {
    keeper: Keeper<Fetched>,
    most: usize,
    root_namespace: String,
    entries: Mutex<BTreeMap<Issuer, Entry>>,
    news: watch::Sender<u64>,
    metrics: Metrics,
    quiet: Mutex<Quiet<&'static str>>,
}

/// The sets. Clones share them.
#[derive(Clone)]
pub struct Issuers(Arc<Inner>);

/// The sets of one workload, kept as long as this lives.
#[derive(Clone, Debug, Default)]
pub struct KeptSets(Vec<(KeyAddress, Arc<Kept<Fetched>>)>);

/// Where each set that is known is from.
pub type Known = Vec<(KeyAddress, Arc<Fetched>)>;

impl Issuers {
    /// Fetches as configured, for policies of a mesh with this root namespace. Nothing is dialled yet.
    ///
    /// # Errors
    /// A sentence that names the file of CAs.
    pub fn start(
        (fetching, root_namespace): (&KeyFetching, &str),
        clock: &Arc<dyn Clock>,
        metrics: &Metrics,
        tasks: &Tasks,
    ) -> Result<Self, String> {
        let fetcher = Fetcher {
            tls: tls(fetching.ca_file.as_deref(), clock)?,
            permit: {
                let rules = fetching.dial.clone();
                Arc::new(move |address| rules.permit(address))
            },
            max_body: MAX_KEY_SET_BYTES,
            redirects: Redirects::SameHost,
            user_agent: concat!("signet-agent/", env!("CARGO_PKG_VERSION")),
        };
        let this = Self::with(
            fetcher,
            (Plan::default(), MAX_KEPT, root_namespace),
            clock,
            metrics,
            tasks,
        );
        let swept = this.clone();
        tasks.spawn_until_shutdown(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                swept.sweep(Instant::now());
            }
        });
        Ok(this)
    }

    fn with(
        fetcher: Fetcher,
        (plan, most, root_namespace): (Plan, usize, &str),
        clock: &Arc<dyn Clock>,
        metrics: &Metrics,
        tasks: &Tasks,
    ) -> Self {
        let news = watch::Sender::new(0_u64);
        let (bell, counted) = (news.clone(), metrics.clone());
        let observer = Arc::new(move |outcome: Outcome| {
            Metrics::count(&counted.key_fetches, outcome.as_str());
            if outcome == Outcome::Changed {
                bell.send_modify(|changes| *changes = u64::wrapping_add(*changes, 1));
            }
        });
        Self(Arc::new(Inner {
            keeper: Keeper::new(fetcher, plan, Arc::clone(clock), tasks.clone(), observer),
            most,
            root_namespace: root_namespace.to_owned(),
            entries: Mutex::default(),
            news,
            metrics: metrics.clone(),
            quiet: Mutex::default(),
        }))
    }

    /// Rings when any set has changed.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<u64> {
        self.0.news.subscribe()
    }

    /// Keeps the sets of these addresses.
    #[must_use]
    pub fn keep(&self, wanted: &Wanted) -> KeptSets {
        let mut entries = self.entries();
        let (mut kept, mut left_out) = (Vec::new(), wanted.len().saturating_sub(MAX_SETS));
        for (issuer, namespace) in wanted.iter().take(MAX_SETS) {
            if !entries.contains_key(issuer) && !self.has_room(&entries, namespace) {
                left_out += 1;
                continue;
            }
            let entry = entries.entry(issuer.clone()).or_insert_with(|| Entry {
                kept: self.0.keeper.keep(document(issuer)),
                wanted: Instant::now(),
                of: namespace.clone(),
            });
            entry.wanted = Instant::now();
            kept.push((issuer.address.clone(), Arc::clone(&entry.kept)));
        }
        drop(entries);
        if left_out > 0 {
            self.left_out(left_out);
        }
        KeptSets(kept)
    }

    /// Whether this namespace may have one more set kept.
    fn has_room(&self, entries: &BTreeMap<Issuer, Entry>, namespace: &str) -> bool {
        let (share, root) = (self.0.most / SHARES, self.0.root_namespace.as_str());
        let own = entries.values().filter(|entry| entry.of == namespace).count();
        let others = entries.values().filter(|entry| entry.of != root).count();
        own < share && (namespace == root || others < share * (SHARES - 1))
    }

    /// Those of the sets that are known, as many as one snapshot has room for.
    #[must_use]
    pub fn known(&self, sets: &KeptSets) -> Known {
        let (mut known, mut room, mut left_out) = (Vec::new(), MAX_SETS_BYTES, 0);
        for (address, kept) in &sets.0 {
            let Some(set) = kept.current() else { continue };
            match room.checked_sub(set.jwks.len()) {
                Some(left) => {
                    room = left;
                    known.push((address.clone(), set));
                }
                None => left_out += 1,
            }
        }
        if left_out > 0 {
            self.left_out(left_out);
        }
        known
    }

    fn left_out(&self, count: usize) {
        for _ in 0..count {
            Metrics::count(&self.0.metrics.key_fetches, "no_room");
        }
        let mut quiet = self.0.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        if quiet.may_log("no_room", Instant::now()) {
            tracing::error!(
                most = self.0.most,
                "there are more key sets of token issuers than are kept, of a namespace or in all; tokens of the others are refused"
            );
        }
    }

    /// Whether one of these sets, which are of one address, is newer than `held`; fetches it, unless that was done just
    /// now. Sets that nobody keeps are not fetched for it.
    pub async fn refresh(&self, wanted: &Wanted, held: &[u8]) -> bool {
        let kept: Vec<Arc<Kept<Fetched>>> = {
            let entries = self.entries();
            let known = wanted.keys().filter_map(|issuer| entries.get(issuer));
            known.map(|entry| Arc::clone(&entry.kept)).collect()
        };
        for kept in kept {
            let newer = match kept.current() {
                Some(now) if now.digest == held => kept.newer(&now, PATIENCE).await,
                Some(_) => true,
                None => false,
            };
            if newer {
                return true;
            }
        }
        false
    }

    /// Lets go of what nobody wanted for a while.
    fn sweep(&self, now: Instant) {
        self.entries().retain(|_, entry| {
            // One is our own.
            if Arc::strong_count(&entry.kept) > 1 {
                entry.wanted = now;
            }
            now.duration_since(entry.wanted) < LINGER
        });
    }

    /// What is known, for people.
    #[must_use]
    pub fn page(&self) -> Value {
        let entries = self.entries();
        let one = |(issuer, entry): (&Issuer, &Entry)| {
            json!({
                "address": issuer.address.to_string(),
                "keys": entry.kept.current().map(|set| set.keys.usable()),
                "failure": entry.kept.fault().as_deref(),
            })
        };
        entries.iter().map(one).collect()
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<Issuer, Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn document(issuer: &Issuer) -> Document<Fetched> {
    Document {
        name: issuer.address.to_string(),
        address: issuer.address.first(),
        patience: issuer.patience,
        read: reader(issuer.address.clone()),
    }
}

/// What an issuer describes leads to its keys; keys are read as such, and lead no further.
fn reader(address: KeyAddress) -> Reader<Fetched> {
    Box::new(move |step, body| {
        let described = if step == 0 { address.next(body) } else { Ok(None) };
        match described {
            Ok(Some(next)) => return Read::Elsewhere(next),
            Ok(None) => {}
            Err(fault) => return Read::Fault(fault.to_string()),
        }
        match KeySet::parse(body) {
            Ok(keys) => Read::Value(Fetched {
                keys,
                digest: digest(body),
                jwks: Bytes::copy_from_slice(body),
            }),
            Err(fault) => Read::Fault(fault.to_string()),
        }
    })
}

/// Issuers prove their host names, under the CAs of `ca_file` or those of the machine.
fn tls(ca_file: Option<&Path>, clock: &Arc<dyn Clock>) -> Result<Arc<ClientConfig>, String> {
    let roots = match ca_file {
        Some(path) => {
            let pem = read_bounded(path, MAX_CA_FILE_BYTES).map_err(|e| e.to_string())?;
            web_roots(&pem).map_err(|e| format!("the CAs of {}: {e}", path.display()))?
        }
        None => machine_roots(),
    };
    let time = Arc::new(TlsTime(Arc::clone(clock)));
    let config = web_client_config(roots, &[b"http/1.1"], time).map_err(|e| format!("tls: {e}"))?;
    Ok(Arc::new(config))
}

impl std::fmt::Debug for Issuers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Issuers({} sets)", self.entries().len())
    }
}

#[cfg(test)]
mod tests;
