//! Who asks, and whether they may: bearer tokens in front, grants behind, refusals in the words of RBAC.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};

use crate::json;
use crate::review::{self, Reviewed};
use crate::shared::Shared;
use crate::status::ApiError;
use crate::token::API_AUDIENCE;

/// An authenticated caller.
pub(crate) struct User(Reviewed);

/// What a request wants to do.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    /// With its subresource behind a slash.
    pub(crate) resource: &'a str,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) name: Option<&'a str>,
}

/// Reads the bearer token of a request and finds out whose it is.
pub(crate) fn authenticate(shared: &Shared, headers: &HeaderMap) -> Result<User, ApiError> {
    let header = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let (scheme, token) = header.split_once(' ').unwrap_or((header, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(ApiError::unauthorized());
    }
    let reviewed = review::authenticate(shared, token.trim(), &[API_AUDIENCE.to_owned()])
        .map_err(|_| ApiError::unauthorized())?;
    Ok(User(reviewed))
}

/// Refuses what the caller holds no grant for.
pub(crate) fn authorize(shared: &Shared, user: &User, attempt: &Attempt<'_>) -> Result<(), ApiError> {
    if user.may(shared, attempt) {
        return Ok(());
    }
    let Attempt {
        verb,
        group,
        resource,
        namespace,
        name,
    } = attempt;
    let (plain, _) = resource.split_once('/').unwrap_or((resource, ""));
    let qualified = if group.is_empty() {
        plain.to_owned()
    } else {
        format!("{plain}.{group}")
    };
    let object = name.map(|name| format!(" \"{name}\"")).unwrap_or_default();
    let place = match namespace {
        Some(namespace) => format!("in the namespace \"{namespace}\""),
        None => "at the cluster scope".to_owned(),
    };
    let username = &user.0.username;
    let message = format!(
        "{qualified}{object} is forbidden: User \"{username}\" cannot {verb} resource \"{resource}\" \
         in API group \"{group}\" {place}"
    );
    Err(ApiError::forbidden(
        message,
        group,
        plain,
        name.unwrap_or_default(),
    ))
}

/// The refusal for a path that is no resource.
pub(crate) fn forbidden_path(user: &User, path: &str) -> ApiError {
    let username = &user.0.username;
    ApiError::forbidden(
        format!("forbidden: User \"{username}\" cannot get path \"{path}\""),
        "",
        "",
        "",
    )
}

impl User {
    fn may(&self, shared: &Shared, attempt: &Attempt<'_>) -> bool {
        let Some(account) = &self.0.account else {
            return true;
        };
        // Every authenticated user may ask about itself.
        let about_itself = matches!(
            attempt.resource,
            "selfsubjectaccessreviews" | "selfsubjectreviews"
        );
        (attempt.verb == "create" && about_itself)
            || shared.permits(
                account,
                attempt.verb,
                attempt.group,
                attempt.resource,
                attempt.namespace,
            )
    }
}

/// Answers `create` on SelfSubjectAccessReviews.
pub(crate) fn access_review(shared: &Shared, user: &User, request: &Value) -> Result<Value, ApiError> {
    let spec = request.get("spec").cloned().unwrap_or_default();
    let field = |name: &str| {
        json::text(&spec, &format!("/resourceAttributes/{name}")).filter(|text| !text.is_empty())
    };
    let allowed = if spec.get("resourceAttributes").is_some() {
        let resource = match (field("resource").unwrap_or_default(), field("subresource")) {
            (resource, Some(subresource)) => format!("{resource}/{subresource}"),
            (resource, None) => resource.to_owned(),
        };
        user.may(
            shared,
            &Attempt {
                verb: field("verb").unwrap_or_default(),
                group: field("group").unwrap_or_default(),
                resource: &resource,
                namespace: field("namespace"),
                name: field("name"),
            },
        )
    } else if spec.get("nonResourceAttributes").is_some() {
        user.0.account.is_none()
    } else {
        return Err(ApiError::bad_request(
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ));
    };
    Ok(json!({
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {"creationTimestamp": null},
        "spec": spec,
        "status": {"allowed": allowed},
    }))
}

/// Answers `create` on SelfSubjectReviews.
pub(crate) fn self_review(user: &User) -> Value {
    json!({
        "kind": "SelfSubjectReview",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"creationTimestamp": null},
        "status": {"userInfo": user.0.user_info()},
    })
}
