//! `StreamSecrets`, state of the world: each request names all secrets wanted (`istio-ca-and-sds.md`
//! §10). A response holds only what is new to the stream.

use signet_proto::sds::SECRET_TYPE_URL;
use signet_proto::wire::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use tonic::Code;

use super::book::{Answer, Book, check_type};
use super::streams::StreamKind;
use super::{Closing, Machine, Step};
use crate::svids::Seen;

/// One stream.
#[derive(Debug, Default)]
pub struct Sotw {
    book: Book,
}

impl Machine for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
    const KIND: StreamKind = StreamKind::Sotw;

    fn receive(&mut self, request: DiscoveryRequest, seen: &Seen) -> Step<DiscoveryResponse> {
        let first = self
            .book
            .begin(request.node.as_ref().map(|node| node.id.as_str()));
        match self.take(request, first) {
            Ok(true) => self.refresh(seen),
            Ok(false) => Step::Wait,
            Err(closing) => Step::Close(closing),
        }
    }

    fn refresh(&mut self, seen: &Seen) -> Step<DiscoveryResponse> {
        let mut look = self.book.look(seen);
        if !look.refused.is_empty() {
            return Step::Close(look.refused.swap_remove(0).1);
        }
        if self.book.awaits_answer() || look.ready.is_empty() {
            return Step::Wait;
        }
        let (version_info, nonce) = self.book.push(&look.ready);
        Step::Send(DiscoveryResponse {
            version_info,
            resources: look
                .ready
                .iter()
                .map(|(_, encoded)| encoded.expose_resource())
                .collect(),
            type_url: SECRET_TYPE_URL.into(),
            nonce,
        })
    }

    fn book(&mut self) -> &mut Book {
        &mut self.book
    }
}

impl Sotw {
    /// Takes a request over; says whether there may be something to send. `version_info` is not
    /// looked at: a client that reconnects is answered whatever it held before.
    fn take(&mut self, request: DiscoveryRequest, first: bool) -> Result<bool, Closing> {
        check_type(&request.type_url)?;
        if first && request.resource_names.is_empty() {
            let text = "the first request names no secret; ask for \"default\" or \"ROOTCA\"".to_owned();
            return Err(Closing {
                code: Code::InvalidArgument,
                reason: "no_names",
                text,
            });
        }
        let error = request
            .error_detail
            .as_ref()
            .map(|status| status.message.as_str());
        match self.book.answer(&request.response_nonce, error) {
            Answer::Stale => Ok(false),
            // Nobody answers a push with an empty nonce: while one is under way its answer will bring
            // the names up to date, and otherwise everything is asked for anew.
            Answer::None => {
                let anew = !self.book.awaits_answer();
                self.book.ask_exactly(request.resource_names, anew).map(|()| true)
            }
            Answer::Last => self
                .book
                .ask_exactly(request.resource_names, false)
                .map(|()| true),
        }
    }
}
