use super::*;
use crate::authn::claims::ClaimsFault;
use signet_certs::SpiffeId;
use signet_policy::NodeDenied;

#[test]
fn each_refusal_has_the_code_its_callers_act_on() {
    let id: SpiffeId = "spiffe://cluster.local/ns/a/sa/b".parse().unwrap();
    let other = CsrError::OtherName {
        asked: "spiffe://cluster.local/ns/a/sa/c".into(),
        permitted: id.clone(),
    };
    let ending = IssueError::IssuerEnding {
        authority: "aa".into(),
        left_seconds: 3,
    };
    let impersonation = Denied::ImpersonationDisabled {
        requested: "x".into(),
        own: id,
    };
    let table: Vec<(Refusal, Code)> = vec![
        (IssueRequestError::NoCsr.into(), Code::InvalidArgument),
        (CsrError::UnprovenKey.into(), Code::InvalidArgument),
        (other.into(), Code::InvalidArgument),
        (AuthnError::NoToken.into(), Code::Unauthenticated),
        (
            AuthnError::Claims(ClaimsFault::Expired(1)).into(),
            Code::Unauthenticated,
        ),
        (AuthnError::Unavailable("away".into()).into(), Code::Unavailable),
        (AuthnError::Overloaded.into(), Code::ResourceExhausted),
        (Refusal::Overloaded, Code::ResourceExhausted),
        (MessageError::NotOne.into(), Code::InvalidArgument),
        (MessageError::TooLarge(1).into(), Code::OutOfRange),
        (MessageError::Compressed.into(), Code::Unimplemented),
        (Refusal::Late, Code::DeadlineExceeded),
        (AuthorizeError::from(impersonation).into(), Code::Unauthenticated),
        (
            AuthorizeError::from(LookupError::Unavailable("away".into())).into(),
            Code::Unavailable,
        ),
        (
            AuthorizeError::from(LookupError::CallerShare).into(),
            Code::ResourceExhausted,
        ),
        (ending.into(), Code::Unavailable),
        (IssueError::Profile("id".into()).into(), Code::Internal),
    ];
    for (refusal, code) in table {
        assert_eq!(refusal.status().code(), code, "{refusal}");
    }
}

#[test]
fn an_overloaded_ca_says_when_to_come_back() {
    let status = Refusal::Overloaded.status();
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "500");
}

#[test]
fn a_node_is_not_told_what_runs_elsewhere() {
    let denied = Denied::from(NodeDenied::PodReplaced {
        pod: "signet-system/agent".into(),
        token: "u1".into(),
        now: "u2".into(),
    });
    let status = Refusal::from(AuthorizeError::from(denied)).status();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(!status.message().contains("u2"), "{status}");
}

#[test]
fn strangers_are_not_told_why_their_token_failed() {
    let text = Refusal::from(AuthnError::Claims(ClaimsFault::Expired(77)))
        .status()
        .message()
        .to_owned();
    assert!(!text.contains("77") && !text.contains("expired"), "{text}");
}
