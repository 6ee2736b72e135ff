//! The answers of a real API server (v1.20.2, recorded), judged one by one.

use super::*;

const RECORDED: &str = include_str!("../../../../devcluster/tests/data/tokenreview-v1.20.json");

/// The status of a recorded case, or nothing where the server answered with an error.
fn recorded(case: &str) -> Option<TokenReviewStatus> {
    let all: serde_json::Value = serde_json::from_str(RECORDED).unwrap();
    let case = all["cases"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["case"] == case)
        .unwrap()
        .clone();
    serde_json::from_value(case["response"].clone())
        .ok()
        .and_then(|review: TokenReview| review.status)
}

fn judged(case: &str) -> Result<Caller, ReviewFault> {
    judge(recorded(case).unwrap(), &["signet-ca".to_owned()])
}

#[test]
fn accepts_the_recorded_good_answers_with_their_pod() {
    for case in ["bound_pod_ok", "two_audiences_one_match", "pod_deleted_1s_after"] {
        let caller = judged(case).unwrap();
        assert_eq!(caller.account().to_string(), "billing/api");
        assert_eq!(caller.pod().unwrap().name, "api-0");
        assert_eq!(caller.pod().unwrap().node, None);
    }
    assert_eq!(judged("unbound_ok").unwrap().pod(), None);
}

#[test]
fn refuses_every_recorded_refusal_with_the_servers_words() {
    for (case, words) in [
        ("audience_mismatch", "invalid for the target audiences"),
        ("api_audience_token", "invalid for the target audiences"),
        ("garbage", "invalid bearer token"),
        ("bad_signature", "cryptographic primitive"),
        ("truncated", "invalid bearer token"),
        ("pod_deleted", "Token has been invalidated"),
        ("pod_recreated", "does not match claim"),
        ("account_deleted", "not found"),
        ("account_recreated", "does not match claim"),
    ] {
        match judged(case) {
            Err(ReviewFault::NotAuthenticated(said)) => assert!(said.contains(words), "{case}: {said}"),
            other => panic!("{case}: {other:?}"),
        }
    }
}

#[test]
fn refuses_an_answer_whose_audiences_are_missing_or_foreign() {
    let mut status = recorded("bound_pod_ok").unwrap();
    status.audiences = None;
    assert_eq!(
        judge(status.clone(), &["signet-ca".into()]).unwrap_err(),
        ReviewFault::Audiences
    );
    status.audiences = Some(vec!["other".into()]);
    assert_eq!(
        judge(status, &["signet-ca".into()]).unwrap_err(),
        ReviewFault::Audiences
    );
}

#[test]
fn refuses_users_that_are_no_service_account_by_name_and_by_group() {
    let good = recorded("bound_pod_ok").unwrap();
    let with = |change: fn(&mut UserInfo)| {
        let mut status = good.clone();
        change(status.user.as_mut().unwrap());
        judge(status, &["signet-ca".into()]).unwrap_err().as_str()
    };
    let refused = "review_not_service_account";
    assert_eq!(with(|user| user.username = Some("admin".into())), refused);
    assert_eq!(
        with(|user| user.username = Some("x:system:serviceaccount:a:b".into())),
        refused
    );
    assert_eq!(
        with(|user| user.username = Some("system:serviceaccount:a:b:c".into())),
        refused
    );
    assert_eq!(
        with(|user| user.username = Some("system:serviceaccount:a/b:c".into())),
        refused
    );
    assert_eq!(with(|user| user.groups = None), refused);
    assert_eq!(
        with(|user| user.groups = Some(vec!["system:serviceaccounts".into()])),
        refused
    );
    let other_namespace = |user: &mut UserInfo| {
        user.groups = Some(vec![
            "system:serviceaccounts".into(),
            "system:serviceaccounts:other".into(),
        ]);
    };
    assert_eq!(with(other_namespace), refused);
}

#[test]
fn an_error_beside_authenticated_true_is_a_refusal() {
    let mut status = recorded("bound_pod_ok").unwrap();
    status.error = Some("odd".into());
    assert_eq!(
        judge(status, &["signet-ca".into()]).unwrap_err().as_str(),
        "review_refused"
    );
}

#[test]
fn the_node_is_read_where_the_server_tells_it() {
    let mut status = recorded("bound_pod_ok").unwrap();
    let extra = status.user.as_mut().unwrap().extra.as_mut().unwrap();
    extra.insert(NODE_NAME.into(), vec!["node-1".into()]);
    let caller = judge(status, &["signet-ca".into()]).unwrap();
    assert_eq!(caller.pod().unwrap().node.as_deref(), Some("node-1"));
}

#[test]
fn a_peer_that_left_leaves_no_share_behind() {
    let shares = Arc::new(Shares {
        most: 2,
        peers: Mutex::default(),
    });
    let peer: IpAddr = "10.0.0.1".parse().unwrap();
    let (one, two) = (shares.of(Some(peer)), shares.of(Some(peer)));
    assert_eq!(shares.peers.lock().unwrap().len(), 1);
    drop((one, two));
    assert!(shares.peers.lock().unwrap().is_empty());
}
