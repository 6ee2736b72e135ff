//! Headers that nobody but this hop sets.

/// Those on which the framing or the routing of a request depends, or that tell its peer's identity.
const FIXED: [&str; 11] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-client-cert",
];

/// Whether no rule, claim or provider changes the header of this name, in lower case, whatever it says.
#[must_use]
pub fn is_fixed(name: &str) -> bool {
    FIXED.contains(&name)
}
