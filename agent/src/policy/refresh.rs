//! A proxy misses a key of an issuer: its set is fetched anew, now and then only, and only if the proxy's own policies
//! ask for it.

use signet_proto::policy::keys::{Digest, address};
use signet_proto::wire::signet::policy::v1::RefreshKeysRequest;
use tonic::Code;

use super::Policies;
use super::serve::{basis, not_served};
use crate::attest::Peer;
use crate::sds::{Closing, Parts};

/// Whether there is a newer set.
pub(super) async fn refresh(
    parts: &Parts,
    policies: Option<&Policies>,
    peer: &Peer,
    request: RefreshKeysRequest,
) -> Result<bool, Closing> {
    let workload = parts.attest(peer).await?;
    let policies = policies.ok_or_else(not_served)?;
    let address = address(request.address).ok_or_else(malformed)?;
    if request.held.len() != Digest::default().len() {
        return Err(malformed());
    }
    let Some(basis) = basis(parts, policies, &workload)? else {
        return Ok(false);
    };
    let mut wanted = basis.issuers(&policies.mesh);
    wanted.retain(|issuer, _| issuer.address == address);
    let Some(issuers) = policies.issuers.as_ref().filter(|_| !wanted.is_empty()) else {
        return Err(not_asked_for());
    };
    Ok(issuers.refresh(&wanted, &request.held).await)
}

fn malformed() -> Closing {
    Closing {
        code: Code::InvalidArgument,
        reason: "malformed",
        text: "address and held must be there".into(),
    }
}

fn not_asked_for() -> Closing {
    Closing {
        code: Code::PermissionDenied,
        reason: "not_asked_for",
        text: "no policy of this workload asks for that key set".into(),
    }
}
