//! What came of a connection or a request, as one word of a fixed list.

use signet_policy::Denial;
use signet_policy::decision::ProviderDenial;
use signet_policy::tokens::TokenDenial;

/// What came of it. By who is at fault; each word stays the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It was served.
    Ok,
    /// The client's TLS, or its lack of TLS.
    Tls(Tls),
    /// An identity, here or there.
    Identity(Identity),
    /// A policy.
    Policy(Policy),
    /// The request's token.
    Token(Token),
    /// The request itself.
    Request(RequestFault),
    /// The upstream.
    Upstream(Upstream),
    /// The client, for no fault of ours.
    Client(Client),
    /// A bound was hit.
    Limit(Limit),
    /// It came to a port that takes redirected traffic, and is none that is served there.
    Capture(Capture),
    /// This process is shutting down.
    Drained,
}

/// Faults of the client's TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tls {
    /// Plaintext where mutual TLS is demanded.
    PlaintextRefused,
    /// It did not say enough in time.
    Stalled,
    /// It began as TLS and is none.
    Malformed,
    /// The handshake failed.
    Handshake,
    /// It has no certificate.
    NoCertificate,
    /// Its certificate is not accepted.
    CertificateRefused,
}

/// Faults of identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// We have no SVID to present.
    NoneOfOurs,
    /// The upstream is somebody else.
    UnexpectedUpstream,
    /// The upstream's certificate is not accepted.
    UpstreamRefused,
    /// The other end of an open connection is no longer vouched for by the bundles.
    TrustWithdrawn,
}

/// What policies say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// There are none yet, so nobody passes.
    NotReady,
    /// A DENY rule matched.
    Denied,
    /// No ALLOW rule matched.
    NotAllowed,
    /// A policy that cannot be read.
    Faulty,
    /// An external authorizer said no.
    ProviderRefused,
    /// An external authorizer that is not configured.
    ProviderUnknown,
    /// An external authorizer that cannot judge connections.
    ProviderHttpOnly,
    /// An external authorizer that did not answer.
    ProviderFailed,
    /// The permit of an open connection was withdrawn.
    Withdrawn,
    /// The SVID that the connection was opened with has ended.
    Expired,
}

/// Faults of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Token {
    /// Not valid for any issuer.
    Invalid,
    /// Two different valid ones.
    Ambiguous,
    /// A RequestAuthentication that cannot be read.
    Faulty,
    /// The issuer's keys were never fetched.
    NoKeys,
    /// It was good when its request came, and is no longer.
    Withdrawn,
}

/// Faults of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestFault {
    /// Malformed or ambiguous.
    Bad,
    /// Headers larger than allowed.
    HeadersTooLarge,
    /// A body larger than allowed.
    BodyTooLarge,
    /// It did not arrive in time.
    Slow,
    /// An upgrade or method that is not served.
    Unsupported,
}

/// Faults of upstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// It cannot be reached.
    Connect,
    /// It did not answer in time.
    Slow,
    /// Its handshake failed.
    Handshake,
    /// It broke the connection.
    Reset,
    /// Its answer is malformed.
    BadAnswer,
    /// Too many connections or requests to it.
    Busy,
    /// It is not among the destinations, and others are refused.
    Unlisted,
}

/// What the client did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// It went away before the end.
    Gone,
    /// It was silent for too long.
    Idle,
}

/// Bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Connections in all.
    Connections,
    /// Connections or requests from one address.
    Source,
    /// Connections that do not say what they are.
    Unsettled,
    /// An abuse of HTTP/2.
    Abuse,
    /// Bytes that came and cannot be acted upon yet.
    Waiting,
}

/// What is wrong with a connection to a port that takes redirected traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capture {
    /// Where it was going is not known.
    Unknown,
    /// It was going to such a port: as a rule it was not redirected.
    Direct,
    /// It comes from another host, and would use the workload's identity.
    ForeignSource,
    /// It was going to another host.
    ForeignDestination,
    /// It was going to loopback.
    Loopback,
}

