//! Requests that were let pass by a token, once the rules for it have changed: what only waits for keys.

use super::*;

/// A rule for the issuer of Alice whose keys have never come.
fn keyless(more: &str) -> String {
    format!("issuer: https://a.test\njwksUri: https://a.test/keys\n{more}")
}

async fn alice(request: &Parts) -> Arc<RequestIdentity> {
    let before = judge(&rules(&[of_a("")]), request).await;
    before.ok().unwrap().identity.unwrap()
}

/// Why it would not be let pass now, and whether that is for want of keys alone.
fn again(now: &[String], request: &Parts, identity: Option<&RequestIdentity>) -> (&'static str, bool) {
    let rules = rules(now);
    let keys = KeySets::new(&rules, |_, _| IssuerKeys::Given(Given::fixed(None)));
    let at = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
    match tokens().judge_again(&rules, &keys, (request, identity), at) {
        Ok(_) => ("accepted", false),
        Err(lost) => (lost.refused.as_str(), lost.waits),
    }
}

fn bearer(token: &str) -> Parts {
    get("/", &[("authorization", &format!("Bearer {token}"))])
}

#[tokio::test]
async fn a_token_waits_for_the_keys_of_its_rule_unless_a_rule_with_keys_refuses_it() {
    let request = bearer(&A.token(ALICE));
    let alice = alice(&request).await;
    let other_key = format!("issuer: https://a.test\njwks: '{}'\n", B.jwks());
    for (now, expected) in [
        (vec![keyless("")], ("keys_not_fetched", true)),
        // Rules for others say nothing of it.
        (vec![keyless(""), of_b("")], ("keys_not_fetched", true)),
        (vec![of_b("")], ("issuer", false)),
        // The key that signed it is gone.
        (vec![other_key.clone()], ("unknown_key", false)),
        (vec![other_key, keyless("")], ("unknown_key", false)),
        // What is missed would not make it good.
        (vec![keyless("audiences: [them]")], ("audience", false)),
        (
            vec![
                keyless("audiences: [them]"),
                keyless("forwardOriginalToken: true"),
            ],
            ("keys_not_fetched", true),
        ),
        (
            vec![of_a("audiences: [them]"), keyless("")],
            ("keys_not_fetched", false),
        ),
    ] {
        assert_eq!(again(&now, &request, Some(&alice)), expected, "{now:?}");
    }
    assert!(
        !again(&[keyless("")], &request, None).1,
        "nobody has come with it"
    );
}

#[tokio::test]
async fn a_token_that_waits_is_no_grace_for_another_one_beside_it() {
    let in_header = "fromHeaders: [{name: x-t}]";
    let bob = B.token(r#"{"iss":"https://b.test","sub":"bob"}"#);
    let (alone, both) = (
        bearer(&A.token(ALICE)),
        get(
            "/",
            &[
                ("authorization", &format!("Bearer {}", A.token(ALICE))),
                ("x-t", &bob),
            ],
        ),
    );
    let alice = alice(&alone).await;
    // The rule of Alice is gone; that of Bob has no keys yet.
    let bobs = format!("issuer: https://b.test\njwksUri: https://b.test/keys\n{in_header}");
    let gone = format!("issuer: https://c.test\njwks: '{}'\n", A.jwks());
    assert_eq!(
        again(&[bobs, gone], &both, Some(&alice)),
        ("keys_not_fetched", false)
    );
}
