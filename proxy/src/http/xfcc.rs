//! `X-Forwarded-Client-Cert` in Envoy's form: who the client proved to be, told to the application.
//!
//! One element, since what came before us is not believed: `Key=value` pairs separated by semicolons (Envoy: *HTTP header
//! manipulation*, `x-forwarded-client-cert`). Values that hold `,`, `;`, `=` or quotes would have to be quoted; no
//! SPIFFE ID does.

use std::fmt::Write as _;

use http::HeaderValue;
use signet_certs::SpiffeId;

/// The header for a client with a verified certificate: `By=…;Hash=…;URI=…`.
#[must_use]
pub fn header(by: Option<&SpiffeId>, leaf_sha256: &[u8; 32], uri: &SpiffeId) -> Option<HeaderValue> {
    let mut text = String::with_capacity(256);
    if let Some(by) = by {
        write!(text, "By={by};").ok()?;
    }
    text.push_str("Hash=");
    for byte in leaf_sha256 {
        write!(text, "{byte:02x}").ok()?;
    }
    write!(text, ";URI={uri}").ok()?;
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_identity_is_told_as_envoy_tells_it() {
        let by: SpiffeId = "spiffe://cluster.local/ns/b/sa/back".parse().unwrap();
        let uri: SpiffeId = "spiffe://cluster.local/ns/a/sa/front".parse().unwrap();
        let hash = "ab".repeat(32);
        let rest = format!("Hash={hash};URI=spiffe://cluster.local/ns/a/sa/front");
        let value = header(Some(&by), &[0xab; 32], &uri).unwrap();
        assert_eq!(value, format!("By=spiffe://cluster.local/ns/b/sa/back;{rest}"));
        assert_eq!(header(None, &[0xab; 32], &uri).unwrap(), rest);
    }
}
