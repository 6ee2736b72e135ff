//! `CreateCertificate`: what is read of a request, and how a chain is laid out in the answer.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::value::Kind;
use signet_certs::csr::MAX_CSR_BYTES;
use signet_certs::{SpiffeId, SvidChain, TrustBundle};

use crate::wire::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};

/// Key of the request's metadata under which a node names the workload it asks for.
const IMPERSONATED: &str = "ImpersonatedIdentity";
/// Longest metadata value read; a SPIFFE ID has at most 2,048 bytes.
const MAX_METADATA_VALUE: usize = 2048;

/// What a request asks for. The CSR is still text: it is read only for an authenticated caller.
#[derive(Clone, Debug, PartialEq)]
pub struct IssueRequest {
    /// PEM text, at most [`MAX_CSR_BYTES`] long.
    pub csr: String,
    /// Seconds asked for; zero or less means the default.
    pub validity_seconds: i64,
    /// The identity asked for in place of the caller's own, as text; empty counts as absent.
    pub impersonated: Option<String>,
}

/// Why a request is malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssueRequestError {
    /// Not the message of this call.
    #[error("message cannot be read: {0}")]
    NotProtobuf(String),
    /// No CSR.
    #[error("request has no csr; send one PEM block of type CERTIFICATE REQUEST")]
    NoCsr,
    /// A CSR longer than [`MAX_CSR_BYTES`].
    #[error("csr has {0} bytes, at most {MAX_CSR_BYTES} are read")]
    CsrTooLarge(usize),
    /// A metadata value longer than any SPIFFE ID.
    #[error("metadata value {IMPERSONATED} has {0} bytes, at most {MAX_METADATA_VALUE} are read")]
    MetadataTooLarge(usize),
}

/// Reads a request from its message.
///
/// # Errors
/// An [`IssueRequestError`].
pub fn read(message: Bytes) -> Result<IssueRequest, IssueRequestError> {
    let request = IstioCertificateRequest::decode(message)
        .map_err(|e| IssueRequestError::NotProtobuf(e.to_string()))?;
    parse(request)
}

/// Takes a request apart. Unknown metadata keys, and values that are no strings, count as absent, as they do
/// for istiod.
///
/// # Errors
/// An [`IssueRequestError`].
pub fn parse(request: IstioCertificateRequest) -> Result<IssueRequest, IssueRequestError> {
    match request.csr.len() {
        0 => return Err(IssueRequestError::NoCsr),
        len if len > MAX_CSR_BYTES => return Err(IssueRequestError::CsrTooLarge(len)),
        _ => {}
    }
    let impersonated = request.metadata.as_ref().and_then(|m| m.fields.get(IMPERSONATED));
    let impersonated = match impersonated.and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(id)) if id.len() > MAX_METADATA_VALUE => {
            return Err(IssueRequestError::MetadataTooLarge(id.len()));
        }
        Some(Kind::StringValue(id)) if !id.is_empty() => Some(id.clone()),
        _ => None,
    };
    Ok(IssueRequest {
        csr: request.csr,
        validity_seconds: request.validity_duration,
        impersonated,
    })
}

/// Lays a chain out as Istio's clients read it: leaf first, one certificate per element, and as the
/// last element the whole root bundle, never split.
#[must_use]
pub fn respond(chain: &SvidChain, bundle: &TrustBundle) -> IstioCertificateResponse {
    let mut cert_chain: Vec<String> = chain.certificates().map(|c| c.to_pem()).collect();
    cert_chain.push(bundle.to_pem());
    IstioCertificateResponse { cert_chain }
}

/// The message of [`respond`] as it goes over gRPC: a byte that says it is not compressed, four of length,
/// and the message.
#[must_use]
pub fn respond_in_frame(chain: &SvidChain, bundle: &TrustBundle) -> Bytes {
    /// `repeated string cert_chain = 1`.
    const CERT_CHAIN: u32 = 1;
    const HEAD: usize = 5;
    let roots = bundle.to_pem();
    let texts = || chain.certificates().map(|c| c.pem()).chain([roots.as_str()]);
    // A key, and three bytes of length for up to 2 MiB.
    let room = texts().map(|text| text.len() + 4).sum::<usize>();
    let mut frame = BytesMut::with_capacity(HEAD + room);
    frame.put_bytes(0, HEAD);
    for text in texts() {
        encode_key(CERT_CHAIN, WireType::LengthDelimited, &mut frame);
        encode_varint(text.len() as u64, &mut frame);
        frame.put_slice(text.as_bytes());
    }
    let length = u32::try_from(frame.len() - HEAD).unwrap_or(u32::MAX);
    if let Some(place) = frame.get_mut(1..HEAD) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    frame.freeze()
}

