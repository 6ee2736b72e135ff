//! The table of open streams: bounds on how many there are, and what an operator sees of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::time::Instant;
use tonic::Code;

use super::book::Book;
use super::{Closing, Notice};
use crate::metrics::{Kind, Metrics};
use crate::quiet::Quiet;
use crate::workload_socket::Peer;

/// Most streams open at once. A node has hundreds of Envoys with two or three streams each.
const MAX_STREAMS: usize = 16_384;
/// Most streams open at once for one process.
const MAX_STREAMS_PER_PID: usize = 4_096;

/// One stream, as an operator sees it.
#[derive(Clone, Debug, Serialize)]
pub struct StreamInfo {
    /// `sotw` or `delta`.
    pub kind: &'static str,
    /// What the client calls itself; not proven.
    pub node: String,
    /// Its user, by the kernel's word.
    pub uid: u32,
    /// Its process, by the kernel's word.
    pub pid: Option<i32>,
    /// What it asks for.
    pub names: Vec<String>,
    /// Version of the last push.
    pub version: Option<String>,
    /// Version of the last push it accepted; no proof of use.
    pub acked: Option<String>,
    /// Its last rejection.
    pub last_nack: Option<String>,
}

/// The table.
#[derive(Debug)]
pub struct Streams {
    open: Mutex<Table>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    streams: BTreeMap<u64, StreamInfo>,
    per_pid: BTreeMap<i32, usize>,
    quiet: Quiet<(i32, &'static str)>,
}

impl Streams {
    /// No streams.
    #[must_use]
    pub fn new(metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::default(),
            metrics,
        })
    }

    /// Enters a stream of `peer`.
    ///
    /// # Errors
    /// When a bound is reached.
    pub fn open(self: &Arc<Self>, kind: &'static str, peer: Peer) -> Result<Entry, Closing> {
        let mut table = self.lock();
        let pid = peer.pid.unwrap_or_default();
        let of_pid = table.per_pid.get(&pid).copied().unwrap_or_default();
        if table.streams.len() >= MAX_STREAMS || of_pid >= MAX_STREAMS_PER_PID {
            drop(table);
            Metrics::blame(&self.metrics.sds_refusals, "too_many_streams");
            let text = format!(
                "too many streams: {MAX_STREAMS} in all and {MAX_STREAMS_PER_PID} of one process are served"
            );
            return Err(Closing {
                code: Code::ResourceExhausted,
                reason: "too_many_streams",
                text,
            });
        }
        let number = table.next;
        table.next = number.wrapping_add(1);
        table.per_pid.insert(pid, of_pid + 1);
        let info = StreamInfo {
            kind,
            node: String::new(),
            uid: peer.uid,
            pid: peer.pid,
            names: Vec::new(),
            version: None,
            acked: None,
            last_nack: None,
        };
        table.streams.insert(number, info);
        drop(table);
        self.metrics.streams.get_or_create(&Kind { kind }).inc();
        Ok(Entry {
            streams: Arc::clone(self),
            number,
            pid,
            kind,
        })
    }

    /// All open streams, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<StreamInfo> {
        self.lock().streams.values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream's place in the table, left when dropped.
#[derive(Debug)]
pub struct Entry {
    streams: Arc<Streams>,
    number: u64,
    pid: i32,
    kind: &'static str,
}

impl Entry {
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
        self.streams
            .metrics
            .sds_pushes
            .get_or_create(&Kind { kind: self.kind })
            .inc();
    }

    /// Counts and logs the refusal that ends the stream.
    pub fn refused(&self, closing: &Closing, node: &str) {
        Metrics::blame(&self.streams.metrics.sds_refusals, closing.reason);
        let pid = self.pid;
        // Envoy asks again every few seconds for ever; it has the reason in its own log each time.
        if self.may_log(closing.reason) {
            tracing::warn!(reason = closing.reason, error = %closing.text, node, pid, "sds stream closed");
        } else {
            tracing::debug!(reason = closing.reason, error = %closing.text, node, pid, "sds stream closed");
        }
    }

    fn may_log(&self, reason: &'static str) -> bool {
        self.streams
            .lock()
            .quiet
            .may_log((self.pid, reason), Instant::now())
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
                if self.may_log(closing.reason) {
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
        if let Some(count) = table.per_pid.get_mut(&self.pid) {
            *count -= 1;
            if *count == 0 {
                table.per_pid.remove(&self.pid);
            }
        }
        drop(table);
        self.streams
            .metrics
            .streams
            .get_or_create(&Kind { kind: self.kind })
            .dec();
    }
}
