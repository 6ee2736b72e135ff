//! The table of open streams, SDS and Workload API alike: bounds on how many there are and how often they are opened,
//! and what an operator sees of them.

mod closings;
pub(crate) mod counts;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::book::Book;
use super::{Closing, Notice};
use crate::attest::cgroup::PodUid;
use crate::attest::{Peer, Share, Subject, Workload};
use crate::metrics::Metrics;
use crate::quiet::Quiet;
use crate::workload_api::limits::{Limits, STREAMS};
use closings::{too_many, too_often};
use counts::Counts;
use serde::Serialize;
use tokio::time::Instant;

/// Most streams open at once. A node has hundreds of Envoys with two or three streams each.
pub(crate) const MAX_STREAMS: usize = 8_192;
/// Most streams open at once for one process, or for all processes of one pod. Envoy has one for each of its secrets.
pub(crate) const MAX_STREAMS_PER_WORKLOAD: usize = 1_024;
/// One may take no more than this; how many there are in all is known by the table.
const OF_ONE: [usize; 2] = [usize::MAX, MAX_STREAMS_PER_WORKLOAD];

/// Ends that belong to every workload's life: its process, its pod or this agent is over. They are
/// counted, and nobody has to look into them.
const ORDINARY: [&str; 3] = ["peer_ended", "pod_ended", "shutdown"];

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamKind {
    /// SDS, state of the world.
    Sotw,
    /// SDS, incremental.
    Delta,
    /// X.509-SVIDs of the Workload API.
    X509Svid,
    /// X.509 bundles of the Workload API.
    X509Bundles,
    /// JWT bundles of the Workload API.
    JwtBundles,
    /// Policies for local proxies.
    Policies,
}

/// Kinds of streams that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// Envoy's secret discovery service.
    Sds,
    /// The SPIFFE Workload API.
    WorkloadApi,
    /// Policies for local proxies.
    Policies,
}

impl StreamKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Sotw,
        Self::Delta,
        Self::X509Svid,
        Self::X509Bundles,
        Self::JwtBundles,
        Self::Policies,
    ];

    /// A short word that stays the same.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sotw => "sotw",
            Self::Delta => "delta",
            Self::X509Svid => "x509_svid",
            Self::X509Bundles => "x509_bundles",
            Self::JwtBundles => "jwt_bundles",
            Self::Policies => "policies",
        }
    }

    /// What it is counted as.
    #[must_use]
    pub fn surface(self) -> Surface {
        match self {
            Self::Sotw | Self::Delta => Surface::Sds,
            Self::X509Svid | Self::X509Bundles | Self::JwtBundles => Surface::WorkloadApi,
            Self::Policies => Surface::Policies,
        }
    }
}

/// One stream, as an operator sees it.
#[derive(Clone, Debug, Serialize)]
pub struct StreamInfo {
    /// What it carries.
    pub kind: StreamKind,
    /// What the client calls itself; not proven.
    pub node: String,
    /// Its user, by the kernel's word.
    pub uid: u32,
    /// Its process, by the kernel's word.
    pub pid: Option<i32>,
    /// What it was attested as, as text; nothing while that is not known.
    pub workload: Option<String>,
    /// What it asks for.
    pub names: Vec<String>,
    /// Version of the last push.
    pub version: Option<String>,
    /// Version of the last push it accepted; no proof of use.
    pub acked: Option<String>,
    /// Its last rejection.
    pub last_nack: Option<String>,
    /// What it was attested as.
    #[serde(skip)]
    pub attested: Option<Arc<Workload>>,
}

