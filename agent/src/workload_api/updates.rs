//! What one stream was sent and what it gets next, as a machine over what its workload sees. Pure.
//!
//! Every message is whole (SPIFFE_Workload_API §4.3): as long as one identity of the workload lacks its
//! SVID, nothing is sent. What is sent differs from what went before, and its bundle is never older.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;

use bytes::Bytes;
use ring::digest::{Context, SHA256};
use signet_certs::key::hex;
use signet_proto::wire::{JwtBundlesResponse, X509BundlesResponse, X509svid, X509svidResponse};
use signet_proto::workload;

use crate::sds::streams::StreamKind;
use crate::svids::Seen;

/// Stands for a message's contents; made of public parts only.
pub type Version = [u8; 32];

/// One of the kinds of stream: how its message is made.
pub trait Content: Send + 'static {
    /// What is sent.
    type Message: Send + 'static;
    /// What it is in metrics and in the table of streams.
    const KIND: StreamKind;

    /// The whole message, or nothing while a part of it is missing.
    fn compose(seen: &Seen) -> Option<(Self::Message, Version)>;
}

/// The state of one stream.
#[derive(Debug)]
pub struct Updates<C> {
    last: Option<Last>,
    lacking: bool,
    content: PhantomData<fn() -> C>,
}

#[derive(Debug)]
struct Last {
    version: Version,
    sequence: u64,
}

impl<C> Default for Updates<C> {
    fn default() -> Self {
        Self {
            last: None,
            lacking: true,
            content: PhantomData,
        }
    }
}

impl<C: Content> Updates<C> {
    /// The message to send for what is seen now, if there is one.
    pub fn look(&mut self, seen: &Seen) -> Option<C::Message> {
        let sequence = seen.trust.own().map(|own| own.sequence());
        let composed = C::compose(seen);
        let (Some((message, version)), Some(sequence)) = (composed, sequence) else {
            self.lacking = true;
            return None;
        };
        self.lacking = false;
        let goes_on = self
            .last
            .as_ref()
            .is_none_or(|last| last.version != version && last.sequence <= sequence);
        if !goes_on {
            return None;
        }
        self.last = Some(Last { version, sequence });
        Some(message)
    }

    /// Sixteen hex digits that stand for what was sent last; nothing before that.
    #[must_use]
    pub fn version(&self) -> String {
        let last = self.last.as_ref().map(|last| last.version.as_slice());
        hex(last.and_then(|version| version.get(..8)).unwrap_or_default())
    }

    /// Whether there was no whole message to be had at the last look.
    #[must_use]
    pub fn lacking(&self) -> bool {
        self.lacking
    }
}

/// `FetchX509SVID`.
#[derive(Debug)]
pub struct X509Svids;

impl Content for X509Svids {
    type Message = X509svidResponse;
    const KIND: StreamKind = StreamKind::X509Svid;

    fn compose(seen: &Seen) -> Option<(X509svidResponse, Version)> {
        let own = seen.trust.own()?;
        let bundle = workload::x509_bundle(own);
        let mut hints = BTreeSet::new();
        let mut svids = Vec::with_capacity(seen.svids.len());
        for held in &seen.svids {
            let svid = held.verified.as_ref()?.svid();
            // Of two identities with one hint the first keeps it (SPIFFE_Workload_API §5.2.1).
            let hint = held.hint.as_deref().filter(|hint| hints.insert(*hint));
            let message = workload::x509_svid(svid, bundle.clone(), hint)
                .inspect_err(|error| tracing::error!(%error, spiffe_id = %held.id, "key cannot be encoded"))
                .ok()?;
            svids.push(message);
        }
        if svids.is_empty() {
            return None;
        }
        let federated_bundles = workload::foreign_x509_bundles(seen.trust.bundles(), &seen.domain);
        let mut digest = Digest::new();
        svids.iter().for_each(|svid| digest.svid(svid));
        digest.map(&federated_bundles);
        let message = X509svidResponse {
            svids,
            crl: Vec::new(),
            federated_bundles,
        };
        Some((message, digest.finish()))
    }
}

/// `FetchX509Bundles`.
#[derive(Debug)]
pub struct X509Bundles;

impl Content for X509Bundles {
    type Message = X509BundlesResponse;
    const KIND: StreamKind = StreamKind::X509Bundles;

    fn compose(seen: &Seen) -> Option<(X509BundlesResponse, Version)> {
        let own = seen.trust.own()?;
        let mut bundles = workload::foreign_x509_bundles(seen.trust.bundles(), &seen.domain);
        bundles.insert(workload::domain_key(&seen.domain), workload::x509_bundle(own));
        let version = Digest::new().map(&bundles).finish();
        let crl = Vec::new();
        Some((X509BundlesResponse { crl, bundles }, version))
    }
}

/// `FetchJWTBundles`.
#[derive(Debug)]
pub struct JwtBundles;

impl Content for JwtBundles {
    type Message = JwtBundlesResponse;
    const KIND: StreamKind = StreamKind::JwtBundles;

    fn compose(seen: &Seen) -> Option<(JwtBundlesResponse, Version)> {
        let own = seen.trust.own()?;
        let mut bundles = workload::foreign_jwt_bundles(seen.trust.bundles(), &seen.domain);
        bundles.insert(workload::domain_key(&seen.domain), workload::jwt_bundle(own));
        let version = Digest::new().map(&bundles).finish();
        Some((JwtBundlesResponse { bundles }, version))
    }
}

/// A hash over length-prefixed parts: no two lists of parts run together.
struct Digest(Context);

impl Digest {
    fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    fn part(&mut self, part: &[u8]) -> &mut Self {
        self.0.update(&part.len().to_be_bytes());
        self.0.update(part);
        self
    }

    /// All but the key, which the leaf stands for.
    fn svid(&mut self, svid: &X509svid) {
        self.part(svid.spiffe_id.as_bytes())
            .part(&svid.x509_svid)
            .part(&svid.bundle)
            .part(svid.hint.as_bytes());
    }

    fn map(&mut self, map: &BTreeMap<String, Bytes>) -> &mut Self {
        for (key, value) in map {
            self.part(key.as_bytes()).part(value);
        }
        self
    }

    fn finish(&mut self) -> Version {
        let mut version = Version::default();
        let digest = self.0.clone().finish();
        version.copy_from_slice(digest.as_ref());
        version
    }
}

#[cfg(test)]
mod tests;
