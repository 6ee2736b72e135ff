//! `DeltaSecrets`, incremental: names come and go one by one, each resource has its own version. A
//! name that cannot exist is answered with `removed_resources` and the others go on.

use signet_proto::sds::SECRET_TYPE_URL;
use signet_proto::wire::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};

use super::book::{Book, check_type};
use super::streams::StreamKind;
use super::{Closing, MAX_NAMES, Machine, Step};
use crate::svids::Seen;

/// One stream.
#[derive(Debug, Default)]
pub struct Delta {
    book: Book,
    removed: Vec<String>,
}

impl Machine for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;
    const KIND: StreamKind = StreamKind::Delta;

    fn receive(&mut self, request: DeltaDiscoveryRequest, seen: &Seen) -> Step<DeltaDiscoveryResponse> {
        let first = self
            .book
            .begin(request.node.as_ref().map(|node| node.id.as_str()));
        match self.take(request, first) {
            Ok(()) => self.refresh(seen),
            Err(closing) => Step::Close(closing),
        }
    }

    fn refresh(&mut self, seen: &Seen) -> Step<DeltaDiscoveryResponse> {
        let look = self.book.look(seen);
        for (name, closing) in look.refused {
            self.book.refuse(&name, closing);
            if !self.removed.contains(&name) && self.removed.len() < MAX_NAMES {
                self.removed.push(name);
            }
        }
        if self.book.awaits_answer() || (look.ready.is_empty() && self.removed.is_empty()) {
            return Step::Wait;
        }
        let (system_version_info, nonce) = self.book.push(&look.ready);
        let resource = |(name, encoded): (String, &crate::secrets::Encoded)| Resource {
            version: encoded.version().to_string(),
            resource: Some(encoded.expose_resource()),
            metadata: encoded.metadata().cloned(),
            name,
        };
        Step::Send(DeltaDiscoveryResponse {
            system_version_info,
            resources: look.ready.into_iter().map(resource).collect(),
            type_url: SECRET_TYPE_URL.into(),
            nonce,
            removed_resources: std::mem::take(&mut self.removed),
        })
    }

    fn book(&mut self) -> &mut Book {
        &mut self.book
    }
}

impl Delta {
    /// Takes a request over. Names are taken whether or not the nonce is the last: only the answer to
    /// a push can be stale.
    fn take(&mut self, request: DeltaDiscoveryRequest, first: bool) -> Result<(), Closing> {
        check_type(&request.type_url)?;
        let error = request
            .error_detail
            .as_ref()
            .map(|status| status.message.as_str());
        self.book.answer(&request.response_nonce, error);
        for name in &request.resource_names_unsubscribe {
            self.book.forget(name);
        }
        for name in request.resource_names_subscribe {
            self.book.ask(name)?;
        }
        if first {
            for (name, version) in &request.initial_resource_versions {
                self.book.has(name, version);
            }
        }
        Ok(())
    }
}
