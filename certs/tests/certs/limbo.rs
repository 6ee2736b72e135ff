//! One chain per defect, and the one reason each must give.

mod anchors;
mod dates;
mod leaves;
mod names;
mod paths;
mod signatures;

use signet_certs::bundle::AuthorityFault;
use signet_certs::profile::LeafFault;
use signet_certs::svid::SvidError;
use signet_certs::verify::{Place, VerifyError};

use crate::support::domain;

fn leaf(fault: LeafFault) -> VerifyError {
    VerifyError::Svid(SvidError::Leaf(fault))
}

fn intermediate(fault: AuthorityFault) -> VerifyError {
    VerifyError::Authority {
        place: Place::Intermediate,
        fault,
    }
}

fn unknown_issuer() -> VerifyError {
    VerifyError::UnknownIssuer(domain())
}