impl Reason {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Tls(fault) => fault.as_str(),
            Self::Identity(Identity::NoneOfOurs) => "identity_none",
            Self::Identity(Identity::UnexpectedUpstream) => "identity_unexpected_upstream",
            Self::Identity(Identity::UpstreamRefused) => "identity_upstream_refused",
            Self::Identity(Identity::TrustWithdrawn) => "trust_withdrawn",
            Self::Policy(policy) => policy.as_str(),
            Self::Token(Token::Invalid) => "token_invalid",
            Self::Token(Token::Ambiguous) => "token_ambiguous",
            Self::Token(Token::Faulty) => "token_faulty_policy",
            Self::Token(Token::NoKeys) => "token_no_keys",
            Self::Token(Token::Withdrawn) => "token_withdrawn",
            Self::Request(RequestFault::Bad) => "request_bad",
            Self::Request(RequestFault::HeadersTooLarge) => "request_headers_too_large",
            Self::Request(RequestFault::BodyTooLarge) => "request_body_too_large",
            Self::Request(RequestFault::Slow) => "request_slow",
            Self::Request(RequestFault::Unsupported) => "request_unsupported",
            Self::Upstream(upstream) => upstream.as_str(),
            Self::Client(Client::Gone) => "client_gone",
            Self::Client(Client::Idle) => "client_idle",
            Self::Limit(Limit::Connections) => "limit_connections",
            Self::Limit(Limit::Source) => "limit_source",
            Self::Limit(Limit::Unsettled) => "limit_unsettled",
            Self::Limit(Limit::Abuse) => "limit_abuse",
            Self::Limit(Limit::Waiting) => "limit_waiting",
            Self::Capture(capture) => capture.as_str(),
            Self::Drained => "drained",
        }
    }
}

impl Capture {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "capture_unknown",
            Self::Direct => "capture_direct",
            Self::ForeignSource => "capture_foreign_source",
            Self::ForeignDestination => "capture_foreign_destination",
            Self::Loopback => "capture_loopback",
        }
    }
}

impl Tls {
    fn as_str(self) -> &'static str {
        match self {
            Self::PlaintextRefused => "tls_plaintext_refused",
            Self::Stalled => "tls_stalled",
            Self::Malformed => "tls_malformed",
            Self::Handshake => "tls_handshake",
            Self::NoCertificate => "tls_no_certificate",
            Self::CertificateRefused => "tls_certificate_refused",
        }
    }
}

impl Policy {
    fn as_str(self) -> &'static str {
        match self {
            Self::NotReady => "policy_not_ready",
            Self::Denied => "policy_denied",
            Self::NotAllowed => "policy_not_allowed",
            Self::Faulty => "policy_faulty",
            Self::ProviderRefused => "policy_provider_refused",
            Self::ProviderUnknown => "policy_provider_unknown",
            Self::ProviderHttpOnly => "policy_provider_http_only",
            Self::ProviderFailed => "policy_provider_failed",
            Self::Withdrawn => "policy_withdrawn",
            Self::Expired => "svid_expired",
        }
    }
}

impl Upstream {
    fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "upstream_connect",
            Self::Slow => "upstream_slow",
            Self::Handshake => "upstream_handshake",
            Self::Reset => "upstream_reset",
            Self::BadAnswer => "upstream_bad_answer",
            Self::Busy => "upstream_busy",
            Self::Unlisted => "upstream_unlisted",
        }
    }
}

impl From<&Denial<'_>> for Reason {
    fn from(denial: &Denial<'_>) -> Self {
        Self::Policy(match denial {
            Denial::Denied { .. } => Policy::Denied,
            Denial::NotAllowed { .. } => Policy::NotAllowed,
            Denial::Faulty { .. } => Policy::Faulty,
            Denial::Custom { why, .. } => match why {
                ProviderDenial::Refused => Policy::ProviderRefused,
                ProviderDenial::Unknown => Policy::ProviderUnknown,
                ProviderDenial::HttpOnly => Policy::ProviderHttpOnly,
            },
        })
    }
}

impl From<&TokenDenial<'_>> for Reason {
    fn from(denial: &TokenDenial<'_>) -> Self {
        Self::Token(match denial {
            TokenDenial::Invalid => Token::Invalid,
            TokenDenial::Ambiguous => Token::Ambiguous,
            TokenDenial::Faulty(_) => Token::Faulty,
        })
    }
}