/// Why a response is no chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssueResponseError {
    /// Fewer than leaf and roots.
    #[error("the CA answered with {0} elements; a leaf and the roots are the least")]
    TooShort(usize),
    /// The chain breaks the profile.
    #[error("the CA answered with a chain that is no SVID: {0}")]
    Chain(#[from] signet_certs::svid::SvidError),
}

/// Splits an answer into the chain, leaf first, and the PEM text of the roots. The roots are for
/// comparing with the bundle; they are never added to it.
///
/// # Errors
/// An [`IssueResponseError`].
pub fn read_response(response: &IstioCertificateResponse) -> Result<(SvidChain, String), IssueResponseError> {
    match response.cert_chain.split_last() {
        Some((roots, chain)) if !chain.is_empty() => {
            Ok((SvidChain::from_pem(chain.concat().as_bytes())?, roots.clone()))
        }
        _ => Err(IssueResponseError::TooShort(response.cert_chain.len())),
    }
}

/// A request as our own clients send it.
#[must_use]
pub fn request(csr: String, validity_seconds: i64) -> IstioCertificateRequest {
    IstioCertificateRequest {
        csr,
        validity_duration: validity_seconds,
        metadata: None,
    }
}

/// The same request, made by a node for the workload `id`.
#[must_use]
pub fn impersonating(mut request: IstioCertificateRequest, id: &SpiffeId) -> IstioCertificateRequest {
    let value = prost_types::Value {
        kind: Some(Kind::StringValue(id.to_string())),
    };
    request
        .metadata
        .get_or_insert_default()
        .fields
        .insert(IMPERSONATED.to_owned(), value);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: &str, kind: Kind) -> IstioCertificateRequest {
        let value = prost_types::Value { kind: Some(kind) };
        let fields = [(key.to_owned(), value)].into();
        IstioCertificateRequest {
            csr: "x".into(),
            validity_duration: 0,
            metadata: Some(prost_types::Struct { fields }),
        }
    }

    #[test]
    fn impersonation_is_read_only_from_a_non_empty_string() {
        let read = |request| parse(request).unwrap().impersonated;
        assert_eq!(
            read(with(IMPERSONATED, Kind::StringValue("spiffe://a/b".into()))),
            Some("spiffe://a/b".into())
        );
        assert_eq!(read(with(IMPERSONATED, Kind::StringValue(String::new()))), None);
        assert_eq!(read(with(IMPERSONATED, Kind::NumberValue(1.0))), None);
        assert_eq!(read(with("CertSigner", Kind::StringValue("x".into()))), None);
    }

    #[test]
    fn what_a_node_asks_for_is_read_as_it_was_meant() {
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        let asked = parse(impersonating(request("x".into(), 60), &id)).unwrap();
        assert_eq!(asked.impersonated.as_deref(), Some(id.as_str()));
    }

    #[test]
    fn oversized_and_empty_requests_are_refused_with_their_size() {
        let csr = |csr: String| parse(request(csr, 0)).unwrap_err().to_string();
        assert_eq!(
            csr(String::new()),
            "request has no csr; send one PEM block of type CERTIFICATE REQUEST"
        );
        assert_eq!(
            csr("x".repeat(40_000)),
            "csr has 40000 bytes, at most 32768 are read"
        );
        let long = with(IMPERSONATED, Kind::StringValue("x".repeat(3_000)));
        assert_eq!(
            parse(long).unwrap_err(),
            IssueRequestError::MetadataTooLarge(3_000)
        );
    }
    #[test]
    fn a_framed_answer_is_the_message_behind_its_length() {
        use std::sync::Arc;
        use std::time::Duration;

        use signet_certs::{Authority, LeafProfile, SigningKey, TrustDomain, UnixTime, issue};

        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let day = Duration::from_secs(86_400);
        let domain: TrustDomain = "cluster.local".parse().unwrap();
        let key = || Arc::new(SigningKey::generate().unwrap());
        let root = Authority::self_signed_root(&domain, key(), 100 * day, now).unwrap();
        let issuing = root.issue_intermediate(&domain, key(), 10 * day, now).unwrap();
        let profile = LeafProfile {
            id: "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap(),
            ttl: day,
            min_left: day,
            dns: Vec::new(),
        };
        let chain = issue(&profile, key().public_key(), &issuing, now).unwrap();
        let roots = vec![root.certificate().clone()];
        let bundle = TrustBundle::new(domain, roots, 1).unwrap();
        let frame = respond_in_frame(&chain, &bundle);
        let message = respond(&chain, &bundle).encode_to_vec();
        let head = [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes()].concat();
        assert_eq!(frame, [head, message].concat());
    }
}
