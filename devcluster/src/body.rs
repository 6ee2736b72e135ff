//! Reading request bodies within bounds, and building answers.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use crate::protobuf::{self, ProtobufError};
use crate::status::ApiError;

/// Largest request body.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// How long a request body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// The body of an answer: all at once, or a watch.
pub(crate) type AnswerBody = UnsyncBoxBody<Bytes, Infallible>;

/// An answer on its way out.
pub(crate) type Answer = Response<AnswerBody>;

/// The media type of a request body, without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// Reads an object, sent as JSON or as protobuf; an empty body reads as null.
pub(crate) async fn read_object(headers: &HeaderMap, body: Incoming) -> Result<Value, ApiError> {
    match media_type(headers) {
        "" | "application/json" => read_json(body).await,
        "application/vnd.kubernetes.protobuf" => match protobuf::decode(&read(body).await?) {
            Ok(object) => Ok(object),
            Err(fault @ ProtobufError::UnknownKind(_)) => {
                Err(ApiError::unsupported_media(&fault.to_string()))
            }
            Err(fault) => Err(ApiError::bad_request(fault.to_string())),
        },
        other => Err(ApiError::unsupported_media(other)),
    }
}

/// Reads a JSON body; an empty one reads as null.
pub(crate) async fn read_json(body: Incoming) -> Result<Value, ApiError> {
    let bytes = read(body).await?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes)
        .map_err(|fault| ApiError::bad_request(format!("the request body is not JSON: {fault}")))
}

async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    let reading = tokio::time::timeout(BODY_DEADLINE, Limited::new(body, MAX_BODY).collect());
    let collected = reading
        .await
        .map_err(|_| ApiError::bad_request("the request body is late"))?;
    let collected = collected.map_err(|fault| match fault.downcast_ref::<LengthLimitError>() {
        Some(_) => ApiError::too_large(MAX_BODY),
        None => ApiError::bad_request("the request body broke off"),
    })?;
    Ok(collected.to_bytes())
}

/// An answer with a JSON body.
pub(crate) fn json(code: StatusCode, value: &Value) -> Answer {
    with_type(code, "application/json", value.to_string())
}

/// An answer with a body of any type.
pub(crate) fn with_type(code: StatusCode, media: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()).boxed_unsync());
    *answer.status_mut() = code;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media));
    answer
}

/// A JSON answer that goes on for as long as `body` does.
pub(crate) fn stream(
    body: impl hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
) -> Answer {
    let mut answer = Response::new(body.boxed_unsync());
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// A refusal as a `Status` object.
pub(crate) fn refusal(error: &ApiError) -> Answer {
    let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json(code, &error.to_status());
    if let Some(seconds) = error.retry_after() {
        answer
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}
