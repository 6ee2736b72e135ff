//! Refusals, shaped as the `Status` objects a Kubernetes API server sends.

use serde_json::{Map, Value, json};

use crate::kinds::Kind;
use crate::random::NoRandom;

/// A refusal of the API, over the wire or in process: HTTP code, machine-readable reason, words for people.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    code: u16,
    reason: &'static str,
    message: String,
    details: Option<Value>,
    retry_after: Option<u64>,
}

impl ApiError {
    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The reason as Kubernetes spells it, such as `NotFound` or `Conflict`.
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// Seconds the caller should wait before it tries again, where that makes sense.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.retry_after
    }

    /// The wire form.
    pub(crate) fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            crate::json::set(&mut status, &["details"], details.clone());
        }
        status
    }

    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        ApiError {
            code,
            reason,
            message: message.into(),
            details: None,
            retry_after: None,
        }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let mut details = Map::new();
        for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                details.insert(key.to_owned(), value.into());
            }
        }
        self.details = Some(Value::Object(details));
        self
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// RBAC's refusal; `subject` already reads `pods "x" is forbidden: …` or `forbidden: …`.
    pub(crate) fn forbidden(message: impl Into<String>, group: &str, resource: &str, name: &str) -> Self {
        Self::new(403, "Forbidden", message).about(group, resource, name)
    }

    pub(crate) fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.qualified());
        Self::new(404, "NotFound", message).about(kind.group, kind.plural, name)
    }

    /// For paths, groups, versions, resources and kinds that are not served.
    pub(crate) fn not_served() -> Self {
        let message = "the server could not find the requested resource";
        Self::new(404, "NotFound", message).about("", "", "")
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message).about("", "", "")
    }

    pub(crate) fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", kind.qualified());
        Self::new(409, "AlreadyExists", message).about(kind.group, kind.plural, name)
    }

    pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            kind.qualified()
        );
        Self::new(409, "Conflict", message).about(kind.group, kind.plural, name)
    }

    pub(crate) fn gone(asked: u64, oldest: u64) -> Self {
        Self::new(
            410,
            "Expired",
            format!("too old resource version: {asked} ({oldest})"),
        )
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit}"),
        )
    }

    pub(crate) fn unsupported_media(got: &str) -> Self {
        let message = format!("the body of the request was in an unknown format: {got}");
        Self::new(415, "UnsupportedMediaType", message).about("", "", "")
    }

    /// A field that does not hold: `word` is Kubernetes' kind of fault, such as `Invalid value` or `Forbidden`.
    pub(crate) fn invalid(kind: &str, group: &str, name: &str, fault: &FieldFault<'_>) -> Self {
        let qualified = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let text = fault.text();
        let message = format!("{qualified} \"{name}\" is invalid: {}: {text}", fault.field);
        let mut error = Self::new(422, "Invalid", message).about(group, kind, name);
        if let Some(details) = &mut error.details {
            let cause = json!([{"reason": fault.reason, "message": text, "field": fault.field}]);
            crate::json::set(details, &["causes"], cause);
        }
        error
    }

    pub(crate) fn too_many_requests(retry_after: u64) -> Self {
        let message = "Too many requests, please try again later.";
        ApiError {
            retry_after: Some(retry_after),
            ..Self::new(429, "TooManyRequests", message)
        }
    }

    pub(crate) fn internal(why: &str) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {why}"))
    }
}

impl From<NoRandom> for ApiError {
    fn from(fault: NoRandom) -> Self {
        ApiError::internal(&fault.to_string())
    }
}

/// What is wrong with one field of an object.
pub(crate) struct FieldFault<'a> {
    pub(crate) reason: &'static str,
    pub(crate) field: &'a str,
    pub(crate) value: Option<&'a str>,
    pub(crate) why: &'a str,
}

impl FieldFault<'_> {
    fn text(&self) -> String {
        let kind = match self.reason {
            "FieldValueRequired" => "Required value",
            "FieldValueForbidden" => "Forbidden",
            _ => "Invalid value",
        };
        match self.value {
            Some(value) => format!("{kind}: {value}: {}", self.why),
            None => format!("{kind}: {}", self.why),
        }
    }
}
