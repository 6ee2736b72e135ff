//! What a provider says, and what becomes of headers for it.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use signet_proto::wire::envoy::config::core::v3::HeaderValueOption;
use signet_proto::wire::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use signet_proto::wire::envoy::service::auth::v3::check_response::HttpResponse;
use signet_proto::wire::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use signet_runtime::grpc::dial_error;
use tonic::{Code, Status};

use crate::http::headers::{aliases, is_fixed};

/// Most headers that one answer changes.
const MAX_CHANGES: usize = 128;

/// What a provider says.
#[derive(Debug)]
pub enum Answer {
    /// Yes.
    Allowed(Allowed),
    /// No.
    Denied(Denied),
    /// Nothing that could be a yes.
    Failed(Failure),
}

/// A yes.
#[derive(Debug, Default)]
pub struct Allowed {
    /// To be applied to the request before it goes on.
    pub request: Changes,
    /// To be applied to the response.
    pub response: Changes,
}

/// A no, and what the client is told.
#[derive(Debug)]
pub struct Denied {
    /// 403, unless the provider says otherwise.
    pub status: StatusCode,
    /// Headers of the response.
    pub headers: Changes,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no answer. The client is told 403, and no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// Nobody of that name is configured.
    #[error("no provider of that name is configured")]
    Unknown,
    /// Too many questions are open.
    #[error("too many questions to the provider are open")]
    TooBusy,
    /// It took too long.
    #[error("the provider did not answer within {} ms", .0.as_millis())]
    Deadline(Duration),
    /// It cannot be reached.
    #[error("the provider cannot be reached: {0}")]
    Unreachable(String),
    /// It answered with an error.
    #[error("the provider answers with status {0:?}")]
    Status(Code),
    /// It said yes with something that is not done.
    #[error("the provider's answer {0}")]
    Answer(&'static str),
}

impl Failure {
    /// A stable word for metrics and logs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::TooBusy => "too_busy",
            Self::Deadline(_) => "deadline",
            Self::Unreachable(_) => "unreachable",
            Self::Status(_) => "status",
            Self::Answer(_) => "answer",
        }
    }

    pub(super) fn of(status: &Status) -> Self {
        match (dial_error(status), status.code()) {
            (Some(fault), _) => Self::Unreachable(fault.to_string()),
            (None, Code::Unavailable) => Self::Unreachable("the connection broke".into()),
            (None, code) => Self::Status(code),
        }
    }
}

impl Answer {
    /// A stable word for metrics and logs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allowed(_) => "allowed",
            Self::Denied(_) => "denied",
            Self::Failed(failure) => failure.as_str(),
        }
    }
}

/// Changes to headers, in the order of the answer; removals last.
#[derive(Clone, Default)]
pub struct Changes {
    set: Vec<(HeaderName, HeaderValue, Action)>,
    remove: Vec<HeaderName>,
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set()
            .entries(self.set.iter().map(|(name, ..)| name))
            .finish()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Add,
    AddIfAbsent,
    Overwrite,
    OverwriteIfPresent,
    /// Joined to a value that is there; nothing where there is none.
    JoinIfPresent,
}

impl Changes {
    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// Does it.
    pub fn apply(self, headers: &mut HeaderMap) {
        for (name, value, action) in self.set {
            // A client does not say under a name that is alike what the provider says under this one.
            aliases::take_others(headers, &name);
            let present = headers.contains_key(&name);
            match action {
                Action::Add => {
                    headers.append(name, value);
                }
                Action::AddIfAbsent if present => {}
                Action::OverwriteIfPresent | Action::JoinIfPresent if !present => {}
                Action::JoinIfPresent => {
                    headers.append(name, value);
                }
                Action::AddIfAbsent | Action::Overwrite | Action::OverwriteIfPresent => {
                    headers.insert(name, value);
                }
            }
        }
        for name in self.remove {
            aliases::take(headers, &name);
        }
    }

