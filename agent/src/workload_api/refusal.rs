//! Why a call is not answered, with the status codes of SPIFFE_Workload_Endpoint §6.
//!
//! `INVALID_ARGUMENT` only for what the same request will meet for ever, since clients stop at it;
//! `PERMISSION_DENIED` only for what is known; `UNAVAILABLE` for everything that passes.

use signet_certs::SpiffeId;
use signet_certs::jwt::{ClaimFault, JwtError};
use signet_proto::workload::{SECURITY_KEY, SECURITY_VALUE};
use tonic::{Code, Status};

use super::limits::Limit;
use crate::ca_client::{Failure, bounded};
use crate::sds::Closing;

/// A closing as tonic sends it. A bound that was reached is load to shed here, which passes
/// (SPIFFE_Workload_Endpoint §6).
#[must_use]
pub fn status(closing: &Closing) -> Status {
    let code = match closing.code {
        Code::ResourceExhausted => Code::Unavailable,
        code => code,
    };
    Status::new(code, closing.text.clone())
}

fn closing(code: Code, reason: &'static str, text: String) -> Closing {
    Closing { code, reason, text }
}

/// The call lacks the security metadata (SPIFFE_Workload_Endpoint §3).
#[must_use]
pub fn no_header() -> Closing {
    let text = format!("security header missing: send the metadata {SECURITY_KEY}: {SECURITY_VALUE}, once");
    closing(Code::InvalidArgument, "no_header", text)
}

/// The kernel named nobody at the other end.
#[must_use]
pub fn no_peer() -> Closing {
    let text = "no identity issued: the kernel named no peer for this connection".to_owned();
    closing(Code::PermissionDenied, "no_peer", text)
}

/// What is asked for did not come in time.
#[must_use]
pub fn not_ready(cause: &str) -> Closing {
    closing(Code::Unavailable, "not_ready", format!("not ready: {cause}"))
}

/// Too many requests.
#[must_use]
pub fn too_often(limit: Limit) -> Closing {
    let (reason, whose) = match limit {
        Limit::One => ("too_often", "this workload"),
        Limit::All => ("too_busy", "the workloads of this node"),
    };
    let text = format!("{whose} ask for tokens too often; ask again in a second, and keep what you get");
    closing(Code::Unavailable, reason, text)
}

/// No audience, or one that is not served.
#[must_use]
pub fn bad_audience(fault: &ClaimFault) -> Closing {
    closing(Code::InvalidArgument, "audience", format!("audience: {fault}"))
}

/// The SPIFFE ID asked for is none.
#[must_use]
pub fn bad_id(fault: &dyn std::fmt::Display) -> Closing {
    closing(Code::InvalidArgument, "spiffe_id", format!("spiffe_id: {fault}"))
}

/// It is an identity, but not the caller's.
#[must_use]
pub fn not_yours(id: &SpiffeId) -> Closing {
    let text = format!("no identity issued: this workload may not have {id}");
    closing(Code::PermissionDenied, "not_yours", text)
}

/// A mandatory field is empty.
#[must_use]
pub fn empty(field: &str) -> Closing {
    closing(Code::InvalidArgument, "empty_field", format!("{field} is empty"))
}

/// A token that does not hold.
#[must_use]
pub fn invalid_token(fault: &JwtError) -> Closing {
    closing(
        Code::InvalidArgument,
        "invalid_token",
        bounded(&fault.to_string()),
    )
}

/// The CA gave no token.
#[must_use]
pub fn no_token(id: &SpiffeId, failure: &Failure) -> Closing {
    let text = format!("no token of {id}: {failure}");
    closing(Code::Unavailable, failure.kind.code(), text)
}

/// The optional WIT profile is not served (SPIFFE_Workload_API §7).
#[must_use]
pub fn no_wit_profile() -> Closing {
    let text = "the WIT profile is not served here".to_owned();
    closing(Code::Unimplemented, "wit_profile", text)
}
