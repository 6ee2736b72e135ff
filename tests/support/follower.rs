//! A workload that follows its SVIDs as a good client does, through every loss of a connection, and
//! notes whatever such a client must never be told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use signet_certs::certificate::Certificate;
use signet_certs::verify::{Role, verify_chain};
use signet_certs::{SigningKey, SvidChain, TrustBundle, TrustDomain, UnixTime, X509Svid};
use signet_proto::wire::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use signet_proto::wire::{X509svidRequest, X509svidResponse};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::guest::Guest;
use crate::wait::{until, until_some};
use crate::workload::secure;

/// Longer than the agent waits between two attempts at anything.
const DEADLINE: Duration = Duration::from_secs(45);
/// Pause before a stream is opened again.
const PAUSE: Duration = Duration::from_millis(100);

/// What was heard so far.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// The last SVID, with the key proven to be its own and the chain to end in its bundle.
    pub last: Option<SvidChain>,
    /// How many SVIDs there were; the same one twice, on two streams, is one.
    pub svids: usize,
    /// How many messages there were.
    pub messages: usize,
    /// How streams ended.
    pub ends: Vec<(Code, String)>,
    /// What must not be.
    pub faults: Vec<String>,
}

/// The workload. It follows until it is dropped, or told that it has no identity.
#[derive(Debug)]
pub struct Follower {
    heard: Arc<Mutex<Heard>>,
    task: JoinHandle<()>,
    id: String,
    /// Its process.
    pub guest: Guest,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Follows as `guest`, which is to get the identity `id` and no other.
    #[must_use]
    pub fn start(guest: Guest, id: &str) -> Self {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let ears = Ears {
            id: id.to_owned(),
            heard: Arc::clone(&heard),
        };
        let task = tokio::spawn(ears.follow(guest.api()));
        Self {
            heard,
            task,
            id: id.to_owned(),
            guest,
        }
    }

    /// What it heard so far.
    #[must_use]
    pub fn heard(&self) -> Heard {
        lock(&self.heard).clone()
    }

    /// Serial of its SVID, once it has one.
    ///
    /// # Panics
    /// When it gets none.
    pub async fn serial(&self) -> String {
        let what = format!("a first SVID of {}", self.id);
        until_some(&what, DEADLINE, async || Some(self.heard().last?.serial())).await
    }

    /// Waits for another SVID than the one of this serial.
    ///
    /// # Panics
    /// When none comes in `deadline`, or something comes that must not.
    pub async fn renewed(&self, serial: &str, deadline: Duration) {
        let what = format!("a renewal of {}", self.id);
        until(&what, deadline, async || {
            self.assert_well();
            self.heard().last.is_some_and(|last| last.serial() != serial)
        })
        .await;
    }

    /// Waits until it is told that it has no identity; nothing else may end it.
    ///
    /// # Panics
    /// When that does not come.
    pub async fn denied(&self) {
        let what = format!("a denial of {}", self.id);
        until(&what, DEADLINE, async || self.task.is_finished()).await;
        let heard = self.heard();
        let Some((code, text)) = heard.ends.last() else {
            panic!("it ended by itself: {heard:?}")
        };
        assert_eq!(*code, Code::PermissionDenied, "{text}");
        assert!(text.contains("no identity issued"), "{text}");
    }

    /// It follows still, holds a valid SVID, and was never told what it must not be.
    ///
    /// # Panics
    /// When that is not so.
    pub fn assert_well(&self) {
        let heard = self.heard();
        assert!(heard.faults.is_empty(), "{}: {heard:?}", self.id);
        assert!(!self.task.is_finished(), "{} stopped: {:?}", self.id, heard.ends);
        let Some(last) = &heard.last else { return };
        let now = UnixTime::now();
        assert!(last.not_after() >= now, "the SVID of {} is over", self.id);
    }

