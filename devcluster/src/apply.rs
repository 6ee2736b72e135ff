//! What updating and patching mean, as steps on the locked state.

use std::sync::Arc;

use serde_json::Value;

use crate::defaults;
use crate::json;
use crate::patch;
use crate::status::{ApiError, FieldFault};
use crate::store::State;
use crate::verbs::{Part, Writer};

/// A patch and the way it is laid over the object.
#[derive(Debug)]
pub(crate) enum Patch {
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own; laid over as a merge patch, so lists are replaced.
    Strategic(Value),
    /// RFC 6902.
    Json(Value),
    /// Server-side apply; creates the object or merges over it, without owners of fields.
    Apply(Value),
}

/// Metadata no update changes.
const FIXED_METADATA: [&str; 5] = [
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
];

impl Writer<'_> {
    /// Replaces an object, if it is still what the writer read.
    pub(crate) fn update(
        &self,
        state: &mut State,
        name: &str,
        mut new: Value,
        part: Part,
    ) -> Result<Arc<Value>, ApiError> {
        let key = self.key(name);
        let current = state
            .get(&key)
            .ok_or_else(|| ApiError::not_found(self.kind, name))?;
        self.check_type(&mut new)?;
        self.check_place(&mut new)?;
        let own_name = json::name(&new);
        if own_name != name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({own_name}) does not match the name on the URL ({name})"
            )));
        }
        self.check_identity(&current, &new)?;
        self.check_version(&current, &new)?;
        let mut next = self.combine(&current, new, part);
        defaults::normalize(self.kind, &mut next)?;
        defaults::check_update(self.kind, &current, &next)?;
        if next == *current {
            return Ok(current);
        }
        let being_deleted = next.pointer("/metadata/deletionTimestamp").is_some();
        let finalizers = next.pointer("/metadata/finalizers").and_then(Value::as_array);
        if being_deleted && finalizers.is_none_or(Vec::is_empty) && !self.dry_run {
            return Ok(self.remove(state, &key, name).unwrap_or(current));
        }
        self.commit(state, key, next)
    }

    /// Changes parts of an object; an apply of one that is not there makes it.
    pub(crate) fn patch(
        &self,
        state: &mut State,
        name: &str,
        patch: Patch,
        part: Part,
    ) -> Result<Arc<Value>, ApiError> {
        let current = match (state.get(&self.key(name)), &patch) {
            (Some(current), _) => current,
            (None, Patch::Apply(object)) if part == Part::Main => {
                let mut object = object.clone();
                json::set(&mut object, &["metadata", "name"], name);
                return self.create(state, object, part);
            }
            (None, _) => return Err(ApiError::not_found(self.kind, name)),
        };
        // The patch was written against the version on the path, so that is what it is laid over.
        let mut next = crate::verbs::present(&current, self.kind, self.version);
        match patch {
            Patch::Merge(patch) | Patch::Apply(patch) => patch::merge(&mut next, &patch),
            Patch::Strategic(mut patch) => {
                patch::strip_directives(&mut patch);
                patch::merge(&mut next, &patch);
            }
            Patch::Json(patch) => patch::json_patch(&mut next, &patch).map_err(|fault| {
                let text = fault.to_string();
                let fault = FieldFault {
                    reason: "FieldValueInvalid",
                    field: "patch",
                    value: None,
                    why: &text,
                };
                ApiError::invalid(self.kind.kind, self.kind.group, name, &fault)
            })?,
        }
        self.update(state, name, next, part)
    }

    /// A body that names a uid means that object and no other of the same name.
    fn check_identity(&self, current: &Value, new: &Value) -> Result<(), ApiError> {
        let (asked, lives) = (json::uid(new), json::uid(current));
        if asked.is_empty() || asked == lives {
            return Ok(());
        }
        let why = format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {lives}");
        Err(ApiError::conflict(self.kind, json::name(current), &why))
    }

    fn check_version(&self, current: &Value, new: &Value) -> Result<(), ApiError> {
        let pointer = "/metadata/resourceVersion";
        let asked = json::text(new, pointer).unwrap_or_default();
        let name = json::name(current);
        if asked.is_empty() {
            if self.kind.traits.unconditional_update {
                return Ok(());
            }
            let fault = FieldFault {
                reason: "FieldValueInvalid",
                field: "metadata.resourceVersion",
                value: Some("0x0"),
                why: "must be specified for an update",
            };
            return Err(ApiError::invalid(self.kind.kind, self.kind.group, name, &fault));
        }
        if json::text(current, pointer) == Some(asked) {
            return Ok(());
        }
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Err(ApiError::conflict(self.kind, name, why))
    }

    /// The object after the write: `new`, with everything of `current` the write is not about.
    fn combine(&self, current: &Value, mut new: Value, part: Part) -> Value {
        let status = if part == Part::Main {
            current.get("status")
        } else {
            new.get("status")
        }
        .cloned();
        if part == Part::Status {
            new = current.clone();
        }
        if part != Part::All && self.kind.traits.status {
            match status {
                Some(status) => json::set(&mut new, &["status"], status),
                None => drop(json::remove(&mut new, &["status"])),
            }
        }
        json::remove(&mut new, &["metadata", "managedFields"]);
        for field in FIXED_METADATA
            .into_iter()
            .chain(["resourceVersion", "generation"])
        {
            match current.pointer(&format!("/metadata/{field}")) {
                Some(value) => json::set(&mut new, &["metadata", field], value.clone()),
                None => drop(json::remove(&mut new, &["metadata", field])),
            }
        }
        json::set(
            &mut new,
            &["apiVersion"],
            self.kind.api_version(self.kind.preferred_version()),
        );
        json::set(&mut new, &["kind"], self.kind.kind);
        if self.kind.traits.generation && new.get("spec") != current.get("spec") {
            let generation = current
                .pointer("/metadata/generation")
                .and_then(Value::as_u64)
                .unwrap_or(0);
            json::set(
                &mut new,
                &["metadata", "generation"],
                generation.saturating_add(1),
            );
        }
        new
    }
}
