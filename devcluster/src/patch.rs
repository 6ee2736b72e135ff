//! Patches of untyped objects: merge patch (RFC 7386) and JSON patch (RFC 6902), without a view of the store.

use serde_json::{Map, Value};

/// Why a JSON patch does not apply.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum PatchError {
    #[error("json patch is not a list of operations")]
    NotAList,
    #[error("json patch operation {0} is incomplete or unknown")]
    BadOperation(usize),
    #[error("json patch operation {0} names a path that is not there: {1}")]
    NoSuchPath(usize, String),
    #[error("json patch operation {0} tested a value that differs")]
    TestFailed(usize),
}

/// Lays `patch` over `target`: null takes a field away, objects merge, everything else replaces.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(map) = target.as_object_mut() else { return };
    for (key, value) in fields {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// Drops the directives (`$patch`, `$setElementOrder/…`, …) of a strategic merge patch, which is then laid over the
/// object as a plain merge patch: lists are replaced, not merged by key.
pub(crate) fn strip_directives(patch: &mut Value) {
    match patch {
        Value::Object(map) => {
            map.retain(|key, _| !key.starts_with('$'));
            map.values_mut().for_each(strip_directives);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_directives),
        _ => {}
    }
}

/// Applies the operations of a JSON patch in order; the first that does not hold refuses the whole patch.
pub(crate) fn json_patch(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let operations = patch.as_array().ok_or(PatchError::NotAList)?;
    for (index, operation) in operations.iter().enumerate() {
        let field = |name: &str| crate::json::text(operation, name).ok_or(PatchError::BadOperation(index));
        let value = || {
            operation
                .get("value")
                .cloned()
                .ok_or(PatchError::BadOperation(index))
        };
        let path = field("/path")?;
        let missing = |path: &str| PatchError::NoSuchPath(index, path.to_owned());
        match field("/op")? {
            "add" => add(target, path, value()?).ok_or_else(|| missing(path))?,
            "remove" => drop(take(target, path).ok_or_else(|| missing(path))?),
            "replace" => *target.pointer_mut(path).ok_or_else(|| missing(path))? = value()?,
            "move" => {
                let moved = take(target, field("/from")?).ok_or_else(|| missing(path))?;
                add(target, path, moved).ok_or_else(|| missing(path))?;
            }
            "copy" => {
                let copied = target
                    .pointer(field("/from")?)
                    .cloned()
                    .ok_or_else(|| missing(path))?;
                add(target, path, copied).ok_or_else(|| missing(path))?;
            }
            "test" if target.pointer(path) != Some(&value()?) => return Err(PatchError::TestFailed(index)),
            "test" => {}
            _ => return Err(PatchError::BadOperation(index)),
        }
    }
    Ok(())
}

fn parent<'a>(target: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((
        target.pointer_mut(parent)?,
        last.replace("~1", "/").replace("~0", "~"),
    ))
}

fn add(target: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *target = value;
        return Some(());
    }
    match parent(target, path)? {
        (Value::Object(map), key) => drop(map.insert(key, value)),
        (Value::Array(items), key) if key == "-" => items.push(value),
        (Value::Array(items), key) => {
            let index = key.parse::<usize>().ok().filter(|index| *index <= items.len())?;
            items.insert(index, value);
        }
        _ => return None,
    }
    Some(())
}

fn take(target: &mut Value, path: &str) -> Option<Value> {
    match parent(target, path)? {
        (Value::Object(map), key) => map.remove(&key),
        (Value::Array(items), key) => {
            let index = key.parse::<usize>().ok().filter(|index| *index < items.len())?;
            Some(items.remove(index))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merge_removes_nulls_and_replaces_lists() {
        let mut target = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        merge(
            &mut target,
            &json!({"a": {"b": null, "d": 3}, "l": [3], "n": {"x": null}}),
        );
        assert_eq!(target, json!({"a": {"c": 2, "d": 3}, "l": [3], "n": {}}));
    }

    #[test]
    fn strategic_directives_do_not_end_up_in_objects() {
        let mut patch = json!({"spec": {"$setElementOrder/x": [1], "x": [{"$patch": "replace", "n": 1}]}});
        strip_directives(&mut patch);
        assert_eq!(patch, json!({"spec": {"x": [{"n": 1}]}}));
    }

    #[test]
    fn json_patch_applies_in_order_or_not_at_all() {
        let mut target = json!({"labels": {"a/b": "1"}, "l": [1, 3]});
        let patch = json!([
            {"op": "test", "path": "/labels/a~1b", "value": "1"},
            {"op": "add", "path": "/l/1", "value": 2},
            {"op": "add", "path": "/l/-", "value": 4},
            {"op": "move", "from": "/labels/a~1b", "path": "/labels/c"},
            {"op": "replace", "path": "/l/0", "value": 0},
            {"op": "remove", "path": "/l/3"},
        ]);
        json_patch(&mut target, &patch).unwrap();
        assert_eq!(target, json!({"labels": {"c": "1"}, "l": [0, 2, 3]}));
        let missing = json!([{"op": "remove", "path": "/none"}]);
        assert_eq!(
            json_patch(&mut target, &missing),
            Err(PatchError::NoSuchPath(0, "/none".to_owned()))
        );
        let differs = json!([{"op": "test", "path": "/l/0", "value": 9}]);
        assert_eq!(json_patch(&mut target, &differs), Err(PatchError::TestFailed(0)));
    }
}
