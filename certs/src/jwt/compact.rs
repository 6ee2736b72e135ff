//! A JWS in compact form, taken apart strictly (RFC 7515 §7.1): three parts, base64url without padding,
//! objects whose members stand once.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{FormFault, MAX_TOKEN_BYTES};

/// A token's three parts, as text; only the header is decoded at first.
pub(crate) struct Parts<'a> {
    /// What the signature is over: header, dot, claims.
    pub(crate) signed: &'a str,
    pub(crate) header: Map<String, Value>,
    claims: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    /// Splits `token` and reads its header.
    pub(crate) fn of(token: &'a str) -> Result<Self, FormFault> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(FormFault::TooLarge(token.len()));
        }
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(FormFault::Parts(token.split('.').count()));
        };
        Ok(Self {
            signed: token.get(..header.len() + 1 + claims.len()).unwrap_or_default(),
            header: object("header", header)?,
            claims,
            signature,
        })
    }

    pub(crate) fn claims(&self) -> Result<Map<String, Value>, FormFault> {
        object("claims", self.claims)
    }

    /// The claims as they were signed: base64url.
    pub(crate) fn payload(&self) -> &'a str {
        self.claims
    }

    pub(crate) fn signature(&self) -> Result<Vec<u8>, FormFault> {
        URL_SAFE_NO_PAD
            .decode(self.signature)
            .map_err(|_| FormFault::Base64("signature"))
    }
}

fn object(part: &'static str, text: &str) -> Result<Map<String, Value>, FormFault> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| FormFault::Base64(part))?;
    let fault = |fault: String| FormFault::Json { part, fault };
    match serde_json::from_slice::<Distinct>(&bytes) {
        Ok(Distinct(Value::Object(members))) => Ok(members),
        Ok(_) => Err(fault("it is another JSON value".into())),
        // Positions only: the reader's own words could repeat what is in the token.
        Err(e) if e.is_data() => Err(fault(format!(
            "a member stands twice, before column {}",
            e.column()
        ))),
        Err(e) => Err(fault(format!("syntax, at column {}", e.column()))),
    }
}

/// Any JSON value in which no object has a member twice, however deep (the reader bounds the depth).
struct Distinct(Value);

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any).map(Self)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Distinct(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((name, Distinct(value))) = map.next_entry::<String, Distinct>()? {
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a member stands twice"));
            }
        }
        Ok(members.into())
    }
}
