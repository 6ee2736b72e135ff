//! `WatchBundle`: the trust bundle once at once, then after every change, until either side leaves.
//! The bundle is public; no token is asked for.

use std::pin::Pin;

use futures::Stream;
use futures::StreamExt as _;
use signet_proto::authority::to_wire;
use signet_proto::wire::signet::ca::v1::authority_server::Authority;
use signet_proto::wire::signet::ca::v1::{WatchBundleRequest, WatchBundleResponse};
use signet_runtime::shutdown::Tasks;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use crate::metrics::Metrics;
use crate::slots::Slots;

/// Most agents following at once; each holds one stream.
const MAX_WATCHERS: i64 = 10_000;

/// The service.
pub struct Bundles {
    slots: Slots,
    tasks: Tasks,
    metrics: Metrics,
}

impl Bundles {
    /// Serves the bundle in `slots` until `tasks` end.
    #[must_use]
    pub fn new(slots: Slots, tasks: Tasks, metrics: Metrics) -> Self {
        Self {
            slots,
            tasks,
            metrics,
        }
    }
}

type Updates = Pin<Box<dyn Stream<Item = Result<WatchBundleResponse, Status>> + Send>>;

/// One follower, counted as long as its stream lives.
struct Follower(Metrics);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.bundle_watchers.dec();
    }
}

#[tonic::async_trait]
impl Authority for Bundles {
    type WatchBundleStream = Updates;

    async fn watch_bundle(&self, _request: Request<WatchBundleRequest>) -> Result<Response<Updates>, Status> {
        let follower = Follower(self.metrics.clone());
        if self.metrics.bundle_watchers.inc() >= MAX_WATCHERS {
            return Err(Status::resource_exhausted(
                "too many agents follow the bundle here; try another replica",
            ));
        }
        let ended = self.tasks.token().cancelled_owned();
        let mut last = None;
        let updates = WatchStream::new(self.slots.subscribe())
            .filter_map(move |snapshot| {
                let _ = &follower;
                // The snapshot also changes with the issuing authority; followers of the bundle need
                // not hear of that.
                let news = last != Some(snapshot.bundle.sequence());
                last = Some(snapshot.bundle.sequence());
                std::future::ready(news.then(|| Ok(to_wire(&snapshot.bundle))))
            })
            .take_until(ended);
        let goodbye = futures::stream::once(async { Err(Status::unavailable("the CA is shutting down")) });
        Ok(Response::new(Box::pin(updates.chain(goodbye))))
    }
}
