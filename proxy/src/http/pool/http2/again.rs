//! What is kept of a request while nobody has taken it for sure.

use http::{HeaderMap, Method, Request, Uri, Version, request};

use crate::http::body::RequestBody;
use crate::http::pool::Sent;

/// The upstream says that it did nothing with it (RFC 9113 §8.7).
pub(super) fn was_refused(error: &h2::Error) -> bool {
    error.is_remote() && error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
}

/// A request without a body, to be sent once more where the first time surely did nothing.
pub(super) struct Again {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Again {
    pub(super) fn of(head: &request::Parts) -> Self {
        Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            headers: head.headers.clone(),
        }
    }

    pub(super) fn untouched(self) -> Sent {
        let mut request = Request::new(RequestBody::none());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        *request.version_mut() = Version::HTTP_2;
        Sent::Untouched(Box::new(request))
    }
}
