//! `signet.ca.v1.Authority`, for our agents. `WatchBundle` sends what is trusted once at once, then after
//! every change, until either side leaves or the connection is old; bundles are public and no token is asked
//! for. `MintJwtSvid` never gets here: it is answered as `CreateCertificate` is, by [`crate::jwt_service`].

mod followers;

use std::pin::Pin;

use futures::Stream;
use futures::StreamExt as _;
use signet_proto::authority::to_wire;
use signet_proto::wire::signet::ca::v1::authority_server::Authority;
use signet_proto::wire::signet::ca::v1::{
    MintJwtSvidRequest, MintJwtSvidResponse, WatchBundleRequest, WatchBundleResponse,
};
use signet_runtime::shutdown::Tasks;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use crate::federation::Foreign;
use crate::listener::Peer;
use crate::metrics::Metrics;
use crate::slots::Slots;
use followers::{Followers, text};

/// The service.
pub struct Bundles {
    slots: Slots,
    foreign: Foreign,
    tasks: Tasks,
    followers: Followers,
}

impl Bundles {
    /// Serves the bundle in `slots` and those in `foreign` until `tasks` end.
    #[must_use]
    pub fn new(slots: Slots, foreign: Foreign, tasks: Tasks, metrics: Metrics) -> Self {
        Self {
            slots,
            foreign,
            tasks,
            followers: Followers::new(metrics),
        }
    }
}

type Updates = Pin<Box<dyn Stream<Item = Result<WatchBundleResponse, Status>> + Send>>;

/// What is trusted now and after every change, each time in full; nothing twice.
fn trusted(slots: &Slots, foreign: &Foreign) -> impl Stream<Item = WatchBundleResponse> + use<> {
    let own = WatchStream::new(slots.subscribe()).map(|_| ());
    let others = WatchStream::new(foreign.subscribe()).map(|_| ());
    let (slots, foreign) = (slots.clone(), foreign.clone());
    let mut last = None;
    futures::stream::select(own, others).filter_map(move |()| {
        let bundles = foreign.current();
        let message = to_wire(
            &slots.current().bundle,
            bundles.values().map(std::convert::AsRef::as_ref),
        );
        // The snapshot also changes with the issuing authority; followers need not hear of that.
        let news = (last.as_ref() != Some(&message)).then(|| message.clone());
        last = Some(message);
        std::future::ready(news)
    })
}

#[tonic::async_trait]
impl Authority for Bundles {
    type WatchBundleStream = Updates;

    async fn watch_bundle(&self, request: Request<WatchBundleRequest>) -> Result<Response<Updates>, Status> {
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        let admitted = self.followers.admit(peer.ip());
        let follower = admitted.map_err(|full| Status::resource_exhausted(text(full)))?;
        let ended = self.tasks.token().cancelled_owned();
        let updates = trusted(&self.slots, &self.foreign)
            .map(move |message| {
                let _ = &follower;
                Ok(message)
            })
            .take_until(ended);
        let goodbye = futures::stream::once(async { Err(Status::unavailable("the CA is shutting down")) });
        let retired = peer.retired.cancelled_owned();
        Ok(Response::new(Box::pin(
            updates.chain(goodbye).take_until(retired),
        )))
    }

    async fn mint_jwt_svid(
        &self,
        _: Request<MintJwtSvidRequest>,
    ) -> Result<Response<MintJwtSvidResponse>, Status> {
        Err(Status::unimplemented("answered elsewhere"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::{Snapshot, Source};
    use signet_certs::{Authority as X509Authority, SigningKey, TrustBundle, UnixTime};
    use std::sync::Arc;
    use std::time::Duration;

    fn snapshot(sequence: u64) -> Snapshot {
        let domain: signet_certs::TrustDomain = "own.test".parse().unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let key = Arc::new(SigningKey::generate().unwrap());
        let root = X509Authority::self_signed_root(&domain, key, Duration::from_secs(1_000), now).unwrap();
        let bundle = TrustBundle::new(domain, vec![root.certificate().clone()], sequence).unwrap();
        Snapshot::new(Arc::new(bundle), Arc::new(root), Source::OwnRoot, now)
    }

    #[tokio::test]
    async fn agents_hear_of_every_change_in_full_and_of_nothing_twice() {
        let (slots, foreign) = (Slots::new(snapshot(1)), Foreign::default());
        let mut updates = std::pin::pin!(trusted(&slots, &foreign));
        let first = updates.next().await.unwrap();
        assert_eq!((first.sequence, first.foreign.len()), (1, 0));

        let other = TrustBundle::new("a.test".parse().unwrap(), Vec::new(), 9).unwrap();
        foreign.publish(Arc::new(other));
        let second = updates.next().await.unwrap();
        assert_eq!((second.sequence, second.foreign[0].sequence), (1, 9));

        // The same bundle with another issuing authority, then a change of the bundle.
        let same = slots.current().with_bundle(Arc::clone(&slots.current().bundle));
        assert!(slots.publish(same));
        assert!(slots.publish(snapshot(2)));
        let third = updates.next().await.unwrap();
        assert_eq!((third.sequence, third.foreign.len()), (2, 1));
    }
}
