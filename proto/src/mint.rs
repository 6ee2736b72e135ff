//! `MintJwtSvid`: what a request may hold, checked before anything is done for it.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use signet_certs::id::MAX_ID_BYTES;
use signet_certs::jwt::{ClaimFault, check_audience};

use crate::wire::signet::ca::v1::{MintJwtSvidRequest, MintJwtSvidResponse};

/// Why a request is refused before its caller is even known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MintRequestError {
    /// Not the message of this call.
    #[error("message cannot be read: {0}")]
    NotProtobuf(String),
    /// No audience, an empty one, too many or too long.
    #[error("{0}")]
    Audience(#[from] ClaimFault),
    /// The identity asked for is longer than any SPIFFE ID.
    #[error("spiffe_id has {0} bytes, at most {MAX_ID_BYTES} are allowed")]
    IdTooLong(usize),
}

/// A request within its bounds. The identity is still text: who may have it is not decided here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MintRequest {
    /// Whose token; nothing means the caller's own.
    pub impersonated: Option<String>,
    /// For whom, at least one.
    pub audience: Vec<String>,
    /// Life asked for in seconds; zero or less means the default.
    pub validity_seconds: i64,
}

/// Reads a request from its message.
///
/// # Errors
/// A [`MintRequestError`].
pub fn read(message: Bytes) -> Result<MintRequest, MintRequestError> {
    let request =
        MintJwtSvidRequest::decode(message).map_err(|e| MintRequestError::NotProtobuf(e.to_string()))?;
    parse(request)
}

/// Takes a request apart.
///
/// # Errors
/// A [`MintRequestError`].
pub fn parse(request: MintJwtSvidRequest) -> Result<MintRequest, MintRequestError> {
    let MintJwtSvidRequest {
        spiffe_id,
        audience,
        validity_seconds,
    } = request;
    if spiffe_id.len() > MAX_ID_BYTES {
        return Err(MintRequestError::IdTooLong(spiffe_id.len()));
    }
    check_audience(&audience)?;
    Ok(MintRequest {
        impersonated: Some(spiffe_id).filter(|id| !id.is_empty()),
        audience,
        validity_seconds,
    })
}

/// The answer as it goes over gRPC: a byte that says it is not compressed, four of length, and the message.
#[must_use]
pub fn respond_in_frame(svid: &signet_certs::JwtSvid) -> Bytes {
    const HEAD: usize = 5;
    let answer = MintJwtSvidResponse {
        token: svid.expose_token().to_owned(),
    };
    let length = answer.encoded_len();
    let mut frame = BytesMut::with_capacity(HEAD + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    frame.put_slice(&answer.encode_to_vec());
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use signet_certs::jwt::{MAX_AUDIENCE_BYTES, MAX_AUDIENCES};

    fn asked(audience: &[&str]) -> MintJwtSvidRequest {
        MintJwtSvidRequest {
            audience: audience.iter().map(|one| (*one).to_owned()).collect(),
            ..MintJwtSvidRequest::default()
        }
    }

    #[test]
    fn a_request_without_a_name_is_for_the_caller_itself() {
        let read = parse(asked(&["a", "b"])).unwrap();
        assert_eq!((read.impersonated, read.audience.len()), (None, 2));
        let named = MintJwtSvidRequest {
            spiffe_id: "spiffe://a/b".into(),
            ..asked(&["a"])
        };
        assert_eq!(
            parse(named).unwrap().impersonated.as_deref(),
            Some("spiffe://a/b")
        );
    }

    #[test]
    fn requests_out_of_bounds_are_refused_by_what_is_wrong() {
        let long = "a".repeat(MAX_AUDIENCE_BYTES + 1);
        for (request, fault) in [
            (asked(&[]), ClaimFault::NoAudience),
            (asked(&["a", ""]), ClaimFault::NoAudience),
            (
                asked(&["a"; MAX_AUDIENCES + 1]),
                ClaimFault::TooManyAudiences(MAX_AUDIENCES + 1),
            ),
            (asked(&[&long]), ClaimFault::AudienceTooLong(long.len())),
        ] {
            assert_eq!(parse(request), Err(MintRequestError::Audience(fault)));
        }
        let named = MintJwtSvidRequest {
            spiffe_id: "x".repeat(MAX_ID_BYTES + 1),
            ..asked(&["a"])
        };
        assert_eq!(parse(named), Err(MintRequestError::IdTooLong(MAX_ID_BYTES + 1)));
    }
}