    /// As [`Follower::assert_well`], and its first stream is open still.
    ///
    /// # Panics
    /// As [`Follower::assert_well`].
    pub fn assert_undisturbed(&self) {
        self.assert_well();
        let ends = self.heard().ends;
        assert!(ends.is_empty(), "{}: {ends:?}", self.id);
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Ears {
    id: String,
    heard: Arc<Mutex<Heard>>,
}

impl Ears {
    async fn follow(self, mut api: SpiffeWorkloadApiClient<Channel>) {
        loop {
            let status = self.listen(&mut api).await;
            let code = status.code();
            lock(&self.heard).ends.push((code, status.message().to_owned()));
            match code {
                Code::PermissionDenied => return,
                // Starting, restarting, not seen yet; and what tonic makes of a lost connection.
                Code::Unavailable | Code::Unknown | Code::Cancelled => {}
                _ => self.fault(format!("a stream ended with {status}")),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Hears one stream to its end.
    async fn listen(&self, api: &mut SpiffeWorkloadApiClient<Channel>) -> Status {
        let opened = api.fetch_x509svid(secure(X509svidRequest {})).await;
        let mut stream = match opened {
            Ok(opened) => opened.into_inner(),
            Err(status) => return status,
        };
        loop {
            match stream.message().await {
                Ok(Some(message)) => self.take(&message),
                Ok(None) => return Status::unknown("the stream ended"),
                Err(status) => return status,
            }
        }
    }

    fn take(&self, message: &X509svidResponse) {
        let now = UnixTime::now();
        let chain = match read(message, now) {
            Ok(svid) => svid.chain().clone(),
            Err(fault) => return self.fault(fault),
        };
        if chain.id().as_str() != self.id {
            self.fault(format!("{} got an SVID of {}", self.id, chain.id()));
        }
        let mut heard = lock(&self.heard);
        heard.messages += 1;
        if let Some(last) = &heard.last {
            let (before, after) = (last.not_before(), chain.not_before());
            let ended = last.not_after();
            if after < before {
                heard
                    .faults
                    .push(format!("it went back from {before:?} to {after:?}"));
            }
            if ended < now {
                heard
                    .faults
                    .push(format!("nothing valid from {ended:?} to {now:?}"));
            }
        }
        if heard
            .last
            .as_ref()
            .is_none_or(|last| last.serial() != chain.serial())
        {
            heard.svids += 1;
        }
        heard.last = Some(chain);
    }

    fn fault(&self, what: String) {
        lock(&self.heard).faults.push(what);
    }
}

/// The one SVID in a message, verified under the bundle beside it.
///
/// # Errors
/// A sentence.
pub fn read(message: &X509svidResponse, now: UnixTime) -> Result<X509Svid, String> {
    let [svid] = message.svids.as_slice() else {
        return Err(format!("{} SVIDs in a message", message.svids.len()));
    };
    let chain = SvidChain::from_der(certificates(&svid.x509_svid)?).map_err(|e| e.to_string())?;
    if chain.id().as_str() != svid.spiffe_id {
        return Err(format!(
            "an SVID of {} under the name {}",
            chain.id(),
            svid.spiffe_id
        ));
    }
    let domain: TrustDomain = chain.id().trust_domain();
    let roots = certificates(&svid.bundle)?.into_iter().map(Certificate::from_der);
    let roots = roots.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    let bundle = TrustBundle::new(domain, roots, 0).map_err(|e| e.to_string())?;
    verify_chain(&chain, &bundle, Role::Server, now).map_err(|e| format!("it does not verify: {e}"))?;
    let key = PrivatePkcs8KeyDer::from(svid.x509_svid_key.to_vec());
    let key = SigningKey::from_der(PrivateKeyDer::from(key)).map_err(|e| e.to_string())?;
    X509Svid::new(chain, Arc::new(key)).map_err(|e| e.to_string())
}

/// Certificates one after the other, as the Workload API has them.
fn certificates(mut all: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut certificates = Vec::new();
    while !all.is_empty() {
        let (rest, _) = X509Certificate::from_der(all).map_err(|e| e.to_string())?;
        let (one, _) = all.split_at(all.len() - rest.len());
        certificates.push(CertificateDer::from(one.to_vec()));
        all = rest;
    }
    Ok(certificates)
}
