//! What a failed call means: one kind per thing somebody can do about it.

use std::time::Duration;

use tonic::{Code, Status};

use super::dial::DialError;

/// Longest wait a CA can ask for with `grpc-retry-pushback-ms`: it must not be able to starve us.
const LONGEST_PUSHBACK: Duration = Duration::from_secs(300);

/// Why there is no SVID or bundle this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The CA cannot be reached, or says that what it needs cannot be.
    Unavailable,
    /// It refuses the token.
    Refused,
    /// It cannot read the request, or does not know the method.
    Malformed,
    /// It has too much to do.
    Overloaded,
    /// It did not answer in time.
    Deadline,
    /// It failed inside.
    Internal,
    /// Its serving certificate is not accepted by the roots we have.
    TlsUntrusted,
    /// There are no roots to accept it by.
    RootsUnreadable,
    /// There is no token to send.
    TokenUnreadable,
    /// The answer is no SVID, or one of another identity or key.
    BadAnswer,
    /// The SVID does not verify under the newest bundle.
    NotVerified,
    /// There is no bundle yet to verify it under.
    NoBundle,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Unavailable,
        Self::Refused,
        Self::Malformed,
        Self::Overloaded,
        Self::Deadline,
        Self::Internal,
        Self::TlsUntrusted,
        Self::RootsUnreadable,
        Self::TokenUnreadable,
        Self::BadAnswer,
        Self::NotVerified,
        Self::NoBundle,
    ];

    /// A short word that stays the same, for labels and programs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
            Self::Overloaded => "overloaded",
            Self::Deadline => "deadline",
            Self::Internal => "internal",
            Self::TlsUntrusted => "tls_untrusted",
            Self::RootsUnreadable => "roots_unreadable",
            Self::TokenUnreadable => "token_unreadable",
            Self::BadAnswer => "bad_answer",
            Self::NotVerified => "not_verified",
            Self::NoBundle => "no_bundle",
        }
    }
}

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What it means.
    pub kind: FailureKind,
    /// What was wrong, as a sentence without secrets.
    pub text: String,
    /// How long the CA asks us to wait, if it does.
    pub retry_after: Option<Duration>,
    /// Whether there was a connection to the CA.
    pub reached: bool,
}

impl Failure {
    /// Of this kind, without a hint.
    #[must_use]
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            retry_after: None,
            reached: true,
        }
    }

    /// From the status of a call to the CA at `address`.
    #[must_use]
    pub fn from_status(status: &Status, address: &str) -> Self {
        if let Some(dial) = dial_error(status) {
            let failure = Self::new(dial.kind(), format!("dial {address}: {dial}"));
            return Self {
                reached: false,
                ..failure
            };
        }
        let kind = match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => FailureKind::Refused,
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::NotFound
            | Code::Unimplemented => FailureKind::Malformed,
            Code::ResourceExhausted => FailureKind::Overloaded,
            Code::DeadlineExceeded => FailureKind::Deadline,
            Code::Unavailable | Code::Cancelled => FailureKind::Unavailable,
            _ => FailureKind::Internal,
        };
        let text = format!(
            "the CA at {address} answered {}: {}",
            status.code(),
            bounded(status.message())
        );
        Self {
            kind,
            text,
            retry_after: pushback(status),
            reached: true,
        }
    }
}

/// A stranger's text, cut to a length that fits a log line.
pub(crate) fn bounded(text: &str) -> String {
    const MOST: usize = 512;
    let mut cut: String = text
        .chars()
        .take(MOST)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if cut.len() < text.len() && text.chars().count() > MOST {
        cut.push('…');
    }
    cut
}

fn dial_error(status: &Status) -> Option<&DialError> {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(dial) = error.downcast_ref::<DialError>() {
            return Some(dial);
        }
        cause = error.source();
    }
    None
}

/// `grpc-retry-pushback-ms`; a negative one means "do not retry", which for a renewal can only mean
/// "as late as possible".
fn pushback(status: &Status) -> Option<Duration> {
    let value = status.metadata().get("grpc-retry-pushback-ms")?.to_str().ok()?;
    match value.trim().parse::<i64>().ok()?.try_into() {
        Ok(millis) => Some(Duration::from_millis(millis).min(LONGEST_PUSHBACK)),
        Err(_) => Some(LONGEST_PUSHBACK),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_pushback(value: &str) -> Status {
        let mut status = Status::resource_exhausted("too many");
        status
            .metadata_mut()
            .insert("grpc-retry-pushback-ms", value.parse().unwrap());
        status
    }

    #[test]
    fn codes_map_to_kinds_and_the_text_names_the_ca() {
        for (status, kind) in [
            (Status::unauthenticated("x"), FailureKind::Refused),
            (Status::invalid_argument("x"), FailureKind::Malformed),
            (Status::unavailable("x"), FailureKind::Unavailable),
            (Status::resource_exhausted("x"), FailureKind::Overloaded),
            (Status::deadline_exceeded("x"), FailureKind::Deadline),
            (Status::internal("x"), FailureKind::Internal),
            (Status::unknown("x"), FailureKind::Internal),
        ] {
            let failure = Failure::from_status(&status, "ca:15012");
            assert_eq!(failure.kind, kind);
            assert!(
                failure.text.starts_with("the CA at ca:15012 answered "),
                "{failure}"
            );
        }
    }

    #[test]
    fn a_hint_to_wait_is_honoured_and_bounded() {
        let wait = |value: &str| Failure::from_status(&with_pushback(value), "ca").retry_after;
        assert_eq!(wait("1500"), Some(Duration::from_millis(1500)));
        assert_eq!(wait("999999999"), Some(LONGEST_PUSHBACK));
        assert_eq!(wait("-1"), Some(LONGEST_PUSHBACK));
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn a_strangers_text_is_cut_and_loses_its_control_characters() {
        assert_eq!(bounded("a\nb"), "a b");
        assert_eq!(bounded(&"x".repeat(2_000)).chars().count(), 513);
    }
}