/// The table.
#[derive(Debug)]
pub struct Streams {
    open: Mutex<Table>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Table {
    next: u64,
    streams: BTreeMap<u64, StreamInfo>,
    shares: Counts<Share>,
    rates: Limits<Share>,
    quiet: Quiet<(i32, &'static str)>,
}

/// A workload as text, for the table and the log.
#[must_use]
pub fn workload_text(subject: &Subject) -> String {
    match subject {
        Subject::Own => "own".into(),
        Subject::Pod {
            namespace, name, uid, ..
        } => format!("pod {namespace}/{name} ({uid})"),
        Subject::Process { uid, executable } => match executable {
            Some(path) => format!("process {} of user {uid}", path.display()),
            None => format!("process of user {uid}"),
        },
    }
}

impl Streams {
    /// No streams.
    #[must_use]
    pub fn new(metrics: Metrics) -> Arc<Self> {
        let table = Table {
            next: 0,
            streams: BTreeMap::new(),
            shares: Counts::default(),
            rates: Limits::new(STREAMS, Instant::now()),
            quiet: Quiet::default(),
        };
        Arc::new(Self {
            open: Mutex::new(table),
            metrics,
        })
    }

    /// Enters a stream of `peer`, before anything is known of it but its process and the pod that seems to
    /// be its own: on that one's share it waits to be attested, so that no workload takes the places of others.
    ///
    /// # Errors
    /// When a bound is reached; it is counted and logged here.
    pub fn open(self: &Arc<Self>, kind: StreamKind, peer: &Peer) -> Result<Entry, Closing> {
        let (pid, share) = (peer.pid().unwrap_or_default(), peer.share());
        let mut table = self.lock();
        if let Err(closing) = table.admit(share, Instant::now()) {
            drop(table);
            self.refused(kind, pid, &closing, "");
            return Err(closing);
        }
        let number = table.next;
        table.next = number.wrapping_add(1);
        let info = StreamInfo {
            kind,
            node: String::new(),
            uid: peer.uid(),
            pid: peer.pid(),
            workload: None,
            names: Vec::new(),
            version: None,
            acked: None,
            last_nack: None,
            attested: None,
        };
        table.streams.insert(number, info);
        drop(table);
        self.metrics.streams_of(kind).inc();
        Ok(Entry {
            streams: Arc::clone(self),
            number,
            pid,
            share,
            attested: None,
            kind,
        })
    }

    /// All open streams, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<StreamInfo> {
        self.lock().streams.values().cloned().collect()
    }

    fn refused(&self, kind: StreamKind, pid: i32, closing: &Closing, node: &str) {
        Metrics::blame(self.metrics.refusals_of(kind), closing.reason);
        let (reason, text, kind) = (closing.reason, &closing.text, kind.as_str());
        // Envoy asks again every few seconds for ever; it has the reason in its own log each time.
        if !ORDINARY.contains(&reason) && self.may_log(pid, reason) {
            tracing::warn!(reason, error = %text, kind, node, pid, "stream closed");
        } else {
            tracing::debug!(reason, error = %text, kind, node, pid, "stream closed");
        }
    }

    fn may_log(&self, pid: i32, reason: &'static str) -> bool {
        self.lock().quiet.may_log((pid, reason), Instant::now())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Takes a place of `share` for one more stream.
    fn admit(&mut self, share: Share, now: Instant) -> Result<(), Closing> {
        self.rates.take(share, now).map_err(too_often)?;
        let full = self.streams.len() >= MAX_STREAMS;
        if full || !self.shares.add(share, 1, OF_ONE) {
            return Err(too_many());
        }
        Ok(())
    }
}

/// A stream's place in the table, left when dropped.
#[derive(Debug)]
pub struct Entry {
    streams: Arc<Streams>,
    number: u64,
    pid: i32,
    share: Share,
    /// The pod's share, where it was attested as of another than it seemed to be of.
    attested: Option<Share>,
    kind: StreamKind,
}

impl Entry {
    /// Notes what the peer was attested as.
    ///
    /// # Errors
    /// When all its processes together have too many streams; the caller tells it with
    /// [`Entry::refused`].
    pub fn attested(&mut self, workload: &Arc<Workload>) -> Result<(), Closing> {
        let text = workload_text(&workload.subject);
        let other = share_of(&workload.subject).filter(|share| *share != self.share);
        let mut table = self.streams.lock();
        let table = &mut *table;
        if let Some(share) = other {
            if !table.shares.add(share, 1, OF_ONE) {
                return Err(too_many());
            }
            self.attested = Some(share);
        }
        if let Some(info) = table.streams.get_mut(&self.number) {
            info.workload = Some(text);
            info.attested = Some(Arc::clone(workload));
        }
        Ok(())
    }

    /// Brings the place up to date, counts and logs what happened.
    pub fn update(&self, book: &mut Book) {
        let notices = book.take_notices();
        for notice in &notices {
            self.tell(notice, book.node());
        }
        let (version, acked, last_nack) = book.progress();
        let mut table = self.streams.lock();
        let Some(info) = table.streams.get_mut(&self.number) else {
            return;
        };
        if info.node.is_empty() {
            info.node = book.node().to_owned();
        }
        if !info.names.iter().map(String::as_str).eq(book.names()) {
            info.names = book.names().map(str::to_owned).collect();
        }
        info.version = version.map(str::to_owned);
        info.acked = acked.map(str::to_owned);
        info.last_nack = last_nack.map(str::to_owned);
    }

    /// Counts a push.
    pub fn pushed(&self) {
        self.streams.metrics.pushes_of(self.kind).inc();
    }

    /// Counts a push and notes what was in it, for streams that acknowledge nothing.
    pub fn pushed_version(&self, version: &str) {
        self.pushed();
        if let Some(info) = self.streams.lock().streams.get_mut(&self.number) {
            info.version = Some(version.to_owned());
        }
    }

    /// Notes what the client calls itself, and which version it took or why it did not.
    pub fn answered(&self, node: &str, acked: Option<&str>, nack: Option<&str>) {
        if let Some(info) = self.streams.lock().streams.get_mut(&self.number) {
            node.clone_into(&mut info.node);
            if let Some(acked) = acked {
                info.acked = Some(acked.to_owned());
            }
            if let Some(nack) = nack {
                info.last_nack = Some(nack.to_owned());
            }
        }
    }

    /// Counts and logs the refusal that ends the stream.
    pub fn refused(&self, closing: &Closing, node: &str) {
        self.streams.refused(self.kind, self.pid, closing, node);
    }

    fn tell(&self, notice: &Notice, node: &str) {
        let metrics = &self.streams.metrics;
        match notice {
            Notice::Acked => Metrics::count(&metrics.sds_answers, "ack"),
            Notice::Stale => Metrics::count(&metrics.sds_answers, "stale"),
            Notice::Nacked { rejected, text } => {
                Metrics::count(&metrics.sds_answers, "nack");
                tracing::warn!(
                    reason = "nack", error = %text, rejected, node, pid = self.pid,
                    "client rejected secrets; they are not sent again unchanged on this stream"
                );
            }
            Notice::Refused(closing) => {
                Metrics::blame(&metrics.sds_refusals, closing.reason);
                if self.streams.may_log(self.pid, closing.reason) {
                    tracing::warn!(reason = closing.reason, error = %closing.text, node, "sds name refused");
                }
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut table = self.streams.lock();
        table.streams.remove(&self.number);
        table.shares.remove(&self.share, 1);
        if let Some(share) = &self.attested {
            table.shares.remove(share, 1);
        }
        drop(table);
        self.streams.metrics.streams_of(self.kind).dec();
    }
}

/// Whose share an attested workload takes of; none where that is its process's.
fn share_of(subject: &Subject) -> Option<Share> {
    match subject {
        Subject::Pod { uid, .. } => PodUid::parse(uid).map(Share::Pod),
        Subject::Own | Subject::Process { .. } => None,
    }
}

#[cfg(test)]
mod tests;
