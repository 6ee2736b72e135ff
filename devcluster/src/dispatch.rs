//! From a request to an answer: route, count, fault, authenticate, authorize; `endpoint` serves what is stored.

use std::sync::Arc;

use http::header::ACCEPT;
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::Value;

use crate::access::{self, Attempt, User};
use crate::body::{self, Answer};
use crate::discovery;
use crate::endpoint::Endpoint;
use crate::fault::Fault;
use crate::kinds::{self, ACCESS_REVIEW, Kind, REVIEWS, Review, SELF_REVIEW, TOKEN_REVIEW};
use crate::query::Query;
use crate::review;
use crate::route::{ResourcePath, Route};
use crate::shared::Shared;
use crate::status::ApiError;
use crate::verbs::Part;

/// The connection is to be closed without an answer.
pub(crate) struct HangUp;

/// Serves one request.
pub(crate) async fn serve(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Answer, HangUp> {
    let (parts, body) = request.into_parts();
    let route = Route::parse(parts.uri.path());
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let verb = verb(&parts.method, &route, &query);
    let label = label(&route);
    shared.counters.count(verb, label);
    if let Some(fault) = shared.faults.meet(verb, label).await {
        return faulty(fault);
    }
    let call = Call {
        shared,
        parts: &parts,
        query: &query,
        verb,
    };
    Ok(call
        .answer(&route, body)
        .await
        .unwrap_or_else(|error| body::refusal(&error)))
}

fn verb(method: &Method, route: &Route, query: &Query) -> &'static str {
    let named = !matches!(route, Route::Resource(ResourcePath { name: None, .. }));
    match (method, named) {
        (&Method::GET, true) => "get",
        (&Method::GET, false) if query.watch => "watch",
        (&Method::GET, false) => "list",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, true) => "delete",
        (&Method::DELETE, false) => "deletecollection",
        _ => "other",
    }
}

/// The name a route is counted under; every one comes from a table.
fn label(route: &Route) -> &'static str {
    match route {
        Route::Health => "healthz",
        Route::Version => "version",
        Route::CoreVersions | Route::Groups | Route::Group(_) | Route::Resources { .. } => "discovery",
        Route::Jwks => "jwks",
        Route::OpenId => "openid-configuration",
        Route::Schemas => "openapi",
        Route::Unknown => "other",
        Route::Resource(path) => {
            let kind = kinds::by_plural(&path.group, &path.resource);
            match (kind, path.subresource.as_deref()) {
                (
                    Some(Kind {
                        kind: "ServiceAccount",
                        ..
                    }),
                    Some("token"),
                ) => "serviceaccounts/token",
                (Some(kind), None | Some("status")) => kind.plural,
                _ => review_at(path).map_or("other", |(_, _, plural, _)| plural),
            }
        }
    }
}

fn review_at(path: &ResourcePath) -> Option<Review> {
    let wanted = (path.group.as_str(), path.version.as_str(), path.resource.as_str());
    REVIEWS
        .iter()
        .find(|(group, version, plural, _)| (*group, *version, *plural) == wanted)
        .copied()
}

fn faulty(fault: Fault) -> Result<Answer, HangUp> {
    match fault {
        Fault::TooManyRequests { retry_after } => {
            Ok(body::refusal(&ApiError::too_many_requests(retry_after.as_secs())))
        }
        Fault::Garbage => Ok(body::with_type(
            StatusCode::OK,
            "application/json",
            "{\"kind\": \u{1}<oops",
        )),
        Fault::Answer { status, body } => {
            let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Ok(body::with_type(code, "application/json", body))
        }
        Fault::CloseConnection => Err(HangUp),
        // Hangs and delays are over when a fault arrives here.
        Fault::InternalError | Fault::Hang | Fault::Delay(_) => {
            Ok(body::refusal(&ApiError::internal("the cluster was told to fail")))
        }
    }
}

/// One request and what it is served with.
struct Call<'a> {
    shared: &'a Arc<Shared>,
    parts: &'a Parts,
    query: &'a Query,
    verb: &'static str,
}

