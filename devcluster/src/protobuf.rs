//! Kubernetes' protobuf encoding of request bodies, for the few kinds `kubectl` insists on sending that way.
//!
//! Answers are always JSON, which such clients accept. Decoding is driven by tables of fields, numbered as in the
//! published `generated.proto` files; what a table does not name is refused rather than lost.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// What such a body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Why a body cannot be read.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum ProtobufError {
    #[error("the body is no Kubernetes protobuf")]
    Malformed,
    #[error("{0} is not read from protobuf here; send JSON")]
    UnknownKind(String),
    #[error("field {0} of the body is not read from protobuf here; send JSON")]
    UnknownField(u64),
}

use ProtobufError::Malformed;

/// A field: number, JSON name, how it is read.
type Field = (u64, &'static str, Shape);

#[derive(Clone, Copy)]
enum Shape {
    Text,
    Texts,
    Base64,
    Number,
    Flag,
    /// Seconds and nanoseconds; only ever a stamp the server sets, so it is dropped.
    Time,
    One(&'static [Field]),
    Many(&'static [Field]),
    /// String to string, or string to bytes, by the shape of the values.
    MapOf(&'static [Field]),
}

use Shape::{Base64, Flag, Many, MapOf, Number, One, Text, Texts, Time};

/// A map entry is a message of a key and a value.
const TEXT_ENTRY: &[Field] = &[(1, "key", Text), (2, "value", Text)];
const BASE64_ENTRY: &[Field] = &[(1, "key", Text), (2, "value", Base64)];

const OWNER: &[Field] = &[
    (1, "kind", Text),
    (3, "name", Text),
    (4, "uid", Text),
    (5, "apiVersion", Text),
    (6, "controller", Flag),
    (7, "blockOwnerDeletion", Flag),
];

const METADATA: &[Field] = &[
    (1, "name", Text),
    (2, "generateName", Text),
    (3, "namespace", Text),
    (4, "selfLink", Text),
    (5, "uid", Text),
    (6, "resourceVersion", Text),
    (7, "generation", Number),
    (8, "creationTimestamp", Time),
    (9, "deletionTimestamp", Time),
    (10, "deletionGracePeriodSeconds", Number),
    (11, "labels", MapOf(TEXT_ENTRY)),
    (12, "annotations", MapOf(TEXT_ENTRY)),
    (13, "ownerReferences", Many(OWNER)),
    (14, "finalizers", Texts),
];

const CONFIG_MAP: &[Field] = &[
    (1, "metadata", One(METADATA)),
    (2, "data", MapOf(TEXT_ENTRY)),
    (3, "binaryData", MapOf(BASE64_ENTRY)),
    (4, "immutable", Flag),
];

const SECRET: &[Field] = &[
    (1, "metadata", One(METADATA)),
    (2, "data", MapOf(BASE64_ENTRY)),
    (3, "type", Text),
    (4, "stringData", MapOf(TEXT_ENTRY)),
    (5, "immutable", Flag),
];

const SERVICE_ACCOUNT: &[Field] = &[
    (1, "metadata", One(METADATA)),
    (4, "automountServiceAccountToken", Flag),
];

const NAMESPACE: &[Field] = &[
    (1, "metadata", One(METADATA)),
    (2, "spec", One(&[(1, "finalizers", Texts)])),
    (3, "status", One(&[(1, "phase", Text)])),
];

const BOUND_OBJECT: &[Field] = &[
    (1, "kind", Text),
    (2, "apiVersion", Text),
    (3, "name", Text),
    (4, "uid", Text),
];

const TOKEN_REQUEST: &[Field] = &[
    (1, "metadata", One(METADATA)),
    (
        2,
        "spec",
        One(&[
            (1, "audiences", Texts),
            (3, "boundObjectRef", One(BOUND_OBJECT)),
            (4, "expirationSeconds", Number),
        ]),
    ),
    (
        3,
        "status",
        One(&[(1, "token", Text), (2, "expirationTimestamp", Time)]),
    ),
];

const TOKEN_REVIEW: &[Field] = &[
    (1, "metadata", One(METADATA)),
    (2, "spec", One(&[(1, "token", Text), (2, "audiences", Texts)])),
    (
        3,
        "status",
        One(&[
            (1, "authenticated", Flag),
            (2, "user", One(USER)),
            (3, "error", Text),
        ]),
    ),
];

/// Only ever empty in a request.
const USER: &[Field] = &[(1, "username", Text), (2, "uid", Text), (3, "groups", Texts)];

const RESOURCE: &[Field] = &[
    (1, "namespace", Text),
    (2, "verb", Text),
    (3, "group", Text),
    (4, "version", Text),
    (5, "resource", Text),
    (6, "subresource", Text),
    (7, "name", Text),
];

const PATH: &[Field] = &[(1, "path", Text), (2, "verb", Text)];

const ACCESS_REVIEW: &[Field] = &[
    (1, "metadata", One(METADATA)),
    (
        2,
        "spec",
        One(&[
            (1, "resourceAttributes", One(RESOURCE)),
            (2, "nonResourceAttributes", One(PATH)),
        ]),
    ),
    (
        3,
        "status",
        One(&[
            (1, "allowed", Flag),
            (2, "reason", Text),
            (3, "evaluationError", Text),
            (4, "denied", Flag),
        ]),
    ),
];

const SELF_REVIEW: &[Field] = &[
    (1, "metadata", One(METADATA)),
    (2, "status", One(&[(1, "userInfo", One(USER))])),
];

const DELETE_OPTIONS: &[Field] = &[
    (1, "gracePeriodSeconds", Number),
    (
        2,
        "preconditions",
        One(&[(1, "uid", Text), (2, "resourceVersion", Text)]),
    ),
    (3, "orphanDependents", Flag),
    (4, "propagationPolicy", Text),
    (5, "dryRun", Texts),
];

/// The wrapper around every object: its type, and its bytes.
const ENVELOPE: &[Field] = &[
    (1, "typeMeta", One(&[(1, "apiVersion", Text), (2, "kind", Text)])),
    (2, "raw", Base64),
    (3, "contentEncoding", Text),
    (4, "contentType", Text),
];

fn table(kind: &str) -> Option<&'static [Field]> {
    Some(match kind {
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "ServiceAccount" => SERVICE_ACCOUNT,
        "Namespace" => NAMESPACE,
        "TokenRequest" => TOKEN_REQUEST,
        "TokenReview" => TOKEN_REVIEW,
        "SelfSubjectAccessReview" => ACCESS_REVIEW,
        "SelfSubjectReview" => SELF_REVIEW,
        "DeleteOptions" => DELETE_OPTIONS,
        _ => return None,
    })
}

/// Reads a whole body as the JSON object it stands for.
pub(crate) fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = message(body.strip_prefix(MAGIC).ok_or(Malformed)?, ENVELOPE)?;
    let text = |name: &str| envelope.pointer(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("/typeMeta/apiVersion"), text("/typeMeta/kind"));
    let fields = table(kind).ok_or_else(|| ProtobufError::UnknownKind(kind.to_owned()))?;
    let raw = crate::json::text(&envelope, "/raw").ok_or(Malformed)?;
    let raw = STANDARD.decode(raw).map_err(|_| Malformed)?;
    let mut object = message(&raw, fields)?;
    crate::json::set(&mut object, &["apiVersion"], api_version);
    crate::json::set(&mut object, &["kind"], kind);
    Ok(object)
}

fn message(bytes: &[u8], fields: &[Field]) -> Result<Value, ProtobufError> {
    let mut object = Map::new();
    let mut reader = Reader(bytes);
    while !reader.0.is_empty() {
        let tag = reader.varint()?;
        let number = tag >> 3;
        let found = fields.iter().find(|(known, ..)| *known == number);
        let (_, name, shape) = found.ok_or(ProtobufError::UnknownField(number))?;
        let payload = match tag & 7 {
            0 => Payload::Number(reader.varint()?),
            2 => Payload::Bytes(reader.bytes()?),
            _ => return Err(Malformed),
        };
        put(&mut object, name, *shape, payload)?;
    }
    Ok(Value::Object(object))
}

enum Payload<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn put(
    object: &mut Map<String, Value>,
    name: &str,
    shape: Shape,
    payload: Payload<'_>,
) -> Result<(), ProtobufError> {
    let value = match (shape, payload) {
        (Number, Payload::Number(number)) => Value::from(i64::from_ne_bytes(number.to_ne_bytes())),
        (Flag, Payload::Number(number)) => Value::from(number != 0),
        (Time, Payload::Bytes(_)) => return Ok(()),
        // Strings that are not set are sent empty; JSON leaves them out.
        (Text, Payload::Bytes([])) => return Ok(()),
        (Text | Texts, Payload::Bytes(bytes)) => {
            Value::from(std::str::from_utf8(bytes).map_err(|_| Malformed)?)
        }
        (Base64, Payload::Bytes(bytes)) => Value::from(STANDARD.encode(bytes)),
        (One(fields) | Many(fields) | MapOf(fields), Payload::Bytes(bytes)) => message(bytes, fields)?,
        _ => return Err(Malformed),
    };
    let slot = object.entry(name);
    match shape {
        Texts | Many(_) => {
            if let Value::Array(items) = slot.or_insert_with(|| Value::Array(Vec::new())) {
                items.push(value);
            }
        }
        MapOf(_) => {
            let part = |part: &str| value.get(part).cloned().unwrap_or_else(|| Value::from(""));
            let key = part("key").as_str().unwrap_or_default().to_owned();
            if let Value::Object(map) = slot.or_insert_with(|| Value::Object(Map::new())) {
                map.insert(key, part("value"));
            }
        }
        _ => *slot.or_insert(Value::Null) = value,
    }
    Ok(())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn bytes(&mut self) -> Result<&'a [u8], ProtobufError> {
        let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What kubectl 1.32 sends for `create configmap x --from-literal=a=1`.
    const CONFIGMAP: &[u8] =
        b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\x1b\n\x11\n\x01x\x12\0\x1a\0\"\0*\x002\08\0B\0\x12\x06\n\x01a\x12\x011\x1a\0\"\0";

    #[test]
    fn a_body_of_kubectl_reads_as_its_json() {
        let expected = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "generation": 0},
            "data": {"a": "1"},
        });
        assert_eq!(decode(CONFIGMAP).unwrap(), expected);
    }

    #[test]
    fn every_cut_body_is_refused() {
        // The last two fields of the wrapper are empty and may be missing.
        for end in 0..CONFIGMAP.len() - 4 {
            assert!(decode(&CONFIGMAP[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn unknown_kinds_and_fields_are_refused() {
        let kind = b"k8s\0\n\x0b\n\x02v1\x12\x05Other";
        assert_eq!(decode(kind), Err(ProtobufError::UnknownKind("Other".to_owned())));
        let field = b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\x02\x4a\0";
        assert_eq!(decode(field), Err(ProtobufError::UnknownField(9)));
    }
}
