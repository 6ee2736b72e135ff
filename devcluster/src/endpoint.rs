//! Answers for stored kinds: from the verb and the body of a request to a step on the store.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::apply::Patch;
use crate::body::{self, Answer};
use crate::json;
use crate::kinds::Kind;
use crate::pages::Page;
use crate::query::Query;
use crate::shared::Shared;
use crate::status::{ApiError, FieldFault};
use crate::token;
use crate::verbs::{Deleted, Filter, Part, Preconditions, Writer, present};
use crate::watch;

/// An authorized request for objects of one kind, in the version and the namespace of its path.
pub(crate) struct Endpoint<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) query: &'a Query,
    pub(crate) verb: &'static str,
    pub(crate) kind: &'static Kind,
    pub(crate) version: &'static str,
    pub(crate) namespace: Option<&'a str>,
}

impl Endpoint<'_> {
    /// Answers for the `token` subresource of an account.
    pub(crate) async fn token(&self, name: &str, body: Incoming) -> Result<Answer, ApiError> {
        if self.verb != "create" {
            return Err(ApiError::method_not_allowed());
        }
        let request = body::read_object(self.headers, body).await?;
        let namespace = self.place()?;
        let answer = token::token_request(self.shared, namespace, name, &request, self.shared.now())?;
        Ok(body::json(StatusCode::CREATED, &answer))
    }

    /// Answers for all objects of the kind, or all in one namespace.
    pub(crate) async fn collection(&self, body: Incoming) -> Result<Answer, ApiError> {
        let (kind, version) = (self.kind, self.version);
        match self.verb {
            "list" => {
                let filter = Filter::new(kind, self.namespace, self.query)?;
                let page = self
                    .shared
                    .store
                    .read(|state| Page::of(state, &filter, self.query))?;
                let items: Vec<Value> = page
                    .objects
                    .iter()
                    .map(|object| present(object, kind, version))
                    .collect();
                let mut list = self.list(page.revision, &items);
                if let Some(next) = page.next {
                    json::set(&mut list, &["metadata", "continue"], next);
                }
                Ok(ok(&list))
            }
            "watch" => {
                let filter = Filter::new(kind, self.namespace, self.query)?;
                Ok(body::stream(watch::start(
                    self.shared,
                    filter,
                    version,
                    self.query,
                )?))
            }
            "create" => {
                let object = body::read_object(self.headers, body).await?;
                let writer = self.writer()?;
                let created = self
                    .shared
                    .store
                    .write(|state| writer.create(state, object, Part::Main))?;
                Ok(body::json(StatusCode::CREATED, &present(&created, kind, version)))
            }
            "deletecollection" => {
                let options = body::read_object(self.headers, body).await?;
                let filter = Filter::new(kind, Some(self.place()?), self.query)?;
                let writer = self.deleter(&options)?;
                let (revision, gone) = self.shared.store.write(|state| {
                    let names = filter.list(state);
                    let delete = |object: &Arc<Value>| {
                        writer.delete(state, json::name(object), &Preconditions::default())
                    };
                    let gone: Result<Vec<Deleted>, ApiError> = names.iter().map(delete).collect();
                    gone.map(|gone| (state.revision(), gone))
                })?;
                let items: Vec<Value> = gone
                    .iter()
                    .map(|gone| present(gone.object(), kind, version))
                    .collect();
                Ok(ok(&self.list(revision, &items)))
            }
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    /// Answers for one object, or its status.
    pub(crate) async fn object(&self, name: &str, part: Part, body: Incoming) -> Result<Answer, ApiError> {
        let (kind, version) = (self.kind, self.version);
        let shown = |object: &Value| ok(&present(object, kind, version));
        let store = &self.shared.store;
        match self.verb {
            "get" => {
                let key = self.writer()?.key(name);
                let found = store.read(|state| state.get(&key));
                found
                    .map(|object| shown(&object))
                    .ok_or_else(|| ApiError::not_found(kind, name))
            }
            "update" => {
                let object = body::read_object(self.headers, body).await?;
                let writer = self.writer()?;
                store
                    .write(|state| writer.update(state, name, object, part))
                    .map(|object| shown(&object))
            }
            "patch" => {
                let patch = self.patch(body).await?;
                let writer = self.writer()?;
                let (existed, object) = store.write(|state| {
                    let existed = state.get(&writer.key(name)).is_some();
                    writer
                        .patch(state, name, patch, part)
                        .map(|object| (existed, object))
                })?;
                let code = if existed {
                    StatusCode::OK
                } else {
                    StatusCode::CREATED
                };
                Ok(body::json(code, &present(&object, kind, version)))
            }
            "delete" => {
                let options = body::read_object(self.headers, body).await?;
                let writer = self.deleter(&options)?;
                let wanted = |pointer| json::text(&options, pointer).map(str::to_owned);
                let preconditions = Preconditions {
                    uid: wanted("/preconditions/uid"),
                    resource_version: wanted("/preconditions/resourceVersion"),
                };
                match store.write(|state| writer.delete(state, name, &preconditions))? {
                    Deleted::Held(object) => Ok(shown(&object)),
                    Deleted::Gone(object) => Ok(ok(&success(kind, &object))),
                }
            }
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    async fn patch(&self, body: Incoming) -> Result<Patch, ApiError> {
        let form = match body::media_type(self.headers) {
            "application/merge-patch+json" => Patch::Merge,
            "application/strategic-merge-patch+json" => Patch::Strategic,
            "application/json-patch+json" => Patch::Json,
            "application/apply-patch+yaml" if self.query.field_manager.is_empty() => {
                let fault = FieldFault {
                    reason: "FieldValueRequired",
                    field: "fieldManager",
                    value: None,
                    why: "is required for apply patch",
                };
                return Err(ApiError::invalid("PatchOptions", "meta.k8s.io", "", &fault));
            }
            "application/apply-patch+yaml" => Patch::Apply,
            other => return Err(ApiError::unsupported_media(other)),
        };
        body::read_json(body).await.map(form)
    }

    /// The namespace to write in; empty for kinds without one.
    fn place(&self) -> Result<&str, ApiError> {
        match self.namespace {
            None if self.kind.namespaced => Err(ApiError::method_not_allowed()),
            namespace => Ok(namespace.unwrap_or_default()),
        }
    }

    fn writer(&self) -> Result<Writer<'_>, ApiError> {
        let (kind, version, dry_run) = (self.kind, self.version, self.query.dry_run);
        Ok(Writer {
            kind,
            version,
            namespace: self.place()?,
            now: self.shared.now(),
            dry_run,
        })
    }

    /// A writer for a request that carries DeleteOptions, which can ask for a rehearsal too.
    fn deleter(&self, options: &Value) -> Result<Writer<'_>, ApiError> {
        let mut writer = self.writer()?;
        writer.dry_run |= json::texts(options, "/dryRun").iter().any(|word| word == "All");
        Ok(writer)
    }

    fn list(&self, revision: u64, items: &[Value]) -> Value {
        json!({
            "kind": format!("{}List", self.kind.kind),
            "apiVersion": self.kind.api_version(self.version),
            "metadata": {"resourceVersion": revision.to_string()},
            "items": items,
        })
    }
}

fn ok(value: &Value) -> Answer {
    body::json(StatusCode::OK, value)
}

fn success(kind: &Kind, object: &Value) -> Value {
    let mut details = json!({"name": json::name(object), "kind": kind.plural, "uid": json::uid(object)});
    if !kind.group.is_empty() {
        json::set(&mut details, &["group"], kind.group);
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
