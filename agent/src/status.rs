//! How the keeping of one SVID goes, for operators and for whoever waits for it.

use signet_certs::UnixTime;
use signet_runtime::clock::rfc3339;

use crate::ca_client::FailureKind;

/// The last failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastFailure {
    /// When.
    pub at: UnixTime,
    /// What it means.
    pub kind: FailureKind,
    /// As a sentence.
    pub text: String,
}

/// How rotation goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// When the next request is due.
    pub renews_at: Option<UnixTime>,
    /// SVIDs received after the first.
    pub renewals: u64,
    /// When the last SVID came.
    pub last_success: Option<UnixTime>,
    /// The last failure, even if a success followed.
    pub last_failure: Option<LastFailure>,
}

impl Status {
    /// Why there is no SVID, as far as is known.
    #[must_use]
    pub fn cause(&self) -> String {
        match &self.last_failure {
            Some(failure) => format!(
                "{} ({}, {})",
                failure.text,
                failure.kind.code(),
                rfc3339(failure.at)
            ),
            None => "the CA has not answered yet".into(),
        }
    }
}