    fn read(
        options: Vec<HeaderValueOption>,
        ours: Ours,
        action: impl Fn(&HeaderValueOption) -> Result<Action, Failure>,
    ) -> Result<Self, Failure> {
        if options.len() > MAX_CHANGES {
            return Err(Failure::Answer("changes more headers than are looked at"));
        }
        let mut changes = Self::default();
        for option in options {
            let (header, action) = (option.header.clone().unwrap_or_default(), action(&option)?);
            let name = HeaderName::from_bytes(header.key.as_bytes());
            let value = if header.raw_value.is_empty() {
                header.value.into()
            } else {
                header.raw_value
            };
            let value = HeaderValue::from_maybe_shared(value);
            match (name, value, ours) {
                (Ok(name), Ok(_), Ours::Skipped) if is_fixed(name.as_str()) => {}
                (Ok(name), Ok(value), _) if !is_fixed(name.as_str()) => {
                    changes.set.push((name, value, action));
                }
                (Ok(_), Ok(_), _) => {
                    return Err(Failure::Answer(
                        "changes a header on which framing or routing depend",
                    ));
                }
                _ => return Err(Failure::Answer("holds a header that cannot be sent")),
            }
        }
        Ok(changes)
    }
}

/// What happens to an answer that changes what is ours.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ours {
    /// It is no answer.
    Refused,
    /// The change is left out.
    Skipped,
}

/// Of a request's header. Envoy heeds `append` alone here, and a client's own value never stays by default.
fn on_request(option: &HeaderValueOption) -> Result<Action, Failure> {
    Ok(if option.append == Some(true) {
        Action::JoinIfPresent
    } else {
        Action::Overwrite
    })
}

/// Of a response's header.
fn on_response(option: &HeaderValueOption) -> Result<Action, Failure> {
    if let Some(append) = option.append {
        return Ok(if append { Action::Add } else { Action::Overwrite });
    }
    match HeaderAppendAction::try_from(option.append_action) {
        Ok(HeaderAppendAction::AppendIfExistsOrAdd) => Ok(Action::Add),
        Ok(HeaderAppendAction::AddIfAbsent) => Ok(Action::AddIfAbsent),
        Ok(HeaderAppendAction::OverwriteIfExistsOrAdd) => Ok(Action::Overwrite),
        Ok(HeaderAppendAction::OverwriteIfExists) => Ok(Action::OverwriteIfPresent),
        Err(_) => Err(Failure::Answer("names a way to change headers that is not known")),
    }
}

/// An answer is a yes where its status is OK, or it has none and an `ok_response`; one that says both is a no.
pub(super) fn read(response: CheckResponse) -> Answer {
    let code = response.status.as_ref().map(|status| status.code);
    let read = match (code, response.http_response) {
        (_, Some(HttpResponse::DeniedResponse(denied))) => Ok(Answer::Denied(refused(denied))),
        (None | Some(0), Some(HttpResponse::OkResponse(ok))) => allowed(ok).map(Answer::Allowed),
        (Some(0), _) => Ok(Answer::Allowed(Allowed::default())),
        (None, _) => Err(Failure::Answer("says neither yes nor no")),
        (Some(_), _) => Ok(Answer::Denied(refused(DeniedHttpResponse::default()))),
    };
    read.unwrap_or_else(Answer::Failed)
}

fn allowed(ok: OkHttpResponse) -> Result<Allowed, Failure> {
    if !ok.query_parameters_to_set.is_empty() || !ok.query_parameters_to_remove.is_empty() {
        return Err(Failure::Answer("changes the query, which is not done here"));
    }
    if ok.headers_to_remove.len() > MAX_CHANGES {
        return Err(Failure::Answer("removes more headers than are looked at"));
    }
    let mut request = Changes::read(ok.headers, Ours::Refused, on_request)?;
    for name in ok.headers_to_remove {
        let name = name.to_ascii_lowercase();
        if name.starts_with(':') || is_fixed(name.as_str()) {
            continue;
        }
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => request.remove.push(name),
            Err(_) => return Err(Failure::Answer("removes a header that cannot be")),
        }
    }
    Ok(Allowed {
        request,
        response: Changes::read(ok.response_headers_to_add, Ours::Skipped, on_response)?,
    })
}

/// A no stays one: what of it cannot be sent is left out.
fn refused(denied: DeniedHttpResponse) -> Denied {
    let code = denied.status.map_or(0, |status| status.code);
    let status = u16::try_from(code).ok().filter(|code| (200..600).contains(code));
    let status = status.and_then(|code| StatusCode::from_u16(code).ok());
    let mut headers = denied.headers;
    headers.truncate(MAX_CHANGES);
    let headers = headers
        .into_iter()
        .filter_map(|option| Changes::read(vec![option], Ours::Skipped, on_response).ok())
        .flat_map(|changes| changes.set);
    Denied {
        status: status.unwrap_or(StatusCode::FORBIDDEN),
        headers: Changes {
            set: headers.collect(),
            remove: Vec::new(),
        },
        body: denied.body.into(),
    }
}
