//! What an open connection rests on: the chain by which its other end proved who it is. When bundles change, each is
//! proven again, and whose roots are gone is told so.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use signet_certs::tls::{ChainCache, Proven};
use signet_certs::verify::VerifyError;
use signet_certs::{BundleSet, SpiffeId, UnixTime};

use crate::listed::Listed;

/// The trust in the other end of one connection. It is never given back once it was withdrawn.
#[derive(Debug)]
pub struct Trust {
    proven: Mutex<Arc<Proven>>,
    withdrawn: OnceLock<VerifyError>,
    waker: AtomicWaker,
    _listed: Listed<Trust>,
}

impl Trust {
    pub(super) fn new(proven: Arc<Proven>, listed: Listed<Trust>) -> Self {
        Self {
            proven: Mutex::new(proven),
            withdrawn: OnceLock::new(),
            waker: AtomicWaker::new(),
            _listed: listed,
        }
    }

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        self.proven().verified().id.clone()
    }

    /// The last valid second of its leaf.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.proven().verified().leaf_not_after
    }

    /// Whether the bundles no longer vouch for it.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn.get().is_some()
    }

    /// Why it was withdrawn, if it was.
    #[must_use]
    pub fn fault(&self) -> Option<&VerifyError> {
        self.withdrawn.get()
    }

    /// Ready once it is withdrawn. For the one who drives the connection: only the last to ask is woken.
    pub fn poll_withdrawn(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_withdrawn() {
            return Poll::Ready(());
        }
        self.waker.register(cx.waker());
        // It may have happened just before.
        if self.is_withdrawn() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Waits until it is withdrawn.
    pub async fn withdrawn(&self) {
        std::future::poll_fn(|cx| self.poll_withdrawn(cx)).await;
    }

    /// Proves it again under these bundles. True if that fails now.
    pub(super) fn look_again(&self, cache: &ChainCache, bundles: &BundleSet, now: UnixTime) -> bool {
        let proven = self.proven();
        if proven.rests_on(bundles) || self.is_withdrawn() {
            return false;
        }
        match cache.prove_again(&proven, bundles, now) {
            Ok(again) => {
                *self.proven.lock().unwrap_or_else(PoisonError::into_inner) = again;
                false
            }
            Err(fault) => {
                let first = self.withdrawn.set(fault).is_ok();
                self.waker.wake();
                first
            }
        }
    }

    fn proven(&self) -> Arc<Proven> {
        Arc::clone(&self.proven.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
