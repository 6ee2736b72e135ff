//! Why a request is not served, and what its client is told: a status, a short sentence, never a cause that is
//! none of its business.

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tonic::Code;

use super::body::ResponseBody;
use super::docket::Sentence;
use super::headers::HopFault;
use super::target::TargetFault;
use crate::access_log::{Policy, Reason, RequestFault, Upstream};

/// Most bytes of a body that a call of gRPC is told in a header.
const MESSAGE_BYTES: usize = 1024;

/// Why a request is not served.
#[derive(Debug)]
pub struct Refusal {
    /// The word for records and metrics.
    pub reason: Reason,
    /// For the record: a sentence for people.
    pub detail: Option<String>,
    /// The policy that decided.
    pub policy: Option<String>,
    /// What an external authorizer wants to be said instead of our own words.
    pub said: Option<Box<Said>>,
    /// What a refused token's client is told: `WWW-Authenticate`, and the body.
    pub token: Option<(&'static str, String)>,
    /// Whether the connection ends with it.
    pub close: bool,
    /// Another status than the reason's own.
    pub status: Option<StatusCode>,
}

/// An answer that an external authorizer gave for us.
#[derive(Debug, Default)]
pub struct Said {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: bytes::Bytes,
}

impl Refusal {
    /// For this reason, with this sentence for the record.
    #[must_use]
    pub fn new(reason: Reason, detail: impl Into<Option<String>>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            policy: None,
            said: None,
            token: None,
            close: false,
            status: None,
        }
    }

    /// Its permit is gone before it was answered.
    pub(super) fn withdrawn(sentence: Sentence) -> Self {
        let mut refusal = Self::new(sentence.reason, sentence.detail);
        refusal.policy = sentence.policy;
        refusal.close = true;
        match sentence.reason {
            Reason::Token(_) => refusal,
            _ => refusal.with_status(StatusCode::FORBIDDEN),
        }
    }

    /// With another status than the reason's own.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// The status that the client gets.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or(match self.reason {
            Reason::Policy(Policy::NotReady | Policy::Expired) => StatusCode::SERVICE_UNAVAILABLE,
            Reason::Policy(_) => StatusCode::FORBIDDEN,
            Reason::Token(_) => StatusCode::UNAUTHORIZED,
            Reason::Request(RequestFault::HeadersTooLarge) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Reason::Request(RequestFault::BodyTooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Reason::Request(RequestFault::Slow) => StatusCode::REQUEST_TIMEOUT,
            Reason::Request(RequestFault::Unsupported) => StatusCode::METHOD_NOT_ALLOWED,
            Reason::Request(RequestFault::Bad) => StatusCode::BAD_REQUEST,
            Reason::Upstream(Upstream::Slow) => StatusCode::GATEWAY_TIMEOUT,
            Reason::Upstream(_) | Reason::Identity(_) | Reason::Limit(_) | Reason::Drained => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Reason::Ok | Reason::Tls(_) | Reason::Client(_) | Reason::Capture(_) => StatusCode::BAD_REQUEST,
        })
    }

    /// What is written to the client: Istio's words for a denial, which people search for, and a word of ours.
    fn sentence(&mut self) -> String {
        if let Some((_, body)) = &mut self.token {
            return std::mem::take(body);
        }
        match self.reason {
            Reason::Policy(Policy::NotReady) => "no policies yet".to_owned(),
            Reason::Policy(_) => "RBAC: access denied".to_owned(),
            reason => reason.as_str().to_owned(),
        }
    }

    /// The answer; to a call of gRPC in its own words.
    #[must_use]
    pub fn response(mut self, decision_id: Option<&HeaderValue>, grpc: bool) -> Response<ResponseBody> {
        let (body, mut headers) = match self.said.take() {
            Some(said) => (said.body, said.headers),
            None => {
                let text = HeaderValue::from_static("text/plain");
                (
                    self.sentence().into(),
                    HeaderMap::from_iter([(CONTENT_TYPE, text)]),
                )
            }
        };
        let mut response = if grpc {
            let said = String::from_utf8_lossy(body.get(..MESSAGE_BYTES).unwrap_or(&body));
            let status = tonic::Status::new(grpc_code(self.status()), said);
            headers.remove(CONTENT_LENGTH);
            // What cannot be said in a header is left out, the code never.
            let _ = status.add_header(&mut headers);
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            Response::new(ResponseBody::text(bytes::Bytes::new()))
        } else {
            let mut response = Response::new(ResponseBody::text(body));
            *response.status_mut() = self.status();
            response
        };
        *response.headers_mut() = headers;
        let headers = response.headers_mut();
        if let Some((challenge, _)) = self.token {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let (Reason::Policy(_), Some(id)) = (self.reason, decision_id) {
            headers.insert("x-signet-decision-id", id.clone());
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Envoy's response flag for it, as dashboards know it.
    #[must_use]
    pub fn flags(reason: Reason) -> &'static str {
        match reason {
            Reason::Ok | Reason::Policy(_) | Reason::Token(_) => "-",
            Reason::Tls(_) | Reason::Client(_) => "DC",
            Reason::Request(RequestFault::Slow) => "SI",
            Reason::Request(_) => "DPE",
            Reason::Upstream(Upstream::Connect | Upstream::Handshake) | Reason::Identity(_) => "UF",
            Reason::Upstream(Upstream::Slow) => "UT",
            Reason::Upstream(Upstream::Reset) => "UC",
            Reason::Upstream(Upstream::BadAnswer) => "UPE",
            Reason::Upstream(Upstream::Busy) | Reason::Limit(_) => "UO",
            Reason::Upstream(Upstream::Unlisted) | Reason::Capture(_) => "NR",
            Reason::Drained => "UH",
        }
    }
}

/// What a status of HTTP is in gRPC, as Envoy translates its own answers.
fn grpc_code(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

impl From<TargetFault> for Refusal {
    fn from(fault: TargetFault) -> Self {
        let reason = match fault {
            TargetFault::Connect => RequestFault::Unsupported,
            _ => RequestFault::Bad,
        };
        let detail = format!("{}: {fault}", fault.as_str());
        let mut refusal = Self::new(Reason::Request(reason), detail);
        // Whoever sent it may mean something else by what follows, too.
        refusal.close = true;
        refusal
    }
}

impl From<HopFault> for Refusal {
    fn from(fault: HopFault) -> Self {
        let detail = format!("{}: {fault}", fault.as_str());
        let mut refusal = Self::new(Reason::Request(RequestFault::Bad), detail);
        refusal.close = true;
        match fault {
            HopFault::Expectation => refusal.with_status(StatusCode::EXPECTATION_FAILED),
            HopFault::Malformed | HopFault::Protected => refusal,
        }
    }
}
