//! Reading and writing fields of untyped objects without a way to panic.

use serde_json::{Map, Value};

/// The string at a JSON pointer, if there is one.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// The strings of the array at a JSON pointer; anything else there reads as empty.
pub(crate) fn texts(value: &Value, pointer: &str) -> Vec<String> {
    let items = value.pointer(pointer).and_then(Value::as_array);
    items
        .into_iter()
        .flatten()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

/// Writes `new` at `path`, making the objects on the way; whatever is in the way and is no object is replaced.
pub(crate) fn set(value: &mut Value, path: &[&str], new: impl Into<Value>) {
    let Some((head, rest)) = path.split_first() else {
        *value = new.into();
        return;
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    if let Some(map) = value.as_object_mut() {
        set(map.entry(*head).or_insert(Value::Null), rest, new);
    }
}

/// Takes the field at `path` out of the object, if it is there.
pub(crate) fn remove(value: &mut Value, path: &[&str]) -> Option<Value> {
    let (head, rest) = path.split_first()?;
    let map = value.as_object_mut()?;
    if rest.is_empty() {
        map.remove(*head)
    } else {
        remove(map.get_mut(*head)?, rest)
    }
}

/// `metadata.name`, or the empty string.
pub(crate) fn name(value: &Value) -> &str {
    text(value, "/metadata/name").unwrap_or_default()
}

/// `metadata.uid`, or the empty string.
pub(crate) fn uid(value: &Value) -> &str {
    text(value, "/metadata/uid").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn set_makes_the_objects_on_the_way() {
        let mut value = json!({"spec": 3});
        set(&mut value, &["spec", "node", "name"], "a");
        assert_eq!(value, json!({"spec": {"node": {"name": "a"}}}));
    }

    #[test]
    fn remove_takes_only_what_is_there() {
        let mut value = json!({"metadata": {"uid": "u", "name": "n"}});
        assert_eq!(remove(&mut value, &["metadata", "uid"]), Some(json!("u")));
        assert_eq!(remove(&mut value, &["metadata", "uid"]), None);
        assert_eq!(name(&value), "n");
    }
}
