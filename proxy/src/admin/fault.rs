//! Why a handshake did not go well, as one word of a fixed list: whose fault it is follows from the word.

use std::io;

use rustls::Error;
use signet_certs::tls::refusal;
use signet_certs::verify::VerifyError;

use crate::outbound::DialFailure;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// A stable word.
    pub(super) word: &'static str,
    /// A sentence.
    pub(super) error: String,
    /// The alert by which the other side ended it, as RFC 8446 §6 names it.
    pub(super) alert: Option<String>,
}

impl Found {
    pub(super) fn new(word: &'static str, error: String) -> Self {
        let alert = None;
        Self { word, error, alert }
    }
}

/// Of a connection that was not made.
pub(super) fn of_dial(failure: &DialFailure) -> Found {
    let word = match failure {
        DialFailure::Resolve { .. } => "unresolved",
        DialFailure::Slow { .. } => "connect_slow",
        // The others belong to handshakes, which are made apart from this.
        _ => "unreachable",
    };
    Found::new(word, failure.to_string())
}

/// Of a handshake that was not finished.
pub(super) fn of_handshake(error: &io::Error) -> Found {
    let Some(inner) = tls(error) else {
        return match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Found::new(
                "reset",
                "the other side reset the connection during the handshake".to_owned(),
            ),
            io::ErrorKind::UnexpectedEof => Found::new(
                "closed",
                "the other side closed the connection during the handshake".to_owned(),
            ),
            _ => Found::new("handshake", error.to_string()),
        };
    };
    if let Some(fault) = refusal(inner) {
        return Found::new(of_certificate(fault), fault.to_string());
    }
    of_tls(inner)
}

/// Of a handshake that was finished on our side, and ended by the other.
pub(super) fn of_last_word(error: &io::Error) -> Found {
    match (tls(error), error.kind()) {
        (Some(inner), _) => of_tls(inner),
        (None, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => Found::new(
            "reset_after",
            "the handshake was done, and then the other side reset the connection".to_owned(),
        ),
        // An end without a goodbye is bad manners, and no objection.
        (None, io::ErrorKind::UnexpectedEof) => Found::new("ok", "it ended without close_notify".to_owned()),
        (None, _) => Found::new("handshake", error.to_string()),
    }
}

fn tls(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

fn of_tls(error: &Error) -> Found {
    match error {
        Error::AlertReceived(alert) => {
            let alert = snake(&format!("{alert:?}"));
            Found {
                word: "refused_by_peer",
                error: format!("the other side ended the handshake with the alert {alert}"),
                alert: Some(alert),
            }
        }
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. } => Found::new(
            "no_tls",
            format!("what the other side answers is no TLS: {error}"),
        ),
        Error::PeerIncompatible(_) => Found::new("incompatible", error.to_string()),
        _ => Found::new("handshake", error.to_string()),
    }
}

fn of_certificate(fault: &VerifyError) -> &'static str {
    match fault {
        VerifyError::OtherId { .. } => "other_identity",
        VerifyError::UnknownTrustDomain(_) | VerifyError::UnknownIssuer(_) | VerifyError::Signature => {
            "untrusted_root"
        }
        VerifyError::Expired { .. } => "peer_expired",
        VerifyError::NotYetValid { .. } => "peer_not_yet_valid",
        _ => "bad_certificate",
    }
}

/// `UnknownCA` as `unknown_ca`.
fn snake(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    let mut before_was_small = false;
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && before_was_small {
            text.push('_');
        }
        before_was_small = !letter.is_ascii_uppercase();
        text.push(letter.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, InvalidMessage, PeerIncompatible};

    use super::*;

    fn wrapped(error: Error) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    #[test]
    fn every_way_to_fail_has_its_word() {
        let alert = |alert| wrapped(Error::AlertReceived(alert));
        for (error, word, said) in [
            (
                alert(AlertDescription::UnknownCA),
                "refused_by_peer",
                Some("unknown_ca"),
            ),
            (
                alert(AlertDescription::CertificateUnknown),
                "refused_by_peer",
                Some("certificate_unknown"),
            ),
            (
                wrapped(Error::InvalidMessage(InvalidMessage::InvalidContentType)),
                "no_tls",
                None,
            ),
            (
                wrapped(Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon)),
                "incompatible",
                None,
            ),
            (io::ErrorKind::ConnectionReset.into(), "reset", None),
            (io::ErrorKind::UnexpectedEof.into(), "closed", None),
            (wrapped(Error::DecryptError), "handshake", None),
        ] {
            let found = of_handshake(&error);
            assert_eq!((found.word, found.alert.as_deref()), (word, said), "{error:?}");
        }
        let after = of_last_word(&alert(AlertDescription::CertificateExpired));
        assert_eq!(after.alert.as_deref(), Some("certificate_expired"));
        let reset = of_last_word(&io::ErrorKind::ConnectionReset.into());
        assert_eq!(reset.word, "reset_after");
    }

    #[test]
    fn refused_certificates_are_told_apart() {
        let domain = || "other.example".parse().unwrap();
        let place = signet_certs::verify::Place::Leaf;
        for (fault, word) in [
            (VerifyError::UnknownTrustDomain(domain()), "untrusted_root"),
            (VerifyError::UnknownIssuer(domain()), "untrusted_root"),
            (
                VerifyError::Expired {
                    place,
                    ago_seconds: 1,
                },
                "peer_expired",
            ),
            (
                VerifyError::NotYetValid { place, in_seconds: 1 },
                "peer_not_yet_valid",
            ),
            (VerifyError::PathLength, "bad_certificate"),
        ] {
            assert_eq!(of_certificate(&fault), word);
        }
    }
}