impl Call<'_> {
    async fn answer(&self, route: &Route, body: Incoming) -> Result<Answer, ApiError> {
        match route {
            Route::Health => return Ok(body::with_type(StatusCode::OK, "text/plain", "ok")),
            Route::Version => return Ok(ok(&discovery::version())),
            _ => {}
        }
        let user = access::authenticate(self.shared, &self.parts.headers)?;
        if let Route::Resource(path) = route {
            return self.resource(path, &user, body).await;
        }
        if self.verb != "get" {
            return Err(ApiError::method_not_allowed());
        }
        match route {
            Route::CoreVersions => Ok(ok(&discovery::core_versions(self.shared))),
            Route::Groups => Ok(ok(&discovery::groups())),
            Route::Group(name) => discovery::group(name).map(|group| ok(&group)),
            Route::Resources { group, version } => {
                discovery::resources(group, version).map(|resources| ok(&resources))
            }
            Route::Jwks | Route::OpenId if !self.shared.settings.jwks_readable => {
                Err(access::forbidden_path(&user, self.parts.uri.path()))
            }
            Route::Jwks => {
                let keys = self.shared.keys.jwks().to_string();
                Ok(body::with_type(StatusCode::OK, "application/jwk-set+json", keys))
            }
            Route::OpenId => Ok(ok(&discovery::openid_configuration(self.shared))),
            Route::Schemas => Ok(schemas(&self.parts.headers)),
            _ => Err(ApiError::not_served()),
        }
    }

    async fn resource(&self, path: &ResourcePath, user: &User, body: Incoming) -> Result<Answer, ApiError> {
        let subresource = path.subresource.as_deref();
        let resource = match subresource {
            Some(subresource) => format!("{}/{subresource}", path.resource),
            None => path.resource.clone(),
        };
        // Kubernetes reads a named namespace as lying in itself.
        let of_itself = path.name.as_deref().filter(|_| path.resource == "namespaces");
        let attempt = Attempt {
            verb: self.verb,
            group: &path.group,
            resource: &resource,
            namespace: path.namespace.as_deref().or(of_itself),
            name: path.name.as_deref(),
        };
        access::authorize(self.shared, user, &attempt)?;
        if let Some(review) = review_at(path) {
            let request = body::read_object(&self.parts.headers, body).await?;
            return self.review(review, user, &request);
        }
        let kind = kinds::by_plural(&path.group, &path.resource).ok_or_else(ApiError::not_served)?;
        let version = kind.served(&path.version).ok_or_else(ApiError::not_served)?;
        if path.namespace.is_some() && !kind.namespaced {
            return Err(ApiError::not_served());
        }
        let (shared, headers, query, verb) = (self.shared, &self.parts.headers, self.query, self.verb);
        let endpoint = Endpoint {
            shared,
            headers,
            query,
            verb,
            kind,
            version,
            namespace: path.namespace.as_deref(),
        };
        match (subresource, path.name.as_deref()) {
            (None, None) => endpoint.collection(body).await,
            (None, Some(name)) => endpoint.object(name, Part::Main, body).await,
            (Some("status"), Some(name)) if kind.traits.status && self.verb != "delete" => {
                endpoint.object(name, Part::Status, body).await
            }
            (Some("token"), Some(name)) if kind.kind == "ServiceAccount" => endpoint.token(name, body).await,
            _ => Err(ApiError::not_served()),
        }
    }

    fn review(&self, review: Review, user: &User, request: &Value) -> Result<Answer, ApiError> {
        if self.verb != "create" {
            return Err(ApiError::method_not_allowed());
        }
        let answer = match review {
            TOKEN_REVIEW => review::token_review(self.shared, request)?,
            SELF_REVIEW => access::self_review(user),
            ACCESS_REVIEW => access::access_review(self.shared, user, request)?,
            _ => return Err(ApiError::not_served()),
        };
        Ok(body::json(StatusCode::CREATED, &answer))
    }
}

fn ok(value: &Value) -> Answer {
    body::json(StatusCode::OK, value)
}

/// An OpenAPI document without schemas: `kubectl` then sends what it has and leaves the checking to the server.
fn schemas(headers: &HeaderMap) -> Answer {
    let accepted = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if accepted.contains(discovery::OPENAPI_PROTOBUF) {
        body::with_type(
            StatusCode::OK,
            discovery::OPENAPI_PROTOBUF_SENT,
            discovery::OPENAPI_DOCUMENT,
        )
    } else {
        ok(&discovery::openapi())
    }
}
